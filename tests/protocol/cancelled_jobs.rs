//! Batches of jobs that are cancelled.

use crate::world::World;
use crate::world::openai::{Fault, Op};
use batchkeeper::domain::batch::BatchState;
use batchkeeper::domain::job::JobStatus;

#[test]
fn a_batch_that_nobody_wants_any_more_is_not_created() {
    for state in [BatchState::Sealed, BatchState::Uploaded, BatchState::Creating] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en"]);
        world.openai.state().fail(Op::Create, Fault::Lost);
        world.run_to(state);
        world.cancel(&job);
        world.settle();
        assert_eq!(world.made(), 0, "{state}");
        assert_eq!(world.job(&job).status, JobStatus::Cancelled);
    }
}

#[test]
fn a_batch_that_nobody_wants_any_more_is_cancelled_and_what_it_answered_is_kept() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en", "de"]);
    world.run_to(BatchState::Ended);
    world.cancel(&job);
    let other = world.submit(&["cracked lamp"], &["en"]);
    world.run_to(BatchState::Submitted);
    world.cancel(&other);
    world.settle();
    assert!(world.lots(&job)[0].vision_result.is_some());
    assert_eq!(world.job(&job).status, JobStatus::Cancelled);
    assert_eq!(world.openai.count(Op::Cancel), 1);
    assert_eq!(world.made(), 2);
}
