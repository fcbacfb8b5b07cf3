//! How many of a lot's images may be missing, and which checks of an image still count.
//!
//! | images missing | lot |
//! |---|---|
//! | at most 30 percent | sent without them |
//! | more, or all of them, or there are none | fails |
//! | the same, while OpenAI may have answered it already | waits |

use std::time::Duration;

use crate::base::clock::Timestamp;

/// A lot fails if more than this percentage of its images is missing.
const MAX_MISSING_PERCENT: usize = 30;
/// How old a check may be when the lot begins to wait.
const FRESH: Duration = Duration::from_mins(5);
/// How long a check is kept: the checks of a hundred images of a host that hangs take seven minutes, and the
/// first must still count after the last.
pub const KEPT: Duration = Duration::from_hours(1);

/// What follows for a lot whose images are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LotImagesDecision {
    /// It is sent without the missing ones.
    Send,
    /// Too few are left: it fails.
    Fail,
    /// Too few are left, but OpenAI may have answered it already: it waits.
    Wait,
}

/// Whether a lot has too few images to be described.
pub fn has_too_few_images(images: usize, missing: usize) -> bool {
    missing == images || missing * 100 > images * MAX_MISSING_PERCENT
}

/// Decides what follows for a lot with `images` images, `missing` of which cannot be fetched.
///
/// `may_be_answered`: the database may be older than a batch at OpenAI, as after a restore. Images that were
/// there then may be gone now, and no lot fails for that.
pub fn decide(images: usize, missing: usize, may_be_answered: bool) -> LotImagesDecision {
    match (has_too_few_images(images, missing), may_be_answered) {
        (false, _) => LotImagesDecision::Send,
        (true, false) => LotImagesDecision::Fail,
        (true, true) => LotImagesDecision::Wait,
    }
}

/// The time from which a check of an image counts for a lot that waits since `waiting_since`.
///
/// `openai_failed`: OpenAI could not fetch an image of the lot, and the lot waits again: only later checks
/// count. A time in the future shows that the clock was set back; it is not trusted.
pub fn oldest_check(waiting_since: Timestamp, openai_failed: bool, now: Timestamp) -> Timestamp {
    match openai_failed && waiting_since <= now {
        true => waiting_since,
        false => waiting_since.min(now.before(FRESH)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lot_fails_if_more_than_30_percent_of_its_images_are_missing() {
        use LotImagesDecision::{Fail, Send, Wait};
        for (images, missing, may_be_answered, expected) in [
            (1, 0, false, Send),
            (10, 3, false, Send),
            (10, 4, false, Fail),
            (3, 1, false, Fail),
            (4, 1, false, Send),
            (1, 1, false, Fail),
            (0, 0, false, Fail),
            (10, 3, true, Send),
            (10, 4, true, Wait),
        ] {
            let decision = decide(images, missing, may_be_answered);
            assert_eq!(decision, expected, "{missing} of {images}");
        }
    }

    #[test]
    fn a_check_counts_from_five_minutes_before_now_or_since_openai_failed() {
        let at = |seconds: i64| Timestamp::from_seconds(1_700_000_000 + seconds);
        for (waiting_since, openai_failed, now, expected) in [
            (0, false, 60, -240),
            (0, false, 1_200, 0),
            (100, true, 1_200, 100),
            (9_000, true, 1_200, 900),
            (9_000, false, 1_200, 900),
        ] {
            let oldest = oldest_check(at(waiting_since), openai_failed, at(now));
            assert_eq!(oldest, at(expected), "{waiting_since} {openai_failed} {now}");
        }
    }
}
