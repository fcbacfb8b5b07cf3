//! One lot, answered at once: the request waits here while the `direct` steps work for its job.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::read::no_such_job;
use super::{Api, RequestError};
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::{JobStatus, LotStatus, Mode, VERSION};
use crate::http::Response;
use crate::jobs::results;
use crate::store::jobs::{self, JobRow};
use crate::store::lots::{self, LotRow, Of};
use crate::store::{StoreError, synchronous_calls};
use crate::workers::wakeups::Topic;

/// How often a job is looked at, whether a bell has rung or not.
const LOOK: Duration = Duration::from_secs(1);
/// What the reason of a lot begins with whose images cannot be fetched.
const UNREACHABLE: &str = "IMAGE_UNREACHABLE";

/// Repeats that a client may have waiting, for each of its jobs that may be waited for.
const REPEATS: u32 = 2;

/// The jobs that requests wait for. A permit is a job's, its repeats share it; as each of them holds a
/// worker, no more of them wait than jobs may be waited for. No repeat takes a new job's permit.
#[derive(Default)]
pub(super) struct SynchronousPermits(Mutex<HashMap<String, Waiting>>);

/// The requests that wait for one job.
struct Waiting {
    client: String,
    requests: u32,
}

impl SynchronousPermits {
    fn taken(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place among those that wait; free again when it is dropped.
pub(super) struct SynchronousPermit<'a> {
    permits: &'a SynchronousPermits,
    client: String,
    job: String,
}

impl Drop for SynchronousPermit<'_> {
    fn drop(&mut self) {
        let mut taken = self.permits.taken();
        if let Some(waiting) = taken.get_mut(&self.job) {
            waiting.requests -= 1;
            if waiting.requests == 0 {
                taken.remove(&self.job);
            }
        }
    }
}

/// Where a job stands while its client waits.
enum Stand {
    Final,
    /// What is left of it goes on in a batch.
    Released,
    Going,
}

impl Api {
    /// A place among the requests that wait for a job; none where too many do.
    pub(super) fn permit(&self, client: &str, job: &str) -> Option<SynchronousPermit<'_>> {
        let limits = &self.config.synchronous;
        let mut taken = self.permits.taken();
        let count = |client: Option<&str>| {
            let waiting = taken.values();
            waiting
                .filter(|it| client.is_none_or(|client| it.client == client))
                .fold((0, 0), |(jobs, repeats), it| {
                    (jobs + 1, repeats + it.requests - 1)
                })
        };
        let ((jobs, repeats), (own_jobs, own_repeats)) = (count(None), count(Some(client)));
        let fits = if taken.contains_key(job) {
            repeats < limits.concurrency && own_repeats < limits.per_client.saturating_mul(REPEATS)
        } else {
            jobs < limits.concurrency && own_jobs < limits.per_client
        };
        if !fits {
            return None;
        }
        let waiting = taken.entry(job.to_owned()).or_insert_with(|| Waiting {
            client: client.to_owned(),
            requests: 0,
        });
        waiting.requests += 1;
        Some(SynchronousPermit {
            permits: &self.permits,
            client: client.to_owned(),
            job: job.to_owned(),
        })
    }

    /// The answer to a repeat, which waits only for what is not known yet. None: the job is under way,
    /// and it is to be answered `later`, or too many wait for it already.
    pub(super) fn answer_again(
        &self,
        id: &str,
        client: &str,
        later: bool,
        started: Duration,
    ) -> Result<Option<Response>, RequestError> {
        let (job, stand) = self.look(id, client)?;
        let answer = match stand {
            Stand::Released | Stand::Going if later => return Ok(None),
            Stand::Final | Stand::Released => self.outcome(&job, &stand),
            Stand::Going => match self.permit(client, id) {
                Some(permit) => self.answer_at_once(&permit, started),
                None => return Ok(None),
            },
        };
        answer.map(Some)
    }

    /// Waits for a job that is worked on at once, until its time is over; `started`: when its
    /// request came, on the steady clock.
    pub(super) fn answer_at_once(
        &self,
        permit: &SynchronousPermit<'_>,
        started: Duration,
    ) -> Result<Response, RequestError> {
        let until = started + self.config.synchronous.timeout;
        let woken = self
            .wakeups
            .subscribe(&[Topic::SynchronousCallEnded, Topic::JobFinished]);
        loop {
            let (job, stand) = self.look(&permit.job, &permit.client)?;
            let left = until.saturating_sub(self.clock.now().steady);
            match stand {
                Stand::Final | Stand::Released => return self.outcome(&job, &stand),
                Stand::Going if left.is_zero() => return Ok(timed_out(&job)),
                // Woken or timed out: either way the job is looked at.
                Stand::Going => drop(woken.recv_timeout(left.min(LOOK))),
            }
        }
    }

    fn look(&self, id: &str, client: &str) -> Result<(JobRow, Stand), RequestError> {
        let found = self.store.read(|view| {
            let Some(job) = jobs::find(view, client, id)? else {
                return Ok(None);
            };
            let stand = if job.status.is_final() {
                Stand::Final
            } else if synchronous_calls::is_released(view, job.seq)? {
                Stand::Released
            } else {
                Stand::Going
            };
            Ok(Some((job, stand)))
        })?;
        Ok(found.ok_or_else(|| no_such_job(id))?)
    }

    fn outcome(&self, job: &JobRow, stand: &Stand) -> Result<Response, RequestError> {
        if job.cleaning_since.is_some() {
            let message =
                "The job was answered long ago; its results were removed after their time.";
            return Ok(refused(
                job,
                &ApiError::new(ErrorCode::ResultsRemoved, message),
            ));
        }
        let mut page = self
            .store
            .read(|view| lots::page(view, &job.id, Of::All, 0, 1))?;
        let lot = page
            .pop()
            .ok_or_else(|| StoreError::Conflict(format!("the lot of job {} is gone", job.id)))?;
        let described = lot.vision_result.is_some();
        Ok(match (job.status, stand) {
            (JobStatus::Cancelled, _) => refused(
                job,
                &ApiError::new(ErrorCode::JobCancelled, "The job was cancelled."),
            ),
            (JobStatus::Failed, _) => failed(job, &lot),
            (_, Stand::Released) if !described && self.is_late(job) => timed_out(job),
            (_, Stand::Released) if !described => refused(
                job,
                &ApiError::new(
                    ErrorCode::OpenaiApiError,
                    "OpenAI cannot be asked at once now. The job is stored and goes on in a batch: poll it under its \
                     `job_id`; sent again, it is the same job.",
                ),
            ),
            _ => Response::json(200, &answer(job, &lot)),
        })
    }

    /// Whether the time is over in which a job is answered at once.
    fn is_late(&self, job: &JobRow) -> bool {
        job.created_at + self.config.synchronous.timeout <= self.clock.now().wall
    }
}

