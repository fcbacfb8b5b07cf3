//! Polling at OpenAI: the delay between a batch's end and the webhook, and the cost of many
//! batches.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::client::{load, post};
use crate::openai::BareOpenAi;
use crate::rig::{self, Figure, Process, cell, job, pause, submit, wait};

/// The time from the end of the last batch at OpenAI to the webhook.
pub fn latency() -> Vec<Figure> {
    let openai = BareOpenAi::start(3000);
    openai.complete();
    let appliance = rig::daemon(&openai, "openai = { poll_interval = \"1s\" }");
    let mut times: Vec<Duration> = (0..5)
        .map(|round| {
            openai.complete();
            let hook = format!("http://{}/v1/a/hook", openai.address);
            let batches = openai.batches();
            submit(&appliance, &job(1000, &["en", "de"], Some(hook)));
            wait("vision", || (openai.batches() > batches).then(|| openai.hold()));
            wait("translation", || (openai.batches() > batches + 1).then_some(()));
            pause(Duration::from_millis(500));
            let begun = Instant::now();
            openai.complete();
            let notified = wait("the webhook", || openai.hooks().get(round).copied());
            notified - begun
        })
        .collect();
    let [median, _] = rig::percentiles(&mut times);
    let worst = times[times.len() - 1];
    vec![Figure::alone(
        "from `completed` at OpenAI to the webhook, a job of 1,000 lots, polled every second",
        format!("median {median:.2?}, worst {worst:.2?}"),
    )]
}

/// The cost of polling many running batches.
pub fn polling() -> Vec<Figure> {
    // Close to an hour's limit: OpenAI accepts 2,000 creates an hour.
    const BATCHES: usize = 1900;
    const WATCHED: Duration = Duration::from_secs(120);
    let openai = BareOpenAi::start(3000);
    let appliance = rig::daemon(&openai, "[batch]\nmax_wait = \"1s\"\nmax_requests = 2");
    let one = |_| {
        let job = job(2, &["en"], None);
        post(&job.body, &job.signature)
    };
    let jobs = vec![(0..BATCHES).map(one).collect()];
    load(&appliance.api, jobs, BATCHES, 201, &AtomicBool::new(true));
    let submitted = || {
        let sql = "SELECT count(*) FROM openai_batches WHERE state = ?";
        cell::<u32>(&appliance.database(), sql, "submitted").unwrap() as usize
    };
    wait("the batches", || {
        pause(Duration::from_millis(500));
        (submitted() >= BATCHES).then_some(())
    });
    // Young batches are polled more often.
    pause(Duration::from_mins(6));
    openai.calls();
    let process = Process(appliance.daemon_id());
    let before = process.processor_time();
    pause(WATCHED);
    let used = process.processor_time() - before;
    let calls = openai.calls();
    let all: u64 = calls.values().sum();
    let mut kinds: Vec<_> = calls.into_iter().collect();
    kinds.sort();
    vec![Figure::alone(
        &format!("{BATCHES} batches that run, polled every 30 s"),
        format!(
            "{:.2} calls/s ({kinds:?} in {WATCHED:?}), {:.2} % of a core",
            all as f64 / WATCHED.as_secs_f64(),
            100.0 * used.as_secs_f64() / WATCHED.as_secs_f64()
        ),
    )]
}
