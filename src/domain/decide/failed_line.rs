//! A line of a batch, or a synchronous call, brought no text: whether its request is sent again, and when.
//!
//! | outcome | its batch | what follows |
//! |---|---|---|
//! | passing | sound | an attempt; the attempts are spread over `batch.retry_period` |
//! | passing | in an outage | waits, minutes to an hour; fails after `batch.transient_timeout` of such waits |
//! | passing | a synchronous call | no attempt: `batch.max_attempts` less one calls at most, then a batch |
//! | passing, but with usage | any | an attempt: it may have been billed |
//! | misconfigured | every line blames the setting | waits without an attempt, as the stage is paused |
//! | misconfigured | other lines ran | fails |
//! | missing, unreadable | any | an attempt: it may have been billed |
//! | truncated | any | an attempt with a higher cap, once |
//! | an image unusable, and OpenAI names it | any | the lot is sent without it, without an attempt, if it has enough others |
//! | an image unusable, otherwise | any | an attempt after another check of the images, twice |
//! | refused, filtered, wrong | any | fails |
//! | not run | any | is sent again without an attempt; `refused_batch` says when, or that it fails |

use std::time::Duration;

use super::backoff::{backoff, jitter};
use super::batch_verdict::BatchVerdict;
use super::blamed_image::BlamedImage;
use super::refused_batch::{RefusedLineDecision, RefusedLines};
use crate::domain::batch::Outcome;

/// A lot whose images all pass our own check is sent again this often because OpenAI could not fetch one.
const IMAGE_ROUNDS: u32 = 2;
/// A request fails transiently at least this often before `batch.transient_timeout` fails it.
const LEAST_TRANSIENT_FAILURES: u32 = 8;

/// What a request has been through before this line.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHistory {
    /// Counted attempts before this one.
    pub attempts: u32,
    /// Whether the cap of its answer was raised already.
    pub raised: bool,
    /// How often OpenAI could not fetch an image of it.
    pub image_rounds: u32,
    /// How often it has failed transiently.
    pub transient_failures: u32,
    /// The sum of its waits after transient failures. Pauses, used budgets and downtime are not in it.
    pub transient_waited: Duration,
    /// How often OpenAI refused a batch with it and did not say why.
    pub refusals: u32,
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

/// How a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineOrigin {
    /// By a batch of which its lines together say this.
    Batch(BatchVerdict),
    /// By a synchronous call.
    Call,
}

/// What the configuration says of requests that are sent again.
#[derive(Clone, Copy, Debug)]
pub struct RetryRules {
    /// Attempts that a request has in all.
    pub max_attempts: u32,
    /// Attempts that fail transiently are spread over this time.
    pub retry_period: Duration,
    /// The first wait in an outage.
    pub first_wait: Duration,
    /// A request fails in an outage once its waits come to this time.
    pub transient_timeout: Duration,
    /// Whether images can be checked again.
    pub check_images: bool,
    /// How a line that was not run is sent again.
    pub not_run: RefusedLines,
}

/// No limit at all, for requests that stay with another database.
impl Default for RetryRules {
    fn default() -> Self {
        Self {
            max_attempts: u32::MAX,
            retry_period: Duration::ZERO,
            first_wait: Duration::ZERO,
            transient_timeout: Duration::MAX,
            check_images: false,
            not_run: RefusedLines::SendAgain { batch_cap: None },
        }
    }
}

/// A line without a text, once both files of its batch are read.
#[derive(Clone, Copy, Debug)]
pub struct FailedLine<'a> {
    /// The result of the line.
    pub outcome: Outcome,
    /// What OpenAI said.
    pub error: Option<&'a str>,
    /// What it says of the images.
    pub blamed_image: BlamedImage,
    /// Whether OpenAI may bill it.
    pub may_be_billed: bool,
    /// How it was sent.
    pub origin: LineOrigin,
    /// What its request has been through.
    pub history: RequestHistory,
    /// Whether it can be sent again.
    pub source: LineSource,
    /// What the configuration says.
    pub rules: RetryRules,
    /// The same for all lines of a batch, so that those that failed together wait for the same time.
    pub seed: i64,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailedLineDecision {
    /// The request waits for a later batch.
    Retry(LineRetry),
    /// The request is cancelled, and wanted again once its lot has a description. A batch that was linked
    /// had asked for it.
    PutOff,
    /// The request has failed for good.
    Fail {
        /// Why, for clients.
        reason: String,
    },
}

