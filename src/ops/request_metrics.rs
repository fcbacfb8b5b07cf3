//! What clients asked since the start, by route, and how long the answers took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::metrics::{Histogram, Page};

/// Upper bounds of the times to an answer: polls take milliseconds, synchronous jobs half a minute.
const BOUNDS: [f64; 9] = [0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0];

/// See the module.
#[derive(Default)]
pub struct RequestMetrics {
    seen: Mutex<Seen>,
    unsigned_reads: AtomicU64,
}

#[derive(Default)]
struct Seen {
    answers: BTreeMap<(&'static str, u16), u64>,
    times: BTreeMap<&'static str, Times>,
}

/// How many answers took up to each of the bounds and longer than the one before, and all of their
/// time.
#[derive(Clone, Copy, Default)]
struct Times {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl RequestMetrics {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was answered; `route`: its path as the document writes it, or nothing where there is
    /// nothing.
    pub(crate) fn record_answer(&self, route: &'static str, status: u16, took: Duration) {
        let seen = &mut *self.seen();
        *seen.answers.entry((route, status)).or_default() += 1;
        let times = seen.times.entry(route).or_default();
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        times.counts[bucket.unwrap_or(BOUNDS.len())] += 1;
        times.sum += took;
    }

    /// The server itself refused what came, before it was a whole request.
    pub(crate) fn record_refusal(&self, status: u16) {
        *self.seen().answers.entry(("", status)).or_default() += 1;
    }

    /// A read without a signature was let through.
    pub(crate) fn record_unsigned_read(&self) {
        self.unsigned_reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the counters and the histogram.
    pub(super) fn write(&self, page: &mut Page) {
        let help = "Reads that `legacy_unsigned_reads` let through since the start.";
        page.head("unsigned_reads_total", help, "counter");
        let unsigned_reads = self.unsigned_reads.load(Ordering::Relaxed);
        page.sample("unsigned_reads_total", &[], unsigned_reads);
        let seen = self.seen();
        let help = "Requests of clients answered since the start, by route (none: there is none) and status.";
        page.head("http_requests_total", help, "counter");
        for ((route, status), number) in &seen.answers {
            let status = status.to_string();
            let labels = [("route", *route), ("status", &status)];
            page.sample("http_requests_total", &labels, number);
        }
        let name = "http_request_duration_seconds";
        let help = "From a whole request to its answer, by route.";
        page.head(name, help, "histogram");
        for (route, times) in &seen.times {
            let histogram = Histogram {
                bounds: &BOUNDS,
                counts: &times.counts,
                sum: times.sum.as_secs_f64(),
            };
            page.histogram(name, &[("route", route)], &histogram);
        }
    }
}
