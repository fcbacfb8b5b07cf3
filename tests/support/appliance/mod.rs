//! The real program as its users run it. A sandbox and a daemon run as processes of their own, and
//! the tests call them over HTTP. Both are killed when the [`Appliance`] is dropped.
#![allow(dead_code, reason = "each test file uses the part of it that it needs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "clippy does not count the helpers of an integration test as tests"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use batchkeeper::base::clock::{Clock, SystemClock, Timestamp};
use batchkeeper::base::thread_group;
use batchkeeper::domain::html::paragraphs;
use batchkeeper::domain::signature::{Key, Message, sign};
use batchkeeper::sandbox::{expected_description, expected_translation};
use crossbeam_channel::{never, unbounded};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The key of the client `default`.
pub const KEY: &str = "the key of these tests, 16 bytes or more";
/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_mins(5);
/// The pause between two checks of a condition.
const LOOK: Duration = Duration::from_millis(15);

pub static CLOCK: LazyLock<SystemClock> = LazyLock::new(SystemClock::new);

/// The time now.
pub fn now() -> Timestamp {
    CLOCK.now().wall
}

/// The default client's key.
pub fn key() -> Key {
    Key::new(KEY).unwrap()
}

/// The default client's signature over `bytes`.
pub fn sign_bytes(bytes: &[u8]) -> String {
    sign(&key(), Message::Bytes(bytes))
}

/// Calls `look` until it returns a value. `what` names the value in the failure.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = CLOCK.now().steady;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            CLOCK.now().steady - started < PATIENCE,
            "waited {PATIENCE:?} for {what}"
        );
        // The channel never receives anything: this is a sleep.
        never::<()>().recv_timeout(LOOK).ok();
    }
}

/// An HTTP response.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Sends one request. The client adds no headers beyond those that HTTP requires.
pub fn call(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(PATIENCE));
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let agent = config.build().new_agent();
    let answer = if body.is_empty() && matches!(method, "GET" | "DELETE") {
        agent.run(request.body(()).unwrap())
    } else {
        agent.run(request.body(body).unwrap())
    };
    let answer = answer.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let text = |value: &ureq::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
    let headers = answer.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), text(value)));
    Answer {
        status: answer.status().as_u16(),
        headers: headers.collect(),
        body: answer.into_body().read_to_vec().unwrap(),
    }
}

/// A child process and the lines that it printed.
struct Process {
    child: Child,
    printed: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    name: &'static str,
}

impl Process {
    /// Starts the program and returns the first `wanted` texts that `found` picks from its lines.
    fn start(
        name: &'static str,
        command: &mut Command,
        wanted: usize,
        found: fn(&str) -> Option<&str>,
    ) -> (Self, Vec<String>) {
        let mut child = program(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = unbounded();
        let pipes: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        let readers = pipes.map(|pipe| {
            let (printed, sender) = (printed.clone(), sender.clone());
            thread_group::spawn_ungrouped(name, move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if let Some(found) = found(&line) {
                        sender.send(found.to_owned()).ok();
                    }
                    printed.lock().unwrap().push(line);
                }
            })
            .unwrap()
        });
        let process = Self {
            child,
            printed,
            readers: readers.into(),
            name,
        };
        drop(sender);
        let found = (0..wanted).map(|_| {
            receiver
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("{name} printed: {:?}", process.printed.lock()))
        });
        let found = found.collect();
        (process, found)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let printed = self.printed.lock().unwrap();
            let last = printed.len().saturating_sub(80);
            eprintln!("--- {}\n{}", self.name, printed[last..].join("\n"));
        }
    }
}

fn program(command: &mut Command) -> &mut Command {
    command.env_remove("RUST_LOG").env_remove("OPENAI_API_KEY")
}

