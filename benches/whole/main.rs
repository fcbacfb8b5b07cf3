//! Measures the real program's speed and memory, next to bare references in the same run. `cargo
//! bench --bench whole` runs all measurements but the largest; `-- NAME …` runs only the named
//! ones. The names are those of [`ROWS`]; docs/explanation/performance.md has the figures.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints its figures and ends at the first error"
)]
#![allow(missing_docs, reason = "each module says what it measures")]

#[path = "../../tests/support/appliance/mod.rs"]
mod appliance;
mod bare;
mod client;
mod growth;
mod openai;
mod pipeline;
mod polling;
mod rig;
mod start;
mod status;
mod submit;

use rig::Figure;

/// A measurement: its name, whether it runs when no name is given, and its function.
type Row = (&'static str, bool, fn() -> Vec<Figure>);

const ROWS: [Row; 8] = [
    ("start", true, start::start),
    ("large_job", true, submit::large),
    ("small_jobs", true, submit::small),
    ("pipeline", true, pipeline::pipeline),
    ("status", true, status::status),
    ("latency", true, polling::latency),
    ("polling", true, polling::polling),
    ("growth", false, growth::growth),
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    for name in &wanted {
        assert!(
            ROWS.iter().any(|(known, ..)| known == name),
            "there is no {name}; there are {:?}",
            ROWS.map(|(name, ..)| name)
        );
    }
    println!("| work | measured | bare | ratio |\n|---|---|---|---|");
    for (name, unasked, measure) in ROWS {
        if wanted.iter().any(|wanted| wanted == name) || (wanted.is_empty() && unasked) {
            for Figure {
                work,
                measured,
                ratio,
            } in measure()
            {
                let (bare, ratio) = ratio.map_or((String::new(), String::new()), |(bare, ratio)| {
                    (bare, format!("{ratio:.2}"))
                });
                println!("| {work} | {measured} | {bare} | {ratio} |");
            }
        }
    }
}
