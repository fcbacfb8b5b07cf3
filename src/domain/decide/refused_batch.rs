//! OpenAI refused a batch before any line ran: what it blames, whether its model waits, and how its requests are
//! sent again.
//!
//! | what OpenAI says | the model | the requests |
//! |---|---|---|
//! | its queue is full, which our own batches explain | works | wait for free space |
//! | its queue is full for another reason | pauses | are sent again, in batches of half the size |
//! | a code that passes | pauses | are sent again |
//! | the input file is not found, and is fresh | works | stay claimed: a new submission of the file follows |
//! | the input file is not found otherwise | pauses | are sent again |
//! | some lines are wrong | works | those fail, the others are sent again |
//! | the input is wrong, without a line | works | are sent again in batches of half the size, down to one line |
//! | nothing, or an unknown code without a line | works | see below |
//! | the same of unrelated batches, and none was accepted since | pauses | see below |
//!
//! A refusal without a reason counts only after five retries. So a disturbance at OpenAI fails no request.
//!
//! | refused so before | unrelated batches too | lines | the request |
//! |---|---|---|---|
//! | 0 to 4 times | no | any | waits 10 min, 30 min, 1 h, 2 h or 4 h; the batch stays as large |
//! | 5 times or more | no | several | is sent again in a batch of half the size |
//! | 5 times or more | no | one | fails |
//! | 0 to 11 times | yes | any | is sent again after the pause of the model |
//! | 12 times or more | yes | any | as if only its own batch were refused |

use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::openai::BatchError;

/// This many of OpenAI's reasons are quoted.
const QUOTED: usize = 5;

/// The waits of a request after refusals without a reason, before one counts.
const WAITS: [Duration; 5] = [
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(2),
    Duration::from_hours(4),
];
/// The longest of them.
pub const LONGEST_REFUSAL_WAIT: Duration = Duration::from_hours(4);
/// While unrelated batches are refused without a reason, this many refusals of a request do not count: two to
/// three days.
const MODEL_WIDE_REFUSALS: u32 = 12;

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

/// Codes that blame the input.
const INPUT_CODES: [&str; 11] = [
    "invalid_json_line",
    "missing_required_parameter",
    "invalid_url",
    "url_mismatch",
    "invalid_request",
    "invalid_value",
    "invalid_type",
    "streaming_unsupported",
    "duplicate_custom_id",
    "empty_file",
    "too_many_tasks",
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
    /// OpenAI does not find the input file.
    InputMissing,
    /// Some of its lines.
    Lines,
    /// The input, and OpenAI does not name the line.
    Input,
    /// OpenAI does not say.
    Unexplained,
}

/// Facts about other batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalEvidence {
    /// Whether our own batches fill the model's queue.
    pub is_our_own_queue: bool,
    /// Whether an unrelated batch of the model was refused without a reason, and none was accepted since.
    pub is_model_wide: bool,
    /// How long the next submission of its input file waits; `None` if the file is not used again.
    pub wait_for_file: Option<Duration>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedBatchDecision {
    /// Whether no batch of its model is made for a while.
    pub pauses_model: bool,
    /// How its requests are sent again.
    pub lines: RefusedLines,
    /// How long until its input file is submitted again; `None` if its requests are packed again.
    pub submits_file_in: Option<Duration>,
}

/// How the requests of a batch that did not run are sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedLines {
    /// As soon as the model takes batches.
    SendAgain {
        /// The most lines that the next batch of them may have; `None` for no limit.
        batch_cap: Option<u32>,
    },
    /// OpenAI did not say why it refused them.
    Unexplained {
        /// Lines of the batch.
        lines: u32,
        /// Whether unrelated batches are refused in the same way.
        is_model_wide: bool,
    },
}

/// What follows for one request of a batch that did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedLineDecision {
    /// It is sent again.
    SendAgain {
        /// The most lines that its next batch may have; `None` for no limit.
        batch_cap: Option<u32>,
    },
    /// It is sent again later. This is a refusal without a reason.
    Retry {
        /// How long until then.
        wait: Duration,
        /// Its next batch is as large. So it takes no other request with it.
        batch_cap: u32,
    },
    /// It is to blame.
    Fail,
}

