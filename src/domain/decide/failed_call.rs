//! A call to OpenAI failed: whether the account waits, when the call is made again, and which alert opens.
//!
//! | OpenAI refuses with | a GET or download of one object | an upload or a create | any other call |
//! |---|---|---|---|
//! | 401, quota, billing | the account | the account | the account |
//! | 403 | the object, if a call of this kind succeeded for another one since the refusal began; else the account | the same, if moreover no other object was refused last | the account |
//! | 404 | the object; without such a success the alert names the key as well | the object | the object |
//!
//! A refused account pauses. The object of the call waits twice as long, so that another object is the next one
//! that is tried. A refused object waits alone.
//!
//! No failed call abandons a batch. It is made again until it succeeds, or until an operator abandons the
//! batch.

use std::time::Duration;

use super::backoff::{backoff, longest_backoff};
use crate::base::text_enum::text_enum;
use crate::domain::alert::{AlertKind, PauseScope};
use crate::domain::batch::ResultKind;
use crate::domain::openai::CallError;

/// OpenAI may answer 404 this often for an object that it made a moment ago.
const EARLY_NOT_FOUND: u32 = 2;
/// An answer that cannot be understood is reported after this many failures.
const UNREADABLE_ANSWERS: u32 = 3;
/// A refused poll or listing is reported after this many failures.
const REFUSALS: u32 = 3;
/// A result file that cannot be fetched is reported after this many failures.
const DOWNLOAD_FAILURES: u32 = 5;

/// Error codes that speak of the account's money.
const ACCOUNT_CODES: [&str; 3] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "credit_balance_exhausted",
];

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

text_enum! {
    /// A kind of call for one object. Its successes are counted: they are the evidence against an object that is
    /// refused.
    CallKind {
        /// The upload of an input file.
        Upload = "upload",
        /// The create of a batch.
        Create = "create",
        /// The poll of a batch.
        Poll = "poll",
        /// The download of a result file.
        Download = "download",
    }
}

impl CallPurpose {
    /// The kind of a call for one object; `None` for any other call.
    pub fn kind(self) -> Option<CallKind> {
        match self {
            Self::Upload => Some(CallKind::Upload),
            Self::Create => Some(CallKind::Create),
            Self::Poll { .. } => Some(CallKind::Poll),
            Self::Download { .. } => Some(CallKind::Download),
            Self::FindCreated | Self::Compare | Self::RemoveFiles | Self::Respond => None,
        }
    }
}

/// What other calls of the same kind say of a refused object. Without any, the account is to blame.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallEvidence {
    /// Whether a call of the kind has succeeded since the object's refusal began: for another object.
    pub has_other_succeeded: bool,
    /// Whether another object was the last one that was refused, and no call of the kind has succeeded since.
    pub was_other_refused: bool,
}

