//! The configuration: TOML → a validated [`Config`]. Unknown keys are refused, secrets come from
//! files or the environment and never show in `Debug`.

use std::collections::HashSet;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::domain::batch::Stage;
use crate::domain::money::{Budgets, Limits, Price};
use crate::domain::parameters::Parameters;
use crate::domain::signature::Key;
use crate::domain::translation::TranslationParameters;
use crate::domain::vision::VisionParameters;

mod exposed;
mod http;
mod logging;
mod renamed;
mod text;

pub use http::HttpConfig;
pub use logging::LogFormat;
use text::{duration, durations, size};

/// What the key of `config.example.toml` begins with: everybody knows it.
const EXAMPLE_KEY: &str = "change-me";

/// A token of the operator's pages has so many characters at least.
const SHORTEST_TOKEN: usize = 16;

/// Why a configuration is no good; names the file, the key and what to do.
#[derive(Debug)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

fn refuse<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(message.into()))
}

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret; surrounding white space, as files have it, is dropped.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "(none)"
        } else {
            "(secret)"
        })
    }
}

/// Everything that can be set; `config.example.toml` says what each key is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the client API listens; empty: nowhere.
    pub listen: String,
    /// Where the operator's pages listen; empty: nowhere.
    pub ops_listen: String,
    /// Host names, beside those of this machine, under which the operator's pages may be asked for.
    pub ops_hosts: Vec<String>,
    ops_token_file: Option<PathBuf>,
    #[serde(skip)]
    ops_token: Secret,
    /// The database's file; `spool/` lies beside it.
    pub database: PathBuf,
    /// The log's level, and modules' own; `RUST_LOG` wins.
    pub log: String,
    /// How a record of the log is written.
    pub log_format: LogFormat,
    /// Whether reads of one job of the client `default` need no signature, as with the earlier service.
    pub legacy_unsigned_reads: bool,
    /// Who may send jobs.
    pub clients: Vec<ClientConfig>,
    /// OpenAI, or what stands for it.
    pub openai: OpenAiConfig,
    /// The first stage.
    pub vision: VisionParameters,
    /// The second stage.
    pub translation: TranslationParameters,
    /// How requests are packed.
    pub batch: BatchConfig,
    /// The check of images before they are sent.
    pub images: ImagesConfig,
    /// One-lot requests that are answered at once.
    pub synchronous: SynchronousConfig,
    /// Telling clients.
    pub webhooks: WebhooksConfig,
    /// Where outgoing connections may go.
    pub network: NetworkConfig,
    /// What everyone who connects is held to.
    pub http: HttpConfig,
    /// What a client may send.
    pub limits: LimitsConfig,
    /// What is kept for how long.
    pub retention: RetentionConfig,
    /// Copies of the database.
    pub backup: BackupConfig,
    /// What a person is told.
    pub alerts: AlertsConfig,
    /// What models cost; see [`Config::prices`].
    prices: Vec<Price>,
    /// What may be spent.
    pub budgets: BudgetsConfig,
    /// How often steps look for work.
    pub steps: StepsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            ops_listen: "127.0.0.1:8081".into(),
            ops_hosts: Vec::new(),
            ops_token_file: None,
            ops_token: Secret::default(),
            database: "/var/lib/batchkeeper/batchkeeper.db".into(),
            log: "info".into(),
            log_format: LogFormat::default(),
            legacy_unsigned_reads: false,
            clients: Vec::new(),
            openai: OpenAiConfig::default(),
            vision: VisionParameters::default(),
            translation: TranslationParameters::default(),
            batch: BatchConfig::default(),
            images: ImagesConfig::default(),
            synchronous: SynchronousConfig::default(),
            webhooks: WebhooksConfig::default(),
            network: NetworkConfig::default(),
            http: HttpConfig::default(),
            limits: LimitsConfig::default(),
            retention: RetentionConfig::default(),
            backup: BackupConfig::default(),
            alerts: AlertsConfig::default(),
            prices: Vec::new(),
            budgets: BudgetsConfig::default(),
            steps: StepsConfig::default(),
        }
    }
}

