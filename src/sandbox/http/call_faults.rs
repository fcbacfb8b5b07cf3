//! The faults of HTTP calls: what is answered instead of the truth, and what happens to the answer.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use crossbeam_channel::bounded;
use serde_json::Value;

use crate::http::{Body, Request, Response};
use crate::sandbox::Sandbox;
use crate::sandbox::model::batches::create;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::files::operations;

/// Breaks the connection off.
struct ConnectionReset;

impl Read for ConnectionReset {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the sandbox was told to break this connection",
        ))
    }
}

fn broken() -> Response {
    Response::stream(200, "application/json", ConnectionReset)
}

fn html_502() -> Response {
    Response::bytes(
        502,
        "text/html",
        b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center><hr><center>cloudflare</center></body>\r\n</html>\r\n".to_vec(),
    )
}

/// Waits in real time, whatever clock the sandbox has.
fn wait(millis: u64) {
    let (_open, never) = bounded::<()>(0);
    // Nothing is ever sent, so that it always times out.
    never
        .recv_timeout(Duration::from_millis(millis))
        .unwrap_or_default();
}

impl Sandbox {
    /// Holds a call back.
    pub(in crate::sandbox) fn delay(&self, request: &Request) -> io::Result<()> {
        if let Some(value) = self.strike_call(Fault::Delay, request)? {
            wait(value.as_u64().unwrap_or(1_000));
        }
        Ok(())
    }

    /// The status that the webhook sink is told to answer.
    pub(in crate::sandbox) fn hook_status(&self, request: &Request) -> io::Result<u16> {
        let told = self.strike_call(Fault::HookStatus, request)?;
        Ok(told.map_or(200, |value| {
            value
                .as_u64()
                .and_then(|n| u16::try_from(n).ok())
                .unwrap_or(500)
        }))
    }

    /// What is answered instead of doing anything.
    pub(in crate::sandbox) fn instead(
        &self,
        request: &Request,
        path: &[&str],
    ) -> Result<Option<Response>, ErrorReply> {
        if self.faults.is_empty() {
            return Ok(None);
        }
        if self.strike_call(Fault::Unauthorized, request)?.is_some() {
            return Err(crate::sandbox::unauthorized("sk-…"));
        }
        if self
            .strike_call(Fault::InsufficientQuota, request)?
            .is_some()
        {
            return Err(ErrorReply::new(
                429,
                "You exceeded your current quota, please check your plan and billing details.",
            )
            .kind("insufficient_quota")
            .code("insufficient_quota"));
        }
        if let Some(value) = self.strike_call(Fault::Refuse, request)? {
            let response = ErrorReply::told(&value, 503, "").response();
            return Ok(Some(match value.get("retry_after") {
                Some(seconds) => response.with_header("Retry-After", &seconds.to_string()),
                None => response,
            }));
        }
        match (request.method.as_str(), path) {
            ("GET", ["batches", _]) => {
                let struck = self.strike_call(Fault::Html502OnPoll, request)?;
                Ok(struck.map(|_| html_502()))
            }
            ("POST", ["batches"]) => self.instead_of_create(request).map(|()| None),
            ("POST", ["files"]) => {
                if self.strike_call(Fault::FileTooLarge, request)?.is_some() {
                    return Err(operations::too_large(413, self.settings.max_upload_bytes));
                }
                let struck = self.strike_call(Fault::BrokenUpload, request)?;
                Ok(struck.map(|_| broken()))
            }
            ("GET", ["files", id]) => match self.fresh_fault(Fault::FileLag, request, id)? {
                true => Err(operations::no_such_file(id)),
                false => Ok(None),
            },
            ("GET", ["files", _, "content"]) => {
                let struck = self.strike_call(Fault::Content502, request)?;
                Ok(struck.map(|_| html_502()))
            }
            _ => Ok(None),
        }
    }

    fn instead_of_create(&self, request: &Request) -> Result<(), ErrorReply> {
        if let Some(value) = self.strike_call(Fault::RejectCreate, request)? {
            return Err(ErrorReply::told(&value, 400, "invalid_request"));
        }
        let file = input_file_of(&request.body);
        if self.fresh_fault(Fault::FileLagCreate, request, &file)? {
            return Err(create::cannot_find_file(&file, "proj_sandbox"));
        }
        Ok(())
    }

    /// Whether a fault strikes that may be bound to a file's youth.
    fn fresh_fault(&self, fault: Fault, request: &Request, file: &str) -> Result<bool, ErrorReply> {
        let Some(value) = self.strike_call(fault, request)? else {
            return Ok(false);
        };
        let created = self
            .files
            .any(file)
            .map_or(i64::MIN, |record| record.created_ms);
        Ok(value
            .as_i64()
            .is_none_or(|lag| self.now().millis() < created.saturating_add(lag)))
    }

    /// What becomes of an answer on its way.
    pub(in crate::sandbox) fn on_its_way(
        &self,
        request: &Request,
        path: &[&str],
        response: Response,
    ) -> Result<Response, ErrorReply> {
        if self.faults.is_empty() || response.status != 200 {
            return Ok(response);
        }
        let lost = match (request.method.as_str(), path) {
            ("POST", ["batches"]) => self.strike_call(Fault::LostCreateReply, request)?.is_some(),
            ("POST", ["files"]) => self.strike_call(Fault::LostUploadReply, request)?.is_some(),
            ("GET", ["files", id, "content"]) => {
                if self
                    .strike_call(Fault::ContentTruncated, request)?
                    .is_some()
                {
                    return self.half_of(id, response);
                }
                false
            }
            _ => false,
        };
        if lost || self.strike_call(Fault::LostReply, request)?.is_some() {
            return Ok(broken());
        }
        if let Some(value) = self.strike_call(Fault::LateReply, request)? {
            wait(value.as_u64().unwrap_or(1_000));
        }
        Ok(response)
    }

    fn half_of(&self, id: &str, response: Response) -> Result<Response, ErrorReply> {
        let half = self.files.any(id).map_or(0, |record| record.bytes / 2);
        let file = File::open(self.files.content(id))?;
        Ok(Response {
            body: Body::Stream(Box::new(file.take(half).chain(ConnectionReset))),
            ..response
        })
    }

    fn strike_call(&self, fault: Fault, request: &Request) -> io::Result<Option<Value>> {
        if self.faults.is_empty() {
            return Ok(None);
        }
        let call = format!("{} {}", request.method, request.target());
        // Of an upload, the first parts' heads: they hold the file's name.
        let start = request.body.get(..2_048).unwrap_or(&request.body);
        let body = String::from_utf8_lossy(start);
        let named = match request.path.strip_prefix("/v1/files/") {
            Some(rest) => rest.split('/').next().unwrap_or(rest).to_owned(),
            None if request.path == "/v1/batches" => input_file_of(&request.body),
            None => String::new(),
        };
        let filename = self.files.any(&named).map(|record| record.filename);
        let names = [&call, &*body, filename.as_deref().unwrap_or("")];
        self.strike(fault, &names, &request.id)
    }
}

fn input_file_of(body: &[u8]) -> String {
    serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|body| body.get("input_file_id")?.as_str().map(str::to_owned))
        .unwrap_or_default()
}
