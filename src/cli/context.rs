//! What every command has: the configuration's file and the form of the output.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::never;

use super::CommandError;
use super::output::Output;
use crate::base::clock::{Clock, SystemClock, Timestamp};
use crate::base::fields::Fields;
use crate::config::Config;
use crate::domain::operator_action::{ActionKind, Actor};
use crate::store::audit::{self, OperatorAction};
use crate::store::{Store, Stored, Tx};

/// The configuration's file if neither the command line nor the environment names one.
pub(super) const DEFAULT_CONFIG: &str = "/etc/batchkeeper/config.toml";

/// Options of every command.
#[derive(Args)]
pub(super) struct Context {
    /// The configuration; default: the environment's BATCHKEEPER_CONFIG, else
    /// /etc/batchkeeper/config.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: Output,
}

impl Context {
    /// The configuration's file.
    pub(super) fn config_path(&self) -> PathBuf {
        self.config
            .clone()
            .or_else(|| std::env::var_os("BATCHKEEPER_CONFIG").map(PathBuf::from))
            .unwrap_or_else(|| DEFAULT_CONFIG.into())
    }

    /// The configuration of a command that neither calls OpenAI nor signs.
    pub(super) fn config(&self) -> Result<Config, CommandError> {
        Ok(Config::load_without_keys(&self.config_path())?)
    }

    /// The configuration of a command that calls OpenAI or signs.
    pub(super) fn config_with_keys(&self) -> Result<Config, CommandError> {
        Ok(Config::load(&self.config_path())?)
    }

    /// The configuration, and the database that exists already. The daemon may run meanwhile.
    pub(super) fn open(&self) -> Result<(Config, Store), CommandError> {
        let config = self.config()?;
        let store = open_store(&config)?;
        Ok((config, store))
    }
}

/// Opens a database that exists already.
pub(super) fn open_store(config: &Config) -> Result<Store, CommandError> {
    match config.database.exists() {
        true => Ok(Store::open(&config.database, now())?),
        false => Err(CommandError::NoDatabase(config.database.clone())),
    }
}

/// Makes a change for an operator, and its row of the audit in the same transaction. The change returns what the
/// row says of its effect, or `None` if there was nothing to change.
pub(super) fn change<T>(
    store: &Store,
    kind: ActionKind,
    subject: &str,
    change: impl FnOnce(&Tx<'_>) -> Stored<(T, Option<Fields>)>,
) -> Stored<T> {
    store.write(now(), |tx| {
        let (changed, detail) = change(tx)?;
        if let Some(detail) = detail {
            record(tx, kind, subject, detail)?;
        }
        Ok(changed)
    })
}

/// Records that an operator begins a change of several transactions.
pub(super) fn record_begin(store: &Store, kind: ActionKind, subject: &str) -> Stored<()> {
    store.write(now(), |tx| record(tx, kind, subject, Fields::new()))
}

fn record(tx: &Tx<'_>, kind: ActionKind, subject: &str, detail: Fields) -> Stored<()> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = rustix::process::getuid().as_raw();
    let name = variable("SUDO_USER").or_else(|| variable("USER"));
    let actor = Actor {
        name: name.unwrap_or_else(|| format!("uid {user}")),
        origin: "command line".to_owned(),
    };
    let action = OperatorAction {
        actor: &actor,
        kind,
        subject,
        detail,
        cost: None,
        nonce: None,
    };
    audit::record(tx, action).map(drop)
}

/// The wall clock's time.
pub(super) fn now() -> Timestamp {
    SystemClock::new().now().wall
}

/// Waits between a failed call to OpenAI and the next one.
pub(super) fn wait(time: Duration) {
    never::<()>().recv_timeout(time).ok();
}
