//! A world for the steps: the real store on a real file, a clock that is moved by hand, an OpenAI
//! in memory. One thread, no real time, no chance but from a seed: a run can be had again.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test file uses its part; a test that cannot go on has failed"
)]

pub mod life;
pub mod openai;
pub mod random;
pub mod receiver;
pub mod sabotage;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use batchkeeper::api::idempotency::{IdempotencyKeys, Replay};
use batchkeeper::api::submit::accept::{CheckedSubmission, Refusal, SubmissionOutcome, accept};
use batchkeeper::base::clock::{Clock, Moment, Timestamp};
use batchkeeper::config::Config;
use batchkeeper::domain::batch::BatchState;
use batchkeeper::domain::job::{JobStatus, LotStatus, Mode, NewLot, Submission, is_english};
use batchkeeper::openai::BatchApi;
use batchkeeper::recovery::{Recovery, RecoveryError};
use batchkeeper::store::batches::BatchRow;
use batchkeeper::store::jobs::{self, JobRow};
use batchkeeper::store::lots::{self, LotFilter, LotRow};
use batchkeeper::store::{
    Store, StoreError, Watcher, batches, cancel, inspect, money, retry, synchronous_calls,
    webhook_deliveries,
};
use batchkeeper::workers::auditor::Auditor;
use batchkeeper::workers::finisher::Finisher;
use batchkeeper::workers::ingester::Ingester;
use batchkeeper::workers::poller::Poller;
use batchkeeper::workers::remote_cleanup::RemoteCleanup;
use batchkeeper::workers::retention::Retention;
use batchkeeper::workers::submitter::Submitter;
use batchkeeper::workers::synchronous::SynchronousCaller;
use batchkeeper::workers::webhook_sender::WebhookSender;
use batchkeeper::workers::worker::{TickOutcome, Worker};
use rusqlite::Connection;
use rusqlite::types::Value;

use openai::{Crash, OpenAi, described, translated};
use random::Random;
use receiver::Receiver;
use sabotage::Bug;

/// When the world begins.
const BEGINNING: i64 = 1_795_400_000_000;
/// Where OpenAI is.
pub const OPENAI: &str = "https://api.openai.test/v1";
/// Rounds of all steps without time moving: more is an endless loop.
const MOST_ROUNDS: u32 = 5000;

/// A clock that stands until it is moved.
pub struct HandClock(Mutex<Moment>);

impl HandClock {
    fn new() -> Self {
        Self(Mutex::new(Moment {
            wall: Timestamp::from_millis(BEGINNING),
            steady: Duration::ZERO,
        }))
    }

    /// Time goes on.
    fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap();
        now.wall = now.wall + by;
        now.steady += by;
    }

    /// Somebody sets the wall clock.
    fn set(&self, wall: Timestamp) {
        self.0.lock().unwrap().wall = wall;
    }

    /// A new process: the steady clock starts anew.
    fn restart(&self) {
        self.0.lock().unwrap().steady = Duration::ZERO;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Moment {
        *self.0.lock().unwrap()
    }
}

/// The four steps between intake and courier.
pub const STEPS: &[&str] = &["submitter", "poller", "ingester", "finisher"];
/// Every step of the daemon, apart from the look at images.
pub const ALL_STEPS: &[&str] = &[
    "submitter",
    "poller",
    "ingester",
    "finisher",
    "direct",
    "courier",
    "auditor",
    "janitor",
    "retention",
];

/// What came of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticked {
    Did(TickOutcome),
    /// It could not go on for now.
    Troubled,
    /// The process ended in it; it has been started again.
    Crashed,
}

/// See the module.
pub struct World {
    pub config: Arc<Config>,
    pub openai: Arc<OpenAi>,
    pub clock: Arc<HandClock>,
    /// Batches that no row may know are expected: the store is older than the world.
    pub is_restored: bool,
    /// Jobs of which requests are held are expected: what the original works on, a copy does not.
    pub is_copy: bool,
    /// Simulated time since the beginning.
    pub elapsed: Duration,
    /// The steps that take turns.
    pub turns: &'static [&'static str],
    /// After so many changes of the database all invariants are looked at.
    pub check_every: u32,
    /// Who takes the webhooks.
    pub receiver: Arc<Receiver>,
    /// Whether the process ends at a commit, by chance: of a thousand commits so many times.
    pub commit_crashes: Arc<Mutex<(Random, u64)>>,
    /// OpenAI as the program sees it.
    api: Arc<dyn BatchApi>,
    bug: Option<Bug>,
    /// What people and chance did to it, for whoever has to find out.
    story: Vec<String>,
    unchecked: u32,
    running: Option<Running>,
    /// The next change of some rows ends the process.
    power_cut: bool,
    /// What was submitted: by job, the lots' texts.
    sent: BTreeMap<String, Vec<String>>,
    orders: Vec<Order>,
    /// Orders ever made: no key is used twice.
    made_orders: u32,
    /// How often an operator has sent the failed lots of a job again, or has tried to.
    retried: BTreeMap<String, usize>,
    sql: Connection,
    seen_version: i64,
    folder: tempfile::TempDir,
}

