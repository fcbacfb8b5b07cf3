//! The faults of a call: those that refuse it, and those that its connection suffers.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::batches::cannot_find_file;
use super::error_reply::ErrorReply;
use super::faults::{ApiCall, ConnectionFault, Fault, FaultTarget};
use super::files::{no_such_file, too_large};
use super::ids;
use super::simulated_openai::{SimulatedOpenAi, incorrect_key};

/// The bytes of a body that `match` is compared with. In an upload they hold the file's name.
const BODY_START: usize = 2_048;

impl SimulatedOpenAi {
    /// Triggers the fault that delays a call; gives the delay.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub fn trigger_delay(&self, call: &ApiCall<'_>) -> io::Result<Option<Duration>> {
        let value = self.trigger_call_fault(Fault::Delay, call)?;
        Ok(value.map(|value| wait_time(&value, 1_000)))
    }

    /// Triggers the faults that come before a call. After `Some`, the front end must not make the call.
    ///
    /// # Errors
    /// The refusal that a fault demands.
    pub fn trigger_fault_before(&self, call: &ApiCall<'_>) -> Result<Option<ConnectionFault>, ErrorReply> {
        self.make_late_creates()?;
        if self.fault_rules.is_empty() {
            return Ok(None);
        }
        self.refuse_any_call(call)?;
        if let Some(value) = self.trigger_call_fault(Fault::HtmlPage, call)? {
            let status = value.as_u64().and_then(|status| u16::try_from(status).ok());
            return Ok(Some(ConnectionFault::HtmlPage(status.unwrap_or(502))));
        }
        if self.trigger_plain(Fault::LostCall, call)? {
            return Ok(Some(ConnectionFault::Reset));
        }
        let fault = |fault, suffered| -> Result<_, ErrorReply> {
            let value = self.trigger_call_fault(fault, call)?;
            Ok(value.map(|_| suffered))
        };
        match (call.method, &call.segments()[..]) {
            ("GET", ["v1", "batches", _]) => fault(Fault::Html502OnPoll, ConnectionFault::HtmlPage(502)),
            ("POST", ["v1", "batches"]) => {
                self.refuse_create(call)?;
                let value = self.trigger_call_fault(Fault::LateCreate, call)?;
                Ok(value.map(|value| ConnectionFault::LateEffect(wait_time(&value, 60_000))))
            }
            ("POST", ["v1", "files"]) => {
                if self.trigger_plain(Fault::FileTooLarge, call)? {
                    return Err(too_large(413, self.settings.max_upload_bytes));
                }
                fault(Fault::BrokenUpload, ConnectionFault::Reset)
            }
            ("GET", ["v1", "files", id]) => {
                if self.trigger_lag(Fault::FileLag, call, id)? {
                    return Err(no_such_file(id));
                }
                Ok(None)
            }
            ("GET", ["v1", "files", _, "content"]) => {
                fault(Fault::Content502, ConnectionFault::HtmlPage(502))
            }
            _ => Ok(None),
        }
    }

    /// Triggers the faults that come after a call took effect.
    ///
    /// # Errors
    /// The refusal that the caller gets although the call took effect.
    pub fn trigger_fault_after(&self, call: &ApiCall<'_>) -> Result<Option<ConnectionFault>, ErrorReply> {
        if self.fault_rules.is_empty() {
            return Ok(None);
        }
        if let Some(value) = self.trigger_call_fault(Fault::RefuseLate, call)? {
            return Err(fault_reply(&value, 500, "server_error", call.id));
        }
        let is_lost = match (call.method, &call.segments()[..]) {
            ("POST", ["v1", "batches"]) => self.trigger_plain(Fault::LostCreateReply, call)?,
            ("POST", ["v1", "files"]) => self.trigger_plain(Fault::LostUploadReply, call)?,
            ("GET", ["v1", "files", id, "content"]) => {
                let bytes = self.files.find_any(id).map_or(0, |record| record.bytes) / 2;
                if self.trigger_plain(Fault::ContentTruncated, call)? {
                    return Ok(Some(ConnectionFault::Cut { bytes }));
                }
                if self.trigger_plain(Fault::ContentCut, call)? {
                    return Ok(Some(ConnectionFault::QuietCut { bytes }));
                }
                false
            }
            _ => false,
        };
        if is_lost || self.trigger_plain(Fault::LostReply, call)? {
            return Ok(Some(ConnectionFault::Reset));
        }
        if let Some(value) = self.trigger_call_fault(Fault::CutReply, call)? {
            let bytes = value.as_u64().unwrap_or(20);
            return Ok(Some(ConnectionFault::Cut { bytes }));
        }
        let value = self.trigger_call_fault(Fault::LateReply, call)?;
        Ok(value.map(|value| ConnectionFault::Late(wait_time(&value, 1_000))))
    }

    /// Triggers the fault of a webhook delivery; gives the status of its answer.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub fn trigger_webhook_status(&self, call: &ApiCall<'_>) -> io::Result<u16> {
        let value = self.trigger_call_fault(Fault::HookStatus, call)?;
        Ok(value.map_or(200, |value| {
            value
                .as_u64()
                .and_then(|status| u16::try_from(status).ok())
                .unwrap_or(500)
        }))
    }

    fn refuse_any_call(&self, call: &ApiCall<'_>) -> Result<(), ErrorReply> {
        if self.trigger_plain(Fault::Unauthorized, call)? {
            return Err(incorrect_key("sk-…"));
        }
        if self.trigger_plain(Fault::InsufficientQuota, call)? {
            return Err(ErrorReply::new(
                429,
                "You exceeded your current quota, please check your plan and billing details.",
            )
            .kind("insufficient_quota")
            .code("insufficient_quota"));
        }
        match self.trigger_call_fault(Fault::Refuse, call)? {
            Some(value) => Err(fault_reply(&value, 503, "", call.id)),
            None => Ok(()),
        }
    }

    fn refuse_create(&self, call: &ApiCall<'_>) -> Result<(), ErrorReply> {
        if let Some(value) = self.trigger_call_fault(Fault::RejectCreate, call)? {
            return Err(fault_reply(&value, 400, "invalid_request", call.id));
        }
        let file_id = call.input_file_id();
        if self.trigger_lag(Fault::FileLagCreate, call, &file_id)? {
            return Err(cannot_find_file(&file_id, "proj_sandbox"));
        }
        Ok(())
    }

    /// Triggers a fault that hides a file; with a value, only for value milliseconds after its upload.
    fn trigger_lag(&self, fault: Fault, call: &ApiCall<'_>, file_id: &str) -> io::Result<bool> {
        let value = self.trigger_call_fault(fault, call)?;
        Ok(value.is_some_and(|value| self.is_young_file(file_id, value.as_i64())))
    }

    /// Whether a file is younger than `lag` milliseconds; `None` stands for any age.
    pub(super) fn is_young_file(&self, file_id: &str, lag: Option<i64>) -> bool {
        let created = self
            .files
            .find_any(file_id)
            .map_or(i64::MIN, |record| record.created_ms);
        lag.is_none_or(|lag| self.now().millis() < created.saturating_add(lag))
    }

    /// Triggers a fault that needs no value.
    fn trigger_plain(&self, fault: Fault, call: &ApiCall<'_>) -> io::Result<bool> {
        Ok(self.trigger_call_fault(fault, call)?.is_some())
    }

    fn trigger_call_fault(&self, fault: Fault, call: &ApiCall<'_>) -> io::Result<Option<Value>> {
        if self.fault_rules.is_empty() {
            return Ok(None);
        }
        let line = format!("{} {}", call.method, call.target);
        let start = call.body.get(..BODY_START).unwrap_or(call.body);
        let body = String::from_utf8_lossy(start);
        let filename = self.files.find_any(&call.file_id()).map(|record| record.filename);
        let names = [&line, &*body, filename.as_deref().unwrap_or("")];
        let target = FaultTarget {
            names: &names,
            seed: call.id,
        };
        self.trigger_fault(fault, target)
    }
}

/// A fault's value as a refusal. `seed` decides the request's id, which `{request_id}` in the message stands for.
pub fn fault_reply(value: &Value, status: u16, code: &str, seed: &str) -> ErrorReply {
    let mut reply = ErrorReply::from_fault_value(value, status, code);
    reply.message = reply.message.replace("{request_id}", &ids::request_id(seed));
    reply
}

fn wait_time(value: &Value, default_ms: u64) -> Duration {
    Duration::from_millis(value.as_u64().unwrap_or(default_ms))
}
