//! `log` and `log_format`: what the log contains, and its form.

use serde::Deserialize;

use super::ConfigError;
use super::error::refuse;

/// Levels that `log` may name, from the fewest records to the most.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The form of a log record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `event=… key=value`, after time and level.
    #[default]
    Text,
    /// A JSON object that has the same keys as members.
    Json,
}

/// Refuses a filter that names no known level. env_logger would take `loud` for a module's name, and
/// would log that module alone.
pub(super) fn check(filter: &str) -> Result<(), ConfigError> {
    let is_level = |text: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
    let is_module = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
    };
    let wrong = filter.split(',').map(str::trim).find(|part| {
        let known = match part.split_once('=') {
            None => is_level(part),
            Some((module, level)) => is_module(module) && is_level(level),
        };
        !known
    });
    match wrong {
        None => Ok(()),
        Some(part) => refuse(format!(
            "log: {part:?} is no level; write {}, or also a module's: \"info,batchkeeper::http=debug\"",
            LEVELS.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_made_of_levels() {
        for filter in [
            "info",
            "WARN",
            "off",
            "info,batchkeeper::http=debug",
            "warn, batchkeeper=info",
        ] {
            assert_eq!(
                check(filter).map_err(|error| error.to_string()),
                Ok(()),
                "{filter}"
            );
        }
        for filter in [
            "loud",
            "",
            "info,",
            "info,loud",
            "batchkeeper=loud",
            "=info",
            "info/a.*b",
        ] {
            assert!(check(filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn json_as_a_level_is_short_for_the_format() {
        let key = "[[clients]]\nname = \"default\"\nkeys = [\"sixteen bytes or more\"]";
        let parsed = crate::config::Config::parse(&format!("log = \"json\"\n{key}"));
        let config = parsed.expect("a configuration");
        assert_eq!(
            (config.log.as_str(), config.log_format),
            ("info", LogFormat::Json)
        );
    }
}
