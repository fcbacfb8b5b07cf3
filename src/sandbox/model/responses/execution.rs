//! Executes one request, in a batch or synchronously, and applies the faults of single requests.

use std::borrow::Cow;

use serde_json::Value;

use super::chat::{from_responses_form, to_responses_form};
use super::faults::{ResponseFaults, Truncation};
use super::object::{RequestResult, complete_request};
use super::request::{ResponsesRequest, request_names};
use crate::domain::endpoint::Endpoint;
use crate::sandbox::model::call_faults::fault_reply;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::{Fault, FaultTarget, RequestTarget};
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::simulated_openai::SimulatedOpenAi;

impl SimulatedOpenAi {
    /// `POST /responses` and `POST /chat/completions`: executes a request synchronously.
    ///
    /// # Errors
    /// If the body is not JSON. Other refusals are the result's status and body.
    pub fn respond(&self, endpoint: Endpoint, body: &[u8]) -> Result<RequestResult, ErrorReply> {
        let body: Value = serde_json::from_slice(body).map_err(|_| ErrorReply::unparsable_body())?;
        let endpoint = endpoint.as_str();
        let request = to_responses_form(endpoint, &body);
        let body = request.as_deref().unwrap_or(&body);
        let input = body.get("input").map(ToString::to_string).unwrap_or_default();
        let [kind, text] = request_names(body);
        let seed = self.next_seq().to_string();
        let mut entries = Vec::new();
        let now = self.now();
        let mut target = RequestTarget {
            target: FaultTarget {
                names: &[endpoint, &input, &kind, &text],
                seed: &seed,
            },
            at: now,
            triggered: &mut entries,
        };
        let faults = ResponseFaults::default();
        let result = self.execute_request(endpoint, &request, &mut target, faults, now.seconds());
        entries.push(LedgerEntry::Executed {
            batch: None,
            custom_id: String::new(),
            status: result.status,
            answered: result.is_complete,
        });
        self.ledger.append_all(now, &entries)?;
        Ok(result)
    }

    /// Executes a request to an endpoint, or refuses it. `faults` are those of its batch, `now` is in seconds.
    pub(in crate::sandbox::model) fn execute_request(
        &self,
        endpoint: &str,
        request: &Result<Cow<'_, Value>, ErrorReply>,
        target: &mut RequestTarget<'_>,
        faults: ResponseFaults,
        now: i64,
    ) -> RequestResult {
        let result = match request {
            Ok(body) => self.execute_in_responses_form(body, target, faults, now),
            Err(error) => RequestResult::from_error(error),
        };
        from_responses_form(endpoint, result)
    }

    fn execute_in_responses_form(
        &self,
        body: &Value,
        target: &mut RequestTarget<'_>,
        mut faults: ResponseFaults,
        now: i64,
    ) -> RequestResult {
        if !self.fault_rules.is_empty() {
            if let Some(error) = self.trigger_request_error(target) {
                return RequestResult::from_error(&error);
            }
            let cap = body.get("max_output_tokens").and_then(Value::as_u64);
            self.trigger_response_faults(target, cap.unwrap_or(u64::MAX), &mut faults);
        }
        let request = match ResponsesRequest::parse(body, &self.settings) {
            Ok(request) => request,
            Err(error) => return RequestResult::from_error(&error),
        };
        if let Some(url) = request.unreachable_image() {
            return RequestResult::from_error(&image_timeout(url));
        }
        if let Some(error) = self.refuse_image(&request, body, target) {
            return RequestResult::from_error(&error);
        }
        complete_request(&request, &faults, target.target.seed, now)
    }

    fn trigger_request_error(&self, target: &mut RequestTarget<'_>) -> Option<ErrorReply> {
        let rules = &self.fault_rules;
        if let Some(value) = target.trigger(rules, Fault::LineError) {
            return Some(fault_reply(&value, 500, "server_error", target.target.seed));
        }
        let mut trigger = |fault| target.trigger(rules, fault).is_some();
        if trigger(Fault::ImageTimeout) {
            return Some(image_timeout("an image"));
        }
        if trigger(Fault::Line429) {
            return Some(
                ErrorReply::new(429, "Rate limit reached. Please try again in 20s.")
                    .kind("requests")
                    .code("rate_limit_exceeded"),
            );
        }
        if trigger(Fault::Line500) {
            return Some(ErrorReply::server_error());
        }
        if trigger(Fault::Line403) {
            return Some(ErrorReply::new(
                403,
                "Project does not have access to this model.",
            ));
        }
        trigger(Fault::BadParam).then(|| {
            ErrorReply::new(
                400,
                "Unsupported parameter: 'temperature' is not supported with this model.",
            )
            .code("unsupported_parameter")
            .param("temperature")
        })
    }

    /// The error of a request with a bad image.
    fn refuse_image(
        &self,
        request: &ResponsesRequest<'_>,
        body: &Value,
        target: &mut RequestTarget<'_>,
    ) -> Option<ErrorReply> {
        let last = request.images.last()?;
        let value = target.trigger(&self.fault_rules, Fault::BadImage)?;
        let url = match value["image"].as_str() {
            Some(text) => request.images.iter().find(|url| url.contains(text))?,
            None => last,
        };
        Some(match value["named"].as_str() {
            Some("index") => {
                let parts = body["input"][0]["content"].as_array()?;
                let place = parts.iter().position(|part| part["image_url"] == **url)?;
                let param = format!("input[0].content[{place}].image_url");
                ErrorReply::invalid("invalid_value", &param, format!("Invalid '{param}'."))
            }
            Some("none") => {
                let message = "You uploaded an unsupported image. Please make sure your image is valid.";
                ErrorReply::new(400, message).code("invalid_image_format")
            }
            _ => ErrorReply::invalid("invalid_value", "url", format!("Error while downloading {url}.")),
        })
    }

    fn trigger_response_faults(&self, target: &mut RequestTarget<'_>, cap: u64, faults: &mut ResponseFaults) {
        let rules = &self.fault_rules;
        if let Some(value) = target.trigger(rules, Fault::TruncatedLine) {
            faults.truncation = match value.as_u64() {
                Some(least) if cap >= least => None,
                _ if value == "empty" => Some(Truncation::Empty),
                _ => Some(Truncation::Partial),
            };
        }
        if let Some(value) = target.trigger(rules, Fault::FailedInside) {
            let code = value.as_str().or(value["code"].as_str());
            faults.failure = Some(code.unwrap_or("server_error").to_owned());
            faults.unbilled = value["usage"] == false;
        }
        faults.reasoning = target.trigger(rules, Fault::ReasoningItem).is_some();
        faults.refusal = target.trigger(rules, Fault::RefusalLine).is_some();
        faults.nested = target.trigger(rules, Fault::NestedParts).is_some();
        faults.odd_unicode = target.trigger(rules, Fault::OddUnicode).is_some();
        if let Some(value) = target.trigger(rules, Fault::HugeLine) {
            let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
            faults.huge = Some(size.unwrap_or(5_000_000));
        }
        if let Some(value) = target.trigger(rules, Fault::AbsurdUsage) {
            faults.absurd_usage = Some(value.as_u64().unwrap_or(9_000_000_000_000_000_000));
        }
    }
}

fn image_timeout(url: &str) -> ErrorReply {
    let shown = url.chars().take(200).collect::<String>();
    ErrorReply::new(400, format!("timeout while downloading the image {shown}"))
        .code("invalid_value")
        .param("url")
}
