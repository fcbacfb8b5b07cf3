//! `backup`: a verified copy of the database, while the daemon runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::look::open;
use super::progress::Progress;
use super::{Command, Outcome, Refused, say};
use crate::base::clock::{Clock, SystemClock};
use crate::config::BackupConfig;
use crate::store::backup::{self, Copied};
use crate::store::{Store, StoreError};

pub(super) fn run(command: &Command) -> Outcome {
    let (config, store) = open(command)?;
    let file = command.operands.first().map(PathBuf::from);
    if file.is_some() && (command.dir.is_some() || command.keep_copies.is_some()) {
        let message = "backup takes a FILE, or --dir and --keep";
        return Err(Refused::Usage(message.into()));
    }
    let (copied, removed) = match file {
        Some(file) => (copy(&store, &file)?, Vec::new()),
        None => into_folder(&store, &config.database, &folder(command, config.backup)?)?,
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
    say(
        command,
        &json!({"backup": path, "bytes": bytes, "schema": schema, "rows": rows, "removed": removed}),
        &format!(
            "{}: {bytes} bytes, schema {schema}, {rows} rows, read back and whole{also}\n",
            path.display()
        ),
    )
}

/// Where copies go and how many are kept: as the command line says, else as the configuration does.
fn folder(command: &Command, configured: BackupConfig) -> Result<BackupConfig, Refused> {
    let keep =
        match &command.keep_copies {
            None => configured.keep,
            Some(text) => text.parse().ok().filter(|keep| *keep > 0).ok_or_else(|| {
                Refused::Usage(format!("--keep {text}: a whole number from 1 on"))
            })?,
        };
    let folder = BackupConfig {
        dir: command.dir.clone().unwrap_or(configured.dir),
        keep,
        ..configured
    };
    match folder.is_on() {
        true => Ok(folder),
        false => Err(Refused::Usage(
            "backup where? Name a FILE, or --dir DIR, or set backup.dir".into(),
        )),
    }
}

fn copy(store: &Store, to: &Path) -> Result<Copied, Refused> {
    let mut progress = Progress::new("copied");
    let copied = store.back_up(to, &mut |done, all| progress.tell(done, all));
    progress.end();
    Ok(copied?)
}

/// A copy named by its time; only when it is whole those that are too many go.
fn into_folder(
    store: &Store,
    database: &Path,
    folder: &BackupConfig,
) -> Result<(Copied, Vec<PathBuf>), Refused> {
    let clock = SystemClock::new();
    let began = clock.now().wall;
    let stem = database
        .file_stem()
        .map_or("batchkeeper".into(), |stem| stem.to_string_lossy());
    let name = format!("{stem}-{}.db", began.to_compact_text());
    let dir = std::path::absolute(&folder.dir)?;
    let copied = copy(store, &dir.join(name))?;
    let surplus = store.write(clock.now().wall, |tx| {
        backup::note(tx, &copied, began)?;
        backup::beyond(tx, &dir, folder.keep)
    })?;
    for path in &surplus {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("{} cannot be removed: {error}", path.display());
                return Err(StoreError::Other(message).into());
            }
            _ => store.write(clock.now().wall, |tx| backup::forget(tx, path))?,
        }
    }
    Ok((copied, surplus))
}