/// The output of a command and its exit status.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// A sandbox and a daemon that uses the sandbox as OpenAI.
pub struct Appliance {
    pub sandbox: String,
    pub api: String,
    pub ops: String,
    /// The daemon's limit of open file descriptors; `None` keeps the system's limit.
    pub descriptors: Option<u64>,
    daemon: Option<Process>,
    _sandbox: Process,
    folder: TempDir,
}

impl Appliance {
    /// Starts both with the test configuration.
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts both. `config` (TOML) is added to the test configuration and overrides it.
    pub fn with(config: &str) -> Self {
        let mut appliance = Self::without_daemon(config);
        appliance.start_daemon();
        appliance
    }

    /// Starts the sandbox alone, and writes the daemon's configuration.
    pub fn without_daemon(config: &str) -> Self {
        Self::beside_sandbox(&[], config)
    }

    /// The same as [`Appliance::without_daemon`], with command-line options for the sandbox.
    pub fn beside_sandbox(options: &[&str], config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchkeeper"));
        command.args(["sandbox", "--listen", "127.0.0.1:0", "--pace", "fast"]);
        command.arg("--state").arg(folder.path().join("sandbox"));
        command.args(options);
        let (sandbox, found) = Process::start("sandbox", &mut command, 1, |line| {
            let rest = line.strip_prefix("the sandbox serves ")?;
            rest.split_once("/v1").map(|(address, _)| address)
        });
        let appliance = Self {
            sandbox: found.into_iter().next().unwrap(),
            api: String::new(),
            ops: String::new(),
            descriptors: None,
            daemon: None,
            _sandbox: sandbox,
            folder,
        };
        std::fs::write(appliance.path("openai.key"), "sk-sandbox\n").unwrap();
        appliance.configure(config);
        appliance
    }

    /// Rewrites the configuration file. The next start of the daemon reads it.
    pub fn configure(&self, config: &str) {
        let mut table: toml::Table = toml::from_str(&format!(
            r#"
            listen = "127.0.0.1:0"
            ops_listen = "127.0.0.1:0"
            database = {database:?}
            [[clients]]
            name = "default"
            keys = [{KEY:?}]
            [openai]
            base_url = "{sandbox}/v1"
            api_key_file = {key_file:?}
            poll_interval = "20ms"
            retry_interval = "20ms"
            create_timeout = "20s"
            settling_time = "30s"
            results_timeout = "700ms"
            [batch]
            max_wait = "150ms"
            queue_backoff = "60ms"
            retry_period = "300ms"
            [images]
            concurrency = 8
            [synchronous]
            enabled = false
            [webhooks]
            retry_delays = ["40ms", "80ms", "160ms", "320ms"]
            concurrency = 2
            [network]
            allow_private = ["127.0.0.0/8"]
            [limits]
            submit = 0
            read = 0
            dedupe_window = 0
            disk_reserve = 0
            [steps]
            idle = "20ms"
            "#,
            database = self.database(),
            key_file = self.path("openai.key"),
            sandbox = self.sandbox,
        ))
        .unwrap();
        merge(&mut table, toml::from_str(config).unwrap());
        std::fs::write(self.config(), toml::to_string(&table).unwrap()).unwrap();
    }

    pub fn start_daemon(&mut self) {
        self.start_daemon_with(&[]);
    }

