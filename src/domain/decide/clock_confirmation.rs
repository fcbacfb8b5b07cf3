//! Whether the machine's clock may decide that something is old enough to be deleted.
//!
//! | OpenAI's newest `Date` | our clock since that answer | verdict |
//! |---|---|---|
//! | with the time since then, within 5 minutes of our clock | | confirmed |
//! | differed by more than 5 minutes when it arrived | | contradicted |
//! | agreed when it arrived | is at most one hour ahead, as after a suspension | confirmed |
//! | agreed when it arrived, or there is none | was set | confirmed by the operator within a day, else unconfirmed |

use std::time::Duration;

use crate::base::clock::{Moment, Timestamp};
use crate::domain::openai::ServerDate;

/// The largest difference of two clocks that agree, in milliseconds.
const TOLERANCE: i64 = 5 * 60 * 1000;
/// How long our clock is believed after an answer that confirmed it, by our clock.
const BELIEVED: Duration = Duration::from_hours(1);
/// How long an operator's confirmation is valid.
const OPERATORS: Duration = Duration::from_hours(24);
/// How long the clock may stay unconfirmed before that is reported.
const REPORTED: Duration = Duration::from_hours(7 * 24);

/// The verdict on the machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockVerdict {
    /// It is right.
    Confirmed,
    /// OpenAI's `Date` differs.
    Contradicted {
        /// Milliseconds by which our clock is ahead.
        skew: i64,
    },
    /// It was set since OpenAI confirmed it, or OpenAI has not done so in this process.
    Unconfirmed,
}

/// Judges the clock by OpenAI's newest `Date` and the operator's last confirmation.
pub fn judge(now: Moment, newest: Option<ServerDate>, operator: Option<Timestamp>) -> ClockVerdict {
    if let Some(newest) = newest {
        let skew = newest.skew(now);
        if skew.abs() <= TOLERANCE {
            return ClockVerdict::Confirmed;
        }
        if newest.skew(newest.received).abs() > TOLERANCE {
            return ClockVerdict::Contradicted { skew };
        }
        if is_within(newest.received.wall, BELIEVED, now.wall) {
            return ClockVerdict::Confirmed;
        }
    }
    match operator {
        Some(at) if is_within(at, OPERATORS, now.wall) => ClockVerdict::Confirmed,
        _ => ClockVerdict::Unconfirmed,
    }
}

/// Whether `at` is at most `most` ago.
fn is_within(at: Timestamp, most: Duration, now: Timestamp) -> bool {
    at <= now && now.since(at) <= most
}

/// Whether it is reported that the clock is not confirmed. `last` is when it was confirmed last.
pub fn is_reported(now: Timestamp, last: Timestamp) -> bool {
    now.since(last) >= REPORTED
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60;
    const DAY: i64 = 24 * 60 * MINUTE;

    /// `steady` seconds after the start, with a wall clock that is `ahead` seconds ahead.
    fn at(steady: i64, ahead: i64) -> Moment {
        Moment {
            wall: Timestamp::from_seconds(1_700_000_000 + steady + ahead),
            steady: Duration::from_secs(u64::try_from(steady).unwrap()),
        }
    }

    /// An answer that arrived `steady` seconds after the start, when our clock was `ahead` seconds ahead.
    fn date(steady: i64, ahead: i64) -> Option<ServerDate> {
        Some(ServerDate {
            date: at(steady, 0).wall,
            received: at(steady, ahead),
        })
    }

    #[test]
    fn a_clock_is_confirmed_contradicted_or_neither() {
        use ClockVerdict::{Confirmed, Unconfirmed};
        let contradicted = |seconds: i64| ClockVerdict::Contradicted { skew: seconds * 1000 };
        for (now, newest, operator, expected) in [
            // OpenAI agrees, a moment ago or long ago.
            (at(10, 0), date(10, 0), None, Confirmed),
            (at(10, 300), date(10, 300), None, Confirmed),
            (at(10, -300), date(10, -300), None, Confirmed),
            (at(90 * DAY, 0), date(10, 0), None, Confirmed),
            // OpenAI contradicts, whatever the operator says.
            (at(10, 301), date(10, 301), None, contradicted(301)),
            (at(10, -301), date(10, -301), None, contradicted(-301)),
            (at(10, 40 * DAY), date(10, 40 * DAY), None, contradicted(40 * DAY)),
            (
                at(10, DAY),
                date(10, DAY),
                Some(at(10, DAY).wall),
                contradicted(DAY),
            ),
            (at(90 * DAY, DAY), date(10, DAY), None, contradicted(DAY)),
            // The clock was corrected, and no answer has arrived since.
            (at(20, 0), date(10, 40 * DAY), None, Confirmed),
            // The clock was set since OpenAI agreed.
            (at(20, 40 * DAY), date(10, 0), None, Unconfirmed),
            (at(20, -MINUTE * 30), date(10, 0), None, Unconfirmed),
            // The machine was suspended: the steady clock stood still.
            (at(20, MINUTE * 59), date(10, 0), None, Confirmed),
            (at(20, MINUTE * 61), date(10, 0), None, Unconfirmed),
            // OpenAI has not answered, or its Date is not trusted.
            (at(20, 0), None, None, Unconfirmed),
            (at(DAY, 0), None, Some(at(0, 0).wall), Confirmed),
            (at(DAY + 1, 0), None, Some(at(0, 0).wall), Unconfirmed),
            (at(10, 40 * DAY), None, Some(at(10, 0).wall), Unconfirmed),
            (at(10, 0), None, Some(at(10, 40 * DAY).wall), Unconfirmed),
        ] {
            assert_eq!(
                judge(now, newest, operator),
                expected,
                "{now:?} {newest:?} {operator:?}"
            );
        }
    }

    #[test]
    fn an_unconfirmed_clock_is_reported_after_a_week() {
        assert!(!is_reported(at(7 * DAY - 1, 0).wall, at(0, 0).wall));
        assert!(is_reported(at(7 * DAY, 0).wall, at(0, 0).wall));
    }
}