/// What a client has sent, under a key of its own.
struct Order {
    client: String,
    key: String,
    job: String,
}

/// What a crash takes away.
struct Running {
    store: Arc<Store>,
    steps: Vec<Box<dyn Worker>>,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a configuration that differs from the usual one.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        // In memory where that can be had: each commit waits for the disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a folder");
        let mut config = Config::parse(
            "[[clients]]\nname = \"a\"\nkeys = [\"0123456789abcdef0123\"]\n\
             [[clients]]\nname = \"b\"\nkeys = [\"0123456789abcdef0123\"]\n",
        )
        .expect("a configuration");
        config.database = folder.path().join("batchkeeper.db");
        config.images.check = false;
        // The real disk is no part of a world.
        config.limits.disk_reserve = 0;
        config.batch.max_wait = Duration::from_secs(10);
        config.steps.idle = Duration::from_secs(20);
        config.openai.base_url = OPENAI.into();
        change(&mut config);
        std::fs::create_dir(config.spool()).expect("a spool");
        let clock = Arc::new(HandClock::new());
        std::fs::write(&config.database, new_database(clock.now().wall)).expect("a database");
        let sql = look_into(&config.database);
        let openai = Arc::new(OpenAi::new(&config.openai.base_url));
        let mut world = Self {
            api: openai.clone(),
            openai,
            config: Arc::new(config),
            clock,
            is_restored: false,
            is_copy: false,
            elapsed: Duration::ZERO,
            turns: STEPS,
            check_every: 1,
            receiver: Arc::default(),
            commit_crashes: Arc::new(Mutex::new((Random::new(0), 0))),
            bug: None,
            story: Vec::new(),
            unchecked: 0,
            running: None,
            power_cut: false,
            sent: BTreeMap::new(),
            orders: Vec::new(),
            made_orders: 0,
            retried: BTreeMap::new(),
            sql,
            seen_version: -1,
            folder,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let now = self.clock.now().wall;
        let store = Store::open(&self.config.database, now).expect("a store");
        let released = store.write(now, |tx| {
            money::set_prices(tx, &self.config.prices())?;
            batches::clear_compared(tx)?;
            webhook_deliveries::release_unfinished(tx)?;
            synchronous_calls::release_unfinished(tx)
        });
        released.expect("a write");
        let store = Arc::new(store.watched(self.watcher()));
        let api = || Arc::clone(&self.api);
        let config = || Arc::clone(&self.config);
        let steps: Vec<Box<dyn Worker>> = vec![
            Box::new(Submitter::new(store.clone(), api(), config())),
            Box::new(Poller::new(store.clone(), api(), config())),
            Box::new(Ingester::new(store.clone(), api(), config())),
            Box::new(Finisher::new(store.clone(), config())),
            Box::new(SynchronousCaller::new(
                store.clone(),
                self.openai.clone(),
                self.clock.clone(),
                config(),
            )),
            Box::new(WebhookSender::new(
                store.clone(),
                self.receiver.clone(),
                self.clock.clone(),
                config(),
            )),
            Box::new(Auditor::new(store.clone(), api(), config())),
            Box::new(RemoteCleanup::new(store.clone(), api(), config())),
            Box::new(Retention::new(store.clone(), config())),
        ];
        self.running = Some(Running { store, steps });
        self.unchecked = self.check_every;
    }

    /// Ends the process at a commit, before or after it.
    fn watcher(&self) -> Watcher {
        let chance = self.commit_crashes.clone();
        Box::new(move |_| {
            let ends = {
                let (random, permille) = &mut *chance.lock().unwrap();
                *permille > 0 && random.chance(*permille)
            };
            if ends {
                resume_unwind(Box::new(Crash));
            }
        })
    }

    /// From now on the program has that bug.
    pub fn sabotage(&mut self, bug: Bug) {
        self.bug = Some(bug);
        self.api = sabotage::api(bug, self.openai.clone());
        self.crash();
    }

