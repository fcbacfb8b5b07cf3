//! A world for the workers: the real store on a real file, a clock that the test moves, an OpenAI in memory.
//! It runs in one thread without real time. Chance comes from a seed, so a run can be repeated.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test file uses its part; a test that cannot go on has failed"
)]

mod backups;
pub mod chaos;
mod checks;
mod inspection;
pub mod life;
pub mod openai;
pub mod pairs;
pub mod random;
pub mod receiver;
pub mod sabotage;
mod script;
mod work;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use batchkeeper::base::clock::{Clock, Moment, Timestamp};
use batchkeeper::config::Config;

use batchkeeper::openai::BatchApi;

use batchkeeper::store::{
    Store, Watcher, alerts, batches, calls, money, synchronous_calls, webhook_deliveries,
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

use openai::{Crash, OpenAi};
use pairs::Place;
use random::Random;
use receiver::Receiver;
use sabotage::Bug;

/// When the world begins.
const BEGINNING: i64 = 1_795_400_000_000;
/// Where OpenAI is.
pub const OPENAI: &str = "https://api.openai.test/v1";
/// Rounds of all workers at one time, after which they count as an endless loop.
const MOST_ROUNDS: u32 = 5000;

/// A clock that the test moves by hand.
pub struct HandClock(Mutex<Moment>);

impl HandClock {
    fn new() -> Self {
        Self(Mutex::new(Moment {
            wall: Timestamp::from_millis(BEGINNING),
            steady: Duration::ZERO,
        }))
    }

    /// Advances both clocks.
    fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap();
        now.wall = now.wall + by;
        now.steady += by;
    }

    /// Sets the wall clock alone.
    fn set(&self, wall: Timestamp) {
        self.0.lock().unwrap().wall = wall;
    }

    /// Starts the steady clock at zero, as a new process does.
    fn restart(&self) {
        self.0.lock().unwrap().steady = Duration::ZERO;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Moment {
        *self.0.lock().unwrap()
    }
}

/// Lots of one chunk of a cancellation: the daemon's are larger.
const CHUNK: u32 = 1;
/// The workers that take a stored job to its final state.
pub const WORKERS: &[&str] = &["submitter", "poller", "ingester", "finisher"];
/// Every worker of the daemon, apart from the image checker.
pub const ALL_WORKERS: &[&str] = &[
    "submitter",
    "poller",
    "ingester",
    "finisher",
    "synchronous",
    "webhook_sender",
    "auditor",
    "remote_cleanup",
    "retention",
];

/// The result of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticked {
    Did(TickOutcome),
    /// It failed with an error that passes.
    Troubled,
    /// The process ended in it; it has been started again.
    Crashed,
}