/// The answer with what there is; where a part goes on in a batch, with what is still to come.
fn answer(job: &JobRow, lot: &LotRow) -> Value {
    let mut result = results::Lot::new(&job.languages, lot).value();
    let mut warnings = Vec::new();
    let mut pending = Vec::new();
    for description in result["descriptions"].as_array().into_iter().flatten() {
        let language = description["language"].as_str().unwrap_or_default();
        match description["error"].as_str() {
            Some(_) if lot.status == LotStatus::Pending => pending.push(language.to_owned()),
            Some(error) => warnings.push(format!("{language}: {error}")),
            None => {}
        }
    }
    if !pending.is_empty() {
        warnings.push(format!(
            "{} cannot be had at once and will come by a batch: poll the job",
            pending.join(", ")
        ));
    }
    if !lot.missing_images.is_empty() {
        warnings.push(format!(
            "{} of {} images cannot be fetched",
            lot.missing_images.len(),
            lot.missing_images.len() + lot.images_left()
        ));
    }
    if let Some(result) = result.as_object_mut() {
        result.remove("processed_at");
    }
    json!({
        "version": VERSION,
        "job_id": job.id,
        "processing_mode": Mode::Synchronous.as_str(),
        "total_lots": job.total_lots,
        "processed_at": job.completed_at.unwrap_or(job.updated_at).to_seconds_text(),
        "lots": [result],
        "warnings": warnings,
        "pending_languages": pending,
    })
}

fn failed(job: &JobRow, lot: &LotRow) -> Response {
    let reason = lot.error_message.as_deref().unwrap_or("no text was had");
    let code = if reason.starts_with(UNREACHABLE) {
        ErrorCode::ImageUnreachable
    } else {
        ErrorCode::OpenaiApiError
    };
    let missing = json!({"missing_images": lot.missing_images});
    refused(job, &ApiError::new(code, reason).with(missing))
}

fn timed_out(job: &JobRow) -> Response {
    let message = "OpenAI has not answered in time. The work goes on: poll the job under its `job_id`; sent again, it is \
                   the same job.";
    refused(job, &ApiError::new(ErrorCode::OpenaiTimeout, message))
}

/// A refusal that names its job and says how that stands: in its details, and beside them.
fn refused(job: &JobRow, refusal: &ApiError) -> Response {
    let mut details = json!({"job_id": job.id, "status": job.status.as_str()});
    if let (Value::Object(details), Value::Object(more)) = (&mut details, &refusal.details) {
        details.extend(more.clone());
    }
    let mut body = refusal.clone().with(details.clone()).body();
    if let (Value::Object(body), Value::Object(details)) = (&mut body, details) {
        body.extend(details);
    }
    Response::json(refusal.code.status(), &body)
}
