//! The helpers of the crash tests: the real binary as a daemon, a second process as the simulated
//! OpenAI, a client, and the oracle. Both processes work on files that survive them.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use batchkeeper::domain::signature::Key;
use batchkeeper::outbound::LocalClient;
use serde_json::Value;
use signal_hook::consts::SIGKILL;

mod client;
mod database;
mod oracle;
mod plan;
mod process;

pub use self::client::Reply;
pub use self::oracle::Expected;
pub use self::plan::{EIO, ENOSPC, OfCall, OfCommit, Plan, Strike};
use self::process::Process;
pub use self::process::{pause, until};

const BINARY: &str = env!("CARGO_BIN_EXE_batchkeeper");
const KEY: &str = "crash-key-of-more-than-sixteen-bytes";
/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_mins(5);
const MAX_ANSWER: u64 = 50_000_000;
/// How many bytes of each log a failing test shows.
const SHOWN: usize = 6_000;

struct Lot {
    id: String,
    info: String,
    images: Vec<String>,
}

/// A job that was answered with 201 and so must never be lost.
pub struct Job {
    pub id: String,
    hook: String,
    languages: Vec<String>,
    lots: Vec<Lot>,
    /// Whether the client cancelled it.
    cancelled: bool,
    /// Whether all of its lots failed first, and an operator sent them again.
    retried: bool,
}

/// The options that differ between tests.
#[derive(Clone, Copy)]
pub struct Options {
    /// Milliseconds that a batch stays in each state at OpenAI.
    pub pace: u64,
    /// Milliseconds for which the daemon searches a create with an unknown outcome.
    pub settling: u64,
    /// Whether the files of ingested batches are deleted at OpenAI without a delay.
    pub tidy: bool,
    /// The number of requests that a batch waits for; `None` if it waits a short time only.
    pub requests: Option<usize>,
    /// Whether the daemon runs with the shim.
    pub shim: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pace: 40,
            settling: 6_000,
            tidy: false,
            requests: None,
            shim: false,
        }
    }
}

impl Options {
    /// With the shim, and with the shortest times.
    pub fn torture() -> Self {
        Self {
            pace: 0,
            settling: 3_000,
            shim: true,
            ..Self::default()
        }
    }
}

/// A daemon and a sandbox on one folder.
pub struct Rig {
    folder: tempfile::TempDir,
    options: Options,
    /// The orders to the shim.
    plan: Option<Plan>,
    sandbox: Option<Process>,
    daemon: Option<Process>,
    sandbox_address: String,
    api: String,
    starts: u32,
    /// How often the daemon or the sandbox was killed or ended by itself.
    pub kills: u64,
    pub jobs: Vec<Job>,
    caller: LocalClient,
    key: Key,
}

impl Rig {
    /// Starts both processes.
    pub fn new(options: Options) -> Self {
        let mut rig = Self::without_daemon(options);
        rig.start();
        rig
    }

    /// Starts the sandbox and writes the configuration.
    pub fn without_daemon(options: Options) -> Self {
        let mut rig = Self {
            folder: tempfile::tempdir().unwrap(),
            options,
            plan: None,
            sandbox: None,
            daemon: None,
            sandbox_address: "127.0.0.1:0".into(),
            api: String::new(),
            starts: 0,
            kills: 0,
            jobs: Vec::new(),
            caller: LocalClient::new(),
            key: Key::new(KEY).unwrap(),
        };
        rig.start_sandbox();
        fs::create_dir(rig.path("data")).unwrap();
        if options.shim {
            rig.plan = Some(Plan::new(rig.path("plan"), rig.path("data")));
        }
        fs::write(rig.path("openai.key"), "sk-sandbox\n").unwrap();
        fs::write(rig.path("config.toml"), rig.config()).unwrap();
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> String {
        let mut retries = vec!["200ms"; 30];
        retries.resize(60, "2s");
        let Options { settling, tidy, .. } = self.options;
        let batch = match self.options.requests {
            None => "max_wait = \"60ms\"".to_owned(),
            Some(requests) => format!("max_wait = \"1h\"\nmax_requests = {requests}"),
        };
        // Some worlds let most lines fail on purpose, and no alert may stay open.
        let remote_files = if tidy { "1ms" } else { "7d" };
        format!(
            "listen = \"127.0.0.1:0\"\nops_listen = \"\"\ndatabase = {:?}\n\n\
             [[clients]]\nname = \"default\"\nkeys = [{KEY:?}]\n\n\
             [openai]\nbase_url = \"http://{}/v1\"\napi_key_file = {:?}\npoll_interval = \"40ms\"\n\
             retry_interval = \"30ms\"\nsettling_time = \"{settling}ms\"\ncreate_timeout = \"{}ms\"\nresults_timeout = \"30s\"\n\n\
             [batch]\n{batch}\nqueue_backoff = \"100ms\"\nretry_period = \"1s\"\n\n[images]\ncheck = false\n\n[steps]\nidle = \"50ms\"\n\n\
             [webhooks]\nretry_delays = {retries:?}\ntimeout = \"1m\"\nconcurrency = 2\n\n\
             [network]\nallow_private = [\"127.0.0.0/8\"]\n\n[synchronous]\nenabled = false\n\n[limits]\nsubmit = 0\nread = 0\ndisk_reserve = 0\n\n\
             [alerts]\nfailed_lines_percent = 100\n\n\
             [retention]\nremote_files = \"{remote_files}\"\n",
            self.database(),
            self.sandbox_address,
            self.path("openai.key"),
            settling * 2 / 3,
        )
    }

    pub fn database(&self) -> PathBuf {
        self.path("data/batchkeeper.db")
    }

    fn log(&mut self, of: &str) -> PathBuf {
        self.starts += 1;
        self.path(&format!("{:03}-{of}.log", self.starts))
    }

    // The two processes.

    /// Starts the sandbox. It uses the same address each time.
    pub fn start_sandbox(&mut self) {
        let log = self.log("sandbox");
        let state = self.path("sandbox");
        let pace = self.options.pace.to_string();
        let args = [
            "sandbox",
            "--listen",
            &self.sandbox_address,
            "--state",
            state.to_str().unwrap(),
            "--pace",
            &pace,
        ];
        let mut sandbox = Process::start(&args, log, None);
        let url = sandbox.word_after("the sandbox serves http://");
        self.sandbox_address = url.trim_end_matches("/v1").to_owned();
        self.sandbox = Some(sandbox);
    }

    pub fn kill_sandbox(&mut self) {
        self.kills += 1;
        self.sandbox.take().unwrap().kill();
    }

    /// Starts the daemon and waits until it serves.
    pub fn start(&mut self) {
        self.start_blindly();
        self.api = self.daemon.as_mut().unwrap().word_after("what=api address=");
    }

    /// Starts the daemon and waits until it serves, or returns its status if it ended by itself.
    pub fn try_to_start(&mut self) -> Option<ExitStatus> {
        self.start_blindly();
        match self
            .daemon
            .as_mut()
            .unwrap()
            .word_after_or_exit("what=api address=")
        {
            Ok(api) => {
                self.api = api;
                None
            }
            Err(status) => {
                self.daemon = None;
                self.kills += 1;
                Some(status)
            }
        }
    }

    /// The status of a daemon that has ended by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.daemon.as_mut().unwrap().child.try_wait().unwrap()?;
        self.daemon = None;
        self.kills += 1;
        Some(status)
    }

