//! What the crash tests share: the real binary as a daemon, another as the simulated OpenAI, both
//! on files that outlive them, a client, and the oracle.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use batchkeeper::clock::{Clock, SystemClock};
use batchkeeper::html::paragraphs;
use batchkeeper::net::Caller;
use batchkeeper::sandbox::{expected_description, expected_translation, image_names};
use batchkeeper::signature::{Key, Message, sign};
use batchkeeper::threads;
use crossbeam_channel::never;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_batchkeeper");
const KEY: &str = "crash-key-of-more-than-sixteen-bytes";
/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(40);
const MAX_ANSWER: u64 = 50_000_000;
/// How much of each log a failing test shows.
const SHOWN: usize = 6_000;

/// Waits in real time.
pub fn pause(time: Duration) {
    never::<()>().recv_timeout(time).unwrap_or_default();
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    let started = clock.now().steady;
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = clock.now().steady.saturating_sub(started);
        assert!(waited < PATIENCE, "waited {waited:?} for {what}");
        pause(Duration::from_millis(2));
    }
}

/// A process of the binary that dies with its owner. What it writes goes to a file of its own.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(args: &[&str], log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let child = Command::new(BINARY)
            .args(args)
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// The first word after `mark` in what it wrote.
    fn told(&mut self, mark: &str) -> String {
        let log = self.log.clone();
        until(mark, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some((_, rest)) = text.split_once(mark) {
                // Only a whole line is what it means.
                let (line, _) = rest.split_once('\n')?;
                let end = line.find([' ', ';']).unwrap_or(line.len());
                return Some(line[..end].to_owned());
            }
            let ended = self.child.try_wait().unwrap();
            assert_eq!(ended, None, "ended instead of saying {mark}:\n{text}");
            None
        })
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    fn ask_to_end(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// The status that it exits with.
    fn end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the end after SIGTERM", || child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

struct Lot {
    id: String,
    info: String,
    images: Vec<String>,
}

/// A job that was answered with 201: it may never be lost.
pub struct Job {
    pub id: String,
    hook: String,
    languages: Vec<String>,
    lots: Vec<Lot>,
}

/// What may differ between tests.
#[derive(Clone, Copy)]
pub struct Options {
    /// How long a batch stays in each state at OpenAI, milliseconds.
    pub pace: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { pace: 40 }
    }
}

/// A daemon and a sandbox on one folder.
pub struct Rig {
    folder: tempfile::TempDir,
    options: Options,
    sandbox: Option<Process>,
    daemon: Option<Process>,
    sandbox_address: String,
    api: String,
    starts: u32,
    /// How often the daemon or the sandbox was killed.
    pub kills: u64,
    pub jobs: Vec<Job>,
    caller: Caller,
    key: Key,
}

/// What must be true of a run at its end, beside what must always be.
#[derive(Clone, Copy, Default)]
pub struct Expected {
    /// Batches; none: as many as the database has.
    pub batches: Option<u64>,
}

impl Rig {
    /// Both started.
    pub fn new(options: Options) -> Self {
        let mut rig = Self::without_daemon(options);
        rig.start();
        rig
    }

    /// The sandbox started, and the configuration written.
    pub fn without_daemon(options: Options) -> Self {
        let mut rig = Self {
            folder: tempfile::tempdir().unwrap(),
            options,
            sandbox: None,
            daemon: None,
            sandbox_address: "127.0.0.1:0".into(),
            api: String::new(),
            starts: 0,
            kills: 0,
            jobs: Vec::new(),
            caller: Caller::new(),
            key: Key::new(KEY).unwrap(),
        };
        rig.start_sandbox();
        fs::write(rig.path("openai.key"), "sk-sandbox\n").unwrap();
        fs::write(rig.path("config.toml"), rig.config()).unwrap();
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> String {
        let retries = vec!["\"200ms\""; 30].join(", ");
        format!(
            "listen = \"127.0.0.1:0\"\nops_listen = \"\"\ndatabase = {:?}\n\n\
             [[clients]]\nname = \"default\"\nkeys = [{KEY:?}]\n\n\
             [openai]\nbase_url = \"http://{}/v1\"\napi_key_file = {:?}\npoll_interval = \"40ms\"\n\
             retry_interval = \"30ms\"\nsettling_time = \"1500ms\"\ncreate_timeout = \"1s\"\nresults_patience = \"3s\"\n\n\
             [batch]\nmax_wait = \"60ms\"\nqueue_pause = \"100ms\"\n\n[images]\ncheck = false\n\n[steps]\nidle = \"50ms\"\n\n\
             [webhooks]\nretries = [{retries}]\ntimeout = \"3s\"\nconcurrency = 2\n\n\
             [network]\nallow_private = [\"127.0.0.0/8\"]\n",
            self.database(),
            self.sandbox_address,
            self.path("openai.key"),
        )
    }

    pub fn database(&self) -> PathBuf {
        self.path("batchkeeper.db")
    }

    fn log(&mut self, of: &str) -> PathBuf {
        self.starts += 1;
        self.path(&format!("{:03}-{of}.log", self.starts))
    }

    // The two processes.

    /// Starts the sandbox, on the same address each time.
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
        let mut sandbox = Process::start(&args, log);
        let url = sandbox.told("the sandbox serves http://");
        self.sandbox_address = url.trim_end_matches("/v1").to_owned();
        self.sandbox = Some(sandbox);
    }

