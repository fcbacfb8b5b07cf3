//! What a person changes by a command or on a page, and who did it.

use std::fmt;
use std::str::FromStr;

use crate::base::clock::Timestamp;
use crate::base::text_enum::text_enum;

text_enum! {
    /// The kind of a change that a person makes.
    ActionKind {
        /// A job is cancelled.
        CancelJob = "cancel_job",
        /// The texts of a job are deleted before their time.
        DeleteJob = "delete_job",
        /// The failed lots of a job are sent again.
        RetryFailedLots = "retry_failed_lots",
        /// The failed translations of a job are sent again.
        RetryFailedTranslations = "retry_failed_translations",
        /// The held requests of a job are sent.
        ReleaseHeld = "release_held",
        /// A webhook is sent again.
        ResendWebhook = "resend_webhook",
        /// All webhooks of a receiver since a time are sent again.
        ResendWebhooks = "resend_webhooks",
        /// A test event is sent to a receiver.
        SendTestEvent = "send_test_event",
        /// A due webhook is tried at once.
        TryWebhook = "try_webhook",
        /// A webhook that did not arrive is abandoned.
        AbandonWebhook = "abandon_webhook",
        /// A batch is abandoned.
        AbandonBatch = "abandon_batch",
        /// What became of a create that was not answered is said.
        ResolveCreate = "resolve_create",
        /// A scope of work is paused.
        Pause = "pause",
        /// A pause ends.
        Resume = "resume",
        /// A backup is made.
        BackUp = "back_up",
        /// An alert is acknowledged.
        AcknowledgeAlert = "acknowledge_alert",
        /// The machine's clock is confirmed.
        ConfirmClock = "confirm_clock",
        /// A recovery is begun.
        Recover = "recover",
        /// An adoption of a batch is begun.
        Adopt = "adopt",
        /// An import of the earlier service's data is begun.
        ImportLegacy = "import_legacy",
    }
}

impl ActionKind {
    /// The changes of a job that are carried out after the action.
    pub const OF_JOBS: [Self; 4] = [
        Self::CancelJob,
        Self::RetryFailedLots,
        Self::RetryFailedTranslations,
        Self::ReleaseHeld,
    ];
}

/// The webhooks of one receiver, of jobs that ended from `since` on and before `until`. Its text is the subject of an
/// action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResendRange {
    /// Its host and port.
    pub receiver: String,
    /// The beginning.
    pub since: Timestamp,
    /// The end.
    pub until: Timestamp,
}

impl fmt::Display for ResendRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.receiver, self.since, self.until)
    }
}

impl FromStr for ResendRange {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let mut parts = text.split(' ');
        let mut part = || parts.next().ok_or(NoRange);
        let range = Self {
            receiver: part()?.to_owned(),
            since: part()?.parse().map_err(|_| NoRange)?,
            until: part()?.parse().map_err(|_| NoRange)?,
        };
        match parts.next() {
            None if !range.receiver.is_empty() => Ok(range),
            _ => Err(NoRange),
        }
    }
}

/// A text is no [`ResendRange`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a receiver and two times")]
pub struct NoRange;

/// The person who makes a change, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The name: that of the account on this machine, or the user name that a browser sent. It is not verified.
    pub name: String,
    /// `command line`, or the address of the browser.
    pub origin: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_back_from_its_text() {
        let range = ResendRange {
            receiver: "hooks.example:443".into(),
            since: Timestamp::from_seconds(1_795_400_000),
            until: Timestamp::from_millis(1_795_486_400_123),
        };
        assert_eq!(range.to_string().parse(), Ok(range.clone()));
        let text = range.to_string();
        for odd in [
            "",
            "a b c",
            "hooks.example:443",
            &text[1..5],
            &format!("{text} x"),
            &format!(" {text}"),
        ] {
            assert_eq!(odd.parse::<ResendRange>(), Err(NoRange), "{odd}");
        }
    }
}
