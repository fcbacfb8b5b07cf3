//! Times and clocks.
//!
//! Only [`SystemClock`] reads the machine's clocks. Workers receive a [`Moment`] with each tick, so a
//! simulation can set the time.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// A point in wall-clock time: milliseconds since the Unix epoch, UTC.
///
/// Its text is RFC 3339 with exactly three decimals (`2026-11-24T02:24:00.000Z`), so that texts sort in the
/// order of the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The last instant that jiff writes (9999-12-30T22:00:00Z).
const LATEST: i64 = 253_402_207_200_000;

impl Timestamp {
    /// From milliseconds since the Unix epoch. Times outside of the years 1970 to 9999 are clamped.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(0, LATEST))
    }

    /// From whole seconds since the Unix epoch, as OpenAI's API gives them.
    pub fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The time from `earlier` until this; zero if `earlier` is later than this.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// The time from `now` until this due time, which was set to at most `interval` ahead. If it is further
    /// away, the clock has been set back, and the work is due now.
    pub fn due_in(self, now: Timestamp, interval: Duration) -> Duration {
        let wait = self.since(now);
        if wait > interval { Duration::ZERO } else { wait }
    }

    /// The time that is `by` earlier.
    pub fn before(self, by: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(whole_millis(by)))
    }

    /// The time until the next midnight, UTC.
    pub fn until_midnight(self) -> Duration {
        const DAY: i64 = 86_400_000;
        Duration::from_millis((DAY - self.0.rem_euclid(DAY)).unsigned_abs())
    }

    /// RFC 3339 in whole seconds (`2026-11-24T02:24:00Z`), the form of the clients' contract.
    pub fn to_seconds_text(self) -> String {
        let text = self.to_string();
        format!("{}Z", text.get(..19).unwrap_or(&text))
    }

    /// The day (UTC), as in `2026-11-24`.
    pub fn to_day_text(self) -> String {
        let text = self.to_string();
        text.get(..10).unwrap_or(&text).to_owned()
    }

    /// The form for file names (`20261124T022400.000Z`). Texts sort in the order of the times.
    pub fn to_compact_text(self) -> String {
        self.to_string().replace(['-', ':'], "")
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, by: Duration) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_add(whole_millis(by)))
    }
}

fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => Err(fmt::Error),
        }
    }
}

/// The text is not an RFC 3339 time of the years 1970 to 9999.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time of the form 2026-11-24T02:24:00Z")]
pub struct NotATime;

impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let time: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        let millis = time.as_millisecond();
        if (0..=LATEST).contains(&millis) {
            Ok(Self(millis))
        } else {
            Err(NotATime)
        }
    }
}

/// One reading of both clocks. A person may set the wall clock. The steady clock only goes forward, and
/// starts with each process.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time of the wall clock.
    pub wall: Timestamp,
    /// The time since an arbitrary start in this process.
    pub steady: Duration,
}

/// A source of the time.
pub trait Clock: Send + Sync {
    /// Reads both clocks.
    fn now(&self) -> Moment;
}

/// The start of the steady time: all clocks of a process share it, so that their times can be compared.
#[allow(
    clippy::disallowed_methods,
    reason = "the only place that reads the machine's clocks"
)]
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The machine's own clocks.
#[derive(Debug, Default)]
pub struct SystemClock(());

impl SystemClock {
    /// Creates a clock. The steady time starts with the first clock of the process.
    pub fn new() -> Self {
        LazyLock::force(&ORIGIN);
        Self(())
    }
}

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the only place that reads the machine's clocks"
    )]
    fn now(&self) -> Moment {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Moment {
            wall: Timestamp::from_millis(whole_millis(wall)),
            steady: ORIGIN.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_three_decimals_and_reads_back() {
        for millis in [0, 1, 999, 1_795_400_000_000, 1_795_400_000_120, LATEST] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(time.to_string().len(), 24, "{time}");
            assert_eq!(time.to_string().parse(), Ok(time));
        }
        assert_eq!(
            Timestamp::from_seconds(1_795_400_000).to_string(),
            "2026-11-23T02:13:20.000Z"
        );
        assert_eq!(
            Timestamp::from_millis(1_795_400_000_999).to_seconds_text(),
            "2026-11-23T02:13:20Z"
        );
    }
}
