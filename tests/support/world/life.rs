//! A world's life by chance: jobs, faults at every call and commit, odd lines and files, crashes,
//! clocks that are set, receivers that fail, operators, restored backups, jobs cleaned after their time. Then the faults stop, and
//! everything must be accounted for.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use batchkeeper::config::BudgetPolicy;
use batchkeeper::domain::job::Mode;
use batchkeeper::domain::money::Money;

use super::chaos::{Chaos, is_on, outage};
use super::openai::{IMAGES, Rule};
use super::random::Random;
use super::sabotage::Bug;
use super::{ALL_WORKERS, Ticked, World};

/// Ticks with faults in a life.
const TICKS: u64 = 600;
/// Jobs in a life, at most.
const JOBS: u64 = 6;
/// What a life may cost a day, where that is limited: some eighty lines.
const BUDGET: &str = "0.0012";
/// What one client may cost a day, where that is limited: some twenty lines.
const BUDGET_OF_ONE: &str = "0.0003";
/// How long two lots of a client take at most that come when everybody waits: the rest of a day whose
/// budget is used up, and half a day until an operator comes where one is needed.
const NO_LONGER: Duration = Duration::from_hours(48);
/// Longer than OpenAI may take to list a batch.
const LISTED: Duration = Duration::from_mins(10);

/// One life, from its first job to the day when all is settled; gives how it ended. Panics where
/// something is not as it must be.
pub fn live(seed: u64, bug: Option<Bug>) -> String {
    let mut random = Random::new(seed);
    let restores = random.chance(250);
    let mut of_client = Random::new(!seed);
    let mut world = World::seeded(seed, |config| {
        config.batch.max_requests = random.pick(&[3, 10, 1000]);
        config.steps.idle = Duration::from_mins(30);
        config.steps.audit = Duration::from_mins(30);
        config.steps.reconcile = Duration::from_hours(1);
        config.openai.poll_interval = Duration::from_mins(5);
        config.batch.max_active = random.pick(&[0, 0, 2]);
        config.vision.max_output_tokens = 200;
        config.translation.max_output_tokens = 200;
        config.budgets.on_exceeded = BudgetPolicy::Wait;
        config.budgets.total.per_day = random.pick(&[None, None, Money::parse(BUDGET)]);
        config.clients[0].budget.per_day = of_client.pick(&[None, None, Money::parse(BUDGET_OF_ONE)]);
        // A backup holds what it needs as long as OpenAI does.
        let kept = random.pick(&[Duration::ZERO, Duration::from_mins(30)]);
        config.retention.remote_files = if restores { Duration::ZERO } else { kept };
        config.retention.results = random.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_hours(3)]);
    });
    world.images = IMAGES.len();
    world.turns = ALL_WORKERS;
    world.check_every = if is_replayed() { 1 } else { 10 };
    if let Some(bug) = bug {
        world.sabotage(bug);
    }
    begin_faults(&mut world, &mut random);
    let (mut jobs, mut backup) = (0, None);
    for _ in 0..TICKS {
        if jobs < JOBS && random.chance(20) {
            jobs += 1;
            submit(&mut world, &mut random, jobs);
        }
        let worker = random.pick(ALL_WORKERS);
        match world.tick(worker) {
            Ticked::Did(next) if next.worked => {}
            _ => world.advance(Duration::from_secs(random.below(90))),
        }
        if random.chance(5) {
            world.crash();
        }
        if is_on("clock_year") && random.chance(1) {
            let days = random.pick(&[-365, 365]);
            world.shift_clock(days * 24 * 3_600_000);
        }
        if random.chance(4) {
            let batch = world.openai.state().batches.last().map(|batch| batch.id.clone());
            if let Some(rule) = outage(&mut random, batch.as_deref()) {
                let added = world.openai.state().model().add_fault_rules(vec![rule]);
                added.expect("in memory");
            }
        }
        if random.chance(3) {
            let hours = i64::try_from(random.below(60)).unwrap_or(0) - 30;
            world.shift_clock(hours * 3_600_000);
        }
        if random.chance(10) {
            another_program(&world, &mut random);
        }
        clients_and_operators(&mut world, &mut random);
        if random.chance(5) {
            // What it cannot do now, it is asked for again.
            world.recover();
        }
        if restores && random.chance(6) {
            backup = Some(world.back_up());
        }
        if let Some(backup) = backup.as_ref().filter(|_| random.chance(4)) {
            // An operator needs longer than this to restore a backup.
            world.advance(LISTED);
            world.restore(backup);
        }
    }
    end_faults(&mut world);
    let late = world.submit_as("b", &["the last but one", "the last"], &["de"]);
    rest(&mut world);
    world.assert_took(&late, NO_LONGER);
    world.assert_at_rest();
    world.assert_cleaned();
    world.dump()
}

fn begin_faults(world: &mut World, random: &mut Random) {
    let mut openai = world.openai.state();
    openai.list_lag = Duration::from_secs(random.below(300));
    openai.page = random.pick(&[2, 7, 100]);
    openai.rules = random.pick(&[
        vec![],
        vec![],
        vec![Rule::QueueOf(4)],
        vec![Rule::TokensOf(3_000)],
        vec![Rule::InputTokensOf(1_500)],
        vec![Rule::Poison("poison")],
        vec![Rule::Blame("poison")],
    ]);
    openai.chaos = Some(Chaos {
        calls: random.pick(&[0, 50, 300]),
        lines: random.pick(&[0, 50, 300]),
        batches: random.pick(&[0, 200, 800]),
        random: Random::new(random.next()),
    });
    let of_receiver = random.pick(&[0, 100, 700]);
    world.receiver.fails(Random::new(random.next()), of_receiver);
    let of_commits = random.pick(&[0, 5, 30]);
    *world.commit_crashes.lock().unwrap() = (Random::new(random.next()), of_commits);
}

