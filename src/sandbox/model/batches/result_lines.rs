//! Writes the lines of result files, and applies the faults of how they are written.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::sandbox::Sandbox;
use crate::sandbox::model::batches::execution::ResultFileWriter;
use crate::sandbox::model::batches::operations::{BatchRecord, LineCounts};
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::faults::Fault;
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::responses::execution::{FaultTarget, RequestResult, server_error};
use crate::sandbox::model::responses::object::{ResponseFaults, UsageObject};

/// Why lines were not run.
#[derive(Clone, Copy)]
pub(in crate::sandbox) enum SkipReason {
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

#[derive(Serialize)]
struct ResultFileError<'a> {
    code: &'a str,
    message: &'a str,
}

/// One execution of a batch.
pub(in crate::sandbox) struct BatchExecution<'a> {
    pub(in crate::sandbox) sandbox: &'a Sandbox,
    pub(in crate::sandbox) batch: &'a BatchRecord,
    /// What every line gets.
    pub(in crate::sandbox) whole: Option<ErrorReply>,
    pub(in crate::sandbox) alias: bool,
    /// In seconds.
    pub(in crate::sandbox) at: i64,
    pub(in crate::sandbox) output: ResultFileWriter,
    pub(in crate::sandbox) error: ResultFileWriter,
    pub(in crate::sandbox) counts: LineCounts,
    pub(in crate::sandbox) usage: UsageObject,
    pub(in crate::sandbox) entries: Vec<LedgerEntry>,
    pub(in crate::sandbox) struck: Vec<LedgerEntry>,
}

impl BatchExecution<'_> {
    /// Runs one line and writes what it got.
    pub(in crate::sandbox) fn run(&mut self, bytes: &[u8]) -> io::Result<()> {
        let line: BatchInputLine = serde_json::from_slice(bytes)?;
        let (batch, sandbox) = (self.batch, self.sandbox);
        let seed = format!("{} {}", batch.id, line.custom_id);
        let names = [
            line.custom_id.as_str(),
            batch.id.as_str(),
            batch.input_name.as_deref().unwrap_or(""),
        ];
        let mut struck = std::mem::take(&mut self.struck);
        let mut target = FaultTarget {
            names: &names,
            seed: &seed,
            struck: &mut struck,
        };
        let twist = ResponseFaults {
            alias: self.alias,
            ..ResponseFaults::default()
        };
        let outcome = match &self.whole {
            Some(refusal) => RequestResult::refused(refusal),
            None => sandbox.run(&line.body, &mut target, twist, self.at),
        };
        let whole = self.write(&line.custom_id, &outcome, &mut target)?;
        self.struck = struck;
        if outcome.status < 300 {
            self.counts.completed += 1;
        } else {
            self.counts.failed += 1;
        }
        self.usage.add(outcome.usage);
        self.entries.push(LedgerEntry::Executed {
            batch: Some(batch.id.clone()),
            custom_id: line.custom_id,
            status: outcome.status,
            answered: whole,
        });
        Ok(())
    }

    /// Writes a line that was not run.
    pub(in crate::sandbox) fn leave(&mut self, bytes: &[u8], why: SkipReason) -> io::Result<()> {
        let line: BatchInputLine = serde_json::from_slice(bytes)?;
        let written = match why {
            SkipReason::ServerError => self.line(
                &line.custom_id,
                Some((500, Some(&server_error().raw()))),
                None,
            )?,
            SkipReason::Expired => self.line(
                &line.custom_id,
                None,
                Some((
                    "batch_expired",
                    "This request could not be executed before the completion window expired.",
                )),
            )?,
            SkipReason::Cancelled => self.line(
                &line.custom_id,
                None,
                Some((
                    "batch_cancelled",
                    "This request was not executed because the batch was cancelled.",
                )),
            )?,
        };
        self.error.line(&written)
    }

    /// Writes an outcome; whether a whole answer can be read from it.
    fn write(
        &mut self,
        custom_id: &str,
        outcome: &RequestResult,
        target: &mut FaultTarget<'_>,
    ) -> io::Result<bool> {
        let sandbox = self.sandbox;
        let faulty = !sandbox.faults.is_empty();
        let mut take = |fault| faulty && target.take(sandbox, fault).is_some();
        let (status, body) = if take(Fault::StatusZeroLines) {
            (0, None)
        } else {
            (outcome.status, Some(&*outcome.body))
        };
        if take(Fault::MissingLines) {
            return Ok(false);
        }
        let mut written = self.line(custom_id, Some((status, body)), None)?;
        let mut whole = outcome.whole && status == 200;
        if take(Fault::CutLine) {
            written.truncate(written.len() / 2);
            whole = false;
        }
        if take(Fault::InvalidUtf8Line) {
            let middle = written.len() / 2;
            written.insert(middle, 0xFF);
            whole = false;
        }
        let twice = take(Fault::DuplicateLines);
        let extra = take(Fault::ExtraLines);
        let extra = match extra {
            true => Some(self.line(&format!("{custom_id}-extra"), Some((status, body)), None)?),
            false => None,
        };
        let sink = if status < 300 {
            &mut self.output
        } else {
            &mut self.error
        };
        sink.line(&written)?;
        if twice {
            sink.line(&written)?;
        }
        if let Some(extra) = extra {
            sink.line(&extra)?;
        }
        Ok(whole)
    }

    fn line(
        &self,
        custom_id: &str,
        response: Option<(u16, Option<&RawValue>)>,
        error: Option<(&str, &str)>,
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
            error: error.map(|(code, message)| ResultFileError { code, message }),
        };
        Ok(serde_json::to_vec(&line)?)
    }
}
