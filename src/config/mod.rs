//! The configuration: TOML in, a checked [`Config`] out. Unknown keys are refused. Keys and tokens come
//! from files or the environment.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::domain::batch::Stage;
use crate::domain::parameters::Parameters;
use crate::domain::prices::Price;
use crate::domain::translation::TranslationParameters;
use crate::domain::vision::VisionParameters;

mod alerts;
mod batch;
mod clients;
mod environment;
mod error;
mod key_list;
mod key_text;
mod logging;
mod money;
mod network;
mod openai;
mod permissions;
mod renamed;
mod secrets;
mod shown;
mod storage;
mod units;
mod webhooks;

use alerts::ReceiverConfig;
use environment::Override;

pub use alerts::{AlertChannel, AlertReceiver, AlertsConfig};
pub use batch::{BatchConfig, ImagesConfig, StepsConfig, SynchronousConfig};
pub use clients::ClientConfig;
pub use error::ConfigError;
pub use logging::LogFormat;
pub use money::{BudgetPolicy, BudgetsConfig};
pub use network::{HttpConfig, LimitsConfig, NetworkConfig, PrivateNetworks};
pub use openai::{BatchListing, OpenAiConfig};
pub use secrets::{Secret, SecretSource};
pub use shown::ShownKey;
pub use storage::{BackupConfig, RetentionConfig};
pub use webhooks::WebhooksConfig;

/// The whole configuration. `config.example.toml` says what each key is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address of the client API. Empty turns it off.
    pub listen: String,
    /// The address of the operator's pages. Empty turns them off.
    pub ops_listen: String,
    #[serde(skip)]
    settings: Vec<ShownKey>,
    /// Host names of the operator's pages, besides those of this machine.
    pub ops_hosts: Vec<String>,
    ops_token_file: Option<PathBuf>,
    #[serde(skip)]
    ops_token: Secret,
    ops_read_token_file: Option<PathBuf>,
    #[serde(skip)]
    ops_read_token: Secret,
    /// Whether the read token shows the texts of lots.
    pub ops_read_texts: bool,
    /// Whether the operator's pages may change something. It needs `ops_token_file`.
    pub ops_actions: bool,
    /// The database's file. The folder `spool` lies beside it.
    pub database: PathBuf,
    /// The log's level, and levels of modules. `RUST_LOG` takes precedence.
    pub log: String,
    /// The form of a log record.
    pub log_format: LogFormat,
    /// Whether reads of one job of the client `default` need no signature, as with the earlier service.
    pub legacy_unsigned_reads: bool,
    /// `[[clients]]`: programs that may send jobs.
    pub clients: Vec<ClientConfig>,
    /// `[openai]`: OpenAI's API, or a server that stands for it.
    pub openai: OpenAiConfig,
    /// `[vision]`: the first stage.
    pub vision: VisionParameters,
    /// `[translation]`: the second stage.
    pub translation: TranslationParameters,
    /// `[batch]`: how requests are packed into batches.
    pub batch: BatchConfig,
    /// `[images]`: the check of images before they are sent.
    pub images: ImagesConfig,
    /// `[synchronous]`: jobs of one lot that are answered in the response.
    pub synchronous: SynchronousConfig,
    /// `[webhooks]`: notifications to clients.
    pub webhooks: WebhooksConfig,
    /// `[network]`: where outgoing connections may go.
    pub network: NetworkConfig,
    /// `[http]`: limits of every connection.
    pub http: HttpConfig,
    /// `[limits]`: what a client may send.
    pub limits: LimitsConfig,
    /// `[retention]`: how long data is kept.
    pub retention: RetentionConfig,
    /// `[backup]`: copies of the database.
    pub backup: BackupConfig,
    /// `[alerts]`: notifications to the operator.
    pub alerts: AlertsConfig,
    /// `[[alert_receivers]]`, as configured. [`Config::alert_receivers`] adds the signed one.
    alert_receivers: Vec<ReceiverConfig>,
    /// `[[prices]]`, as configured. [`Config::prices`] adds the shipped ones.
    prices: Vec<Price>,
    /// `[budgets]`: what may be spent.
    pub budgets: BudgetsConfig,
    /// `[steps]`: how often workers look for work.
    pub steps: StepsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            ops_listen: "127.0.0.1:8081".into(),
            settings: Vec::new(),
            ops_hosts: Vec::new(),
            ops_token_file: None,
            ops_token: Secret::default(),
            ops_read_token_file: None,
            ops_read_token: Secret::default(),
            ops_read_texts: false,
            ops_actions: false,
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
            alert_receivers: Vec::new(),
            prices: Vec::new(),
            budgets: BudgetsConfig::default(),
            steps: StepsConfig::default(),
        }
    }
}

