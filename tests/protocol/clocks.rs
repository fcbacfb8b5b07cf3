//! Wall clocks that are set forward and back.

use crate::MINUTE;
use crate::world::World;
use crate::world::openai::{Course, Fate};
use batchkeeper::domain::batch::{BatchState, Stage};

#[test]
fn a_clock_that_is_set_delays_nothing_by_more_than_an_interval() {
    const DAY: i64 = 24 * 3_600_000;
    for by in [-DAY, DAY] {
        for state in [
            BatchState::Planned,
            BatchState::Uploaded,
            BatchState::Submitted,
            BatchState::Ended,
        ] {
            let mut world = World::with(|config| config.batch.max_requests = 2);
            let job = world.submit(&["one", "two", "three", "four", "five", "six"], &["en", "de"]);
            world.run_to(state);
            world.shift_clock(by);
            let settled = world.settle_within(60 * MINUTE);
            assert!(settled, "{by} in {state}\n{}", world.dump());
            world.assert_answered(&job);
            assert_eq!(world.made(), 6);
        }
    }
}

#[test]
fn a_clock_set_back_lets_no_batch_starve_behind_another() {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    for minutes in [600, 30, 30] {
        world.openai.state().courses.push_back(Course {
            latency: minutes * MINUTE,
            ..Course::default()
        });
    }
    let job = world.submit(&["one", "two", "three"], &["en"]);
    world.run_for(10 * MINUTE);
    world.shift_clock(-24 * 3_600_000);
    world.run_for(60 * MINUTE);
    assert_eq!(world.job(&job).processed_lots, 2, "{}", world.dump());
}

#[test]
fn a_clock_set_back_delays_missing_lines_by_their_patience_at_most() {
    let mut world = World::new();
    let fate = ("dented", Stage::Vision, Fate::Missing, 1);
    world.openai.state().fates.push(fate);
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.run_to(BatchState::Ended);
    world.shift_clock(-24 * 3_600_000);
    let settled = world.settle_within(world.config.openai.results_timeout * 2);
    assert!(settled, "{}", world.dump());
    world.assert_answered(&job);
}
