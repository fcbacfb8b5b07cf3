//! The validation of a batch's input when the batch leaves `validating`: one error for each problem.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader};

use serde::Deserialize;
use serde_json::Value;

use super::result_lines::BatchInputLine;
use crate::domain::endpoint::Endpoint;
use crate::sandbox::model::faults::{Fault, FaultTarget};
use crate::sandbox::model::records::{BatchRecord, LineError, input_name};
use crate::sandbox::model::responses::{ResponsesRequest, to_responses_form};
use crate::sandbox::model::settings::{SandboxSettings, SimulatedModel};
use crate::sandbox::model::simulated_openai::SimulatedOpenAi;
use crate::sandbox::model::storage::Content;

/// The most errors that a report holds.
const MOST_ERRORS: usize = 10_000;

/// What the validation of an input found.
#[derive(Default)]
pub struct InputReport<'a> {
    pub errors: Vec<LineError>,
    /// The number of lines.
    pub total: u64,
    pub model: Option<&'a SimulatedModel>,
    /// Estimated input tokens of all lines.
    pub input_tokens: u64,
    /// Output limits of all lines.
    pub output_limits: u64,
    /// Lines that will certainly fail.
    pub failing_lines: u64,
}

impl InputReport<'_> {
    /// Tokens that the batch takes of its model's queue.
    pub fn tokens(&self) -> u64 {
        self.input_tokens + self.output_limits
    }

    fn add_error(&mut self, code: &str, param: Option<&str>, line: Option<u64>, message: impl Into<String>) {
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(LineError {
                code: Some(code.into()),
                message: Some(message.into()),
                param: param.map(str::to_owned),
                line,
            });
        }
    }

    /// An error of a member of the newest line.
    fn add_line_error(&mut self, code: &str, param: &str, message: impl Into<String>) {
        self.add_error(code, Some(param), Some(self.total), message);
    }
}

/// A line with members that may be absent or of a wrong type.
#[derive(Deserialize)]
struct UncheckedLine {
    custom_id: Option<Value>,
    method: Option<Value>,
    url: Option<Value>,
    body: Option<Value>,
}

