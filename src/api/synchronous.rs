//! Synchronous jobs: the request of one lot waits here while `workers::synchronous` works on its job.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::status::job_not_found;
use super::{Api, RequestError};
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::{JobStatus, LotStatus, Mode, VERSION};
use crate::http::Response;
use crate::jobs::lot_json::{LotJson, metadata_member};
use crate::store::jobs::{self, JobRow};
use crate::store::lots::{self, LotFilter, LotRow};
use crate::store::{StoreError, idempotency, synchronous_calls};
use crate::workers::wakeups::Topic;

/// How often the job's row is read without a wakeup.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How the error of a lot begins if its images cannot be fetched.
const UNREACHABLE: &str = "IMAGE_UNREACHABLE";

/// Repeats that may wait, for each job that a client may have waiting.
const REPEATS_PER_JOB: u32 = 2;

/// The jobs that requests wait for, by id. A permit belongs to a job, and its repeats share it.
///
/// Each waiting repeat occupies an HTTP worker, so their number is limited too. Repeats never use up the
/// permits of new jobs.
#[derive(Default)]
pub(super) struct SynchronousPermits(Mutex<HashMap<String, WaitingRequests>>);

/// The requests that wait for one job.
struct WaitingRequests {
    client: String,
    requests: u32,
}

impl SynchronousPermits {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, WaitingRequests>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permission of a request to wait for a job, until it is dropped.
pub(super) struct SynchronousPermit<'a> {
    permits: &'a SynchronousPermits,
    client: String,
    job: String,
}

impl Drop for SynchronousPermit<'_> {
    fn drop(&mut self) {
        let mut jobs = self.permits.lock();
        if let Some(waiting) = jobs.get_mut(&self.job) {
            waiting.requests -= 1;
            if waiting.requests == 0 {
                jobs.remove(&self.job);
            }
        }
    }
}

/// How far a synchronous job is.
enum SynchronousProgress {
    Final,
    /// A batch does the rest of the work.
    LeftToBatch,
    UnderWay,
}

