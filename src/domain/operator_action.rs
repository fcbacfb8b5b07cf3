//! What a person changes by a command or on a page, and who did it.

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

/// The person who makes a change, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The name: that of the account on this machine, or the user name that a browser sent. It is not verified.
    pub name: String,
    /// `command line`, or the address of the browser.
    pub origin: String,
}
