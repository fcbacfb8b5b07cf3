//! How batches are watched: many by a listing, each by itself once there is something to say of it.

use std::time::Duration;

use crate::world::World;
use crate::world::openai::{Course, Fault, Op};

const LOTS: [&str; 12] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
];
const HOUR: Duration = Duration::from_hours(1);
const RUNNING: &str =
    "SELECT count(*) FROM openai_batches WHERE openai_status IN ('validating', 'in_progress')";

/// A world with a job whose twelve batches each run for `latency`.
fn twelve_batches(latency: Duration) -> (World, String) {
    a_batch_for_each(&LOTS, latency)
}

fn a_batch_for_each(lots: &[&str], latency: Duration) -> (World, String) {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    let course = Course {
        latency,
        ..Course::default()
    };
    world.openai.state().courses = vec![course; lots.len()].into();
    let job = world.submit(lots, &["en"]);
    world.run_for(Duration::from_mins(10));
    assert_eq!(
        world.number(RUNNING),
        i64::try_from(lots.len()).unwrap(),
        "{}",
        world.dump()
    );
    world.openai.state().calls.clear();
    (world, job)
}

#[test]
fn a_listing_looks_at_many_and_each_is_asked_for_once_it_has_ended() {
    let (mut world, job) = twelve_batches(3 * HOUR);
    world.run_for(2 * HOUR);
    let (listed, asked) = (world.openai.count(Op::List), world.openai.count(Op::Batch));
    let looks = (2 * HOUR).as_secs() / world.config.openai.poll_interval.as_secs();
    assert!((1..=looks).contains(&(listed as u64)), "{listed} listings");
    assert!(asked <= listed, "{asked} asked for by themselves");
    assert_eq!(world.number(RUNNING), 12);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 12);
}

#[test]
fn where_no_listing_can_be_had_each_is_asked_for() {
    let (mut world, job) = twelve_batches(HOUR);
    let broken = (Op::List, Fault::Html(502));
    world.openai.state().always.push(broken);
    world.run_for(2 * HOUR);
    world.assert_answered(&job);
}

#[test]
fn a_listing_that_shows_none_of_them_is_no_verdict() {
    let (mut world, job) = twelve_batches(HOUR);
    world.openai.state().list_lag = 24 * HOUR;
    world.run_for(2 * HOUR);
    world.assert_answered(&job);
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
}

#[test]
fn a_cancel_reaches_each_of_many() {
    let (mut world, job) = twelve_batches(12 * HOUR);
    // All are due, and so is a listing.
    world.advance(world.config.openai.poll_interval);
    world.cancel(&job);
    world.run_for(Duration::from_secs(5));
    assert!(world.openai.count(Op::List) > 0);
    assert_eq!(world.openai.count(Op::Cancel), 12, "{}", world.dump());
    world.run_for(HOUR);
    assert_eq!(world.number(RUNNING), 0, "{}", world.dump());
}

#[test]
fn a_listing_that_is_answered_ends_the_pause_of_a_refused_key() {
    let (mut world, _) = twelve_batches(12 * HOUR);
    let refused = Fault::Refused(401, "invalid_api_key", "");
    let everything = [Op::List, Op::Batch].map(|op| (op, refused.clone()));
    world.openai.state().always.extend(everything);
    world.run_for(HOUR);
    assert_eq!(world.open_alerts(), ["openai_account"]);
    world.openai.state().always.clear();
    world.run_for(HOUR);
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
}

#[test]
fn many_batches_past_their_window_are_each_told_of_once() {
    let lots: Vec<String> = (0..12).map(|number| format!("door {number}")).collect();
    let lots: Vec<&str> = lots.iter().map(String::as_str).collect();
    let (mut world, job) = a_batch_for_each(&lots, 20 * HOUR);
    world.turns = &["submitter", "poller", "ingester", "finisher", "auditor"];
    let broken = [Op::List, Op::Batch].map(|op| (op, Fault::Html(502)));
    world.openai.state().always.extend(broken);
    world.run_for(26 * HOUR);
    let told = "SELECT count(*) FROM alerts WHERE kind = 'batch_overdue'";
    assert_eq!(world.number(told), 12);
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
}

#[test]
fn a_batch_that_is_not_known_everywhere_a_moment_after_its_create_alarms_nobody() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let not_yet = Fault::Refused(404, "", "");
    world.openai.state().fail(Op::Batch, not_yet);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.number("SELECT count(*) FROM alerts"), 0);
}
