//! What the real program does in a second, in how much memory, next to bare references in the same
//! run. `cargo bench --bench whole` measures all but the largest; `-- NAME …` only these. The names
//! are those of [`ROWS`]; docs/performance.md has the figures.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it measures, and says what; what it cannot do ends it"
)]
#![allow(missing_docs, reason = "the modules' own words say it")]

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

/// A measurement: its name, and whether it is among those that run unasked.
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
                let (bare, ratio) = ratio
                    .map_or((String::new(), String::new()), |(bare, ratio)| {
                        (bare, format!("{ratio:.2}"))
                    });
                println!("| {work} | {measured} | {bare} | {ratio} |");
            }
        }
    }
}