    pub fn kill_sandbox(&mut self) {
        self.kills += 1;
        self.sandbox.take().unwrap().kill();
    }

    /// Starts the daemon, and waits until it serves.
    pub fn start(&mut self) {
        self.start_blindly();
        self.api = self.daemon.as_mut().unwrap().told("what=api address=");
    }

    /// Starts the daemon, and waits for nothing.
    pub fn start_blindly(&mut self) {
        let log = self.log("serve");
        let config = self.path("config.toml");
        let args = ["serve", "--config", config.to_str().unwrap()];
        self.daemon = Some(Process::start(&args, log));
    }

    /// SIGKILL, at whatever it is.
    pub fn kill(&mut self) {
        self.kills += 1;
        self.daemon.take().unwrap().kill();
    }

    /// SIGTERM, and the status that the daemon exits with.
    pub fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.end()
    }

    /// SIGTERM.
    pub fn ask_to_end(&self) {
        self.daemon.as_ref().unwrap().ask_to_end();
    }

    /// The status that the daemon exits with.
    pub fn end(&mut self) -> ExitStatus {
        self.daemon.take().unwrap().end()
    }

    /// What the newest process has said.
    pub fn said(&self) -> String {
        let log = &self.daemon.as_ref().unwrap().log;
        fs::read_to_string(log).unwrap()
    }

    /// Runs a command of the binary beside the daemon: its exit status, and what it wrote.
    pub fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(BINARY)
            .args(args)
            .args(["--config", self.path("config.toml").to_str().unwrap()])
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    // The sandbox's controls.

    fn control(&self, path: &str) -> String {
        format!("http://{}/sandbox/{path}", self.sandbox_address)
    }

    /// Orders faults: a list.
    pub fn faults(&self, orders: &Value) {
        let body = orders.to_string();
        let (status, answer) = self
            .caller
            .post(&self.control("faults"), &[], body.as_bytes(), MAX_ANSWER)
            .unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }

    /// Forgets all faults, and ends what they stalled.
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

    // The client.

    /// A job of so many lots, each unlike any other, that nobody has sent yet.
    fn draft(&self, lots: usize, languages: &[&str]) -> (Job, String) {
        let number = self.jobs.len();
        let lots: Vec<Lot> = (0..lots)
            .map(|lot| Lot {
                id: format!("LOT-{number}-{lot}"),
                info: format!("Job {number}, lot {lot}: the front door shows damage."),
                images: (lot..=lot + lot % 3)
                    .map(|image| {
                        let name = image_names().nth(image % 4).unwrap();
                        format!("http://{}/images/{name}", self.sandbox_address)
                    })
                    .collect(),
            })
            .collect();
        let hook = format!("job-{number}");
        let body = json!({
            "version": "1.0.0",
            "languages": languages,
            "webhook_url": format!("http://{}/hooks/{hook}", self.sandbox_address),
            "lots": lots.iter().map(|lot| json!({
                "lot_id": lot.id,
                "additional_info": lot.info,
                "images": lot.images.iter().map(|url| json!({"url": url})).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        });
        let job = Job {
            id: String::new(),
            hook,
            languages: languages.iter().map(|tag| (*tag).to_owned()).collect(),
            lots,
        };
        (job, body.to_string())
    }

    /// Sends a job of so many lots.
    pub fn submit(&mut self, lots: usize, languages: &[&str]) {
        let (mut job, body) = self.draft(lots, languages);
        job.id = post_job(&self.api, &body).unwrap();
        self.jobs.push(job);
    }

    /// Sends a job and kills the daemon meanwhile. What was answered with 201 must be there after
    /// the next start; what was not may be, but then whole.
    pub fn submit_and_kill(&mut self, lots: usize, languages: &[&str], after: Duration) {
        let (mut job, body) = self.draft(lots, languages);
        let api = self.api.clone();
        let client = threads::spawn("client", move || post_job(&api, &body)).unwrap();
        pause(after);
        self.kill();
        let accepted = client.join().unwrap();
        self.start();
        let of_lot = "SELECT batch_job_id FROM batch_lots WHERE lot_id = ?";
        let stored: Option<String> = self
            .look()
            .query_row(of_lot, [&job.lots[0].id], |row| row.get(0))
            .ok();
        if accepted.is_some() {
            assert_eq!(stored, accepted);
        }
        if let Some(id) = stored {
            job.id = id;
            self.jobs.push(job);
        }
    }

    // The database.

    /// A connection that only looks, and leaves the WAL as the daemon left it.
    pub fn look(&self) -> Connection {
        connect(&self.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// A number that a query gives.
    pub fn number(&self, sql: &str) -> i64 {
        number(&self.look(), sql)
    }

    /// Waits until a query gives a row.
    pub fn wait_for(&self, condition: &str) {
        let database = self.look();
        until(condition, || holds(&database, condition).then_some(()));
    }

    /// Waits until a query gives a row and kills the daemon right there, before it can commit
    /// anything more: the write lock is held while it dies. False when `over` came first.
    pub fn kill_when(&mut self, condition: &str, over: &str) -> bool {
        let mut lock = connect(&self.database(), OpenFlags::SQLITE_OPEN_READ_WRITE);
        // The daemon's transactions follow close upon each other: nobody may sleep between them.
        lock.busy_handler(Some(|_| true)).unwrap();
        let clock = SystemClock::new();
        let started = clock.now().steady;
        let killed = loop {
            if holds(&lock, condition) {
                lock.execute_batch("BEGIN IMMEDIATE").unwrap();
                let there = holds(&lock, condition);
                if there {
                    self.kill();
                }
                lock.execute_batch("ROLLBACK").unwrap();
                if there {
                    break true;
                }
            }
            if holds(&lock, over) {
                break false;
            }
            let waited = clock.now().steady.saturating_sub(started);
            assert!(waited < PATIENCE, "waited {waited:?} for {condition}");
            pause(Duration::from_micros(200));
        };
        assert!(!killed || holds(&lock, condition));
        killed
    }

    /// Puts a copy of the database as it is now beside it.
    pub fn back_up(&self, name: &str) {
        let copy = self.path(name);
        if copy.exists() {
            fs::remove_file(&copy).unwrap();
        }
        let database = self.look();
        database
            .execute("VACUUM INTO ?", [copy.to_str().unwrap()])
            .unwrap();
    }

    /// Takes everything that was planned out of a copy.
    pub fn forget_batches(&self, name: &str) {
        let copy = connect(&self.path(name), OpenFlags::SQLITE_OPEN_READ_WRITE);
        copy.execute_batch(
            "DELETE FROM batch_lines; DELETE FROM batch_links; DELETE FROM events WHERE batch_id IS NOT NULL;
             DELETE FROM openai_batches; UPDATE requests SET state = 'waiting';",
        )
        .unwrap();
    }

    /// Puts the copy in the database's place. Nothing may have it open.
    pub fn restore(&mut self, name: &str) {
        self.forget_database();
        fs::copy(self.path(name), self.database()).unwrap();
        // What was uploaded since is not known any more.
        self.kills += 1;
    }

    pub fn forget_database(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let file = self.path(&format!("batchkeeper.db{suffix}"));
            if file.exists() {
                fs::remove_file(file).unwrap();
            }
        }
    }

    // The oracle.

    /// Whether every job is final.
    pub fn is_done(&self) -> bool {
        self.number("SELECT count(*) FROM batch_jobs WHERE completed_at IS NULL") == 0
    }

    /// Waits until every job is done and told, then checks everything.
    pub fn finish(&self, expected: Expected) {
        self.wait_for(
            "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM batch_jobs WHERE completed_at IS NULL)",
        );
        self.wait_for("SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE state <> 'delivered')");
        self.wait_for(
            "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM openai_batches WHERE state NOT IN ('ingested', 'failed'))",
        );
        let number = |sql| self.number(sql);
        assert_eq!(
            number("SELECT count(*) FROM batch_jobs"),
            i64::try_from(self.jobs.len()).unwrap()
        );
        for job in &self.jobs {
            self.check_results(job);
            self.check_webhook(job);
        }
        assert_eq!(number("SELECT count(*) FROM v_orphans"), 0);
        assert_eq!(
            number("SELECT count(*) FROM alerts WHERE closed_at IS NULL"),
            0
        );
        assert_eq!(number("SELECT count(*) FROM pauses"), 0);
        let (status, findings) = self.command(&["doctor"]);
        assert_eq!(status, Some(0), "{findings}");
        self.check_openai(expected);
        self.check_spool();
    }

    fn check_results(&self, job: &Job) {
        let url = format!("http://{}/api/v1/batch-results/{}", self.api, job.id);
        let signature = sign(&self.key, Message::Bytes(job.id.as_bytes()));
        let (status, answer) = self.get(&url, &[("X-Signature", &signature)]);
        assert_eq!(status, 200, "{answer}");
        check_lots(job, &answer["results"]["lots"]);
    }

    fn check_webhook(&self, job: &Job) {
        let (_, hooks) = self.get(&self.control(&format!("hooks/{}", job.hook)), &[]);
        let deliveries = hooks["deliveries"].as_array().unwrap();
        let mut ids = BTreeSet::new();
        for delivery in deliveries {
            let header = |name: &str| {
                let headers = delivery["headers"].as_array().unwrap();
                let pair = headers.iter().find(|pair| pair[0] == name).unwrap();
                pair[1].as_str().unwrap().to_owned()
            };
            let body = delivery["body"].as_str().unwrap();
            assert_eq!(
                header("x-signature"),
                sign(&self.key, Message::Bytes(body.as_bytes()))
            );
            ids.insert(header("webhook-id"));
            let told: Value = serde_json::from_str(body).unwrap();
            assert_eq!(told["job_id"], json!(job.id));
            assert_eq!(told["event"], "batch_job_completed");
            check_lots(job, &told["lots"]);
        }
        assert_eq!(
            ids.len(),
            1,
            "{} deliveries of {}",
            deliveries.len(),
            job.id
        );
        assert!(deliveries.iter().any(|delivery| delivery["status"] == 200));
    }

    /// Nothing was made or run twice, and what lies about at OpenAI is bounded by the kills.
    fn check_openai(&self, expected: Expected) {
        let state = self.sandbox_state();
        let of = |name: &str| state[name].as_u64().unwrap();
        assert_eq!(state["duplicate_submissions"], json!([]), "{state}");
        assert_eq!(state["flags"], json!([]), "{state}");
        assert_eq!(of("max_answers"), 1, "{state}");
        assert_eq!(of("answered_more_than_once"), 0, "{state}");
        let wanted = self.number("SELECT count(*) FROM requests");
        let wanted = u64::try_from(wanted).unwrap();
        assert_eq!(of("answered"), wanted, "{state}");
        // A line that OpenAI was told to fail is run again, and no other.
        let struck = |fault: &str| state["faults_struck"][fault].as_u64().unwrap_or(0);
        let again = struck("line_500") + struck("line_429");
        assert_eq!(of("executed"), wanted + again, "{state}");
        if again == 0 {
            assert_eq!(of("max_executions"), 1, "{state}");
        }
        let known = self.number("SELECT count(DISTINCT openai_batch_id) FROM openai_batches");
        assert_eq!(of("creates"), u64::try_from(known).unwrap(), "{state}");
        if let Some(batches) = expected.batches {
            assert_eq!(of("creates"), batches, "{state}");
        }
        let uploads = of("uploads");
        assert!(
            uploads
                <= of("creates") + self.kills + struck("lost_upload_reply") + struck("lost_reply"),
            "{uploads} uploads, {} kills: {state}",
            self.kills
        );
    }

    /// No input and no result stays behind when its batch is through.
    fn check_spool(&self) {
        let left: Vec<_> = fs::read_dir(self.path("spool"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "the spool holds {left:?}");
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

/// The id of the job, where it was accepted.
fn post_job(api: &str, body: &str) -> Option<String> {
    let key = Key::new(KEY).unwrap();
    let signature = sign(&key, Message::Bytes(body.as_bytes()));
    let url = format!("http://{api}/api/v1/generate-descriptions");
    let headers = [("X-Signature", signature.as_str())];
    let (status, answer) = Caller::new()
        .post(&url, &headers, body.as_bytes(), MAX_ANSWER)
        .ok()?;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(status, 201, "{answer}");
    Some(answer["job_id"].as_str().unwrap().to_owned())
}

fn check_lots(job: &Job, lots: &Value) {
    let lots = lots.as_array().unwrap();
    assert_eq!(lots.len(), job.lots.len());
    for (lot, told) in job.lots.iter().zip(lots) {
        assert_eq!(told["lot_id"], json!(lot.id));
        assert_eq!(told["status"], "completed", "{told}");
        let images: Vec<&str> = lot.images.iter().map(String::as_str).collect();
        let english = expected_description(&lot.info, &images);
        let expected: Vec<Value> = job
            .languages
            .iter()
            .map(|language| {
                let text = match language.as_str() {
                    "en" => english.clone(),
                    other => expected_translation(&english, other),
                };
                json!({"language": language, "damages": paragraphs(&text)})
            })
            .collect();
        assert_eq!(told["descriptions"], json!(expected), "{}", lot.id);
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Connection {
    let connection = Connection::open_with_flags(path, flags).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    connection
}

fn holds(database: &Connection, condition: &str) -> bool {
    database
        .prepare_cached(condition)
        .unwrap()
        .exists([])
        .unwrap()
}

fn number(database: &Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}