    /// Does something that the process may end in; none: it has, and has been started again.
    pub fn survive<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| act(self))) {
            Ok(done) => Some(done),
            Err(thrown) if thrown.is::<Crash>() => {
                self.crash();
                None
            }
            Err(thrown) => resume_unwind(thrown),
        }
    }

    fn tell(&mut self, what: &str) {
        let (at, made) = (self.elapsed, self.made());
        self.story
            .push(format!("{at:?} with {made} batches at OpenAI: {what}"));
    }

    /// The process ends, at once, and is started again.
    pub fn crash(&mut self) {
        self.tell("crash");
        self.running = None;
        self.power_cut = false;
        self.execute("DROP TRIGGER IF EXISTS power_cut")
            .expect("dropped");
        self.clock.restart();
        self.start();
    }

    /// The power fails when one of a table's rows is next changed so (`INSERT` or `UPDATE`): that
    /// transaction is lost, those before it are not.
    pub fn cut_power(&mut self, change: &str, table: &str) {
        self.execute(&format!(
            "DROP TRIGGER IF EXISTS power_cut;
             CREATE TRIGGER power_cut BEFORE {change} ON {table} BEGIN SELECT RAISE(ABORT, 'the power fails'); END"
        ))
        .expect("a trigger");
        self.power_cut = true;
    }

    /// Whether the next change may end the process.
    pub fn is_power_failing(&self) -> bool {
        self.power_cut
    }

    /// A crash, and a start with another configuration, or another OpenAI.
    pub fn restart_with(&mut self, openai: Arc<OpenAi>, change: impl FnOnce(&mut Config)) {
        self.running = None;
        let mut config = Config::clone(&self.config);
        change(&mut config);
        self.config = Arc::new(config);
        self.api = openai.clone();
        self.openai = openai;
        self.clock.restart();
        self.start();
    }

    pub fn store(&self) -> &Store {
        &self.running.as_ref().expect("it runs").store
    }

    // Time.

    /// Time goes on, everywhere.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.elapsed += by;
        let mut openai = self.openai.state();
        openai.now += by;
        openai.advance();
    }

    /// Somebody sets our wall clock by so many milliseconds; OpenAI's and the steady one go on as
    /// they were.
    pub fn shift_clock(&mut self, millis: i64) {
        self.tell(&format!("the clock is set by {} s", millis / 1000));
        let now = self.clock.now().wall.millis();
        self.clock.set(Timestamp::from_millis(now + millis));
    }

    // Work.

    /// Submits a job of the first client; its lots are known by their texts.
    pub fn submit(&mut self, lots: &[&str], languages: &[&str]) -> String {
        self.submit_as("a", lots, languages)
    }

    pub fn submit_as(&mut self, client: &str, lots: &[&str], languages: &[&str]) -> String {
        self.submit_in(Mode::Batch, client, lots, languages)
    }

    /// The same, to be answered so.
    pub fn submit_in(
        &mut self,
        mode: Mode,
        client: &str,
        lots: &[&str],
        languages: &[&str],
    ) -> String {
        let submission = Submission {
            languages: languages.iter().map(|tag| (*tag).to_owned()).collect(),
            webhook_url: Some("https://client.test/hook".into()),
            lots: lots
                .iter()
                .enumerate()
                .map(|(number, text)| NewLot {
                    lot_id: format!("lot-{number}").into(),
                    additional_info: (*text).into(),
                    images: vec!["https://images.test/1.jpg".into()],
                    unusable: Vec::new(),
                    webhook_url: None,
                })
                .collect(),
        };
        let order = self.orders.len();
        self.made_orders += 1;
        self.orders.push(Order {
            client: client.to_owned(),
            key: format!("order {}", self.made_orders),
            job: String::new(),
        });
        let id = self.send(order, &submission, mode);
        self.orders[order].job.clone_from(&id);
        let lots = lots.iter().map(|text| (*text).to_owned()).collect();
        self.sent.insert(id.clone(), lots);
        id
    }

    /// A client sends a submission under its key until it has an answer; gives the job's id.
    fn send(&mut self, order: usize, submission: &Submission<'_>, mut mode: Mode) -> String {
        let Order { client, key, .. } = &self.orders[order];
        let (client, key) = (client.clone(), key.clone());
        let keys = IdempotencyKeys {
            header: Some(key.clone()),
            ..IdempotencyKeys::default()
        };
        loop {
            let now = self.clock.now().wall;
            let outcome = self.survive(|world| {
                let checked = CheckedSubmission {
                    client: &client,
                    submission,
                    keys: &keys,
                    content_sha256: &key,
                    mode,
                };
                let answer = |job: &JobRow| serde_json::json!(job.id);
                let (store, config) = (world.store(), &world.config);
                accept(store, config, &checked, |_| true, answer, now)
            });
            match outcome.map(|outcome| outcome.expect("accepted")) {
                Some(SubmissionOutcome::Accepted(job, _)) => return job.id,
                Some(SubmissionOutcome::Repeated(Replay::Answer(answer))) => {
                    return serde_json::from_str(&answer).expect("a job's id");
                }
                // A synchronous job over its budget is refused; as a batch job it may wait.
                Some(SubmissionOutcome::Refused(Refusal::OverBudget { .. }))
                    if mode == Mode::Synchronous =>
                {
                    mode = Mode::Batch;
                }
                Some(other) => panic!("{other:?}"),
                // The process ended in it: the client does not know what of it is stored.
                None => {}
            }
        }
    }

    /// A client that has its answer sends the same once more: it is the same job.
    pub fn repeat(&mut self, order: usize) {
        let nothing = Submission {
            languages: vec!["en".into()],
            webhook_url: None,
            lots: Vec::new(),
        };
        let id = self.send(order, &nothing, Mode::Batch);
        assert_eq!(id, self.orders[order].job, "a repeat is another job");
    }

    /// What clients have sent so far.
    pub fn orders(&self) -> usize {
        self.orders.len()
    }

    /// A client takes its job back; one that is final stays what it is.
    pub fn cancel(&mut self, job: &str) {
        let now = self.clock.now().wall;
        self.survive(|world| {
            let store = world.store();
            store
                .write(now, |tx| match jobs::by_id(tx, job)? {
                    Some(job) if !job.status.is_final() => cancel::cancel(tx, &job, "taken back"),
                    _ => Ok(()),
                })
                .expect("cancelled");
        });
        self.look_everywhere();
    }

    /// An operator's `jobs retry --failed-lots`, refused where it is not to be had.
    pub fn retry_failed_lots(&mut self, job: &str) {
        let now = self.clock.now().wall;
        let check = self.config.images.check;
        let retried = self.survive(|world| {
            world.store().write(now, |tx| match jobs::by_id(tx, job)? {
                Some(job) => retry::retry_failed_lots(tx, &job, check).map(|cost| cost.lots > 0),
                None => Ok(false),
            })
        });
        match retried {
            Some(Ok(true)) => *self.retried.entry(job.to_owned()).or_default() += 1,
            None => *self.retried.entry(job.to_owned()).or_default() += 1,
            Some(Ok(false) | Err(StoreError::Conflict(_))) => {}
            Some(Err(error)) => panic!("retry: {error}"),
        }
        self.look_everywhere();
    }

    /// A job by chance; none before the first.
    pub fn any_job(&self, random: &mut Random) -> Option<String> {
        let jobs: Vec<&String> = self.sent.keys().collect();
        let count = u64::try_from(jobs.len()).unwrap_or(0);
        let at = usize::try_from(random.below(count.max(1))).unwrap_or(0);
        // In the order in which they were sent: their ids are not the same in a replay.
        let mut orders = self.orders.iter().filter(|it| jobs.contains(&&it.job));
        orders.nth(at).map(|it| it.job.clone())
    }

    /// An operator's `recover --apply`; gives what went wrong with it.
    pub fn recover(&mut self) -> Option<String> {
        let done = self.survive(|world| {
            let store = world.running.as_ref().expect("it runs").store.clone();
            let recovery = Recovery::new(store, world.api.clone());
            let said = |error: RecoveryError| error.to_string();
            let findings = recovery.survey().map_err(said)?;
            let found = findings.iter().map(|it| it.evidence.clone()).collect();
            let now = world.clock.now().wall;
            let linked = recovery.apply(&findings, now).map_err(said)?;
            Ok((linked, found))
        });
        let done: Option<Result<(usize, Vec<String>), String>> = done;
        self.tell(&format!("recover --apply: {done:?}"));
        self.look_everywhere();
        done.and_then(Result::err)
    }

    /// An operator's `batches abandon` of a batch that is on its way still.
    pub fn give_up(&mut self, batch: i64) {
        self.survive(|world| {
            let rules = batchkeeper::store::settle::RetryRules {
                max_attempts: world.config.batch.max_attempts,
                check_images: world.config.images.check,
                batch_cap: None,
            };
            let now = world.clock.now().wall;
            let store = world.store();
            store
                .write(now, |tx| {
                    batchkeeper::store::settle::abandon(tx, batch, "given up", rules)
                })
                .expect("given up");
        });
    }

    /// One tick of one step, and a look at the invariants.
    pub fn tick(&mut self, step: &str) -> Ticked {
        match self.try_tick(step) {
            Ok(ticked) => ticked,
            Err(error) => panic!("{step} ends the daemon: {error}\n{}", self.dump()),
        }
    }

    /// The same, where an error that ends the daemon is expected.
    pub fn try_tick(&mut self, step: &str) -> Result<Ticked, String> {
        let at = ALL_STEPS
            .iter()
            .position(|name| *name == step)
            .expect("a step");
        let now = self.clock.now();
        let running = self.running.as_mut().expect("it runs");
        let ticked = catch_unwind(AssertUnwindSafe(|| running.steps[at].tick(now)));
        let ticked = match ticked {
            Ok(Ok(next)) => Ticked::Did(next),
            Ok(Err(error)) if error.passes() => Ticked::Troubled,
            Ok(Err(_)) if self.power_cut => {
                self.crash();
                Ticked::Crashed
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Err(thrown) if thrown.is::<Crash>() => {
                self.crash();
                Ticked::Crashed
            }
            Err(thrown) => resume_unwind(thrown),
        };
        if let Some(bug) = self.bug {
            sabotage::rows(bug, &self.sql);
        }
        self.invariants();
        Ok(ticked)
    }

    /// Each step in turn until none has anything to do at this time; gives how long until one may.
    pub fn work(&mut self) -> Duration {
        for _ in 0..MOST_ROUNDS {
            let mut worked = false;
            let mut wait = Duration::from_hours(1);
            for step in self.turns {
                match self.tick(step) {
                    Ticked::Did(next) => {
                        worked |= next.worked || next.after.is_zero();
                        wait = wait.min(next.after);
                    }
                    Ticked::Troubled => wait = wait.min(Duration::from_secs(1)),
                    Ticked::Crashed => worked = true,
                }
            }
            if !worked {
                return wait;
            }
        }
        panic!(
            "the steps go round in circles without time moving\n{}",
            self.dump()
        );
    }

    /// Time and work go on until everything is settled, or for `limit`; gives whether it is.
    pub fn settle_within(&mut self, limit: Duration) -> bool {
        let end = self.elapsed + limit;
        loop {
            let wait = self.work();
            if self.is_settled() {
                return true;
            }
            if self.elapsed >= end {
                return false;
            }
            self.advance(wait.max(Duration::from_millis(1)));
        }
    }

    /// Until everything is settled, which it must be within four days.
    pub fn settle(&mut self) {
        let settled = self.settle_within(Duration::from_hours(96));
        assert!(settled, "not settled after four days\n{}", self.dump());
    }

    /// Goes on for so long.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.elapsed + time;
        loop {
            let wait = self.work();
            if self.elapsed >= end {
                return;
            }
            let left = end.saturating_sub(self.elapsed);
            self.advance(wait.max(Duration::from_millis(1)).min(left));
        }
    }

    /// Goes on until a batch is in that state, for an hour at most.
    pub fn run_to(&mut self, state: BatchState) -> BatchRow {
        let end = self.elapsed + Duration::from_hours(1);
        while self.elapsed < end {
            let mut wait = Duration::from_secs(20);
            let mut worked = false;
            for step in STEPS {
                if let Some(row) = self.batch_in(state) {
                    return row;
                }
                if let Ticked::Did(next) = self.tick(step) {
                    worked |= next.worked || next.after.is_zero();
                    wait = wait.min(next.after);
                }
            }
            if !worked {
                self.advance(wait.max(Duration::from_millis(1)));
            }
        }
        panic!("no batch became {state}\n{}", self.dump());
    }

    /// Every job final, and nothing on its way.
    pub fn is_settled(&self) -> bool {
        let open = self.number(
            "SELECT (SELECT count(*) FROM batch_jobs WHERE completed_at IS NULL)
                  + (SELECT count(*) FROM openai_batches WHERE state NOT IN ('ingested', 'failed'))",
        );
        open == 0
    }

    // Looking.

    pub fn job(&self, id: &str) -> JobRow {
        let job = self.store().read(|view| jobs::by_id(view, id));
        job.expect("readable").expect("a job")
    }

    pub fn lots(&self, id: &str) -> Vec<LotRow> {
        let lots = self
            .store()
            .read(|view| lots::page(view, id, LotFilter::All, 0, 60_000));
        lots.expect("readable")
    }

    pub fn batch_in(&self, state: BatchState) -> Option<BatchRow> {
        let rows = self
            .store()
            .read(|view| batches::in_states(view, &[state], 1));
        rows.expect("readable").into_iter().next()
    }

    /// The first column of the first row, a number.
    pub fn number(&self, query: &str) -> i64 {
        self.sql
            .prepare_cached(query)
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The first column of every row.
    pub fn texts(&self, query: &str) -> Vec<String> {
        let mut query = self.sql.prepare_cached(query).expect("SQL");
        let rows = query.query_map([], |row| row.get(0)).expect("SQL");
        rows.collect::<Result<_, _>>().expect("texts")
    }

    /// Runs SQL beside the program, as another process would.
    pub fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.sql.execute_batch(sql)
    }

    /// How many batches OpenAI has.
    pub fn made(&self) -> usize {
        self.openai.state().batches.len()
    }

    pub fn open_alerts(&self) -> Vec<String> {
        self.texts("SELECT kind FROM alerts WHERE closed_at IS NULL ORDER BY id")
    }

    // The backup.

    /// A copy of the database as it is now.
    pub fn back_up(&mut self) -> PathBuf {
        let copy = self.folder.path().join("backup.db");
        if copy.exists() {
            std::fs::remove_file(&copy).expect("the last backup goes");
        }
        self.execute(&format!("VACUUM INTO '{}'", copy.display()))
            .expect("a backup");
        self.tell("backup");
        copy
    }

    /// Puts a backup in the database's place and starts on it.
    pub fn restore(&mut self, backup: &PathBuf) {
        self.tell("restore");
        self.running = None;
        self.sql = Connection::open_in_memory().expect("a connection");
        let database = &self.config.database;
        for suffix in ["-wal", "-shm"] {
            let mut name = database.clone().into_os_string();
            name.push(suffix);
            if let Err(error) = std::fs::remove_file(&name) {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            }
        }
        std::fs::copy(backup, database).expect("a restore");
        self.sql = look_into(database);
        self.clock.restart();
        self.forget_jobs_that_are_gone();
        self.is_restored = true;
        self.seen_version = -1;
        self.start();
    }

    /// Expects nothing of jobs that the restored database does not have.
    pub fn forget_jobs_that_are_gone(&mut self) {
        let known = self.texts("SELECT id FROM batch_jobs");
        self.orders.retain(|order| known.contains(&order.job));
        self.sent.retain(|job, _| known.contains(job));
    }

    // What must hold.

    /// What holds after each tick, whatever went wrong.
    pub fn invariants(&mut self) {
        let violations = self.openai.state().violations.clone();
        assert!(violations.is_empty(), "{violations:?}\n{}", self.dump());
        let version = self.number("PRAGMA data_version");
        if version == self.seen_version {
            return;
        }
        self.seen_version = version;
        self.no_budget_is_overspent();
        if !self.is_restored {
            self.no_batch_is_unheard_of();
        }
        self.unchecked += 1;
        if self.unchecked >= self.check_every {
            self.look_everywhere();
        }
    }

    /// All invariants, now.
    pub fn look_everywhere(&mut self) {
        self.unchecked = 0;
        for (what, query) in INVARIANTS {
            // A recovery takes all attempts of a request up at once, those long over among them.
            if self.is_restored && *what == TWO_BATCHES {
                continue;
            }
            if self.is_copy && *what == ORPHANS {
                continue;
            }
            let found = self.rows(query);
            assert!(found.is_empty(), "{what}: {found:?}\n{}", self.dump());
        }
    }

    /// What batches have cost in a day is within the budgets, up to the price of one batch: what they
    /// cost is known when they are over.
    fn no_budget_is_overspent(&self) {
        let clients = self.config.clients.iter();
        let limits = clients.map(|client| (client.name.as_str(), client.budget));
        for (client, limit) in limits.chain([("%", self.config.budgets.total)]) {
            let Some(limit) = limit.per_day else {
                continue;
            };
            let over = self.number(&format!(
                "SELECT count(*) FROM (SELECT day, sum(cost_picodollars) AS cost FROM v_spending
                                       WHERE mode = 'batch' AND client LIKE '{client}' GROUP BY day)
                 WHERE cost > {} + (SELECT coalesce(max(cost_picodollars), 0) FROM v_costs)",
                limit.0
            ));
            assert_eq!(over, 0, "a budget is overspent\n{}", self.dump());
        }
    }

    /// A job is final, and was so after that time at the latest.
    pub fn assert_took(&self, job: &str, most: Duration) {
        let took = self.number(&format!(
            "SELECT CAST((julianday(completed_at) - julianday(created_at)) * 86400 AS INTEGER)
             FROM batch_jobs WHERE id = '{job}' AND completed_at IS NOT NULL"
        ));
        let most = i64::try_from(most.as_secs()).unwrap();
        assert!(took <= most, "{job} took {took} s\n{}", self.dump());
    }

    /// Every batch at OpenAI belongs to a row, or to one that is about to look for it.
    fn no_batch_is_unheard_of(&self) {
        let known = self
            .texts("SELECT openai_batch_id FROM openai_batches WHERE openai_batch_id IS NOT NULL");
        let creating =
            self.texts("SELECT submission_key FROM openai_batches WHERE state = 'creating'");
        let is_known = |batch: &openai::HeldBatch| {
            let key = batch.metadata.get("submission");
            batch.is_twin
                || batch.is_theirs()
                || known.contains(&batch.id)
                || key.is_some_and(|key| creating.contains(key))
        };
        let unheard: Vec<String> = {
            let openai = self.openai.state();
            let unheard = openai.batches.iter().filter(|batch| !is_known(batch));
            unheard.map(|batch| batch.id.clone()).collect()
        };
        assert!(
            unheard.is_empty(),
            "{unheard:?} belong to no row\n{}",
            self.dump()
        );
    }

    /// What holds when all is over: doctor finds nothing, nobody need be told anything, every batch
    /// at OpenAI is known, and every final job's receiver knows it, under one id.
    pub fn assert_at_rest(&mut self) {
        self.look_everywhere();
        self.assert_accounted_for();
        let findings = self.store().read(inspect::findings).expect("readable");
        assert!(findings.is_empty(), "{findings:?}\n{}", self.dump());
        // Not even for a minute: every invariant holds after every commit.
        let broken = self.texts("SELECT message FROM alerts WHERE kind = 'invariant'");
        assert!(broken.is_empty(), "{broken:?}\n{}", self.dump());
        let mut alerts = self.open_alerts();
        // A budget that is used up stays so until its day is over.
        alerts.retain(|kind| !kind.starts_with("budget_"));
        assert!(
            alerts.is_empty(),
            "{alerts:?} are still open\n{}",
            self.dump()
        );
        let open = self.texts("SELECT id FROM batch_jobs WHERE completed_at IS NULL");
        assert!(open.is_empty(), "{open:?} are not final\n{}", self.dump());
        let known = self
            .texts("SELECT openai_batch_id FROM openai_batches WHERE openai_batch_id IS NOT NULL");
        let unknown: Vec<String> = self
            .openai
            .state()
            .batches
            .iter()
            .filter(|batch| !batch.is_theirs() && !known.contains(&batch.id))
            .map(|batch| batch.id.clone())
            .collect();
        assert!(
            unknown.is_empty(),
            "{unknown:?} belong to no row\n{}",
            self.dump()
        );
        for job in self.texts("SELECT id FROM batch_jobs") {
            let ids = self.receiver.ids(&job);
            let most = 1 + self.retried.get(&job).copied().unwrap_or(0);
            assert!(
                !ids.is_empty() && (ids.len() <= most || self.is_restored),
                "job {job} was told of under {ids:?}\n{}",
                self.dump()
            );
        }
    }

    /// After its time nothing of a job is left but its header and what it came to, and nobody has to be
    /// told anything.
    pub fn assert_cleaned(&mut self) {
        let costs = "SELECT * FROM v_costs ORDER BY batch_id";
        let headers = "SELECT id, status, total_lots, processed_lots, failed_lots FROM batch_jobs ORDER BY seq";
        let before = (self.rows(costs), self.rows(headers), self.made());
        let openai = self.openai.clone();
        self.restart_with(openai, |config| {
            config.retention.results = Duration::from_hours(1);
        });
        // Longer than the clock may have been set back.
        self.advance(Duration::from_hours(14 * 24));
        self.run_for(Duration::from_hours(3));
        self.recover();
        self.run_for(Duration::from_hours(1));
        let left = self.texts(
            "SELECT id FROM batch_jobs WHERE cleaned_at IS NULL
             UNION ALL SELECT lot_id FROM batch_lots UNION ALL SELECT text FROM lot_translations
             UNION ALL SELECT stage FROM requests UNION ALL SELECT coalesce(outcome, 'a line') FROM batch_lines",
        );
        assert!(left.is_empty(), "{left:?} are not cleaned\n{}", self.dump());
        self.assert_at_rest();
        assert_eq!((self.rows(costs), self.rows(headers), self.made()), before);
    }

    /// A job is completed, and every lot has the right text in every language.
    pub fn assert_answered(&self, job: &str) {
        let row = self.job(job);
        assert_eq!(row.status, JobStatus::Completed, "{}", self.dump());
        assert_eq!(row.failed_lots, 0, "{}", self.dump());
        for (lot, sent) in self.lots(job).iter().zip(&self.sent[job]) {
            assert_eq!(lot.status, LotStatus::Completed, "{}", self.dump());
            for language in &row.languages {
                assert!(
                    self.has_text(lot, sent, language),
                    "{lot:?} has no {language} text\n{}",
                    self.dump()
                );
            }
        }
    }

    /// Every job is final, and everything of it has the right text or a reason.
    pub fn assert_accounted_for(&self) {
        for (job, sent) in &self.sent {
            let row = self.job(job);
            assert!(row.status.is_final(), "{job} is not final\n{}", self.dump());
            for lot in &self.lots(job) {
                let sent = &sent[usize::try_from(lot.position).expect("a position")];
                for language in &row.languages {
                    let has_reason = row.status == JobStatus::Cancelled
                        || lot.error_message.is_some()
                        || matches!(lot.translations.get(language), Some(Err(_)));
                    assert!(
                        self.has_text(lot, sent, language) || has_reason,
                        "{lot:?} has neither {language} text nor reason\n{}",
                        self.dump()
                    );
                }
            }
        }
    }

    /// Whether a lot has the text in a language; a wrong one is the end.
    fn has_text(&self, lot: &LotRow, sent: &str, language: &str) -> bool {
        let seen = described(sent);
        if let Some(text) = &lot.vision_result {
            assert_eq!(*text, seen, "the text of another lot");
        }
        if is_english(language) {
            return lot.vision_result.is_some();
        }
        match lot.translations.get(language) {
            Some(Ok(text)) => {
                assert_eq!(*text, translated(language, &seen), "another's text");
                true
            }
            _ => false,
        }
    }

    fn rows(&self, query: &str) -> Vec<String> {
        let mut query = self.sql.prepare_cached(query).expect("SQL");
        let columns = query.column_count();
        let rows = query.query_map([], |row| {
            let cells: Result<Vec<String>, _> = (0..columns)
                .map(|at| row.get(at).map(|value: Value| cell(&value)))
                .collect();
            Ok(cells?.join(" "))
        });
        let rows = rows.expect("SQL").collect::<Result<_, _>>();
        rows.expect("rows")
    }

    /// The world as text, for whoever has to find out.
    pub fn dump(&self) -> String {
        let mut text = self.dump_of_rows();
        let openai = self.openai.state();
        for batch in &openai.batches {
            text += &format!(
                "at OpenAI {} {} lines={} key={:?}\n",
                batch.id,
                batch.status,
                batch.lines.len(),
                batch.metadata.get("submission")
            );
        }
        text += &format!("{} calls\n", openai.calls.len());
        let calls = openai.calls.iter().rev().take(40).rev();
        text += &format!("last calls {:?}\n", calls.collect::<Vec<_>>());
        text + &self.story.join("\n")
    }

    fn dump_of_rows(&self) -> String {
        let mut text = format!("elapsed={:?} now={}\n", self.elapsed, self.clock.now().wall);
        for (what, query) in DUMP {
            text += &format!("{what}\n  {}\n", self.rows(query).join("\n  "));
        }
        text
    }
}