impl Api {
    /// A permit to wait for a job; `None` if too many requests wait.
    pub(super) fn synchronous_permit(&self, client: &str, job: &str) -> Option<SynchronousPermit<'_>> {
        let limits = &self.config.synchronous;
        let mut jobs = self.synchronous.lock();
        let count = |client: Option<&str>| {
            let waiting = jobs.values();
            waiting
                .filter(|it| client.is_none_or(|client| it.client == client))
                .fold((0, 0), |(jobs, repeats), it| {
                    (jobs + 1, repeats + it.requests - 1)
                })
        };
        let ((all_jobs, all_repeats), (own_jobs, own_repeats)) = (count(None), count(Some(client)));
        let fits = if jobs.contains_key(job) {
            all_repeats < limits.concurrency
                && own_repeats < limits.per_client.saturating_mul(REPEATS_PER_JOB)
        } else {
            all_jobs < limits.concurrency && own_jobs < limits.per_client
        };
        if !fits {
            return None;
        }
        let waiting = jobs.entry(job.to_owned()).or_insert_with(|| WaitingRequests {
            client: client.to_owned(),
            requests: 0,
        });
        waiting.requests += 1;
        Some(SynchronousPermit {
            permits: &self.synchronous,
            client: client.to_owned(),
            job: job.to_owned(),
        })
    }

    /// The answer to a repeat of a synchronous job. `None` if the job is not final and the repeat cannot
    /// wait: its `mode` is batch, or too many requests wait.
    pub(super) fn answer_synchronous_repeat(
        &self,
        id: &str,
        client: &str,
        mode: Mode,
        started: Duration,
    ) -> Result<Option<Response>, RequestError> {
        let (job, progress) = self.read_progress(id, client)?;
        let answer = match progress {
            SynchronousProgress::Final => self.outcome(&job, &progress),
            _ if mode == Mode::Batch => return Ok(None),
            SynchronousProgress::LeftToBatch => self.outcome(&job, &progress),
            SynchronousProgress::UnderWay => match self.synchronous_permit(client, id) {
                Some(permit) => self.wait_for_answer(&permit, started),
                None => return Ok(None),
            },
        };
        answer.map(Some)
    }

    /// Waits for a job until `synchronous.timeout` is over, and answers. `started` is when the request
    /// arrived, on the steady clock.
    pub(super) fn wait_for_answer(
        &self,
        permit: &SynchronousPermit<'_>,
        started: Duration,
    ) -> Result<Response, RequestError> {
        let until = started + self.config.synchronous.timeout;
        let woken = self
            .wakeups
            .subscribe(&[Topic::SynchronousCallEnded, Topic::JobFinished]);
        loop {
            let (job, progress) = self.read_progress(&permit.job, &permit.client)?;
            let left = until.saturating_sub(self.clock.now().steady);
            let wait = left.min(POLL_INTERVAL);
            match progress {
                SynchronousProgress::Final | SynchronousProgress::LeftToBatch => {
                    return self.outcome(&job, &progress);
                }
                SynchronousProgress::UnderWay if left.is_zero() => return Ok(timed_out(&job)),
                // Woken or not, the row is read again.
                SynchronousProgress::UnderWay => drop(woken.recv_timeout(wait)),
            }
        }
    }

    fn read_progress(&self, id: &str, client: &str) -> Result<(JobRow, SynchronousProgress), RequestError> {
        let found = self.store.read(|view| {
            let Some(job) = jobs::find(view, client, id)? else {
                return Ok(None);
            };
            let progress = if job.status.is_final() {
                SynchronousProgress::Final
            } else if synchronous_calls::is_released(view, job.seq)? {
                SynchronousProgress::LeftToBatch
            } else {
                SynchronousProgress::UnderWay
            };
            Ok(Some((job, progress)))
        })?;
        Ok(found.ok_or_else(|| job_not_found(id))?)
    }

    /// The answer of a job that is final or left to a batch.
    fn outcome(&self, job: &JobRow, progress: &SynchronousProgress) -> Result<Response, RequestError> {
        if job.cleaning_since.is_some() {
            let message = "The job was answered long ago; its results were removed after their time.";
            return Ok(job_error(job, &ApiError::new(ErrorCode::ResultsRemoved, message)));
        }
        let mut page = self
            .store
            .read(|view| lots::page(view, &job.id, LotFilter::All, 0, 1))?;
        let lot = page
            .pop()
            .ok_or_else(|| StoreError::Conflict(format!("the lot of job {} is gone", job.id)))?;
        let described = lot.vision_result.is_some();
        Ok(match (job.status, progress) {
            (JobStatus::Cancelled, _) => job_error(
                job,
                &ApiError::new(ErrorCode::JobCancelled, "The job was cancelled."),
            ),
            (JobStatus::Failed, _) => failed(job, &lot),
            (_, SynchronousProgress::LeftToBatch) if !described && self.is_late(job) => timed_out(job),
            (_, SynchronousProgress::LeftToBatch) if !described => job_error(
                job,
                &ApiError::new(
                    ErrorCode::OpenaiApiError,
                    "OpenAI cannot be asked at once now. The job is stored and goes on in a batch: poll it under its \
                     `job_id`; sent again, it is the same job.",
                ),
            ),
            _ => Response::json(200, &answer_json(job, &lot, self.warnings(job)?)),
        })
    }

    /// What the job's acceptance warned of.
    fn warnings(&self, job: &JobRow) -> Result<Vec<String>, RequestError> {
        let acceptance = self.store.read(|view| idempotency::acceptance(view, job.seq))?;
        let acceptance: Value = match &acceptance {
            Some(text) => serde_json::from_str(text).map_err(StoreError::from)?,
            None => Value::Null,
        };
        let warnings = acceptance["warnings"].as_array().into_iter().flatten();
        Ok(warnings.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Whether `synchronous.timeout` is over for a job.
    fn is_late(&self, job: &JobRow) -> bool {
        job.created_at + self.config.synchronous.timeout <= self.clock.now().wall
    }
}

/// 200 with the texts that the job has. `pending_languages` are those that a batch still has to do.
fn answer_json(job: &JobRow, lot: &LotRow, mut warnings: Vec<String>) -> Value {
    let mut result = LotJson::new(&job.languages, lot).to_value();
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
    let mut answer = json!({
        "version": VERSION,
        "job_id": job.id,
        "processing_mode": Mode::Synchronous.as_str(),
        "total_lots": job.total_lots,
        "processed_at": job.completed_at.unwrap_or(job.updated_at).to_seconds_text(),
        "lots": [result],
        "warnings": warnings,
        "pending_languages": pending,
    });
    if let Value::Object(answer) = &mut answer {
        answer.extend(metadata_member(job));
    }
    answer
}

fn failed(job: &JobRow, lot: &LotRow) -> Response {
    let reason = lot.error_message.as_deref().unwrap_or("no text was had");
    let code = if reason.starts_with(UNREACHABLE) {
        ErrorCode::ImageUnreachable
    } else {
        ErrorCode::OpenaiApiError
    };
    let mut missing = json!({"missing_images": lot.missing_images});
    if !lot.missing_images.is_empty() {
        missing["missing_reasons"] = json!(lot.missing_reasons());
    }
    job_error(job, &ApiError::new(code, reason).with(missing))
}

fn timed_out(job: &JobRow) -> Response {
    let message = "OpenAI has not answered in time. The work goes on: poll the job under its `job_id`; sent again, it is \
                   the same job.";
    job_error(job, &ApiError::new(ErrorCode::OpenaiTimeout, message))
}

/// An error with the job's id and status, both in `details` and at the top level.
fn job_error(job: &JobRow, error: &ApiError) -> Response {
    let mut details = json!({"job_id": job.id, "status": job.status.as_str()});
    if let (Value::Object(details), Value::Object(more)) = (&mut details, &error.details) {
        details.extend(more.clone());
    }
    let mut body = error.clone().with(details.clone()).body();
    if let (Value::Object(body), Value::Object(details)) = (&mut body, details) {
        body.extend(details);
    }
    Response::json(error.code.status(), &body)
}
