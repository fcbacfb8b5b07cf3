//! The process: its start time, its size, and its memory and processor time when idle.

use std::time::{Duration, Instant};

use crate::openai::BareOpenAi;
use crate::rig::{self, Figure, Process, megabytes, pause};

/// How long the idle daemon is observed.
const IDLE: Duration = Duration::from_secs(20);

pub fn start() -> Vec<Figure> {
    let openai = BareOpenAi::start(3000);
    let mut appliance = rig::daemon(&openai, "");
    let mut starts: Vec<Duration> = (0..11)
        .map(|_| {
            appliance.kill_daemon();
            let begun = Instant::now();
            appliance.start_daemon();
            begun.elapsed()
        })
        .collect();
    let [median, _] = rig::percentiles(&mut starts);
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_batchkeeper"));
    let size = std::fs::metadata(program).unwrap().len();
    pause(Duration::from_secs(2));
    let process = Process(appliance.daemon_id());
    let before = process.processor_time();
    pause(IDLE);
    let used = process.processor_time() - before;
    vec![
        Figure::alone("start of the process until it listens", format!("{median:.1?}")),
        Figure::alone("size of the program", megabytes(size / 1000)),
        Figure::alone("memory when idle", megabytes(process.memory())),
        Figure::alone(
            "processor when idle",
            format!(
                "{:.2} % of a core",
                100.0 * used.as_secs_f64() / IDLE.as_secs_f64()
            ),
        ),
        Figure::alone("threads", appliance.threads().to_string()),
    ]
}
