//! Wall clocks that are set forward and back.

use crate::MINUTE;
use crate::world::openai::{Course, Fate, Fault, Op};
use crate::world::{ALL_WORKERS, World};
use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::openai::BatchApi;
use batchkeeper::store::idempotency::{self, IdempotencyKey, KeyKind};
use batchkeeper::store::queue::{self, QueueSpace};
use batchkeeper::store::{View, clock};
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// The number of milliseconds of a day.
const DAY_MILLIS: i64 = 24 * 3_600_000;

#[test]
fn a_clock_that_is_set_delays_nothing_by_more_than_an_interval() {
    const DAY: i64 = 24 * 3_600_000;
    for by in [-DAY, DAY] {
        for state in [
            BatchState::Planned,
            BatchState::Uploaded,
            BatchState::Submitted,
            BatchState::Ended,
        ] {
            let mut world = World::with(|config| config.batch.max_requests = 2);
            let job = world.submit(&["one", "two", "three", "four", "five", "six"], &["en", "de"]);
            world.run_to(state);
            world.shift_clock(by);
            let settled = world.settle_within(60 * MINUTE);
            assert!(settled, "{by} in {state}\n{}", world.dump());
            world.assert_answered(&job);
            assert_eq!(world.made(), 6);
        }
    }
}

#[test]
fn a_clock_set_back_lets_no_batch_starve_behind_another() {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    for minutes in [600, 30, 30] {
        world.openai.state().courses.push_back(Course {
            latency: minutes * MINUTE,
            ..Course::default()
        });
    }
    let job = world.submit(&["one", "two", "three"], &["en"]);
    world.run_for(10 * MINUTE);
    world.shift_clock(-24 * 3_600_000);
    world.run_for(60 * MINUTE);
    assert_eq!(world.job(&job).processed_lots, 2, "{}", world.dump());
}

#[test]
fn a_clock_set_back_delays_missing_lines_by_their_patience_at_most() {
    let mut world = World::new();
    let fate = ("dented", Stage::Vision, Fate::Missing, 1);
    world.openai.state().fates.push(fate);
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.run_to(BatchState::Ended);
    world.shift_clock(-24 * 3_600_000);
    let settled = world.settle_within(world.config.openai.results_timeout * 2);
    assert!(settled, "{}", world.dump());
    world.assert_answered(&job);
}

/// A world in which a job of two stages is finished and ingested, and its webhook delivered.
fn finished_job() -> World {
    let mut world = World::with(|config| {
        config.backup.late_after = Duration::ZERO;
        config.retention.results = DAY * 30;
        config.retention.remote_files = DAY * 7;
    });
    world.turns = ALL_WORKERS;
    let job = world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
    world.settle();
    world.assert_answered(&job);
    world.run_for(HOUR);
    world
}

/// The rows and files that deletions by age remove.
fn kept(world: &World) -> [i64; 3] {
    let lots = world.number("SELECT count(*) FROM batch_lots");
    let uncleaned = world.number("SELECT count(*) FROM openai_batches WHERE cleaned_at IS NULL");
    [lots, uncleaned, world.number("SELECT count(*) FROM minute_stats")]
}

fn has_alert(world: &World, kind: &str) -> bool {
    world.number(&format!(
        "SELECT count(*) FROM alerts WHERE kind = '{kind}' AND closed_at IS NULL"
    )) == 1
}

#[test]
fn nothing_is_deleted_while_openai_contradicts_the_clock() {
    for days in [40, -40] {
        let mut world = finished_job();
        let before = kept(&world);
        assert_eq!(before[..2], [2, 2], "{}", world.dump());
        world.shift_clock(days * DAY_MILLIS);
        // The next comparison with OpenAI's list brings a Date.
        world.run_for(HOUR / 2);
        assert!(has_alert(&world, "clock_skew"), "{}", world.dump());
        world.shift_clock(-days * DAY_MILLIS);
        world.run_for(2 * MINUTE);
        assert!(!has_alert(&world, "clock_skew"), "{}", world.dump());
        assert_eq!(kept(&world), before, "{}", world.dump());
        assert_eq!(world.openai.count(Op::Delete), 0);
        world.advance(DAY * 31);
        world.run_for(HOUR);
        assert_eq!(kept(&world), [0; 3], "{}", world.dump());
        assert_eq!(world.openai.count(Op::Delete), 4);
    }
}

