//! The types of a checked submission.

use std::borrow::Cow;
use std::collections::HashSet;

use super::own_fields::Metadata;

/// The only version of the submission's form.
pub const VERSION: &str = "1.0.0";
/// The most lots of a job.
pub const MAX_LOTS: usize = 50_000;
/// Why a lot without a usable image fails.
pub const NO_IMAGE: &str = "INVALID_IMAGE_URLS: the lot has no image URL that can be used";

/// Why an image is missing whose URL cannot be used.
pub const UNUSABLE_URL: &str = "it is no http or https URL of a public host";

/// A submission that passed all checks.
#[derive(Debug)]
pub struct Submission<'a> {
    /// Distinct BCP 47 tags as sent.
    pub languages: Vec<String>,
    /// The webhook of the lots without their own.
    pub webhook_url: Option<Cow<'a, str>>,
    /// The client's own values.
    pub metadata: Metadata,
    /// The lots in the order sent.
    pub lots: Vec<NewLot<'a>>,
    /// Names of fields that are unknown and were ignored, such as `lots[].colour`; the first twenty.
    pub unknown_fields: Vec<String>,
    /// Warnings of fields that are known and were ignored all the same.
    pub ignored_fields: Vec<String>,
}

/// One lot of a submission.
#[derive(Debug)]
pub struct NewLot<'a> {
    /// The lot's id, unique in the job.
    pub lot_id: Cow<'a, str>,
    /// The seller's text; empty if there is none.
    pub additional_info: Cow<'a, str>,
    /// The usable image URLs in the order sent.
    pub images: Vec<Cow<'a, str>>,
    /// The unusable image URLs in the order sent. Long ones are cut.
    pub unusable_images: Vec<Cow<'a, str>>,
    /// The lot's own webhook.
    pub webhook_url: Option<Cow<'a, str>>,
    /// The client's own name of the lot.
    pub reference: Option<Cow<'a, str>>,
}

/// The limits that the configuration sets for a submission.
pub struct SubmissionRules<'r> {
    /// The most languages of a job.
    pub max_languages: usize,
    /// The most images of a lot.
    pub max_images: usize,
    /// Whether an invalid `metadata` or `reference` is ignored, with a warning, instead of refused.
    pub ignores_invalid_own_fields: bool,
    /// Checks the URL of an image.
    pub check_image_url: &'r dyn Fn(&str) -> Result<(), UnusableUrl>,
    /// Checks the URL of a webhook.
    pub check_webhook_url: &'r dyn Fn(&str) -> Result<(), UnusableUrl>,
}

impl Submission<'_> {
    /// The webhook URL that gets a lot's events: the lot's own, or the job's.
    pub fn webhook_of<'s>(&'s self, lot: &'s NewLot<'_>) -> Option<&'s str> {
        lot.webhook_url.as_deref().or(self.webhook_url.as_deref())
    }

    /// The distinct webhook URLs that get events.
    pub fn webhooks(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let own = self.lots.iter().filter_map(|lot| self.webhook_of(lot));
        own.filter(|url| seen.insert(*url)).collect()
    }
}

/// The reason for which a URL is not usable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnusableUrl(pub String);
