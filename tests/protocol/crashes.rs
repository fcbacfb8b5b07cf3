//! A crash in each state of the submission protocol, and what a restart does.

use crate::MINUTE;
use crate::world::openai::{Fault, Op};
use crate::world::{Ticked, World};
use batchkeeper::domain::batch::BatchState;

/// Runs to a state, crashes in it and settles: one batch a stage, everything answered.
fn crash_in(state: BatchState) {
    let mut world = World::new();
    let job = world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
    world.run_to(state);
    world.crash();
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 2, "{}", world.dump());
}

#[test]
fn a_crash_while_planned_seals_what_is_there() {
    crash_in(BatchState::Planned);
}

#[test]
fn a_crash_before_anything_was_claimed_drops_the_empty_batch() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.advance(MINUTE);
    world.tick("submitter");
    world.cut_power("INSERT", "batch_lines");
    assert_eq!(world.tick("submitter"), Ticked::Crashed);
    assert!(world.batch_in(BatchState::Planned).is_some());
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn a_crash_while_sealed_uploads_the_same_bytes() {
    crash_in(BatchState::Sealed);
}

#[test]
fn a_sealed_input_that_vanished_is_written_again() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Sealed);
    for file in std::fs::read_dir(world.config.spool()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    world.crash();
    let uploaded = world.run_to(BatchState::Uploaded);
    assert_eq!(uploaded.input_sha256, row.input_sha256);
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_crash_while_uploaded_creates_it_once() {
    crash_in(BatchState::Uploaded);
}

#[test]
fn a_crash_while_creating_looks_for_it_first() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en"]);
        world.run_to(BatchState::Uploaded);
        world.openai.state().fail(Op::Create, fault);
        world.settle();
        world.assert_answered(&job);
        assert_eq!(world.made(), 1, "{}", world.dump());
    }
}

#[test]
fn a_crash_while_submitted_polls_on() {
    crash_in(BatchState::Submitted);
}

#[test]
fn a_crash_while_ended_takes_in_from_where_it_was() {
    crash_in(BatchState::Ended);
}

#[test]
fn a_crash_between_chunks_takes_each_line_in_once() {
    let mut world = World::new();
    let texts: Vec<String> = (0..700).map(|n| format!("lot number {n}.")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let job = world.submit(&texts, &["en"]);
    world.run_to(BatchState::Ended);
    while !world.is_settled() {
        world.tick("ingester");
        world.crash();
        world.tick("finisher");
    }
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn a_result_file_that_vanished_from_the_spool_is_fetched_again() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Ended);
    world.tick("ingester");
    for file in std::fs::read_dir(world.config.spool()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.openai.count(Op::Download), 2);
}

#[test]
fn a_crash_after_the_upload_finds_it_by_its_name() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Upload, Fault::CrashAfter);
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Upload), world.made()), (1, 1));
}