/// `[[clients]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// What `X-Client-Id` names; `default` where a request names none.
    pub name: String,
    keys: Vec<Secret>,
    key_files: Vec<PathBuf>,
    #[serde(deserialize_with = "some")]
    legacy: Option<bool>,
    /// What stands before the hex in `X-Signature` of its webhooks; none: `[webhooks]` says.
    pub signature_prefix: Option<String>,
    webhook_key: Option<Secret>,
    webhook_key_file: Option<PathBuf>,
    /// The only hosts that its webhook URLs may name (`client.example`, `*.client.example`); empty: any.
    pub webhook_hosts: Vec<String>,
    /// What may be spent for it.
    pub budget: Limits,
    #[serde(skip)]
    loaded: Vec<Key>,
    #[serde(skip)]
    loaded_for_webhooks: Vec<Key>,
}

impl ClientConfig {
    /// One or two keys; webhooks are signed with the first.
    pub fn keys(&self) -> &[Key] {
        &self.loaded
    }

    /// The keys that its webhooks are signed with: the one of their own, else the client's.
    pub fn webhook_keys(&self) -> &[Key] {
        match self.loaded_for_webhooks.as_slice() {
            [] => &self.loaded,
            own => own,
        }
    }

    /// Whether its webhooks may go to a host (lower case).
    pub fn may_tell(&self, host: &str) -> bool {
        let named = |pattern: &String| match pattern.strip_prefix("*.") {
            None => pattern.eq_ignore_ascii_case(host),
            Some(domain) => host
                .strip_suffix(&domain.to_ascii_lowercase())
                .is_some_and(|rest| rest.ends_with('.')),
        };
        self.webhook_hosts.is_empty() || self.webhook_hosts.iter().any(named)
    }

    /// Whether the earlier service's signatures are taken.
    pub fn legacy(&self) -> bool {
        self.legacy.unwrap_or(true)
    }
}

fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self::new(&text))
    }
}

/// `[openai]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiConfig {
    /// The API's base URL.
    pub base_url: String,
    /// A file that holds the API key; without it the environment's `OPENAI_API_KEY`.
    pub api_key_file: Option<PathBuf>,
    /// `OpenAI-Organization`, where set.
    pub organization: String,
    /// `OpenAI-Project`, where set.
    pub project: String,
    /// Plain HTTP to another machine; the key travels in the clear.
    pub allow_plain_http: bool,
    /// The base of the polling interval.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// How long a doubtful create is looked for before it is made again.
    #[serde(with = "duration")]
    pub settling_time: Duration,
    /// The first wait after a failed call; doubled with each further one, up to 32 times.
    #[serde(with = "duration")]
    pub retry_interval: Duration,
    /// How long missing results of a finished batch are waited for.
    #[serde(with = "duration")]
    pub results_timeout: Duration,
    /// How long a create may take.
    #[serde(with = "duration")]
    pub create_timeout: Duration,
    #[serde(skip)]
    key: Secret,
}

impl Default for OpenAiConfig {
    fn default() -> Self {
        Self {
            base_url: "https://api.openai.com/v1".into(),
            api_key_file: None,
            organization: String::new(),
            project: String::new(),
            allow_plain_http: false,
            poll_interval: Duration::from_secs(30),
            settling_time: Duration::from_mins(10),
            retry_interval: Duration::from_secs(5),
            results_timeout: Duration::from_hours(1),
            create_timeout: Duration::from_mins(2),
            key: Secret::default(),
        }
    }
}

impl OpenAiConfig {
    /// The API key, empty when none was given.
    pub fn api_key(&self) -> &Secret {
        &self.key
    }
}

