//! `check-config --probe-batch`: makes a batch of one line, cancels it, and shows which calls the server offers.
//!
//! The batch carries none of our metadata. With it, and without a row, it would look like a batch that a restored
//! database misses, and stop all creates. Its files are deleted at the end, also after a failure.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::CommandError;
use super::check_config::price_of;
use crate::base::escape::escape_controls;
use crate::base::private_file::create_private;
use crate::config::Config;
use crate::domain::batch::Stage;
use crate::domain::money::Money;
use crate::domain::openai::BatchStatus;
use crate::openai::jsonl::LineWriter;
use crate::openai::{Batch, BatchApi, CallError, NewBatch};

/// The custom id of the only line.
const CUSTOM_ID: &str = "probe";
/// The text that the model is asked to translate.
const TEXT: &str = "A dent.";
/// The pair of the batch's metadata, which shows whether metadata comes back.
const METADATA: (&str, &str) = ("made_for", "a check of the configuration");
/// How often the cancelled batch is asked for.
const POLLS: u32 = 15;
/// The wait between.
const POLL_WAIT: Duration = Duration::from_secs(1);

/// How much the program depends on a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing works without it.
    Needed,
    /// Something is weaker without it.
    Useful,
}

/// A call, and its result.
struct Check {
    call: &'static str,
    need: Need,
    /// The server's answer in short, or why there is none.
    result: Result<String, String>,
}

/// What the server offers.
pub(super) struct BatchProbe {
    checks: Vec<Check>,
    /// The cost of the line, in words.
    cost: String,
}

/// The work of the probe.
struct Prober<'a> {
    api: &'a dyn BatchApi,
    config: &'a Config,
    wait: fn(Duration),
    checks: Vec<Check>,
    /// The files that are deleted at the end.
    files: Vec<String>,
}

impl BatchProbe {
    /// Makes the calls.
    ///
    /// # Errors
    /// When the input file cannot be written on this machine.
    pub(super) fn run(config: &Config, api: &dyn BatchApi, wait: fn(Duration)) -> Result<Self, CommandError> {
        let path = std::env::temp_dir().join(format!("batchkeeper-probe-{}.jsonl", uuid::Uuid::new_v4()));
        let failed = |error: io::Error| CommandError::Failed(format!("{}: {error}", path.display()));
        write_input(config, &path).map_err(failed)?;
        let mut prober = Prober {
            api,
            config,
            wait,
            checks: Vec::new(),
            files: Vec::new(),
        };
        let batch = prober.make_batch(&path);
        prober.delete_files();
        fs::remove_file(&path).map_err(failed)?;
        let cost = batch.map_or_else(|| "nothing: no batch was made".to_owned(), |it| prober.cost(&it));
        Ok(Self {
            checks: prober.checks,
            cost,
        })
    }

    /// Whether every call that is needed works.
    pub(super) fn is_good(&self) -> bool {
        let is_refused = |check: &Check| check.need == Need::Needed && check.result.is_err();
        !self.checks.iter().any(is_refused)
    }

    /// The table for people.
    pub(super) fn describe(&self) -> String {
        let mut text = String::from("what the server offers:\n");
        for Check { call, need, result } in &self.checks {
            let (mark, said) = match (result, need) {
                (Ok(said), _) => ("yes", said),
                (Err(said), Need::Needed) => ("NO ", said),
                (Err(said), Need::Useful) => ("no ", said),
            };
            text.push_str(&format!("  {mark}  {call:<28}  {}\n", escape_controls(said)));
        }
        text.push_str(&format!("the batch of one line cost {}\n", self.cost));
        text
    }

    pub(super) fn to_json(&self) -> Value {
        let checks = self.checks.iter().map(|check| {
            json!({
                "call": check.call, "needed": check.need == Need::Needed, "ok": check.result.is_ok(),
                "message": check.result.as_ref().unwrap_or_else(|error| error),
            })
        });
        json!({"good": self.is_good(), "checks": checks.collect::<Value>(), "cost": self.cost})
    }
}

/// Writes an input file of one line, with the parameters of the translation stage.
fn write_input(config: &Config, path: &Path) -> io::Result<()> {
    let parameters = config.parameters(Stage::Translation);
    let mut file = create_private(path)?;
    let mut writer = LineWriter::new(&mut file, parameters.form().endpoint);
    writer.write(CUSTOM_ID, &parameters.body(false, "", &[], TEXT, "de"))?;
    writer.finish()?;
    file.flush()
}

