//! Which files at OpenAI are removed, and when.
//!
//! | `retention.remote_files` | backups | the files of a batch are removed |
//! |---|---|---|
//! | 0 | any | never |
//! | set | off | once the batch has been ingested for that long |
//! | set | on, none yet | never |
//! | set | on | the same, if the newest backup shows the batch as ingested |

use std::time::Duration;

use crate::base::clock::Timestamp;

/// Longer than a transaction takes: a row carries the time at which its transaction began.
const LONGEST_TRANSACTION: Duration = Duration::from_mins(1);

/// The backups of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backups {
    /// None are made.
    Off,
    /// There is none yet.
    NoneYet,
    /// The newest one shows the database as it was then.
    Newest(Timestamp),
}

/// The time before which a batch must have been ingested so that its files are removed; `None` if no files
/// are removed.
pub fn ingested_before(now: Timestamp, retention: Duration, backups: Backups) -> Option<Timestamp> {
    if retention.is_zero() {
        return None;
    }
    let before = now.before(retention);
    match backups {
        Backups::Off => Some(before),
        Backups::NoneYet => None,
        // After a restore of that backup, the results of later batches are fetched from OpenAI again.
        Backups::Newest(at) => Some(before.min(at.before(LONGEST_TRANSACTION))),
    }
}

/// The files of a batch at OpenAI.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchFiles<'a> {
    /// Its input file.
    pub input: Option<&'a str>,
    /// Its output file.
    pub output: Option<&'a str>,
    /// Its error file.
    pub error: Option<&'a str>,
    /// Whether another batch, whose files are still at OpenAI, was made from the same input file.
    pub is_input_shared: bool,
}

impl<'a> BatchFiles<'a> {
    /// The files that are removed with the batch. The last batch that shares an input file removes it.
    pub fn to_remove(self) -> impl Iterator<Item = &'a str> {
        let input = self.input.filter(|_| !self.is_input_shared);
        [input, self.output, self.error].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_until_a_backup_shows_their_results() {
        const WEEK: u64 = 7 * 86_400;
        let at = |seconds: i64| Timestamp::from_seconds(1_700_000_000 + seconds);
        let newest = |seconds: i64| Backups::Newest(at(seconds));
        for (retention, backups, expected) in [
            (0, Backups::Off, None),
            (0, newest(0), None),
            (WEEK, Backups::Off, Some(-604_800)),
            (WEEK, Backups::NoneYet, None),
            (WEEK, newest(0), Some(-604_800)),
            (WEEK, newest(-604_800), Some(-604_860)),
            (3_600, newest(-7_200), Some(-7_260)),
        ] {
            let before = ingested_before(at(0), Duration::from_secs(retention), backups);
            assert_eq!(before, expected.map(at), "{retention} {backups:?}");
        }
    }

    #[test]
    fn a_shared_input_file_is_removed_with_the_last_batch() {
        let files = BatchFiles {
            input: Some("in"),
            output: Some("out"),
            error: None,
            is_input_shared: false,
        };
        assert_eq!(files.to_remove().collect::<Vec<_>>(), ["in", "out"]);
        let files = BatchFiles {
            error: Some("errors"),
            is_input_shared: true,
            ..files
        };
        assert_eq!(files.to_remove().collect::<Vec<_>>(), ["out", "errors"]);
    }
}
