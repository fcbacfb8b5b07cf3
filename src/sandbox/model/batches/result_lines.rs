//! The execution of a batch line by line: its result lines, and the faults of these.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::{Fault, FaultTarget, RequestTarget};
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::records::{BatchRecord, LineCounts};
use crate::sandbox::model::responses::{RequestResult, ResponseFaults, request_names, to_responses_form};
use crate::sandbox::model::simulated_openai::SimulatedOpenAi;
use crate::sandbox::model::storage::LineWriter;
use crate::sandbox::model::usage::UsageObject;

/// Why lines were not executed.
#[derive(Clone, Copy)]
pub enum SkipReason {
    Expired,
    Cancelled,
    ServerError,
}

/// A line of a batch's input.
#[derive(Deserialize)]
pub struct BatchInputLine {
    custom_id: String,
    body: Value,
}

impl BatchInputLine {
    /// The names that a fault's `match` is compared with.
    pub fn names(&self, batch: &BatchRecord) -> [String; 5] {
        let request = to_responses_form(&batch.endpoint, &self.body);
        let [kind, text] = request_names(request.as_deref().unwrap_or(&self.body));
        let input_name = batch.input_name.clone().unwrap_or_default();
        [self.custom_id.clone(), batch.id.clone(), input_name, kind, text]
    }
}

/// Members in the order of recorded files.
#[derive(Serialize)]
struct ResultFileLine<'a> {
    id: &'a str,
    custom_id: &'a str,
    response: Option<ResultFileResponse<'a>>,
    error: Option<ResultFileError<'a>>,
}

#[derive(Serialize)]
struct ResultFileResponse<'a> {
    status_code: u16,
    request_id: &'a str,
    body: Option<&'a RawValue>,
}

#[derive(Clone, Copy, Serialize)]
struct ResultFileError<'a> {
    code: &'a str,
    message: &'a str,
}

/// One execution of a batch: what it writes, and what it has counted.
pub struct BatchExecution<'a> {
    pub openai: &'a SimulatedOpenAi,
    pub batch: &'a BatchRecord,
    /// The error of every line, if a fault says so.
    pub error_of_all: Option<ErrorReply>,
    /// Whether responses name the model's alias.
    pub names_alias: bool,
    /// In seconds.
    pub executed_at: i64,
    pub output_file: LineWriter,
    pub error_file: LineWriter,
    pub counts: LineCounts,
    pub usage: UsageObject,
    /// The ledger's entries of the executed lines.
    pub executed: Vec<LedgerEntry>,
    /// The ledger's entries of the faults that lines triggered.
    pub triggered: Vec<LedgerEntry>,
}

impl BatchExecution<'_> {
    /// Executes a line and writes its result.
    pub fn execute_line(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let line: BatchInputLine = serde_json::from_slice(bytes)?;
        let (batch, openai) = (self.batch, self.openai);
        let seed = format!("{} {number}", batch.id);
        let names = match openai.fault_rules.is_empty() {
            true => Default::default(),
            false => line.names(batch),
        };
        let mut triggered = std::mem::take(&mut self.triggered);
        let mut target = RequestTarget {
            target: FaultTarget {
                names: &names.each_ref().map(String::as_str),
                seed: &seed,
            },
            at: openai.now(),
            triggered: &mut triggered,
        };
        let faults = ResponseFaults {
            names_alias: self.names_alias,
            ..ResponseFaults::default()
        };
        let result = match &self.error_of_all {
            Some(error) => RequestResult::from_error(error),
            None => {
                let request = to_responses_form(&batch.endpoint, &line.body);
                openai.execute_request(&batch.endpoint, &request, &mut target, faults, self.executed_at)
            }
        };
        let answered = self.write_result(&line.custom_id, &result, &mut target)?;
        self.triggered = triggered;
        if result.status < 300 {
            self.counts.completed += 1;
        } else {
            self.counts.failed += 1;
        }
        self.usage.add(result.usage);
        self.executed.push(LedgerEntry::Executed {
            batch: Some(batch.id.clone()),
            custom_id: line.custom_id,
            status: result.status,
            answered,
        });
        Ok(())
    }

    /// Writes a line that is not executed to the error file.
    pub fn skip_line(&mut self, bytes: &[u8], reason: SkipReason) -> io::Result<()> {
        let line: BatchInputLine = serde_json::from_slice(bytes)?;
        let skipped = |code, message| Some(ResultFileError { code, message });
        let (response, error) = match reason {
            SkipReason::ServerError => (Some(ErrorReply::server_error().envelope()), None),
            SkipReason::Expired => (
                None,
                skipped(
                    "batch_expired",
                    "This request could not be executed before the completion window expired.",
                ),
            ),
            SkipReason::Cancelled => (
                None,
                skipped(
                    "batch_cancelled",
                    "This request was not executed because the batch was cancelled.",
                ),
            ),
        };
        let response = response.as_deref().map(|body| (500, Some(body)));
        let encoded = self.encode_line(&line.custom_id, response, error)?;
        self.error_file.write_line(&encoded)
    }

    /// Writes a result; gives whether a complete answer can be read from it.
    fn write_result(
        &mut self,
        custom_id: &str,
        result: &RequestResult,
        target: &mut RequestTarget<'_>,
    ) -> io::Result<bool> {
        let rules = &self.openai.fault_rules;
        let extra = target.trigger(rules, Fault::ExtraLines);
        let mut trigger = |fault| target.trigger(rules, fault).is_some();
        let (status, body) = if trigger(Fault::StatusZeroLines) {
            (0, None)
        } else {
            (result.status, Some(&*result.body))
        };
        if trigger(Fault::MissingLines) {
            return Ok(false);
        }
        let mut line = self.encode_line(custom_id, Some((status, body)), None)?;
        let mut is_readable = result.is_complete && status == 200;
        if trigger(Fault::CutLine) {
            line.truncate(line.len() / 2);
            is_readable = false;
        }
        if trigger(Fault::InvalidUtf8Line) {
            line.insert(line.len() / 2, 0xFF);
            is_readable = false;
        }
        let mut lines = vec![line];
        if trigger(Fault::DuplicateLines) {
            lines.push(lines[0].clone());
        }
        if let Some(value) = extra {
            let extra_id = value.as_str().map(str::to_owned);
            let extra_id = extra_id.unwrap_or_else(|| format!("{custom_id}-extra"));
            lines.push(self.encode_line(&extra_id, Some((status, body)), None)?);
        }
        if trigger(Fault::BothFiles) {
            let failure = ErrorReply::server_error().envelope();
            let line = self.encode_line(custom_id, Some((500, Some(&failure))), None)?;
            self.error_file.write_line(&line)?;
        }
        let file = if status < 300 {
            &mut self.output_file
        } else {
            &mut self.error_file
        };
        for line in &lines {
            file.write_line(line)?;
        }
        Ok(is_readable)
    }

    fn encode_line(
        &self,
        custom_id: &str,
        response: Option<(u16, Option<&RawValue>)>,
        error: Option<ResultFileError<'_>>,
    ) -> io::Result<Vec<u8>> {
        let hash = ids::hex(&["line", &self.batch.id, custom_id]);
        let line = ResultFileLine {
            id: &format!("batch_req_{}", &hash[..32]),
            custom_id,
            response: response.map(|(status_code, body)| ResultFileResponse {
                status_code,
                request_id: &hash[32..],
                body,
            }),
            error,
        };
        Ok(serde_json::to_vec(&line)?)
    }
}
