//! `/metrics` in Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::health::Health;
use super::prometheus_text::{Histogram, MetricsText};
use super::request_metrics::RequestMetrics;
use crate::base::clock::{Moment, Timestamp};
use crate::domain::alert::PauseScope;
use crate::domain::batch::BatchState;
use crate::domain::job::{JobStatus, RequestState};
use crate::http::Response;
use crate::store::figures::{Figures, figures};
use crate::store::money::ModelUsage;
use crate::store::{Store, Stored};

/// How long figures from the database are kept. More frequent scrapes get the same figures.
const MAX_AGE: Duration = Duration::from_secs(5);
/// The states of `webhook_deliveries`.
const DELIVERIES: [&str; 4] = ["scheduled", "due", "delivered", "failed"];

/// Upper bounds of the times from a job's acceptance to its end, in seconds. A trigger writes them as the
/// labels of `job_seconds` in `counters`.
const JOB_BOUNDS: [f64; 10] = [
    60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 57600.0, 86400.0,
];
/// Metrics whose values are rows of `counters`: the row's `what`, the metric's name, its label, its help.
const COUNTERS: [(&str, &str, &str, &str); 7] = [
    ("jobs_accepted", "jobs_accepted_total", "client", "Jobs accepted."),
    (
        "lots_accepted",
        "lots_accepted_total",
        "client",
        "Lots of the jobs accepted.",
    ),
    (
        "jobs_ended",
        "jobs_ended_total",
        "status",
        "Jobs that became final.",
    ),
    (
        "lots_finished",
        "lots_finished_total",
        "status",
        "Lots that were completed or failed.",
    ),
    (
        "lines",
        "lines_total",
        "outcome",
        "Ingested lines of batches, by their outcome.",
    ),
    (
        "calls",
        "synchronous_calls_total",
        "outcome",
        "Synchronous calls, by their outcome.",
    ),
    (
        "attempts",
        "webhook_attempts_total",
        "outcome",
        "Attempts to deliver a webhook.",
    ),
];
/// The last figures, and when they were read, on the steady clock.
#[derive(Default)]
pub(super) struct Metrics(Mutex<Option<(Duration, Figures)>>);

impl Metrics {
    /// The answer. `skew`: milliseconds by which the machine's clock is ahead of OpenAI's; `None` if unknown.
    pub(super) fn answer(
        &self,
        store: &Store,
        health: &Health,
        requests: &RequestMetrics,
        skew: Option<i64>,
        now: Moment,
    ) -> Stored<Response> {
        let figures = self.figures(store, now.steady)?;
        let mut page = page(&figures, store.bytes(), health, now);
        if let Some(skew) = skew {
            let help = "Seconds by which the machine's clock is ahead of the Date of OpenAI's answers.";
            page.head("clock_skew_seconds", help, "gauge");
            page.sample("clock_skew_seconds", &[], skew / 1000);
        }
        requests.write(&mut page);
        let text = page.0;
        let media_type = "text/plain; version=0.0.4; charset=utf-8";
        Ok(Response::bytes(200, media_type, text.into_bytes()))
    }

    /// The figures, at most [`MAX_AGE`] old.
    pub(super) fn figures(&self, store: &Store, now: Duration) -> Stored<Figures> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, figures)) = &*last
            && now.saturating_sub(*at) < MAX_AGE
        {
            return Ok(figures.clone());
        }
        let figures = store.read(figures)?;
        *last = Some((now, figures.clone()));
        Ok(figures)
    }
}