/// `[batch]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// A batch is closed when full or when its oldest request has waited this long.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// Lines in a batch, 50,000 at most.
    pub max_requests: u32,
    /// Bytes in an input file, 200,000,000 at most.
    #[serde(with = "size")]
    pub max_bytes: u64,
    /// Batches at OpenAI at once; 0: as many as its queue takes.
    pub max_active: u32,
    /// How often one request is sent.
    pub max_attempts: u32,
    /// The first wait when OpenAI takes no batch of a model; doubled by each further refusal.
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
            queue_backoff: Duration::from_mins(5),
        }
    }
}

/// `[images]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Whether image URLs are fetched before they are sent on.
    pub check: bool,
    /// Checks at once.
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

/// `[synchronous]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SynchronousConfig {
    /// Whether a job of one lot is answered at once.
    pub enabled: bool,
    /// How long a client waits for the answer.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Such jobs waited for at once; by as many repeats besides.
    pub concurrency: u32,
    /// Of these, jobs of one client.
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
    /// Attempts at once.
    pub concurrency: u32,
    /// What stands before the hex in `X-Signature`.
    pub signature_prefix: String,
    /// Beyond this a body leaves its lots out, in bytes.
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

/// `[network]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Whether webhooks and images may go to private addresses.
    pub allow_private: Private,
}

/// `network.allow_private`: false, true, or a list of CIDRs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "allow_private is true, false, or a list of networks such as [\"10.0.0.0/8\"]"
)]
pub enum Private {
    /// All or none.
    All(bool),
    /// These networks.
    Networks(Vec<String>),
}

impl Default for Private {
    fn default() -> Self {
        Self::All(false)
    }
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Submissions a client and minute; 0: no limit.
    pub submit: u32,
    /// Synchronous requests a client and minute; 0: no limit.
    pub synchronous: u32,
    /// Reads a client and minute; 0: no limit.
    pub read: u32,
    /// Lots a client and day; 0: no limit.
    pub lots_per_day: u32,
    /// How long a submission without an `Idempotency-Key` that equals an earlier one gets its answer; 0: never.
    #[serde(with = "duration")]
    pub dedupe_window: Duration,
    /// Languages of a job.
    pub languages: u32,
    /// A body's bytes.
    #[serde(with = "size")]
    pub max_body: u64,
    /// Room on the database's disk that is left to results already paid, bytes; 0: none.
    #[serde(with = "size")]
    pub disk_reserve: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            submit: 120,
            synchronous: 100,
            read: 6000,
            lots_per_day: 500_000,
            dedupe_window: Duration::from_hours(1),
            languages: 10,
            max_body: 100_000_000,
            disk_reserve: 1_000_000_000,
        }
    }
}

/// `[retention]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Texts, lots and lines of final jobs go after this; 0: never.
    #[serde(with = "duration")]
    pub results: Duration,
    /// Files of settled batches at OpenAI are removed after this; 0: never.
    #[serde(with = "duration")]
    pub remote_files: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            results: Duration::from_hours(30 * 24),
            remote_files: Duration::from_hours(7 * 24),
        }
    }
}

/// `[backup]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupConfig {
    /// Where `batchkeeper backup` puts its copies; empty: nowhere, it must be told.
    pub dir: PathBuf,
    /// How many of them are kept.
    pub keep: u32,
    /// A newest backup older than this is told of; 0: never.
    #[serde(with = "duration")]
    pub late_after: Duration,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            keep: 7,
            late_after: Duration::from_hours(48),
        }
    }
}

impl BackupConfig {
    /// Whether somebody makes backups here.
    pub fn is_on(&self) -> bool {
        !self.dir.as_os_str().is_empty()
    }
}

/// `[alerts]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// Where alerts are sent too; empty: nowhere.
    pub webhook_url: String,
    webhook_key: Secret,
    webhook_key_file: Option<PathBuf>,
    /// Is asked for (`GET`) while all is well; empty: nothing is.
    pub heartbeat_url: String,
    /// How often.
    #[serde(with = "duration")]
    pub heartbeat_interval: Duration,
    /// A waiting job or a finished batch not taken in.
    #[serde(with = "duration")]
    pub stuck_after: Duration,
    #[serde(skip)]
    loaded: Vec<Key>,
}

