//! Jobs and lots: their states, and the checks of a submission.
//!
//! [`submission`] has the types, [`submission_checks`] the checks of a whole submission, [`lot_checks`] those
//! of a lot, [`field_checks`] those of single members, and [`own_fields`] those of the client's own members.

use crate::base::text_enum::text_enum;

mod field_checks;
mod language;
mod lot_checks;
mod own_fields;
mod receiver;
mod submission;
mod submission_checks;
mod unknown_fields;

pub use field_checks::check_webhook;
pub use language::is_english;
pub use own_fields::{MAX_METADATA_KEY_CHARS, MAX_METADATA_KEYS, MAX_OWN_CHARS, Metadata};
pub use receiver::receiver;
pub use submission::{
    MAX_LOTS, NO_IMAGE, NewLot, Submission, SubmissionRules, UNUSABLE_URL, UnusableUrl, VERSION,
};
pub use submission_checks::check_submission;

text_enum! {
    /// The state of a job.
    JobStatus {
        /// The job is stored. Its images are being checked, or its requests wait for a batch.
        Pending = "pending",
        /// OpenAI has vision requests of the job.
        Processing = "processing",
        /// All vision requests are settled, and some translations are not.
        Translating = "translating",
        /// All requests are settled, and at least one lot has a text.
        Completed = "completed",
        /// Every lot failed, or the job cannot be processed.
        Failed = "failed",
        /// The client cancelled the job.
        Cancelled = "cancelled",
    }
}

impl JobStatus {
    /// Whether the state is final. Only an operator's retry changes a final state.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The value of `processing_details.current_stage`.
    pub fn stage(self) -> &'static str {
        match self {
            Self::Pending => "waiting",
            Self::Processing => "vision_analysis",
            Self::Translating => "translation",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The webhook event that reports a final state.
    pub fn event(self) -> Option<&'static str> {
        match self {
            Self::Completed => Some("batch_job_completed"),
            Self::Failed => Some("batch_job_failed"),
            Self::Cancelled => Some("batch_job_cancelled"),
            _ => None,
        }
    }
}

text_enum! {
    /// How a job is processed: `processing_mode`.
    Mode {
        /// With OpenAI's batches. The client polls, or gets a webhook.
        Batch = "batch",
        /// With synchronous calls, while the client waits.
        Synchronous = "synchronous",
    }
}

text_enum! {
    /// The state of a lot.
    LotStatus {
        /// Some of its requests are not settled.
        Pending = "pending",
        /// At least one of its languages has a text.
        Completed = "completed",
        /// None of its languages has a text.
        Failed = "failed",
        /// Its job was cancelled before the lot had a text that was asked for.
        Cancelled = "cancelled",
    }
}

text_enum! {
    /// The state of a request. A request is one text that the job needs from OpenAI.
    RequestState {
        /// It waits for a batch.
        Waiting = "waiting",
        /// It is in a batch, or in a synchronous call.
        Claimed = "claimed",
        /// It has its text.
        Done = "done",
        /// It failed, and is not tried again.
        Failed = "failed",
        /// It belongs to an imported orphan. It is never sent automatically, since its work may be billed
        /// already.
        Held = "held",
        /// Its job was cancelled.
        Cancelled = "cancelled",
    }
}

text_enum! {
    /// A change of all lots of a job. The job is marked with it, and its lots are worked off in chunks.
    JobChange {
        /// The job is cancelled: its pending lots end.
        Cancel = "cancel",
        /// An operator releases the job's held requests.
        Release = "release",
        /// An operator reopens the job's failed lots.
        RetryLots = "retry_lots",
        /// An operator reopens the job's failed translations.
        RetryTranslations = "retry_translations",
    }
}