fn page(figures: &Figures, bytes: (u64, u64), health: &Health, now: Moment) -> MetricsText {
    let mut page = MetricsText::default();
    let version = env!("CARGO_PKG_VERSION");
    page.gauges("build_info", "The version that runs.", "version", [(version, 1)]);
    let storage_ok = u64::from(health.storage_error().is_none());
    page.gauge("storage_ok", "Whether jobs can be stored.", storage_ok);

    let jobs = JobStatus::ALL.iter();
    let jobs = jobs.map(|it| (it.as_str(), number(&figures.jobs, it)));
    page.gauges("jobs", "Jobs by status.", "status", jobs);
    let batches = BatchState::ALL.iter();
    let batches = batches.map(|it| (it.as_str(), number(&figures.batches, it)));
    page.gauges("batches", "Batches by state.", "state", batches);
    let requests = RequestState::ALL.iter();
    let requests = requests.map(|it| (it.as_str(), number(&figures.requests, it)));
    let help = "Requests of jobs that are not final, by state.";
    page.gauges("requests", help, "state", requests);
    let deliveries = DELIVERIES.iter();
    let deliveries = deliveries.map(|it| (*it, number(&figures.deliveries, &(*it).to_owned())));
    let help = "Webhook deliveries by state.";
    page.gauges("webhook_deliveries", help, "state", deliveries);

    let age = |since: Option<Timestamp>| since.map_or(0, |since| now.wall.since(since).as_secs());
    let help = "Seconds since the oldest waiting request began to wait.";
    page.gauge("oldest_waiting_seconds", help, age(figures.waiting_since));
    let help = "Seconds since the oldest due webhook became due.";
    page.gauge("webhook_delay_seconds", help, age(figures.due_since));

    let alerts = figures.alerts.iter();
    let alerts = alerts.map(|(kind, number)| (kind.as_str(), *number));
    page.gauges("alerts_open", "Open alerts by kind.", "kind", alerts);
    let scopes: Vec<String> = figures.pauses.iter().map(PauseScope::to_string).collect();
    let paused = scopes.iter().map(|scope| (scope.as_str(), 1));
    page.gauges("paused", "Paused scopes.", "scope", paused);

    let threads = health.threads();
    let help = "Seconds since each thread's last tick ended.";
    let ticks = threads.iter().map(|health| {
        let age = now.steady.saturating_sub(health.ticked);
        (health.thread.as_str(), age.as_secs())
    });
    page.gauges("thread_seconds_since_tick", help, "thread", ticks);
    let late = health.late_threads(now.steady);
    let well = threads.iter().map(|health| {
        let is_late = late.iter().any(|(thread, _)| *thread == health.thread);
        let ok = health.error.is_none() && !is_late;
        (health.thread.as_str(), u64::from(ok))
    });
    let help = "Whether each thread ticks on time and without an error.";
    page.gauges("thread_ok", help, "thread", well);

    let help = "Ticks of each thread since the start.";
    page.head("ticks_total", help, "counter");
    for health in &threads {
        page.sample("ticks_total", &[("thread", &health.thread)], health.ticks);
    }

    sums(&mut page, &figures.counters);
    used(&mut page, &figures.usage);
    page.gauge("database_bytes", "Size of the database file.", bytes.0);
    page.gauge("wal_bytes", "Size of the write-ahead log.", bytes.1);
    page
}

fn number<T: PartialEq>(counts: &[(T, u64)], of: &T) -> u64 {
    let found = counts.iter().find(|(known, _)| known == of);
    found.map_or(0, |(_, number)| *number)
}

/// The tokens and the cost of all attempts.
fn used(page: &mut MetricsText, used: &[ModelUsage]) {
    let help = "Tokens of all attempts. Input includes cached tokens, output includes reasoning tokens.";
    page.head("tokens_total", help, "counter");
    for it in used {
        for (kind, number) in [
            ("input", it.tokens.input),
            ("input_cached", it.tokens.cached),
            ("output", it.tokens.output),
            ("output_reasoning", it.tokens.reasoning),
        ] {
            let labels = [("model", it.model.as_str()), ("mode", &it.mode), ("kind", kind)];
            page.sample("tokens_total", &labels, number);
        }
    }
    let help = "Cost of the tokens that have a price, in US dollars.";
    page.head("cost_dollars_total", help, "counter");
    for it in used {
        let labels = [("model", it.model.as_str()), ("mode", &it.mode)];
        page.sample("cost_dollars_total", &labels, it.cost);
    }
}

/// The rows of `counters`, which count since the database was created.
fn sums(page: &mut MetricsText, sums: &[(String, String, u64)]) {
    let of = |wanted: &'static str| {
        let found = sums.iter().filter(move |(what, _, _)| what == wanted);
        found.map(|(_, label, number)| (label.as_str(), *number))
    };
    for (what, name, label, help) in COUNTERS {
        page.head(name, help, "counter");
        for (value, number) in of(what) {
            page.sample(name, &[(label, value)], number);
        }
    }
    let mut counts = [0; JOB_BOUNDS.len() + 1];
    for (bound, number) in of("job_seconds") {
        let at = JOB_BOUNDS.iter().position(|known| known.to_string() == bound);
        counts[at.unwrap_or(JOB_BOUNDS.len())] += number;
    }
    let help = "Seconds from a job's acceptance to its end.";
    page.head("job_duration_seconds", help, "histogram");
    let histogram = Histogram {
        bounds: &JOB_BOUNDS,
        counts: &counts,
        sum: of("job_seconds_sum").map(|(_, number)| number).sum::<u64>(),
    };
    page.histogram("job_duration_seconds", &[], &histogram);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The trigger writes the bounds as they are read here.
    #[test]
    fn the_trigger_knows_every_bound() {
        let triggers = include_str!("../../migrations/V13__triggers.sql");
        for bound in JOB_BOUNDS {
            let written = format!("WHEN s <= {bound} THEN '{bound}'");
            assert_eq!(triggers.matches(&written).count(), 1, "{bound}");
        }
    }
}
