//! What a client and an operator do in the world, and how its workers tick.

use super::CHUNK;
use super::openai::{Crash, IMAGES};
use super::random::Random;
use super::{ALL_WORKERS, MOST_ROUNDS, Order, Ticked, WORKERS, World};
use batchkeeper::api::idempotency::{IdempotencyKeys, Replay};
use batchkeeper::api::submit::accept::{CheckedSubmission, Refusal, SubmissionOutcome, accept};
use batchkeeper::base::clock::Clock;
use batchkeeper::domain::batch::BatchState;
use batchkeeper::domain::job::{Metadata, Mode, NewLot, Submission};
use batchkeeper::recovery::{Recovery, RecoveryError};
use batchkeeper::store::batches::{self, BatchRow};
use batchkeeper::store::jobs::{self, JobRow};
use batchkeeper::store::retry::{self, RetryScope};
use batchkeeper::store::{StoreError, cancel};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

impl World {
    /// Submits a job of the first client; its lots are known by their texts.
    pub fn submit(&mut self, lots: &[&str], languages: &[&str]) -> String {
        self.submit_as("a", lots, languages)
    }

    pub fn submit_as(&mut self, client: &str, lots: &[&str], languages: &[&str]) -> String {
        self.submit_in(Mode::Batch, client, lots, languages)
    }

    /// The same, to be answered so.
    pub fn submit_in(&mut self, mode: Mode, client: &str, lots: &[&str], languages: &[&str]) -> String {
        let submission = Submission {
            unknown_fields: Vec::new(),
            ignored_fields: Vec::new(),
            metadata: Metadata::new(),
            languages: languages.iter().map(|tag| (*tag).to_owned()).collect(),
            webhook_url: Some("https://client.test/hook".into()),
            lots: lots
                .iter()
                .enumerate()
                .map(|(number, text)| NewLot {
                    lot_id: format!("lot-{number}").into(),
                    additional_info: (*text).into(),
                    images: IMAGES[..self.images].iter().map(|url| (*url).into()).collect(),
                    unusable_images: Vec::new(),
                    webhook_url: None,
                    reference: None,
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
    pub(super) fn send(&mut self, order: usize, submission: &Submission<'_>, mut mode: Mode) -> String {
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
                    warnings: &[],
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
                Some(SubmissionOutcome::Refused(Refusal::OverBudget { .. })) if mode == Mode::Synchronous => {
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
            unknown_fields: Vec::new(),
            ignored_fields: Vec::new(),
            metadata: Metadata::new(),
            languages: vec!["en".into()],
            webhook_url: None,
            lots: Vec::new(),
        };
        let id = self.send(order, &nothing, Mode::Batch);
        assert_eq!(id, self.orders[order].job, "a repeat is another job");
    }

    /// A client sends an order's content again without a key; gives the job that it is a repeat of, and stores
    /// nothing if it is a new one.
    pub fn send_again_without_a_key(&mut self, order: usize) -> Option<String> {
        let Order { client, key, .. } = &self.orders[order];
        let nothing = Submission {
            unknown_fields: Vec::new(),
            ignored_fields: Vec::new(),
            metadata: Metadata::new(),
            languages: vec!["en".into()],
            webhook_url: None,
            lots: Vec::new(),
        };
        let checked = CheckedSubmission {
            warnings: &[],
            client,
            submission: &nothing,
            keys: &IdempotencyKeys::default(),
            content_sha256: key,
            mode: Mode::Batch,
        };
        let answer = |job: &JobRow| serde_json::json!(job.id);
        let now = self.clock.now().wall;
        let outcome = accept(self.store(), &self.config, &checked, |_| false, answer, now);
        match outcome.expect("an outcome") {
            SubmissionOutcome::Repeated(Replay::Answer(answer)) => serde_json::from_str(&answer).ok(),
            _ => None,
        }
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
                    Some(job) if !job.status.is_final() => cancel::cancel(tx, &job, "taken back", CHUNK),
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
                Some(job) => {
                    let size = retry::retry_size(tx, &job, RetryScope::FailedLots)?;
                    retry::retry(tx, &job, RetryScope::FailedLots, &size, CHUNK, check)?;
                    Ok(size.lots > 0)
                }
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
            let recovery = Recovery::new(store, world.api.clone(), |_| {});
            let said = |error: RecoveryError| error.to_string();
            let mut findings = recovery.survey().map_err(said)?;
            let now = world.clock.now().wall;
            // An operator has some batches ignored that `recover --apply` would take up.
            if now.seconds() % 2 == 0 {
                let batches = findings.iter().filter_map(|it| it.batch.clone());
                for batch in batches.collect::<Vec<_>>() {
                    if let Ok(ignorable) = recovery.examine(&batch.id, None) {
                        recovery.ignore(&ignorable, now).map_err(said)?;
                    }
                }
                findings = recovery.survey().map_err(said)?;
            }
            let found = findings.iter().map(|it| it.evidence.clone()).collect();
            let linked = recovery.apply(&findings, now).map_err(said)?;
            Ok((linked, found))
        });
        let done: Option<Result<(usize, Vec<String>), String>> = done;
        self.tell(&format!("recover --apply: {done:?}"));
        self.look_everywhere();
        done.and_then(Result::err)
    }

    /// An operator's `batches abandon` of a batch that is on its way still. Returns the number of lines that the
    /// operator accepts to be billed again.
    pub fn abandon(&mut self, batch: i64) -> u64 {
        let now = self.clock.now().wall;
        let abandoned = self.survive(|world| {
            world.store().write(now, |tx| {
                let lines = batches::unanswered(tx, batch)?.lines_billed_again();
                batches::request_abandonment(tx, batch, lines)?;
                Ok(lines)
            })
        });
        let lines = abandoned.map_or(0, |lines| lines.expect("abandoned"));
        self.openai.state().billed_again += lines;
        lines
    }

    /// Runs one tick of a worker, then checks the invariants.
    pub fn tick(&mut self, worker: &str) -> Ticked {
        match self.try_tick(worker) {
            Ok(ticked) => ticked,
            Err(error) => panic!("{worker} ends the daemon: {error}\n{}", self.dump()),
        }
    }

    /// The same, where an error that ends the daemon is expected.
    pub fn try_tick(&mut self, worker: &str) -> Result<Ticked, String> {
        let at = ALL_WORKERS
            .iter()
            .position(|name| *name == worker)
            .expect("a worker");
        let now = self.clock.now();
        let running = self.running.as_mut().expect("it runs");
        let ticked = catch_unwind(AssertUnwindSafe(|| running.workers[at].tick(now)));
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
            super::sabotage::rows(bug, &self.sql);
        }
        self.invariants();
        Ok(ticked)
    }

    /// Ticks the workers in turn until none has work now. Returns the time until one may have work.
    pub fn work(&mut self) -> Duration {
        for _ in 0..MOST_ROUNDS {
            let mut worked = false;
            let mut wait = Duration::from_hours(1);
            for worker in self.turns {
                match self.tick(worker) {
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
            "the workers never come to rest while time stands\n{}",
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

    /// Lets the workers work for `time`.
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
            for worker in WORKERS {
                if let Some(row) = self.batch_in(state) {
                    return row;
                }
                if let Ticked::Did(next) = self.tick(worker) {
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
            "SELECT (SELECT count(*) FROM batch_jobs WHERE completed_at IS NULL OR pending_change IS NOT NULL)
                  + (SELECT count(*) FROM openai_batches WHERE state NOT IN ('ingested', 'failed'))",
        );
        open == 0
    }
}
