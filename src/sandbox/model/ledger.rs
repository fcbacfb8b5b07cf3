//! The append-only record of every effect, and the totals over it.
//!
//! `GET /sandbox/ledger` shows the file as it is, so its members keep their names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Cursor, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::lock::lock;
use super::storage::{Content, StateFolderError, Storage};
use crate::base::clock::Timestamp;

/// One line of the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the members are those of the ledger's lines")]
pub enum LedgerEntry {
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
        /// The member `submission` of the metadata.
        submission: Option<String>,
        /// Whether the fault `create_twice` made the batch, and not a client.
        by_fault: bool,
    },
    Status {
        batch: String,
        status: String,
    },
    Cancel {
        batch: String,
    },
    /// A request was executed, and OpenAI would bill it. `batch` is `None` for a synchronous request.
    Executed {
        batch: Option<String>,
        custom_id: String,
        status: u16,
        /// Whether the client can read a complete answer.
        answered: bool,
    },
    /// All requests of a batch were executed. Without this entry, the batch's `executed` entries do not
    /// count.
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
    /// The client did something that OpenAI's reference does not provide for.
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

impl LedgerEntry {
    /// A target of these names triggered a fault.
    pub fn fault(fault: &str, names: &[&str]) -> Self {
        Self::Fault {
            fault: fault.to_owned(),
            target: names.first().copied().unwrap_or("").to_owned(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct LedgerLine<E> {
    at: String,
    #[serde(flatten)]
    entry: E,
}

/// How often one custom id was executed, and how often it was answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecutionCounts {
    pub executed: u64,
    pub answered: u64,
}

/// The totals over all entries.
#[derive(Default)]
pub struct LedgerTotals {
    pub uploads: u64,
    pub cancels: u64,
    /// Lines of past batches.
    pub seeded: u64,
    pub hooks: u64,
    pub executed: u64,
    pub synchronous: u64,
    pub answered: u64,
    /// By custom id, without synchronous requests.
    pub custom_ids: HashMap<String, ExecutionCounts>,
    /// Number and newest detail, by flag and request.
    pub flags: BTreeMap<(String, String), (u64, String)>,
    /// How often each fault was triggered.
    pub faults: BTreeMap<String, u64>,
    /// The batches that clients created, by project and the metadata's `submission`.
    pub submissions: BTreeMap<(String, String), Vec<String>>,
    /// All batches, those of faults and past ones included.
    pub created: HashSet<String>,
    /// Project and time (milliseconds) of each create by a client.
    pub creates: Vec<(String, i64)>,
    pub executed_batches: HashSet<String>,
}

impl LedgerTotals {
    fn add(&mut self, at: Timestamp, entry: &LedgerEntry) {
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
                    self.creates.push((project.clone(), at.millis()));
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
                    let counts = self.custom_ids.entry(custom_id.clone()).or_default();
                    counts.executed += 1;
                    counts.answered += u64::from(*answered);
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
                let (number, newest) = self.flags.entry((flag.clone(), request.clone())).or_default();
                *number += 1;
                newest.clone_from(detail);
            }
            LedgerEntry::Fault { fault, .. } => *self.faults.entry(fault.clone()).or_default() += 1,
            LedgerEntry::DeleteFile { .. } | LedgerEntry::Status { .. } => {}
        }
    }
}

/// The entries of a ledger.
enum Entries {
    Disk { path: PathBuf, file: File },
    Memory(Vec<(Timestamp, LedgerEntry)>),
}

struct OpenLedger {
    entries: Entries,
    totals: LedgerTotals,
}

/// The ledger's entries and its totals.
pub struct Ledger(Mutex<OpenLedger>);

impl Ledger {
    /// Opens the ledger and reads it. The incomplete end that a killed process left is cut off.
    pub fn open(storage: &Storage) -> Result<Self, StateFolderError> {
        let Storage::Folder(folder) = storage else {
            return Ok(Self(Mutex::new(OpenLedger {
                entries: Entries::Memory(Vec::new()),
                totals: LedgerTotals::default(),
            })));
        };
        let path = folder.join("ledger.jsonl");
        let failed = |error: io::Error| StateFolderError::new(&path, &error);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(failed)?;
        let (totals, complete) = read(&file).map_err(failed)?;
        file.set_len(complete).map_err(failed)?;
        Ok(Self(Mutex::new(OpenLedger {
            entries: Entries::Disk { path, file },
            totals,
        })))
    }

    /// Appends one entry.
    pub fn append(&self, at: Timestamp, entry: LedgerEntry) -> io::Result<()> {
        self.append_all(at, &[entry])
    }

