//! `[[clients]]`: programs that may send jobs.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::error::{check_header_text, refuse};
use super::{ConfigError, Secret};
use crate::domain::budgets::SpendingLimits;
use crate::domain::signature::Key;

/// `[[clients]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// What `X-Client-Id` names. A request that names no client is one of the client `default`.
    pub name: String,
    pub(super) keys: Vec<Secret>,
    pub(super) key_files: Vec<PathBuf>,
    legacy: Option<bool>,
    /// What precedes the hexadecimal digits in `X-Signature` of its webhooks. `None` if `[webhooks]` decides.
    pub signature_prefix: Option<String>,
    pub(super) webhook_key: Option<Secret>,
    pub(super) webhook_key_file: Option<PathBuf>,
    /// The only hosts that its webhook URLs may name (`client.example`, `*.client.example`). Empty allows
    /// every host.
    pub webhook_hosts: Vec<String>,
    /// What its jobs may cost.
    pub budget: SpendingLimits,
    #[serde(skip)]
    pub(super) loaded: Vec<Key>,
    #[serde(skip)]
    pub(super) loaded_for_webhooks: Vec<Key>,
}

impl ClientConfig {
    /// One or two keys. Webhooks are signed with the first.
    pub fn keys(&self) -> &[Key] {
        &self.loaded
    }

    /// The keys that its webhooks are signed with: its webhook key, else its keys.
    pub fn webhook_keys(&self) -> &[Key] {
        match self.loaded_for_webhooks.as_slice() {
            [] => &self.loaded,
            own => own,
        }
    }

    /// Whether its webhooks may go to a host, which is in lower case.
    pub fn may_notify(&self, host: &str) -> bool {
        let names = |pattern: &String| match pattern.strip_prefix("*.") {
            None => pattern.eq_ignore_ascii_case(host),
            Some(domain) => host
                .strip_suffix(&domain.to_ascii_lowercase())
                .is_some_and(|rest| rest.ends_with('.')),
        };
        self.webhook_hosts.is_empty() || self.webhook_hosts.iter().any(names)
    }

    /// Whether it may use the earlier service's signatures.
    pub fn legacy(&self) -> bool {
        self.legacy.unwrap_or(true)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let keys = self.keys.len() + self.key_files.len();
        if !(1..=2).contains(&keys) {
            return refuse(format!(
                "client {:?} has {keys} keys; give one, or two while rotating",
                self.name
            ));
        }
        let prefix = self.signature_prefix.as_deref().unwrap_or_default();
        check_header_text(&format!("client {:?}: signature_prefix", self.name), prefix)?;
        let is_host_name = |host: &String| {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !name.is_empty() && name.chars().all(is_allowed)
        };
        match self.webhook_hosts.iter().find(|host| !is_host_name(host)) {
            Some(host) => refuse(format!(
                "client {:?}: webhook_hosts holds {host:?}; write host names, without scheme or port, or \
                 \"*.\" and a domain",
                self.name
            )),
            None => Ok(()),
        }
    }
}

/// Checks the clients, and that their names differ.
pub(super) fn check(clients: &[ClientConfig]) -> Result<(), ConfigError> {
    if clients.is_empty() {
        return refuse("no [[clients]]: add one with a name and a key; without one, no job is accepted");
    }
    let mut names = HashSet::new();
    for client in clients {
        if client.name.is_empty() || !names.insert(client.name.as_str()) {
            return refuse(format!(
                "clients.name = {:?} is empty or there twice",
                client.name
            ));
        }
        client.check()?;
    }
    Ok(())
}