    /// Starts the daemon with additional environment variables.
    pub fn start_daemon_with(&mut self, environment: &[(&str, &str)]) {
        let program = env!("CARGO_BIN_EXE_batchkeeper");
        let mut command = match self.descriptors {
            None => Command::new(program),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -S -n {most}; exec \"$0\" \"$@\""), program]);
                shell
            }
        };
        command.arg("serve").arg("--config").arg(self.config());
        command.envs(environment.iter().copied());
        let (daemon, found) = Process::start("daemon", &mut command, 2, |line| {
            match line.split_once("event=listening what=") {
                Some((_, rest)) => rest.split_once("address=").map(|(_, address)| address),
                // The JSON log format.
                None if line.contains("\"event\":\"listening\"") => {
                    let (_, address) = line.split_once("\"address\":\"")?;
                    address.split('"').next()
                }
                None => None,
            }
        });
        self.daemon = Some(daemon);
        self.api = format!("http://{}", found[0]);
        self.ops = format!("http://{}", found[1]);
    }

    /// Kills the daemon as a power failure would.
    pub fn kill_daemon(&mut self) {
        self.daemon = None;
    }

    /// Whether the daemon has printed `what` so far.
    pub fn daemon_said(&self, what: &str) -> bool {
        let daemon = self.daemon.as_ref().unwrap();
        let printed = daemon.printed.lock().unwrap();
        printed.iter().any(|line| line.contains(what))
    }

    /// Waits until the daemon exits by itself. Returns its exit status and the lines that it
    /// printed.
    pub fn daemon_ended(&mut self) -> (i32, Vec<String>) {
        let mut daemon = self.daemon.take().unwrap();
        let status = wait_for("the daemon's end", || daemon.child.try_wait().unwrap());
        for reader in std::mem::take(&mut daemon.readers) {
            reader.join().unwrap();
        }
        let said = daemon.printed.lock().unwrap().clone();
        (status.code().unwrap(), said)
    }

    /// The daemon's process id.
    pub fn daemon_id(&self) -> u32 {
        self.daemon.as_ref().unwrap().child.id()
    }

    /// Everything that the daemon has printed, mostly its log.
    pub fn printed(&self) -> String {
        let printed = &self.daemon.as_ref().unwrap().printed;
        printed.lock().unwrap().join("\n")
    }

    /// The daemon's peak memory, in kB.
    pub fn peak_memory(&self) -> u64 {
        self.process_status("VmHWM:")
    }

    /// The daemon's resident memory, in kB.
    pub fn resident_memory(&self) -> u64 {
        self.process_status("VmRSS:")
    }

    /// The number of the daemon's threads.
    pub fn threads(&self) -> u64 {
        self.process_status("Threads:")
    }

    fn process_status(&self, name: &str) -> u64 {
        let id = self.daemon_id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("batchkeeper.db")
    }

    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// Runs a command of the program while the daemon runs.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    /// Runs a command with additional environment variables.
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchkeeper"));
        command.args(arguments).arg("--config").arg(self.config());
        command.envs(environment.iter().copied());
        let output = program(&mut command).output().unwrap();
        Ran {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Calls `submit`, and holds its requests back until all images are checked. The requests then
    /// go into one batch, even if the checks are slow.
    pub fn in_one_batch<T>(&self, submit: impl FnOnce() -> T) -> T {
        assert_eq!(self.run(&["pause", "submissions"]).status, 0);
        let submitted = submit();
        self.wait_until_images_are_checked();
        assert_eq!(self.run(&["resume", "submissions"]).status, 0);
        submitted
    }

    pub fn wait_until_images_are_checked(&self) {
        wait_for("the checks of the images", || {
            let unchecked = "SELECT count(*) FROM requests WHERE images_due = 1 AND state = 'waiting'";
            (self.cell::<i64>(unchecked) == 0).then_some(())
        });
    }

    // Calls of the sandbox.

    pub fn image(&self, name: &str) -> String {
        format!("{}/images/{name}", self.sandbox)
    }

    pub fn hook(&self, name: &str) -> String {
        format!("{}/hooks/{name}", self.sandbox)
    }

    pub fn fault(&self, order: &Value) {
        let url = format!("{}/sandbox/faults", self.sandbox);
        let answer = call("POST", &url, &[], order.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.json());
    }

    pub fn clear_faults(&self) {
        call("DELETE", &format!("{}/sandbox/faults", self.sandbox), &[], b"");
    }

    pub fn seed(&self, batch: &Value) {
        let url = format!("{}/sandbox/batches/seed", self.sandbox);
        let answer = call("POST", &url, &[], batch.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.json());
    }

    pub fn state(&self) -> Value {
        call("GET", &format!("{}/sandbox/state", self.sandbox), &[], b"").json()
    }

    /// The deliveries that a webhook sink received, once there are `count` of them.
    pub fn delivered(&self, name: &str, count: usize) -> Vec<Value> {
        let url = format!("{}/sandbox/hooks/{name}", self.sandbox);
        wait_for(&format!("delivery {count} to {name}"), || {
            let hooks = call("GET", &url, &[], b"").json();
            let hooks = hooks["deliveries"].as_array().unwrap();
            (hooks.len() >= count).then(|| hooks.clone())
        })
    }

    // Calls of a client.

    /// Lots with a text and two images each.
    pub fn lots(&self, count: usize) -> Vec<Value> {
        let names = ["truck.jpg", "rocket.jpg", "flower.jpg", "china.jpg"];
        let lot = |number: usize| {
            json!({
                "lot_id": format!("LOT-{number:04}"),
                "additional_info": format!("{} Volvo V70, <dent> & \"scratch\" no. {number}, не бит", 1990 + number),
                "images": [{"url": self.image(names[number % 4])}, self.image(names[(number + 1) % 4])],
            })
        };
        (0..count).map(lot).collect()
    }

    /// Posts a signed submission.
    pub fn submit(&self, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = sign_bytes(body.as_bytes());
        self.post(&[("X-Signature", &signature)], body.as_bytes())
    }

    /// Posts a submission with these headers.
    pub fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let url = format!("{}/api/v1/generate-descriptions", self.api);
        call("POST", &url, headers, body)
    }

    /// Submits a job that must be accepted, and returns its id.
    pub fn job(&self, lots: &[Value], languages: &[&str]) -> String {
        let answer = self.submit(&submission(lots, languages));
        assert_eq!(answer.status, 201, "{}", answer.json());
        answer.json()["job_id"].as_str().unwrap().to_owned()
    }

    /// Reads `path` of a job with a signed request.
    pub fn read(&self, path: &str, job: &str) -> Answer {
        let signature = sign_bytes(job.as_bytes());
        call(
            "GET",
            &format!("{}{path}", self.api),
            &[("X-Signature", &signature)],
            b"",
        )
    }

    pub fn status(&self, job: &str) -> Value {
        let answer = self.read(&format!("/api/v1/batch-status/{job}"), job);
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()
    }

    /// Waits until the job is final and returns its status.
    pub fn ended(&self, job: &str) -> Value {
        wait_for("the job's end", || {
            let status = self.status(job);
            (!status["completed_at"].is_null()).then_some(status)
        })
    }

    /// Waits until the job completes and returns its results.
    pub fn results(&self, job: &str) -> Value {
        let status = self.ended(job);
        assert_eq!(status["status"], "completed", "{status}");
        self.read(&format!("/api/v1/batch-results/{job}"), job).json()
    }

    // Reads of the database.

    /// The first column of the first row of a query.
    pub fn cell<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        open(&self.database())
            .query_row(sql, [], |row| row.get(0))
            .unwrap()
    }

    /// The first row of a query.
    pub fn row(&self, sql: &str) -> Vec<Value> {
        let database = open(&self.database());
        let mut query = database.prepare(sql).unwrap();
        let columns = query.column_count();
        let cell = |row: &rusqlite::Row<'_>, at| match row.get_ref(at).unwrap() {
            rusqlite::types::ValueRef::Integer(number) => json!(number),
            rusqlite::types::ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
            _ => Value::Null,
        };
        query
            .query_row([], |row| Ok((0..columns).map(|at| cell(row, at)).collect()))
            .unwrap()
    }

    /// Every row of every table as text, to compare two moments.
    pub fn dump(&self) -> String {
        let tables = open(&self.database());
        let mut names = tables
            // The counts of successful calls grow with each listing of OpenAI's batches, and commands write down who ran
            // them, whatever they change.
            .prepare(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('call_kinds', 'operator_actions') ORDER BY name",
            )
            .unwrap();
        let names = names.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let mut dump = String::new();
        for name in names.map(Result::unwrap) {
            let mut query = tables.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
            // What the daemon notes of its last comparison with OpenAI changes after each start.
            let changing = ["compared_at", "listed_until", "clock_confirmed_at"];
            let names = query.column_names().enumerate();
            let kept: Vec<usize> = names
                .filter(|(_, name)| !changing.contains(name))
                .map(|(at, _)| at)
                .collect();
            let mut rows = query.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let cells = kept.iter().map(|at| format!("{:?}", row.get_ref(*at).unwrap()));
                dump.push_str(&format!("{name}: {}\n", cells.collect::<Vec<_>>().join(" ")));
            }
        }
        dump
    }

    /// Waits until every batch is ingested. After that, nothing changes any more without a new
    /// call.
    pub fn wait_until_ingested(&self) {
        let live = "SELECT count(*) FROM openai_batches WHERE state NOT IN ('ingested', 'failed')";
        wait_for("every batch to be ingested", || {
            (self.cell::<i64>(live) == 0).then_some(())
        });
    }

    /// Checks that `doctor` and the sandbox report no fault, that no row is an orphan, and that no
    /// answered request was submitted to the sandbox again.
    pub fn assert_sound(&self) {
        self.wait_until_ingested();
        let doctor = self.run(&["doctor"]);
        assert_eq!(doctor.status, 0, "{}{}", doctor.out, doctor.err);
        assert_eq!(self.cell::<i64>("SELECT count(*) FROM v_orphans"), 0);
        let state = self.state();
        assert_eq!(state["answered_more_than_once"], 0, "{state}");
        assert_eq!(state["duplicate_submissions"], json!([]), "{state}");
        assert_eq!(state["flags"], json!([]), "{state}");
    }
}

