//! What a receiver's answer means for a webhook delivery, for an alert notification, and for the receiver.
//!
//! | answer | webhook delivery | receiver | alert notification |
//! |---|---|---|---|
//! | 2xx | delivered | healthy | delivered |
//! | 410 | abandoned | as before | retried |
//! | another status, or none | retried | failing | retried |
//!
//! A retry waits for the next of `webhooks.retry_delays`. After the last one, the delivery or notification is
//! abandoned.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::base::clock::Timestamp;

/// How much a wait between two attempts is lengthened or shortened at most, in percent: deliveries that
/// failed together are not all retried at once.
const JITTER: u64 = 20;
/// The longest `Retry-After` that the receiver of alert notifications gets.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// A receiver that has failed for this long is reported.
pub const FAILING_RECEIVER_ALERT: Duration = Duration::from_hours(1);

/// What a receiver answered to one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverAnswer {
    /// The HTTP status; `None` if there was no answer.
    pub status: Option<u16>,
    /// How long the receiver asks to wait.
    pub retry_after: Option<Duration>,
}

impl ReceiverAnswer {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        matches!(self.status, Some(200..300))
    }
}

/// An attempt that has ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedAttempt<'a> {
    /// The row of the delivery or notification.
    pub id: i64,
    /// Attempts before this one.
    pub earlier: u32,
    /// `webhooks.retry_delays`: the waits after the first, second, … attempt.
    pub delays: &'a [Duration],
    /// When it ended.
    pub at: Timestamp,
    /// What the receiver answered.
    pub answer: ReceiverAnswer,
}

/// What follows for the delivery or notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryDecision {
    /// The receiver has it.
    Delivered,
    /// The next attempt is due at that time.
    RetryAt(Timestamp),
    /// There is no further attempt.
    Abandoned,
}

impl fmt::Display for DeliveryDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered => f.write_str("delivered"),
            Self::RetryAt(at) => write!(f, "retry_at_{at}"),
            Self::Abandoned => f.write_str("abandoned"),
        }
    }
}

/// What follows for the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverDecision {
    /// It is no longer counted among the failing receivers.
    Healthy,
    /// It stays what it is.
    AsBefore,
    /// It is counted among the failing receivers.
    Failing,
}

impl EndedAttempt<'_> {
    /// Decides what follows from an attempt at a webhook delivery.
    pub fn decide_delivery(&self) -> (DeliveryDecision, ReceiverDecision) {
        match self.answer.status {
            Some(200..300) => (DeliveryDecision::Delivered, ReceiverDecision::Healthy),
            // The receiver works: it says that nothing is taken at this URL.
            Some(410) => (DeliveryDecision::Abandoned, ReceiverDecision::AsBefore),
            _ => {
                let asked = self.answer.retry_after.unwrap_or_default();
                let decision = self.retry_after(|delay| self.jittered(delay).max(asked));
                (decision, ReceiverDecision::Failing)
            }
        }
    }

    /// Decides what follows from an attempt at an alert notification.
    pub fn decide_notification(&self) -> DeliveryDecision {
        match self.answer.is_success() {
            true => DeliveryDecision::Delivered,
            false => {
                let asked = self.answer.retry_after.unwrap_or_default();
                self.retry_after(|delay| delay.max(asked.min(LONGEST_RETRY_AFTER)))
            }
        }
    }

    fn retry_after(&self, wait: impl Fn(Duration) -> Duration) -> DeliveryDecision {
        let next = usize::try_from(self.earlier).ok();
        match next.and_then(|next| self.delays.get(next)) {
            Some(delay) => DeliveryDecision::RetryAt(self.at + wait(*delay)),
            None => DeliveryDecision::Abandoned,
        }
    }

    /// The delay, up to [`JITTER`] percent longer or shorter; always the same for the same attempt.
    fn jittered(&self, delay: Duration) -> Duration {
        let digest = Sha256::digest(format!("{} {}", self.id, self.earlier));
        let percent = 100 - JITTER + u64::from(digest[0]) * 2 * JITTER / 255;
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(millis.saturating_mul(percent) / 100)
    }
}

