//! The store: one SQLite file that holds all state. Nothing outside of this folder names rusqlite.
//!
//! *Locking.* One connection writes, behind a mutex and always under `BEGIN IMMEDIATE`. Reads have
//! connections of their own, and each read sees one snapshot. Commands in other processes write by the same
//! rules, so every change of a state is an `UPDATE … WHERE state = <expected>`.
//!
//! *Durability.* WAL with `synchronous = FULL`: a committed transaction survives a power cut. A full disk
//! rolls the transaction back, and the error passes ([`StoreError::Full`]). An I/O error or a corrupt page
//! does not pass ([`StoreError::Broken`]): [`Store::broken`] reports it, and the daemon ends.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::base::clock::Timestamp;

pub mod alerts;
pub mod audit;
pub mod backup;
pub mod batch_links;
pub mod batches;
pub mod calls;
pub mod cancel;
pub mod clock;
mod columns;
mod connection;
pub mod convert;
pub mod create_count;
mod error;
pub mod events;
pub mod figures;
mod files;
pub mod finding;
pub mod free_space;
pub mod idempotency;
pub mod identity;
pub mod images;
pub mod inspect;
pub mod invariants;
pub mod job_changes;
pub mod job_deliveries;
pub mod jobs;
pub mod legacy;
pub mod lots;
mod migrate;
pub mod money;
pub mod notices;
pub mod operator_tasks;
pub mod orphans;
pub mod outcome_counts;
mod planned_calls;
mod predicates;
pub mod queue;
pub mod report;
pub mod requests;
pub mod resends;
pub mod retention;
pub mod retry;
mod schema_check;
pub mod settle;
pub mod status;
pub mod stuck;
pub mod synchronous_calls;
pub mod times;
mod transaction;
pub mod unclaimed_lines;
pub mod unreadable;
pub mod webhook_deliveries;

use connection::{Readers, connect, guard};
use error::moved;
pub use error::{StoreError, Stored};
pub use files::{DaemonLock, lock_until_exit};
use files::{make_private_file, refuse_hard_links};
use migrate::migrate;
pub use migrate::{schema_version, sqlite_version};
pub use transaction::{Tx, View};

/// A moment of a write transaction at which a process may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Before the commit: nothing is stored.
    Ahead,
    /// After the commit: everything is stored.
    Done,
}

/// Is called before and after every commit.
pub type Watcher = Box<dyn Fn(Commit) + Send + Sync>;

/// The database.
pub struct Store {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Readers,
    database_id: String,
    watcher: Option<Watcher>,
    alarm: (Sender<String>, Receiver<String>),
    /// The latest time that was written, in milliseconds; the maximum if an earlier process may have written
    /// later ones.
    latest_write: AtomicI64,
    /// Whether a row could not be read.
    has_unreadable_rows: AtomicBool,
}

impl Store {
    /// Opens the database, makes it if it is not there, and brings it to this program's schema.
    ///
    /// # Errors
    /// If the file cannot be opened, is not batchkeeper's, or has a schema that this program cannot upgrade.
    pub fn open(path: &Path, now: Timestamp) -> Stored<Self> {
        Self::open_file(path, now).map_err(|error| error.of_file(path))
    }

