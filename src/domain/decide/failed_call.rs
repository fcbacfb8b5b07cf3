//! A call to OpenAI failed: whether the account waits, when the call is made again, and which alert opens.
//!
//! No failed call abandons a batch. It is made again until it succeeds, or until an operator abandons the
//! batch.

use std::time::Duration;

use super::backoff::{backoff, longest_backoff};
use crate::domain::alert::{AlertKind, PauseScope};
use crate::domain::batch::ResultKind;
use crate::domain::openai::CallError;

/// OpenAI may answer 404 this often for an object that it made a moment ago.
const EARLY_NOT_FOUND: u32 = 2;
/// A result file that cannot be fetched is reported after this many failures.
const DOWNLOAD_FAILURES: u32 = 5;

/// What a call was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPurpose {
    /// To upload a batch's input file.
    Upload,
    /// To create a batch.
    Create,
    /// To find the batch of a create whose answer was lost.
    FindCreated,
    /// To learn the status of a batch.
    Poll {
        /// Whether the batch should have ended long ago.
        is_overdue: bool,
    },
    /// To fetch a result file.
    Download {
        /// Which of the two.
        file: ResultKind,
    },
    /// To compare OpenAI's listing with the database.
    Compare,
    /// To remove the files of a settled batch.
    RemoveFiles,
    /// To answer a synchronous request.
    Respond,
}

/// A call that failed.
#[derive(Clone, Copy, Debug)]
pub struct FailedCall<'a> {
    /// What it was made for.
    pub purpose: CallPurpose,
    /// Why it failed.
    pub error: &'a CallError,
    /// How many calls for the same batch failed in a row before it.
    pub failures: u32,
    /// The wait after the first failure.
    pub retry_interval: Duration,
}

/// What follows from a failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailedCallDecision {
    /// OpenAI refuses the account, and not this call alone: `scope` is paused.
    PauseAccount {
        /// The work that waits.
        scope: PauseScope,
        /// How long. The batch of this call waits as long, so that others are tried first: OpenAI may refuse
        /// this one alone.
        wait: Duration,
    },
    /// The call is made again.
    Retry {
        /// How long until then.
        wait: Duration,
        /// The alert that opens now.
        alert: Option<AlertKind>,
    },
}

impl FailedCall<'_> {
    /// Decides what follows.
    pub fn decide(&self) -> FailedCallDecision {
        match self.paused_scope() {
            Some(scope) => FailedCallDecision::PauseAccount {
                scope,
                wait: longest_backoff(self.retry_interval),
            },
            None => FailedCallDecision::Retry {
                wait: self.wait(),
                alert: self.alert(),
            },
        }
    }

    /// The scope that is paused if OpenAI refuses the account; `None` if it does not.
    ///
    /// A missing right or insufficient quota stops what is sent, and says nothing of what is only read:
    /// results that are paid for are still fetched.
    fn paused_scope(&self) -> Option<PauseScope> {
        if !self.error.is_account_trouble() {
            return None;
        }
        match self.purpose {
            CallPurpose::RemoveFiles => None,
            CallPurpose::Poll { .. } | CallPurpose::Download { .. } | CallPurpose::Compare => {
                Some(PauseScope::OpenAi)
            }
            CallPurpose::Upload | CallPurpose::Create | CallPurpose::FindCreated | CallPurpose::Respond => {
                match status(self.error) {
                    401 => Some(PauseScope::OpenAi),
                    _ => Some(PauseScope::Sending),
                }
            }
        }
    }

    fn wait(&self) -> Duration {
        let failures = match self.purpose {
            // No work waits for it.
            CallPurpose::RemoveFiles => u32::MAX,
            _ => self.failures,
        };
        backoff(self.retry_interval, failures, self.error.retry_after())
    }

    fn alert(&self) -> Option<AlertKind> {
        let is_refused = (400..429).contains(&status(self.error));
        let is_not_found = self.error.is_not_found();
        let is_reported = match self.purpose {
            CallPurpose::Upload => is_refused,
            CallPurpose::Create => is_refused && !is_input_missing(self.error),
            CallPurpose::Poll { .. } if is_not_found => self.failures >= EARLY_NOT_FOUND,
            CallPurpose::Poll { is_overdue } => is_overdue,
            CallPurpose::Download { .. } if is_not_found => self.failures >= EARLY_NOT_FOUND,
            CallPurpose::Download { .. } => self.failures >= DOWNLOAD_FAILURES,
            CallPurpose::FindCreated
            | CallPurpose::Compare
            | CallPurpose::RemoveFiles
            | CallPurpose::Respond => false,
        };
        let kind = match self.purpose {
            CallPurpose::Upload => AlertKind::UploadFailed,
            CallPurpose::Create => AlertKind::CreateRefused,
            CallPurpose::Poll { .. } if is_not_found => AlertKind::BatchGone,
            CallPurpose::Poll { .. } => AlertKind::BatchOverdue,
            _ => AlertKind::ResultsUnavailable,
        };
        is_reported.then_some(kind)
    }
}

/// Whether a create was refused because OpenAI does not find its input file.
pub(super) fn is_input_missing(error: &CallError) -> bool {
    matches!(error, CallError::Refused(refusal)
        if matches!(refusal.status, 400 | 404)
            && matches!(refusal.param.as_str(), "file_id" | "input_file_id"))
}

