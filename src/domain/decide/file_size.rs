//! A result file has another size than the server states: whether it is whole.
//!
//! A download that a proxy has cut looks like a whole one. But some compatible servers state an estimate.
//!
//! | the batch's lines | the downloads | the file |
//! |---|---|---|
//! | all are in its files | any | is whole: no line can be missing |
//! | as many as the server counts (`completed + failed = total > 0`) are in its files | three, each some time after the one before, each ending in a whole line | is whole |
//! | else | any | may be cut, and is downloaded again |
//!
//! A proxy that cuts each download at the same place takes lines away that the server counts.

use std::time::Duration;

use super::missing_lines::ReadFiles;

/// Downloads after which a size that differs counts as an estimate.
const DOWNLOADS: u32 = 3;

/// What the downloads of a file have shown so far. Times are on the steady clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeEvidence {
    /// Downloads in a row that count: they ended in a whole line, each long enough after the one before.
    downloads: u32,
    /// When the last one of them was read.
    counted_at: Duration,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeDecision {
    /// The file is whole.
    Accept,
    /// The file may be cut.
    DownloadAgain,
}

impl SizeEvidence {
    /// Records a download that was read at `now`. It counts if the last one that counts is older than `interval`.
    pub fn record(&mut self, now: Duration, ends_in_whole_line: bool, interval: Duration) {
        if !ends_in_whole_line {
            *self = Self::default();
        } else if self.downloads == 0 || now >= self.counted_at + interval {
            self.downloads += 1;
            self.counted_at = now;
        }
    }

    /// Decides by the lines that were found in the batch's files. `has_all_ids` is whether every custom id of the
    /// batch is known here; those of a recovered batch may not be.
    pub fn decide(&self, read: &ReadFiles, has_all_ids: bool) -> SizeDecision {
        let found = read.lines.saturating_sub(read.unread);
        let counts = read.counts;
        let has_all = has_all_ids && read.lines > 0 && read.unread == 0;
        let has_counted = counts.total > 0
            && counts.completed.checked_add(counts.failed) == Some(counts.total)
            && found == counts.total;
        match has_all || has_counted && self.downloads >= DOWNLOADS {
            true => SizeDecision::Accept,
            false => SizeDecision::DownloadAgain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::openai::RequestCounts;

    const MINUTE: Duration = Duration::from_mins(1);

    fn evidence(downloads: &[(u32, bool)]) -> SizeEvidence {
        let mut evidence = SizeEvidence::default();
        for (minute, is_whole) in downloads {
            evidence.record(MINUTE * *minute, *is_whole, MINUTE * 10);
        }
        evidence
    }

    #[test]
    fn downloads_count_if_they_are_whole_and_apart() {
        for (downloads, expected) in [
            (&[(5, true)][..], 1),
            (&[(5, true), (14, true)], 1),
            (&[(5, true), (14, true), (15, true)], 2),
            (&[(5, true), (15, true), (25, true)], 3),
            (&[(5, true), (15, false), (25, true)], 1),
            (&[(5, false)], 0),
        ] {
            assert_eq!(evidence(downloads).downloads, expected, "{downloads:?}");
        }
    }

    #[test]
    fn a_file_is_whole_if_no_line_can_be_missing() {
        use SizeDecision::{Accept, DownloadAgain};
        let (one, three) = (&[(5, true)][..], &[(5, true), (15, true), (25, true)][..]);
        for (unread, (completed, failed, total), downloads, has_all_ids, expected) in [
            (0, (0, 0, 0), one, true, Accept),
            (0, (0, 0, 0), three, false, DownloadAgain),
            // The server lost two lines, and says so.
            (2, (7, 1, 8), one, true, DownloadAgain),
            (2, (7, 1, 8), three, true, Accept),
            (2, (7, 1, 8), three, false, Accept),
            // A proxy cuts each download at the same place.
            (2, (9, 1, 10), three, true, DownloadAgain),
            (1, (7, 1, 8), three, true, DownloadAgain),
            // The counts do not add up, or say nothing.
            (2, (8, 0, 10), three, true, DownloadAgain),
            (10, (0, 0, 0), three, true, DownloadAgain),
            (2, (u64::MAX, 9, 8), three, true, DownloadAgain),
        ] {
            let read = ReadFiles {
                is_completed: true,
                has_file: true,
                lines: 10,
                unread,
                answered: 0,
                counts: RequestCounts {
                    total,
                    completed,
                    failed,
                },
            };
            let decision = evidence(downloads).decide(&read, has_all_ids);
            assert_eq!(decision, expected, "{read:?} {downloads:?} {has_all_ids}");
        }
    }

    #[test]
    fn nothing_is_proved_of_a_batch_without_lines() {
        let read = ReadFiles {
            is_completed: true,
            has_file: true,
            lines: 0,
            unread: 0,
            answered: 0,
            counts: RequestCounts::default(),
        };
        assert_eq!(evidence(&[]).decide(&read, true), SizeDecision::DownloadAgain);
    }
}
