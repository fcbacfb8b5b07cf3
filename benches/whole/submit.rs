//! Submissions: one of the largest jobs, and many of the smallest.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::bare;
use crate::client::{load, post};
use crate::openai::BareOpenAi;
use crate::rig::{self, Figure, Process, job, megabytes, percentiles, rate, submit};

/// Nothing is sent to OpenAI during the measurement: only the submission is measured.
const WAITING: &str = "[batch]\nmax_wait = \"1h\"";

/// Submits a job with 50,000 lots.
pub fn large() -> Vec<Figure> {
    let mut times = Vec::new();
    let (mut memory, mut bytes, mut insert) = (0, 0, Duration::MAX);
    for _ in 0..3 {
        let openai = BareOpenAi::start(3000);
        let appliance = rig::daemon(&openai, WAITING);
        let job = job(50_000, &["en", "ru", "de"], None);
        bytes = job.body.len();
        times.push(submit(&appliance, &job).1);
        memory = memory.max(Process(appliance.daemon_id()).peak());
        insert = insert.min(bare::insert(&appliance.database(), false));
    }
    let [median, _] = percentiles(&mut times);
    let bytes = bytes as f64 / 1e6;
    vec![
        Figure::against(
            &format!("submit a job of 50,000 lots ({bytes:.1} MB)"),
            format!("{median:.2?}"),
            median,
            insert,
        ),
        Figure::alone(
            "the daemon's peak memory during the submission",
            megabytes(memory),
        ),
    ]
}

/// Submits jobs of two lots from 16 clients at the same time.
pub fn small() -> Vec<Figure> {
    const CLIENTS: usize = 16;
    const EACH: usize = 250;
    let openai = BareOpenAi::start(3000);
    let appliance = rig::daemon(&openai, WAITING);
    let one = || {
        let job = job(2, &["en", "de"], None);
        post(&job.body, &job.signature)
    };
    let clients = (0..CLIENTS).map(|_| (0..EACH).map(|_| one()).collect()).collect();
    let (mut times, took) = load(&appliance.api, clients, EACH, 201, &AtomicBool::new(true));
    let jobs = times.len();
    let [median, p99] = percentiles(&mut times);
    let insert = bare::insert(&appliance.database(), true);
    vec![Figure::against(
        &format!("submit {jobs} jobs of two lots, {CLIENTS} clients"),
        format!("{:.0}/s, median {median:.1?}, p99 {p99:.1?}", rate(jobs, took)),
        took,
        insert,
    )]
}
