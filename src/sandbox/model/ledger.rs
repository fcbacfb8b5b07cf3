//! The append-only record of everything that had an effect, and the sums over it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::sandbox::model::disk::StateFolderError;

/// One line of the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(in crate::sandbox) enum LedgerEntry {
    Upload {
        file: String,
        filename: String,
        purpose: String,
        bytes: u64,
        sha256: String,
        project: String,
        organization: String,
    },
    DeleteFile {
        file: String,
    },
    Create {
        batch: String,
        input_file: String,
        project: String,
        organization: String,
        /// The metadata's `submission`.
        submission: Option<String>,
        /// Made by the fault `create_twice`, not by the client.
        by_fault: bool,
    },
    Status {
        batch: String,
        status: String,
    },
    Cancel {
        batch: String,
    },
    /// A request was run, and would be paid; synchronous ones have no batch.
    Executed {
        batch: Option<String>,
        custom_id: String,
        status: u16,
        /// A whole, paid answer was written where the client can read it.
        answered: bool,
    },
    /// Ends a batch's `executed` lines: without it they do not count.
    ExecutedAll {
        batch: String,
        count: u64,
    },
    Seed {
        batch: String,
        lines: u64,
    },
    Hook {
        name: String,
        bytes: u64,
        status: u16,
    },
    /// The client did something that a strict reader of the API would not.
    Flag {
        flag: String,
        request: String,
        detail: String,
    },
    Fault {
        fault: String,
        target: String,
    },
}

#[derive(Serialize, Deserialize)]
struct LedgerLine<E> {
    at: String,
    #[serde(flatten)]
    entry: E,
}

/// How often one custom id was run and answered.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sandbox) struct ExecutionCounts {
    pub(in crate::sandbox) executed: u64,
    pub(in crate::sandbox) answered: u64,
}

/// The sums.
#[derive(Default)]
pub(in crate::sandbox) struct LedgerTotals {
    pub(in crate::sandbox) lines: u64,
    pub(in crate::sandbox) uploads: u64,
    pub(in crate::sandbox) cancels: u64,
    pub(in crate::sandbox) seeded: u64,
    pub(in crate::sandbox) hooks: u64,
    pub(in crate::sandbox) executed: u64,
    pub(in crate::sandbox) synchronous: u64,
    pub(in crate::sandbox) answered: u64,
    pub(in crate::sandbox) runs: HashMap<String, ExecutionCounts>,
    /// By flag and request: how often, and the newest detail.
    pub(in crate::sandbox) flags: BTreeMap<(String, String), (u64, String)>,
    /// By fault.
    pub(in crate::sandbox) faults: BTreeMap<String, u64>,
    /// By project and token: the batches that a client made with it.
    pub(in crate::sandbox) submissions: BTreeMap<(String, String), Vec<String>>,
    pub(in crate::sandbox) created: HashSet<String>,
    /// Project and time of each create by a client.
    pub(in crate::sandbox) creates: Vec<(String, i64)>,
    pub(in crate::sandbox) executed_batches: HashSet<String>,
}

impl LedgerTotals {
    fn add(&mut self, at: &str, entry: &LedgerEntry) {
        self.lines += 1;
        match entry {
            LedgerEntry::Upload { .. } => self.uploads += 1,
            LedgerEntry::Cancel { .. } => self.cancels += 1,
            LedgerEntry::Seed { batch, lines } => {
                self.seeded += lines;
                self.created.insert(batch.clone());
            }
            LedgerEntry::Hook { .. } => self.hooks += 1,
            LedgerEntry::Create {
                batch,
                project,
                submission,
                by_fault,
                ..
            } => {
                self.created.insert(batch.clone());
                if !by_fault {
                    let millis = at.parse::<Timestamp>().map_or(0, Timestamp::millis);
                    self.creates.push((project.clone(), millis));
                    if let Some(token) = submission {
                        self.submissions
                            .entry((project.clone(), token.clone()))
                            .or_default()
                            .push(batch.clone());
                    }
                }
            }
            LedgerEntry::Executed {
                batch,
                custom_id,
                answered,
                ..
            } => {
                self.executed += 1;
                self.answered += u64::from(*answered);
                if batch.is_none() {
                    self.synchronous += 1;
                } else {
                    let runs = self.runs.entry(custom_id.clone()).or_default();
                    runs.executed += 1;
                    runs.answered += u64::from(*answered);
                }
            }
            LedgerEntry::ExecutedAll { batch, .. } => {
                self.executed_batches.insert(batch.clone());
            }
            LedgerEntry::Flag {
                flag,
                request,
                detail,
            } => {
                let seen = self
                    .flags
                    .entry((flag.clone(), request.clone()))
                    .or_default();
                seen.0 += 1;
                seen.1.clone_from(detail);
            }
            LedgerEntry::Fault { fault, .. } => *self.faults.entry(fault.clone()).or_default() += 1,
            LedgerEntry::DeleteFile { .. } | LedgerEntry::Status { .. } => {}
        }
    }
}

