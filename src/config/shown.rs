//! The configuration in force, for operators: each key with its value and where the value comes from.

use toml::{Table, Value};

use super::environment::{self, Override};
use super::key_list::{UNSET, may_show};
use super::{Config, ConfigError};

/// Every key with its default.
const EXAMPLE: &str = include_str!("../../config.example.toml");
/// The sections that are lists of tables.
const LISTS: [&str; 3] = ["alert_receivers", "clients", "prices"];

/// A key of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownKey {
    /// Section and key, as `openai.base_url`.
    pub key: String,
    /// The value as TOML. In place of a secret `(secret)`; without a value `(not set: …)`, with what is in force then.
    pub value: String,
    /// `default`, `file`, or the environment's variable.
    pub source: String,
}

impl Config {
    /// Every key of the configuration in a text and in an environment, without secrets.
    ///
    /// # Errors
    /// If the configuration is refused.
    pub fn show(text: &str, overrides: &[Override]) -> Result<Vec<ShownKey>, ConfigError> {
        Self::parse_with(text, overrides)?;
        let defaults: Table = toml::from_str(EXAMPLE)?;
        let mut own: Table = toml::from_str(text)?;
        let mut shown = Vec::new();
        let lists: Vec<(String, Value)> = LISTS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), own.remove(*name)?)))
            .collect();
        let mut merged = defaults;
        merged.remove("clients");
        merge(&mut merged, &own);
        environment::apply(&mut merged, overrides);
        let source = |section: &str, key: &str| {
            let of_environment = overrides
                .iter()
                .find(|it| (it.path.0.as_str(), it.path.1.as_str()) == (section, key));
            let in_file = match section {
                "" => own.get(key),
                _ => own.get(section).and_then(|table| table.get(key)),
            };
            match (of_environment, in_file) {
                (Some(it), _) => it.variable.clone(),
                (None, Some(_)) => "file".to_owned(),
                (None, None) => "default".to_owned(),
            }
        };
        for (name, value) in &merged {
            match value {
                Value::Table(section) => shown.extend(
                    section
                        .iter()
                        .map(|(key, value)| ShownKey::new(name, key, value, source(name, key))),
                ),
                value => shown.push(ShownKey::new("", name, value, source("", name))),
            }
        }
        let is_set = |section: &str, key: &str| match section {
            "" => merged.contains_key(key),
            _ => merged.get(section).is_some_and(|table| table.get(key).is_some()),
        };
        let unset = UNSET.iter().filter(|(section, key, _)| !is_set(section, key));
        shown.extend(unset.map(|(section, key, in_force)| ShownKey {
            key: full_name(section, key),
            value: format!("(not set: {in_force})"),
            source: "default".to_owned(),
        }));
        shown.sort_by(|a, b| a.key.cmp(&b.key));
        for (name, list) in lists {
            for (number, entry) in list.as_array().into_iter().flatten().enumerate() {
                shown.extend(
                    entry
                        .as_table()
                        .into_iter()
                        .flatten()
                        .map(|(key, value)| ShownKey {
                            key: format!("{name}[{number}].{key}"),
                            ..ShownKey::new(&name, key, value, "file".to_owned())
                        }),
                );
            }
        }
        Ok(shown)
    }
}

impl ShownKey {
    fn new(section: &str, key: &str, value: &Value, source: String) -> Self {
        let is_empty = value.as_str() == Some("");
        let value = match may_show(section, key) || is_empty {
            true => value.to_string(),
            false => "(secret)".to_owned(),
        };
        Self {
            key: full_name(section, key),
            value,
            source,
        }
    }
}

fn full_name(section: &str, key: &str) -> String {
    match section {
        "" => key.to_owned(),
        section => format!("{section}.{key}"),
    }
}

/// Puts the keys of one table over those of another, section by section.
fn merge(into: &mut Table, from: &Table) {
    for (name, value) in from {
        match (into.get_mut(name), value) {
            (Some(Value::Table(section)), Value::Table(keys)) => {
                section.extend(keys.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_source_and_no_secret() {
        let text = "listen = \"127.0.0.1:1\"\n[[clients]]\nname = \"default\"\nkeys = [\"0123456789abcdef0123\"]\n\
                    [batch]\nmax_wait = \"5s\"\n[alerts]\nwebhook_url = \"https://hooks.example/T0KEN\"\n";
        let variables = [("BATCHKEEPER_BATCH__MAX_ACTIVE".into(), "3".into())];
        let overrides = environment::overrides(variables.into_iter()).expect("known");
        let shown = Config::show(text, &overrides).expect("valid");
        let all = format!("{shown:?}");
        assert!(
            !all.contains("0123456789abcdef") && !all.contains("T0KEN"),
            "{all}"
        );
        for (key, value, source) in [
            ("listen", "\"127.0.0.1:1\"", "file"),
            ("batch.max_wait", "\"5s\"", "file"),
            ("batch.max_active", "3", "BATCHKEEPER_BATCH__MAX_ACTIVE"),
            ("batch.max_requests", "10000", "default"),
            ("alerts.webhook_url", "(secret)", "file"),
            ("alerts.heartbeat_url", "\"\"", "default"),
            ("http.headers", "64", "default"),
            (
                "openai.api_key_file",
                "(not set: OPENAI_API_KEY of the environment)",
                "default",
            ),
            ("clients[0].name", "\"default\"", "file"),
            ("clients[0].keys", "(secret)", "file"),
        ] {
            let expected = ShownKey {
                key: key.to_owned(),
                value: value.to_owned(),
                source: source.to_owned(),
            };
            assert!(shown.contains(&expected), "{key}: {all}");
        }
    }
}
