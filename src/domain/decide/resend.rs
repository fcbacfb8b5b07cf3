//! Whether a client may have a webhook sent again.
//!
//! | the delivery, and the others of its job to the same URL | decision |
//! |---|---|
//! | its job is not final, it is due, or another one is due | refused: it has not ended |
//! | the job's lots were removed after their time | refused: there is nothing to send |
//! | the last resend was asked for less than a minute ago | refused until then |
//! | otherwise | sent again |

use std::time::Duration;

use crate::base::clock::Timestamp;

/// The least time between two resends of a job's webhook to one URL: a client must not flood a receiver.
pub const RESEND_INTERVAL: Duration = Duration::from_mins(1);

/// A webhook that a client wants to be sent again.
#[derive(Clone, Copy, Debug)]
pub struct WantedResend {
    /// Whether its delivery has ended, and no other one of its job to the same URL is due.
    pub has_ended: bool,
    /// Whether the job's lots are being removed, or are removed.
    pub are_lots_removed: bool,
    /// When the newest resend of its job to the same URL was made.
    pub last_resend: Option<Timestamp>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResendDecision {
    /// It is sent again.
    Resend,
    /// It is refused, because its delivery has not ended.
    NotEnded,
    /// It is refused, because its lots are gone.
    LotsRemoved,
    /// It is refused for this long.
    Wait(Duration),
}

impl WantedResend {
    /// Decides whether the webhook is sent again.
    pub fn decide(self, now: Timestamp) -> ResendDecision {
        if self.are_lots_removed {
            return ResendDecision::LotsRemoved;
        }
        if !self.has_ended {
            return ResendDecision::NotEnded;
        }
        let passed = self.last_resend.map_or(RESEND_INTERVAL, |at| now.since(at));
        match RESEND_INTERVAL.saturating_sub(passed) {
            Duration::ZERO => ResendDecision::Resend,
            wait => ResendDecision::Wait(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_sent_again_once_a_minute_after_it_has_ended() {
        use ResendDecision::{LotsRemoved, NotEnded, Resend, Wait};
        let seconds = Duration::from_secs;
        // Ended, lots removed, seconds since the last resend.
        for (has_ended, are_lots_removed, last, expected) in [
            (true, false, None, Resend),
            (false, false, None, NotEnded),
            (true, true, None, LotsRemoved),
            (false, true, None, LotsRemoved),
            (true, false, Some(60), Resend),
            (true, false, Some(59), Wait(seconds(1))),
            (true, false, Some(0), Wait(seconds(60))),
            // The clock was set back.
            (true, false, Some(-30), Wait(seconds(60))),
            (false, false, Some(0), NotEnded),
        ] {
            let now = Timestamp::from_seconds(1_795_400_000);
            let wanted = WantedResend {
                has_ended,
                are_lots_removed,
                last_resend: last.map(|ago: i64| Timestamp::from_seconds(1_795_400_000 - ago)),
            };
            assert_eq!(wanted.decide(now), expected, "{wanted:?}");
        }
    }
}