impl SimulatedOpenAi {
    /// Validates a batch's input. If there are no errors, the batch is in its model's queue afterwards.
    pub(super) fn validate_input(&self, batch: &mut BatchRecord) -> io::Result<InputReport<'_>> {
        let mut report = match batch.input_name {
            Some(_) => {
                let input = self.storage.open(&input_name(&batch.id))?;
                read_input(batch, input, &self.settings)?
            }
            None => {
                let mut report = InputReport::default();
                let message = format!("Cannot find file {}.", batch.input_file_id);
                report.add_error("invalid_request", Some("file_id"), None, message);
                report
            }
        };
        if let Some(value) = self.trigger_batch_fault(batch, Fault::FailedValidationLine)? {
            report.add_error(
                "invalid_request",
                Some("body.input"),
                Some(value.as_u64().unwrap_or(1)),
                "A fault of the sandbox refuses this line.",
            );
        }
        if !self.fault_rules.is_empty() && batch.input_name.is_some() {
            self.refuse_lines(batch, &mut report)?;
        }
        if report.errors.is_empty()
            && let Err(limit) = self.enter_queue(batch, &report)?
        {
            let model = report.model.map_or("", |model| &model.name);
            let message = format!(
                "Enqueued token limit reached for {model} in organization org-sandbox. Limit: {} enqueued tokens. Please try again once some in_progress batches have been completed.",
                with_commas(limit)
            );
            report.add_error("token_limit_exceeded", None, None, message);
        }
        Ok(report)
    }

    /// Triggers the faults that refuse a batch for one of its lines.
    fn refuse_lines(&self, batch: &BatchRecord, report: &mut InputReport<'_>) -> io::Result<()> {
        let input = self.storage.open(&input_name(&batch.id))?;
        for (number, line) in (1_u64..).zip(BufReader::new(input).split(b'\n')) {
            let Ok(line) = serde_json::from_slice::<BatchInputLine>(&line?) else {
                continue;
            };
            let names = line.names(batch);
            let names = names.each_ref().map(String::as_str);
            let seed = format!("{} {number}", batch.id);
            let target = FaultTarget {
                names: &names,
                seed: &seed,
            };
            let message = "A fault of the sandbox refuses this.";
            if self.trigger_fault(Fault::PoisonLine, target)?.is_some() {
                report.add_error("invalid_request", None, None, message);
            }
            if self.trigger_fault(Fault::BlameLine, target)?.is_some() {
                report.add_error("invalid_json_line", None, Some(number), message);
            }
        }
        Ok(())
    }

    /// Puts the batch into its model's queue; the inner error is the limit that the batch would exceed.
    fn enter_queue(&self, batch: &mut BatchRecord, report: &InputReport<'_>) -> io::Result<Result<(), u64>> {
        if let Some(value) = self.trigger_batch_fault(batch, Fault::TokenLimitAsync)? {
            return Ok(Err(value.as_u64().unwrap_or(5_000_000)));
        }
        if let Some(value) = self.trigger_batch_fault(batch, Fault::QueueLines)?
            && report.total > value.as_u64().unwrap_or(1)
        {
            return Ok(Err(900_000));
        }
        let Some(model) = report.model else {
            return Ok(Ok(()));
        };
        let fault = self.trigger_batch_fault(batch, Fault::QueueTokens)?;
        let inputs = fault.as_ref().and_then(|value| value["inputs"].as_u64());
        let tokens = match inputs {
            Some(_) => report.input_tokens,
            None => report.tokens(),
        };
        let limit = match fault {
            Some(value) => inputs.or_else(|| value.as_u64()).or(Some(5_000_000)),
            None => model.enqueued_tokens,
        };
        if limit.is_some() {
            self.advance_queued(&batch.id)?;
        }
        let held = (batch.id.as_str(), batch.project.as_str());
        Ok(self.token_queue.try_add(held, model, tokens, limit))
    }

    /// Advances the other batches of the queue, so that those that have ended leave it.
    fn advance_queued(&self, own: &str) -> io::Result<()> {
        for id in self.token_queue.others(own) {
            // A batch that another call has locked stays in the queue: two calls that wait for each other's
            // batch would wait for ever.
            if let Some(shared) = self.batches.get(&id)
                && let Ok(mut other) = shared.try_lock()
            {
                self.advance(&mut other)?;
            }
        }
        Ok(())
    }
}

/// Reads an input and checks each line.
pub fn read_input<'a>(
    batch: &BatchRecord,
    input: Content,
    settings: &'a SandboxSettings,
) -> io::Result<InputReport<'a>> {
    let mut reader = BufReader::with_capacity(1 << 20, input);
    let mut report = InputReport::default();
    let mut custom_ids = HashSet::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        report.total += 1;
        check_line(&line, batch, settings, &mut custom_ids, &mut report);
        line.clear();
    }
    let most = u64::try_from(settings.max_lines).unwrap_or(u64::MAX);
    if report.total == 0 {
        report.add_error("empty_file", None, None, "The file has no requests.");
    } else if report.total > most {
        let message = format!("The batch has {} requests of {most} allowed.", report.total);
        report.add_error("too_many_tasks", None, None, message);
    }
    Ok(report)
}

