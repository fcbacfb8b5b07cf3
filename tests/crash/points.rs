//! SIGKILL at each named point of a job's life, again and again. The shim ends the daemon exactly
//! there, the database must hold the state that the point names, and the next start finishes the
//! job.
//!
//! `BATCHKEEPER_TORTURE_KILLS` sets the number of kills at each point (default: 200).
//! `BATCHKEEPER_TORTURE_POINT` selects the points with this text in their name.

use batchkeeper::base::clock::{Clock, SystemClock};
use serde_json::json;

use super::environment;
use super::rig::OfCall::{Answered, Before, Read, Sent};
use super::rig::OfCommit::{Ahead, Done, Torn};
use super::rig::{Expected, OfCall, OfCommit, Options, Rig, Strike};
use super::worlds::side_by_side;

/// A moment at which the daemon dies, and the state that the database then holds of the newest job,
/// of its batch of the stage, and of its webhook.
struct Point {
    effect: &'static str,
    moment: &'static str,
    at: At,
    left: &'static str,
}

/// The moment in the vision stage. The last number counts the events of this kind before the same
/// moment of the translation stage; it is 0 if a job has only one such event.
#[derive(Clone, Copy)]
enum At {
    /// A transaction of the threads with this name, by its number.
    Commit(&'static str, u32, OfCommit, u32),
    /// The first call with this request line.
    Call(&'static str, OfCall, u32),
}

/// The submitter's transactions for a small batch: planned, claimed, sealed, uploaded, creating,
/// submitted.
const SUBMITTER: u32 = 6;
/// The ingester's transactions for a small batch: spooled, lines ingested, batch judged, lines settled,
/// batch ingested.
const INGESTER: u32 = 5;

const UPLOAD: &str = "POST /v1/files HTTP/1.1";
const CREATE: &str = "POST /v1/batches HTTP/1.1";
const DOWNLOAD: &str = "GET /v1/files/*/content HTTP/1.1";
const CANCEL: &str = "POST /v1/batches/*/cancel HTTP/1.1";
const WEBHOOK: &str = "POST /hooks/* HTTP/1.1";
const DELETE: &str = "DELETE /v1/files/* HTTP/1.1";

const BEFORE_INTENT: &str = "before the intent";
const AFTER_INTENT: &str = "after the intent";
const SENT: &str = "all sent";
const ANSWERED: &str = "effect done, answer unread";
const READ: &str = "answer read";
const HALF: &str = "outcome half written";
const COMMITTED: &str = "outcome committed";
const SAME_FILE: &str = "same file";
const RETRY: &str = "retry chunks";

fn point(effect: &'static str, moment: &'static str, at: At, left: &'static str) -> Point {
    Point {
        effect,
        moment,
        at,
        left,
    }
}

#[rustfmt::skip]
fn points() -> Vec<Point> {
    let submitter = |number, moment| At::Commit("submitter", number, moment, SUBMITTER);
    let ingester = |number, moment| At::Commit("ingester", number, moment, INGESTER);
    let poller = |moment| At::Commit("poller", 1, moment, 1);
    let cleanup = |moment| At::Commit("remote_cleanup", 1, moment, 1);
    let once = |thread, number, moment| At::Commit(thread, number, moment, 0);
    let call = |line, moment| At::Call(line, moment, 1);
    // The deletes of the input and of the output.
    let delete = |moment| At::Call(DELETE, moment, 2);
    vec![
        point("intake", "before the commit", once("api-*", 1, Ahead), "job.id IS NULL"),
        point("intake", "half written", once("api-*", 1, Torn), "job.id IS NULL"),
        point("intake", "committed, unanswered", once("api-*", 1, Done), "job.status = 'pending'"),

        point("plan", "before the commit", submitter(1, Ahead), "batch.id IS NULL"),
        point("plan", "planned, nothing claimed", submitter(1, Done), "batch.state = 'planned' AND claimed = 0"),
        point("plan", "claimed", submitter(2, Done), "batch.state = 'planned' AND claimed = 2"),

        point("upload", BEFORE_INTENT, submitter(3, Ahead), "batch.state = 'planned'"),
        point("upload", AFTER_INTENT, submitter(3, Done), "batch.state = 'sealed'"),
        point("upload", SENT, call(UPLOAD, Sent), "batch.state = 'sealed'"),
        point("upload", ANSWERED, call(UPLOAD, Answered), "batch.state = 'sealed'"),
        point("upload", READ, call(UPLOAD, Read), "batch.state = 'sealed'"),
        point("upload", HALF, submitter(4, Torn), "batch.state = 'sealed'"),
        point("upload", COMMITTED, submitter(4, Done), "batch.state = 'uploaded'"),

        point("create", BEFORE_INTENT, submitter(5, Ahead), "batch.state = 'uploaded'"),
        point("create", AFTER_INTENT, submitter(5, Done), "batch.state = 'creating'"),
        point("create", SENT, call(CREATE, Sent), "batch.state = 'creating'"),
        point("create", ANSWERED, call(CREATE, Answered), "batch.state = 'creating'"),
        point("create", READ, call(CREATE, Read), "batch.state = 'creating'"),
        point("create", HALF, submitter(6, Torn), "batch.state = 'creating'"),
        point("create", COMMITTED, submitter(6, Done), "batch.state = 'submitted'"),

        point("download", BEFORE_INTENT, poller(Ahead), "batch.state = 'submitted'"),
        point("download", AFTER_INTENT, poller(Done), "batch.state = 'ended'"),
        point("download", SENT, call(DOWNLOAD, Sent), "batch.output_bytes IS NULL"),
        point("download", ANSWERED, call(DOWNLOAD, Answered), "batch.output_bytes IS NULL"),
        point("download", READ, call(DOWNLOAD, Read), "batch.output_bytes IS NULL"),
        point("download", HALF, ingester(1, Torn), "batch.output_bytes IS NULL"),
        point("download", COMMITTED, ingester(1, Done), "batch.output_bytes > 0 AND batch.output_ingested = 0"),

        point("ingest", "before the commit", ingester(2, Ahead), "batch.output_ingested = 0"),
        point("ingest", "half written", ingester(2, Torn), "batch.output_ingested = 0"),
        point("ingest", "lines committed", ingester(2, Done), "batch.output_ingested > 0 AND batch.settled_to = 0"),
        point("ingest", "judged", ingester(3, Done), "batch.output_ingested > 0 AND batch.settled_to = 0"),
        point("ingest", "settled", ingester(4, Done), "batch.state = 'ended' AND batch.settled_to > 0"),
        point("ingest", "end half written", ingester(5, Torn), "batch.state = 'ended' AND batch.settled_to > 0"),
        point("ingest", "ended", ingester(5, Done), "batch.state = 'ingested'"),

        // The first create is refused later, as its file is not seen yet.
        point(SAME_FILE, "before the commit", once("ingester", 1, Ahead), "batch.state = 'ended'"),
        point(SAME_FILE, "half written", once("ingester", 1, Torn), "batch.state = 'ended'"),
        point(SAME_FILE, "committed", once("ingester", 1, Done), "batch.state = 'uploaded' AND batch.claimed = 2"),
        point(SAME_FILE, "create intended", once("submitter", SUBMITTER + 1, Done), "batch.state = 'creating'"),
        point(SAME_FILE, "create's outcome half written", once("submitter", SUBMITTER + 2, Torn), "batch.state = 'creating'"),

        point("finish", "before the commit", once("finisher", 1, Ahead), "job.status = 'translating' AND delivery.state = 'scheduled'"),
        point("finish", "half written", once("finisher", 1, Torn), "job.status = 'translating' AND delivery.state = 'scheduled'"),
        point("finish", "committed", once("finisher", 1, Done), "job.status = 'completed' AND delivery.state = 'due'"),

        point("webhook", BEFORE_INTENT, once("webhook_sender-*", 1, Ahead), "delivery.attempts = 0"),
        point("webhook", AFTER_INTENT, once("webhook_sender-*", 1, Done), "delivery.attempts = 1"),
        point("webhook", SENT, At::Call(WEBHOOK, Sent, 0), "delivery.state = 'due'"),
        point("webhook", ANSWERED, At::Call(WEBHOOK, Answered, 0), "delivery.state = 'due'"),
        point("webhook", READ, At::Call(WEBHOOK, Read, 0), "delivery.state = 'due'"),
        point("webhook", HALF, once("webhook_sender-*", 2, Torn), "delivery.state = 'due'"),
        point("webhook", COMMITTED, once("webhook_sender-*", 2, Done), "delivery.state = 'delivered'"),

        point("cancel", "before the commit", once("api-*", 1, Ahead), "job.status = 'processing'"),
        point("cancel", "half written", once("api-*", 1, Torn), "job.status = 'processing'"),
        point("cancel", "committed, unanswered", once("api-*", 1, Done), "job.status = 'cancelled'"),
        point("cancel", SENT, At::Call(CANCEL, Sent, 0), "job.status = 'cancelled' AND batch.state = 'submitted'"),
        point("cancel", ANSWERED, At::Call(CANCEL, Answered, 0), "job.status = 'cancelled' AND batch.state = 'submitted'"),
        point("cancel", READ, At::Call(CANCEL, Read, 0), "job.status = 'cancelled' AND batch.state = 'submitted'"),

        // Thirty lots are cancelled with the mark, and thirty with each transaction of the finisher.
        point("cancel chunks", "marked", once("finisher", 1, Ahead), "job.status = 'cancelled' AND job.changed_to = 30 AND delivery.state = 'scheduled'"),
        point("cancel chunks", "second half written", once("finisher", 1, Torn), "job.status = 'cancelled' AND job.changed_to = 30 AND delivery.state = 'scheduled'"),
        point("cancel chunks", "second committed", once("finisher", 1, Done), "job.status = 'cancelled' AND job.changed_to = 60 AND delivery.state = 'scheduled'"),
        point("cancel chunks", "last half written", once("finisher", 2, Torn), "job.status = 'cancelled' AND job.changed_to = 60 AND delivery.state = 'scheduled'"),
        point("cancel chunks", "last committed", once("finisher", 2, Done), "job.status = 'cancelled' AND job.pending_change IS NULL AND delivery.state = 'due'"),

        // The command reopens thirty lots with the mark, and each transaction of the finisher thirty more. The first one ended the failed job.
        point(RETRY, "marked", once("finisher", 1, Ahead), "delivery.state = 'scheduled' AND job.changed_to = 30"),
        point(RETRY, "second half written", once("finisher", 1, Torn), "delivery.state = 'scheduled' AND job.changed_to = 30"),
        point(RETRY, "second committed", once("finisher", 1, Done), "delivery.state = 'scheduled' AND job.changed_to = 60"),
        point(RETRY, "last half written", once("finisher", 2, Torn), "delivery.state = 'scheduled' AND job.changed_to = 60"),
        point(RETRY, "last committed", once("finisher", 2, Done), "delivery.state = 'scheduled' AND job.pending_change IS NULL"),

        point("delete", "before it is sent", delete(Before), "batch.cleaned_at IS NULL"),
        point("delete", ANSWERED, delete(Answered), "batch.cleaned_at IS NULL"),
        point("delete", READ, delete(Read), "batch.cleaned_at IS NULL"),
        point("delete", HALF, cleanup(Torn), "batch.cleaned_at IS NULL"),
        point("delete", COMMITTED, cleanup(Done), "batch.cleaned_at IS NOT NULL"),
    ]
}

/// The stages in their order.
const STAGES: [&str; 2] = ["vision", "translation"];
/// Returns a row when no file of an ingested batch is left at OpenAI.
const CLEANED: &str = "SELECT 1 WHERE NOT EXISTS
    (SELECT 1 FROM openai_batches WHERE state = 'ingested' AND cleaned_at IS NULL)";
/// The number of kills in one world before a new world is made.
const ROUNDS: u32 = 20;

impl Point {
    fn name(&self) -> String {
        format!("{}: {}", self.effect, self.moment)
    }

    /// Kills a daemon at this point `rounds` times, in both stages in turn, from the stage with this
    /// number on. Each time, the next daemon must finish the work.
    fn kill(&self, first_stage: u32, rounds: u32) {
        let mut rig = Rig::new(Options {
            tidy: true,
            ..Options::torture()
        });
        for round in 0..rounds {
            let (At::Commit(.., each) | At::Call(.., each)) = self.at;
            let stage = if each == 0 { 0 } else { (first_stage + round) % 2 };
            let strike = match self.at {
                At::Commit(thread, number, moment, _) => {
                    Strike::Commit(thread, number + each * stage, moment)
                }
                At::Call(line, moment, _) => Strike::Call(line, 1 + each * stage, moment),
            };
            let first = rig.jobs.len();
            let left = self.left(&rig, STAGES[stage as usize]);
            let cancels = self.effect.starts_with("cancel");
            if cancels {
                rig.faults(&json!([{"fault": "stall_in_progress"}]));
                let lots = if self.effect == "cancel" { 2 } else { 80 };
                rig.submit(lots, &["en", "ru"]);
                rig.wait_for("SELECT 1 FROM openai_batches WHERE openai_status = 'in_progress'");
                rig.strike(strike);
                rig.cancel_and_be_killed();
            } else if self.effect == RETRY {
                rig.faults(&json!([{"fault": "refusal_line"}]));
                rig.submit(80, &["en"]);
                rig.wait_until_through();
                rig.no_faults();
                rig.strike(strike);
                rig.retry_and_be_killed();
            } else {
                if self.effect == SAME_FILE {
                    rig.faults(&json!([{"fault": "file_lag_fail", "times": 1}]));
                }
                rig.strike(strike);
                rig.submit_and_be_killed(2, &["en", "ru"]);
            }
            assert_eq!(rig.number(&left), 1, "killed elsewhere: {left}");
            rig.start();
            if cancels {
                // The client repeats a submission that was not answered.
                assert!(rig.cancel());
                rig.no_faults();
                rig.submit(2, &["en", "ru"]);
            }
            rig.finish_from(first, Expected::default());
            // Otherwise the next round would count this round's last delete as its first.
            rig.wait_for(CLEANED);
        }
        rig.finish(Expected::default());
    }

    /// A query that gives 1 if the database holds the state that this point names of the newest job.
    fn left(&self, rig: &Rig, stage: &str) -> String {
        format!(
            "WITH job AS (SELECT j.* FROM batch_jobs j JOIN batch_lots l ON l.batch_job_id = j.id WHERE l.lot_id = 'LOT-{}-0'),
             batch AS (SELECT b.*, (SELECT count(*) FROM batch_lines l WHERE l.batch_id = b.id) AS claimed
                       FROM openai_batches b WHERE b.stage = '{stage}' AND b.id > {}),
             delivery AS (SELECT d.* FROM webhook_deliveries d JOIN job ON job.id = d.batch_job_id)
             SELECT EXISTS (SELECT 1 FROM (SELECT 1) LEFT JOIN job LEFT JOIN batch LEFT JOIN delivery WHERE {})",
            rig.jobs.len(),
            rig.number("SELECT coalesce(max(id), 0) FROM openai_batches"),
            self.left
        )
    }
}

/// Kills `kills` times at each point. Prints one row for each point, and fails if the oracle was
/// violated at one.
fn torture(kills: u32) {
    let only = std::env::var("BATCHKEEPER_TORTURE_POINT").unwrap_or_default();
    let points = points().into_iter();
    let points: Vec<Point> = points.filter(|point| point.name().contains(&only)).collect();
    let points: &'static [Point] = points.leak();
    let tasks = (0..points.len()).flat_map(|at| {
        let worlds = (0..kills).step_by(ROUNDS as usize);
        worlds.map(move |done| (at, ROUNDS.min(kills - done)))
    });
    let clock = SystemClock::new();
    let started = clock.now().steady;
    let mut sums = vec![(0, 0); points.len()];
    // Where each point is tried once, one half is tried in each stage.
    let kill = |(at, rounds): (usize, u32)| points[at].kill(u32::from(at % 2 == 1), rounds);
    for ((at, rounds), world) in side_by_side(tasks, kill) {
        sums[at].0 += rounds;
        sums[at].1 += u32::from(world.is_none());
        let (point, (done, violations)) = (&points[at], sums[at]);
        if done == kills {
            println!("| {} | {} | {done} | {violations} |", point.effect, point.moment);
        }
    }
    let (kills, violations) = sums.iter().fold((0, 0), |(kills, violations), sum| {
        (kills + sum.0, violations + sum.1)
    });
    let took = clock.now().steady.saturating_sub(started);
    println!(
        "{} points, {kills} kills, {violations} violations, {took:?}",
        points.len()
    );
    assert_eq!(violations, 0);
    assert!(kills > 0, "no point has {only:?} in its name");
}

#[test]
fn killed_at_every_point() {
    torture(1);
}

#[test]
#[ignore = "long: BATCHKEEPER_TORTURE_KILLS says how often"]
fn torture_at_every_point() {
    torture(environment("BATCHKEEPER_TORTURE_KILLS").unwrap_or(200));
}
