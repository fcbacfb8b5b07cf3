//! Reads the daemon's database from outside, and replaces it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use batchkeeper::base::clock::{Clock, SystemClock};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::process::{pause, until};
use super::{PATIENCE, Rig};

impl Rig {
    /// A read-only connection that leaves the WAL as the daemon left it.
    pub fn look(&self) -> Connection {
        connect(&self.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// The number that a query returns.
    pub fn number(&self, sql: &str) -> i64 {
        number(&self.look(), sql)
    }

    /// The texts that a query returns.
    pub fn texts(&self, sql: &str) -> Vec<String> {
        let database = self.look();
        let mut query = database.prepare(sql).unwrap();
        let texts = query.query_map([], |row| row.get(0)).unwrap();
        texts.map(Result::unwrap).collect()
    }

    /// Waits until a query returns a row.
    pub fn wait_for(&self, condition: &str) {
        let database = self.look();
        until(condition, || holds(&database, condition).then_some(()));
    }

    /// Waits until a query returns a row, and kills the daemon before it can commit anything more:
    /// the test holds the write lock while the daemon dies. Returns false if `over` returned a row
    /// first.
    pub fn kill_when(&mut self, condition: &str, over: &str) -> bool {
        let mut lock = connect(&self.database(), OpenFlags::SQLITE_OPEN_READ_WRITE);
        // The daemon commits one transaction soon after another, so this loop must not sleep.
        lock.busy_handler(Some(|_| true)).unwrap();
        let clock = SystemClock::new();
        let started = clock.now().steady;
        let killed = loop {
            if holds(&lock, condition) {
                lock.execute_batch("BEGIN IMMEDIATE").unwrap();
                let there = holds(&lock, condition);
                if there {
                    self.kill();
                }
                lock.execute_batch("ROLLBACK").unwrap();
                if there {
                    break true;
                }
            }
            if holds(&lock, over) {
                break false;
            }
            let waited = clock.now().steady.saturating_sub(started);
            assert!(waited < PATIENCE, "waited {waited:?} for {condition}");
            pause(Duration::from_micros(200));
        };
        assert!(!killed || holds(&lock, condition));
        killed
    }

    /// Lets the transactions that [`Strike::Hold`](super::Strike::Hold) stops pass one by one until
    /// a query returns a row between two of them, and kills the daemon there.
    pub fn kill_between(&mut self, condition: &str) {
        let database = self.look();
        let mut passed = 0;
        until(condition, || {
            if self.plan().seen() == passed {
                return None;
            }
            if holds(&database, condition) {
                return Some(());
            }
            passed += 1;
            self.plan().let_pass(passed);
            None
        });
        self.kill();
        self.plan().lift();
        assert!(holds(&database, condition));
    }

    /// Copies the database as it is now into the file `name`.
    pub fn back_up(&self, name: &str) {
        let copy = self.path(name);
        if copy.exists() {
            fs::remove_file(&copy).unwrap();
        }
        let database = self.look();
        database
            .execute("VACUUM INTO ?", [copy.to_str().unwrap()])
            .unwrap();
    }

    /// Deletes everything about batches from a copy.
    pub fn forget_batches(&self, name: &str) {
        let copy = connect(&self.path(name), OpenFlags::SQLITE_OPEN_READ_WRITE);
        copy.execute_batch(
            "DELETE FROM batch_lines; DELETE FROM batch_links; DELETE FROM events WHERE batch_id IS NOT NULL;
             DELETE FROM openai_batches; UPDATE requests SET state = 'waiting';",
        )
        .unwrap();
    }

    /// Replaces the database by the copy. No process may have it open.
    pub fn restore(&mut self, name: &str) {
        self.forget_database();
        fs::copy(self.path(name), self.database()).unwrap();
        // Remove the input files that were spooled after the copy.
        self.kills += 1;
    }

    /// Moves everything from the WAL into the database. The daemon must not run.
    pub fn empty_wal(&self) {
        let database = connect(&self.database(), OpenFlags::SQLITE_OPEN_READ_WRITE);
        let busy = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: i64 = database.query_row(busy, [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
    }

    /// Copies the daemon's folder and the sandbox's folder. Neither process may run.
    pub fn keep(&self, name: &str) {
        let kept = self.path(name);
        fs::create_dir(&kept).unwrap();
        for folder in ["data", "sandbox"] {
            copy(&self.path(folder), &kept);
        }
    }

    /// Puts both folders back. Everything that was done after the copy is lost.
    pub fn put_back(&mut self, name: &str) {
        let kept = self.path(name);
        for folder in ["data", "sandbox"] {
            fs::remove_dir_all(self.path(folder)).unwrap();
            copy(&kept.join(folder), self.folder.path());
        }
        self.kills = 1;
    }

    pub fn forget_database(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let file = self.path(&format!("data/batchkeeper.db{suffix}"));
            if file.exists() {
                fs::remove_file(file).unwrap();
            }
        }
    }
}

/// Copies a folder with its content into another.
fn copy(folder: &Path, into: &Path) {
    let copied = Command::new("cp").arg("-r").arg(folder).arg(into).status();
    assert!(copied.unwrap().success());
}

fn connect(path: &Path, flags: OpenFlags) -> Connection {
    let connection = Connection::open_with_flags(path, flags).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    connection
}

fn holds(database: &Connection, condition: &str) -> bool {
    database.prepare_cached(condition).unwrap().exists([]).unwrap()
}

fn number(database: &Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}
