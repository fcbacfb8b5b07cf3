//! When an open job probably ends.
//!
//! | the last batches of | a stage takes |
//! |---|---|
//! | both stages are few | an hour each, also if the job needs no translation |
//! | the stage are few | an hour |
//! | the stage are enough | the median of their times, after the longest wait for a batch |
//!
//! A job ends when both stages of it are over, counted from its acceptance; but not before a quarter of what is left.
//! A job without translations has one stage.

use std::time::Duration;

use crate::base::clock::Timestamp;

/// The fewest batches that say how long a stage takes.
const FEWEST: usize = 3;
/// The most batches that are asked: the last ones.
pub const LAST_BATCHES: u32 = 20;
/// How long a stage takes if no batch says so. Four of five batches at OpenAI end within an hour.
const TYPICAL_STAGE: Duration = Duration::from_hours(1);
/// The longest time of a stage that is estimated.
const LONGEST_STAGE: Duration = Duration::from_hours(48);

/// How long the last batches of each stage took: the medians; `None` if they are too few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    vision: Option<Duration>,
    translation: Option<Duration>,
}

impl StageTimes {
    /// The medians of the times of the last batches.
    pub fn of(vision: Vec<Duration>, translation: Vec<Duration>) -> Self {
        Self {
            vision: median(vision),
            translation: median(translation),
        }
    }

    fn are_known(self) -> bool {
        self.vision.is_some() || self.translation.is_some()
    }
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied();
    middle.filter(|_| times.len() >= FEWEST)
}

/// A job that is not final.
#[derive(Clone, Copy, Debug)]
pub struct OpenJob {
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Whether all its descriptions are settled.
    pub is_described: bool,
    /// Whether it has a language that is translated into.
    pub has_translations: bool,
    /// `batch.max_wait`: how long a request waits for its batch at most.
    pub longest_wait: Duration,
}

impl OpenJob {
    /// When the job probably ends.
    pub fn estimated_end(self, times: StageTimes, now: Timestamp) -> Timestamp {
        let stage = |time: Option<Duration>| {
            let time = time.map_or(TYPICAL_STAGE, |time| time.saturating_add(self.longest_wait));
            time.min(LONGEST_STAGE)
        };
        let vision = stage(times.vision);
        let translation = match self.has_translations || !times.are_known() {
            true => stage(times.translation),
            false => Duration::ZERO,
        };
        let left = match self.is_described {
            true => translation,
            false => vision + translation,
        };
        (self.created_at + vision + translation).max(now + left / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(all: &[u64]) -> Vec<Duration> {
        all.iter().map(|minutes| Duration::from_mins(*minutes)).collect()
    }

    #[test]
    fn the_median_of_enough_batches_is_the_time_of_a_stage() {
        for (times, expected) in [
            (&[][..], None),
            (&[7, 9], None),
            (&[9, 7, 1_440], Some(9)),
            (&[1, 2, 3, 4], Some(3)),
            (&[1_440, 5, 5, 5, 1_440], Some(5)),
        ] {
            assert_eq!(
                median(minutes(times)),
                expected.map(Duration::from_mins),
                "{times:?}"
            );
        }
    }

    #[test]
    fn a_job_ends_when_its_stages_have_taken_their_time() {
        let none: &[u64] = &[];
        let created_at = Timestamp::from_seconds(1_795_400_000);
        // Minutes of the batches of each stage, whether it is described and has translations, the minutes that have
        // passed; the minutes from acceptance to the estimated end.
        for (vision, translation, is_described, has_translations, passed, expected) in [
            // Nothing is known: two hours, at least a quarter of an hour for each stage that is left.
            (none, none, false, true, 0, 120),
            (none, none, false, false, 0, 120),
            (none, none, false, true, 100, 130),
            (none, none, true, true, 100, 120),
            (none, none, true, true, 119, 134),
            (&[9, 9], &[9], false, true, 0, 120),
            // A wait of one minute comes before each batch.
            (&[9, 9, 9], &[19, 19, 19], false, true, 0, 30),
            (&[9, 9, 9], &[19, 19, 19], false, false, 0, 10),
            (&[9, 9, 9], &[19, 19, 19], true, true, 29, 34),
            (&[9, 9, 9], &[19, 19, 19], false, true, 600, 607),
            // One stage is known.
            (&[9, 9, 9], none, false, true, 0, 70),
            (none, &[9, 9, 9], false, true, 0, 70),
            // A stage takes two days at most.
            (&[9_000, 9_000, 9_000], none, false, false, 0, 2_880),
        ] {
            let job = OpenJob {
                created_at,
                is_described,
                has_translations,
                longest_wait: Duration::from_mins(1),
            };
            let times = StageTimes::of(minutes(vision), minutes(translation));
            let now = created_at + Duration::from_mins(passed);
            let end = job.estimated_end(times, now);
            // A quarter of an odd number of minutes is cut to the minute.
            assert_eq!(
                end.since(created_at).as_secs() / 60,
                expected,
                "{job:?} {times:?} {passed}"
            );
        }
    }
}