struct OpenLedger {
    file: File,
    tally: LedgerTotals,
}

/// The ledger, open.
pub(in crate::sandbox) struct Ledger {
    path: PathBuf,
    open: Mutex<OpenLedger>,
}

impl Ledger {
    /// Opens it and reads it through; what a killed process left half written is cut off.
    pub(in crate::sandbox) fn open(folder: &Path) -> Result<Self, StateFolderError> {
        let path = folder.join("ledger.jsonl");
        let failed = |error: io::Error| StateFolderError::new(&path, &error);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(failed)?;
        let (tally, whole) = read(&file).map_err(failed)?;
        file.set_len(whole).map_err(failed)?;
        Ok(Self {
            open: Mutex::new(OpenLedger { file, tally }),
            path,
        })
    }

    /// Appends one entry.
    pub(in crate::sandbox) fn note(&self, at: Timestamp, entry: LedgerEntry) -> io::Result<()> {
        self.append(at, &[entry])
    }

    /// Appends entries in one write: all of a batch's lines end with its `executed_all`.
    pub(in crate::sandbox) fn append(
        &self,
        at: Timestamp,
        entries: &[LedgerEntry],
    ) -> io::Result<()> {
        let at = at.to_string();
        let mut bytes = Vec::new();
        for entry in entries {
            let line = LedgerLine {
                at: at.clone(),
                entry,
            };
            serde_json::to_writer(&mut bytes, &line)?;
            bytes.push(b'\n');
        }
        let mut open = self.lock();
        open.file.write_all(&bytes)?;
        for entry in entries {
            open.tally.add(&at, entry);
        }
        Ok(())
    }

    /// Reads something off the sums.
    pub(in crate::sandbox) fn sums<T>(&self, read: impl FnOnce(&LedgerTotals) -> T) -> T {
        read(&self.lock().tally)
    }

    /// The ledger as a file to read.
    pub(in crate::sandbox) fn reader(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    fn lock(&self) -> MutexGuard<'_, OpenLedger> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sums over what is whole, and where that ends: `executed` lines of a batch count only with
/// the `executed_all` behind them.
fn read(file: &File) -> io::Result<(LedgerTotals, u64)> {
    let mut reader = BufReader::new(file);
    let mut tally = LedgerTotals::default();
    let (mut at, mut whole) = (0, 0);
    let mut pending: Vec<LedgerLine<LedgerEntry>> = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 || line.last() != Some(&b'\n') {
            return Ok((tally, whole));
        }
        let Ok(entry) = serde_json::from_slice::<LedgerLine<LedgerEntry>>(&line) else {
            return Ok((tally, whole));
        };
        at += u64::try_from(length).unwrap_or(0);
        let unfinished = matches!(&entry.entry, LedgerEntry::Executed { batch: Some(_), .. })
            || (!pending.is_empty() && matches!(&entry.entry, LedgerEntry::Fault { .. }));
        pending.push(entry);
        if !unfinished {
            for entry in pending.drain(..) {
                tally.add(&entry.at, &entry.entry);
            }
            whole = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executed(custom_id: &str) -> LedgerEntry {
        LedgerEntry::Executed {
            batch: Some("batch_1".into()),
            custom_id: custom_id.into(),
            status: 200,
            answered: true,
        }
    }

    #[test]
    fn a_half_written_batch_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_seconds(1);
        let ledger = Ledger::open(folder.path()).unwrap();
        ledger
            .note(now, LedgerEntry::Cancel { batch: "b".into() })
            .unwrap();
        let all = LedgerEntry::ExecutedAll {
            batch: "batch_1".into(),
            count: 2,
        };
        ledger
            .append(now, &[executed("a"), executed("b"), all])
            .unwrap();
        // What a kill in the middle of the next append leaves.
        ledger.append(now, &[executed("a")]).unwrap();
        ledger.lock().file.write_all(b"{\"at\":\"19").unwrap();
        drop(ledger);
        let ledger = Ledger::open(folder.path()).unwrap();
        ledger.sums(|tally| {
            assert_eq!((tally.executed, tally.answered, tally.cancels), (2, 2, 1));
            assert_eq!(tally.runs["a"].executed, 1);
            assert!(tally.executed_batches.contains("batch_1"));
        });
        ledger
            .note(now, LedgerEntry::Cancel { batch: "b".into() })
            .unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        ledger.sums(|tally| assert_eq!(tally.cancels, 2));
    }
}
