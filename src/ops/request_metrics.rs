//! Counters of the client API since the start: requests by route, their duration, unsigned reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::prometheus_text::{Histogram, MetricsText};
use super::wrong_credentials::WrongCredentials;

/// Upper bounds of the times to an answer, in seconds. Polls take milliseconds, synchronous jobs up to half a
/// minute.
const BOUNDS: [f64; 9] = [0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0];

/// Counters of the client API.
pub struct RequestMetrics {
    answers: Mutex<Answers>,
    unsigned_reads: AtomicU64,
    /// Signatures of clients that did not hold.
    pub(crate) wrong_signatures: WrongCredentials,
    /// Tokens of operators that were not the configured one.
    pub(super) wrong_tokens: WrongCredentials,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            answers: Mutex::default(),
            unsigned_reads: AtomicU64::new(0),
            wrong_signatures: WrongCredentials::new("client_signature"),
            wrong_tokens: WrongCredentials::new("operator_token"),
        }
    }
}

#[derive(Default)]
struct Answers {
    numbers: BTreeMap<(&'static str, u16), u64>,
    times: BTreeMap<&'static str, Times>,
}

/// The number of answers up to each bound and above the one before, and the sum of their times.
#[derive(Clone, Copy, Default)]
struct Times {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl RequestMetrics {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an answer. `route` is the path as the OpenAPI document writes it; empty for an unknown path.
    pub(crate) fn record_answer(&self, route: &'static str, status: u16, took: Duration) {
        let answers = &mut *self.lock();
        *answers.numbers.entry((route, status)).or_default() += 1;
        let times = answers.times.entry(route).or_default();
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        times.counts[bucket.unwrap_or(BOUNDS.len())] += 1;
        times.sum += took;
    }

    /// Records that the HTTP server refused a request before it was complete.
    pub(crate) fn record_refusal(&self, status: u16) {
        *self.lock().numbers.entry(("", status)).or_default() += 1;
    }

    /// Records a read that needed no signature.
    pub(crate) fn record_unsigned_read(&self) {
        self.unsigned_reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the counters and the histogram.
    pub(super) fn write(&self, page: &mut MetricsText) {
        let help = "Reads that `legacy_unsigned_reads` let through since the start.";
        page.head("unsigned_reads_total", help, "counter");
        let unsigned_reads = self.unsigned_reads.load(Ordering::Relaxed);
        page.sample("unsigned_reads_total", &[], unsigned_reads);
        let help = "Wrong signatures of clients and wrong tokens of operators since the start.";
        page.head("wrong_credentials_total", help, "counter");
        for wrong in [&self.wrong_signatures, &self.wrong_tokens] {
            let (kind, total) = wrong.figures();
            page.sample("wrong_credentials_total", &[("kind", kind)], total);
        }
        let answers = self.lock();
        let help =
            "Answered requests of clients since the start, by status and route (empty for an unknown path).";
        page.head("http_requests_total", help, "counter");
        for ((route, status), number) in &answers.numbers {
            let status = status.to_string();
            let labels = [("route", *route), ("status", &status)];
            page.sample("http_requests_total", &labels, number);
        }
        let name = "http_request_duration_seconds";
        let help = "Seconds from a complete request to its answer, by route.";
        page.head(name, help, "histogram");
        for (route, times) in &answers.times {
            let histogram = Histogram {
                bounds: &BOUNDS,
                counts: &times.counts,
                sum: times.sum.as_secs_f64(),
            };
            page.histogram(name, &[("route", route)], &histogram);
        }
    }
}
