//! Runs any number of the simulation's worlds: `cargo run --release --example simulate -- --seeds N
//! --from S [--threads T] [--bug NAME|all]`.
//!
//! The exit status is 1 if a seed fails, or if `--bug` is given and the bug is not found.
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
use world::sabotage::Bug;

/// The number of seeds between two progress messages.
const REPORT_EVERY: u64 = 500;
/// The number of lines that are shown of a failure.
const LINES: usize = 400;

fn main() -> ExitCode {
    let (mut seeds, mut from, mut threads, mut bug) = (1000_u64, 0_u64, 2_u32, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().expect("each option has a value");
        let number = || value.parse::<u64>().expect("a number");
        match name.as_str() {
            "--seeds" => seeds = number(),
            "--from" => from = number(),
            "--threads" => threads = value.parse().expect("a number"),
            "--bug" => bug = Some(value),
            other => panic!("there is no option {other}"),
        }
    }
    // A failing seed is reported below, so the panic message is not needed.
    std::panic::set_hook(Box::new(|_| {}));
    let seeds = from..from.saturating_add(seeds);
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

/// The first lines of a text.
fn head(text: &str, lines: usize) -> String {
    text.lines().take(lines).collect::<Vec<_>>().join("\n")
}