    /// Appends entries in one write. The entries of a batch's execution must end with its `executed_all`.
    pub fn append_all(&self, at: Timestamp, entries: &[LedgerEntry]) -> io::Result<()> {
        let mut open = lock(&self.0);
        match &mut open.entries {
            Entries::Disk { file, .. } => {
                file.write_all(&encode(entries.iter().map(|entry| (at, entry)))?)?
            }
            Entries::Memory(all) => all.extend(entries.iter().map(|entry| (at, entry.clone()))),
        }
        for entry in entries {
            open.totals.add(at, entry);
        }
        Ok(())
    }

    /// The entries from the one of that number on. A ledger on disk has none in memory.
    pub fn entries_from(&self, number: usize) -> Vec<LedgerEntry> {
        match &lock(&self.0).entries {
            Entries::Disk { .. } => Vec::new(),
            Entries::Memory(all) => all.iter().skip(number).map(|(_, entry)| entry.clone()).collect(),
        }
    }

    /// Reads something from the totals.
    pub fn totals<T>(&self, read: impl FnOnce(&LedgerTotals) -> T) -> T {
        read(&lock(&self.0).totals)
    }

    /// Opens the entries for reading, one JSON object a line.
    pub fn reader(&self) -> io::Result<Content> {
        match &lock(&self.0).entries {
            Entries::Disk { path, .. } => Ok(Content::Disk(File::open(path)?)),
            Entries::Memory(all) => {
                let bytes = encode(all.iter().map(|(at, entry)| (*at, entry)))?;
                Ok(Content::Memory(Cursor::new(bytes.into())))
            }
        }
    }
}

fn encode<'a>(entries: impl Iterator<Item = (Timestamp, &'a LedgerEntry)>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (at, entry) in entries {
        let at = at.to_string();
        serde_json::to_writer(&mut bytes, &LedgerLine { at, entry })?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Adds up the complete entries; gives the totals and the length of the complete part in bytes. The
/// `executed` entries of a batch are complete only with the `executed_all` behind them.
fn read(file: &File) -> io::Result<(LedgerTotals, u64)> {
    let mut reader = BufReader::new(file);
    let mut totals = LedgerTotals::default();
    let (mut position, mut complete) = (0, 0);
    let mut pending: Vec<LedgerLine<LedgerEntry>> = Vec::new();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let length = reader.read_until(b'\n', &mut bytes)?;
        if length == 0 || bytes.last() != Some(&b'\n') {
            return Ok((totals, complete));
        }
        let Ok(line) = serde_json::from_slice::<LedgerLine<LedgerEntry>>(&bytes) else {
            return Ok((totals, complete));
        };
        position += u64::try_from(length).unwrap_or(0);
        let awaits_end = matches!(&line.entry, LedgerEntry::Executed { batch: Some(_), .. })
            || (!pending.is_empty() && matches!(&line.entry, LedgerEntry::Fault { .. }));
        pending.push(line);
        if !awaits_end {
            for line in pending.drain(..) {
                let at = line.at.parse().unwrap_or(Timestamp::from_millis(0));
                totals.add(at, &line.entry);
            }
            complete = position;
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
    fn a_partly_written_batch_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::Folder(folder.path().to_owned());
        let now = Timestamp::from_seconds(1);
        let ledger = Ledger::open(&storage).unwrap();
        ledger
            .append(now, LedgerEntry::Cancel { batch: "b".into() })
            .unwrap();
        let all = LedgerEntry::ExecutedAll {
            batch: "batch_1".into(),
            count: 2,
        };
        ledger
            .append_all(now, &[executed("a"), executed("b"), all])
            .unwrap();
        // A kill in the middle of the next append leaves this.
        ledger.append(now, executed("a")).unwrap();
        if let Entries::Disk { file, .. } = &mut lock(&ledger.0).entries {
            file.write_all(b"{\"at\":\"19").unwrap();
        }
        drop(ledger);
        let ledger = Ledger::open(&storage).unwrap();
        ledger.totals(|totals| {
            assert_eq!((totals.executed, totals.answered, totals.cancels), (2, 2, 1));
            assert_eq!(totals.custom_ids["a"].executed, 1);
            assert!(totals.executed_batches.contains("batch_1"));
        });
        ledger
            .append(now, LedgerEntry::Cancel { batch: "b".into() })
            .unwrap();
        let ledger = Ledger::open(&storage).unwrap();
        ledger.totals(|totals| assert_eq!(totals.cancels, 2));
    }
}
