//! What happened over time: the intervals of the chart.

use rusqlite::params;

use crate::base::clock::Timestamp;
use crate::store::{Stored, View};

/// What happened in one interval of the chart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// Lots that have a text.
    pub completed: u64,
    /// Lots that failed.
    pub failed: u64,
    /// The times from acceptance to result of the lots that have a text, added up, in milliseconds. A lot may fail
    /// at once, which says nothing about the time of a result.
    pub millis: u64,
    /// Input tokens that did not come from OpenAI's cache.
    pub uncached_tokens: u64,
    /// Input tokens from OpenAI's cache.
    pub cached_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
}

impl Interval {
    /// Lots that were finished.
    pub fn lots(&self) -> u64 {
        self.completed + self.failed
    }

    /// The mean time of a lot from acceptance to its text, in milliseconds; `None` without such lots.
    pub fn mean(&self) -> Option<u64> {
        self.millis.checked_div(self.completed)
    }

    fn add(&mut self, what: &str, number: u64, millis: u64) {
        match what {
            "lots_completed" => {
                self.completed += number;
                self.millis += millis;
            }
            "lots_failed" => self.failed += number,
            "input_tokens" => self.uncached_tokens += number,
            "cached_tokens" => self.cached_tokens += number,
            "output_tokens" => self.output_tokens += number,
            _ => {}
        }
    }

    /// The sum of two intervals.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.completed += other.completed;
        self.failed += other.failed;
        self.millis += other.millis;
        self.uncached_tokens += other.uncached_tokens;
        self.cached_tokens += other.cached_tokens;
        self.output_tokens += other.output_tokens;
        self
    }
}

/// The last `count` intervals of `minutes` minutes each, oldest first. The last one contains `now`. They
/// begin at multiples of their length since the epoch.
pub fn intervals(view: &View, now: Timestamp, minutes: u32, count: u32) -> Stored<Vec<Interval>> {
    let length = i64::from(minutes) * 60;
    let first = (now.seconds() / length + 1 - i64::from(count)) * length;
    let mut query = view.prepare_cached(
        "SELECT (unixepoch(minute) - ?1) / ?2, what, sum(number), sum(millis) FROM minute_stats
         WHERE minute >= strftime('%Y-%m-%dT%H:%M', ?1, 'unixepoch') GROUP BY 1, 2",
    )?;
    let mut intervals = vec![Interval::default(); usize::try_from(count).unwrap_or(0)];
    let mut rows = query.query(params![first, length])?;
    while let Some(row) = rows.next()? {
        let at: usize = row.get(0)?;
        // Rows in the future come from a clock that was set back since. They are not shown.
        if let Some(interval) = intervals.get_mut(at) {
            let what: String = row.get(1)?;
            interval.add(&what, row.get(2)?, row.get(3)?);
        }
    }
    Ok(intervals)
}