impl Prober<'_> {
    /// Records the result of a call. Gives its answer.
    fn record<T>(
        &mut self,
        call: &'static str,
        need: Need,
        answer: Result<T, CallError>,
        say: impl FnOnce(&T) -> Result<String, String>,
    ) -> Option<T> {
        let (result, answer) = match answer {
            Ok(answer) => (say(&answer), Some(answer)),
            Err(error) => (Err(error.to_string()), None),
        };
        self.checks.push(Check { call, need, result });
        answer
    }

    /// Makes each call with an object of its own. Gives the batch at its end.
    fn make_batch(&mut self, path: &Path) -> Option<Batch> {
        let uploaded = self.api.upload("batchkeeper-probe.jsonl", path);
        let file = self.record("POST /files", Need::Needed, uploaded, |file| Ok(file.id.clone()))?;
        self.files.push(file.id.clone());
        let shown = self.api.file(&file.id);
        self.record("GET /files/{id}", Need::Needed, shown, |file| {
            Ok(file
                .bytes
                .map_or("without a size".to_owned(), |bytes| format!("{bytes} bytes")))
        });
        let listed = self.api.input_files(None, 20);
        self.record("GET /files", Need::Useful, listed, |page| {
            match page.data.iter().any(|it| it.id == file.id) {
                true => Ok("lists the file".to_owned()),
                false => Err("does not list the file".to_owned()),
            }
        });
        let mut content = Vec::new();
        let downloaded = self.api.download(&file.id, &mut content);
        let sent = fs::read(path).unwrap_or_default();
        self.record("GET /files/{id}/content", Need::Needed, downloaded, |_| {
            match content == sent {
                true => Ok("gives what was sent".to_owned()),
                false => Err(format!("gives {} other bytes", content.len())),
            }
        });
        let new = NewBatch {
            input_file_id: file.id,
            endpoint: self.config.openai.endpoint,
            metadata: BTreeMap::from([(METADATA.0.to_owned(), METADATA.1.to_owned())]),
        };
        let created = self.api.create_batch(&new);
        let batch = self.record("POST /batches", Need::Needed, created, |batch| {
            Ok(batch.id.clone())
        })?;
        Some(self.follow(batch))
    }

    /// Looks at a batch in each way, and cancels it. Gives its end.
    fn follow(&mut self, batch: Batch) -> Batch {
        let shown = self.api.batch(&batch.id);
        self.record("GET /batches/{id}", Need::Needed, shown, |shown| {
            let of_input = shown.input_file_id == batch.input_file_id;
            let has_metadata = shown
                .metadata
                .get(METADATA.0)
                .is_some_and(|value| value == METADATA.1);
            match (of_input, has_metadata) {
                (true, true) => Ok(format!("{}, with its input file and metadata", shown.status_text)),
                (true, false) => Ok(format!(
                    "{}, with its input file, without metadata",
                    shown.status_text
                )),
                (false, _) => Ok(format!("{}, without its input file", shown.status_text)),
            }
        });
        if self.config.openai.lists_batches() {
            let listed = self.api.batches(None, 20);
            self.record("GET /batches", Need::Needed, listed, |page| {
                match page.data.iter().any(|it| it.id == batch.id) {
                    true => Ok("lists the batch".to_owned()),
                    false => {
                        Err("does not list the batch yet; openai.settling_time must be longer".to_owned())
                    }
                }
            });
        }
        let cancelled = self.api.cancel_batch(&batch.id);
        let call = "POST /batches/{id}/cancel";
        match cancelled {
            // A batch that has ended is refused. So the call is there.
            Err(CallError::Refused(refusal)) if matches!(refusal.status, 400 | 409) => {
                let result = Ok(format!("too late: {}", refusal.message));
                let need = Need::Useful;
                self.checks.push(Check { call, need, result });
            }
            cancelled => {
                self.record(call, Need::Useful, cancelled, |batch| {
                    Ok(batch.status_text.clone())
                });
            }
        }
        let mut last = batch;
        for _ in 0..POLLS {
            if let Ok(shown) = self.api.batch(&last.id) {
                last = shown;
            }
            if last.status.is_some_and(BatchStatus::is_final) {
                break;
            }
            (self.wait)(POLL_WAIT);
        }
        self.files.extend(
            [&last.output_file_id, &last.error_file_id]
                .into_iter()
                .flatten()
                .cloned(),
        );
        last
    }

    /// Deletes the files, whatever happened before.
    fn delete_files(&mut self) {
        let deleted: Vec<_> = self.files.iter().map(|file| self.api.delete_file(file)).collect();
        let number = deleted.len();
        if number == 0 {
            return;
        }
        let all: Result<Vec<()>, CallError> = deleted.into_iter().collect();
        self.record("DELETE /files/{id}", Need::Useful, all, |_| match number {
            1 => Ok("the file is deleted".to_owned()),
            number => Ok(format!("{number} files are deleted")),
        });
    }

    /// The cost of the line, in words.
    fn cost(&self, batch: &Batch) -> String {
        let parameters = self.config.parameters(Stage::Translation);
        let price = price_of(self.config, parameters.model()).map(|price| price.rates());
        match (batch.usage, price) {
            (_, None) => "an unknown amount, as the model has no price".to_owned(),
            (Some(tokens), Some([(_, rates), _])) => {
                let cost: Money = rates.cost(tokens);
                format!("{cost} USD")
            }
            (None, _) if batch.status == Some(BatchStatus::Cancelled) && batch.counts.completed == 0 => {
                "nothing: it was cancelled before the line ran".to_owned()
            }
            (None, Some(_)) => format!("at most one line; the server states no tokens of {}", batch.id),
        }
    }
}