fn end_faults(world: &mut World) {
    {
        let mut openai = world.openai.state();
        openai.chaos = None;
        openai.faults.clear();
        openai.model().clear_fault_rules().expect("in memory");
        // These hold on: they are what OpenAI is like.
        openai.forget_standing_rules();
    }
    world.receiver.fails(Random::new(0), 0);
    world.commit_crashes.lock().unwrap().1 = 0;
}

/// Everything comes to its end; where the program says that it needs an operator, one comes.
pub fn rest(world: &mut World) {
    for _ in 0..2 {
        for _ in 0..8 {
            let creates = "SELECT count(*) FROM pauses WHERE scope = 'creates'";
            if world.settle_within(Duration::from_hours(12)) && world.number(creates) == 0 {
                break;
            }
            if let Some(error) = world.recover() {
                panic!("recover: {error}\n{}", world.dump());
            }
        }
        world.settle();
        // What nobody has seen yet comes to light at the next start.
        world.advance(LISTED);
        world.crash();
    }
    // Webhooks come again and again, and what OpenAI refused of a model has its pause.
    let due = "SELECT (SELECT count(*) FROM webhook_deliveries WHERE state = 'due') + (SELECT count(*) FROM pauses)";
    for _ in 0..48 {
        world.run_for(Duration::from_hours(1));
        if world.number(due) == 0 {
            break;
        }
    }
    world.settle();
}

/// Clients repeat themselves and take jobs back; operators send failed lots again.
fn clients_and_operators(world: &mut World, random: &mut Random) {
    let orders = u64::try_from(world.orders()).unwrap_or(0);
    if orders > 0 && random.chance(6) {
        let order = usize::try_from(random.below(orders)).unwrap_or(0);
        world.repeat(order);
    }
    if random.chance(2)
        && let Some(job) = world.any_job(random)
    {
        world.cancel(&job);
    }
    if random.chance(5)
        && let Some(job) = world.any_job(random)
    {
        world.retry_failed_lots(&job);
    }
}

fn submit(world: &mut World, random: &mut Random, job: u64) {
    let most = random.pick(&[1, 12, 12]);
    let lots: Vec<String> = (0..1 + random.below(most))
        .map(|lot| {
            let bad = if random.chance(50) { " poison" } else { "" };
            format!("lot {lot} of job {job}{bad}.")
        })
        .collect();
    let lots: Vec<&str> = lots.iter().map(String::as_str).collect();
    let languages = random.pick(&[&["en"][..], &["de"], &["en", "de", "fr"], &["en-GB", "zh-Hant"]]);
    let client = random.pick(&["a", "b"]);
    let mode = if lots.len() == 1 && random.chance(700) {
        Mode::Synchronous
    } else {
        Mode::Batch
    };
    world.submit_in(mode, client, &lots, languages);
}

/// Another program makes a batch in the same project.
fn another_program(world: &World, random: &mut Random) {
    let file = world.openai.upload_theirs();
    let metadata = random.pick(&[&[][..], &[("app", "another")]]);
    let metadata: BTreeMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let many = if is_on("many_foreign") { 150 } else { 1 };
    for _ in 0..random.pick(&[1, 1, 1, many]) {
        let made = world.openai.state().add_batch(&file, metadata.clone(), false);
        assert!(made.is_ok());
    }
    if is_on("hostile_batch") && random.chance(100) {
        let id = world.texts("SELECT database_id FROM instance").remove(0);
        let hostile = [("batchkeeper", id), ("submission", format!("stolen {file}"))];
        let hostile = hostile.map(|(key, value)| (key.to_owned(), value));
        let made = world.openai.state().add_batch(&file, hostile.into(), false);
        assert!(made.is_ok());
    }
}

/// One seed is looked at: every change of the database is.
fn is_replayed() -> bool {
    std::env::var_os("SIMULATION_SEED").is_some()
}

/// A seed that failed, and the first lines of why.
pub struct Failure {
    pub seed: u64,
    pub why: String,
}

/// Lives of all these seeds, on `threads` threads; `tell` is called after each.
pub fn run(
    seeds: Range<u64>,
    threads: u32,
    bug: Option<Bug>,
    until_one_fails: bool,
    tell: impl Fn(u64, Result<&str, &str>) + Sync,
) -> Vec<Failure> {
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while !until_one_fails || failures.lock().unwrap().is_empty() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| live(seed, bug))) {
                Ok(end) => tell(seed, Ok(&end)),
                Err(thrown) => {
                    let why = said(thrown.as_ref());
                    tell(seed, Err(&why));
                    failures.lock().unwrap().push(Failure { seed, why });
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort_by_key(|failure| failure.seed);
    failures
}

pub fn said(thrown: &(dyn Any + Send)) -> String {
    let text = thrown.downcast_ref::<String>().cloned();
    let text = text.or_else(|| thrown.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked".to_owned())
}
