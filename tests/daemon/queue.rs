//! OpenAI's queue of a model: what is not sent since there is no room for it, and what may not keep it.

use std::time::Duration;

use crate::appliance::{Appliance, assert_results};
use crate::world::World;
use crate::world::openai::{Course, End, Fault, Op, Rule, error_entry};
use batchkeeper::domain::batch::BatchState;

const REFUSED: &str = "SELECT count(*) FROM openai_batches WHERE state = 'failed'";

/// A world whose OpenAI takes so many tokens of a model at once, and says so in its refusals only.
fn taking(tokens: u64, max_requests: u32) -> World {
    let mut world = World::with(|config| {
        config.vision.max_output_tokens = 256;
        config.batch.max_requests = max_requests;
    });
    world.check_every = u32::MAX;
    world.openai.state().rules = vec![Rule::TokensOf(tokens)];
    world
}

fn lots(number: usize) -> Vec<String> {
    (0..number).map(|at| format!("lot {at}")).collect()
}

fn texts(lots: &[String]) -> Vec<&str> {
    lots.iter().map(String::as_str).collect()
}

#[test]
fn while_no_limit_is_known_one_refusal_teaches_it_and_no_other_is_on_its_way() {
    // Each of ten full batches is more than the queue takes.
    let mut world = taking(50_000, 200);
    let lots = lots(2_000);
    let job = world.submit(&texts(&lots), &["en"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.number(REFUSED), 1, "{}", world.dump());
}

#[test]
fn one_line_that_is_more_than_the_queue_takes_is_not_sent_without_a_pause() {
    let mut world = taking(200, 200);
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(Duration::from_hours(12));
    assert!(world.made() < 20, "{}", world.dump());
    assert_eq!(world.open_alerts(), ["model_refused"]);
    world.openai.state().rules.clear();
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_batch_of_another_account_keeps_no_room() {
    let mut world = taking(50_000, 200);
    let first = lots(100);
    world.submit(&texts(&first), &["en"]);
    world.run_for(Duration::from_mins(1));
    let limit = "INSERT INTO queue_limits SELECT model, 50000, created_at FROM openai_batches
                 WHERE true ON CONFLICT DO NOTHING";
    world.execute(limit).expect("a limit");
    let theirs =
        "UPDATE openai_batches SET project = 'another', state = 'submitted', queue_tokens = 50000";
    world.execute(theirs).expect("a row of another account");
    let small = world.submit_as("b", &["one", "two"], &["en"]);
    world.run_for(Duration::from_hours(1));
    world.assert_answered(&small);
}

#[test]
fn a_create_in_doubt_keeps_no_other_batch_waiting() {
    let mut world = World::new();
    world.openai.state().fail(Op::Create, Fault::Lost);
    let doubtful = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Creating);
    let other = world.submit(&["scratched hood"], &["en"]);
    world.run_for(Duration::from_mins(5));
    world.assert_answered(&other);
    world.settle();
    world.assert_answered(&doubtful);
}

#[test]
fn a_refusal_that_our_batches_do_not_explain_is_waited_for() {
    let mut world = World::new();
    let mut error = error_entry("token_limit_exceeded", None);
    error.message = Some("Enqueued token limit reached. Limit: 2,000,000 enqueued tokens.".into());
    let refused = Course::ends(End::Refused(vec![error]));
    world.openai.state().courses.push_back(refused);
    let job = world.submit(&["one", "two"], &["en"]);
    world.run_for(world.config.batch.queue_backoff - Duration::from_mins(1));
    assert_eq!(world.made(), 1);
    assert_eq!(world.open_alerts(), ["model_refused"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.number("SELECT tokens FROM queue_limits"), 2_000_000);
}

#[test]
fn the_program_completes_a_large_job_through_a_small_queue() {
    let config = "[vision]\nmax_output_tokens = 256\n[images]\ncheck = false";
    let mut appliance = Appliance::beside_sandbox(&["--queue-tokens", "200000"], config);
    appliance.start_daemon();
    let lots = appliance.lots(5_000);
    let job = appliance.job(&lots, &["en"]);
    assert_results(&appliance.results(&job), &lots, &["en"], &[]);
    let learned: i64 = appliance.cell("SELECT tokens FROM queue_limits");
    assert_eq!(learned, 200_000);
    // The one that it was learned from.
    assert_eq!(appliance.cell::<i64>(REFUSED), 1);
    appliance.assert_sound();
}
