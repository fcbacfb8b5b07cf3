//! Runs any number of the simulation's worlds: `cargo run --release --example simulate -- --seeds N
//! --from S [--threads T] [--bug NAME|all]`.
//!
//! `--pairs` and `--triples` run one small job with every pair, or triple, of faults instead. `--from S` then begins
//! with the first fault of that number, `--seeds N` takes N of them, and `--points 12:3,40:0` runs these faults.
//!
//! The exit status is 1 if a run fails, or if `--bug` is given and the bug is not found.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a command-line tool prints, and ends at a wrong argument"
)]

#[path = "../tests/support/world/mod.rs"]
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use batchkeeper::base::clock::{Clock, SystemClock};
use world::life::{self, Failure};
use world::pairs;
use world::sabotage::Bug;

/// The number of seeds between two progress messages.
const REPORT_EVERY: u64 = 500;
/// The number of lines that are shown of a failure.
const LINES: usize = 400;

fn main() -> ExitCode {
    let (mut seeds, mut from, mut threads, mut bug) = (None, 0_u64, 2_u32, None);
    let (mut faults, mut points) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--pairs" => faults = Some(2),
            "--triples" => faults = Some(3),
            _ => {}
        }
        if matches!(name.as_str(), "--pairs" | "--triples") {
            continue;
        }
        let value = arguments.next().expect("each option has a value");
        let number = || value.parse::<u64>().expect("a number");
        match name.as_str() {
            "--seeds" => seeds = Some(number()),
            "--points" => points = Some(value),
            "--from" => from = number(),
            "--threads" => threads = value.parse().expect("a number"),
            "--bug" => bug = Some(value),
            other => panic!("there is no option {other}"),
        }
    }
    // A failing seed is reported below, so the panic message is not needed.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(points) = points {
        return run_points(&points);
    }
    if let Some(faults) = faults {
        return explore(faults, from, seeds.unwrap_or(u64::MAX), threads);
    }
    let seeds = from..from.saturating_add(seeds.unwrap_or(1000));
    if let Some(wanted) = bug {
        let mut all_found = true;
        for bug in Bug::ALL {
            let name = format!("{bug:?}");
            if wanted != "all" && wanted != name {
                continue;
            }
            let found = life::run(seeds.clone(), threads, Some(bug), true, |_, _| {});
            let first = found.first();
            all_found &= first.is_some();
            match first {
                Some(Failure { seed, why }) => {
                    println!("{name}: seed {seed}: {}", head(why, 1));
                }
                None => println!("{name}: not found"),
            }
        }
        return ExitCode::from(u8::from(!all_found));
    }
    let clock = SystemClock::new();
    let begun = clock.now().steady;
    let done = AtomicU64::new(0);
    let failures = life::run(seeds, threads, None, false, |seed, end| {
        if let Err(why) = end {
            println!("SIMULATION_SEED={seed} fails: {}", head(why, LINES));
            println!("replay: SIMULATION_SEED={seed} cargo test --test protocol simulation:: whatever");
        }
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(REPORT_EVERY) {
            let took = clock.now().steady.saturating_sub(begun);
            println!("{done} seeds in {took:?}");
        }
    });
    let took = clock.now().steady.saturating_sub(begun).as_secs_f64();
    let done = done.into_inner();
    println!(
        "{done} seeds in {took:.1} s, {:.1} a second, {} failed: {:?}",
        f64::from(u32::try_from(done).unwrap_or(u32::MAX)) / took,
        failures.len(),
        failures.iter().map(|it| it.seed).collect::<Vec<_>>()
    );
    ExitCode::from(u8::from(!failures.is_empty()))
}

/// Runs one set of faults, written as `PLACE:STRIKE,…`.
fn run_points(text: &str) -> ExitCode {
    let number = |text: &str| text.parse().expect("a number");
    let points = text.split(',').map(|point| {
        let (place, strike) = point.split_once(':').expect("PLACE:STRIKE");
        (number(place), number(strike))
    });
    let points: Vec<pairs::Point> = points.collect();
    match pairs::run(&points) {
        Ok(places) => println!("passed: {}", pairs::describe(&places, &points)),
        Err(why) => {
            println!("{}", head(&why, LINES));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Runs every set of up to `faults` faults.
fn explore(faults: u32, from: u64, most: u64, threads: u32) -> ExitCode {
    let clock = SystemClock::new();
    let begun = clock.now().steady;
    let places = pairs::run(&[]).expect("the job without faults passes");
    let firsts: Vec<(usize, pairs::Point)> = pairs::points_after(&places, None)
        .into_iter()
        .enumerate()
        .collect();
    let calls = places.iter().filter(|it| **it != pairs::Place::Commit).count();
    println!(
        "without faults: {calls} calls and {} sides of commits, {} first faults",
        places.len() - calls,
        firsts.len()
    );
    let skip = usize::try_from(from).unwrap_or(usize::MAX);
    let take = usize::try_from(most).unwrap_or(usize::MAX);
    let chosen: Vec<_> = firsts.iter().skip(skip).take(take).copied().collect();
    let (runs, failed) = pairs::explore_all(&chosen, faults, 1, threads, |number, runs| {
        let took = clock.now().steady.saturating_sub(begun);
        println!("first fault {number} done, {runs} runs in {took:.0?}");
    });
    for failure in &failed {
        let points = failure
            .points
            .iter()
            .map(|(place, strike)| format!("{place}:{strike}"));
        println!(
            "--points {} fails: {}\n  {}",
            points.collect::<Vec<_>>().join(","),
            pairs::describe(&places, &failure.points),
            head(&failure.why, 3)
        );
    }
    let took = clock.now().steady.saturating_sub(begun).as_secs_f64();
    println!(
        "{runs} runs of up to {faults} faults in {took:.0} s, {} failed",
        failed.len()
    );
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// The first lines of a text.
fn head(text: &str, lines: usize) -> String {
    text.lines().take(lines).collect::<Vec<_>>().join("\n")
}
