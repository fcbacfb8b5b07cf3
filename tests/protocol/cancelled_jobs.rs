//! Batches of jobs that are cancelled.

use crate::world::World;
use crate::world::openai::{Fate, Fault, Op};
use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::domain::job::{JobStatus, LotStatus};
use std::time::Duration;

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

/// The state of each lot of a job, and how many of its lots count as processed.
fn states(world: &World, job: &str) -> (Vec<LotStatus>, u32) {
    let lots = world.lots(job).iter().map(|lot| lot.status).collect();
    (lots, world.job(job).processed_lots)
}

#[test]
fn a_cancelled_lot_with_a_text_is_completed_and_late_texts_change_no_state() {
    use LotStatus::{Cancelled, Completed};
    let mut world = World::new();
    let fate = ("dented", Stage::Vision, Fate::Status(500), 1);
    world.openai.state().fates.push(fate);
    let english = world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
    let german = world.submit(&["scratched roof"], &["de"]);
    world.run_to(BatchState::Ingested);
    world.cancel(&english);
    world.cancel(&german);
    world.tick("finisher");
    world.tick("finisher");
    // The description of the first lot waits to be asked for again. That of the third was not asked for.
    assert_eq!(states(&world, &english), (vec![Cancelled, Completed], 1));
    assert_eq!(states(&world, &german), (vec![Cancelled], 0));
    assert_eq!(
        world.lots(&english)[1].error_message.as_deref(),
        Some("the job was cancelled before")
    );
    let late = world.submit(&["broken mirror"], &["de"]);
    world.run_to(BatchState::Ended);
    world.cancel(&late);
    world.settle();
    assert!(world.lots(&late)[0].vision_result.is_some());
    assert_eq!(states(&world, &late), (vec![Cancelled], 0));
}

#[test]
fn a_translation_that_comes_after_the_cancellation_changes_no_state() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["de"]);
    let vision = world.run_to(BatchState::Ingested);
    let translation = world.run_to(BatchState::Ended);
    assert_ne!(vision.id, translation.id);
    world.cancel(&job);
    let before = states(&world, &job);
    world.settle();
    assert!(world.lots(&job)[0].translations["de"].is_ok());
    assert_eq!(states(&world, &job), before);
    assert_eq!(before, (vec![LotStatus::Cancelled], 0));
}

#[test]
fn a_large_job_is_cancelled_at_once_and_its_lots_in_chunks() {
    use LotStatus::{Cancelled, Completed};
    let mut world = World::new();
    let job = world.submit(&["one", "two", "three"], &["en", "de"]);
    world.run_to(BatchState::Ingested);
    // The translations of the second and third lot wait or are on their way.
    world.cancel(&job);
    assert_eq!(world.job(&job).status, JobStatus::Cancelled);
    let pending = "SELECT count(*) FROM batch_lots WHERE status = 'pending'";
    assert_eq!(world.number(pending), 2);
    assert_eq!(states(&world, &job), (vec![Completed; 3], 1));
    let due = "SELECT count(*) FROM webhook_deliveries WHERE state = 'due'";
    assert_eq!(world.number(due), 0);
    world.crash();
    for left in [1, 0] {
        world.tick("finisher");
        assert_eq!(world.number(pending), left);
    }
    world.settle();
    assert_eq!(states(&world, &job), (vec![Completed; 3], 3));
    // No translation was sent.
    assert_eq!(world.made(), 1);
    let other = world.submit(&["four", "five"], &["de"]);
    world.run_to(BatchState::Ended);
    world.cancel(&other);
    // The ingester reads the answer of the second lot before the turn of that lot comes.
    while world.batch_in(BatchState::Ended).is_some() {
        world.tick("ingester");
    }
    assert!(world.lots(&other)[1].vision_result.is_some());
    world.settle();
    assert_eq!(states(&world, &other), (vec![Cancelled; 2], 0));
    assert_eq!(
        world.number("SELECT count(*) FROM requests WHERE stage = 'translation' AND lot > 3"),
        0
    );
}

#[test]
fn a_planned_batch_waits_until_a_cancelled_job_has_left_it() {
    let mut world = World::new();
    let job = world.submit(&["one", "two", "three"], &["en"]);
    world.run_to(BatchState::Planned);
    world.cancel(&job);
    for _ in 0..3 {
        world.tick("submitter");
        assert!(world.batch_in(BatchState::Planned).is_some());
        world.advance(Duration::from_secs(1));
    }
    world.settle();
    assert_eq!(world.made(), 0);
}
