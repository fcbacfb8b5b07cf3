//! The earlier service's paths, with their own answers.

use serde_json::{Map, Value, json};

use super::{Api, RequestError};
use crate::base::clock::Timestamp;
use crate::domain::job::{JobStatus, is_english};
use crate::http::{Request, Response};
use crate::jobs::lot_json::metadata_member;
use crate::jobs::results_stream::{ResultsStream, ResultsTemplate};
use crate::store::jobs::JobRow;
use crate::store::lots::LotRow;

impl Api {
    /// `GET /api/v1/jobs/{job_id}/status`
    pub(super) fn legacy_status(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let job = self.find_job(request, id, now)?;
        let mut answer = json!({
            "job_id": job.id,
            "status": job.status.as_str(),
            "created_at": job.created_at.to_seconds_text(),
            "updated_at": job.updated_at.to_seconds_text(),
        });
        if let Value::Object(answer) = &mut answer {
            let error = job.error_message.as_ref();
            answer.extend(error.map(|error| ("error".into(), json!(error))));
            answer.extend(metadata_member(&job));
        }
        Ok(Response::json(200, &answer))
    }

    /// `GET /api/v1/jobs/{job_id}`: always 200. The answer of a failed or cancelled job has the reason and
    /// the lots that were done.
    pub(super) fn legacy_job(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let job = self.find_job(request, id, now)?;
        let mut head = json!({"job_id": job.id, "status": job.status.as_str()});
        if let Value::Object(head) = &mut head
            && (job.status != JobStatus::Completed || job.cleaning_since.is_some())
        {
            let message = if job.cleaning_since.is_some() {
                format!(
                    "The job is {}; its lots were removed after their time.",
                    job.status
                )
            } else if job.status.is_final() {
                format!("The job is {}; `results` holds what was done.", job.status)
            } else {
                format!("The job is {}; ask again later.", job.status)
            };
            head.insert("message".into(), json!(message));
            head.insert("error".into(), json!(job.error_message));
        }
        if let Value::Object(head) = &mut head {
            head.extend(metadata_member(&job));
        }
        if !job.status.is_final() {
            return Ok(Response::json(200, &head));
        }
        let counts = format!(
            "],\"total_lots\":{},\"processed_lots\":{},\"failed_lots\":{}}}",
            job.total_lots, job.processed_lots, job.failed_lots
        );
        let template = ResultsTemplate::new(&head, "\"results\":[", counts, |job, row, to| {
            serde_json::to_writer(to, &lot_json(job, row))
        });
        let most = job.cleaning_since.map_or(u32::MAX, |_| 0);
        let client = job.client.clone();
        let body = ResultsStream::new(self.store.clone(), job, template, 0, most);
        Ok(Response::stream(200, "application/json", body).owned_by(&client))
    }
}

/// A lot with plain texts instead of HTML.
fn lot_json(job: &JobRow, lot: &LotRow) -> Value {
    let text = |language: &String| {
        let text = if is_english(language) {
            lot.vision_result.clone()
        } else {
            lot.translations.get(language)?.clone().ok()
        };
        Some((language.clone(), json!(text?)))
    };
    let translations: Map<String, Value> = job.languages.iter().filter_map(text).collect();
    let mut json = json!({
        "lot_id": lot.lot_id,
        "status": lot.status.as_str(),
        "vision_result": lot.vision_result,
        "translations": translations,
        "error_message": lot.error_message,
        "missing_images": lot.missing_images,
    });
    if let Some(reference) = &lot.reference {
        json["reference"] = json!(reference);
    }
    json
}