impl RefusedLines {
    /// Decides on a request that was refused without a reason `refusals` times before.
    pub fn decide(self, refusals: u32) -> RefusedLineDecision {
        let (lines, is_model_wide) = match self {
            Self::SendAgain { batch_cap } => return RefusedLineDecision::SendAgain { batch_cap },
            Self::Unexplained { lines, is_model_wide } => (lines, is_model_wide),
        };
        let wait = match is_model_wide && refusals < MODEL_WIDE_REFUSALS {
            true => Some(Duration::ZERO),
            false => usize::try_from(refusals)
                .ok()
                .and_then(|at| WAITS.get(at).copied()),
        };
        match wait {
            Some(wait) => RefusedLineDecision::Retry {
                wait,
                batch_cap: lines.max(1),
            },
            None if lines > 1 => RefusedLineDecision::SendAgain {
                batch_cap: Some(lines / 2),
            },
            None => RefusedLineDecision::Fail,
        }
    }
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
        let blames_input = self.errors.iter().any(is_of_input);
        if self.errors.iter().any(is_queue_full) {
            RefusalCause::QueueFull
        } else if self.errors.iter().any(is_input_missing) {
            RefusalCause::InputMissing
        } else if self.errors.iter().any(is_passing) {
            RefusalCause::Passing
        } else if blames_input && self.is_single_line() || self.blames_some_lines() {
            RefusalCause::Lines
        } else if blames_input {
            RefusalCause::Input
        } else {
            RefusalCause::Unexplained
        }
    }

    /// Whether OpenAI names lines. An unknown code that it says of every line blames none of them.
    fn blames_some_lines(&self) -> bool {
        let named: BTreeSet<u64> = self.named_lines().map(|(line, _)| line).collect();
        let is_known = self
            .errors
            .iter()
            .any(|error| error.line.is_some() && is_of_input(error));
        !named.is_empty() && (is_known || named.len() < self.lines as usize)
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

    /// Decides what follows.
    pub fn decide(&self, evidence: RefusalEvidence) -> RefusedBatchDecision {
        let whole = RefusedLines::SendAgain { batch_cap: None };
        let halved = RefusedLines::SendAgain {
            batch_cap: Some((self.lines / 2).max(1)),
        };
        let cause = self.cause();
        let is_file_late = cause == RefusalCause::InputMissing && self.is_sealed_here;
        let wait_for_file = evidence.wait_for_file.filter(|_| is_file_late);
        let (pauses_model, lines) = match cause {
            // The next batch is made once there is room for it, and no larger.
            RefusalCause::QueueFull if evidence.is_our_own_queue => (false, whole),
            RefusalCause::QueueFull => (true, halved),
            RefusalCause::InputMissing if wait_for_file.is_some() => (false, whole),
            RefusalCause::Passing | RefusalCause::InputMissing => (true, whole),
            RefusalCause::Lines => (false, whole),
            RefusalCause::Input => (false, halved),
            RefusalCause::Unexplained => (
                evidence.is_model_wide,
                RefusedLines::Unexplained {
                    lines: self.lines,
                    is_model_wide: evidence.is_model_wide,
                },
            ),
        };
        RefusedBatchDecision {
            pauses_model,
            lines,
            submits_file_in: wait_for_file,
        }
    }
}

fn is_queue_full(error: &BatchError) -> bool {
    let message = error.message.as_deref().unwrap_or("");
    error.code.as_deref() == Some("token_limit_exceeded") || message.contains("nqueued")
}

fn is_passing(error: &BatchError) -> bool {
    PASSING_CODES.contains(&error.code.as_deref().unwrap_or(""))
}

fn is_of_input(error: &BatchError) -> bool {
    INPUT_CODES.contains(&error.code.as_deref().unwrap_or(""))
}

fn is_input_missing(error: &BatchError) -> bool {
    error.line.is_none() && matches!(error.param.as_deref(), Some("file_id" | "input_file_id"))
}

