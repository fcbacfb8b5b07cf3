//! OpenAI refuses one object, or the account: one refused batch stops nothing else, and a key that may not do its
//! work does not repeat it for each batch.

use std::time::Duration;

use crate::MINUTE;
use crate::world::openai::{Course, Fault, Op};
use crate::world::{ALL_WORKERS, World};
use batchkeeper::domain::batch::BatchState;
use batchkeeper::domain::decide::backoff::longest_backoff;

const HOUR: Duration = Duration::from_hours(1);
const FORBIDDEN: Fault = Fault::Refused(403, "", "");
const FINAL: &str = "SELECT count(*) FROM batch_jobs WHERE completed_at IS NOT NULL";

fn world() -> World {
    let mut world = World::new();
    world.turns = ALL_WORKERS;
    world
}

/// Every call of that kind for one object is refused.
fn refuse(world: &World, op: Op, object: Option<String>) {
    let object = object.expect("an object");
    world.openai.state().of_objects.push((op, object, FORBIDDEN));
}

/// One call for each pause of a refused account, and the first ones.
fn most_probes(world: &World, time: Duration) -> usize {
    let pause = longest_backoff(world.config.openai.retry_interval);
    usize::try_from(time.as_secs() / pause.as_secs()).unwrap() + 3
}

fn texts_of(kind: &str) -> String {
    format!("SELECT message FROM alerts WHERE kind = '{kind}' AND closed_at IS NULL")
}

#[test]
fn one_batch_that_cannot_be_polled_stops_no_other_job() {
    let mut world = world();
    let refused = world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Submitted);
    let id = row.openai_batch_id.clone();
    refuse(&world, Op::Batch, id.clone());
    refuse(&world, Op::Cancel, id.clone());
    for _ in 0..120 {
        world.submit(&["cracked lamp"], &["en"]);
        world.run_for(75 * Duration::from_secs(1));
    }
    // 2.5 hours have passed.
    let done = world.number(FINAL);
    println!("{done} of 121 jobs in {:?}", world.elapsed);
    assert!(done >= 116, "{done} of 121 jobs\n{}", world.dump());
    world.run_for(10 * MINUTE);
    assert_eq!(world.number(FINAL), 120, "{}", world.dump());
    let alert = world.texts(&texts_of("batch_refused"));
    assert!(alert.len() == 1 && alert[0].contains(&id.unwrap()), "{alert:?}");
    assert_eq!(world.open_alerts(), ["batch_refused"], "{}", world.dump());
    let failures = world.number(&format!(
        "SELECT failures FROM openai_batches WHERE id = {}",
        row.id
    ));
    assert!(failures > 3, "{failures}");
    // It may run: nothing of it is sent again before an operator abandons it.
    assert_eq!(world.abandon(row.id), 1);
    world.run_for(10 * MINUTE);
    world.assert_answered(&refused);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn one_file_that_cannot_be_downloaded_stops_no_other_job() {
    let mut world = world();
    world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Ended);
    refuse(&world, Op::Download, row.output.id.clone());
    for _ in 0..10 {
        world.submit(&["cracked lamp"], &["en"]);
        world.run_for(3 * MINUTE);
    }
    world.run_for(20 * MINUTE);
    assert_eq!(world.number(FINAL), 10, "{}", world.dump());
    assert_eq!(world.texts(&texts_of("results_unavailable")).len(), 1);
    world.openai.state().of_objects.clear();
    world.settle();
    world.run_for(10 * MINUTE);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn one_upload_or_create_that_is_refused_stops_no_other_job() {
    for (op, state, kind) in [
        (Op::Upload, BatchState::Sealed, "upload_failed"),
        (Op::Create, BatchState::Uploaded, "create_refused"),
    ] {
        let mut world = world();
        let job = world.submit(&["dented door"], &["en"]);
        let row = world.run_to(state);
        let object = match op {
            Op::Upload => Some(format!("batchkeeper-{}.jsonl", row.key)),
            _ => row.input_file_id.clone(),
        };
        refuse(&world, op, object);
        for _ in 0..10 {
            world.submit(&["cracked lamp"], &["en"]);
            world.run_for(5 * MINUTE);
        }
        world.run_for(20 * MINUTE);
        assert_eq!(world.number(FINAL), 10, "{op:?}\n{}", world.dump());
        assert_eq!(world.texts(&texts_of(kind)).len(), 1, "{}", world.dump());
        assert!(world.texts(&texts_of("openai_account")).is_empty());
        // OpenAI does not have it: nothing can be billed again.
        assert_eq!(world.abandon(row.id), 0);
        world.settle();
        world.assert_answered(&job);
    }
}

