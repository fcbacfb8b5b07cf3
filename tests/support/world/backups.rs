//! Backups that are made and put back.

use super::{World, look_into};
use rusqlite::Connection;
use std::path::PathBuf;

impl World {
    /// A copy of the database as it is now.
    pub fn back_up(&mut self) -> PathBuf {
        let copy = self.folder.path().join("backup.db");
        if copy.exists() {
            std::fs::remove_file(&copy).expect("the last backup goes");
        }
        self.execute(&format!("VACUUM INTO '{}'", copy.display()))
            .expect("a backup");
        self.tell("backup");
        copy
    }

    /// Puts a backup in the database's place and starts on it.
    pub fn restore(&mut self, backup: &PathBuf) {
        self.tell("restore");
        self.running = None;
        self.sql = Connection::open_in_memory().expect("a connection");
        let database = &self.config.database;
        for suffix in ["-wal", "-shm"] {
            let mut name = database.clone().into_os_string();
            name.push(suffix);
            if let Err(error) = std::fs::remove_file(&name) {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            }
        }
        std::fs::copy(backup, database).expect("a restore");
        self.sql = look_into(database);
        self.clock.restart();
        self.forget_jobs_that_are_gone();
        self.is_restored = true;
        self.restores += 1;
        self.seen_version = -1;
        self.start();
    }

    /// Expects nothing of jobs that the restored database does not have.
    pub fn forget_jobs_that_are_gone(&mut self) {
        let known = self.texts("SELECT id FROM batch_jobs");
        self.orders.retain(|order| known.contains(&order.job));
        self.sent.retain(|job, _| known.contains(job));
    }
}
