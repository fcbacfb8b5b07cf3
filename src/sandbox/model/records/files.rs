//! The records of files and their contents.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::sandbox::model::lock::lock;
use crate::sandbox::model::storage::{StateFolderError, Storage};

/// The record of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileRecord {
    pub id: String,
    /// Orders files of the same millisecond.
    pub seq: u64,
    pub project: String,
    pub purpose: String,
    pub filename: String,
    pub bytes: u64,
    pub created_ms: i64,
    /// In seconds; `None` if the file does not expire.
    pub expires_at: Option<i64>,
    pub deleted: bool,
}

impl FileRecord {
    /// Whether the file is neither deleted nor expired.
    fn is_available(&self, now: Timestamp) -> bool {
        !self.deleted && self.expires_at.is_none_or(|end| now.seconds() < end)
    }
}

/// The name of a file's content.
pub fn content_name(id: &str) -> String {
    format!("files/{id}.data")
}

/// The records of all files, and where they are kept.
pub struct FileRecords {
    storage: Storage,
    records: Mutex<BTreeMap<String, FileRecord>>,
}

impl FileRecords {
    /// Reads the records of a state folder.
    pub fn open(storage: Storage) -> Result<Self, StateFolderError> {
        let records = storage
            .read_records::<FileRecord>("files")?
            .into_iter()
            .map(|record| (record.id.clone(), record))
            .collect();
        Ok(Self {
            storage,
            records: Mutex::new(records),
        })
    }

    /// Writes a record. The content must be stored already.
    pub fn save(&self, record: FileRecord) -> io::Result<()> {
        self.storage
            .write_record(&format!("files/{}.json", record.id), &record)?;
        lock(&self.records).insert(record.id.clone(), record);
        Ok(())
    }

    /// Marks a file as deleted and removes its content.
    pub fn delete(&self, id: &str) -> io::Result<()> {
        if let Some(mut record) = self.find_any(id) {
            record.deleted = true;
            self.save(record)?;
        }
        self.storage.remove(&content_name(id))
    }

    /// The highest `seq` of any record.
    pub fn newest_seq(&self) -> u64 {
        lock(&self.records)
            .values()
            .map(|record| record.seq)
            .max()
            .unwrap_or(0)
    }

    /// A record, also that of a deleted or expired file.
    pub fn find_any(&self, id: &str) -> Option<FileRecord> {
        lock(&self.records).get(id).cloned()
    }

    /// The record of a project's file that is neither deleted nor expired.
    pub fn find(&self, project: &str, id: &str, now: Timestamp) -> Option<FileRecord> {
        self.find_any(id)
            .filter(|record| record.project == project && record.is_available(now))
    }

    /// The records of a project's files that are neither deleted nor expired, oldest first.
    pub fn available(&self, project: &str, now: Timestamp) -> Vec<FileRecord> {
        let mut records = lock(&self.records)
            .values()
            .filter(|record| record.project == project && record.is_available(now))
            .cloned()
            .collect::<Vec<_>>();
        records.sort_by_key(|record| (record.created_ms, record.seq));
        records
    }

    /// The number of files that are neither deleted nor expired, by purpose, and their bytes.
    pub fn totals(&self, now: Timestamp) -> (BTreeMap<String, u64>, u64) {
        let mut counts = BTreeMap::new();
        let mut bytes = 0;
        let records = lock(&self.records);
        for record in records.values().filter(|record| record.is_available(now)) {
            *counts.entry(record.purpose.clone()).or_default() += 1;
            bytes += record.bytes;
        }
        (counts, bytes)
    }
}