/// The longest wait that a delivery gets without a `Retry-After`. A due time further away than that shows
/// that the clock was set back.
pub fn longest_delivery_wait(delays: &[Duration]) -> Duration {
    let longest = delays.iter().max().copied().unwrap_or_default();
    (longest * 2).max(Duration::from_hours(24))
}

/// The longest wait that a notification gets.
pub fn longest_notification_wait(delays: &[Duration]) -> Duration {
    let longest = delays.iter().max().copied().unwrap_or_default();
    longest.max(LONGEST_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAYS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(600)];

    fn attempt(status: Option<u16>, earlier: u32, retry_after: Option<u64>) -> EndedAttempt<'static> {
        EndedAttempt {
            id: 7,
            earlier,
            delays: &DELAYS,
            at: Timestamp::from_seconds(1_700_000_000),
            answer: ReceiverAnswer {
                status,
                retry_after: retry_after.map(Duration::from_secs),
            },
        }
    }

    /// Seconds until the next attempt; `None` if there is none.
    fn wait(decision: DeliveryDecision) -> Option<u64> {
        match decision {
            DeliveryDecision::RetryAt(at) => Some(at.since(Timestamp::from_seconds(1_700_000_000)).as_secs()),
            _ => None,
        }
    }

    #[test]
    fn a_delivery_ends_with_2xx_410_or_the_last_delay() {
        use ReceiverDecision::{AsBefore, Failing, Healthy};
        for (status, earlier, expected, receiver) in [
            (Some(200), 0, Some(DeliveryDecision::Delivered), Healthy),
            (Some(299), 9, Some(DeliveryDecision::Delivered), Healthy),
            (Some(410), 0, Some(DeliveryDecision::Abandoned), AsBefore),
            (Some(302), 0, None, Failing),
            (Some(404), 0, None, Failing),
            (Some(500), 1, None, Failing),
            (Some(500), 2, Some(DeliveryDecision::Abandoned), Failing),
            (None, 0, None, Failing),
            (None, 2, Some(DeliveryDecision::Abandoned), Failing),
        ] {
            let (decision, found) = attempt(status, earlier, None).decide_delivery();
            assert_eq!(found, receiver, "{status:?}");
            match expected {
                Some(expected) => assert_eq!(decision, expected, "{status:?} after {earlier}"),
                None => assert!(wait(decision).is_some(), "{status:?} after {earlier}"),
            }
        }
    }

    #[test]
    fn a_delivery_waits_for_its_delay_or_for_what_the_receiver_asks() {
        for (earlier, retry_after, from, to) in [
            (0, None, 48, 72),
            (1, None, 480, 720),
            (0, Some(5), 48, 72),
            (0, Some(3_600), 3_600, 3_600),
            (0, Some(86_400), 86_400, 86_400),
        ] {
            let (decision, _) = attempt(Some(503), earlier, retry_after).decide_delivery();
            let wait = wait(decision).unwrap_or_default();
            assert!((from..=to).contains(&wait), "{earlier} {retry_after:?}: {wait}");
        }
    }

    #[test]
    fn a_notification_is_retried_whatever_the_status_and_for_an_hour_at_most() {
        for (status, earlier, retry_after, expected) in [
            (Some(410), 0, None, Some(60)),
            (Some(500), 1, None, Some(600)),
            (None, 2, None, None),
            (Some(429), 0, Some(120), Some(120)),
            (Some(429), 0, Some(86_400), Some(3_600)),
        ] {
            let decision = attempt(status, earlier, retry_after).decide_notification();
            assert_eq!(wait(decision), expected, "{status:?} {earlier} {retry_after:?}");
        }
        let decision = attempt(Some(204), 0, None).decide_notification();
        assert_eq!(decision, DeliveryDecision::Delivered);
    }
}
