//! An input file that OpenAI's validation does not see yet: the create succeeds, and the batch ends as failed.

use std::collections::BTreeMap;
use std::time::Duration;

use batchkeeper::domain::batch::BatchState;
use batchkeeper::openai::Batch;
use batchkeeper::sandbox::{Fault as Listed, FaultRule};
use batchkeeper::store::batches::{self, ListedBatch};
use serde_json::json;

use crate::MINUTE;
use crate::world::openai::{Course, Fault, Op};
use crate::world::{ALL_WORKERS, World};

/// The validation does not find files that are younger than this.
fn lag(world: &World, lag: Duration, of: &[&str]) -> Vec<u64> {
    let millis = u64::try_from(lag.as_millis()).expect("short");
    let rule = FaultRule::new(Listed::FileLagFail).value(millis).matching(of);
    let openai = world.openai.state();
    openai.model().add_fault_rules(vec![rule]).expect("in memory")
}

fn forget(world: &World, rules: &[u64]) {
    world.openai.state().model().remove_fault_rules(rules);
}

fn states(world: &World) -> Vec<String> {
    world.texts("SELECT state FROM openai_batches ORDER BY id")
}

#[test]
fn a_short_lag_each_time_costs_one_batch_and_no_upload() {
    let mut world = World::new();
    lag(&world, Duration::from_millis(200), &[]);
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.run_for(10 * MINUTE);
    world.assert_answered(&job);
    assert_eq!(states(&world), ["failed", "ingested"]);
    assert_eq!(world.openai.count(Op::Upload), 1);
    assert_eq!(world.number("SELECT count(*) FROM alerts"), 0);
    assert_eq!(world.number("SELECT sum(attempts) FROM requests"), 0);
    let keys =
        "SELECT count(DISTINCT submission_key) * 10 + count(DISTINCT input_file_id) FROM openai_batches";
    assert_eq!(world.number(keys), 21);
}

#[test]
fn only_the_batch_of_the_late_file_waits() {
    let mut world = World::new();
    let all = lag(&world, 9 * MINUTE, &[]);
    let first = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Failed);
    let file = world.texts("SELECT input_file_id FROM openai_batches").remove(0);
    forget(&world, &all);
    lag(&world, 9 * MINUTE, &[&file]);
    let other = world.submit_as("b", &["worn seat"], &["en"]);
    world.run_for(5 * MINUTE);
    world.assert_answered(&other);
    assert!(world.job(&first).completed_at.is_none());
    world.run_for(10 * MINUTE);
    world.assert_answered(&first);
    assert_eq!(world.openai.count(Op::Upload), 2);
    assert_eq!(world.number("SELECT count(*) FROM alerts"), 0);
}

#[test]
fn a_file_that_is_not_found_for_long_is_uploaded_again_after_a_pause() {
    let mut world = World::new();
    let rules = lag(&world, Duration::from_hours(100), &[]);
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(Duration::from_hours(2));
    assert_eq!(world.open_alerts(), ["model_refused"]);
    assert!(
        (2..10).contains(&world.openai.count(Op::Upload)),
        "{}",
        world.dump()
    );
    assert!(world.made() < 100, "{}", world.dump());
    forget(&world, &rules);
    world.settle();
    world.assert_answered(&job);
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
}

#[test]
fn the_answer_of_the_second_create_may_be_lost() {
    for fault in [
        Fault::ReplyLost,
        Fault::Lost,
        Fault::CrashAfter,
        Fault::CrashBefore,
    ] {
        let mut world = World::new();
        lag(&world, Duration::from_millis(200), &[]);
        let job = world.submit(&["dented door"], &["en"]);
        world.run_to(BatchState::Failed);
        world.openai.state().fail(Op::Create, fault);
        world.settle();
        world.assert_answered(&job);
        assert_eq!(world.openai.count(Op::Upload), 1);
    }
}

/// A batch that a listing shows without our key.
fn without_key(id: &str, input: &str) -> Batch {
    let batch = Batch::from_json(
        &json!({"id": id, "status": "in_progress", "input_file_id": input, "created_at": 1}),
    );
    let batch = batch.expect("a batch");
    assert_eq!(batch.metadata, BTreeMap::new());
    batch
}

#[test]
fn a_failed_batch_is_no_evidence_by_its_file() {
    let mut world = World::new();
    lag(&world, 9 * MINUTE, &[]);
    world.submit(&["dented door"], &["en"]);
    let failed = world.run_to(BatchState::Failed);
    let next = world.run_to(BatchState::Uploaded);
    assert_eq!(next.input_file_id, failed.input_file_id);
    let listed = |id: &str| {
        let remote = without_key(id, failed.input_file_id.as_deref().expect("a file"));
        let store = world.store();
        let database = store.database_id().to_owned();
        store.write(world.now(), |tx| batches::link_listed(tx, &database, &remote))
    };
    assert_eq!(
        listed("batch_next").expect("linked"),
        ListedBatch::Linked(next.id)
    );
    world
        .execute("UPDATE openai_batches SET openai_status = 'failed'")
        .expect("refused");
    assert_eq!(listed("batch_other").expect("read"), ListedBatch::Foreign);
}

#[test]
fn a_file_stays_at_openai_while_a_batch_needs_it() {
    let mut world = World::with(|config| {
        config.retention.remote_files = 30 * MINUTE;
        config.backup.late_after = Duration::ZERO;
    });
    world.turns = ALL_WORKERS;
    lag(&world, Duration::from_millis(200), &[]);
    let slow = Course {
        latency: Duration::from_hours(3),
        ..Course::default()
    };
    world.openai.state().courses.extend([Course::default(), slow]);
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(Duration::from_hours(2));
    // The files of the failed batch are cleaned, all but the one that the next batch needs.
    assert_eq!(
        world.number("SELECT count(*) FROM openai_batches WHERE cleaned_at IS NOT NULL"),
        1
    );
    assert_eq!(world.openai.files().len(), 1);
    world.settle();
    world.assert_answered(&job);
    world.run_for(Duration::from_hours(1));
    assert!(world.openai.files().is_empty(), "{:?}", world.openai.files());
}
