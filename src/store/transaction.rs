//! A read snapshot and a write transaction. Outside of the store they are opaque: every statement is inside
//! it.

use std::cell::{Cell, RefCell};
use std::ops::Deref;

use log::Level;
use rusqlite::{CachedStatement, Connection, Params, Row, Statement, Transaction};

use super::error::Stored;
use super::settle::Tallies;
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;

/// A consistent snapshot of the database, to read from.
pub struct View<'c> {
    transaction: Transaction<'c>,
    has_skipped_rows: Cell<bool>,
}

impl<'c> View<'c> {
    pub(super) fn new(transaction: Transaction<'c>) -> Self {
        Self {
            transaction,
            has_skipped_rows: Cell::new(false),
        }
    }

    /// Notes that a row was set aside because it cannot be read.
    pub(super) fn note_skipped_row(&self) {
        self.has_skipped_rows.set(true);
    }

    /// Whether a row was set aside.
    pub(super) fn has_skipped_rows(&self) -> bool {
        self.has_skipped_rows.get()
    }

    /// A statement that its connection plans once.
    pub(super) fn prepare_cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.transaction.prepare_cached(sql)
    }

    /// A statement that is planned at each call: for rare ones.
    pub(super) fn prepare(&self, sql: &str) -> rusqlite::Result<Statement<'_>> {
        self.transaction.prepare(sql)
    }

    /// Reads the first row of a query.
    pub(super) fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.transaction.query_row(sql, params, read)
    }

    /// The connection itself: for backups.
    pub(super) fn connection(&self) -> &Connection {
        &self.transaction
    }
}

/// A write transaction.
pub struct Tx<'c> {
    view: View<'c>,
    pub(super) tallies: Tallies,
    /// Log records. A transaction that is rolled back writes none.
    log_records: RefCell<Vec<(Level, Fields)>>,
    /// The wall clock's time of everything that this transaction writes.
    pub now: Timestamp,
}

impl<'c> Deref for Tx<'c> {
    type Target = View<'c>;

    fn deref(&self) -> &View<'c> {
        &self.view
    }
}

impl<'c> Tx<'c> {
    pub(super) fn new(transaction: Transaction<'c>, now: Timestamp) -> Self {
        Self {
            view: View::new(transaction),
            tallies: Tallies::default(),
            log_records: RefCell::default(),
            now,
        }
    }

    /// Runs a statement that its connection plans once: the same few statements write all the time.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.prepare_cached(sql)?.execute(params)
    }

    /// The row id of the last insert.
    pub(super) fn last_insert_rowid(&self) -> i64 {
        self.view.transaction.last_insert_rowid()
    }

    /// Writes a log record once this transaction is committed.
    pub(super) fn log_after_commit(&self, level: Level, fields: Fields) {
        self.log_records.borrow_mut().push((level, fields));
    }

    /// Commits, then logs what the transaction did.
    pub(super) fn commit(self) -> Stored<()> {
        self.view.transaction.commit()?;
        for (level, fields) in self.log_records.into_inner() {
            fields.log(level, module_path!());
        }
        Ok(())
    }
}