impl AlertsConfig {
    /// What alerts are signed with when they are sent: its own key, else those of the client
    /// `default`, else of the first.
    pub fn keys(&self) -> &[Key] {
        &self.loaded
    }

    /// Where this machine calls by itself: the keys that are set, and their URLs.
    pub fn urls(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("alerts.webhook_url", self.webhook_url.as_str()),
            ("alerts.heartbeat_url", self.heartbeat_url.as_str()),
        ];
        all.into_iter().filter(|(_, url)| !url.is_empty())
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

/// `[budgets]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetsConfig {
    /// What may be spent for all clients together.
    pub total: Limits,
    /// What becomes of a job that would break one.
    pub on_exceeded: BudgetPolicy,
    /// Whether clients are told what their jobs cost.
    pub show_costs: bool,
}

/// `budgets.on_exceeded`: what happens to a job that exceeds a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPolicy {
    /// It is refused with 402.
    #[default]
    Refuse,
    /// It is taken, and waits until there is money for it.
    Wait,
}

/// `[steps]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepsConfig {
    /// How often a step looks for work that nobody told it of.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// How often the invariants are checked.
    #[serde(with = "duration")]
    pub audit: Duration,
    /// How often OpenAI's listing is held against the store.
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

impl Config {
    /// Reads, completes and checks the configuration in `path`.
    ///
    /// # Errors
    /// When a file cannot be read, a key is unknown or of the wrong type, or values make no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::of_file(path, Self::parse)
    }

    /// The same for whoever neither calls OpenAI nor signs: the files with keys and tokens are not read,
    /// and may be the service's alone.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_without_keys(path: &Path) -> Result<Self, ConfigError> {
        Self::of_file(path, Self::parse_without_keys)
    }

    fn of_file(
        path: &Path,
        parse: fn(&str) -> Result<Self, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::NotFound => "; name the configuration with --config FILE",
                ErrorKind::PermissionDenied => {
                    "; run it as a user who may read it: runuser -u batchkeeper -- batchkeeper ..."
                }
                _ => "",
            };
            ConfigError(format!("{}: {error}{hint}", path.display()))
        })?;
        parse(&text).map_err(|error| ConfigError(format!("{}: {error}", path.display())))
    }

    /// The same as [`Config::load`] from a text.
    ///
    /// # Errors
    /// As there.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::parse_without_keys(text)?;
        config.load_secrets()?;
        Ok(config)
    }

    fn parse_without_keys(text: &str) -> Result<Self, ConfigError> {
        let mut config: Config = toml::from_str(text).map_err(|error| {
            ConfigError(renamed::find(text).unwrap_or_else(|| error.to_string()))
        })?;
        if config.log == "json" {
            config.log = Config::default().log;
            config.log_format = LogFormat::Json;
        }
        config.check()?;
        Ok(config)
    }

    /// Whether OpenAI's key is to come from the environment, and is not in this one.
    pub fn lacks_openai_key(&self) -> bool {
        self.openai.api_key_file.is_none() && key_of_environment().reveal().is_empty()
    }

    /// Where the spool lies: beside the database.
    pub fn spool(&self) -> PathBuf {
        self.database.with_file_name("spool")
    }

    /// What models cost: as configured, and as shipped for those that are not named.
    pub fn prices(&self) -> Vec<Price> {
        crate::domain::money::prices(&self.prices)
    }

    /// What a stage's lines are made with.
    pub fn parameters(&self, stage: Stage) -> Parameters {
        match stage {
            Stage::Vision => Parameters::Vision(self.vision.clone()),
            Stage::Translation => Parameters::Translation(self.translation.clone()),
        }
    }

    /// Who may spend how much.
    pub fn limits_of_money(&self) -> Budgets {
        let limited = self.clients.iter().filter(|it| !it.budget.is_none());
        Budgets {
            total: self.budgets.total,
            clients: limited
                .map(|client| (client.name.clone(), client.budget))
                .collect(),
        }
    }

    /// What every request to the operator's pages must bring; empty: nothing.
    pub fn ops_token(&self) -> &Secret {
        &self.ops_token
    }

    fn load_secrets(&mut self) -> Result<(), ConfigError> {
        if let Some(path) = &self.ops_token_file {
            self.ops_token = Secret::new(&read_secret("ops_token_file", path)?);
            if self.ops_token.reveal().len() < SHORTEST_TOKEN {
                return refuse(format!(
                    "ops_token_file: {} holds less than {SHORTEST_TOKEN} characters; write the output of \
                     `openssl rand -hex 32` into it",
                    path.display()
                ));
            }
        }
        self.openai.key = match &self.openai.api_key_file {
            Some(path) => {
                let key = Secret::new(&read_secret("openai.api_key_file", path)?);
                if key.reveal().is_empty() {
                    return refuse(format!(
                        "openai.api_key_file: {} is empty; write OpenAI's key into it",
                        path.display()
                    ));
                }
                key
            }
            None => key_of_environment(),
        };
        for client in &mut self.clients {
            let mut keys = client.keys.clone();
            for path in &client.key_files {
                keys.push(Secret::new(&read_secret("clients.key_files", path)?));
            }
            client.loaded = keys
                .iter()
                .map(|key| key_of(&client.name, key))
                .collect::<Result<_, _>>()?;
            let own = match &client.webhook_key_file {
                Some(path) => Some(Secret::new(&read_secret("clients.webhook_key_file", path)?)),
                None => client.webhook_key.clone(),
            };
            client.loaded_for_webhooks = own
                .iter()
                .map(|key| key_of(&client.name, key))
                .collect::<Result<_, _>>()?;
        }
        self.alerts.loaded = self.alert_keys()?;
        Ok(())
    }

    fn alert_keys(&self) -> Result<Vec<Key>, ConfigError> {
        let own = match &self.alerts.webhook_key_file {
            Some(path) => Secret::new(&read_secret("alerts.webhook_key_file", path)?),
            None => self.alerts.webhook_key.clone(),
        };
        if !own.reveal().is_empty() {
            let key = Key::new(own.reveal().as_bytes())
                .map_err(|error| ConfigError(format!("alerts.webhook_key: {error}")))?;
            return Ok(vec![key]);
        }
        let named = self.clients.iter().find(|client| client.name == "default");
        let client = named.or(self.clients.first());
        Ok(client
            .map(|client| client.keys().to_vec())
            .unwrap_or_default())
    }

    fn check(&self) -> Result<(), ConfigError> {
        logging::check(&self.log)?;
        if self.database.as_os_str().is_empty() {
            return refuse(
                "database is empty: name its file, such as \"/var/lib/batchkeeper/batchkeeper.db\"",
            );
        }
        self.http.check(self.limits.max_body)?;
        let ops: Option<SocketAddr> = self.ops_listen.parse().ok();
        if ops.is_some_and(|it| !it.ip().is_loopback()) && self.ops_token_file.is_none() {
            return refuse(
                "ops_listen is reachable from other machines: give ops_token_file a file with a token, \
                 or listen on 127.0.0.1",
            );
        }
        for (key, text) in [("listen", &self.listen), ("ops_listen", &self.ops_listen)] {
            if !text.is_empty() && text.parse::<SocketAddr>().is_err() {
                return refuse(format!(
                    "{key} = {text:?} is no address and port, such as \"127.0.0.1:8080\""
                ));
            }
        }
        if !self.listen.is_empty() && self.listen == self.ops_listen && !self.listen.ends_with(":0")
        {
            return refuse(format!(
                "listen and ops_listen are both {:?}: give each a port of its own",
                self.listen
            ));
        }
        for (key, url) in self.alerts.urls() {
            if !(url.starts_with("https://") || url.starts_with("http://")) {
                return refuse(format!("{key} = {url:?} is no http(s) URL"));
            }
        }
        if self.clients.is_empty() {
            return refuse(
                "no [[clients]]: add one with a name and a key, or nobody can send a job",
            );
        }
        let mut names = HashSet::new();
        for client in &self.clients {
            if client.name.is_empty() || !names.insert(client.name.as_str()) {
                return refuse(format!(
                    "clients.name = {:?} is empty or there twice",
                    client.name
                ));
            }
            let keys = client.keys.len() + client.key_files.len();
            if !(1..=2).contains(&keys) {
                return refuse(format!(
                    "client {:?} has {keys} keys; give one, or two while rotating",
                    client.name
                ));
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            let odd = |host: &&String| {
                let name = host.strip_prefix("*.").unwrap_or(host);
                name.is_empty() || !name.chars().all(plain)
            };
            if let Some(host) = client.webhook_hosts.iter().find(odd) {
                return refuse(format!(
                    "client {:?}: webhook_hosts holds {host:?}; write host names, without scheme or port, or \
                     \"*.\" and a domain",
                    client.name
                ));
            }
        }
        within(
            "batch.max_requests",
            self.batch.max_requests.into(),
            1,
            50_000,
        )?;
        within(
            "batch.max_bytes",
            self.batch.max_bytes,
            100_000,
            200_000_000,
        )?;
        within("batch.max_attempts", self.batch.max_attempts.into(), 1, 100)?;
        within("backup.keep", self.backup.keep.into(), 1, 10_000)?;
        within("limits.languages", self.limits.languages.into(), 1, 100)?;
        within(
            "images.concurrency",
            self.images.concurrency.into(),
            1,
            1024,
        )?;
        within(
            "webhooks.concurrency",
            self.webhooks.concurrency.into(),
            1,
            1024,
        )?;
        within(
            "vision.max_output_tokens",
            self.vision.max_output_tokens.into(),
            16,
            1_000_000,
        )?;
        within(
            "translation.max_output_tokens",
            self.translation.max_output_tokens.into(),
            16,
            1_000_000,
        )?;
        for (key, time) in [
            ("openai.poll_interval", self.openai.poll_interval),
            ("openai.create_timeout", self.openai.create_timeout),
            ("openai.retry_interval", self.openai.retry_interval),
            ("webhooks.timeout", self.webhooks.timeout),
            ("alerts.heartbeat_interval", self.alerts.heartbeat_interval),
            ("steps.idle", self.steps.idle),
            ("steps.audit", self.steps.audit),
            ("steps.reconcile", self.steps.reconcile),
        ] {
            if time.is_zero() {
                return refuse(format!("{key} must be longer than 0"));
            }
        }
        for (key, model) in [
            ("vision.model", &self.vision.model),
            ("translation.model", &self.translation.model),
        ] {
            if model.is_empty() {
                return refuse(format!("{key} is empty"));
            }
        }
        if let Some(price) = self.prices.iter().find(|price| !price.is_well()) {
            return refuse(format!(
                "prices: that of {:?} since {:?} must have a model, a day such as \"2026-11-24\", and dollars a million \
                 tokens with six digits behind the point at most",
                price.model, price.since
            ));
        }
        let prices = self.prices();
        let unknown = [&self.vision.model, &self.translation.model]
            .into_iter()
            .find(|model| !prices.iter().any(|price| price.is_of(model)));
        if let Some(model) = unknown.filter(|_| !self.limits_of_money().is_none()) {
            return refuse(format!(
                "a budget needs a price of the model {model:?}: add it under [[prices]]"
            ));
        }
        if !DETAILS.contains(&self.vision.detail.as_str()) {
            return refuse(format!(
                "vision.detail = {:?} is none of {}",
                self.vision.detail,
                DETAILS.join(", ")
            ));
        }
        if self.openai.settling_time <= self.openai.create_timeout {
            return refuse(
                "openai.settling_time must be longer than openai.create_timeout: a create that is still under way must not be made again",
            );
        }
        if !self.translation.prompt.contains("{language}") {
            return refuse(
                "translation.prompt must say {language} where the language's tag belongs",
            );
        }
        Ok(())
    }
}

