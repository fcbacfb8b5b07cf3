//! `/metrics`: figures in Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::health::Health;
use crate::batch::BatchState;
use crate::clock::{Moment, Timestamp};
use crate::http::Response;
use crate::job::{JobStatus, RequestState};
use crate::store::figures::{Figures, figures};
use crate::store::money::Used;
use crate::store::{Store, Stored};

/// How long a look at the database counts: however many scrape, it is looked at once in that time.
const FRESH: Duration = Duration::from_secs(5);
/// The states of `webhook_deliveries`.
const DELIVERIES: [&str; 4] = ["scheduled", "due", "delivered", "failed"];

/// The last look, and when it was taken on the steady clock.
#[derive(Default)]
pub(super) struct Metrics(Mutex<Option<(Duration, Figures)>>);

impl Metrics {
    /// The page.
    pub(super) fn page(
        &self,
        store: &Store,
        health: &Health,
        unsigned_reads: u64,
        now: Moment,
    ) -> Stored<Response> {
        let figures = self.figures(store, now.steady)?;
        let mut page = page(&figures, store.bytes(), health, now);
        page.counter(
            "unsigned_reads_total",
            "Reads that `legacy_unsigned_reads` let through since the start.",
            unsigned_reads,
        );
        let text = page.0;
        let media_type = "text/plain; version=0.0.4; charset=utf-8";
        Ok(Response::bytes(200, media_type, text.into_bytes()))
    }

    fn figures(&self, store: &Store, now: Duration) -> Stored<Figures> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, figures)) = &*last
            && now.saturating_sub(*at) < FRESH
        {
            return Ok(figures.clone());
        }
        let figures = store.read(figures)?;
        *last = Some((now, figures.clone()));
        Ok(figures)
    }
}

fn page(figures: &Figures, bytes: (u64, u64), health: &Health, now: Moment) -> Page {
    let mut page = Page(String::new());
    let version = env!("CARGO_PKG_VERSION");
    page.gauges(
        "build_info",
        "The version that runs.",
        "version",
        [(version, 1)],
    );
    let storage_ok = u64::from(health.storage().is_none());
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
    let help = "How long the head of the oldest queue of requests waits.";
    page.gauge("oldest_waiting_seconds", help, age(figures.waiting_since));
    let help = "How long the webhook waits that is due for longest.";
    page.gauge("webhook_delay_seconds", help, age(figures.due_since));

    let alerts = figures.alerts.iter();
    let alerts = alerts.map(|(kind, number)| (kind.as_str(), *number));
    page.gauges("alerts_open", "Open alerts by kind.", "kind", alerts);
    let paused = figures.pauses.iter().map(|scope| (scope.as_str(), 1));
    page.gauges("paused", "What is paused.", "scope", paused);

    page.used(&figures.used);

    let vitals = health.vitals();
    let help = "How long ago each thread's last tick ended.";
    let ticks = vitals.iter().map(|vital| {
        let age = now.steady.saturating_sub(vital.ticked);
        (vital.thread.as_str(), age.as_secs())
    });
    page.gauges("thread_seconds_since_tick", help, "thread", ticks);
    let late = health.late(now.steady);
    let well = vitals.iter().map(|vital| {
        let is_late = late.iter().any(|(thread, _)| *thread == vital.thread);
        let ok = vital.trouble.is_none() && !is_late;
        (vital.thread.as_str(), u64::from(ok))
    });
    let help = "Whether each thread ticks, and gets on.";
    page.gauges("thread_ok", help, "thread", well);

    page.gauge("database_bytes", "The database's file.", bytes.0);
    page.gauge("wal_bytes", "The database's write-ahead log.", bytes.1);
    page
}

fn number<T: PartialEq>(counts: &[(T, u64)], of: &T) -> u64 {
    let found = counts.iter().find(|(known, _)| known == of);
    found.map_or(0, |(_, number)| *number)
}

/// The page as it is written; each name begins with `batchkeeper_`.
struct Page(String);

impl Page {
    /// One figure.
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.0 += &format!("batchkeeper_{name} {value}\n");
    }

    /// What only grows.
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.0 += &format!("batchkeeper_{name} {value}\n");
    }

    /// One figure for each value of a label.
    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, help, "gauge");
        for (value, number) in samples {
            let value = escaped(value);
            self.0 += &format!("batchkeeper_{name}{{{label}=\"{value}\"}} {number}\n");
        }
    }

    /// Tokens and money by model and mode; micro-dollars, so that they are whole numbers.
    fn used(&mut self, used: &[Used]) {
        let help = "Tokens of all attempts; those cached are among those in.";
        self.head("tokens_total", help, "counter");
        for it in used {
            let kinds = [
                ("input", it.tokens.input),
                ("cached", it.tokens.cached),
                ("output", it.tokens.output),
            ];
            let (model, mode) = (escaped(&it.model), &it.mode);
            for (kind, number) in kinds {
                self.0 += &format!(
                    "batchkeeper_tokens_total{{model=\"{model}\",mode=\"{mode}\",kind=\"{kind}\"}} {number}\n"
                );
            }
        }
        let help = "What of it has a price, in millionths of a US dollar.";
        self.head("cost_microdollars_total", help, "counter");
        for it in used {
            let (model, mode) = (escaped(&it.model), &it.mode);
            self.0 += &format!(
                "batchkeeper_cost_microdollars_total{{model=\"{model}\",mode=\"{mode}\"}} {}\n",
                it.cost.0 / 1_000_000
            );
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.0 += &format!("# HELP batchkeeper_{name} {help}\n# TYPE batchkeeper_{name} {kind}\n");
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_the_page() {
        let mut page = Page(String::new());
        page.gauges("x", "Help.", "a", [("q\"\\\n", 3)]);
        let wanted = "# HELP batchkeeper_x Help.\n# TYPE batchkeeper_x gauge\nbatchkeeper_x{a=\"q\\\"\\\\\\n\"} 3\n";
        assert_eq!(page.0, wanted);
    }
}
