//! What the configuration says about outgoing calls: OpenAI's client, and addresses that may be called.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::DaemonError;
use crate::base::clock::Clock;
use crate::config::{Config, PrivateNetworks};
use crate::domain::alert::SIGNED_RECEIVER;
use crate::openai::client::{ApiKey, ClientSettings, OpenAiClient, Timeouts};
use crate::outbound::{CaFile, GuardedClient, SsrfGuard};

/// How long a connection to a webhook's or an image's host may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The client of OpenAI's API that the configuration describes.
///
/// # Errors
/// When there is no key, or the key or the URL cannot be used.
pub fn openai_client(config: &Config) -> Result<OpenAiClient, DaemonError> {
    let key = config.openai.api_key().reveal();
    match key.is_empty() {
        true => Err(DaemonError::NoOpenAiKey),
        false => client_with_key(config, key),
    }
}

/// Checks what a start needs for outgoing calls. OpenAI's key may be missing: the environment of the
/// service may have it.
///
/// # Errors
/// When an address or a key cannot be used.
pub fn check_outgoing(config: &Config) -> Result<(), DaemonError> {
    check_alert_urls(config, &ssrf_guard(config)?)?;
    network_ca_file(config)?;
    let key = config.openai.api_key().reveal();
    client_with_key(config, if key.is_empty() { "none" } else { key }).map(drop)
}

fn client_with_key(config: &Config, key: &str) -> Result<OpenAiClient, DaemonError> {
    let openai = &config.openai;
    let mut settings = ClientSettings::new(openai.identity(), ApiKey::new(key));
    settings.allow_plain_http = openai.allow_plain_http;
    settings.trust_date = openai.trust_date;
    settings.ca_file = ca_file("openai.ca_file", openai.ca_file.as_deref())?;
    let fields = openai.header_fields().iter();
    settings.headers = fields
        .map(|(name, value)| (name.clone(), ApiKey::new(value.reveal())))
        .collect();
    settings.timeouts = Timeouts {
        create: openai.create_timeout,
        respond: config.synchronous.timeout,
        ..Timeouts::default()
    };
    OpenAiClient::new(settings).map_err(DaemonError::OpenAiClient)
}

/// The certificate authorities of `network.ca_file`.
///
/// # Errors
/// When the file cannot be used.
fn network_ca_file(config: &Config) -> Result<Option<CaFile>, DaemonError> {
    ca_file("network.ca_file", config.network.ca_file.as_deref())
}

fn ca_file(setting: &str, path: Option<&Path>) -> Result<Option<CaFile>, DaemonError> {
    let Some(path) = path else { return Ok(None) };
    let file =
        CaFile::read(path).map_err(|error| config_error(format!("{setting}: {}", path.display()), error))?;
    log::info!(event = "ca_file", setting, file:% = path.display(), certificates = file.len(); "");
    Ok(Some(file))
}

/// The guard of addresses that clients name.
///
/// # Errors
/// When `network.allow_private` names something that is no network.
fn ssrf_guard(config: &Config) -> Result<SsrfGuard, DaemonError> {
    let networks = match &config.network.allow_private {
        PrivateNetworks::All(true) => return Ok(SsrfGuard::AllowAll),
        PrivateNetworks::All(false) => return Ok(SsrfGuard::DenyPrivate),
        PrivateNetworks::Networks(networks) => networks,
    };
    let parse = |network: &String| {
        network
            .parse()
            .map_err(|error| config_error("network.allow_private", format!("{network:?} is {error}")))
    };
    let networks = networks.iter().map(parse).collect::<Result<_, _>>()?;
    Ok(SsrfGuard::Allow(networks))
}

/// Refuses URLs of alerts that the guard would not call.
///
/// # Errors
/// When a URL is refused.
fn check_alert_urls(config: &Config, guard: &SsrfGuard) -> Result<(), DaemonError> {
    let check = |key: &str, url: &str| match guard.check_url(url) {
        Ok(_) => Ok(()),
        Err(error) => Err(config_error(key, error)),
    };
    for receiver in config.alert_receivers() {
        if let Some(url) = receiver.channel.url() {
            let key = match receiver.name.as_str() {
                SIGNED_RECEIVER => SIGNED_RECEIVER.to_owned(),
                name => format!("alert_receivers {name:?}: url"),
            };
            check(&key, url)?;
        }
    }
    match config.alerts.heartbeat_url.as_str() {
        "" => Ok(()),
        url => check("alerts.heartbeat_url", url),
    }
}

/// The client that calls URLs that others name.
///
/// # Errors
/// When `network.allow_private` or `network.ca_file` cannot be used, or a URL of an alert is refused.
pub fn guarded_client(config: &Config, clock: Arc<dyn Clock>) -> Result<GuardedClient, DaemonError> {
    let guard = ssrf_guard(config)?;
    check_alert_urls(config, &guard)?;
    let ca_file = network_ca_file(config)?;
    Ok(GuardedClient::new(
        guard,
        clock,
        CONNECT_TIMEOUT,
        ca_file.as_ref(),
    ))
}

fn config_error(key: impl Into<String>, problem: impl ToString) -> DaemonError {
    DaemonError::Config {
        key: key.into(),
        problem: problem.to_string(),
    }
}
