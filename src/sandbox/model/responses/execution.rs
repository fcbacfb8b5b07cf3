//! Runs one request, in a batch or synchronously, and applies the faults of single requests.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::sandbox::Sandbox;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::responses::images;
use crate::sandbox::model::responses::object::{ResponseFaults, UsageObject, answer};
use crate::sandbox::model::responses::request;

/// What a request got.
pub(in crate::sandbox) struct RequestResult {
    pub(in crate::sandbox) status: u16,
    pub(in crate::sandbox) body: Box<RawValue>,
    pub(in crate::sandbox) usage: UsageObject,
    /// Whether a whole answer came.
    pub(in crate::sandbox) whole: bool,
}

impl RequestResult {
    pub(in crate::sandbox) fn refused(refusal: &ErrorReply) -> Self {
        Self {
            status: refusal.status,
            body: refusal.raw(),
            usage: UsageObject::default(),
            whole: false,
        }
    }
}

/// Who a request is, for faults: its names, and what its luck depends on.
pub(in crate::sandbox) struct FaultTarget<'a> {
    pub(in crate::sandbox) names: &'a [&'a str],
    pub(in crate::sandbox) seed: &'a str,
    /// Faults that struck, for the ledger.
    pub(in crate::sandbox) struck: &'a mut Vec<LedgerEntry>,
}

impl FaultTarget<'_> {
    /// Takes a fault and remembers it for the ledger.
    pub(in crate::sandbox) fn take(&mut self, sandbox: &Sandbox, fault: Fault) -> Option<Value> {
        let value = sandbox.faults.take(fault, self.names, self.seed)?;
        self.struck.push(LedgerEntry::Fault {
            fault: fault.to_string(),
            target: self.names.first().copied().unwrap_or("").to_owned(),
        });
        Some(value)
    }
}

impl Sandbox {
    /// Runs a request.
    pub(in crate::sandbox) fn run(
        &self,
        body: &Value,
        target: &mut FaultTarget<'_>,
        mut twist: ResponseFaults,
        now: i64,
    ) -> RequestResult {
        if !self.faults.is_empty() {
            if let Some(refusal) = self.refused_by_fault(target) {
                return RequestResult::refused(&refusal);
            }
            self.twist(target, &mut twist);
        }
        let ask = match request::check(body, &self.settings) {
            Ok(ask) => ask,
            Err(refusal) => return RequestResult::refused(&refusal),
        };
        if let Some(url) = ask.images.iter().find(|url| !images::can_fetch(url)) {
            return RequestResult::refused(&image_timeout(url));
        }
        let answer = answer(&ask, &twist, target.seed, now);
        RequestResult {
            status: 200,
            body: answer.body,
            usage: answer.usage,
            whole: answer.whole,
        }
    }

    fn refused_by_fault(&self, target: &mut FaultTarget<'_>) -> Option<ErrorReply> {
        if target.take(self, Fault::ImageTimeout).is_some() {
            return Some(image_timeout("an image"));
        }
        if target.take(self, Fault::Line429).is_some() {
            return Some(
                ErrorReply::new(429, "Rate limit reached. Please try again in 20s.")
                    .kind("requests")
                    .code("rate_limit_exceeded"),
            );
        }
        if target.take(self, Fault::Line500).is_some() {
            return Some(server_error());
        }
        if target.take(self, Fault::Line403).is_some() {
            return Some(ErrorReply::new(
                403,
                "Project does not have access to this model.",
            ));
        }
        target.take(self, Fault::BadParam).map(|_| {
            ErrorReply::new(
                400,
                "Unsupported parameter: 'temperature' is not supported with this model.",
            )
            .code("unsupported_parameter")
            .param("temperature")
        })
    }

    fn twist(&self, target: &mut FaultTarget<'_>, twist: &mut ResponseFaults) {
        if let Some(value) = target.take(self, Fault::TruncatedLine) {
            twist.truncated = Some(value == "empty");
        }
        twist.refusal = target.take(self, Fault::RefusalLine).is_some();
        twist.nested = target.take(self, Fault::NestedParts).is_some();
        twist.odd_unicode = target.take(self, Fault::OddUnicode).is_some();
        if let Some(value) = target.take(self, Fault::HugeLine) {
            let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
            twist.huge = Some(size.unwrap_or(5_000_000));
        }
    }
}

/// The transient failure that OpenAI shows for anything of its own.
pub(in crate::sandbox) fn server_error() -> ErrorReply {
    ErrorReply::new(
        500,
        "The server had an error while processing your request. Sorry about that!",
    )
    .kind("server_error")
    .code("server_error")
}

fn image_timeout(url: &str) -> ErrorReply {
    let shown = url.chars().take(200).collect::<String>();
    ErrorReply::new(400, format!("timeout while downloading the image {shown}"))
        .code("invalid_value")
        .param("url")
}
