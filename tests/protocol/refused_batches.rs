//! Batches that OpenAI refuses before any line runs.

use std::time::Duration;

use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::openai::BatchError;
use batchkeeper::sandbox::{Fault, FaultRule};
use serde_json::{Value, json};

use crate::world::World;
use crate::world::openai::{Course, End, Fate, Ids, Outage, Rule, error_entry};

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

/// What OpenAI says of a refused batch without a reason.
fn unexplained() -> [Vec<BatchError>; 3] {
    [
        Vec::new(),
        vec![error_entry("never_seen", None)],
        vec![error_entry("never_seen", Some(1))],
    ]
}

/// Refuses the next `times` batches for `errors`.
fn refuse_next(world: &World, times: usize, errors: &[BatchError]) {
    let refused = Course::ends(End::Refused(errors.to_vec()));
    let mut openai = world.openai.state();
    openai.courses.extend(vec![refused; times]);
}

/// Refuses every batch from now on. OpenAI's `errors` are null.
fn refuse_all(world: &World) -> Vec<u64> {
    let rule = FaultRule::new(Fault::FailedValidation).value(Value::Null);
    let openai = world.openai.state();
    openai.model().add_fault_rules(vec![rule]).expect("in memory")
}

#[test]
fn a_refusal_without_a_reason_is_retried_five_times_with_the_whole_batch() {
    for errors in unexplained() {
        let mut world = World::new();
        refuse_next(&world, 5, &errors);
        let job = world.submit(&["dented door"], &["en"]);
        world.settle();
        world.assert_answered(&job);
        assert_eq!(world.made(), 6, "{errors:?}\n{}", world.dump());
        let waited = Duration::from_mins(10 + 30 + 60 + 120 + 240);
        assert!(world.elapsed >= waited, "{:?}", world.elapsed);
        assert!(
            world.elapsed < waited + Duration::from_mins(20),
            "{:?}",
            world.elapsed
        );
        assert_eq!(world.number("SELECT sum(attempts) FROM requests"), 0);
    }
    let mut world = World::new();
    refuse_next(&world, 5, &[]);
    let lots: Vec<String> = (0..64).map(|lot| format!("lot {lot}")).collect();
    let lots: Vec<&str> = lots.iter().map(String::as_str).collect();
    let job = world.submit(&lots, &["en"]);
    // A later job does not travel with the refused one.
    world.run_for(Duration::from_mins(5));
    let later = world.submit_as("b", &["cracked lamp"], &["en"]);
    world.openai.state().courses.push_front(Course::default());
    world.run_for(Duration::from_mins(4));
    world.assert_answered(&later);
    world.settle();
    world.assert_answered(&job);
    let lines: Vec<usize> = world
        .openai
        .state()
        .batches
        .iter()
        .map(|it| it.lines.len())
        .collect();
    assert_eq!(lines, [64, 1, 64, 64, 64, 64, 64]);
}

#[test]
fn a_refusal_without_a_reason_counts_at_last() {
    let mut world = World::new();
    refuse_next(&world, 6, &[]);
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_accounted_for();
    let reason = world.lots(&job).remove(0).error_message.expect("a reason");
    assert!(reason.contains("after 6 attempts"), "{reason}");
    assert!(reason.contains("did not say why"), "{reason}");

    let mut world = World::new();
    refuse_next(&world, 6, &[]);
    let job = world.submit(&["one", "two", "three", "four"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    let lines: Vec<usize> = world
        .openai
        .state()
        .batches
        .iter()
        .map(|it| it.lines.len())
        .collect();
    assert_eq!(lines, [4, 4, 4, 4, 4, 4, 2, 2]);
}

#[test]
fn unrelated_batches_refused_without_a_reason_pause_the_model_and_fail_nothing() {
    let mut world = World::new();
    let rules = refuse_all(&world);
    let first = world.submit(&["dented door", "worn seat"], &["en"]);
    world.run_for(Duration::from_mins(5));
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
    let second = world.submit_as("b", &["cracked lamp"], &["en"]);
    world.run_for(Duration::from_mins(3));
    assert_eq!(world.open_alerts(), ["model_refused"]);
    world.run_for(Duration::from_hours(24));
    assert_eq!(world.open_alerts(), ["model_refused"]);
    assert!(world.made() < 20, "{}", world.dump());
    world.openai.state().model().remove_fault_rules(&rules);
    world.settle();
    world.assert_answered(&first);
    world.assert_answered(&second);
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
}

/// A batch that runs, and that OpenAI shows as failed at its end.
fn shown_as_failed() -> Course {
    Course {
        faults: vec![(Fault::UnknownStatus, json!({"ended": "failed"}))],
        ..Course::default()
    }
}

#[test]
fn the_lines_in_the_files_of_a_failed_batch_count_as_those_of_any_other() {
    // One line keeps the reason that was read.
    let mut world = World::new();
    world.openai.state().courses.push_back(shown_as_failed());
    world
        .openai
        .state()
        .fates
        .push(("dented", Stage::Vision, Fate::Status(400), 1));
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    let reason = world.lots(&job).remove(0).error_message.expect("a reason");
    assert!(!reason.contains("did not say why"), "{reason}");

    // Lines that fail transiently pause the model.
    let mut world = World::new();
    world.openai.state().outage = Some(Outage::WithIds);
    world.openai.state().courses.extend(vec![shown_as_failed(); 9]);
    let lots: Vec<String> = (0..30).map(|lot| format!("lot {lot}")).collect();
    let lots: Vec<&str> = lots.iter().map(String::as_str).collect();
    let jobs = [
        world.submit_as("a", &lots, &["en"]),
        world.submit_as("b", &lots, &["en"]),
    ];
    world.run_for(Duration::from_mins(30));
    assert_eq!(world.open_alerts(), ["model_fails"]);
    world.openai.state().outage = None;
    world.settle();
    for job in jobs {
        world.assert_answered(&job);
    }
}

#[test]
fn an_expired_batch_without_files_has_failed_transiently() {
    let mut world = World::new();
    let expired = Course {
        ids: Ids::Never,
        ..Course::ends(End::Expires(0))
    };
    world.openai.state().courses.push_back(expired);
    let lots: Vec<String> = (0..30).map(|lot| format!("lot {lot}")).collect();
    let lots: Vec<&str> = lots.iter().map(String::as_str).collect();
    world.submit_as("a", &lots, &["en"]);
    world.submit_as("b", &lots, &["en"]);
    world.run_for(Duration::from_hours(25));
    let outcomes = world.texts("SELECT DISTINCT outcome || ' ' || error FROM batch_lines WHERE batch_id = 1");
    assert_eq!(
        outcomes,
        ["passing the batch is expired, and OpenAI names no result file"]
    );
    let alerts = world.texts("SELECT kind FROM alerts");
    assert_eq!(alerts, ["model_fails"]);
    assert_eq!(world.number("SELECT sum(attempts) FROM requests"), 0);
}