    /// Starts the daemon and does not wait.
    pub fn start_blindly(&mut self) {
        let log = self.log("serve");
        let config = self.path("config.toml");
        let args = ["serve", "--config", config.to_str().unwrap()];
        self.daemon = Some(Process::start(&args, log, self.plan.as_ref()));
    }

    /// Sends SIGKILL to the daemon, whatever it does at the moment.
    pub fn kill(&mut self) {
        self.kills += 1;
        self.daemon.take().unwrap().kill();
    }

    /// Sets the shim's orders. Before that, it waits until the daemon has stored its work after a
    /// start, and a health request makes it commit its small health transaction: no other such
    /// transaction follows for a second.
    pub fn strike(&self, strike: Strike<'_>) {
        self.wait_for("SELECT 1 FROM instance WHERE compared_at IS NOT NULL");
        until("health", || (self.health() == 200).then_some(()));
        self.plan().strike(strike);
    }

    /// The orders to the shim.
    pub fn plan(&self) -> &Plan {
        self.plan.as_ref().unwrap()
    }

    /// Waits until the shim has killed the daemon.
    pub fn wait_until_killed(&mut self) {
        let status = self.daemon.take().unwrap().end();
        assert_eq!(status.signal(), Some(SIGKILL), "{status}");
        self.kills += 1;
    }

    /// Sends SIGTERM and returns the status that the daemon exits with.
    pub fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.end()
    }

    /// Sends SIGTERM.
    pub fn ask_to_end(&self) {
        self.daemon.as_ref().unwrap().ask_to_end();
    }

    /// Waits for the end of the daemon and returns its exit status.
    pub fn end(&mut self) -> ExitStatus {
        self.daemon.take().unwrap().end()
    }

    /// The output of the newest process.
    pub fn said(&self) -> String {
        let log = &self.daemon.as_ref().unwrap().log;
        fs::read_to_string(log).unwrap()
    }

    /// Runs a command of the binary while the daemon runs. Returns its exit status and its output.
    pub fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(BINARY)
            .args(args)
            .args(["--config", self.path("config.toml").to_str().unwrap()])
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    // The sandbox's controls.

    fn control(&self, path: &str) -> String {
        format!("http://{}/sandbox/{path}", self.sandbox_address)
    }

    /// Orders a list of faults.
    pub fn faults(&self, orders: &Value) {
        let body = orders.to_string();
        let (status, answer) = self
            .caller
            .post(&self.control("faults"), &[], body.as_bytes(), MAX_ANSWER)
            .unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }

    /// Whether each fault has struck as often as it was ordered.
    pub fn no_fault_is_left(&self) -> bool {
        let (_, orders) = self.get(&self.control("faults"), &[]);
        let orders = orders.as_array().unwrap();
        orders.iter().all(|order| order["times"] == 0)
    }

    /// Deletes all faults and ends the stalls that they caused.
    pub fn no_faults(&self) {
        let answer = ureq::delete(self.control("faults")).call().unwrap();
        assert_eq!(answer.status(), 200);
    }

    fn get(&self, url: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let (status, body) = self.caller.get(url, headers, MAX_ANSWER).unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub fn sandbox_state(&self) -> Value {
        self.get(&self.control("state"), &[]).1
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut logs: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|it| it == "log"))
            .collect();
        logs.sort();
        for log in logs.iter().rev().take(6).rev() {
            let text = fs::read_to_string(log).unwrap_or_default();
            let from = text.floor_char_boundary(text.len().saturating_sub(SHOWN));
            println!("---- {}\n{}", log.display(), &text[from..]);
        }
        let (_, batches) = self.command(&["batches", "list"]);
        println!("---- batches\n{batches}");
    }
}
