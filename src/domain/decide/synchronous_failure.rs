//! What a synchronous call that has ended means for its request, for the account and for the other calls.
//!
//! | the call | outcome of the request | next call | pause |
//! |---|---|---|---|
//! | OpenAI answered | as in a result file | after the backoff | the account's ends |
//! | OpenAI refuses the account | not run | by a batch | the account's begins |
//! | OpenAI blames a setting | as in a result file | by a batch | stays |
//! | it certainly had no effect | not run | after the backoff | of all calls, if OpenAI asks to wait |
//! | its effect is unknown | as in a result file | after the backoff | of all calls, if OpenAI asks to wait |
//!
//! A next call that would come after the job's time is made by a batch. A request that was not run has not
//! used one of its attempts.

use std::time::Duration;

use serde_json::json;

use super::backoff::backoff;
use super::failed_call::{CallEvidence, CallPurpose, FailedCall, FailedCallDecision};
use crate::base::clock::Timestamp;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Outcome;
use crate::domain::openai::CallError;
use crate::domain::result_line::{self, Answer};

/// A synchronous call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedSynchronousCall<'a> {
    /// Its outcome, read as a line of a result file is.
    pub outcome: Outcome,
    /// Why the call failed; `None` if OpenAI answered.
    pub error: Option<&'a CallError>,
    /// Calls of the same request before it.
    pub earlier: u32,
    /// When it ended.
    pub at: Timestamp,
    /// When its job was accepted.
    pub accepted_at: Timestamp,
    /// How long a synchronous job may take.
    pub timeout: Duration,
    /// The wait after the first failure.
    pub retry_interval: Duration,
}

/// What follows for the pauses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseDecision {
    /// OpenAI works: the account is not paused any more.
    ClearAccount,
    /// Pauses stay what they are.
    Keep,
    /// OpenAI refuses the account: `scope` is paused.
    PauseAccount {
        /// The scope of the pause.
        scope: PauseScope,
        /// Its length.
        wait: Duration,
    },
    /// OpenAI asks to wait: no synchronous call is made before that time.
    PauseCalls(Timestamp),
}

/// What follows from a synchronous call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynchronousDecision {
    /// The outcome that is stored for the request.
    pub outcome: Outcome,
    /// When the next call is made if the request waits again; `None` if a batch sends it.
    pub next_call: Option<Timestamp>,
    /// What follows for the pauses.
    pub pause: PauseDecision,
}

impl EndedSynchronousCall<'_> {
    /// Decides what follows.
    pub fn decide(&self) -> SynchronousDecision {
        let Some(error) = self.error else {
            let wait = backoff(self.retry_interval, self.earlier, None);
            return SynchronousDecision {
                outcome: self.outcome,
                next_call: self.next_call(wait),
                pause: PauseDecision::ClearAccount,
            };
        };
        let failed = FailedCall {
            purpose: CallPurpose::Respond,
            error,
            failures: self.earlier,
            retry_interval: self.retry_interval,
        };
        match failed.decide(CallEvidence::default()) {
            FailedCallDecision::PauseAccount { scope, wait, .. } => SynchronousDecision {
                outcome: Outcome::NotRun,
                next_call: None,
                pause: PauseDecision::PauseAccount { scope, wait },
            },
            FailedCallDecision::Retry { wait, .. } => SynchronousDecision {
                outcome: match self.outcome {
                    Outcome::Passing if error.had_no_effect() => Outcome::NotRun,
                    outcome => outcome,
                },
                next_call: self
                    .next_call(wait)
                    .filter(|_| self.outcome != Outcome::Misconfigured),
                pause: error.retry_after().map_or(PauseDecision::Keep, |asked| {
                    PauseDecision::PauseCalls(self.at + asked.min(self.timeout))
                }),
            },
        }
    }

    /// The time of the next call, if that is before the job's time is over.
    fn next_call(&self, wait: Duration) -> Option<Timestamp> {
        let deadline = self.accepted_at + self.timeout;
        Some(self.at + wait).filter(|at| *at < deadline)
    }
}

