//! The execution of a batch line by line: its result lines, and the faults of these.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::result_file::ResultFileWriter;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::{Fault, FaultTarget};
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::records::{BatchRecord, LineCounts};
use crate::sandbox::model::responses::{RequestResult, ResponseFaults};
use crate::sandbox::model::simulated_openai::SimulatedOpenAi;
use crate::sandbox::model::usage::UsageObject;

/// Why lines were not executed.
#[derive(Clone, Copy)]
pub enum SkipReason {
    Expired,
    Cancelled,
    ServerError,
}

#[derive(Deserialize)]
struct BatchInputLine {
    custom_id: String,
    body: Value,
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
    pub output_file: ResultFileWriter,
    pub error_file: ResultFileWriter,
    pub counts: LineCounts,
    pub usage: UsageObject,
    /// The ledger's entries of the executed lines.
    pub executed: Vec<LedgerEntry>,
    /// The ledger's entries of the faults that lines triggered.
    pub triggered: Vec<LedgerEntry>,
}

impl BatchExecution<'_> {
    /// Executes a line and writes its result.
    pub fn execute_line(&mut self, bytes: &[u8]) -> io::Result<()> {
        let line: BatchInputLine = serde_json::from_slice(bytes)?;
        let (batch, openai) = (self.batch, self.openai);
        let seed = format!("{} {}", batch.id, line.custom_id);
        let names = [
            line.custom_id.as_str(),
            batch.id.as_str(),
            batch.input_name.as_deref().unwrap_or(""),
        ];
        let mut triggered = std::mem::take(&mut self.triggered);
        let mut target = FaultTarget {
            names: &names,
            seed: &seed,
            triggered: &mut triggered,
        };
        let faults = ResponseFaults {
            names_alias: self.names_alias,
            ..ResponseFaults::default()
        };
        let result = match &self.error_of_all {
            Some(error) => RequestResult::from_error(error),
            None => openai.execute_request(&line.body, &mut target, faults, self.executed_at),
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
        target: &mut FaultTarget<'_>,
    ) -> io::Result<bool> {
        let rules = &self.openai.fault_rules;
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
        if trigger(Fault::ExtraLines) {
            let extra_id = format!("{custom_id}-extra");
            lines.push(self.encode_line(&extra_id, Some((status, body)), None)?);
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