/// A client's key, unless everybody could have it.
fn key_of(client: &str, key: &Secret) -> Result<Key, ConfigError> {
    if key.reveal().starts_with(EXAMPLE_KEY) {
        return refuse(format!(
            "client {client:?} still has the key of the example: give it one of its own, such as the output of \
             `openssl rand -hex 32`"
        ));
    }
    Key::new(key.reveal().as_bytes())
        .map_err(|error| ConfigError(format!("client {client:?}: {error}")))
}

/// What OpenAI knows as an image's `detail`: with another word each request would fail.
const DETAILS: [&str; 4] = ["low", "high", "auto", "original"];

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(format!("{key} = {value} is not from {least} to {most}"))
}

fn key_of_environment() -> Secret {
    Secret::new(&std::env::var("OPENAI_API_KEY").unwrap_or_default())
}

fn read_secret(key: &str, path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|error| ConfigError(format!("{key}: {}: {error}", path.display())))
}

fn invalid<E: de::Error>(what: &str, text: &str) -> E {
    E::custom(format!("{text:?} is no {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[[clients]]\nname = \"default\"\nkeys = [\"0123456789abcdef0123\"]\n";

    fn complaint(text: &str) -> String {
        Config::parse(text).expect_err("refused").0
    }

    #[test]
    fn the_example_holds_the_defaults() {
        let example = include_str!("../../config.example.toml");
        assert!(complaint(example).contains("key of the example"));
        let example = example.replace(EXAMPLE_KEY, "changed");
        let example = Config::parse(&example).expect("the example is valid");
        let least = Config::parse(LEAST).expect("valid");
        let shown = |config: &Config| {
            format!(
                "{:?}",
                Config {
                    clients: Vec::new(),
                    ..config.clone()
                }
            )
        };
        assert_eq!(shown(&example), shown(&least));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(complaint("").contains("[[clients]]"));
        assert!(complaint(&format!("{LEAST}[batch]\nmax_request = 5\n")).contains("max_request"));
        assert!(
            complaint(&format!("{LEAST}[batch]\nmax_wait = \"5 parsecs\"\n")).contains("5 parsecs")
        );
        assert!(complaint(&format!("listen = \"here\"\n{LEAST}")).contains("listen"));
        assert!(complaint(&format!("database = \"\"\n{LEAST}")).contains("database is empty"));
        let same = "listen = \"127.0.0.1:8080\"\nops_listen = \"127.0.0.1:8080\"\n";
        assert!(complaint(&format!("{same}{LEAST}")).contains("a port of its own"));
        let empty = tempfile::NamedTempFile::new().expect("a file");
        let empty = format!("{LEAST}[openai]\napi_key_file = {:?}\n", empty.path());
        assert!(complaint(&empty).contains("is empty"));
        assert!(complaint("[[clients]]\nname = \"a\"\nkeys = [\"short\"]\n").contains("\"a\""));
        for (wrong, named) in [
            ("[openai]\npoll_interval = \"0s\"", "openai.poll_interval"),
            ("[steps]\nidle = 0", "steps.idle"),
            ("[vision]\ndetail = \"lowest\"", "vision.detail"),
            ("[vision]\nmodel = \"\"", "vision.model"),
            ("[network]\nallow_private = \"yes\"", "a list of networks"),
        ] {
            assert!(
                complaint(&format!("{LEAST}{wrong}")).contains(named),
                "{wrong}"
            );
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!("{:?}", Config::parse(LEAST).expect("valid"));
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
    }
}
