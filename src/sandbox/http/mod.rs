//! The simulated OpenAI over HTTP, with a webhook sink, sample images and controls beside it.

mod api;
mod connection_faults;
mod control;
mod multipart;
mod replies;
mod webhook_sink;

use std::path::Path;
use std::sync::Arc;

use super::model::{
    ApiCall, ErrorReply, SandboxSettings, SimulatedOpenAi, StateFolderError, request_id, sample_image,
};
use crate::base::clock::Clock;
use crate::http::{Handler, Request, Response};
use webhook_sink::WebhookSink;

/// The simulated OpenAI as a handler of HTTP requests.
pub struct Sandbox {
    openai: SimulatedOpenAi,
    webhook_sink: WebhookSink,
}

impl Sandbox {
    /// Opens the state in a folder, which it creates where needed.
    ///
    /// # Errors
    /// If the folder cannot be used, or holds something else.
    pub fn open(
        state_folder: &Path,
        settings: SandboxSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StateFolderError> {
        Ok(Self {
            openai: SimulatedOpenAi::open(state_folder, settings, clock)?,
            webhook_sink: WebhookSink::new(state_folder),
        })
    }

    fn answer(&self, request: &Request) -> Result<Response, ErrorReply> {
        let path = request.path.trim_matches('/').split('/').collect::<Vec<_>>();
        if let ["sandbox", rest @ ..] = &path[..] {
            return self.answer_control(request, rest);
        }
        let target = request.target();
        let call = ApiCall {
            method: &request.method,
            path: &request.path,
            target: &target,
            body: &request.body,
            id: &request.id,
        };
        if let Some(delay) = self.openai.trigger_delay(&call)? {
            connection_faults::wait(delay);
        }
        match (request.method.as_str(), &path[..]) {
            ("GET" | "HEAD", ["images", name]) => answer_image(name),
            ("POST", ["hooks", name]) => self.webhook_sink.receive(&self.openai, request, name, &call),
            (_, ["v1", rest @ ..]) => self.answer_api(request, rest, &call),
            _ => Err(unknown_url(request)),
        }
    }
}

impl Handler for Sandbox {
    fn handle(&self, request: Request) -> Response {
        let mut response = self
            .answer(&request)
            .unwrap_or_else(|error| replies::error(&error));
        if let Err(error) = self.openai.save_fault_rules() {
            response = replies::error(&error.into());
        }
        if !request.path.starts_with("/v1/") {
            return response;
        }
        response
            .with_header("x-request-id", &request_id(&request.id))
            .with_header("openai-version", "2020-10-01")
            .with_header("openai-organization", "org-sandbox")
    }

    fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
        replies::error(&ErrorReply::new(status, message).code(code))
    }
}

/// Answers `GET` and `HEAD` alike: the server leaves out the body of a response to `HEAD`.
fn answer_image(name: &str) -> Result<Response, ErrorReply> {
    let bytes =
        sample_image(name).ok_or_else(|| ErrorReply::new(404, format!("There is no image {name}.")))?;
    Ok(Response::bytes(200, "image/jpeg", bytes.to_vec())
        .with_header("Cache-Control", "public, max-age=3600"))
}

fn unknown_url(request: &Request) -> ErrorReply {
    ErrorReply::new(404, format!("Invalid URL ({} {})", request.method, request.path))
}
