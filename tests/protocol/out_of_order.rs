//! Events in another order than usual: nothing is sent without its text, nothing that is
//! here is paid again, and no second batch stays unseen.

use std::path::PathBuf;
use std::time::Duration;

use crate::world::World;
use crate::world::openai::{Course, End, Fate, Fault, Op, error_entry};
use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::domain::job::JobStatus;

const MINUTE: Duration = Duration::from_mins(1);
const UNAVAILABLE: Fault = Fault::Refused(500, "server_error", "");

/// A job whose descriptions are in, and whose translations OpenAI will refuse; with a backup from
/// before both.
fn described_and_translated(world: &mut World) -> (String, PathBuf) {
    let full = vec![error_entry("token_limit_exceeded", None)];
    let ends = [End::Completes, End::Refused(full)].map(Course::ends);
    world.openai.state().courses.extend(ends);
    let job = world.submit(&["dented door"], &["en", "de"]);
    world.run_to(BatchState::Submitted);
    let backup = world.back_up();
    while world.made() < 2 {
        world.run_for(MINUTE);
    }
    (job, backup)
}

/// A database from before its translations: their batch is linked by `recover`, and fails while the
/// description that it was made from cannot be downloaded.
#[test]
fn a_translation_that_is_linked_before_its_description_waits_for_it() {
    let mut world = World::new();
    let (job, backup) = described_and_translated(&mut world);
    world.openai.state().always.push((Op::Download, UNAVAILABLE));
    world.restore(&backup);
    world.run_for(MINUTE);
    // Also the input says what a batch asks for: that is read, once.
    world.openai.state().always.clear();
    assert_eq!(world.recover(), None);
    world.openai.state().always.push((Op::Download, UNAVAILABLE));
    world.run_for(30 * MINUTE);
    let put_off = "SELECT count(*) FROM requests WHERE stage = 'translation' AND state = 'cancelled'";
    assert_eq!(world.number(put_off), 1, "{}", world.dump());
    assert_eq!(world.made(), 2, "nothing is sent before there is a text");
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 3);
}

/// The same, where the description fails for good: then so does its translation.
#[test]
fn a_translation_of_a_lot_that_cannot_be_described_is_sent_no_more() {
    let mut world = World::new();
    let (job, backup) = described_and_translated(&mut world);
    world.restore(&backup);
    assert_eq!(world.recover(), None);
    let vision = world.number("SELECT id FROM openai_batches WHERE stage = 'vision'");
    let refusal = ("dented", Stage::Vision, Fate::Refused, 9);
    world.openai.state().fates.push(refusal);
    let gone = Fault::Refused(404, "", "");
    let batch = world.texts("SELECT openai_batch_id FROM openai_batches WHERE stage = 'vision'");
    world
        .openai
        .state()
        .of_objects
        .push((Op::Batch, batch[0].clone(), gone));
    world.abandon(vision);
    world.settle();
    assert_eq!(world.job(&job).status, JobStatus::Failed, "{}", world.dump());
    let sent = "SELECT count(*) FROM batch_lines l JOIN requests r ON r.id = l.request_id WHERE r.stage = 'translation'";
    assert_eq!(world.number(sent), 1, "{}", world.dump());
}

/// A text that came when its lot had failed already is what `retry --failed-lots` takes; nothing is
/// paid for it again.
#[test]
fn a_late_text_is_not_paid_again() {
    let mut world = World::new();
    let refusal = ("dented", Stage::Vision, Fate::Refused, 9);
    world.openai.state().fates.push(refusal);
    let job = world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
    world.settle();
    assert_eq!(world.job(&job).failed_lots, 1);
    let text = crate::world::openai::described("dented door");
    world
        .execute(&format!(
            "UPDATE batch_lots SET vision_result = '{text}' WHERE position = 0"
        ))
        .expect("stored");
    let made = world.made();
    world.retry_failed_lots(&job);
    world.settle();
    world.assert_answered(&job);
    let again = "SELECT count(*) FROM batch_lines l JOIN requests r ON r.id = l.request_id
                 WHERE r.stage = 'vision' AND r.lot = 1";
    assert_eq!(world.number(again), 1, "its description is not asked for again");
    assert_eq!(world.made(), made + 1, "its translation is");
}

/// OpenAI made two batches of one create, and no listing succeeds for hours, in which others are made.
#[test]
fn a_second_batch_comes_to_light_by_the_first_listing_that_succeeds() {
    let mut world = World::new();
    world.turns = &["submitter", "poller", "ingester", "finisher", "auditor"];
    // A longer page would show older ones, too.
    world.openai.state().page = 2;
    world.openai.state().fail(Op::Create, Fault::Twice);
    world.submit(&["worn seat"], &["en"]);
    world.run_to(BatchState::Submitted);
    world.openai.state().always.push((Op::List, Fault::Html(502)));
    for _ in 0..5 {
        let job = world.submit(&["dented door"], &["en"]);
        world.settle();
        world.assert_answered(&job);
        world.run_for(60 * MINUTE);
    }
    assert_eq!(world.number("SELECT count(*) FROM openai_batches"), 6);
    world.openai.state().always.clear();
    world.run_for(30 * MINUTE);
    assert_eq!(
        world.number("SELECT count(*) FROM openai_batches"),
        7,
        "{}",
        world.dump()
    );
}
