//! OpenAI's limit of enqueued tokens per model: which batches wait for it, and which do not count.

use std::time::Duration;

use crate::appliance::{Appliance, assert_results};
use crate::world::World;
use crate::world::openai::{Course, End, Fault, Op, Rule, error_entry};
use batchkeeper::domain::batch::BatchState;

const REFUSED: &str = "SELECT count(*) FROM openai_batches WHERE state = 'failed'";

/// A world whose OpenAI accepts `tokens` enqueued tokens of a model and names the limit only in its
/// refusals.
fn world_accepting(tokens: u64, max_requests: u32) -> World {
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
fn refusals_teach_an_unknown_limit_and_no_other_batch_is_sent_before() {
    // Each of ten full batches is larger than the queue.
    let mut world = world_accepting(50_000, 200);
    let lots = lots(2_000);
    let job = world.submit(&texts(&lots), &["en"]);
    world.settle();
    world.assert_answered(&job);
    // The first refusal names the limit, the second one shows that caps count.
    assert_eq!(world.number(REFUSED), 2, "{}", world.dump());
}

/// The part of the caps that counts, in percent.
const CAP_PERCENT: &str = "SELECT cap_percent FROM queue_limits";

#[test]
fn caps_do_not_count_while_openai_counts_the_input_alone() {
    let mut world = World::with(|config| config.vision.max_output_tokens = 2_000);
    world.check_every = u32::MAX;
    world.openai.state().rules = vec![Rule::InputTokensOf(50_000)];
    let lots = lots(600);
    let job = world.submit(&texts(&lots), &["en"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.number(REFUSED), 1, "{}", world.dump());
    // With the caps, a batch would hold six lines.
    assert!(world.made() <= 20, "{} batches\n{}", world.made(), world.dump());
    assert_eq!(world.number(CAP_PERCENT), 0);
}

#[test]
fn a_refusal_that_only_the_caps_explain_makes_them_count_and_success_lowers_them() {
    let mut world = world_accepting(50_000, 200);
    let first = lots(1_000);
    let job = world.submit(&texts(&first), &["en"]);
    world.settle();
    world.assert_answered(&job);
    // The first refusal named the limit, the second one showed that caps count.
    assert_eq!(world.number(REFUSED), 2, "{}", world.dump());
    assert_eq!(world.number("SELECT count(*) FROM alerts"), 0);
    let raised = world.number(CAP_PERCENT);
    assert!((75..=100).contains(&raised), "{raised}");
    // Each success lowers it by a little, at most once an hour.
    for _ in 0..4 {
        world.run_for(Duration::from_hours(1));
        let job = world.submit(&["one"], &["en"]);
        world.settle();
        world.assert_answered(&job);
    }
    assert_eq!(world.number(CAP_PERCENT), raised - 4 * 5);
}

#[test]
fn a_line_larger_than_the_queue_is_repeated_only_after_pauses() {
    let mut world = world_accepting(200, 200);
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(Duration::from_hours(12));
    assert!(world.made() < 20, "{}", world.dump());
    assert_eq!(world.open_alerts(), ["model_refused"]);
    world.openai.state().rules.clear();
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_batch_of_another_account_does_not_count() {
    let mut world = world_accepting(50_000, 200);
    let first = lots(100);
    world.submit(&texts(&first), &["en"]);
    world.run_for(Duration::from_mins(1));
    let limit = "INSERT INTO queue_limits (model, tokens, learned_at) SELECT model, 50000, created_at FROM openai_batches
                 WHERE true ON CONFLICT DO NOTHING";
    world.execute(limit).expect("a limit");
    let theirs = "UPDATE openai_batches SET project = 'another', state = 'submitted', queue_tokens = 50000";
    world.execute(theirs).expect("a row of another account");
    let small = world.submit_as("b", &["one", "two"], &["en"]);
    world.run_for(Duration::from_hours(1));
    world.assert_answered(&small);
}

#[test]
fn a_create_with_unknown_outcome_delays_no_other_batch() {
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
fn a_refusal_that_our_batches_do_not_explain_causes_a_pause() {
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
    // The first refusal names the limit. A second one may show that caps count.
    assert!((1..=2).contains(&appliance.cell::<i64>(REFUSED)));
    appliance.assert_sound();
}