/// Whose refusal an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Account,
    Object,
    /// It is no refusal of either: it passes, or the call itself is wrong.
    Neither,
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
        /// How long.
        wait: Duration,
        /// How long the batch of this call waits: longer, so that another one is tried first.
        batch_wait: Duration,
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
    /// Decides what follows, by what other calls of the same kind have shown.
    pub fn decide(&self, evidence: CallEvidence) -> FailedCallDecision {
        let refused = self.refused(evidence);
        match self.paused_scope().filter(|_| refused == Refused::Account) {
            Some(scope) => FailedCallDecision::PauseAccount {
                scope,
                wait: longest_backoff(self.retry_interval),
                batch_wait: longest_backoff(self.retry_interval) * 2,
            },
            None => FailedCallDecision::Retry {
                wait: self.wait(),
                alert: self.alert(refused),
            },
        }
    }

    /// Whether OpenAI refuses the object of the call or the account with it. The refusal is stored as evidence.
    pub fn is_refused(&self) -> bool {
        self.may_be_accounts() || self.error.is_not_found()
    }

    /// Whether the refusal may be the account's: only calls of its own kind show the contrary.
    pub fn may_be_accounts(&self) -> bool {
        self.refused(CallEvidence::default()) == Refused::Account
    }

    /// Whose refusal the error is.
    fn refused(&self, evidence: CallEvidence) -> Refused {
        if is_key_or_money_refused(self.error) {
            return Refused::Account;
        }
        if !is_account_refused(self.error) {
            return Refused::Neither;
        }
        let is_objects = match self.purpose.kind() {
            Some(CallKind::Poll | CallKind::Download) => evidence.has_other_succeeded,
            Some(CallKind::Upload | CallKind::Create) => {
                evidence.has_other_succeeded && !evidence.was_other_refused
            }
            None => false,
        };
        match is_objects {
            true => Refused::Object,
            false => Refused::Account,
        }
    }

    /// The scope that is paused if OpenAI refuses the account; `None` if no work waits for this call.
    ///
    /// A missing right or insufficient quota stops what is sent, and says nothing of what is only read:
    /// results that are paid for are still fetched.
    fn paused_scope(&self) -> Option<PauseScope> {
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

    fn alert(&self, refused: Refused) -> Option<AlertKind> {
        let is_refused = (400..429).contains(&status(self.error));
        let is_object_refused = refused == Refused::Object;
        let is_not_found = self.error.is_not_found();
        // One answer may be a broken gateway's. Several in a row do not pass by themselves.
        let is_unreadable =
            matches!(self.error, CallError::Unreadable { .. }) && self.failures >= UNREADABLE_ANSWERS;
        let is_poll_refused = is_refused_for_good(self.error, self.failures);
        let is_reported = match self.purpose {
            CallPurpose::Upload => is_refused || is_unreadable || self.error.is_not_offered(),
            CallPurpose::Create => {
                (is_refused || self.error.is_not_offered()) && !is_input_missing(self.error)
            }
            CallPurpose::Poll { .. } if is_not_found => self.failures >= EARLY_NOT_FOUND,
            CallPurpose::Poll { is_overdue } => {
                is_overdue || is_object_refused || is_unreadable || is_poll_refused
            }
            CallPurpose::Download { .. } if is_not_found => self.failures >= EARLY_NOT_FOUND,
            CallPurpose::Download { .. } => self.failures >= DOWNLOAD_FAILURES || is_object_refused,
            CallPurpose::FindCreated
            | CallPurpose::Compare
            | CallPurpose::RemoveFiles
            | CallPurpose::Respond => false,
        };
        let kind = match self.purpose {
            CallPurpose::Upload => AlertKind::UploadFailed,
            CallPurpose::Create => AlertKind::CreateRefused,
            CallPurpose::Poll { .. } if is_not_found => AlertKind::BatchGone,
            CallPurpose::Poll { .. } if is_object_refused || is_poll_refused => AlertKind::BatchRefused,
            CallPurpose::Poll { .. } if is_unreadable => AlertKind::UnknownState,
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
            && matches!(&*refusal.param, "file_id" | "input_file_id"))
}

/// Whether OpenAI refuses the account by a call that is for no single object, such as a listing.
pub fn is_account_refused(error: &CallError) -> bool {
    status(error) == 403 || is_key_or_money_refused(error)
}

/// Whether OpenAI, or a server that stands for it, refuses a call with a status that does not pass by itself, after
/// `failures` calls that failed before. One refusal may be a gateway's, or of the parameters.
pub fn is_refused_for_good(error: &CallError, failures: u32) -> bool {
    let is_refused = (400..429).contains(&status(error)) && !matches!(status(error), 408 | 409);
    (is_refused || error.is_not_offered()) && failures >= REFUSALS
}

/// Whether OpenAI refuses the key (401), or the account lacks money: whatever the call was made for.
fn is_key_or_money_refused(error: &CallError) -> bool {
    matches!(error, CallError::Refused(refusal)
        if refusal.status == 401 || ACCOUNT_CODES.contains(&refusal.code.as_str()))
}

/// The HTTP status of a refusal; 0 if there was no answer.
fn status(error: &CallError) -> u16 {
    match error {
        CallError::Refused(refusal) => refusal.status,
        CallError::NotSent { .. } | CallError::Unknown { .. } | CallError::Unreadable { .. } => 0,
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
        .decide(CallEvidence::default())
    }

    #[test]
    fn a_refusal_is_the_objects_if_others_of_its_kind_succeed() {
        use AlertKind::{BatchRefused, CreateRefused, ResultsUnavailable, UploadFailed};
        let poll = CallPurpose::Poll { is_overdue: false };
        let (upload, create) = (CallPurpose::Upload, CallPurpose::Create);
        for (purpose, status, code, has_other_succeeded, was_other_refused, expected) in [
            (poll, 403, "", false, false, None),
            (poll, 403, "", true, false, Some(BatchRefused)),
            (poll, 403, "", true, true, Some(BatchRefused)),
            (poll, 401, "", true, false, None),
            (poll, 429, "insufficient_quota", true, false, None),
            (poll, 403, "billing_hard_limit_reached", true, false, None),
            (DOWNLOAD, 403, "", false, false, None),
            (DOWNLOAD, 403, "", true, false, Some(ResultsUnavailable)),
            (DOWNLOAD, 401, "", true, false, None),
            (upload, 403, "", false, false, None),
            (upload, 403, "", false, true, None),
            (upload, 403, "", true, false, Some(UploadFailed)),
            (upload, 403, "", true, true, None),
            (create, 403, "", false, false, None),
            (create, 403, "", true, false, Some(CreateRefused)),
            (create, 403, "", true, true, None),
            (CallPurpose::Respond, 403, "", true, false, None),
            (CallPurpose::Compare, 403, "", true, false, None),
        ] {
            let evidence = CallEvidence {
                has_other_succeeded,
                was_other_refused,
            };
            let error = refused(status, code, "");
            let call = FailedCall {
                purpose,
                error: &error,
                failures: 0,
                retry_interval: FIRST,
            };
            let alert = match call.decide(evidence) {
                FailedCallDecision::PauseAccount { wait, batch_wait, .. } => {
                    assert!(batch_wait > wait, "another object is tried first");
                    None
                }
                FailedCallDecision::Retry { alert, wait } => {
                    assert_eq!(wait, FIRST);
                    alert
                }
            };
            assert_eq!(alert, expected, "{purpose:?} {status} {code} {evidence:?}");
        }
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
                FailedCallDecision::PauseAccount { scope, wait, .. } => {
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
        use AlertKind::{
            BatchGone, BatchOverdue, BatchRefused, CreateRefused, ResultsUnavailable, UnknownState,
            UploadFailed,
        };
        use CallPurpose::{Compare, Create, FindCreated, Poll, RemoveFiles, Upload};
        let status = |status| refused(status, "", "");
        let no_file = |status| refused(status, "", "input_file_id");
        let unknown = || CallError::Unknown {
            message: "timed out".into(),
        };
        let unreadable = || CallError::Unreadable {
            message: "the answer is not that batch: {}".into(),
        };
        let running = Poll { is_overdue: false };
        let overdue = Poll { is_overdue: true };
        for (purpose, error, failures, expected) in [
            (Upload, status(413), 0, Some(UploadFailed)),
            (Upload, status(429), 9, None),
            (Upload, status(500), 9, None),
            (Upload, unknown(), 9, None),
            (Upload, unreadable(), 2, None),
            (Upload, unreadable(), 3, Some(UploadFailed)),
            (Create, status(400), 0, Some(CreateRefused)),
            (Create, no_file(400), 0, None),
            (Create, no_file(404), 0, None),
            (FindCreated, status(400), 9, None),
            (running, status(404), 1, None),
            (running, status(404), 2, Some(BatchGone)),
            (overdue, status(404), 1, None),
            (running, unknown(), 9, None),
            (overdue, unknown(), 0, Some(BatchOverdue)),
            (running, status(405), 2, None),
            (running, status(405), 3, Some(BatchRefused)),
            (running, status(429), 9, None),
            (running, status(501), 3, Some(BatchRefused)),
            (running, status(503), 9, None),
            (Upload, status(501), 0, Some(UploadFailed)),
            (running, unreadable(), 2, None),
            (running, unreadable(), 3, Some(UnknownState)),
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
