//! Batches that OpenAI refuses before any line runs.

use crate::world::World;
use crate::world::openai::{Course, End, Rule, error_entry};
use batchkeeper::domain::batch::BatchState;
use std::time::Duration;

#[test]
fn a_line_that_is_to_blame_fails_and_the_others_go_again() {
    let mut world = World::new();
    world.openai.state().rules.push(Rule::Blame("dented"));
    let job = world.submit(&["cracked lamp", "dented door", "worn seat"], &["en"]);
    world.settle();
    world.assert_accounted_for();
    let lots = world.lots(&job);
    let failed: Vec<bool> = lots.iter().map(|lot| lot.error_message.is_some()).collect();
    assert_eq!(failed, [false, true, false]);
    assert_eq!(world.made(), 2);
    assert_eq!(world.number("SELECT sum(attempts) FROM requests"), 0);
}

#[test]
fn a_batch_refused_without_a_line_is_halved_until_it_is_found() {
    let mut world = World::new();
    world.openai.state().rules.push(Rule::Poison("dented"));
    let job = world.submit(
        &["one", "two", "three", "four", "dented", "six", "seven", "eight"],
        &["en"],
    );
    world.settle();
    world.assert_accounted_for();
    let lots = world.lots(&job);
    let failed: Vec<usize> = (0..8).filter(|at| lots[*at].error_message.is_some()).collect();
    assert_eq!(failed, [4]);
}

#[test]
fn a_full_queue_is_waited_for_with_smaller_batches() {
    let mut world = World::new();
    world.openai.state().rules.push(Rule::QueueOf(2));
    let job = world.submit(&["one", "two", "three", "four", "five", "six", "seven"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.number("SELECT sum(attempts) FROM requests"), 0);
    assert!(world.made() < 20, "{}", world.dump());
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
}

#[test]
fn a_queue_that_takes_nothing_is_tried_ever_more_seldom() {
    let mut world = World::new();
    world.openai.state().rules.push(Rule::QueueOf(0));
    let job = world.submit(&["one", "two"], &["en"]);
    world.run_for(Duration::from_hours(12));
    assert!(world.made() < 20, "{}", world.dump());
    assert_eq!(world.open_alerts(), ["model_refused"]);
    world.openai.state().rules.clear();
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn an_input_that_openai_cannot_find_blames_no_lot() {
    let mut world = World::new();
    let mut error = error_entry("invalid_request", None);
    error.param = Some("file_id".into());
    world
        .openai
        .state()
        .courses
        .push_back(Course::ends(End::Refused(vec![error])));
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_model_that_batches_cannot_have_blames_no_lot() {
    let mut world = World::new();
    let errors = vec![
        error_entry("model_not_found", Some(1)),
        error_entry("model_not_found", Some(2)),
    ];
    world
        .openai
        .state()
        .courses
        .push_back(Course::ends(End::Refused(errors)));
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.run_to(BatchState::Failed);
    assert_eq!(world.open_alerts(), ["model_refused"]);
    world.settle();
    world.assert_answered(&job);
}
