//! Lines of a batch that has ended are in neither result file: whether the files are fetched again.
//!
//! A line counts as missing only if the lines that were found explain OpenAI's counts, or once
//! `results_timeout` is over. A line whose answer came too late would be sent, and billed, again.
//!
//! | the batch | its files | OpenAI's counts | a line in neither file |
//! |---|---|---|---|
//! | was not completed | none | no line | has failed transiently: it did not run |
//! | any | any | any | is missing: it may have been billed |

use std::time::Duration;

use crate::domain::batch::Outcome;
use crate::domain::openai::RequestCounts;

/// What the result files of a batch have shown.
#[derive(Clone, Copy, Debug)]
pub struct ReadFiles {
    /// Whether OpenAI says that every line ran.
    pub is_completed: bool,
    /// Whether OpenAI named a file at all.
    pub has_file: bool,
    /// Lines of the batch.
    pub lines: u64,
    /// Lines that are in neither file.
    pub unread: u64,
    /// Lines that the model has answered, one way or another.
    pub answered: u64,
    /// OpenAI's counts.
    pub counts: RequestCounts,
}

/// How long missing lines are waited for.
#[derive(Clone, Copy, Debug)]
pub struct MissingLinesLimits {
    /// In all.
    pub timeout: Duration,
    /// Before the files are fetched again for the first time.
    pub shortest: Duration,
    /// Between two fetches at most.
    pub longest: Duration,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingLinesDecision {
    /// Every line gets its verdict; a missing one counts as missing.
    Settle,
    /// The files are fetched and read again.
    FetchAgain {
        /// How long until then.
        wait: Duration,
    },
}

impl ReadFiles {
    /// Whether lines that are missing now may be in the files later.
    pub fn may_grow(&self) -> bool {
        let found = self.lines.saturating_sub(self.unread);
        let is_explained = if self.is_completed {
            found >= self.counts.completed + self.counts.failed
        } else {
            // Lines that never ran are found too, and OpenAI counts them nowhere.
            self.answered >= self.counts.completed
        };
        self.unread > 0 && self.has_file && !is_explained
    }

    /// The outcome of a line that is in neither file.
    pub fn unread_outcome(&self) -> Outcome {
        let has_run = self.is_completed || self.has_file || self.counts.completed + self.counts.failed > 0;
        match has_run {
            true => Outcome::Missing,
            false => Outcome::Passing,
        }
    }

    /// Decides what follows after missing lines were waited for that long.
    pub fn decide(&self, waited: Duration, limits: MissingLinesLimits) -> MissingLinesDecision {
        if !self.may_grow() || waited >= limits.timeout {
            return MissingLinesDecision::Settle;
        }
        // Each wait is as long as all before it: the files may be large, and mostly they are whole.
        let wait = limits.shortest.max(waited);
        MissingLinesDecision::FetchAgain {
            wait: wait.min(limits.timeout - waited).min(limits.longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_openai_counts_are_waited_for() {
        let counts = |completed, failed| RequestCounts {
            total: 10,
            completed,
            failed,
        };
        for (is_completed, has_file, unread, answered, counts, expected) in [
            (true, true, 0, 10, counts(10, 0), false),
            (true, true, 1, 9, counts(10, 0), true),
            (true, true, 1, 8, counts(8, 1), false),
            (true, true, 1, 8, counts(8, 2), true),
            (true, false, 10, 0, counts(10, 0), false),
            (false, true, 5, 5, counts(5, 0), false),
            (false, true, 5, 4, counts(5, 0), true),
            (false, true, 5, 4, counts(4, 3), false),
        ] {
            let read = ReadFiles {
                is_completed,
                has_file,
                lines: 10,
                unread,
                answered,
                counts,
            };
            assert_eq!(read.may_grow(), expected, "{read:?}");
        }
    }

    #[test]
    fn lines_of_a_batch_that_did_nothing_have_failed_transiently() {
        for (is_completed, has_file, completed, failed, expected) in [
            (false, false, 0, 0, Outcome::Passing),
            (false, false, 1, 0, Outcome::Missing),
            (false, false, 0, 1, Outcome::Missing),
            (false, true, 0, 0, Outcome::Missing),
            (true, false, 0, 0, Outcome::Missing),
        ] {
            let read = ReadFiles {
                is_completed,
                has_file,
                lines: 10,
                unread: 10,
                answered: 0,
                counts: RequestCounts {
                    total: 10,
                    completed,
                    failed,
                },
            };
            assert_eq!(read.unread_outcome(), expected, "{read:?}");
        }
    }

    #[test]
    fn the_wait_doubles_until_the_timeout() {
        let second = Duration::from_secs(1);
        let read = ReadFiles {
            is_completed: true,
            has_file: true,
            lines: 10,
            unread: 1,
            answered: 9,
            counts: RequestCounts {
                total: 10,
                completed: 10,
                failed: 0,
            },
        };
        let limits = MissingLinesLimits {
            timeout: second * 600,
            shortest: second * 60,
            longest: second * 200,
        };
        let after = |wait| MissingLinesDecision::FetchAgain { wait: second * wait };
        for (waited, expected) in [
            (0, after(60)),
            (60, after(60)),
            (120, after(120)),
            (240, after(200)),
            (550, after(50)),
            (600, MissingLinesDecision::Settle),
        ] {
            assert_eq!(read.decide(second * waited, limits), expected, "{waited}");
        }
    }
}