/// The bytes of a database that was just made: making one takes longer than most of what is done
/// with it.
fn new_database(now: Timestamp) -> &'static [u8] {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new.db");
        drop(Store::open(&path, now).expect("a store"));
        std::fs::read(&path).expect("a database")
    })
}

/// A connection beside the program's.
fn look_into(database: &Path) -> Connection {
    let sql = Connection::open(database).expect("a second connection");
    sql.set_prepared_statement_cache_capacity(64);
    sql
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

const ORPHANS: &str = "orphans";
const TWO_BATCHES: &str = "requests in two live batches";

/// Queries that must give no row.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "tokens that are counted otherwise than attempts have them",
        "SELECT * FROM v_bad_usage",
    ),
    (ORPHANS, "SELECT * FROM v_orphans"),
    ("rows that refer to nothing", "PRAGMA foreign_key_check"),
    (
        "counters that differ from what they count",
        "SELECT j.id, j.open_vision, j.open_translations, j.processed_lots, j.failed_lots FROM batch_jobs j
         WHERE j.cleaning_since IS NULL AND (j.open_vision <> (SELECT count(*) FROM requests r WHERE r.job = j.seq AND r.stage = 'vision'
                                 AND r.state IN ('waiting', 'claimed', 'held'))
            OR j.open_translations <> (SELECT count(*) FROM requests r WHERE r.job = j.seq AND r.stage = 'translation'
                                       AND r.state IN ('waiting', 'claimed', 'held'))
            OR j.processed_lots <> (SELECT count(*) FROM batch_lots l WHERE l.batch_job_id = j.id
                                    AND l.status IN ('completed', 'failed'))
            OR j.failed_lots <> (SELECT count(*) FROM batch_lots l WHERE l.batch_job_id = j.id AND l.status = 'failed'))",
    ),
    (
        TWO_BATCHES,
        "SELECT l.request_id FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id
         WHERE l.settled = 0 AND b.duplicate_of IS NULL AND b.state NOT IN ('ingested', 'failed')
         GROUP BY l.request_id HAVING count(*) > 1",
    ),
    (
        "submitted batches that their jobs do not know",
        "SELECT b.id, j.id FROM openai_batches b JOIN batch_links k ON k.batch_id = b.id JOIN batch_jobs j ON j.seq = k.job
         WHERE b.state = 'submitted' AND b.duplicate_of IS NULL
           AND CASE b.stage WHEN 'vision' THEN j.openai_batch_id ELSE j.openai_translation_batch_id END IS NULL",
    ),
    (
        "final jobs with open requests",
        "SELECT j.id, r.id FROM batch_jobs j JOIN requests r ON r.job = j.seq
         WHERE j.completed_at IS NOT NULL AND r.state IN ('waiting', 'claimed', 'held')",
    ),
    (
        "final jobs whose webhooks are not due",
        "SELECT j.id FROM batch_jobs j JOIN webhook_deliveries d ON d.batch_job_id = j.id
         WHERE d.resend_number = (SELECT max(resend_number) FROM webhook_deliveries n WHERE n.batch_job_id = j.id AND n.url = d.url)
           AND (j.completed_at IS NULL) <> (d.state = 'scheduled')",
    ),
    (
        "open lots of final jobs, or finished lots without text and reason",
        "SELECT l.id FROM batch_lots l JOIN batch_jobs j ON j.id = l.batch_job_id
         WHERE (j.completed_at IS NOT NULL AND l.status = 'pending')
            OR (l.status = 'failed' AND l.error_message IS NULL)",
    ),
];

