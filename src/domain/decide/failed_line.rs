//! A line of a batch, or a synchronous call, brought no text: whether its request is sent again.

use crate::domain::batch::Outcome;

/// A lot whose images all pass our own check is sent again this often because OpenAI could not fetch one.
const IMAGE_ROUNDS: u32 = 2;

/// What a request has been through before this line.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHistory {
    /// Counted attempts before this one.
    pub attempts: u32,
    /// Whether the cap of its answer was raised already.
    pub raised: bool,
    /// How often OpenAI could not fetch an image of it.
    pub image_rounds: u32,
}

/// Whether a request has what it is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineSource {
    /// It can be sent again.
    Present,
    /// It is a translation, and its lot has no description yet.
    Pending,
    /// It is a translation, and its lot will have no description.
    Absent,
}

/// A line without a text, once both files of its batch are read.
#[derive(Clone, Copy, Debug)]
pub struct FailedLine<'a> {
    /// The result of the line.
    pub outcome: Outcome,
    /// What OpenAI said.
    pub error: Option<&'a str>,
    /// What its request has been through.
    pub history: RequestHistory,
    /// Whether it can be sent again.
    pub source: LineSource,
    /// Attempts that a request has in all.
    pub max_attempts: u32,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailedLineDecision {
    /// The request waits for a later batch.
    Retry {
        /// Whether this was one of its attempts.
        is_counted: bool,
        /// Whether its answer may be longer next time.
        raise: bool,
        /// Whether its lot's images are checked again first.
        check_images: bool,
    },
    /// The request is cancelled, and wanted again once its lot has a description. A batch that was linked
    /// had asked for it.
    PutOff,
    /// The request has failed for good.
    Fail {
        /// Why, for clients.
        reason: String,
    },
}

impl FailedLine<'_> {
    /// Decides what follows.
    pub fn decide(&self) -> FailedLineDecision {
        let Some(retry) = self.retry() else {
            return FailedLineDecision::Fail {
                reason: self.reason(),
            };
        };
        match self.source {
            LineSource::Present => retry,
            LineSource::Pending => FailedLineDecision::PutOff,
            LineSource::Absent => FailedLineDecision::Fail {
                reason: "its lot has no description to translate".into(),
            },
        }
    }

    fn retry(&self) -> Option<FailedLineDecision> {
        let history = self.history;
        let has_attempts = history.attempts + 1 < self.max_attempts;
        let (may_retry, is_counted) = match self.outcome {
            Outcome::NotRun => (true, false),
            Outcome::Passing | Outcome::Unreadable | Outcome::Missing => (has_attempts, true),
            Outcome::Truncated => (!history.raised, true),
            Outcome::ImageUnreachable => (history.image_rounds < IMAGE_ROUNDS && has_attempts, true),
            Outcome::Answered | Outcome::Refused | Outcome::Filtered | Outcome::Wrong => (false, true),
        };
        may_retry.then_some(FailedLineDecision::Retry {
            is_counted,
            raise: self.outcome == Outcome::Truncated,
            check_images: self.outcome == Outcome::ImageUnreachable,
        })
    }

    fn reason(&self) -> String {
        let what = match self.outcome {
            Outcome::Missing => "OpenAI's result files say nothing of it",
            Outcome::Truncated => "the answer was cut short twice, the second time with a higher limit",
            Outcome::ImageUnreachable => "IMAGE_UNREACHABLE: OpenAI could not fetch its images",
            Outcome::Refused => "the model refused",
            Outcome::Filtered => "a content filter stopped the answer",
            Outcome::Unreadable => "the result line cannot be read",
            Outcome::Answered | Outcome::Passing | Outcome::Wrong | Outcome::NotRun => {
                "OpenAI answered with an error"
            }
        };
        let attempts = self.history.attempts + 1;
        let tries = if attempts > 1 {
            format!(" (after {attempts} attempts)")
        } else {
            String::new()
        };
        match self.error.filter(|error| !error.is_empty()) {
            Some(error) => format!("{what}{tries}: {error}"),
            None => format!("{what}{tries}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(outcome: Outcome, attempts: u32) -> FailedLine<'static> {
        FailedLine {
            outcome,
            error: None,
            history: RequestHistory {
                attempts,
                ..RequestHistory::default()
            },
            source: LineSource::Present,
            max_attempts: 3,
        }
    }

    fn retry(is_counted: bool, raise: bool, check_images: bool) -> FailedLineDecision {
        FailedLineDecision::Retry {
            is_counted,
            raise,
            check_images,
        }
    }

    fn fails(line: &FailedLine<'_>) -> bool {
        matches!(line.decide(), FailedLineDecision::Fail { .. })
    }

    #[test]
    fn each_outcome_has_its_verdict() {
        let again = retry(true, false, false);
        for outcome in [Outcome::Passing, Outcome::Unreadable, Outcome::Missing] {
            assert_eq!(line(outcome, 1).decide(), again, "{outcome}");
            assert!(fails(&line(outcome, 2)), "{outcome}");
        }
        for outcome in [Outcome::Refused, Outcome::Filtered, Outcome::Wrong] {
            assert!(fails(&line(outcome, 0)), "{outcome}");
        }
        // A line that OpenAI did not run is no attempt, however many there were.
        assert_eq!(line(Outcome::NotRun, 9).decide(), retry(false, false, false));
    }

    #[test]
    fn a_truncated_answer_is_asked_for_once_more_with_a_higher_cap() {
        let mut line = line(Outcome::Truncated, 9);
        assert_eq!(line.decide(), retry(true, true, false));
        line.history.raised = true;
        assert!(fails(&line));
    }

    #[test]
    fn a_lot_whose_image_openai_cannot_fetch_is_checked_and_sent_twice_more() {
        for (image_rounds, attempts, is_sent) in [(0, 0, true), (1, 1, true), (2, 0, false), (0, 2, false)] {
            let mut line = line(Outcome::ImageUnreachable, attempts);
            line.history.image_rounds = image_rounds;
            if is_sent {
                assert_eq!(line.decide(), retry(true, false, true));
            } else {
                assert!(fails(&line), "{line:?}");
            }
        }
    }

    #[test]
    fn a_translation_waits_for_its_description() {
        let mut line = line(Outcome::Passing, 0);
        line.source = LineSource::Pending;
        assert_eq!(line.decide(), FailedLineDecision::PutOff);
        line.source = LineSource::Absent;
        let reason = "its lot has no description to translate".to_owned();
        assert_eq!(line.decide(), FailedLineDecision::Fail { reason });
        // One that is not sent again says what OpenAI said.
        line.outcome = Outcome::Refused;
        line.error = Some("no");
        let reason = "the model refused: no".to_owned();
        assert_eq!(line.decide(), FailedLineDecision::Fail { reason });
    }

    #[test]
    fn the_reason_says_how_often_it_was_tried() {
        let mut line = line(Outcome::Missing, 2);
        line.error = Some("");
        let reason = "OpenAI's result files say nothing of it (after 3 attempts)".to_owned();
        assert_eq!(line.decide(), FailedLineDecision::Fail { reason });
    }
}
