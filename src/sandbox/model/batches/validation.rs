//! The check of a batch's input when it leaves `validating`: one entry for each problem.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use serde::Deserialize;
use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::sandbox::model::batches::operations::{BatchRecord, LineError};
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::responses::images;
use crate::sandbox::model::responses::request;
use crate::sandbox::model::settings::{SandboxSettings, SimulatedModel};

/// More entries than anybody reads are left away.
const MOST_ERRORS: usize = 10_000;

/// What a check found.
#[derive(Default)]
pub(in crate::sandbox) struct InputReport<'a> {
    pub(in crate::sandbox) errors: Vec<LineError>,
    pub(in crate::sandbox) total: u64,
    pub(in crate::sandbox) model: Option<&'a SimulatedModel>,
    /// Estimated input tokens and output caps of all lines.
    pub(in crate::sandbox) tokens: u64,
    /// Lines that will certainly fail.
    pub(in crate::sandbox) doomed: u64,
}

impl InputReport<'_> {
    fn blame(&mut self, code: &str, param: Option<&str>, line: Option<u64>, message: String) {
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(LineError {
                code: code.into(),
                message,
                param: param.map(str::to_owned),
                line,
            });
        }
    }
}

#[derive(Deserialize)]
struct UncheckedLine {
    custom_id: Option<Value>,
    method: Option<Value>,
    url: Option<Value>,
    body: Option<Value>,
}

impl Sandbox {
    /// Checks a batch's input.
    pub(in crate::sandbox) fn validate(
        &self,
        batch: &mut BatchRecord,
    ) -> io::Result<InputReport<'_>> {
        let mut verdict = match batch.input_name {
            Some(_) => read_input(batch, &self.batches.input(&batch.id), &self.settings)?,
            None => {
                let mut verdict = InputReport::default();
                verdict.blame(
                    "invalid_request",
                    Some("file_id"),
                    None,
                    format!("Cannot find file {}.", batch.input_file_id),
                );
                verdict
            }
        };
        if let Some(value) = self.draw(batch, Fault::FailedValidationLine)? {
            let line = value.as_u64().unwrap_or(1);
            let message = "The sandbox was told to refuse this line.".to_owned();
            verdict.blame("invalid_request", Some("body.input"), Some(line), message);
        }
        if verdict.errors.is_empty()
            && let Some(limit) = self.over_token_limit(batch, &verdict)?
        {
            let model = verdict.model.map_or("", |model| &model.name);
            let message = format!(
                "Enqueued token limit reached for {model} in organization org-sandbox. Limit: {} enqueued tokens. Please try again once some in_progress batches have been completed.",
                with_commas(limit)
            );
            verdict.blame("token_limit_exceeded", None, None, message);
        }
        Ok(verdict)
    }

    /// The limit that the batch would break; otherwise it is in the queue from now on.
    fn over_token_limit(
        &self,
        batch: &mut BatchRecord,
        verdict: &InputReport<'_>,
    ) -> io::Result<Option<u64>> {
        if let Some(value) = self.draw(batch, Fault::TokenLimitAsync)? {
            return Ok(Some(value.as_u64().unwrap_or(5_000_000)));
        }
        let Some(model) = verdict.model else {
            return Ok(None);
        };
        if model.enqueued_tokens.is_some() {
            self.release_ended(&batch.id)?;
        }
        let place = format!("{} {}", batch.project, model.name);
        let mut queue = crate::sandbox::lock(&self.queue);
        let held = queue
            .values()
            .filter(|(other, _)| *other == place)
            .map(|(_, tokens)| tokens)
            .sum::<u64>();
        if let Some(limit) = model.enqueued_tokens
            && held.saturating_add(verdict.tokens) > limit
        {
            return Ok(Some(limit));
        }
        queue.insert(batch.id.clone(), (place, verdict.tokens));
        Ok(None)
    }

    /// Looks at the other batches in the queue, so that those that have ended leave it. One that
    /// somebody else holds stays in it: waiting for it here could lock both up.
    fn release_ended(&self, own: &str) -> io::Result<()> {
        let others = crate::sandbox::lock(&self.queue)
            .keys()
            .filter(|id| *id != own)
            .cloned()
            .collect::<Vec<_>>();
        for id in others {
            if let Some(shared) = self.batches.get(&id)
                && let Ok(mut other) = shared.try_lock()
            {
                self.advance(&mut other)?;
            }
        }
        Ok(())
    }
}