    fn open_file(path: &Path, now: Timestamp) -> Stored<Self> {
        make_private_file(path)?;
        refuse_hard_links(path)?;
        let mut writer = connect(path)?;
        migrate(&mut writer, path, now)?;
        let database_id = match database_id(&writer)? {
            Some(id) => id,
            None => {
                // Only a new database is written to: reading needs no lock and no right to write.
                writer.execute(
                    "INSERT OR IGNORE INTO instance (id, database_id, created_at) VALUES (1, ?, ?)",
                    (uuid::Uuid::new_v4().simple().to_string(), now),
                )?;
                database_id(&writer)?
                    .ok_or_else(|| StoreError::Broken("its row of `instance` is gone".into()))?
            }
        };
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Readers::default(),
            database_id,
            watcher: None,
            alarm: bounded(1),
            latest_write: AtomicI64::new(i64::MAX),
            has_unreadable_rows: AtomicBool::new(false),
        })
    }

    /// The same store with a watcher, for tests alone. If the watcher unwinds, the transaction is rolled back
    /// or committed as it was at that moment.
    #[must_use]
    pub fn watched(mut self, watcher: Watcher) -> Self {
        self.watcher = Some(watcher);
        self
    }

    fn call_watcher(&self, commit: Commit) {
        if let Some(watcher) = &self.watcher {
            watcher(commit);
        }
    }

    /// The id that this database puts into the metadata of its batches.
    pub fn database_id(&self) -> &str {
        &self.database_id
    }

    /// Receives once why the database cannot be relied on any more.
    pub fn broken(&self) -> &Receiver<String> {
        &self.alarm.1
    }

    /// Reports an error after which the database cannot be relied on.
    fn report_broken<T>(&self, result: Stored<T>) -> Stored<T> {
        let result = result.map_err(|error| error.of_file(&self.path));
        match &result {
            // One report is enough.
            Err(StoreError::Broken(what)) => drop(self.alarm.0.try_send(what.clone())),
            Err(StoreError::Unreadable(_)) => self.has_unreadable_rows.store(true, Ordering::Relaxed),
            _ => {}
        }
        result
    }

    /// Whether a row could not be read since [`Store::forget_unreadable_rows`].
    pub fn has_unreadable_rows(&self) -> bool {
        self.has_unreadable_rows.load(Ordering::Relaxed)
    }

    /// Stores that every row can be read, as far as is known.
    pub fn forget_unreadable_rows(&self) {
        self.has_unreadable_rows.store(false, Ordering::Relaxed);
    }

    fn note_skipped_rows(&self, view: &View<'_>) {
        if view.has_skipped_rows() {
            self.has_unreadable_rows.store(true, Ordering::Relaxed);
        }
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `change` in one transaction: committed if it returns `Ok`, rolled back otherwise.
    ///
    /// # Errors
    /// The error of `change` or of the commit.
    pub fn write<T>(&self, now: Timestamp, change: impl FnOnce(&Tx<'_>) -> Stored<T>) -> Stored<T> {
        self.report_broken(self.transaction(now, change))
    }

    fn transaction<T>(&self, now: Timestamp, change: impl FnOnce(&Tx<'_>) -> Stored<T>) -> Stored<T> {
        let mut writer = guard(&self.writer);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        self.latest_write.fetch_max(now.millis(), Ordering::Relaxed);
        let tx = Tx::new(transaction, now);
        let done = change(&tx)?;
        self.note_skipped_rows(&tx);
        settle::write_tallies(&tx)?;
        self.call_watcher(Commit::Ahead);
        tx.commit()?;
        self.call_watcher(Commit::Done);
        Ok(done)
    }

    /// Writes a row without a change, to learn whether the database can be written now.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn probe(&self, now: Timestamp) -> Stored<()> {
        self.write(now, |tx| {
            Ok(tx
                .execute("UPDATE instance SET id = 1 WHERE id = 1", [])
                .map(drop)?)
        })
    }

    /// Runs `look` on one snapshot of the database.
    ///
    /// It must be short, because the WAL grows meanwhile and there are few connections. It must not read
    /// through the store again.
    ///
    /// # Errors
    /// The error of `look`.
    pub fn read<T>(&self, look: impl FnOnce(&View<'_>) -> Stored<T>) -> Stored<T> {
        let mut reader = self.readers.take();
        let snapshot = View::new(reader.open(&self.path)?.unchecked_transaction()?);
        // A reader that cannot be opened says nothing of the file: a descriptor may be missing.
        let result = self.report_broken(look(&snapshot));
        self.note_skipped_rows(&snapshot);
        result
    }
}

fn database_id(connection: &Connection) -> Stored<Option<String>> {
    let id = connection.query_row("SELECT database_id FROM instance", [], |row| row.get(0));
    Ok(id.optional()?)
}
