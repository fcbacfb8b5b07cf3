//! Looking into the daemon's database from outside, and putting another in its place.

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
    /// A connection that only looks, and leaves the WAL as the daemon left it.
    pub fn look(&self) -> Connection {
        connect(&self.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// A number that a query gives.
    pub fn number(&self, sql: &str) -> i64 {
        number(&self.look(), sql)
    }

    /// The texts that a query gives.
    pub fn texts(&self, sql: &str) -> Vec<String> {
        let database = self.look();
        let mut query = database.prepare(sql).unwrap();
        let texts = query.query_map([], |row| row.get(0)).unwrap();
        texts.map(Result::unwrap).collect()
    }

    /// Waits until a query gives a row.
    pub fn wait_for(&self, condition: &str) {
        let database = self.look();
        until(condition, || holds(&database, condition).then_some(()));
    }

    /// Waits until a query gives a row and kills the daemon right there, before it can commit
    /// anything more: the write lock is held while it dies. False when `over` came first.
    pub fn kill_when(&mut self, condition: &str, over: &str) -> bool {
        let mut lock = connect(&self.database(), OpenFlags::SQLITE_OPEN_READ_WRITE);
        // The daemon's transactions follow close upon each other: nobody may sleep between them.
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

    /// Lets the transactions that [`Strike::Step`](super::Strike::Step) stops pass one by one, until
    /// a query gives a row between two of them, and kills the daemon there.
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

    /// Puts a copy of the database as it is now beside it.
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

    /// Takes everything that was planned out of a copy.
    pub fn forget_batches(&self, name: &str) {
        let copy = connect(&self.path(name), OpenFlags::SQLITE_OPEN_READ_WRITE);
        copy.execute_batch(
            "DELETE FROM batch_lines; DELETE FROM batch_links; DELETE FROM events WHERE batch_id IS NOT NULL;
             DELETE FROM openai_batches; UPDATE requests SET state = 'waiting';",
        )
        .unwrap();
    }

    /// Puts the copy in the database's place. Nothing may have it open.
    pub fn restore(&mut self, name: &str) {
        self.forget_database();
        fs::copy(self.path(name), self.database()).unwrap();
        // What was uploaded since is not known any more.
        self.kills += 1;
    }

    /// Brings all that is in the WAL into the database. The daemon must not run.
    pub fn empty_wal(&self) {
        let database = connect(&self.database(), OpenFlags::SQLITE_OPEN_READ_WRITE);
        let busy = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: i64 = database.query_row(busy, [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
    }

    /// Copies the daemon's folder and the sandbox's as they are. Neither may run.
    pub fn keep(&self, name: &str) {
        let kept = self.path(name);
        fs::create_dir(&kept).unwrap();
        for folder in ["data", "sandbox"] {
            copy(&self.path(folder), &kept);
        }
    }

    /// Puts both back. What was done since then is not known any more.
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

/// A folder with all that is in it, into another.
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
    database
        .prepare_cached(condition)
        .unwrap()
        .exists([])
        .unwrap()
}

fn number(database: &Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}
