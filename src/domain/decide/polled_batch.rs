//! OpenAI reported a batch: whether it has ended, and when it is polled next.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::domain::openai::{Batch, BatchStatus};

/// A batch that has not ended this long after its window is reported.
const OVERDUE: Duration = Duration::from_mins(30);
/// The longest interval between two polls, in base intervals.
const LONGEST_INTERVAL: u32 = 10;
/// A batch is polled this often in its age.
const POLLS_IN_AGE: u32 = 20;

/// What follows from a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolledBatchDecision {
    /// It has ended, with every file that it must have.
    Ended,
    /// It has ended, but OpenAI has yet to name a file.
    FilesLate {
        /// How long until the next poll.
        wait: Duration,
    },
    /// It runs, as far as OpenAI's report can be understood.
    Running {
        /// How long until the next poll.
        wait: Duration,
        /// Whether it should have ended long ago.
        is_overdue: bool,
    },
}

/// Decides what follows from OpenAI's report at `now`. `base` is the configured interval.
/// `may_wait_for_files` is whether files that OpenAI has not named are still waited for.
pub fn decide(
    batch: &Batch,
    now: Timestamp,
    base: Duration,
    may_wait_for_files: bool,
) -> PolledBatchDecision {
    let wait = interval(batch, now, base);
    if are_files_late(batch) && may_wait_for_files {
        PolledBatchDecision::FilesLate { wait: wait.min(base) }
    } else if batch.status.is_some_and(BatchStatus::is_final) {
        PolledBatchDecision::Ended
    } else {
        PolledBatchDecision::Running {
            wait,
            is_overdue: is_overdue(batch.expires_at, now),
        }
    }
}

/// Whether OpenAI's object under the id that a create was answered with is of another batch: it was made from another
/// file than ours, and before ours was there, by OpenAI's own times. One of both proves nothing: servers that copy
/// OpenAI's API may give files other names, or round times.
pub fn is_of_another_create(batch: &Batch, input_file: Option<&str>, input_file_time: Option<i64>) -> bool {
    let has_other_file =
        !batch.input_file_id.is_empty() && input_file.is_some_and(|id| id != batch.input_file_id);
    let is_older = batch.created_at > 0 && input_file_time.is_some_and(|time| batch.created_at < time);
    has_other_file && is_older
}

/// How long until a batch is polled again: sooner while it is young.
fn interval(batch: &Batch, now: Timestamp, base: Duration) -> Duration {
    let age = now.since(Timestamp::from_seconds(batch.created_at));
    (age / POLLS_IN_AGE).clamp(base / 2, longest_interval(base))
}

/// The longest interval between two polls of a batch.
pub fn longest_interval(base: Duration) -> Duration {
    base * LONGEST_INTERVAL
}

/// Whether a batch whose window closes at `expires` (OpenAI's clock, seconds) should have ended long ago.
pub fn is_overdue(expires: Option<i64>, now: Timestamp) -> bool {
    expires.is_some_and(|at| now > Timestamp::from_seconds(at) + OVERDUE)
}

/// Whether OpenAI has yet to name a file that a batch must have by its status or its counts. An answered
/// line whose file came too late would be sent, and billed, again.
pub fn are_files_late(batch: &Batch) -> bool {
    let no_output = batch.output_file_id.is_none();
    let no_errors = batch.error_file_id.is_none();
    match batch.status {
        Some(BatchStatus::Completed) if no_output && no_errors => true,
        Some(BatchStatus::Completed | BatchStatus::Expired | BatchStatus::Cancelled) => {
            no_output && batch.counts.completed > 0 || no_errors && batch.counts.failed > 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::openai::RequestCounts;

    const BASE: Duration = Duration::from_secs(60);
    const NOW: i64 = 1_795_400_000;
    const DAY: i64 = 86_400;

    fn batch(status: Option<BatchStatus>, age: i64) -> Batch {
        Batch {
            id: "batch_1".into(),
            status_text: String::new(),
            status,
            input_file_id: "file-1".into(),
            output_file_id: None,
            error_file_id: None,
            created_at: NOW - age,
            expires_at: Some(NOW - age + DAY),
            model: None,
            counts: RequestCounts::default(),
            usage: None,
            errors: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    #[test]
    fn a_batch_of_another_create_is_known_by_its_file_and_its_time() {
        let polled = batch(Some(BatchStatus::InProgress), 100);
        let unnamed = Batch {
            input_file_id: String::new(),
            ..polled.clone()
        };
        let undated = Batch {
            created_at: 0,
            ..polled.clone()
        };
        for (remote, file, file_age, expected) in [
            (&polled, Some("file-2"), Some(50), true),
            (&polled, Some("file-1"), Some(50), false),
            (&polled, Some("file-2"), Some(100), false),
            (&polled, Some("file-2"), Some(150), false),
            (&polled, None, Some(50), false),
            (&polled, Some("file-2"), None, false),
            (&unnamed, Some("file-2"), Some(50), false),
            (&undated, Some("file-2"), Some(50), false),
        ] {
            let is_another = is_of_another_create(remote, file, file_age.map(|age| NOW - age));
            assert_eq!(is_another, expected, "{file:?} {file_age:?}");
        }
    }

    #[test]
    fn a_batch_is_polled_by_its_age_and_reported_when_overdue() {
        for (status, age, seconds, is_overdue) in [
            (Some(BatchStatus::Validating), 0, 30, false),
            (Some(BatchStatus::InProgress), 2_400, 120, false),
            (Some(BatchStatus::Finalizing), DAY, 600, false),
            (Some(BatchStatus::Cancelling), DAY + 1_801, 600, true),
            (None, DAY + 1_801, 600, true),
        ] {
            let decision = decide(&batch(status, age), Timestamp::from_seconds(NOW), BASE, true);
            let expected = PolledBatchDecision::Running {
                wait: Duration::from_secs(seconds),
                is_overdue,
            };
            assert_eq!(decision, expected, "{status:?} {age}");
        }
    }

    #[test]
    fn a_batch_has_ended_once_its_files_are_named() {
        let file = || Some("file-2".to_owned());
        for (status, completed, failed, output, errors, is_late) in [
            (BatchStatus::Failed, 0, 0, None, None, false),
            (BatchStatus::Completed, 1, 0, file(), None, false),
            (BatchStatus::Completed, 1, 1, file(), None, true),
            (BatchStatus::Completed, 1, 1, file(), file(), false),
            (BatchStatus::Completed, 0, 0, None, None, true),
            (BatchStatus::Completed, 0, 1, None, file(), false),
            (BatchStatus::Expired, 0, 0, None, None, false),
            (BatchStatus::Expired, 1, 0, None, file(), true),
            (BatchStatus::Cancelled, 0, 0, None, None, false),
            (BatchStatus::Cancelled, 0, 1, file(), None, true),
        ] {
            let mut batch = batch(Some(status), 2_400);
            batch.counts.completed = completed;
            batch.counts.failed = failed;
            batch.output_file_id = output;
            batch.error_file_id = errors;
            let decide = |may_wait| decide(&batch, Timestamp::from_seconds(NOW), BASE, may_wait);
            let late = PolledBatchDecision::FilesLate { wait: BASE };
            let expected = if is_late { late } else { PolledBatchDecision::Ended };
            assert_eq!(decide(true), expected, "{batch:?}");
            assert_eq!(decide(false), PolledBatchDecision::Ended, "{batch:?}");
        }
    }
}
