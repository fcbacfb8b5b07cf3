//! `demo`: the whole chain on this machine. A sandbox stands for OpenAI, and a daemon runs on a new
//! database. A client sends a signed job of 100 real lots. The daemon is killed while OpenAI makes the first
//! batch; the client polls on, and verifies the webhook, the results and what was billed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::output::print;
use super::sandbox::limits;
use super::{CommandError, Outcome, Verdict, logger};
use crate::base::clock::{Clock, SystemClock};
use crate::base::private_file::make_private_folder;
use crate::base::thread_group::ThreadGroup;
use crate::config::LogFormat;
use crate::daemon::stop_signals;
use crate::http::Server;
use crate::sandbox::{Latencies, Pace, Sandbox, SandboxSettings};

mod accounts;
mod client;
mod display;
mod process;

use accounts::show_proof;
use client::Demo;
use display::Display;
use process::DaemonProcess;

/// The client's key. It signs requests and webhooks.
const KEY: &str = "demo-key-of-more-than-sixteen-bytes";
/// The languages of the job.
const LANGUAGES: [&str; 3] = ["en", "ru", "de"];

/// Options of `demo`.
#[derive(Args)]
pub(super) struct DemoOptions {
    /// Leave everything running until Ctrl-C, and keep the folder
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(options: &DemoOptions) -> Outcome {
    logger::start("warn", LogFormat::Text);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let folder = std::env::temp_dir().join(format!("batchkeeper-demo-{}", uuid::Uuid::new_v4().simple()));
    make_private_folder(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (group, _endings) = ThreadGroup::new();
    let sandbox = start_sandbox(&group, &clock, &folder)?;
    let shown = show(options, &clock, &folder, &format!("http://{}", sandbox.address()));
    sandbox.stop(Duration::from_secs(5));
    if shown.is_ok() && !options.keep {
        std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    shown.map_err(|error| {
        CommandError::Failed(format!(
            "{error}; the daemon's log is {}",
            log_path(&folder).display()
        ))
    })?;
    Ok(Verdict::Clean)
}

/// Starts the daemon and takes the job through it.
fn show(
    options: &DemoOptions,
    clock: &Arc<dyn Clock>,
    folder: &Path,
    openai: &str,
) -> Result<(), CommandError> {
    let [api, ops] = free_addresses()?;
    let config = write_config(folder, openai, &api, &ops)?;
    let mut daemon = DaemonProcess::new(config.clone(), log_path(folder));
    daemon.start()?;
    let demo = Demo {
        api: format!("http://{api}"),
        sandbox: openai.to_owned(),
        database: database_path(folder),
        clock: clock.clone(),
        display: Display::new(),
    };
    let display = &demo.display;
    display.line("sandbox", &format!("{openai}/v1 (stands for OpenAI)"))?;
    display.line("daemon", &demo.api)?;
    display.line("status", &format!("http://{ops}/ (the operator's page)"))?;
    client::run(&demo, &mut daemon)?;
    print("\n")?;
    show_proof(&demo)?;
    if options.keep {
        let (config, database) = (config.display(), demo.database.display());
        print(&format!(
            "\nThe database:  sqlite3 {database} 'SELECT * FROM v_jobs'\n\
             Commands:      batchkeeper batches --config {config}\n\
             Everything runs on until Ctrl-C.\n"
        ))?;
        wait_for_signal()?;
    }
    daemon.stop()
}

fn wait_for_signal() -> Result<(), CommandError> {
    let signals = stop_signals()?;
    // An error would mean that no signal can arrive any more, which ends the wait too.
    signals.recv().ok();
    Ok(())
}

fn start_sandbox(group: &ThreadGroup, clock: &Arc<dyn Clock>, folder: &Path) -> Result<Server, CommandError> {
    // A person can watch the stages, and does not wait long.
    let latencies = Latencies {
        validating: 500,
        in_progress: 1_500,
        finalizing: 300,
        cancel: 1_000,
        expire: 1_000,
    };
    let settings = SandboxSettings {
        pace: Pace::Fixed(latencies),
        ..SandboxSettings::default()
    };
    let sandbox =
        Sandbox::open(&folder.join("sandbox"), settings, clock.clone()).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no free port: {error}"))?;
    Server::start(
        group,
        clock.clone(),
        "sandbox",
        listener,
        limits(),
        Arc::new(sandbox),
    )
    .map_err(|error| CommandError::Failed(format!("the sandbox does not start: {error}")))
}

/// Two addresses that are free now. The daemon keeps them over its kill.
fn free_addresses() -> Result<[String; 2], CommandError> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let address = |listener: &TcpListener| listener.local_addr().map(|it| it.to_string());
    let both = bind().and_then(|first| {
        let second = bind()?;
        Ok([address(&first)?, address(&second)?])
    });
    Ok(both.map_err(|error| format!("no free port: {error}"))?)
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("daemon.log")
}

fn database_path(folder: &Path) -> PathBuf {
    folder.join("batchkeeper.db")
}

/// A configuration as an operator would write it, with waits that suit a demo.
fn write_config(folder: &Path, openai: &str, api: &str, ops: &str) -> Result<PathBuf, CommandError> {
    let key_file = folder.join("openai.key");
    let text = format!(
        "listen = \"{api}\"\nops_listen = \"{ops}\"\ndatabase = {:?}\n\n\
         [[clients]]\nname = \"default\"\nkeys = [{KEY:?}]\n\n\
         [openai]\nbase_url = \"{openai}/v1\"\napi_key_file = {key_file:?}\npoll_interval = \"400ms\"\n\n\
         [batch]\nmax_wait = \"500ms\"\n\n[steps]\nidle = \"100ms\"\n\n\
         [webhooks]\nconcurrency = 4\n\n[network]\nallow_private = [\"127.0.0.0/8\"]\n",
        database_path(folder),
    );
    let path = folder.join("config.toml");
    let written = std::fs::write(&key_file, "sk-sandbox\n").and_then(|()| std::fs::write(&path, text));
    written.map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(path)
}
