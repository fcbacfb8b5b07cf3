//! Keys and tokens: from the configuration, from files, from the environment. They never show in `Debug`.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::clients::ClientConfig;
use super::error::refuse;
use super::key_text::{self, KeyAlphabet};
use super::openai::OpenAiConfig;
use super::{Config, ConfigError};
use crate::domain::signature::Key;

/// How the key in `config.example.toml` begins. It is public, so it protects nothing.
const EXAMPLE_KEY: &str = "change-me";

/// The variable of the environment that holds OpenAI's key if no file does.
const OPENAI_VARIABLE: &str = "OPENAI_API_KEY";

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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
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

/// Where a secret comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "it is neither a text nor { file = \"…\" }")]
pub enum SecretSource {
    /// The secret itself.
    Value(Secret),
    /// The file that holds it.
    File {
        /// Its path.
        file: PathBuf,
    },
}

impl SecretSource {
    /// Whether the configuration's file holds the secret itself.
    pub(super) fn is_value(&self) -> bool {
        matches!(self, Self::Value(_))
    }

    /// The file that holds it; `None` if the configuration does.
    pub(super) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File { file } => Some(file),
            Self::Value(_) => None,
        }
    }

    /// Reads it. `setting` names it in errors.
    pub(super) fn load(&self, setting: &str) -> Result<Secret, ConfigError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File { file } => read_secret(setting, file, KeyAlphabet::Signing),
        }
    }
}

impl Config {
    /// Reads every key and token that the configuration names.
    pub(super) fn load_secrets(&mut self) -> Result<(), ConfigError> {
        if let Some(path) = &self.ops_token_file {
            self.ops_token = read_ops_token(path)?;
        }
        if let Some(path) = &self.ops_read_token_file {
            self.ops_read_token = read_ops_token(path)?;
            if self.ops_read_token.reveal() == self.ops_token.reveal() {
                return refuse("ops_read_token_file has the token of ops_token_file: give it one of its own");
            }
        }
        self.openai.key = match &self.openai.api_key_file {
            Some(path) => read_openai_key(path)?,
            None => openai_key_of_environment()?,
        };
        self.openai.load_headers()?;
        for client in &mut self.clients {
            client.load_keys()?;
        }
        self.alerts.loaded = self.load_alert_keys()?;
        for receiver in &mut self.alert_receivers {
            receiver.load_secrets()?;
        }
        Ok(())
    }

    /// The keys that alert notifications are signed with: those of `[alerts]`, else those of the client
    /// `default`, else those of the first client.
    fn load_alert_keys(&self) -> Result<Vec<Key>, ConfigError> {
        if let Some(path) = &self.alerts.webhook_key_file {
            return Ok(vec![key_of_file("alerts.webhook_key_file", path)?]);
        }
        if !self.alerts.webhook_key.is_empty() {
            return Ok(vec![signing_key("alerts.webhook_key", &self.alerts.webhook_key)?]);
        }
        let default = self.clients.iter().find(|client| client.name == "default");
        let client = default.or(self.clients.first());
        Ok(client.map(|client| client.keys().to_vec()).unwrap_or_default())
    }

    /// Whether OpenAI's key comes from a file or is in this process's environment.
    pub fn has_openai_key(&self) -> bool {
        self.openai.api_key_file.is_some()
            || std::env::var_os(OPENAI_VARIABLE).is_some_and(|it| !it.is_empty())
    }
}

impl OpenAiConfig {
    fn load_headers(&mut self) -> Result<(), ConfigError> {
        let load = |(name, source): (&String, &SecretSource)| {
            Ok((name.clone(), source.load(&format!("openai.headers.{name}"))?))
        };
        let loaded: Result<_, ConfigError> = self.headers.iter().map(load).collect();
        self.loaded_headers = loaded?;
        Ok(())
    }
}

