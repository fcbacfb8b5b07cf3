//! OpenAI refused a batch before any line ran: which lines are to blame, whether its model waits, and how
//! large the next batches are.

use std::collections::BTreeSet;

use crate::domain::openai::BatchError;

/// This many of OpenAI's reasons are quoted.
const QUOTED: usize = 5;

/// Codes that blame no line. They pass with time, or once an operator has fixed the model's name or the
/// account.
const PASSING_CODES: [&str; 5] = [
    "server_error",
    "billing_hard_limit_reached",
    "insufficient_quota",
    // OpenAI says these two of each line, but all lines have the same model.
    "model_not_found",
    "mismatched_model",
];

/// A batch that OpenAI refused.
#[derive(Clone, Copy, Debug)]
pub struct RefusedBatch<'a> {
    /// OpenAI's reasons.
    pub errors: &'a [BatchError],
    /// Its lines.
    pub lines: u32,
    /// Whether its lines and their order are known. Those of a batch that a recovery took up are not.
    pub is_sealed_here: bool,
}

/// What OpenAI refused it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCause {
    /// OpenAI's queue of the model is full.
    QueueFull,
    /// Something that blames no line, and passes.
    Passing,
    /// Some of its lines.
    Lines,
    /// OpenAI does not say.
    Unexplained,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedBatchDecision {
    /// Whether no batch of its model is made for a while.
    pub pauses_model: bool,
    /// The most lines that the next batch of its requests may have; `None` for no limit.
    pub batch_cap: Option<u32>,
}

impl RefusedBatch<'_> {
    /// Why OpenAI refused it, in one line.
    pub fn reason(&self) -> String {
        let reasons: BTreeSet<String> = self
            .errors
            .iter()
            .take(QUOTED)
            .map(|error| {
                let part = |text: &Option<String>| text.clone().unwrap_or_default();
                format!("{} {}", part(&error.code), part(&error.message))
                    .trim()
                    .to_owned()
            })
            .collect();
        let reasons = reasons.into_iter().collect::<Vec<_>>().join("; ");
        if reasons.is_empty() {
            "OpenAI refused the batch and did not say why".to_owned()
        } else {
            reasons
        }
    }

    /// What OpenAI refused it for.
    pub fn cause(&self) -> RefusalCause {
        if self.errors.iter().any(is_queue_full) {
            RefusalCause::QueueFull
        } else if self.errors.iter().any(is_passing) {
            RefusalCause::Passing
        } else if self.named_lines().next().is_some() || self.is_single_line() {
            RefusalCause::Lines
        } else {
            RefusalCause::Unexplained
        }
    }

    /// The lines to blame, by their number from 1, with what is wrong with each.
    pub fn blamed_lines(&self) -> Vec<(u64, String)> {
        if self.cause() != RefusalCause::Lines {
            return Vec::new();
        }
        let named: Vec<_> = self.named_lines().collect();
        if named.is_empty() {
            vec![(1, self.reason())]
        } else {
            named
        }
    }

    /// Lines of the batch that OpenAI names.
    fn named_lines(&self) -> impl Iterator<Item = (u64, String)> {
        let lines = if self.is_sealed_here { self.lines } else { 0 };
        self.errors
            .iter()
            .filter_map(move |error| {
                let message = format!(
                    "{}: {}",
                    error.code.as_deref().unwrap_or(""),
                    error.message.as_deref().unwrap_or("")
                );
                Some((error.line?, message))
            })
            .filter(move |(line, _)| (1..=u64::from(lines)).contains(line))
    }

    /// The only line of a batch is to blame for its refusal.
    fn is_single_line(&self) -> bool {
        self.is_sealed_here && self.lines == 1
    }

    /// The limit of the model's queue that OpenAI names: `Limit: 900,000 enqueued tokens`.
    pub fn queue_limit(&self) -> Option<u64> {
        let messages = self.errors.iter().filter_map(|it| it.message.as_deref());
        messages
            .filter(|message| message.contains("oken"))
            .find_map(limit_in)
    }

    /// Decides what follows. `is_our_own_queue` is whether our own batches fill the model's queue.
    pub fn decide(&self, is_our_own_queue: bool) -> RefusedBatchDecision {
        let (pauses_model, is_halved) = match self.cause() {
            // The next batch is made once there is room for it, and no larger.
            RefusalCause::QueueFull if is_our_own_queue => (false, false),
            RefusalCause::QueueFull => (true, true),
            RefusalCause::Passing => (true, false),
            RefusalCause::Lines => (false, false),
            RefusalCause::Unexplained => (false, true),
        };
        RefusedBatchDecision {
            pauses_model,
            batch_cap: is_halved.then(|| (self.lines / 2).max(1)),
        }
    }
}