fn check_line<'a>(
    bytes: &[u8],
    batch: &BatchRecord,
    settings: &'a SandboxSettings,
    custom_ids: &mut HashSet<String>,
    report: &mut InputReport<'a>,
) {
    let Ok(line) = serde_json::from_slice::<UncheckedLine>(bytes) else {
        report.add_error(
            "invalid_json_line",
            None,
            Some(report.total),
            "This line is not parseable as valid JSON.",
        );
        return;
    };
    for (name, is_missing) in [
        ("custom_id", line.custom_id.is_none()),
        ("method", line.method.is_none()),
        ("url", line.url.is_none()),
        ("body", line.body.is_none()),
    ] {
        if is_missing {
            let message = format!("Missing required parameter: '{name}'.");
            report.add_line_error("missing_required_parameter", name, message);
        }
    }
    match line.custom_id {
        Some(Value::String(id)) if !id.is_empty() && id.chars().count() <= 64 => {
            if custom_ids.contains(&id) {
                let message = format!("The custom_id '{id}' was used before in this file.");
                report.add_line_error("duplicate_custom_id", "custom_id", message);
            }
            custom_ids.insert(id);
        }
        Some(_) => {
            let message = "Expected a string of 1 to 64 characters.";
            report.add_line_error("invalid_value", "custom_id", message);
        }
        None => {}
    }
    if line.method.is_some_and(|method| method != "POST") {
        report.add_line_error("invalid_value", "method", "The method must be POST.");
    }
    if line.url.is_some_and(|url| url != batch.endpoint.as_str()) {
        let message = "The url does not equal the batch's endpoint.";
        report.add_line_error("invalid_url", "url", message);
    }
    if let Some(body) = line.body {
        check_body(&body, bytes.len(), batch, settings, report);
    }
}

/// Checks as little as OpenAI does: the rest fails when the line is executed.
fn check_body<'a>(
    body: &Value,
    bytes: usize,
    batch: &BatchRecord,
    settings: &'a SandboxSettings,
    report: &mut InputReport<'a>,
) {
    if !body.is_object() {
        report.add_line_error("invalid_type", "body", "Expected an object.");
        return;
    }
    check_model(body, settings, report);
    if body.get("stream").is_some_and(|stream| *stream == true) {
        let message = "Streaming is not supported in the Batch API.";
        report.add_line_error("streaming_unsupported", "body.stream", message);
    }
    let required = match batch.endpoint.parse() {
        Ok(Endpoint::Responses) => Some("input"),
        Ok(Endpoint::ChatCompletions) => Some("messages"),
        Err(_) => None,
    };
    if let Some(name) = required.filter(|name| body.get(name).is_none()) {
        let message = format!("Missing required parameter: '{name}'.");
        report.add_line_error("invalid_request", &format!("body.{name}"), message);
    }
    let request = to_responses_form(&batch.endpoint, body);
    let limit = request
        .as_ref()
        .ok()
        .and_then(|request| request.get("max_output_tokens"));
    let output_limit = limit.and_then(Value::as_u64);
    report.input_tokens += u64::try_from(bytes).unwrap_or(0) / 4;
    report.output_limits += output_limit.unwrap_or(0);
    let parsed = request
        .as_ref()
        .ok()
        .map(|body| ResponsesRequest::parse(body, settings));
    let may_succeed = required.is_some()
        && parsed.is_some_and(|it| it.is_ok_and(|request| request.unreachable_image().is_none()));
    report.failing_lines += u64::from(!may_succeed);
}

/// All lines of a batch must name one model.
fn check_model<'a>(body: &Value, settings: &'a SandboxSettings, report: &mut InputReport<'a>) {
    let Some(name) = body.get("model").and_then(Value::as_str) else {
        let message = "Missing required parameter: 'model'.";
        report.add_line_error("invalid_request", "body.model", message);
        return;
    };
    match (settings.model(name), report.model) {
        (None, _) => {
            let message = format!("The provided model '{name}' is not supported by the Batch API.");
            report.add_line_error("model_not_found", "body.model", message);
        }
        (Some(model), None) => report.model = Some(model),
        (Some(model), Some(first)) if model != first => {
            let message = "Each batch must name one model only.";
            report.add_line_error("mismatched_model", "body.model", message);
        }
        _ => {}
    }
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