impl ClientConfig {
    fn load_keys(&mut self) -> Result<(), ConfigError> {
        let place = |setting: &str| format!("client {:?}: {setting}", self.name);
        let own = self.keys.iter().map(|key| signing_key(&place("keys"), key));
        let filed = self.key_files.iter();
        let filed = filed.map(|path| key_of_file(&place("key_files"), path));
        let loaded = own.chain(filed).collect::<Result<_, _>>()?;
        let of_webhooks = match (&self.webhook_key_file, &self.webhook_key) {
            (Some(path), _) => vec![key_of_file(&place("webhook_key_file"), path)?],
            (None, Some(key)) => vec![signing_key(&place("webhook_key"), key)?],
            (None, None) => Vec::new(),
        };
        self.loaded = loaded;
        self.loaded_for_webhooks = of_webhooks;
        Ok(())
    }
}

fn key_of_file(setting: &str, path: &Path) -> Result<Key, ConfigError> {
    let secret = read_secret(setting, path, KeyAlphabet::Signing)?;
    signing_key(&format!("{setting}: {}", path.display()), &secret)
}

/// A key that signs. The key of the example is refused. `place` names the setting, and the file if there is one.
fn signing_key(place: &str, secret: &Secret) -> Result<Key, ConfigError> {
    if secret.reveal().starts_with(EXAMPLE_KEY) {
        return refuse(format!(
            "{place} is still the key of the example: give it one of its own, such as the output of \
             `openssl rand -hex 32`"
        ));
    }
    key_text::check(secret.reveal(), KeyAlphabet::Signing).map_err(|error| refused_key(place, error))?;
    Key::new(secret.reveal().as_bytes()).map_err(|error| refused_key(place, error))
}

fn refused_key(place: &str, error: impl fmt::Display) -> ConfigError {
    ConfigError::Value(format!("{place}: {error}"))
}

fn read_ops_token(path: &Path) -> Result<Secret, ConfigError> {
    let token = read_secret("ops_token_file", path, KeyAlphabet::Signing)?;
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
    let key = read_secret("openai.api_key_file", path, KeyAlphabet::Bearer)?;
    match key.is_empty() {
        true => refuse(format!(
            "openai.api_key_file: {} is empty; write OpenAI's key into it",
            path.display()
        )),
        false => Ok(key),
    }
}

fn openai_key_of_environment() -> Result<Secret, ConfigError> {
    let value = std::env::var_os(OPENAI_VARIABLE).unwrap_or_default();
    key_text::read(value.as_bytes(), KeyAlphabet::Bearer)
        .map(Secret::new)
        .map_err(|error| refused_key(OPENAI_VARIABLE, error))
}

fn read_secret(setting: &str, path: &Path, alphabet: KeyAlphabet) -> Result<Secret, ConfigError> {
    let bytes = std::fs::read(path).map_err(|error| ConfigError::SecretFile {
        setting: setting.to_owned(),
        path: path.to_owned(),
        error,
    })?;
    key_text::read(&bytes, alphabet)
        .map(Secret::new)
        .map_err(|error| refused_key(&format!("{setting}: {}", path.display()), error))
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
    fn values_of_header_fields_are_read_and_do_not_show() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "azure-key-0123\n").expect("written");
        let text = format!(
            "{LEAST}[openai]\nheaders = {{ api-key = {{ file = {:?} }}, X-Team = \"team-4567\" }}\n",
            file.path()
        );
        let config = Config::parse(&text).expect("valid");
        let fields: Vec<(&str, &str)> = config
            .openai
            .header_fields()
            .iter()
            .map(|(name, value)| (name.as_str(), value.reveal()))
            .collect();
        assert_eq!(fields, [("X-Team", "team-4567"), ("api-key", "azure-key-0123")]);
        let shown = format!("{config:?} {:?}", Config::show(&text, &[]).expect("valid"));
        assert!(
            !shown.contains("azure-key") && !shown.contains("team-4567"),
            "{shown}"
        );
        let gone = text.replace(&file.path().display().to_string(), "/nonexistent");
        assert!(complaint(&gone).contains("openai.headers.api-key"));
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