/// How a request is sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineRetry {
    /// Whether this was one of its attempts.
    pub is_counted: bool,
    /// Whether its answer may be longer next time.
    pub raise: bool,
    /// Whether it is sent without the image that OpenAI blames.
    pub drop_image: bool,
    /// Whether its lot's images are checked again first.
    pub check_images: bool,
    /// How long it waits; `None` if it is sent again at once.
    pub wait: Option<Duration>,
    /// Whether it waits because OpenAI refused its batch without a reason, and not after a transient failure.
    pub is_refusal: bool,
    /// The most lines of its next batch; `None` for no limit.
    pub batch_cap: Option<u32>,
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
            LineSource::Present => FailedLineDecision::Retry(retry),
            LineSource::Pending => FailedLineDecision::PutOff,
            LineSource::Absent => FailedLineDecision::Fail {
                reason: "its lot has no description to translate".into(),
            },
        }
    }

    fn retry(&self) -> Option<LineRetry> {
        let history = self.history;
        let attempt = LineRetry {
            is_counted: true,
            ..LineRetry::default()
        };
        let has_attempts = history.attempts + 1 < self.rules.max_attempts;
        match self.outcome {
            Outcome::NotRun => self.retry_not_run(),
            Outcome::Misconfigured => self.is_setting_to_blame().then(LineRetry::default),
            Outcome::Passing if !self.may_be_billed => self.retry_transient(has_attempts),
            Outcome::Passing | Outcome::Unreadable | Outcome::Missing => has_attempts.then_some(attempt),
            Outcome::Truncated => (!history.raised).then_some(LineRetry {
                raise: true,
                ..attempt
            }),
            Outcome::ImageUnreachable
                if self.blamed_image == BlamedImage::Spare && (has_attempts || !self.may_be_billed) =>
            {
                Some(LineRetry {
                    is_counted: self.may_be_billed,
                    drop_image: true,
                    ..LineRetry::default()
                })
            }
            Outcome::ImageUnreachable => {
                (history.image_rounds < IMAGE_ROUNDS && has_attempts).then_some(LineRetry {
                    check_images: true,
                    ..attempt
                })
            }
            Outcome::Answered | Outcome::Refused | Outcome::Filtered | Outcome::Wrong => None,
        }
    }

    /// Whether the whole batch, and not this line alone, failed because of a setting. A batch decides what a
    /// synchronous call has met.
    fn is_setting_to_blame(&self) -> bool {
        matches!(
            self.origin,
            LineOrigin::Call | LineOrigin::Batch(BatchVerdict::Misconfigured)
        )
    }

    fn retry_not_run(&self) -> Option<LineRetry> {
        let (wait, batch_cap) = match self.rules.not_run.decide(self.history.refusals) {
            RefusedLineDecision::SendAgain { batch_cap } => (None, batch_cap),
            RefusedLineDecision::Retry { wait, batch_cap } => (Some(wait), Some(batch_cap)),
            RefusedLineDecision::Fail => return None,
        };
        Some(LineRetry {
            wait,
            is_refusal: wait.is_some(),
            batch_cap,
            ..LineRetry::default()
        })
    }

    fn retry_transient(&self, has_attempts: bool) -> Option<LineRetry> {
        let (is_counted, wait) = match self.origin {
            LineOrigin::Call => return Some(LineRetry::default()),
            LineOrigin::Batch(BatchVerdict::Outage) if self.is_time_over() => return None,
            LineOrigin::Batch(BatchVerdict::Outage) => (false, self.wait_in_outage()),
            LineOrigin::Batch(_) if !has_attempts => return None,
            LineOrigin::Batch(_) => (true, self.wait_between_attempts()),
        };
        Some(LineRetry {
            is_counted,
            wait: Some(jitter(wait, self.seed)),
            ..LineRetry::default()
        })
    }

    fn is_time_over(&self) -> bool {
        self.history.transient_failures + 1 >= LEAST_TRANSIENT_FAILURES
            && self.history.transient_waited >= self.rules.transient_timeout
    }

    /// Doubled with each failure, at most twelve times the first wait: an hour as configured by default.
    fn wait_in_outage(&self) -> Duration {
        let first = self.rules.first_wait;
        backoff(first, self.history.transient_failures, None).min(first * 12)
    }

    /// The first attempts follow each other fast, and the last one comes after the whole period.
    fn wait_between_attempts(&self) -> Duration {
        let last = f64::from(self.rules.max_attempts.saturating_sub(1).max(1));
        let share = |attempt: u32| (f64::from(attempt) / last).powi(4);
        let attempts = self.history.attempts;
        let part = share(attempts + 1) - share(attempts);
        self.rules.retry_period.mul_f64(part.clamp(0.0, 1.0))
    }

    fn reason(&self) -> String {
        let what = match self.outcome {
            Outcome::Missing => "OpenAI's result files say nothing of it",
            Outcome::Truncated => "the answer was cut short twice, the second time with a higher limit",
            Outcome::ImageUnreachable if self.error.is_some_and(|error| error.contains("download")) => {
                "IMAGE_UNREACHABLE: OpenAI could not fetch its images"
            }
            Outcome::ImageUnreachable => "IMAGE_UNREACHABLE: OpenAI cannot use its images",
            Outcome::Refused => "the model refused",
            Outcome::Filtered => "a content filter stopped the answer",
            Outcome::Unreadable => "OpenAI's answer cannot be read",
            Outcome::NotRun => "no batch with it ran",
            Outcome::Answered | Outcome::Passing | Outcome::Wrong | Outcome::Misconfigured => {
                "OpenAI answered with an error"
            }
        };
        let history = self.history;
        let failures = match self.outcome {
            Outcome::NotRun => history.refusals,
            _ => history.attempts.max(history.transient_failures),
        };
        let attempts = failures + 1;
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

    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);
    const SOUND: LineOrigin = LineOrigin::Batch(BatchVerdict::Sound);
    const OUTAGE: LineOrigin = LineOrigin::Batch(BatchVerdict::Outage);
    const MISCONFIGURED: LineOrigin = LineOrigin::Batch(BatchVerdict::Misconfigured);
    const AGAIN: LineRetry = LineRetry {
        is_counted: false,
        raise: false,
        drop_image: false,
        check_images: false,
        wait: None,
        is_refusal: false,
        batch_cap: None,
    };
    const ATTEMPT: LineRetry = LineRetry {
        is_counted: true,
        ..AGAIN
    };

    fn line(outcome: Outcome, attempts: u32) -> FailedLine<'static> {
        FailedLine {
            outcome,
            error: None,
            blamed_image: BlamedImage::None,
            may_be_billed: false,
            origin: SOUND,
            history: RequestHistory {
                attempts,
                ..RequestHistory::default()
            },
            source: LineSource::Present,
            rules: RetryRules {
                max_attempts: 5,
                retry_period: 6 * HOUR,
                first_wait: 5 * MINUTE,
                transient_timeout: 72 * HOUR,
                check_images: true,
                not_run: RefusedLines::SendAgain { batch_cap: None },
            },
            seed: 1,
        }
    }

    /// How a line's request is sent again, without its wait; `None` if it fails.
    fn retry(line: &FailedLine<'_>) -> Option<LineRetry> {
        match line.decide() {
            FailedLineDecision::Retry(retry) => Some(LineRetry { wait: None, ..retry }),
            _ => None,
        }
    }

    fn wait(line: &FailedLine<'_>) -> Option<Duration> {
        match line.decide() {
            FailedLineDecision::Retry(retry) => retry.wait,
            _ => None,
        }
    }

    #[test]
    fn each_outcome_has_its_verdict() {
        for (outcome, may_be_billed, origin, attempts, expected) in [
            (Outcome::Passing, false, SOUND, 3, Some(ATTEMPT)),
            (Outcome::Passing, false, SOUND, 4, None),
            (Outcome::Passing, false, OUTAGE, 4, Some(AGAIN)),
            (Outcome::Passing, false, MISCONFIGURED, 4, None),
            (Outcome::Passing, false, LineOrigin::Call, 4, Some(AGAIN)),
            (Outcome::Passing, true, OUTAGE, 3, Some(ATTEMPT)),
            (Outcome::Passing, true, OUTAGE, 4, None),
            (Outcome::Passing, true, LineOrigin::Call, 4, None),
            (Outcome::Missing, false, OUTAGE, 3, Some(ATTEMPT)),
            (Outcome::Missing, false, OUTAGE, 4, None),
            (Outcome::Unreadable, false, OUTAGE, 4, None),
            (Outcome::Misconfigured, false, MISCONFIGURED, 9, Some(AGAIN)),
            (Outcome::Misconfigured, false, LineOrigin::Call, 9, Some(AGAIN)),
            (Outcome::Misconfigured, false, SOUND, 0, None),
            (Outcome::Misconfigured, false, OUTAGE, 0, None),
            (Outcome::Refused, false, OUTAGE, 0, None),
            (Outcome::Filtered, false, OUTAGE, 0, None),
            (Outcome::Wrong, false, MISCONFIGURED, 0, None),
            // A line that OpenAI did not run is no attempt, however many there were.
            (Outcome::NotRun, false, SOUND, 9, Some(AGAIN)),
        ] {
            let line = FailedLine {
                may_be_billed,
                origin,
                ..line(outcome, attempts)
            };
            assert_eq!(
                retry(&line),
                expected,
                "{outcome} {may_be_billed} {origin:?} after {attempts}"
            );
        }
    }

    #[test]
    fn attempts_are_spread_over_the_period() {
        let waits: Vec<Duration> = (0..4)
            .map(|attempts| wait(&line(Outcome::Passing, attempts)).expect("sent again"))
            .collect();
        assert!(waits[0] < 2 * MINUTE, "{waits:?}");
        assert!(waits.is_sorted(), "{waits:?}");
        let all: Duration = waits.iter().sum();
        assert!((5 * HOUR..7 * HOUR).contains(&all), "{all:?}");
        // What may have been billed has not failed transiently.
        assert_eq!(wait(&line(Outcome::Missing, 0)), None);
    }

    #[test]
    fn an_outage_is_waited_out_by_time_and_not_by_attempts() {
        let mut line = FailedLine {
            origin: OUTAGE,
            ..line(Outcome::Passing, 4)
        };
        let mut waits = Vec::new();
        for failures in 0..200 {
            line.history.transient_failures = failures;
            line.history.transient_waited = waits.iter().sum();
            match wait(&line) {
                Some(wait) => waits.push(wait),
                None => break,
            }
        }
        assert!((4 * MINUTE..=6 * MINUTE).contains(&waits[0]), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= HOUR + HOUR / 5), "{waits:?}");
        let all: Duration = waits.iter().sum();
        assert!((72 * HOUR..74 * HOUR).contains(&all), "{all:?}");
        // A short limit leaves eight attempts.
        line.rules.transient_timeout = MINUTE;
        line.history.transient_waited = HOUR;
        line.history.transient_failures = 6;
        assert!(wait(&line).is_some());
        line.history.transient_failures = 7;
        assert_eq!(wait(&line), None);
    }

    #[test]
    fn a_refusal_without_a_reason_waits_and_counts_as_no_attempt() {
        let mut line = line(Outcome::NotRun, 4);
        line.rules.not_run = RefusedLines::Unexplained {
            lines: 7,
            is_model_wide: false,
        };
        let waits = FailedLineDecision::Retry(LineRetry {
            wait: Some(10 * MINUTE),
            is_refusal: true,
            batch_cap: Some(7),
            ..AGAIN
        });
        assert_eq!(line.decide(), waits);
        line.rules.not_run = RefusedLines::Unexplained {
            lines: 1,
            is_model_wide: false,
        };
        line.history.refusals = 5;
        line.error = Some("unsaid");
        let reason = "no batch with it ran (after 6 attempts): unsaid".to_owned();
        assert_eq!(line.decide(), FailedLineDecision::Fail { reason });
    }

    #[test]
    fn a_truncated_answer_is_asked_for_once_more_with_a_higher_cap() {
        let mut line = line(Outcome::Truncated, 9);
        let raised = LineRetry {
            raise: true,
            ..ATTEMPT
        };
        assert_eq!(retry(&line), Some(raised));
        line.history.raised = true;
        assert_eq!(retry(&line), None);
    }

    #[test]
    fn a_lot_whose_image_openai_cannot_fetch_is_checked_and_sent_twice_more() {
        let checked = LineRetry {
            check_images: true,
            ..ATTEMPT
        };
        for (image_rounds, attempts, is_sent) in [(0, 0, true), (1, 1, true), (2, 0, false), (0, 4, false)] {
            let mut line = line(Outcome::ImageUnreachable, attempts);
            line.history.image_rounds = image_rounds;
            assert_eq!(retry(&line), is_sent.then_some(checked), "{line:?}");
        }
    }

    #[test]
    fn an_image_that_openai_blames_is_left_out_if_the_lot_has_enough_others() {
        let dropped = LineRetry {
            drop_image: true,
            ..AGAIN
        };
        let checked = LineRetry {
            check_images: true,
            ..ATTEMPT
        };
        let counted = LineRetry {
            is_counted: true,
            ..dropped
        };
        for (blamed_image, may_be_billed, attempts, image_rounds, expected) in [
            (BlamedImage::Spare, false, 0, 0, Some(dropped)),
            (BlamedImage::Spare, false, 4, 2, Some(dropped)),
            (BlamedImage::Spare, true, 3, 2, Some(counted)),
            (BlamedImage::Spare, true, 4, 0, None),
            (BlamedImage::Needed, false, 0, 0, Some(checked)),
            (BlamedImage::Needed, false, 0, 2, None),
            (BlamedImage::None, false, 0, 0, Some(checked)),
        ] {
            let mut line = line(Outcome::ImageUnreachable, attempts);
            line.blamed_image = blamed_image;
            line.may_be_billed = may_be_billed;
            line.history.image_rounds = image_rounds;
            assert_eq!(retry(&line), expected, "{line:?}");
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
        let mut line = line(Outcome::Missing, 4);
        line.error = Some("");
        let reason = "OpenAI's result files say nothing of it (after 5 attempts)".to_owned();
        assert_eq!(line.decide(), FailedLineDecision::Fail { reason });
    }
}
