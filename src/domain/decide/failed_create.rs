//! The create of a batch failed: whether a batch may have been made all the same.

use super::failed_call::is_input_missing;
use super::input_lag;
use crate::base::clock::Timestamp;
use crate::domain::openai::CallError;

/// What follows from a create that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedCreateDecision {
    /// No batch was made: the create is repeated later, as any failed call.
    NotCreated {
        /// Whether the input is uploaded again first, as another file.
        forget_input: bool,
    },
    /// A batch may have been made: it is looked for before anything is created again.
    Unknown,
}

/// Decides what follows from a create that failed at `now`; its input was uploaded at `input_since`.
pub fn decide(error: &CallError, input_since: Option<Timestamp>, now: Timestamp) -> FailedCreateDecision {
    if !error.had_no_effect() {
        return FailedCreateDecision::Unknown;
    }
    FailedCreateDecision::NotCreated {
        forget_input: is_input_missing(error) && !input_lag::is_fresh(input_since, now),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::openai::OpenAiError;

    #[test]
    fn only_a_certain_refusal_lets_a_batch_be_created_again() {
        let now = Timestamp::from_seconds(1_795_400_000);
        let (fresh, old) = (
            now.before(Duration::from_mins(9)),
            now.before(Duration::from_mins(10)),
        );
        let refused = |status, param: &str| {
            CallError::Refused(OpenAiError {
                status,
                param: param.into(),
                ..OpenAiError::default()
            })
        };
        let message = String::from("m");
        let (not_sent, unknown) = (
            CallError::NotSent {
                message: message.clone(),
            },
            CallError::Unknown { message },
        );
        let kept = FailedCreateDecision::NotCreated { forget_input: false };
        let forgotten = FailedCreateDecision::NotCreated { forget_input: true };
        for (error, input_since, expected) in [
            (not_sent, Some(old), kept),
            (unknown, Some(old), FailedCreateDecision::Unknown),
            (refused(408, ""), Some(old), FailedCreateDecision::Unknown),
            (refused(409, ""), Some(old), FailedCreateDecision::Unknown),
            (refused(500, ""), Some(old), FailedCreateDecision::Unknown),
            (refused(400, ""), Some(old), kept),
            (refused(429, ""), Some(old), kept),
            (refused(400, "input_file_id"), Some(old), forgotten),
            (refused(404, "file_id"), None, forgotten),
            (refused(404, "file_id"), Some(fresh), kept),
        ] {
            assert_eq!(decide(&error, input_since, now), expected, "{error}");
        }
    }
}
