//! The comparison with OpenAI after a start, and after a backup was put back.

use crate::MINUTE;
use crate::world::World;
use crate::world::openai::{Fault, Op};
use batchkeeper::domain::batch::BatchState;

#[test]
fn nothing_is_created_before_the_comparison_after_a_start() {
    let mut world = World::new();
    world
        .openai
        .state()
        .always
        .push((Op::List, Fault::Refused(500, "server_error", "")));
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(30 * MINUTE);
    assert_eq!(world.openai.count(Op::Create), 0);
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_restored_backup_that_missed_a_batch_stops_all_creates() {
    let mut world = World::new();
    let first = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&first);
    let backup = world.back_up();
    world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    world.restore(&backup);
    world.forget_jobs_that_are_gone();
    world.submit(&["worn seat"], &["en"]);
    world.run_for(60 * MINUTE);
    assert_eq!(world.made(), 2);
    assert_eq!(world.open_alerts(), ["restored_database"]);
    world.crash();
    world.run_for(60 * MINUTE);
    assert_eq!(world.made(), 2);
}

/// A backup from when a batch stood in `state`, put back after the batch was made.
fn restore_to(state: BatchState) -> World {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(state);
    let backup = world.back_up();
    world.run_to(BatchState::Submitted);
    world.restore(&backup);
    world.run_for(120 * MINUTE);
    assert_eq!(world.made(), 1, "{}", world.dump());
    if state != BatchState::Planned {
        world.assert_answered(&job);
    }
    world
}

#[test]
fn a_restored_backup_finds_the_batch_of_a_submission_that_it_has_under_way() {
    for state in [BatchState::Sealed, BatchState::Uploaded, BatchState::Submitted] {
        let world = restore_to(state);
        assert!(world.open_alerts().is_empty(), "{}", world.dump());
    }
}

#[test]
fn a_restored_backup_does_not_trust_a_batch_that_it_had_not_sealed() {
    let mut world = restore_to(BatchState::Planned);
    assert_eq!(world.open_alerts(), ["restored_database"]);
    world.crash();
    world.run_for(60 * MINUTE);
    assert_eq!(world.made(), 1);
    assert_eq!(world.open_alerts(), ["restored_database"]);
}

#[test]
fn another_databases_batches_are_left_alone() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    let other = [("batchkeeper", "another database"), ("submission", "theirs")];
    let other = other.map(|(key, value)| (key.to_owned(), value.to_owned()));
    world.is_restored = true; // Of theirs no row knows.
    let file = world.openai.upload_theirs();
    world
        .openai
        .state()
        .add_batch(&file, other.into(), false)
        .unwrap();
    world.crash();
    let second = world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    world.assert_answered(&second);
    assert!(world.open_alerts().is_empty());
}
