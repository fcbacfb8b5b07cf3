//! Why a configuration is refused.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// Why a configuration is refused. Its text names the file, the key and what to do.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The configuration's file cannot be read.
    #[error("{}: {error}{}", path.display(), hint(error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// The configuration in this file is refused.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// Why it is refused.
        error: Box<Self>,
    },
    /// The text is not TOML, a key is unknown, or a value has the wrong type.
    #[error("{0}")]
    Form(String),
    /// A file with a key or a token cannot be read.
    #[error("{setting}: {}: {error}", path.display())]
    SecretFile {
        /// The setting that names the file.
        setting: String,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// A value is out of its range, or values do not fit together.
    #[error("{0}")]
    Value(String),
}

impl From<toml::de::Error> for ConfigError {
    fn from(error: toml::de::Error) -> Self {
        Self::Form(without_value(&error.to_string()))
    }
}

impl ConfigError {
    /// An error at a place of a text. The line itself is not shown: its value may be a secret.
    pub(super) fn in_text(error: &toml::de::Error, text: &str) -> Self {
        let message = without_value(error.message());
        let start = error.span().map(|span| span.start);
        let Some((before, rest)) = start.and_then(|start| text.split_at_checked(start)) else {
            return Self::Form(message);
        };
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = 1 + before[line_start..].chars().count();
        let line = text[line_start..].lines().next().unwrap_or(rest);
        let key = line.split('=').next().unwrap_or_default().trim();
        let is_key = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let key = match !key.is_empty() && line.contains('=') && key.chars().all(is_key) {
            true => format!(" ({key})"),
            false => String::new(),
        };
        let number = 1 + before.matches('\n').count();
        Self::Form(format!("line {number}, column {column}{key}: {message}"))
    }

    pub(super) fn in_file(self, path: &Path) -> Self {
        Self::InFile {
            path: path.to_owned(),
            error: Box::new(self),
        }
    }
}

/// A message of the TOML parser without the text that it quotes, which may be a secret.
fn without_value(message: &str) -> String {
    match (message.find("string \""), message.rfind("\", expected")) {
        (Some(start), Some(end)) if start < end => {
            format!("{}a text{}", &message[..start], &message[end + 1..])
        }
        _ => message.to_owned(),
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; name the configuration with --config FILE",
        io::ErrorKind::PermissionDenied => {
            "; run it as a user that may read it: runuser -u batchkeeper -- batchkeeper ..."
        }
        _ => "",
    }
}

/// Refuses a value, with a sentence for the operator.
pub(super) fn refuse<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value(message.into()))
}

/// Refuses a number outside `least..=most`.
pub(super) fn check_range(
    key: &str,
    value: impl Into<u64>,
    least: u64,
    most: u64,
) -> Result<(), ConfigError> {
    let value = value.into();
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(format!("{key} = {value} is not from {least} to {most}"))
}

/// Refuses a duration of 0.
pub(super) fn check_longer_than_zero(key: &str, time: Duration) -> Result<(), ConfigError> {
    match time.is_zero() {
        true => refuse(format!("{key} must be longer than 0")),
        false => Ok(()),
    }
}

/// Refuses an empty text.
pub(super) fn check_not_empty(key: &str, text: &str) -> Result<(), ConfigError> {
    match text.is_empty() {
        true => refuse(format!("{key} is empty")),
        false => Ok(()),
    }
}

/// Refuses a text that cannot be the value of a header field.
pub(super) fn check_header_text(key: &str, text: &str) -> Result<(), ConfigError> {
    match text.chars().find(|c| !(c.is_ascii_graphic() || *c == ' ')) {
        Some(c) => refuse(format!(
            "{key} has U+{:04X}, which cannot be in a header field; use visible ASCII alone",
            u32::from(c)
        )),
        None => Ok(()),
    }
}

/// The error of a value that cannot be read: `"x" is no duration; write …`.
pub(super) fn invalid<E: serde::de::Error>(text: impl Display, what: &str) -> E {
    E::custom(format!("{:?} is no {what}", text.to_string()))
}