impl Config {
    /// Reads the configuration in `path`, and the files with keys that it names.
    ///
    /// # Errors
    /// When a file cannot be read, a key is unknown or of the wrong type, or a check refuses a value.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::load_without_keys(path)?;
        config.load_secrets().map_err(|error| error.in_file(path))?;
        Ok(config)
    }

    /// What precedes the hexadecimal digits in `X-Signature` of a client's webhooks.
    pub fn signature_prefix<'c>(&'c self, client: &'c ClientConfig) -> &'c str {
        let own = client.signature_prefix.as_deref();
        own.unwrap_or(&self.webhooks.signature_prefix)
    }

    /// Reads the configuration in `path` without keys and tokens, for a command that neither calls OpenAI
    /// nor signs. Its user need not be able to read their files.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_without_keys(path: &Path) -> Result<Self, ConfigError> {
        let overrides = environment::overrides(std::env::vars_os())?;
        Self::read_file(path, |text| {
            let mut config = Self::parse_with(text, &overrides)?;
            config.settings = Self::show(text, &overrides)?;
            Ok(config)
        })
    }

    /// Every key of the file that was loaded, without secrets.
    pub fn settings(&self) -> &[ShownKey] {
        &self.settings
    }

    /// Every key of the configuration in `path`, with its value and its source.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn shown(path: &Path) -> Result<Vec<ShownKey>, ConfigError> {
        let overrides = environment::overrides(std::env::vars_os())?;
        Self::read_file(path, |text| Self::show(text, &overrides))
    }

    fn read_file<T>(
        path: &Path,
        parse: impl FnOnce(&str) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => parse(&text).map_err(|error| error.in_file(path)),
            Err(error) => Err(ConfigError::Unreadable {
                path: path.to_owned(),
                error,
            }),
        }
    }

    /// Reads the configuration in a text, and the files with keys that it names.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::parse_with(text, &[])?;
        config.load_secrets()?;
        Ok(config)
    }

    /// Reads a text and the overrides of the environment, without keys and tokens.
    fn parse_with(text: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| match renamed::find(text) {
            Some(message) => ConfigError::Value(message),
            None => ConfigError::in_text(&error, text),
        })?;
        if !overrides.is_empty() {
            let mut table: toml::Table = toml::from_str(text)?;
            environment::apply(&mut table, overrides);
            config = table.try_into()?;
        }
        if config.log == "json" {
            config.log = Self::default().log;
            config.log_format = LogFormat::Json;
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        logging::check(&self.log)?;
        if self.database.as_os_str().is_empty() {
            return error::refuse(
                "database is empty: name its file, such as \"/var/lib/batchkeeper/batchkeeper.db\"",
            );
        }
        self.http.check(self.limits.max_body)?;
        self.check_addresses()?;
        clients::check(&self.clients)?;
        self.openai.check()?;
        self.check_stages()?;
        self.batch.check()?;
        self.images.check()?;
        self.webhooks.check()?;
        self.limits.check()?;
        self.backup.check()?;
        self.alerts.check()?;
        alerts::check_receivers(&self.alert_receivers)?;
        self.check_money()?;
        self.steps.check()
    }

    /// The folder of input and result files on their way, beside the database.
    pub fn spool(&self) -> PathBuf {
        self.database.with_file_name("spool")
    }

    /// What the lines of a stage are made with.
    pub fn parameters(&self, stage: Stage) -> Parameters {
        let parameters = match stage {
            Stage::Vision => Parameters::Vision(self.vision.clone()),
            Stage::Translation => Parameters::Translation(self.translation.clone()),
        };
        parameters.with_form(self.openai.form()).for_model()
    }

    /// The token that every request to the operator's pages must have. It is empty if none is needed.
    pub fn ops_token(&self) -> &Secret {
        &self.ops_token
    }

    /// The token that may only read the operator's pages. It is empty if there is none.
    pub fn ops_read_token(&self) -> &Secret {
        &self.ops_read_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shortest configuration that is accepted.
    pub(super) const LEAST: &str = "[[clients]]\nname = \"default\"\nkeys = [\"0123456789abcdef0123\"]\n";

    /// Why a configuration is refused.
    pub(super) fn complaint(text: &str) -> String {
        Config::parse(text).expect_err("refused").to_string()
    }

    #[test]
    fn the_example_holds_the_defaults() {
        let example = include_str!("../../config.example.toml").replace("change-me", "changed");
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
        assert!(complaint(&format!("{LEAST}[batch]\nmax_wait = \"5 parsecs\"\n")).contains("5 parsecs"));
        assert!(complaint(&format!("listen = \"here\"\n{LEAST}")).contains("listen"));
        assert!(complaint(&format!("database = \"\"\n{LEAST}")).contains("database is empty"));
        let same = "listen = \"127.0.0.1:8080\"\nops_listen = \"127.0.0.1:8080\"\n";
        assert!(complaint(&format!("{same}{LEAST}")).contains("a port of its own"));
        for (wrong, named) in [
            ("[openai]\npoll_interval = \"0s\"", "openai.poll_interval"),
            ("[steps]\nidle = 0", "steps.idle"),
            ("[vision]\ndetail = \"lowest\"", "vision.detail"),
            ("[vision]\nmodel = \"\"", "vision.model"),
            ("[network]\nallow_private = \"yes\"", "a list of networks"),
            ("[limits]\nmax_body = \"5 apples\"", "5 apples"),
        ] {
            assert!(complaint(&format!("{LEAST}{wrong}")).contains(named), "{wrong}");
        }
    }
}
