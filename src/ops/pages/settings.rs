//! The configuration in force without secrets; version, schema, database and disk.

use super::components::facts;
use super::rows::Running;
use super::tables::{RUNNING, SETTINGS};
use super::{Content, RequestError, StatusPage};
use crate::store::{schema_version, sqlite_version};

impl StatusPage<'_> {
    pub(super) fn settings(&self) -> Result<Content, RequestError> {
        let (bytes, wal_bytes) = self.store.bytes();
        let running = Running {
            schema: schema_version().to_string(),
            sqlite: sqlite_version(),
            database: self.store.path().display().to_string(),
            bytes,
            wal_bytes,
            free_bytes: self.store.free_bytes()?,
        };
        let none = "The daemon was started without a file.";
        Ok(Content::list(
            "Settings",
            vec![
                maud::html! { h2 { "The program and its database" } (facts(RUNNING, &running, self.wall())) },
                self.backup_action(),
                self.threads(),
                self.table(
                    "The configuration in force, since the start of the daemon",
                    SETTINGS,
                    self.config.settings(),
                    none,
                ),
            ],
        ))
    }
}