/// The daemon's workers on a real store, with a clock and an OpenAI of their own.
pub struct World {
    pub config: Arc<Config>,
    pub openai: Arc<OpenAi>,
    pub clock: Arc<HandClock>,
    /// The store was restored from a backup, so OpenAI may have batches that it does not know.
    pub is_restored: bool,
    /// The store is a copy of another database, so requests of its jobs may be held.
    pub is_copy: bool,
    /// Simulated time since the beginning.
    pub elapsed: Duration,
    /// Images of each lot that is submitted.
    pub images: usize,
    /// The workers that take turns.
    pub turns: &'static [&'static str],
    /// Changes of the database between two checks of all invariants.
    pub check_every: u32,
    /// The receiver of the webhooks.
    pub receiver: Arc<Receiver>,
    /// Commits in a thousand at which the process ends by chance.
    pub commit_crashes: Arc<Mutex<(Random, u64)>>,
    /// The faults of a run of [`pairs`].
    plan: Option<Arc<Mutex<pairs::Plan>>>,
    /// How often a backup was put back.
    restores: usize,
    /// OpenAI as the program sees it.
    api: Arc<dyn BatchApi>,
    bug: Option<Bug>,
    /// The events of the run, printed when a check fails.
    story: Vec<String>,
    unchecked: u32,
    running: Option<Running>,
    /// The next change of some rows ends the process.
    power_cut: bool,
    /// The texts of the lots that were submitted, by job.
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
    workers: Vec<Box<dyn Worker>>,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a configuration that differs from the usual one.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::seeded(0, change)
    }

    /// The same with another chance at OpenAI.
    pub fn seeded(seed: u64, change: impl FnOnce(&mut Config)) -> Self {
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
        let openai = Arc::new(OpenAi::seeded(&config.openai.base_url, seed));
        let mut world = Self {
            api: openai.clone(),
            openai,
            config: Arc::new(config),
            clock,
            is_restored: false,
            is_copy: false,
            elapsed: Duration::ZERO,
            images: 1,
            turns: WORKERS,
            check_every: 1,
            receiver: Arc::default(),
            commit_crashes: Arc::new(Mutex::new((Random::new(0), 0))),
            plan: None,
            restores: 0,
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
        self.openai.begin_process(self.clock.clone());
        let now = self.clock.now().wall;
        let store = Store::open(&self.config.database, now).expect("a store");
        let released = store.write(now, |tx| {
            money::set_prices(tx, &self.config.prices(), &self.config.openai.base_url)?;
            batches::clear_compared(tx)?;
            calls::forget_refusals(tx)?;
            alerts::probe_stages(tx)?;
            webhook_deliveries::release_unfinished(tx)?;
            synchronous_calls::release_unfinished(tx)
        });
        released.expect("a write");
        let store = Arc::new(store.watched(self.watcher()));
        let api = || Arc::clone(&self.api);
        let config = || Arc::clone(&self.config);
        let workers: Vec<Box<dyn Worker>> = vec![
            Box::new(Submitter::with_chunks(store.clone(), api(), config(), CHUNK)),
            Box::new(Poller::new(store.clone(), api(), config())),
            Box::new(Ingester::new(store.clone(), api(), config())),
            Box::new(Finisher::with_chunks(store.clone(), config(), CHUNK)),
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
            Box::new(Retention::new(store.clone(), api(), config())),
        ];
        self.running = Some(Running { store, workers });
        self.unchecked = self.check_every;
    }

    /// Ends the process at a commit, before or after it.
    fn watcher(&self) -> Watcher {
        let chance = self.commit_crashes.clone();
        let plan = self.plan.clone();
        Box::new(move |_| {
            let strike = plan
                .as_ref()
                .and_then(|plan| plan.lock().unwrap().reach(Place::Commit));
            let ends = strike.is_some() || {
                let (random, permille) = &mut *chance.lock().unwrap();
                *permille > 0 && random.chance(*permille)
            };
            if ends {
                resume_unwind(Box::new(Crash));
            }
        })
    }

    /// From now on the faults of a plan strike.
    pub fn follow(&mut self, plan: Arc<Mutex<pairs::Plan>>) {
        self.openai.state().plan = Some(plan.clone());
        self.plan = Some(plan);
        self.crash();
    }

    /// From now on the program has that bug.
    pub fn sabotage(&mut self, bug: Bug) {
        self.bug = Some(bug);
        self.api = sabotage::api(bug, self.openai.clone());
        self.crash();
    }

    /// From now on the program sees OpenAI through `api`.
    pub fn look_through(&mut self, api: Arc<dyn BatchApi>) {
        self.api = api;
        self.crash();
    }

    /// Runs `act`; `None` if the process ended in it and was started again.
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
        self.execute("DROP TRIGGER IF EXISTS power_cut").expect("dropped");
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
        // It is the same time everywhere.
        let time = self.openai.state().now;
        openai.state().now = time;
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

    /// Our wall clock's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now().wall
    }

    /// Moves our wall clock by `millis`. OpenAI's clock and the steady one stay.
    pub fn shift_clock(&mut self, millis: i64) {
        self.tell(&format!("the clock is set by {} s", millis / 1000));
        let now = self.clock.now().wall.millis();
        self.clock.set(Timestamp::from_millis(now + millis));
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
