//! A signed POST that changes a job: a cancel, or the resend of one of its webhooks.

use super::idempotency::IdempotencyKeys;
use super::limits::RateLimit;
use super::{Api, parse_body};
use crate::base::clock::Timestamp;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::http::Request;
use crate::ops::answers::RequestError;
use crate::python_json::{Document, Json};

/// A change of a job that its client has signed.
pub(super) struct JobChangeRequest<'a> {
    /// The client's name.
    pub(super) client: &'a str,
    /// The keys of the request's repeats: its v1 signature. A second change changes nothing, so the header
    /// `Idempotency-Key` is not needed.
    pub(super) keys: IdempotencyKeys,
}

impl Api {
    /// Checks a request that changes the job `id`. `what` names the change in the error; `rate` counts it.
    pub(super) fn job_change(
        &self,
        request: &Request,
        id: &str,
        (what, rate): (&str, RateLimit),
        now: Timestamp,
    ) -> Result<JobChangeRequest<'_>, RequestError> {
        let _permit = self.large_body_permit(request)?;
        let document = match request.body.as_slice() {
            [] => None,
            body => Some(parse_body(body)?),
        };
        let body = document.as_ref().map(Document::root);
        let caller = self.authenticate_job_change(request, body, (what, id), now)?;
        let client = caller.client.name.as_str();
        self.count_request(client, rate)?;
        refuse_webhook_body(body)?;
        let keys = IdempotencyKeys::of_request(request, caller.signature)?.without_header();
        Ok(JobChangeRequest { client, keys })
    }
}

/// Refuses a body that is one of our own webhooks. A webhook is signed with the client's key, and its signature
/// must not change a job.
pub(super) fn refuse_webhook_body(body: Option<Json<'_>>) -> Result<(), ApiError> {
    if body.is_some_and(|body| body.field("event").is_some()) {
        let message = "A body with an `event` field is a webhook of this service, never a request.";
        return Err(ApiError::new(ErrorCode::InvalidParameter, message));
    }
    Ok(())
}