/// Reads an input through and checks each line.
pub(in crate::sandbox) fn read_input<'a>(
    batch: &BatchRecord,
    path: &std::path::Path,
    settings: &'a SandboxSettings,
) -> io::Result<InputReport<'a>> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut verdict = InputReport::default();
    let mut ids = HashSet::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        verdict.total += 1;
        check_line(&line, batch, settings, &mut ids, &mut verdict);
        line.clear();
    }
    let most = u64::try_from(settings.max_lines).unwrap_or(u64::MAX);
    if verdict.total == 0 {
        verdict.blame("empty_file", None, None, "The file has no requests.".into());
    } else if verdict.total > most {
        let message = format!(
            "The batch has {} requests of {most} allowed.",
            verdict.total
        );
        verdict.blame("too_many_tasks", None, None, message);
    }
    Ok(verdict)
}

fn check_line<'a>(
    bytes: &[u8],
    batch: &BatchRecord,
    settings: &'a SandboxSettings,
    ids: &mut HashSet<String>,
    verdict: &mut InputReport<'a>,
) {
    let number = Some(verdict.total);
    let Ok(line) = serde_json::from_slice::<UncheckedLine>(bytes) else {
        let message = "This line is not parseable as valid JSON.".to_owned();
        verdict.blame("invalid_json_line", None, number, message);
        return;
    };
    for (name, missing) in [
        ("custom_id", line.custom_id.is_none()),
        ("method", line.method.is_none()),
        ("url", line.url.is_none()),
        ("body", line.body.is_none()),
    ] {
        if missing {
            let message = format!("Missing required parameter: '{name}'.");
            verdict.blame("missing_required_parameter", Some(name), number, message);
        }
    }
    match line.custom_id {
        Some(Value::String(id)) if !id.is_empty() && id.chars().count() <= 64 => {
            if ids.contains(&id) {
                let message = format!("The custom_id '{id}' was used before in this file.");
                verdict.blame("duplicate_custom_id", Some("custom_id"), number, message);
            }
            ids.insert(id);
        }
        Some(_) => {
            let message = "Expected a string of 1 to 64 characters.".to_owned();
            verdict.blame("invalid_value", Some("custom_id"), number, message);
        }
        None => {}
    }
    if line.method.is_some_and(|method| method != "POST") {
        let message = "The method must be POST.".to_owned();
        verdict.blame("invalid_value", Some("method"), number, message);
    }
    if line.url.is_some_and(|url| url != batch.endpoint.as_str()) {
        let message = "The url does not equal the batch's endpoint.".to_owned();
        verdict.blame("invalid_url", Some("url"), number, message);
    }
    if let Some(body) = line.body {
        check_body(&body, bytes.len(), batch, settings, verdict);
    }
}

/// Shallow, as the real check: what else is wrong fails when the line is run.
fn check_body<'a>(
    body: &Value,
    bytes: usize,
    batch: &BatchRecord,
    settings: &'a SandboxSettings,
    verdict: &mut InputReport<'a>,
) {
    let number = Some(verdict.total);
    let responses = batch.endpoint == "/v1/responses";
    if !body.is_object() {
        let message = "Expected an object.".to_owned();
        verdict.blame("invalid_type", Some("body"), number, message);
        return;
    }
    match body.get("model").and_then(Value::as_str) {
        None => {
            let message = "Missing required parameter: 'model'.".to_owned();
            verdict.blame("invalid_request", Some("body.model"), number, message);
        }
        Some(name) => match (settings.model(name), verdict.model) {
            (None, _) => {
                let message =
                    format!("The provided model '{name}' is not supported by the Batch API.");
                verdict.blame("model_not_found", Some("body.model"), number, message);
            }
            (Some(model), None) => verdict.model = Some(model),
            (Some(model), Some(first)) if model != first => {
                let message = "Each batch must name one model only.".to_owned();
                verdict.blame("mismatched_model", Some("body.model"), number, message);
            }
            _ => {}
        },
    }
    if body.get("stream").is_some_and(|stream| *stream == true) {
        let message = "Streaming is not supported in the Batch API.".to_owned();
        verdict.blame(
            "streaming_unsupported",
            Some("body.stream"),
            number,
            message,
        );
    }
    if responses && body.get("input").is_none() {
        let message = "Missing required parameter: 'input'.".to_owned();
        verdict.blame("invalid_request", Some("body.input"), number, message);
    }
    let cap = body.get("max_output_tokens").and_then(Value::as_u64);
    verdict.tokens += u64::try_from(bytes).unwrap_or(0) / 4 + cap.unwrap_or(0);
    let runs = responses
        && request::check(body, settings)
            .is_ok_and(|ask| ask.images.iter().all(|url| images::can_fetch(url)));
    verdict.doomed += u64::from(!runs);
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
