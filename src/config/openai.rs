//! `[openai]`: OpenAI's API, or a server that stands for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::{check_longer_than_zero, refuse};
use super::units::duration;
use super::{ConfigError, Secret, SecretSource};
use crate::domain::endpoint::{Endpoint, RequestForm, TokenLimit};
use crate::domain::openai::Identity;

/// Whether the server lists its batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchListing {
    /// It lists every batch of the account. The batch of a create that was not answered is found there.
    #[default]
    Full,
    /// It lists none. An operator decides on each create that was not answered.
    None,
}

/// `[openai]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiConfig {
    /// The API's base URL.
    pub base_url: String,
    /// The file that holds the API key. `None` if the environment's `OPENAI_API_KEY` holds it.
    pub api_key_file: Option<PathBuf>,
    /// The certificate authorities that are trusted for `base_url`, beside the public ones. `None` if there are none.
    pub ca_file: Option<PathBuf>,
    /// The header `OpenAI-Organization`. Empty sends none.
    pub organization: String,
    /// The header `OpenAI-Project`. Empty sends none.
    pub project: String,
    /// Header fields of every call, beside the usual ones. `Authorization` takes the place of the usual one, and is not
    /// sent if it is empty.
    pub headers: BTreeMap<String, SecretSource>,
    /// Whether `base_url` may be plain HTTP to another machine, which sends the key unencrypted.
    pub allow_plain_http: bool,
    /// Whether the `Date` of answers is OpenAI's time. A gateway in between may have a wrong clock.
    pub trust_date: bool,
    /// The endpoint of batches and synchronous calls.
    pub endpoint: Endpoint,
    /// The member of a chat request that caps an answer.
    pub token_limit: TokenLimit,
    /// Whether the server lists its batches. This is never detected: without the list a promise is weaker.
    pub batch_listing: BatchListing,
    /// The base of the polling interval.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// How long a create whose answer was lost is searched for before the batch is created again.
    #[serde(with = "duration")]
    pub settling_time: Duration,
    /// The first wait after a failed call. Each further failure doubles it, up to 32 times.
    #[serde(with = "duration")]
    pub retry_interval: Duration,
    /// How long the poller waits for missing results of a finished batch.
    #[serde(with = "duration")]
    pub results_timeout: Duration,
    /// The least time between two downloads of a result file by which a size that differs from the stated one is
    /// accepted.
    #[serde(with = "duration")]
    pub size_check_interval: Duration,
    /// How long a create may take.
    #[serde(with = "duration")]
    pub create_timeout: Duration,
    #[serde(skip)]
    pub(super) key: Secret,
    #[serde(skip)]
    pub(super) loaded_headers: Vec<(String, Secret)>,
}

impl Default for OpenAiConfig {
    fn default() -> Self {
        Self {
            base_url: "https://api.openai.com/v1".into(),
            api_key_file: None,
            ca_file: None,
            organization: String::new(),
            project: String::new(),
            allow_plain_http: false,
            trust_date: true,
            endpoint: Endpoint::default(),
            token_limit: TokenLimit::default(),
            batch_listing: BatchListing::default(),
            poll_interval: Duration::from_secs(30),
            settling_time: Duration::from_mins(10),
            retry_interval: Duration::from_secs(5),
            results_timeout: Duration::from_hours(1),
            size_check_interval: Duration::from_mins(10),
            create_timeout: Duration::from_mins(2),
            key: Secret::default(),
            headers: BTreeMap::new(),
            loaded_headers: Vec::new(),
        }
    }
}

impl OpenAiConfig {
    /// The account that it names, beside the key.
    pub fn identity(&self) -> Identity {
        Identity {
            base_url: self.base_url.clone(),
            organization: self.organization.clone(),
            project: self.project.clone(),
        }
    }

    /// The API key. It is empty if none was given.
    pub fn api_key(&self) -> &Secret {
        &self.key
    }

    /// The additional header fields, with their values.
    pub fn header_fields(&self) -> &[(String, Secret)] {
        &self.loaded_headers
    }

    /// Whether the server lists its batches.
    pub fn lists_batches(&self) -> bool {
        self.batch_listing == BatchListing::Full
    }

    /// The form of requests.
    pub fn form(&self) -> RequestForm {
        RequestForm {
            endpoint: self.endpoint,
            token_limit: self.token_limit,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_longer_than_zero("openai.poll_interval", self.poll_interval)?;
        check_longer_than_zero("openai.create_timeout", self.create_timeout)?;
        check_longer_than_zero("openai.retry_interval", self.retry_interval)?;
        match self.settling_time <= self.create_timeout {
            true => refuse(
                "openai.settling_time must be longer than openai.create_timeout: a create that still runs \
                 must not be sent a second time",
            ),
            false => Ok(()),
        }
    }
}