fn limit_in(message: &str) -> Option<u64> {
    let (_, after) = message.split_once("Limit:")?;
    let digits: String = after
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ',')
        .filter(char::is_ascii_digit)
        .collect();
    digits
        .parse::<i64>()
        .ok()?
        .try_into()
        .ok()
        .filter(|limit| *limit > 0)
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
        use RefusalCause::{Input, InputMissing, Lines, Passing, QueueFull, Unexplained};
        let none = RefusalEvidence::default();
        let own_queue = RefusalEvidence {
            is_our_own_queue: true,
            ..none
        };
        let model_wide = RefusalEvidence {
            is_model_wide: true,
            ..none
        };
        let full = || vec![error("token_limit_exceeded", "", None)];
        let full_by_message = || vec![error("", "Enqueued token limit reached", Some(1))];
        let no_model = || vec![error("model_not_found", "", Some(1))];
        let bad_line = |line| vec![error("invalid_json_line", "", line)];
        let odd = |lines: &[Option<u64>]| lines.iter().map(|line| error("never_seen", "", *line)).collect();
        let no_file = vec![BatchError {
            param: Some("input_file_id".into()),
            ..error("invalid_request", "no such file", None)
        }];
        let again = |batch_cap| RefusedLines::SendAgain { batch_cap };
        let unexplained = |lines, is_model_wide| RefusedLines::Unexplained { lines, is_model_wide };
        let nine: Vec<Option<u64>> = (1..=9).map(Some).collect();
        let table: Vec<(
            Vec<BatchError>,
            u32,
            RefusalEvidence,
            RefusalCause,
            bool,
            RefusedLines,
        )> = vec![
            (full(), 9, none, QueueFull, true, again(Some(4))),
            (full(), 9, own_queue, QueueFull, false, again(None)),
            (full_by_message(), 1, none, QueueFull, true, again(Some(1))),
            (no_model(), 9, none, Passing, true, again(None)),
            (no_file, 9, none, InputMissing, true, again(None)),
            (bad_line(Some(9)), 9, none, Lines, false, again(None)),
            (bad_line(Some(10)), 9, none, Input, false, again(Some(4))),
            (bad_line(None), 9, none, Input, false, again(Some(4))),
            (bad_line(None), 9, model_wide, Input, false, again(Some(4))),
            (bad_line(None), 1, none, Lines, false, again(None)),
            (vec![], 1, none, Unexplained, false, unexplained(1, false)),
            (vec![], 9, none, Unexplained, false, unexplained(9, false)),
            (vec![], 9, model_wide, Unexplained, true, unexplained(9, true)),
            (odd(&[None]), 9, none, Unexplained, false, unexplained(9, false)),
            (odd(&[Some(3)]), 9, none, Lines, false, again(None)),
            (odd(&nine), 9, none, Unexplained, false, unexplained(9, false)),
            (
                odd(&[Some(1)]),
                1,
                none,
                Unexplained,
                false,
                unexplained(1, false),
            ),
        ];
        for (errors, lines, evidence, cause, pauses_model, requests) in table {
            let refused = RefusedBatch {
                errors: &errors,
                lines,
                is_sealed_here: true,
            };
            assert_eq!(refused.cause(), cause, "{errors:?}");
            let expected = RefusedBatchDecision {
                pauses_model,
                lines: requests,
                submits_file_in: None,
            };
            assert_eq!(refused.decide(evidence), expected, "{errors:?}");
        }
    }

    #[test]
    fn a_fresh_input_file_is_submitted_again() {
        let second = Some(Duration::from_secs(1));
        let late = [BatchError {
            param: Some("file_id".into()),
            ..error("invalid_request", "Cannot find file", None)
        }];
        for (errors, wait_for_file, is_sealed_here, pauses_model, submits_file_in) in [
            (&late[..], second, true, false, second),
            (&late, None, true, true, None),
            (&late, second, false, true, None),
            (&[], second, true, false, None),
        ] {
            let refused = RefusedBatch {
                errors,
                lines: 9,
                is_sealed_here,
            };
            let decision = refused.decide(RefusalEvidence {
                wait_for_file,
                ..RefusalEvidence::default()
            });
            assert_eq!(
                (decision.pauses_model, decision.submits_file_in),
                (pauses_model, submits_file_in),
                "{errors:?}"
            );
        }
    }

    #[test]
    fn a_refusal_without_a_reason_counts_after_five_retries() {
        let minutes = |minutes: u64, batch_cap| RefusedLineDecision::Retry {
            wait: Duration::from_mins(minutes),
            batch_cap,
        };
        let halved = |cap| RefusedLineDecision::SendAgain { batch_cap: Some(cap) };
        for (refusals, is_model_wide, lines, expected) in [
            (0, false, 9, minutes(10, 9)),
            (1, false, 9, minutes(30, 9)),
            (2, false, 9, minutes(60, 9)),
            (3, false, 1, minutes(120, 1)),
            (4, false, 1, minutes(240, 1)),
            (5, false, 9, halved(4)),
            (9, false, 2, halved(1)),
            (5, false, 1, RefusedLineDecision::Fail),
            (0, true, 9, minutes(0, 9)),
            (11, true, 1, minutes(0, 1)),
            (12, true, 9, halved(4)),
            (12, true, 1, RefusedLineDecision::Fail),
            // A recovered batch may have no lines here.
            (0, false, 0, minutes(10, 1)),
        ] {
            let refused = RefusedLines::Unexplained { lines, is_model_wide };
            assert_eq!(
                refused.decide(refusals),
                expected,
                "{refusals} {is_model_wide} {lines}"
            );
        }
        assert_eq!(WAITS.iter().max(), Some(&LONGEST_REFUSAL_WAIT));
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
        let wrong = [error("invalid_value", "b", None)];
        assert_eq!(blamed(&wrong, 1, true), [(1, "invalid_value b".to_owned())]);
        assert_eq!(blamed(&wrong, 1, false), []);
        assert_eq!(blamed(&errors, 1, true), []);
        assert_eq!(blamed(&[], 1, true), []);
    }

    #[test]
    fn the_limit_is_read_out_of_the_message() {
        let message = "Enqueued token limit reached for m in organization org-…. Limit: 2,000,000 enqueued tokens. Please";
        assert_eq!(limit_in(message), Some(2_000_000));
        assert_eq!(limit_in("Limit: 90000."), Some(90_000));
        assert_eq!(limit_in("the limit is 5"), None);
        assert_eq!(limit_in("Limit: none"), None);
        assert_eq!(limit_in("Limit: 0"), None);
        assert_eq!(limit_in("Limit: 10000000000000000000"), None);
    }
}
