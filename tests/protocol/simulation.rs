//! Many worlds by chance (`world/life.rs`), and bugs that they must find.
//!
//! A failing seed is printed; `SIMULATION_SEED=<seed>` runs that one alone, `SIMULATION_SEEDS=<n>`
//! runs that number of seeds, `SIMULATION_SHOW=1` with `--nocapture` shows how each ended. Any number of them:
//! `cargo run --release --example simulate -- --seeds N --from S`.

use crate::world::life;
use crate::world::pairs;
use crate::world::sabotage::Bug;

/// Worlds in an ordinary run.
const SEEDS: u64 = 20;
/// A bug must be found among this number of seeds.
const MOST: u64 = 1000;

/// Where the search for a bug begins: at a seed that has found it, so that an ordinary run is short.
fn first_seed(bug: Bug) -> u64 {
    match bug {
        Bug::TimingOnly => 38,
        Bug::NoSettling => 15,
        Bug::ErrorsFirst => 2,
        Bug::ExpiredWhole => 10,
        Bug::IdNotStored | Bug::WrongField | Bug::OtherFormat | Bug::BlindRepeat | Bug::ClaimChanged => 0,
    }
}

#[test]
fn whatever_goes_wrong_every_lot_has_its_text_or_a_reason() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let shows = std::env::var_os("SIMULATION_SHOW").is_some();
    let failures = life::run(seeds, 2, None, false, |seed, end| {
        if shows && let Ok(end) = end {
            println!("{seed}: {end}");
        }
    });
    for failure in &failures {
        eprintln!("SIMULATION_SEED={} fails:\n{}", failure.seed, failure.why);
    }
    assert!(failures.is_empty(), "{} seeds fail", failures.len());
}

#[test]
fn each_seeded_bug_is_found() {
    for bug in Bug::ALL {
        let first = first_seed(bug);
        let found = life::run(first..first + MOST, 2, Some(bug), true, |_, _| {});
        assert!(
            !found.is_empty(),
            "{bug:?} is not found in {MOST} seeds from {first}"
        );
        println!("{bug:?} is found with seed {}", found[0].seed);
    }
}

/// An ordinary run takes every 61st first fault, and every 61st second fault of each.
const EVERY: usize = 61;

#[test]
fn pairs_of_faults_end_well() {
    let places = pairs::run(&[]).expect("the job without faults passes");
    let firsts = pairs::points_after(&places, None);
    let some: Vec<_> = firsts.into_iter().step_by(EVERY).enumerate().collect();
    let (_, failed) = pairs::explore_all(&some, 2, EVERY, 2, |_, _| {});
    for failure in &failed {
        let points = pairs::describe(&places, &failure.points);
        eprintln!("{points} fail:\n{}", failure.why);
    }
    assert!(failed.is_empty(), "{} runs fail", failed.len());
}
