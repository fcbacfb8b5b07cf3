//! Time, the lowest room of the house: everything else is told what time it is.
//!
//! Only [`SystemClock`] reads the machine's clocks; steps receive a [`Moment`] with each tick, so
//! that a simulation can move time as it likes.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

/// A point in wall-clock time: milliseconds since the Unix epoch, UTC.
///
/// Stored and printed as RFC 3339 with exactly three decimals (`2026-11-24T02:24:00.000Z`), so
/// that the text sorts as the time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The last instant that jiff writes (9999-12-30T22:00:00Z).
const LATEST: i64 = 253_402_207_200_000;

impl Timestamp {
    /// From milliseconds since the Unix epoch; beyond the years 1970 to 9999 it is clamped.
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

    /// How long after `earlier` this is; zero where it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// How long from `now` until this is due, `interval` at most. A due time further away than the
    /// interval it was made with says that the clock was set back: it is due at once.
    pub fn due_in(self, now: Timestamp, interval: Duration) -> Duration {
        let wait = self.since(now);
        if wait > interval {
            Duration::ZERO
        } else {
            wait
        }
    }

    /// This much earlier.
    pub fn before(self, by: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(whole_millis(by)))
    }

    /// How long until the next midnight, UTC.
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

    /// For the names of files (`20261124T022400.000Z`); sorts as the time does.
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

/// The text is no RFC 3339 time of the years 1970 to 9999.
#[derive(Debug, PartialEq, Eq)]
pub struct NotATime;

impl fmt::Display for NotATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a time of the form 2026-11-24T02:24:00Z")
    }
}

impl std::error::Error for NotATime {}

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

/// One reading of both clocks: the wall clock, which a person may set, and the steady one, which
/// only goes forward and starts anew with each process.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// What the wall clock says.
    pub wall: Timestamp,
    /// Time since an arbitrary start of this process.
    pub steady: Duration,
}

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// Both clocks, read now.
    fn now(&self) -> Moment;
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose steady time starts now.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one home of the machine's clocks"
    )]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one home of the machine's clocks"
    )]
    fn now(&self) -> Moment {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Moment {
            wall: Timestamp::from_millis(whole_millis(wall)),
            steady: self.origin.elapsed(),
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
