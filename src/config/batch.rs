//! `[batch]`, `[vision]`, `[translation]`, `[images]`, `[synchronous]` and `[steps]`: how jobs are worked on.

use std::time::Duration;

use serde::Deserialize;

use super::error::{check_longer_than_zero, check_not_empty, check_range, refuse};
use super::units::{duration, size};
use super::{Config, ConfigError};
use crate::domain::decide::failed_line::RetryRules;
use crate::domain::decide::refused_batch::RefusedLines;

/// Values of `detail` that OpenAI accepts for an image. Another value fails every request.
const DETAILS: [&str; 4] = ["low", "high", "auto", "original"];

/// `[batch]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// How long the oldest request of a batch waits before the batch is closed. A full batch does not wait.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// Lines in a batch, at most 50,000.
    pub max_requests: u32,
    /// Bytes in an input file, at most 200,000,000.
    #[serde(with = "size")]
    pub max_bytes: u64,
    /// Batches at OpenAI at the same time. 0 allows as many as OpenAI's queue accepts.
    pub max_active: u32,
    /// How often one request is sent before it fails.
    pub max_attempts: u32,
    /// The time over which these attempts are spread if they fail transiently.
    #[serde(with = "duration")]
    pub retry_period: Duration,
    /// How long a request waits, in all, while its model fails, before it fails too.
    #[serde(with = "duration")]
    pub transient_timeout: Duration,
    /// The first wait when OpenAI accepts no batch of a model, or the model fails. Each further one doubles
    /// it.
    #[serde(with = "duration")]
    pub queue_backoff: Duration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_mins(1),
            max_requests: 10_000,
            max_bytes: 190_000_000,
            max_active: 0,
            max_attempts: 5,
            retry_period: Duration::from_hours(6),
            transient_timeout: Duration::from_hours(3 * 24),
            queue_backoff: Duration::from_mins(5),
        }
    }
}

impl BatchConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_range("batch.max_requests", self.max_requests, 1, 50_000)?;
        check_range("batch.max_bytes", self.max_bytes, 100_000, 200_000_000)?;
        check_range("batch.max_attempts", self.max_attempts, 1, 100)
    }
}

/// `[images]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Whether image URLs are fetched before they are sent to OpenAI.
    pub check: bool,
    /// Checks at the same time.
    pub concurrency: u32,
    /// Images of a lot in a batch.
    pub max_per_lot: u32,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            check: true,
            concurrency: 64,
            max_per_lot: 100,
        }
    }
}

impl ImagesConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_range("images.concurrency", self.concurrency, 1, 1024)
    }
}

/// `[synchronous]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SynchronousConfig {
    /// Whether a job of one lot is answered in the response to its submission.
    pub enabled: bool,
    /// How long a client waits for the answer.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Synchronous jobs at the same time. The same number of repeats may wait for them.
    pub concurrency: u32,
    /// Synchronous jobs of one client at the same time.
    pub per_client: u32,
    /// Images of the lot.
    pub max_images: u32,
}

impl Default for SynchronousConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            timeout: Duration::from_secs(270),
            concurrency: 16,
            per_client: 4,
            max_images: 20,
        }
    }
}

/// `[steps]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepsConfig {
    /// How often a worker looks for work that no wakeup announced.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// How often the invariants are checked.
    #[serde(with = "duration")]
    pub audit: Duration,
    /// How often OpenAI's listing is compared with the store.
    #[serde(with = "duration")]
    pub reconcile: Duration,
}

impl Default for StepsConfig {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(1),
            audit: Duration::from_mins(1),
            reconcile: Duration::from_mins(10),
        }
    }
}

impl StepsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_longer_than_zero("steps.idle", self.idle)?;
        check_longer_than_zero("steps.audit", self.audit)?;
        check_longer_than_zero("steps.reconcile", self.reconcile)
    }
}

impl Config {
    /// What follows from requests that brought no text.
    pub fn retry_rules(&self) -> RetryRules {
        RetryRules {
            max_attempts: self.batch.max_attempts,
            retry_period: self.batch.retry_period,
            first_wait: self.batch.queue_backoff,
            transient_timeout: self.batch.transient_timeout,
            check_images: self.images.check,
            not_run: RefusedLines::SendAgain { batch_cap: None },
        }
    }

    /// Checks what the lines of both stages are made with.
    pub(super) fn check_stages(&self) -> Result<(), ConfigError> {
        let (vision, translation) = (&self.vision, &self.translation);
        for (key, tokens) in [
            ("vision.max_output_tokens", vision.max_output_tokens),
            ("translation.max_output_tokens", translation.max_output_tokens),
        ] {
            check_range(key, tokens, 16, 1_000_000)?;
        }
        check_not_empty("vision.model", &vision.model)?;
        check_not_empty("translation.model", &translation.model)?;
        if !DETAILS.contains(&vision.detail.as_str()) {
            return refuse(format!(
                "vision.detail = {:?} is none of {}",
                vision.detail,
                DETAILS.join(", ")
            ));
        }
        match translation.prompt.contains("{language}") {
            true => Ok(()),
            false => refuse("translation.prompt must contain {language}, in place of the language's tag"),
        }
    }
}
