//! Two batches under one submission key.

use crate::MINUTE;
use crate::world::World;
use crate::world::openai::{Course, Fate, Fault, Op};
use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::domain::openai::BatchStatus;

#[test]
fn a_second_batch_under_one_key_is_taken_in_too() {
    let mut world = World::new();
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::Twice);
    world.run_to(BatchState::Submitted);
    world.crash();
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 2);
    assert_eq!(world.texts("SELECT kind FROM alerts"), ["duplicate_batch"]);
    assert_eq!(
        world.number(
            "SELECT count(*) FROM openai_batches WHERE duplicate_of IS NOT NULL AND state = 'ingested'"
        ),
        1
    );
}

#[test]
fn what_the_first_of_two_could_not_do_the_second_may() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    {
        let mut openai = world.openai.state();
        openai.fail(Op::Create, Fault::Twice);
        openai.courses.push_back(Course {
            latency: 20 * MINUTE,
            ..Course::default()
        });
        openai.courses.push_back(Course::default());
        openai.fates.push(("dented", Stage::Vision, Fate::Missing, 1));
    }
    world.run_to(BatchState::Submitted);
    world.crash();
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_second_batch_that_still_runs_is_cancelled() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    {
        let mut openai = world.openai.state();
        openai.fail(Op::Create, Fault::Twice);
        for minutes in [30, 300] {
            openai.courses.push_back(Course {
                latency: minutes * MINUTE,
                ..Course::default()
            });
        }
    }
    world.run_to(BatchState::Submitted);
    world.crash();
    world.settle();
    world.assert_answered(&job);
    let openai = world.openai.state();
    let cancelled = |batch: &&crate::world::openai::HeldBatch| batch.status == BatchStatus::Cancelled;
    assert_eq!(openai.batches.iter().filter(cancelled).count(), 1);
}
