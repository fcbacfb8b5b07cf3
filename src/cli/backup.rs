//! `backup`: a verified copy of the database, while the daemon runs.

use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;
use clap::{Args, value_parser};
use serde_json::json;

use super::context::Context;
use super::progress::Progress;
use super::{CommandError, Outcome};
use crate::base::clock::SystemClock;
use crate::config::BackupConfig;
use crate::store::Store;
use crate::store::backup::Copied;

/// Options of `backup`.
#[derive(Args)]
pub(super) struct BackupOptions {
    /// The copy's file; default: a file in --dir that has the time as its name
    file: Option<PathBuf>,
    /// The folder of copies; default: backup.dir
    #[arg(long, conflicts_with = "file")]
    dir: Option<PathBuf>,
    /// Keep this number of the newest copies in the folder; default: backup.keep
    #[arg(long, value_name = "N", conflicts_with = "file", value_parser = copies())]
    keep: Option<u32>,
}

/// At least one copy is kept.
fn copies() -> impl TypedValueParser<Value = u32> {
    value_parser!(u32).range(1..)
}

pub(super) fn run(context: &Context, options: BackupOptions) -> Outcome {
    let (config, store) = context.open()?;
    let (copied, removed) = match &options.file {
        Some(file) => (copy(&store, file)?, Vec::new()),
        None => copy_into(&store, &folder(options, config.backup)?)?,
    };
    let Copied {
        path,
        bytes,
        schema,
        rows,
    } = &copied;
    let also = match removed.len() {
        0 => String::new(),
        number => format!("; {number} older removed"),
    };
    context.output.report(
        &json!({"backup": path, "bytes": bytes, "schema": schema, "rows": rows, "removed": removed}),
        &format!(
            "{}: {bytes} bytes, schema {schema}, {rows} rows, read back and whole{also}\n",
            path.display()
        ),
    )
}

/// The folder and the number of copies: those of the command line, else those of the configuration.
fn folder(options: BackupOptions, configured: BackupConfig) -> Result<BackupConfig, CommandError> {
    let folder = BackupConfig {
        dir: options.dir.unwrap_or(configured.dir),
        keep: options.keep.unwrap_or(configured.keep),
        ..configured
    };
    match folder.is_on() {
        true => Ok(folder),
        false => Err(CommandError::Usage(
            "backup where? Name a FILE, or --dir DIR, or set backup.dir".into(),
        )),
    }
}

fn copy(store: &Store, to: &Path) -> Result<Copied, CommandError> {
    let mut progress = Progress::new("copied");
    let copied = store.back_up(to, &mut |done, all| progress.show(done, all));
    progress.end();
    Ok(copied?)
}

fn copy_into(store: &Store, folder: &BackupConfig) -> Result<(Copied, Vec<PathBuf>), CommandError> {
    let mut progress = Progress::new("copied");
    let clock = SystemClock::new();
    let made = store.back_up_into(&folder.dir, folder.keep, &clock, &mut |done, all| {
        progress.show(done, all);
    });
    progress.end();
    Ok(made?)
}
