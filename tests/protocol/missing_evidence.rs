//! Facts that OpenAI does not give yet: the workers wait for them and open an alert.

use crate::MINUTE;
use crate::world::World;
use crate::world::openai::{Course, End, Fate, Fault, Op};
use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::jobs::webhook_body::webhook_body;
use batchkeeper::openai::BatchApi;
use std::time::Duration;

#[test]
fn a_batch_past_its_window_that_cannot_be_polled_is_reported() {
    let mut world = World::new();
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Submitted);
    world.openai.state().always.push((Op::Batch, Fault::Html(502)));
    world.run_for(Duration::from_hours(23));
    assert!(world.open_alerts().is_empty());
    world.run_for(Duration::from_hours(2));
    assert_eq!(world.open_alerts(), ["batch_overdue"]);
    world.openai.state().always.clear();
    world.settle();
    assert!(world.open_alerts().is_empty());
}

#[test]
fn lines_missing_from_an_expired_batch_are_waited_for() {
    let mut world = World::new();
    {
        let mut openai = world.openai.state();
        openai.courses.push_back(Course::ends(End::Expires(2)));
        openai.fates.push(("dented", Stage::Vision, Fate::Missing, 1));
    }
    let job = world.submit(&["dented door", "cracked lamp", "worn seat"], &["en"]);
    world.run_to(BatchState::Submitted);
    world.run_for(Duration::from_hours(25));
    assert_eq!(world.made(), 1, "{}", world.dump());
    world.settle();
    world.assert_answered(&job);
    // The missing line is sent at once, the one that never ran after its wait.
    assert_eq!(world.made(), 3);
}

#[test]
fn a_part_of_an_upload_that_is_gone_already_holds_nothing_up() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Sealed);
    let part = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(part.path(), "{\"custom_id\": \"a part\"}\n").unwrap();
    let api: &dyn BatchApi = world.openai.as_ref();
    api.upload(&format!("batchkeeper-{}.jsonl", row.key), part.path())
        .unwrap();
    world
        .openai
        .state()
        .always
        .push((Op::Delete, Fault::Refused(404, "", "id")));
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn a_listing_without_times_proves_nothing() {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    world.openai.state().page = 2;
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let job = world.submit(&["one", "two", "three", "four", "five", "six"], &["en"]);
    world.openai.state().without_times = true;
    world.run_for(60 * MINUTE);
    world.openai.state().without_times = false;
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 6);
}

#[test]
fn nothing_is_left_in_the_spool_of_a_batch_that_the_auditor_found() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    world.run_to(BatchState::Creating);
    while world.batch_in(BatchState::Submitted).is_none() {
        world.advance(MINUTE);
        world.tick("auditor");
    }
    world.settle();
    world.assert_answered(&job);
    assert_eq!(std::fs::read_dir(world.config.spool()).unwrap().count(), 0);
}

#[test]
fn a_webhook_whose_body_would_be_too_long_leaves_the_lots_out() {
    let mut world = World::new();
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.settle();
    let url = "https://client.test/hook";
    let body = |max| webhook_body(world.store(), &world.job(&job), url, max).unwrap();
    let whole = body(1_000_000);
    let length = whole.len() as u64;
    assert_eq!(body(length), whole);
    for max in [length - 1, 100] {
        let text = String::from_utf8(body(max)).unwrap();
        assert!(text.contains(r#""lots_truncated":true"#) && !text.contains("\"lots\""));
    }
}
