//! What the auditor calls stalled, overdue, missing, wrong, late or idle.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::domain::money::Money;

/// How long after its window a batch that has not ended is reported.
const OVERDUE: Duration = Duration::from_mins(30);
/// How long a past event (an abandoned notification, a difference of token counts) is reported.
const REPORTED: Duration = Duration::from_hours(24);

/// The age up to which lines count for the share of failed ones.
pub const RECENT_LINES: Duration = Duration::from_hours(1);
/// The share of failed lines says nothing if there are fewer.
const LEAST_LINES: u64 = 50;

/// Work that has waited since before this time is stalled: it waits longer than a batch may wait to be
/// filled, and a lost create to be found.
pub fn stalled_before(
    now: Timestamp,
    stuck_after: Duration,
    max_wait: Duration,
    settling_time: Duration,
) -> Timestamp {
    now.before(stuck_after + max_wait + settling_time)
}

/// A batch whose window closed before this time, and that has not ended, is overdue.
pub fn overdue_before(now: Timestamp) -> Timestamp {
    now.before(OVERDUE)
}

/// The times, in seconds by OpenAI's clock, between which the window of a running batch closes if the batch is
/// reported as expiring; `None` if none is. A batch whose window closed earlier is overdue.
pub fn expiring_between(now: Timestamp, warning: Duration) -> Option<(i64, i64)> {
    (!warning.is_zero()).then(|| (overdue_before(now).seconds(), (now + warning).seconds()))
}

/// The lines that were ingested lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentLines {
    /// Those with an answer.
    pub answered: u64,
    /// Those without one. Lines that OpenAI did not run, as in a cancelled batch, do not count.
    pub failed: u64,
}

impl RecentLines {
    /// Whether enough lines failed to report it: more than `percent` percent, of at least [`LEAST_LINES`].
    pub fn are_failing(self, percent: u32) -> bool {
        let lines = self.answered + self.failed;
        lines >= LEAST_LINES && self.failed * 100 > lines * u64::from(percent)
    }
}

/// A past event is reported if it happened after this time.
pub fn reported_after(now: Timestamp) -> Timestamp {
    now.before(REPORTED)
}

/// A running batch as its row has it.
#[derive(Clone, Copy, Debug)]
pub struct RunningBatch<'a> {
    /// The submission key. A second batch of a submission has the key of the first, `#` and a number.
    pub key: &'a str,
    /// Its input file.
    pub input_file_id: Option<&'a str>,
    /// When OpenAI created it, by its clock, in seconds.
    pub created_at: Option<i64>,
}

/// What OpenAI lists under the id of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ListingEntry<'a> {
    /// The submission key in its metadata.
    pub key: Option<&'a str>,
    /// Its input file.
    pub input_file_id: &'a str,
}

/// What a complete listing says about a running batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingDecision {
    /// It is listed, or the listing may lag behind its create.
    AsExpected,
    /// OpenAI does not list it any more.
    NotListed,
    /// OpenAI lists another submission under its id.
    WrongLink,
}

impl RunningBatch<'_> {
    /// Decides what a listing says about the batch. `lagging_since`: listings may lack batches that OpenAI
    /// created after that time (in seconds).
    pub fn compare(&self, listed: Option<ListingEntry<'_>>, lagging_since: i64) -> ListingDecision {
        match listed {
            None if self.created_at.is_some_and(|time| time > lagging_since) => ListingDecision::AsExpected,
            None => ListingDecision::NotListed,
            Some(listed) if self.is_made_as(listed) => ListingDecision::AsExpected,
            Some(_) => ListingDecision::WrongLink,
        }
    }

    /// Whether a listed batch was made from this row: by the key in its metadata, if it has one, and by its
    /// input file.
    fn is_made_as(&self, listed: ListingEntry<'_>) -> bool {
        let has_key = listed.key.is_none_or(|key| {
            let rest = self.key.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
        });
        let has_input = self
            .input_file_id
            .is_none_or(|input| input == listed.input_file_id);
        has_key && has_input
    }
}

/// Whether at least `percent` percent of a budget are used. A budget of 0 is none.
pub fn is_budget_used(percent: u64, limit: Money, spent: Money, reserved: Money) -> bool {
    let used = (spent + reserved).times(100);
    limit > Money::default() && used >= limit.times(percent)
}

/// Whether a budget does not pay for one more line, so that requests wait for it.
pub fn is_budget_exhausted(left: Money, line_cost: Money) -> bool {
    left.divided_into(line_cost) == 0
}

/// Whether the newest backup is too old. Without a backup, the database's age counts. `late_after` of 0: backups are
/// not watched.
pub fn is_backup_late(
    now: Timestamp,
    newest: Option<Timestamp>,
    database_made: Timestamp,
    late_after: Duration,
) -> bool {
    !late_after.is_zero() && newest.unwrap_or(database_made) <= now.before(late_after)
}

/// The pause of a model, or of all that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseState {
    /// There is none.
    Ended,
    /// It lasts until an operator ends it.
    Unlimited,
    /// It lasts until then.
    Until(Timestamp),
}