#[test]
fn nothing_is_deleted_by_a_clock_that_was_set_and_not_confirmed() {
    let mut world = finished_job();
    let before = kept(&world);
    // OpenAI's last answer was before the jump, or in another process.
    world.openai.state().always.push((Op::List, Fault::Lost));
    world.turns = &["auditor", "remote_cleanup", "retention"];
    for restarts in [false, true] {
        world.shift_clock(40 * DAY_MILLIS);
        if restarts {
            world.crash();
        }
        world.run_for(2 * HOUR);
        assert_eq!(kept(&world), before, "{}", world.dump());
        world.shift_clock(-40 * DAY_MILLIS);
    }
    // The operator says that the clock is right.
    world.advance(DAY * 31);
    world.run_for(HOUR);
    assert_eq!(kept(&world), before, "{}", world.dump());
    let now = world.now();
    let confirm = world.store().write(now, clock::confirm_by_operator);
    confirm.expect("confirmed");
    world.run_for(HOUR);
    assert_eq!(kept(&world), [0; 3], "{}", world.dump());
}

#[test]
fn a_job_that_ended_by_a_clock_that_was_behind_keeps_its_texts() {
    let mut world = World::with(|config| {
        config.backup.late_after = Duration::ZERO;
        config.retention.results = DAY * 30;
        config.retention.remote_files = DAY * 7;
    });
    world.turns = ALL_WORKERS;
    world.shift_clock(-40 * DAY_MILLIS);
    world.submit(&["dented door"], &["en"]);
    world.settle();
    world.run_for(HOUR);
    let before = kept(&world);
    world.shift_clock(40 * DAY_MILLIS);
    world.run_for(HOUR);
    assert_eq!(kept(&world)[..2], before[..2], "{}", world.dump());
    assert_eq!(world.openai.count(Op::Delete), 0);
}

#[test]
fn a_clock_that_is_not_confirmed_for_a_week_is_reported() {
    let mut world = finished_job();
    world.openai.state().always.push((Op::List, Fault::Lost));
    world.crash();
    world.advance(DAY * 6);
    world.run_for(2 * MINUTE);
    assert!(!has_alert(&world, "clock_unconfirmed"), "{}", world.dump());
    world.advance(DAY);
    world.run_for(2 * MINUTE);
    assert!(has_alert(&world, "clock_unconfirmed"), "{}", world.dump());
    world.openai.state().always.clear();
    world.run_for(HOUR);
    assert!(!has_alert(&world, "clock_unconfirmed"), "{}", world.dump());
}

#[test]
fn a_clock_that_was_a_year_ahead_leaves_no_trace() {
    let mut world = World::with(|config| config.backup.late_after = Duration::ZERO);
    world.turns = ALL_WORKERS;
    world.shift_clock(365 * DAY_MILLIS);
    let job = world.submit(&["dented door"], &["en"]);
    let seq = world.job(&job).seq;
    let signature = IdempotencyKey {
        kind: KeyKind::Signature,
        text: "5e",
    };
    let stored = world.store().write(world.now(), |tx| {
        queue::learn(tx, "a model", 1_000)?;
        idempotency::record_use(tx, "a", signature, "", Some(seq), None)
    });
    stored.expect("stored");
    world.settle();
    world.shift_clock(-365 * DAY_MILLIS);
    world.run_for(2 * MINUTE);
    let limits = |world: &World| {
        let space = |view: &View| queue::space(view, world.openai.identity(), "a model", world.now());
        world.store().read(space).expect("a space")
    };
    // The client sends the same again: windows run from the correction on.
    let repeat = |world: &mut World| world.send_again_without_a_key(0);
    assert_eq!(repeat(&mut world).as_deref(), Some(job.as_str()));
    assert_ne!(limits(&world), QueueSpace::Unlimited);
    world.advance(HOUR - 4 * MINUTE);
    assert_eq!(repeat(&mut world).as_deref(), Some(job.as_str()));
    world.advance(5 * MINUTE);
    assert_eq!(repeat(&mut world), None, "{}", world.dump());
    let signatures = "SELECT count(*) FROM idempotency_keys WHERE kind = 'signature' AND key = '5e'";
    world.advance(HOUR * 22);
    world.run_for(2 * MINUTE);
    assert_eq!(world.number(signatures), 1);
    world.advance(HOUR);
    world.run_for(20 * MINUTE);
    assert_eq!(world.number(signatures), 0, "{}", world.dump());
    world.advance(DAY * 6);
    assert_eq!(limits(&world), QueueSpace::Unlimited);
}