#[test]
fn a_key_that_may_list_and_not_create_makes_two_uploads() {
    for op in [Op::Create, Op::Upload] {
        let mut world = world();
        world.openai.state().always.push((op, FORBIDDEN));
        for _ in 0..30 {
            world.submit(&["dented door"], &["en"]);
            world.run_for(20 * MINUTE);
        }
        let (uploads, tries) = (world.openai.count(Op::Upload), world.openai.count(op));
        println!("{op:?}: {uploads} uploads, {tries} refused in 10 h");
        assert!(tries <= most_probes(&world, 10 * HOUR), "{tries}");
        assert!(op == Op::Upload || uploads == 2, "{uploads}\n{}", world.dump());
        let planned = world.number("SELECT count(*) FROM openai_batches");
        assert_eq!(planned, 2, "{}", world.dump());
        let mut alerts = world.open_alerts();
        alerts.dedup();
        assert_eq!(alerts, ["openai_account", "stuck_job"]);
        let opened = "SELECT count(*) FROM alerts WHERE kind = 'openai_account'";
        assert_eq!(world.number(opened), 1);
        world.openai.state().always.clear();
        world.settle();
        world.run_for(10 * MINUTE);
        assert_eq!(world.number(FINAL), 30);
        assert!(world.open_alerts().is_empty(), "{}", world.dump());
    }
}

#[test]
fn a_key_that_may_not_read_batches_is_the_accounts_trouble() {
    let mut world = world();
    for _ in 0..3 {
        let course = Course {
            latency: 2 * HOUR,
            ..Course::default()
        };
        world.openai.state().courses.push_back(course);
        world.submit(&["dented door"], &["en"]);
        world.run_for(10 * MINUTE);
    }
    let polls = world.openai.count(Op::Batch);
    world.openai.state().always.push((Op::Batch, FORBIDDEN));
    world.run_for(6 * HOUR);
    assert!(
        world.texts(&texts_of("batch_refused")).is_empty(),
        "{}",
        world.dump()
    );
    // The listings that succeed do not close the alert.
    let opened = "SELECT count(*) FROM alerts WHERE kind = 'openai_account'";
    assert_eq!(world.number(opened), 1, "{}", world.dump());
    let polls = world.openai.count(Op::Batch) - polls;
    assert!(polls <= most_probes(&world, 6 * HOUR), "{polls}");
    world.openai.state().always.clear();
    world.settle();
    world.run_for(10 * MINUTE);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn a_stalled_job_names_what_it_waits_for() {
    for (fault, cause) in [
        (Fault::Refused(404, "", ""), "HTTP 404"),
        (Fault::Refused(401, "invalid_api_key", ""), "invalid_api_key"),
    ] {
        let mut world = world();
        world.openai.state().always.push((Op::List, fault));
        world.submit(&["dented door"], &["en"]);
        world.run_for(4 * HOUR);
        let stalled = world.texts(&texts_of("stuck_job"));
        assert!(stalled.len() == 1 && stalled[0].contains(cause), "{stalled:?}");
        assert_eq!(world.openai.count(Op::Upload), 0);
        world.openai.state().always.clear();
        world.settle();
        world.run_for(10 * MINUTE);
        assert!(world.open_alerts().is_empty(), "{}", world.dump());
    }
}
