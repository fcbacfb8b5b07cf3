//! `init`: writes a configuration and its keys into a folder.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::context::{Context, DEFAULT_CONFIG};
use super::{CommandError, Outcome};
use crate::base::private_file::{make_private_folder, private};
use crate::config::Config;

const PRODUCTION: &str = include_str!("production.toml");
const SANDBOX: &str = include_str!("sandbox.toml");
const JOB: &str = include_str!("job.json");
/// The key that the sandbox accepts.
const SANDBOX_KEY: &str = "sk-sandbox\n";

/// Options of `init`.
#[derive(Args)]
pub(super) struct InitOptions {
    /// The folder; it is made if it does not exist
    #[arg(value_name = "DIR", default_value = "/etc/batchkeeper")]
    folder: PathBuf,
    /// Write a configuration for the sandbox, with a job to send to it
    #[arg(long)]
    sandbox: bool,
}

/// A file that the command writes.
struct NewFile {
    path: PathBuf,
    text: String,
}

pub(super) fn run(context: &Context, options: &InitOptions) -> Outcome {
    let folder = &options.folder;
    make_private_folder(folder).map_err(|error| file_error(folder, error))?;
    let folder = folder.canonicalize().map_err(|error| file_error(folder, error))?;
    let files = match options.sandbox {
        true => sandbox_files(&folder),
        false => production_files(&folder),
    };
    if let Some(file) = files.iter().find(|file| fs::symlink_metadata(&file.path).is_ok()) {
        return Err(CommandError::Failed(format!(
            "{} exists already; nothing was written. Name another folder, or move the file away",
            file.path.display()
        )));
    }
    let owner = Owner::of(&folder).map_err(|error| file_error(&folder, error))?;
    for file in &files {
        owner.write(file).map_err(|error| file_error(&file.path, error))?;
    }
    let paths: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
    let next = match options.sandbox {
        true => next_with_sandbox(&options.folder),
        false => next_in_production(&options.folder),
    };
    let text = format!("wrote {}\n\n{next}", paths.join("\n      "));
    context.output.report(&json!({"wrote": paths}), &text)
}

fn file_error(path: &Path, error: std::io::Error) -> CommandError {
    CommandError::File {
        path: path.to_owned(),
        error,
    }
}

fn production_files(folder: &Path) -> Vec<NewFile> {
    // The service's unit has a folder for the data.
    let database = match folder.join("config.toml") == Path::new(DEFAULT_CONFIG) {
        true => Config::default().database,
        false => folder.join("batchkeeper.db"),
    };
    vec![
        NewFile::new(folder, "config.toml", fill(PRODUCTION, folder, &database)),
        NewFile::new(folder, "default.key", new_key()),
        NewFile::new(folder, "openai.key", String::new()),
    ]
}

fn sandbox_files(folder: &Path) -> Vec<NewFile> {
    let database = folder.join("batchkeeper.db");
    vec![
        NewFile::new(folder, "config.toml", fill(SANDBOX, folder, &database)),
        NewFile::new(folder, "default.key", new_key()),
        NewFile::new(folder, "openai.key", SANDBOX_KEY.to_owned()),
        NewFile::new(folder, "job.json", JOB.to_owned()),
    ]
}

impl NewFile {
    fn new(folder: &Path, name: &str, text: String) -> Self {
        Self {
            path: folder.join(name),
            text,
        }
    }
}

/// Puts paths into a template. They stand within TOML's basic strings there.
fn fill(template: &str, folder: &Path, database: &Path) -> String {
    let quoted = |path: &Path| {
        path.display()
            .to_string()
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
    };
    template
        .replace("@FOLDER@", &quoted(folder))
        .replace("@DATABASE@", &quoted(database))
}

/// A random key: 244 random bits in hexadecimal digits.
fn new_key() -> String {
    format!("{}{}\n", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// The user and group of the folder, who get its files. Only root can give files away.
struct Owner {
    uid: u32,
    gid: u32,
    /// Whether the folder is another user's or group's than this process's, as with `root:batchkeeper`.
    is_other: bool,
}

impl Owner {
    fn of(folder: &Path) -> std::io::Result<Self> {
        let found = fs::metadata(folder)?;
        let (uid, gid) = (found.uid(), found.gid());
        let own = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Ok(Self {
            uid,
            gid,
            is_other: (uid, gid) != own,
        })
    }

    /// Writes a file that did not exist: for its owner alone, and readable for the group if that is the service's.
    fn write(&self, file: &NewFile) -> std::io::Result<()> {
        let mut written: File = private().create_new(true).open(&file.path)?;
        written.write_all(file.text.as_bytes())?;
        if self.is_other {
            match std::os::unix::fs::fchown(&written, Some(self.uid), Some(self.gid)) {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
                Err(_) => {}
                Ok(()) => written.set_permissions(Permissions::from_mode(0o640))?,
            }
        }
        written.sync_all()
    }
}

fn next_with_sandbox(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Next, the first two in terminals of their own:\n  \
         batchkeeper sandbox --state {folder}/sandbox\n  \
         batchkeeper serve --config {folder}/config.toml\n  \
         batchkeeper sign --headers --config {folder}/config.toml {folder}/job.json | curl -H @- \
         -H 'Content-Type: application/json' --data-binary @{folder}/job.json http://127.0.0.1:8080/api/v1/generate-descriptions\n"
    )
}

fn next_in_production(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Next:\n  \
         write OpenAI's key into {folder}/openai.key\n  \
         batchkeeper check-config --probe --config {folder}/config.toml   # two calls, a fraction of a cent\n  \
         batchkeeper serve --config {folder}/config.toml                  # or: systemctl start batchkeeper\n\
         Give the clients the key in {folder}/default.key.\n"
    )
}
