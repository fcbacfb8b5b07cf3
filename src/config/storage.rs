//! `[retention]` and `[backup]`: what is stored, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::error::check_range;
use super::units::duration;

/// `[retention]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// The age at which texts, lots and lines of final jobs are deleted. 0 keeps them.
    #[serde(with = "duration")]
    pub results: Duration,
    /// The age at which files of settled batches are deleted at OpenAI. 0 keeps them.
    #[serde(with = "duration")]
    pub remote_files: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            results: Duration::from_hours(30 * 24),
            remote_files: Duration::from_hours(7 * 24),
        }
    }
}

/// `[backup]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupConfig {
    /// The folder of `batchkeeper backup`. Empty if the command line must name one.
    pub dir: PathBuf,
    /// The number of backups that are kept.
    pub keep: u32,
    /// The age of the newest backup at which an alert is opened. 0 opens none.
    #[serde(with = "duration")]
    pub late_after: Duration,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            keep: 7,
            late_after: Duration::from_hours(48),
        }
    }
}

impl BackupConfig {
    /// Whether a folder for backups is configured.
    pub fn is_on(&self) -> bool {
        !self.dir.as_os_str().is_empty()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_range("backup.keep", self.keep, 1, 10_000)
    }
}
