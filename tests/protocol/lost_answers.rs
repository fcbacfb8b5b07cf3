//! Answers that are lost after the effect, and listings that prove nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::MINUTE;
use crate::world::World;
use crate::world::openai::{Course, End, Fault, Op};
use batchkeeper::domain::batch::BatchState;
use batchkeeper::openai::BatchApi;
use batchkeeper::sandbox::Fault as Listed;

#[test]
fn a_lost_answer_to_the_upload_is_found_by_its_name() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Upload, Fault::ReplyLost);
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Upload), world.made()), (1, 1));
}

#[test]
fn a_lost_answer_to_the_create_is_found_by_listing() {
    let mut world = World::new();
    world.openai.state().list_lag = 8 * MINUTE;
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Create), world.made()), (1, 1));
}

#[test]
fn a_lost_answer_is_found_on_a_later_page() {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    world.openai.state().page = 2;
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let job = world.submit(&["one", "two", "three", "four", "five", "six"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 6);
}

#[test]
fn a_listing_that_breaks_off_proves_nothing() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    {
        let mut openai = world.openai.state();
        openai.fail(Op::Create, Fault::ReplyLost);
        openai.always.push((Op::List, Fault::Html(502)));
    }
    world.run_for(60 * MINUTE);
    assert_eq!(world.openai.count(Op::Create), 1);
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

/// A create is answered with the id of another program's batch, which goes on as given.
fn answered_with_theirs(theirs: Course) {
    let mut world = World::new();
    // The listing of the auditor would find ours later.
    world.turns = &["submitter", "poller", "ingester", "finisher"];
    let file = world.openai.upload_theirs();
    world.openai.state().courses.push_back(theirs);
    let theirs = world.openai.state().add_batch(&file, BTreeMap::new(), false);
    let theirs = theirs.expect("made").id;
    world.advance(10 * MINUTE);
    let known = Fault::Listed(Listed::CreateKnownId, Value::Null);
    world.openai.state().fail(Op::Create, known);
    // It ends after theirs, which tells nothing of it.
    let slow = Course {
        latency: 120 * MINUTE,
        ..Course::default()
    };
    world.openai.state().courses.push_back(slow);
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 2, "theirs, and ours once");
    let wrong = format!("SELECT count(*) FROM openai_batches WHERE openai_batch_id = '{theirs}'");
    assert_eq!(world.number(&wrong), 0);
    let unclear = "SELECT count(*) FROM alerts WHERE kind = 'create_unclear' AND closed_at IS NOT NULL";
    assert_eq!(world.number(unclear), 1);
}

#[test]
fn an_answer_that_names_a_batch_of_another_program_is_lost_and_ours_is_found() {
    answered_with_theirs(Course::default());
    answered_with_theirs(Course {
        end: End::Refused(Vec::new()),
        ..Course::default()
    });
    answered_with_theirs(Course {
        end: End::Expires(0),
        ..Course::default()
    });
}

#[test]
fn a_create_that_is_not_found_is_made_again_once_after_the_settling_time() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    world.openai.state().fail(Op::Create, Fault::Lost);
    world.run_to(BatchState::Creating);
    // Listings count once the create cannot take effect any more.
    let openai = world.config.openai.clone();
    world.run_for(openai.create_timeout + openai.settling_time - MINUTE);
    assert_eq!(world.openai.count(Op::Create), 1);
    world.run_for(2 * MINUTE);
    assert_eq!(world.openai.count(Op::Create), 2);
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Create), world.made()), (2, 1));
}

#[test]
fn a_restart_begins_the_settling_time_anew() {
    let mut world = World::new();
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    world.openai.state().fail(Op::Create, Fault::Lost);
    world.run_to(BatchState::Creating);
    world.run_for(world.config.openai.settling_time - MINUTE);
    world.crash();
    world.run_for(world.config.openai.settling_time - MINUTE);
    assert_eq!(world.openai.count(Op::Create), 1);
}

#[test]
fn a_doubtful_create_holds_up_no_other_batch() {
    let mut world = World::new();
    let first = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    world.openai.state().fail(Op::Create, Fault::Lost);
    world.run_to(BatchState::Creating);
    let second = world.submit(&["cracked lamp"], &["en"]);
    world.run_for(5 * MINUTE);
    world.assert_answered(&second);
    world.settle();
    world.assert_answered(&first);
}

#[test]
fn a_refused_create_was_none_and_is_made_again_without_asking() {
    for fault in [
        Fault::NotSent,
        Fault::Refused(429, "rate_limit_exceeded", ""),
        Fault::Refused(400, "", "file_id"),
    ] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en"]);
        world.run_to(BatchState::Uploaded);
        let listings = world.openai.count(Op::List);
        world.openai.state().fail(Op::Create, fault);
        world.settle();
        world.assert_answered(&job);
        assert_eq!(world.openai.count(Op::List), listings);
        assert_eq!(world.made(), 1);
    }
}

#[test]
fn an_input_that_openai_lost_is_uploaded_again() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Uploaded);
    world.openai.state().always.push((Op::Create, Fault::NotSent));
    world.run_for(5 * MINUTE);
    let api: &dyn BatchApi = world.openai.as_ref();
    api.delete_file(&row.input_file_id.unwrap()).unwrap();
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Upload), world.made()), (2, 1));
}

#[test]
fn an_input_that_no_create_finds_is_uploaded_as_another_file() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let first = world.run_to(BatchState::Uploaded).input_file_id;
    let not_found = Fault::Refused(400, "", "file_id");
    world.openai.state().always.push((Op::Create, not_found));
    world.run_for(9 * MINUTE);
    assert_eq!(world.openai.count(Op::Upload), 1);
    while world.openai.count(Op::Upload) == 1 {
        world.run_for(MINUTE);
        assert!(world.elapsed < 20 * MINUTE, "{}", world.dump());
    }
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Upload), world.made()), (2, 1));
    let api: &dyn BatchApi = world.openai.as_ref();
    let gone = api.file(&first.unwrap()).unwrap_err();
    assert!(gone.is_not_found(), "{gone}");
}

#[test]
fn nothing_is_created_twice_when_a_create_fails_with_5xx_after_its_effect() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::Html(502));
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}
