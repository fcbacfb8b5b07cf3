//! Batches that an operator abandons, and batches that never ran.

use crate::MINUTE;
use crate::world::openai::{Course, End, Fault, Op, error_entry};
use crate::world::{Ticked, World};
use batchkeeper::domain::batch::BatchState;

#[test]
fn a_batch_given_up_meanwhile_is_not_created() {
    let mut world = World::new();
    world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Uploaded);
    world
        .execute(&format!(
            "UPDATE openai_batches SET state = 'failed', error = 'given up' WHERE id = {};
             UPDATE batch_lines SET settled = 1; UPDATE requests SET state = 'waiting'",
            row.id
        ))
        .unwrap();
    let ticked = world.tick("submitter");
    assert!(matches!(ticked, Ticked::Did(_)), "{ticked:?}");
    world.settle();
    assert_eq!(world.made(), 1);
}

#[test]
fn batches_that_clients_cancel_say_nothing_of_their_model() {
    let mut world = World::new();
    for _ in 0..3 {
        let job = world.submit(&["one", "two"], &["en"]);
        world.run_to(BatchState::Submitted);
        world.cancel(&job);
        world.settle();
    }
    assert_eq!(world.number("SELECT count(*) FROM pauses"), 0);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn what_a_full_queue_did_not_take_is_not_sent_again_before_the_pause() {
    let mut world = World::new();
    let texts: Vec<String> = (0..700).map(|n| format!("lot number {n}.")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let refused = vec![error_entry("token_limit_exceeded", None)];
    let refused = Course::ends(End::Refused(refused));
    world.openai.state().courses.push_back(refused);
    let job = world.submit(&texts, &["en"]);
    world.run_for(world.config.batch.queue_backoff - MINUTE);
    assert_eq!(world.made(), 1);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 3, "it was halved");
}

#[test]
fn a_refusal_is_not_counted_together_with_batches_that_nobody_wanted() {
    let mut world = World::new();
    for _ in 0..3 {
        let job = world.submit(&["dented door"], &["en"]);
        world.run_to(BatchState::Sealed);
        world.cancel(&job);
        world.settle();
    }
    let job = world.submit(&["dented door"], &["en"]);
    let refused = vec![error_entry("token_limit_exceeded", None)];
    world
        .openai
        .state()
        .courses
        .push_back(Course::ends(End::Refused(refused)));
    world.run_for(world.config.batch.queue_backoff * 3);
    world.assert_answered(&job);
}

#[test]
fn a_batch_whose_requests_are_all_answered_elsewhere_is_not_created() {
    let mut world = World::new();
    world.is_restored = true; // Of what is given up no row knows, for a while.
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let row = world.run_to(BatchState::Creating);
    world.give_up(row.id);
    let busy = Fault::Refused(429, "rate_limit_exceeded", "");
    world.openai.state().always.push((Op::Create, busy));
    world.run_for(10 * MINUTE);
    assert!(world.batch_in(BatchState::Uploaded).is_some());
    world.crash();
    world.run_for(60 * MINUTE);
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1, "{}", world.dump());
}

#[test]
fn a_batch_that_was_given_up_and_is_found_is_on_its_jobs() {
    let mut world = World::new();
    world.is_restored = true; // Of what is given up no row knows, for a while.
    world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let row = world.run_to(BatchState::Creating);
    world.give_up(row.id);
    world.crash();
    world.tick("submitter");
    assert!(world.batch_in(BatchState::Submitted).is_some());
    assert_eq!(world.number("SELECT count(*) FROM v_bad_links"), 0);
}