/// The HTTP status of a refusal; 0 if there was no answer.
fn status(error: &CallError) -> u16 {
    match error {
        CallError::Refused(refusal) => refusal.status,
        CallError::NotSent { .. } | CallError::Unknown { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::openai::OpenAiError;

    const DOWNLOAD: CallPurpose = CallPurpose::Download {
        file: ResultKind::Output,
    };
    const FIRST: Duration = Duration::from_secs(10);

    fn refused(status: u16, code: &str, param: &str) -> CallError {
        CallError::Refused(OpenAiError {
            status,
            code: code.into(),
            param: param.into(),
            ..OpenAiError::default()
        })
    }

    fn decide(purpose: CallPurpose, error: &CallError, failures: u32) -> FailedCallDecision {
        FailedCall {
            purpose,
            error,
            failures,
            retry_interval: FIRST,
        }
        .decide()
    }

    #[test]
    fn a_refused_account_pauses_what_it_refuses() {
        let poll = CallPurpose::Poll { is_overdue: true };
        let (all, sending) = (Some(PauseScope::OpenAi), Some(PauseScope::Sending));
        for (purpose, status, code, expected) in [
            (CallPurpose::Upload, 401, "", &all),
            (CallPurpose::Upload, 403, "", &sending),
            (CallPurpose::Create, 429, "insufficient_quota", &sending),
            (CallPurpose::Create, 400, "billing_hard_limit_reached", &sending),
            (CallPurpose::FindCreated, 403, "", &sending),
            (CallPurpose::Respond, 403, "", &sending),
            (CallPurpose::Respond, 401, "", &all),
            (poll, 403, "", &all),
            (DOWNLOAD, 429, "insufficient_quota", &all),
            (CallPurpose::Compare, 403, "", &all),
            (CallPurpose::RemoveFiles, 403, "", &None),
            (CallPurpose::Upload, 429, "", &None),
            (poll, 404, "", &None),
        ] {
            let decision = decide(purpose, &refused(status, code, ""), 0);
            let paused = match decision {
                FailedCallDecision::PauseAccount { scope, wait } => {
                    assert_eq!(wait, FIRST * 32);
                    Some(scope)
                }
                FailedCallDecision::Retry { .. } => None,
            };
            assert_eq!(paused, *expected, "{purpose:?} {status} {code}");
        }
    }

    #[test]
    fn an_alert_opens_once_a_failure_will_not_pass_by_itself() {
        use AlertKind::{BatchGone, BatchOverdue, CreateRefused, ResultsUnavailable, UploadFailed};
        use CallPurpose::{Compare, Create, FindCreated, Poll, RemoveFiles, Upload};
        let status = |status| refused(status, "", "");
        let no_file = |status| refused(status, "", "input_file_id");
        let unknown = || CallError::Unknown {
            message: "timed out".into(),
        };
        let running = Poll { is_overdue: false };
        let overdue = Poll { is_overdue: true };
        for (purpose, error, failures, expected) in [
            (Upload, status(413), 0, Some(UploadFailed)),
            (Upload, status(429), 9, None),
            (Upload, status(500), 9, None),
            (Upload, unknown(), 9, None),
            (Create, status(400), 0, Some(CreateRefused)),
            (Create, no_file(400), 0, None),
            (Create, no_file(404), 0, None),
            (FindCreated, status(400), 9, None),
            (running, status(404), 1, None),
            (running, status(404), 2, Some(BatchGone)),
            (overdue, status(404), 1, None),
            (running, unknown(), 9, None),
            (overdue, unknown(), 0, Some(BatchOverdue)),
            (DOWNLOAD, status(404), 1, None),
            (DOWNLOAD, status(404), 2, Some(ResultsUnavailable)),
            (DOWNLOAD, unknown(), 4, None),
            (DOWNLOAD, unknown(), 5, Some(ResultsUnavailable)),
            (Compare, unknown(), 9, None),
            (RemoveFiles, status(403), 9, None),
        ] {
            let alert = match decide(purpose, &error, failures) {
                FailedCallDecision::Retry { alert, .. } => alert,
                paused @ FailedCallDecision::PauseAccount { .. } => panic!("{paused:?}"),
            };
            assert_eq!(alert, expected, "{purpose:?} {error} after {failures}");
        }
    }

    #[test]
    fn waits_double_and_follow_what_openai_asks() {
        let asked = CallError::Refused(OpenAiError {
            status: 503,
            retry_after: Some(FIRST * 6),
            ..OpenAiError::default()
        });
        let not_asked = refused(503, "", "");
        for (purpose, error, failures, expected) in [
            (CallPurpose::Upload, &not_asked, 0, FIRST),
            (CallPurpose::Upload, &not_asked, 2, FIRST * 4),
            (CallPurpose::Upload, &not_asked, 99, FIRST * 32),
            (CallPurpose::Upload, &asked, 0, FIRST * 6),
            (CallPurpose::Upload, &asked, 3, FIRST * 8),
            (CallPurpose::RemoveFiles, &not_asked, 0, FIRST * 32),
        ] {
            let decision = decide(purpose, error, failures);
            let expected = FailedCallDecision::Retry {
                wait: expected,
                alert: None,
            };
            assert_eq!(decision, expected);
        }
    }
}