fn is_queue_full(error: &BatchError) -> bool {
    let message = error.message.as_deref().unwrap_or("");
    error.code.as_deref() == Some("token_limit_exceeded") || message.contains("nqueued")
}

fn is_passing(error: &BatchError) -> bool {
    let code = error.code.as_deref().unwrap_or("");
    let is_input_missing =
        error.line.is_none() && matches!(error.param.as_deref(), Some("file_id" | "input_file_id"));
    PASSING_CODES.contains(&code) || is_input_missing
}

fn limit_in(message: &str) -> Option<u64> {
    let (_, after) = message.split_once("Limit:")?;
    let digits: String = after
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ',')
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, message: &str, line: Option<u64>) -> BatchError {
        BatchError {
            code: Some(code.into()),
            message: Some(message.into()),
            param: None,
            line,
        }
    }

    #[test]
    fn each_cause_has_its_consequences() {
        use RefusalCause::{Lines, Passing, QueueFull, Unexplained};
        let full = || vec![error("token_limit_exceeded", "", None)];
        let full_by_message = || vec![error("", "Enqueued token limit reached", Some(1))];
        let no_model = || vec![error("model_not_found", "", Some(1))];
        let bad_line = |line| vec![error("invalid_json_line", "", Some(line))];
        let no_file = vec![BatchError {
            param: Some("input_file_id".into()),
            ..error("invalid_request", "no such file", None)
        }];
        for (errors, lines, own_queue, cause, pauses_model, batch_cap) in [
            (full(), 9, false, QueueFull, true, Some(4)),
            (full(), 9, true, QueueFull, false, None),
            (full_by_message(), 1, false, QueueFull, true, Some(1)),
            (no_model(), 9, false, Passing, true, None),
            (no_file, 9, false, Passing, true, None),
            (bad_line(9), 9, false, Lines, false, None),
            (bad_line(10), 9, false, Unexplained, false, Some(4)),
            (vec![], 1, false, Lines, false, None),
            (vec![], 9, false, Unexplained, false, Some(4)),
        ] {
            let refused = RefusedBatch {
                errors: &errors,
                lines,
                is_sealed_here: true,
            };
            assert_eq!(refused.cause(), cause, "{errors:?}");
            let expected = RefusedBatchDecision {
                pauses_model,
                batch_cap,
            };
            assert_eq!(refused.decide(own_queue), expected, "{errors:?}");
        }
    }

    #[test]
    fn only_lines_that_are_known_are_blamed() {
        let errors = [
            error("a", "b", Some(2)),
            error("c", "d", Some(0)),
            error("e", "f", None),
        ];
        let blamed = |errors, lines, is_sealed_here| {
            RefusedBatch {
                errors,
                lines,
                is_sealed_here,
            }
            .blamed_lines()
        };
        assert_eq!(blamed(&errors, 3, true), [(2, "a: b".to_owned())]);
        assert_eq!(blamed(&errors, 3, false), []);
        assert_eq!(blamed(&errors, 1, true), [(1, "a b; c d; e f".to_owned())]);
        assert_eq!(blamed(&errors, 1, false), []);
        let unsaid = "OpenAI refused the batch and did not say why".to_owned();
        assert_eq!(blamed(&[], 1, true), [(1, unsaid)]);
    }

    #[test]
    fn the_limit_is_read_out_of_the_message() {
        let message = "Enqueued token limit reached for m in organization org-…. Limit: 2,000,000 enqueued tokens. Please";
        assert_eq!(limit_in(message), Some(2_000_000));
        assert_eq!(limit_in("Limit: 90000."), Some(90_000));
        assert_eq!(limit_in("the limit is 5"), None);
        assert_eq!(limit_in("Limit: none"), None);
    }
}
