//! `config show`: the configuration in force.

use clap::Subcommand;
use serde_json::json;

use super::Outcome;
use super::context::Context;
use crate::store::inspect::Table;

/// What `config` does.
#[derive(Clone, Copy, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show every key with its value and where it comes from: default, file or environment. Secrets are left out
    Show,
}

pub(super) fn run(context: &Context, command: ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Show => {
            let keys = crate::config::Config::shown(&context.config_path())?;
            let value = |text: String| match context.output.json {
                true => typed(&text).unwrap_or_else(|| json!(text)),
                false => json!(text),
            };
            let cells = keys
                .into_iter()
                .map(|it| vec![json!(it.key), value(it.value), json!(it.source)]);
            context.output.show(&Table {
                columns: ["key", "value", "source"].map(str::to_owned).into(),
                rows: cells.collect(),
            })
        }
    }
}

/// A value of TOML as JSON; `None` for the mark in place of a secret.
fn typed(text: &str) -> Option<serde_json::Value> {
    let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.remove("value")?).ok()
}
