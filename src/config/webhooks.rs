//! `[webhooks]`: notifications to clients.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::error::{check_header_text, check_longer_than_zero, check_range};
use super::units::{duration, durations, size};

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
