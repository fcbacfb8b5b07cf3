//! `[webhooks]` and `[alerts]`: notifications to clients and to the operator.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::{check_header_text, check_longer_than_zero, check_range, refuse};
use super::units::{duration, durations, size};
use super::{ConfigError, Secret};
use crate::domain::signature::Key;

/// `[webhooks]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksConfig {
    /// The waits between attempts.
    #[serde(deserialize_with = "durations")]
    pub retry_delays: Vec<Duration>,
    /// How long one attempt may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Attempts at the same time.
    pub concurrency: u32,
    /// What precedes the hexadecimal digits in `X-Signature`.
    pub signature_prefix: String,
    /// The largest body in bytes. A larger one is sent without its lots, and says so.
    #[serde(with = "size")]
    pub max_body: u64,
}

impl Default for WebhooksConfig {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let mut retry_delays = vec![Duration::from_secs(30)];
        retry_delays.extend([1, 2, 5, 15, 60, 180, 360, 720].map(minutes));
        Self {
            retry_delays,
            timeout: Duration::from_secs(30),
            concurrency: 32,
            signature_prefix: String::new(),
            max_body: 5_000_000,
        }
    }
}

impl WebhooksConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_range("webhooks.concurrency", self.concurrency, 1, 1024)?;
        check_header_text("webhooks.signature_prefix", &self.signature_prefix)?;
        check_longer_than_zero("webhooks.timeout", self.timeout)
    }
}

/// `[alerts]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// Where alerts are sent. Empty sends none.
    pub webhook_url: String,
    pub(super) webhook_key: Secret,
    pub(super) webhook_key_file: Option<PathBuf>,
    /// The URL that is requested with `GET` while the daemon works. Empty turns the heartbeat off.
    pub heartbeat_url: String,
    /// The time between two heartbeats.
    #[serde(with = "duration")]
    pub heartbeat_interval: Duration,
    /// How long a job may wait, or a finished batch may lie, before an alert reports it.
    #[serde(with = "duration")]
    pub stuck_after: Duration,
    #[serde(skip)]
    pub(super) loaded: Vec<Key>,
}

impl AlertsConfig {
    /// The keys that alert notifications are signed with: those of `[alerts]`, else those of the client
    /// `default`, else those of the first client.
    pub fn keys(&self) -> &[Key] {
        &self.loaded
    }

    /// The URLs that are set, each with its configuration key.
    pub fn urls(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("alerts.webhook_url", self.webhook_url.as_str()),
            ("alerts.heartbeat_url", self.heartbeat_url.as_str()),
        ];
        all.into_iter().filter(|(_, url)| !url.is_empty())
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (key, url) in self.urls() {
            if !(url.starts_with("https://") || url.starts_with("http://")) {
                return refuse(format!("{key} = {url:?} is no http(s) URL"));
            }
        }
        check_longer_than_zero("alerts.heartbeat_interval", self.heartbeat_interval)
    }
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            webhook_url: String::new(),
            webhook_key: Secret::default(),
            webhook_key_file: None,
            heartbeat_url: String::new(),
            heartbeat_interval: Duration::from_mins(1),
            stuck_after: Duration::from_mins(10),
            loaded: Vec::new(),
        }
    }
}