fn open(path: &Path) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    rusqlite::Connection::open_with_flags(path, flags).unwrap()
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (name, value) in from {
        match (into.get_mut(&name), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(name, value);
            }
        }
    }
}

/// The body of a submission.
pub fn submission(lots: &[Value], languages: &[&str]) -> Value {
    json!({"version": "1.0.0", "languages": languages, "lots": lots})
}

/// The expected description of a lot. `missing`: the URLs that the daemon leaves out.
pub fn described(lot: &Value, missing: &[String]) -> String {
    let images = lot["images"].as_array().unwrap().iter();
    let images: Vec<&str> = images
        .filter_map(|image| image.as_str().or_else(|| image["url"].as_str()))
        .filter(|url| !missing.iter().any(|missing| missing == url))
        .collect();
    expected_description(lot["additional_info"].as_str().unwrap_or(""), &images)
}

/// The expected `descriptions` of a lot whose English text is `text`.
pub fn in_languages(text: &str, languages: &[&str]) -> Value {
    let html = |language: &str| match language {
        "en" => paragraphs(text),
        other => paragraphs(&expected_translation(text, other)),
    };
    languages
        .iter()
        .map(|language| json!({"language": language, "damages": html(language)}))
        .collect()
}

/// Checks a job's results against its submission. Lots at the positions in `but` are not checked.
pub fn assert_results(results: &Value, lots: &[Value], languages: &[&str], but: &[usize]) {
    let found = results["results"]["lots"].as_array().unwrap();
    assert_eq!(found.len(), lots.len());
    for (position, (sent, found)) in lots.iter().zip(found).enumerate() {
        assert_eq!(found["lot_id"], sent["lot_id"]);
        if but.contains(&position) {
            continue;
        }
        assert_eq!(found["status"], "completed", "{found}");
        assert_eq!(found["error_message"], Value::Null);
        assert_eq!(found["missing_images"], json!([]));
        assert_eq!(
            found["descriptions"],
            in_languages(&described(sent, &[]), languages),
            "{found}"
        );
    }
}
