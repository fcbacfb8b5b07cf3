//! `demo`: the whole chain on this machine. A sandbox stands for OpenAI, and a daemon runs on a new
//! database. A client sends a signed job of 100 real lots, polls it, and verifies the webhook.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::{Receiver, bounded, never};

use super::output::print;
use super::sandbox::limits;
use super::{CommandError, Outcome, Verdict, logger};
use crate::base::clock::{Clock, SystemClock};
use crate::base::thread_group::ThreadGroup;
use crate::config::{Config, LogFormat};
use crate::daemon::Daemon;
use crate::http::Server;
use crate::sandbox::{Latencies, Pace, Sandbox, SandboxSettings};

mod client;

/// The client's key. It signs requests and webhooks.
const KEY: &str = "demo-key-of-more-than-sixteen-bytes";
/// The languages of the job.
const LANGUAGES: [&str; 3] = ["en", "ru", "de"];

/// Options of `demo`.
#[derive(Args)]
pub(super) struct DemoOptions {
    /// Leave everything running until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(options: &DemoOptions) -> Outcome {
    logger::start("warn", LogFormat::Text);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let folder = std::env::temp_dir().join(format!("batchkeeper-demo-{}", uuid::Uuid::new_v4().simple()));
    let (group, _endings) = ThreadGroup::new();
    let sandbox = start_sandbox(&group, &clock, &folder)?;
    let openai = format!("http://{}", sandbox.address());
    let config = write_config(&folder, &openai)?;
    let database = config.database.clone();
    let daemon = Daemon::start(config, clock.clone())?;
    let addresses = daemon.addresses();
    let api = format!("http://{}", addresses[0]);
    let ops = format!("http://{}", addresses[1]);
    print(&format!(
        "sandbox    {openai}/v1 (stands for OpenAI)\ndaemon     {api}\noperator   {ops}/health\n"
    ))?;

    let (finish, finished) = bounded(1);
    let shown = client::run(&client::Demo {
        api,
        sandbox: openai,
        database: database.clone(),
        clock,
    });
    let keeps_running = options.keep && shown.is_ok();
    let until: Receiver<()> = match keeps_running {
        true => never(),
        false => finished,
    };
    if shown.is_ok() {
        print(&format!(
            "\nThe database stays at {}\nLook at it:  sqlite3 {} 'SELECT * FROM v_jobs'\n",
            database.display(),
            database.display()
        ))?;
    }
    if keeps_running {
        print(&format!(
            "Commands:    batchkeeper batches --config {}\n",
            config_path(&folder).display()
        ))?;
        print("Everything runs on until Ctrl-C.\n")?;
    }
    drop(finish);
    daemon.run(&until)?;
    sandbox.stop(Duration::from_secs(5));
    shown?;
    Ok(Verdict::Clean)
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

fn config_path(folder: &Path) -> PathBuf {
    folder.join("config.toml")
}

/// A configuration as an operator would write it, with waits that suit a demo.
fn write_config(folder: &Path, openai: &str) -> Result<Config, CommandError> {
    let key_file = folder.join("openai.key");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nops_listen = \"127.0.0.1:0\"\ndatabase = {:?}\n\n\
         [[clients]]\nname = \"default\"\nkeys = [{KEY:?}]\n\n\
         [openai]\nbase_url = \"{openai}/v1\"\napi_key_file = {key_file:?}\npoll_interval = \"400ms\"\n\n\
         [batch]\nmax_wait = \"500ms\"\n\n[steps]\nidle = \"100ms\"\n\n\
         [webhooks]\nconcurrency = 4\n\n[network]\nallow_private = [\"127.0.0.0/8\"]\n",
        folder.join("batchkeeper.db"),
    );
    let path = config_path(folder);
    let written = std::fs::write(&key_file, "sk-sandbox\n").and_then(|()| std::fs::write(&path, text));
    written.map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(Config::load(&path)?)
}