/// A failed call as an answer: it is read as the same error in a result file is.
pub fn as_answer(error: &CallError) -> Answer {
    match error {
        CallError::Refused(refusal) => {
            let body = json!({"error": {
                "code": refusal.code, "param": refusal.param, "message": refusal.message,
            }});
            result_line::read_body(refusal.status, &body).0
        }
        CallError::NotSent { message }
        | CallError::Unknown { message }
        | CallError::Unreadable { message } => Answer::Retry {
            code: String::new(),
            message: message.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::openai::OpenAiError;

    const FIRST: Duration = Duration::from_secs(10);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_700_000_000 + seconds)
    }

    fn refused(status: u16, code: &str, retry_after: Option<u64>) -> CallError {
        CallError::Refused(OpenAiError {
            status,
            code: code.into(),
            retry_after: retry_after.map(Duration::from_secs),
            ..OpenAiError::default()
        })
    }

    fn unknown() -> CallError {
        CallError::Unknown {
            message: "timed out".into(),
        }
    }

    #[test]
    fn the_error_decides_over_request_account_and_other_calls() {
        use PauseDecision::{ClearAccount, Keep, PauseCalls};
        let account = |scope| PauseDecision::PauseAccount {
            scope,
            wait: FIRST * 32,
        };
        let no_connection = CallError::NotSent {
            message: "no route".into(),
        };
        for (outcome, error, earlier, expected, next_call, pause) in [
            (
                Outcome::Answered,
                None,
                0,
                Outcome::Answered,
                Some(60),
                ClearAccount,
            ),
            (
                Outcome::Passing,
                None,
                1,
                Outcome::Passing,
                Some(70),
                ClearAccount,
            ),
            (
                Outcome::Passing,
                Some(refused(429, "rate_limit_exceeded", None)),
                0,
                Outcome::NotRun,
                Some(60),
                Keep,
            ),
            (
                Outcome::Passing,
                Some(refused(429, "", Some(20))),
                0,
                Outcome::NotRun,
                Some(70),
                PauseCalls(at(70)),
            ),
            (
                Outcome::Passing,
                Some(refused(503, "", Some(3_600))),
                0,
                Outcome::Passing,
                None,
                PauseCalls(at(150)),
            ),
            (Outcome::Passing, Some(unknown()), 3, Outcome::Passing, None, Keep),
            (
                Outcome::Misconfigured,
                Some(refused(400, "unsupported_value", None)),
                0,
                Outcome::Misconfigured,
                None,
                Keep,
            ),
            (
                Outcome::Passing,
                Some(no_connection),
                0,
                Outcome::NotRun,
                Some(60),
                Keep,
            ),
            (
                Outcome::Passing,
                Some(refused(401, "", None)),
                0,
                Outcome::NotRun,
                None,
                account(PauseScope::OpenAi),
            ),
            (
                Outcome::Passing,
                Some(refused(429, "insufficient_quota", None)),
                0,
                Outcome::NotRun,
                None,
                account(PauseScope::Sending),
            ),
        ] {
            let call = EndedSynchronousCall {
                outcome,
                error: error.as_ref(),
                earlier,
                at: at(50),
                accepted_at: at(0),
                timeout: Duration::from_secs(100),
                retry_interval: FIRST,
            };
            let decision = SynchronousDecision {
                outcome: expected,
                next_call: next_call.map(at),
                pause,
            };
            assert_eq!(call.decide(), decision, "{error:?} after {earlier}");
        }
    }

    #[test]
    fn a_failed_call_is_read_like_a_line_of_a_result_file() {
        let (outcome, _, error) = as_answer(&unknown()).outcome();
        assert_eq!(outcome, Outcome::Passing);
        assert!(error.contains("timed out"), "{error}");
        let (outcome, ..) = as_answer(&refused(429, "rate_limit_exceeded", None)).outcome();
        assert_eq!(outcome, Outcome::Passing);
    }
}
