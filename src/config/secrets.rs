//! Keys and tokens: from the configuration, from files, from the environment. They never show in `Debug`.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::clients::ClientConfig;
use super::error::refuse;
use super::{Config, ConfigError};
use crate::domain::signature::Key;

/// How the key in `config.example.toml` begins. It is public, so it protects nothing.
const EXAMPLE_KEY: &str = "change-me";

/// The least number of bytes of the operator's token.
const SHORTEST_TOKEN: usize = 16;

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret without the white space around it, which files have.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_empty() {
            true => "(none)",
            false => "(secret)",
        })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self::new(&text))
    }
}

impl Config {
    /// Reads every key and token that the configuration names.
    pub(super) fn load_secrets(&mut self) -> Result<(), ConfigError> {
        if let Some(path) = &self.ops_token_file {
            self.ops_token = read_ops_token(path)?;
        }
        self.openai.key = match &self.openai.api_key_file {
            Some(path) => read_openai_key(path)?,
            None => openai_key_of_environment(),
        };
        for client in &mut self.clients {
            client.load_keys()?;
        }
        self.alerts.loaded = self.load_alert_keys()?;
        Ok(())
    }

    /// The keys that alert notifications are signed with: those of `[alerts]`, else those of the client
    /// `default`, else those of the first client.
    fn load_alert_keys(&self) -> Result<Vec<Key>, ConfigError> {
        let own = match &self.alerts.webhook_key_file {
            Some(path) => read_secret("alerts.webhook_key_file", path)?,
            None => self.alerts.webhook_key.clone(),
        };
        if !own.is_empty() {
            let key = Key::new(own.reveal().as_bytes())
                .map_err(|error| ConfigError::Value(format!("alerts.webhook_key: {error}")))?;
            return Ok(vec![key]);
        }
        let default = self.clients.iter().find(|client| client.name == "default");
        let client = default.or(self.clients.first());
        Ok(client.map(|client| client.keys().to_vec()).unwrap_or_default())
    }

    /// Whether OpenAI's key comes from a file or is in this process's environment.
    pub fn has_openai_key(&self) -> bool {
        self.openai.api_key_file.is_some() || !openai_key_of_environment().is_empty()
    }
}

impl ClientConfig {
    fn load_keys(&mut self) -> Result<(), ConfigError> {
        let mut keys = self.keys.clone();
        for path in &self.key_files {
            keys.push(read_secret("clients.key_files", path)?);
        }
        self.loaded = client_keys(&self.name, &keys)?;
        let webhook_key = match &self.webhook_key_file {
            Some(path) => Some(read_secret("clients.webhook_key_file", path)?),
            None => self.webhook_key.clone(),
        };
        self.loaded_for_webhooks = client_keys(&self.name, webhook_key.as_slice())?;
        Ok(())
    }
}

/// A client's keys. The key of the example is refused.
fn client_keys(client: &str, secrets: &[Secret]) -> Result<Vec<Key>, ConfigError> {
    let key = |secret: &Secret| {
        if secret.reveal().starts_with(EXAMPLE_KEY) {
            return refuse(format!(
                "client {client:?} still has the key of the example: give it one of its own, such as the \
                 output of `openssl rand -hex 32`"
            ));
        }
        Key::new(secret.reveal().as_bytes())
            .map_err(|error| ConfigError::Value(format!("client {client:?}: {error}")))
    };
    secrets.iter().map(key).collect()
}

fn read_ops_token(path: &Path) -> Result<Secret, ConfigError> {
    let token = read_secret("ops_token_file", path)?;
    match token.reveal().len() < SHORTEST_TOKEN {
        true => refuse(format!(
            "ops_token_file: {} holds less than {SHORTEST_TOKEN} characters; write the output of \
             `openssl rand -hex 32` into it",
            path.display()
        )),
        false => Ok(token),
    }
}

fn read_openai_key(path: &Path) -> Result<Secret, ConfigError> {
    let key = read_secret("openai.api_key_file", path)?;
    match key.is_empty() {
        true => refuse(format!(
            "openai.api_key_file: {} is empty; write OpenAI's key into it",
            path.display()
        )),
        false => Ok(key),
    }
}

fn openai_key_of_environment() -> Secret {
    Secret::new(&std::env::var("OPENAI_API_KEY").unwrap_or_default())
}

fn read_secret(key: &'static str, path: &Path) -> Result<Secret, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Secret::new(&text)),
        Err(error) => Err(ConfigError::SecretFile {
            key,
            path: path.to_owned(),
            error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{LEAST, complaint};

    #[test]
    fn secrets_do_not_show() {
        let shown = format!("{:?}", Config::parse(LEAST).expect("valid"));
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
    }

    #[test]
    fn a_key_must_be_there_and_no_example() {
        let empty = tempfile::NamedTempFile::new().expect("a file");
        let empty = format!("{LEAST}[openai]\napi_key_file = {:?}\n", empty.path());
        assert!(complaint(&empty).contains("is empty"));
        assert!(complaint("[[clients]]\nname = \"a\"\nkeys = [\"short\"]\n").contains("\"a\""));
        let example = include_str!("../../config.example.toml");
        assert!(complaint(example).contains("key of the example"));
        assert!(Config::parse(&example.replace(EXAMPLE_KEY, "changed")).is_ok());
    }
}
