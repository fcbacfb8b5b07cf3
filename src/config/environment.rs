//! Configuration keys that the environment sets: `BATCHKEEPER_OPENAI__BASE_URL` is `openai.base_url`, and
//! `BATCHKEEPER_LISTEN` is `listen`. Keys and tokens come from files.

use std::ffi::OsString;

use toml::{Table, Value};

use super::ConfigError;
use super::error::refuse;

const PREFIX: &str = "BATCHKEEPER_";
/// Between section and key.
const SEPARATOR: &str = "__";
/// Keys that hold secrets, or lists of tables: only the file sets them.
const FILE_ONLY: [&str; 5] = ["alert_receivers", "clients", "prices", "webhook_key", "keys"];
/// Every key with its default, as a table of the same form.
const EXAMPLE: &str = include_str!("../../config.example.toml");

/// A key that the environment sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// The variable.
    pub variable: String,
    /// Section and key; the section is empty for a key at the top.
    pub path: (String, String),
    value: Value,
}

/// The overrides in the variables of an environment.
///
/// # Errors
/// If a variable names a section and a key that do not exist, or a key that only the file may set.
pub(super) fn overrides(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<Override>, ConfigError> {
    let example: Table = toml::from_str(EXAMPLE)?;
    let mut found = Vec::new();
    for (variable, text) in variables {
        // No key of the configuration has other letters.
        let Ok(variable) = variable.into_string() else {
            continue;
        };
        let Some(name) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let name = name.to_lowercase();
        let (section, key) = name.split_once(SEPARATOR).unwrap_or(("", &name));
        if FILE_ONLY.contains(&key) || FILE_ONLY.contains(&section) {
            return refuse(format!(
                "{variable}: only the configuration's file may set {section} {key}"
            ));
        }
        let is_known = match section {
            // Other programs have variables with this prefix, so an unknown name is no mistake.
            "" if example.get(key).is_none_or(Value::is_table) => continue,
            "" => true,
            _ => example.get(section).is_some_and(Value::is_table),
        };
        if !is_known {
            return refuse(format!(
                "{variable}: there is no section [{section}] in the configuration"
            ));
        }
        let Ok(text) = text.into_string() else {
            return refuse(format!("{variable}: the value is not UTF-8"));
        };
        let default = match section {
            "" => example.get(key),
            _ => example.get(section).and_then(|table| table.get(key)),
        };
        found.push(Override {
            path: (section.to_owned(), key.to_owned()),
            value: value(text, default),
            variable,
        });
    }
    found.sort_by(|a, b| a.variable.cmp(&b.variable));
    Ok(found)
}

/// Puts overrides into the table of a configuration.
pub(super) fn apply(table: &mut Table, overrides: &[Override]) {
    for it in overrides {
        let (section, key) = &it.path;
        let target = match section.as_str() {
            "" => Some(&mut *table),
            _ => table
                .entry(section.clone())
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut(),
        };
        if let Some(target) = target {
            target.insert(key.clone(), it.value.clone());
        }
    }
}

/// The value that a text stands for, by the type of the key's default. A text needs no quotes.
fn value(text: String, default: Option<&Value>) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    match value {
        Some(value) if value.is_str() || !default.is_some_and(Value::is_str) => value,
        _ => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::LEAST;

    fn with(variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let overrides = overrides(variables).map_err(|error| error.to_string())?;
        Config::parse_with(LEAST, &overrides).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_set_keys_of_every_type() {
        let config = with(&[
            ("BATCHKEEPER_OPENAI__BASE_URL", "http://127.0.0.1:9/v1"),
            ("BATCHKEEPER_OPENAI__POLL_INTERVAL", "7s"),
            ("BATCHKEEPER_BATCH__MAX_REQUESTS", "12"),
            ("BATCHKEEPER_OPENAI__PROJECT", "123"),
            ("BATCHKEEPER_OPENAI__ORGANIZATION", "\"org-1\""),
            ("BATCHKEEPER_NETWORK__ALLOW_PRIVATE", "[\"10.0.0.0/8\"]"),
            ("BATCHKEEPER_LISTEN", "127.0.0.1:1234"),
            ("BATCHKEEPER_URL", "of an example client"),
            ("HOME", "/root"),
        ])
        .expect("accepted");
        assert_eq!(config.openai.base_url, "http://127.0.0.1:9/v1");
        assert_eq!(config.openai.poll_interval.as_secs(), 7);
        assert_eq!(config.batch.max_requests, 12);
        assert_eq!(config.openai.project, "123");
        assert_eq!(config.openai.organization, "org-1");
        assert_eq!(config.listen, "127.0.0.1:1234");
    }

    #[test]
    fn mistakes_and_secrets_are_refused() {
        for (variable, value, said) in [
            (
                "BATCHKEEPER_OPENAY__BASE_URL",
                "x",
                "there is no section [openay]",
            ),
            ("BATCHKEEPER_OPENAI__BASE_URI", "x", "base_uri"),
            ("BATCHKEEPER_BATCH__MAX_REQUESTS", "many", "max_requests"),
            (
                "BATCHKEEPER_ALERTS__WEBHOOK_KEY",
                "a secret",
                "only the configuration's file",
            ),
        ] {
            let error = with(&[(variable, value)]).expect_err(variable);
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("a secret"), "{error}");
        }
    }
}