/// Whether the alerts of a pause that is over are closed: no work waits that could show whether its cause is
/// gone. A pause that ends later than in `longest_pause` was stored before the clock was set back; it is
/// over.
pub fn is_pause_idle(pause: PauseState, has_work: bool, now: Timestamp, longest_pause: Duration) -> bool {
    let is_over = match pause {
        PauseState::Ended => true,
        PauseState::Unlimited => false,
        PauseState::Until(until) => until.due_in(now, longest_pause).is_zero(),
    };
    is_over && !has_work
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_700_000_000 + seconds)
    }

    #[test]
    fn limits_lie_that_far_back() {
        let minutes = Duration::from_mins;
        let stalled = stalled_before(at(0), minutes(60), minutes(10), minutes(5));
        assert_eq!(stalled, at(-75 * 60));
        assert_eq!(overdue_before(at(0)), at(-30 * 60));
        assert_eq!(reported_after(at(0)), at(-24 * 3600));
    }

    #[test]
    fn a_batch_expires_between_the_warning_and_the_time_at_which_it_is_overdue() {
        let (from, to) = expiring_between(at(0), Duration::from_hours(2)).expect("a warning");
        for (expires, expected) in [
            (2 * 3_600 + 1, false),
            (2 * 3_600, true),
            (0, true),
            (-30 * 60, true),
            (-30 * 60 - 1, false),
        ] {
            let expires = at(expires).seconds();
            assert_eq!((from..=to).contains(&expires), expected, "{expires}");
        }
        assert_eq!(expiring_between(at(0), Duration::ZERO), None);
    }

    #[test]
    fn lines_fail_if_enough_of_enough_of_them_do() {
        for (answered, failed, percent, expected) in [
            (0, 0, 20, false),
            (0, 49, 20, false),
            (0, 50, 20, true),
            (80, 20, 20, false),
            (79, 21, 20, true),
            (0, 1_000, 100, false),
        ] {
            let lines = RecentLines { answered, failed };
            assert_eq!(lines.are_failing(percent), expected, "{lines:?} {percent}");
        }
    }

    #[test]
    fn a_listing_is_compared_by_key_and_input_file() {
        use ListingDecision::{AsExpected, NotListed, WrongLink};
        let listed = |key, input_file_id| Some(ListingEntry { key, input_file_id });
        for (created_at, listed, expected) in [
            (Some(100), None, AsExpected),
            (Some(99), None, NotListed),
            (None, None, NotListed),
            (Some(9), listed(Some("key"), "in"), AsExpected),
            (Some(9), listed(None, "in"), AsExpected),
            (Some(9), listed(Some("ke"), "in"), WrongLink),
            (Some(9), listed(Some("other"), "in"), WrongLink),
            (Some(9), listed(Some("key"), "other"), WrongLink),
        ] {
            let row = RunningBatch {
                key: "key",
                input_file_id: Some("in"),
                created_at,
            };
            assert_eq!(row.compare(listed, 99), expected, "{listed:?}");
        }
        let second = RunningBatch {
            key: "key#2",
            input_file_id: None,
            created_at: None,
        };
        assert_eq!(second.compare(listed(Some("key"), "in"), 99), AsExpected);
    }

    #[test]
    fn a_budget_is_used_by_what_is_spent_and_reserved() {
        for (percent, limit, spent, reserved, expected) in [
            (80, 100, 79, 0, false),
            (80, 100, 40, 40, true),
            (100, 100, 99, 0, false),
            (100, 100, 60, 60, true),
            (80, 0, 5, 0, false),
        ] {
            let used = is_budget_used(percent, Money(limit), Money(spent), Money(reserved));
            assert_eq!(used, expected, "{percent} {limit} {spent} {reserved}");
        }
    }

    #[test]
    fn a_budget_is_exhausted_when_it_pays_for_no_line() {
        for (left, line_cost, expected) in [(14, 20, true), (20, 20, false), (0, 20, true), (0, 0, true)] {
            let exhausted = is_budget_exhausted(Money(left), Money(line_cost));
            assert_eq!(exhausted, expected, "{left} {line_cost}");
        }
    }

    #[test]
    fn a_backup_is_late_if_it_is_missing_or_too_old() {
        for (newest, made, late_after, expected) in [
            (None, -3_600, 3_600, true),
            (None, -3_599, 3_600, false),
            (Some(at(-3_600)), -9_000, 3_600, true),
            (Some(at(-3_599)), -9_000, 3_600, false),
            (None, -9_000, 0, false),
        ] {
            let late = is_backup_late(at(0), newest, at(made), Duration::from_secs(late_after));
            assert_eq!(late, expected, "{newest:?} {made} {late_after}");
        }
    }

    #[test]
    fn a_pause_is_idle_once_it_is_over_and_no_work_waits() {
        use PauseState::{Ended, Unlimited, Until};
        for (pause, has_work, expected) in [
            (Ended, false, true),
            (Ended, true, false),
            (Unlimited, false, false),
            (Until(at(10)), false, false),
            (Until(at(-10)), false, true),
            (Until(at(-10)), true, false),
            (Until(at(9_000)), false, true),
        ] {
            let idle = is_pause_idle(pause, has_work, at(0), Duration::from_secs(3_600));
            assert_eq!(idle, expected, "{pause:?} {has_work}");
        }
    }
}