const DUMP: &[(&str, &str)] = &[
    (
        "jobs",
        "SELECT seq, status, total_lots, processed_lots, failed_lots, open_vision, open_translations, openai_batch_id,
                openai_translation_batch_id, error_message FROM batch_jobs",
    ),
    (
        "batches",
        "SELECT id, submission_key, stage, state, openai_batch_id, openai_status, lines, output_file_id, output_bytes,
                output_ingested, error_file_id, error_bytes, error_ingested, settled_to, duplicate_of, failures, next_at, error
         FROM openai_batches ORDER BY id DESC LIMIT 30",
    ),
    (
        "open requests",
        "SELECT id, job, stage, language, state, attempts, cap_raised, image_failures, batch_cap, since FROM requests
         WHERE state NOT IN ('done', 'failed') LIMIT 30",
    ),
    (
        "open lines",
        "SELECT batch_id, request_id, outcome, error, settled FROM batch_lines WHERE settled = 0 LIMIT 30",
    ),
    ("pauses", "SELECT * FROM pauses"),
    ("alerts", "SELECT * FROM alerts ORDER BY id DESC LIMIT 10"),
    (
        "events",
        "SELECT at, batch_id, kind, detail FROM (SELECT * FROM events ORDER BY id DESC LIMIT 30) ORDER BY id",
    ),
];
