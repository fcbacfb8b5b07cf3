//! Jobs and lots: their states, and the checks of a submission.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::json;

use crate::base::text_enum::text_enum;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::python_json::{Json, Text};

text_enum! {
    /// Where a job stands.
    JobStatus {
        /// Stored; images are being checked, or it waits for a batch.
        Pending = "pending",
        /// Its vision requests are at OpenAI.
        Processing = "processing",
        /// No vision request is open any more.
        Translating = "translating",
        /// Every request is settled, and at least one lot has a text.
        Completed = "completed",
        /// Every lot failed, or the job can't be processed.
        Failed = "failed",
        /// The client took it back.
        Cancelled = "cancelled",
    }
}

impl JobStatus {
    /// Final states change by an operator's explicit retry only.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The stage in words, for `processing_details.current_stage`.
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

    /// The webhook event that tells of a final state.
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
    /// How a job is answered: `processing_mode`.
    Mode {
        /// By OpenAI's batches; the client polls, or is told.
        Batch = "batch",
        /// At once, by direct calls.
        Synchronous = "synchronous",
    }
}

text_enum! {
    /// Where a lot stands.
    LotStatus {
        /// Some of its requests are open.
        Pending = "pending",
        /// At least one of its languages has a text.
        Completed = "completed",
        /// None has.
        Failed = "failed",
        /// Its job was cancelled before.
        Cancelled = "cancelled",
    }
}

text_enum! {
    /// Where a request stands: one answer that is wanted.
    RequestState {
        /// To be put into a batch.
        Waiting = "waiting",
        /// In a batch, or asked directly.
        Claimed = "claimed",
        /// Answered.
        Done = "done",
        /// Failed for good.
        Failed = "failed",
        /// An imported orphan's: never sent by itself, its work may be paid already.
        Held = "held",
        /// Its job was cancelled.
        Cancelled = "cancelled",
    }
}

/// The only version of the submission's form.
pub const VERSION: &str = "1.0.0";
/// Lots of a job.
pub const MAX_LOTS: usize = 50_000;
/// Why a lot fails that has no image to be described by.
pub const NO_IMAGE: &str = "INVALID_IMAGE_URLS: the lot has no image URL that can be used";
/// Bytes of a lot's text.
const MAX_INFO: usize = 16 * 1024;
/// Characters of a lot's id.
const MAX_LOT_ID: usize = 100;
/// Characters of a webhook URL.
const MAX_WEBHOOK: usize = 500;
/// Distinct webhook URLs of a job.
const MAX_WEBHOOKS: usize = 100;
/// Characters of a language tag.
const MAX_LANGUAGE: usize = 20;
/// Characters of an image URL that cannot be used, where it is listed.
const MAX_LISTED: usize = 500;
/// What ends one that is cut there. No URL with a space can be used, so that none that can looks like it.
const CUT: &str = " …";
/// How many examples a refusal lists.
const MAX_EXAMPLES: usize = 20;

/// A submission that holds all that the contract asks for.
#[derive(Debug)]
pub struct Submission<'a> {
    /// Distinct BCP 47 tags, as sent.
    pub languages: Vec<String>,
    /// The webhook of lots that have none of their own.
    pub webhook_url: Option<Cow<'a, str>>,
    /// In the order sent.
    pub lots: Vec<NewLot<'a>>,
}

/// One lot of a submission.
#[derive(Debug)]
pub struct NewLot<'a> {
    /// Unique in the job.
    pub lot_id: Cow<'a, str>,
    /// The seller's text, or empty.
    pub additional_info: Cow<'a, str>,
    /// Image URLs that can be used, in the order sent.
    pub images: Vec<Cow<'a, str>>,
    /// Those that cannot, in the order sent, each as it is listed.
    pub unusable: Vec<Cow<'a, str>>,
    /// Its own webhook.
    pub webhook_url: Option<Cow<'a, str>>,
}

/// What the configuration allows in a submission.
pub struct Rules<'r> {
    /// Languages of a job.
    pub languages: usize,
    /// Images of a lot.
    pub images: usize,
    /// Whether an image's URL can be used, or why not.
    pub image: &'r dyn Fn(&str) -> Result<(), String>,
    /// The same of a webhook's.
    pub webhook: &'r dyn Fn(&str) -> Result<(), String>,
}

impl Submission<'_> {
    /// The webhook URL that tells of a lot: its own, else the job's.
    pub fn webhook_of<'s>(&'s self, lot: &'s NewLot<'_>) -> Option<&'s str> {
        lot.webhook_url.as_deref().or(self.webhook_url.as_deref())
    }

    /// Each URL that is to be told, once.
    pub fn webhooks(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let own = self.lots.iter().filter_map(|lot| self.webhook_of(lot));
        own.filter(|url| seen.insert(*url)).collect()
    }
}

/// Who is told at a webhook URL that was checked: host and port, in lower case.
pub fn receiver(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let named = host.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let port = match scheme.eq_ignore_ascii_case("https") {
        _ if named => "",
        true => ":443",
        false => ":80",
    };
    format!("{}{port}", host.trim_end_matches(':').to_ascii_lowercase())
}

/// Checks a submission's body, whose signature holds.
///
/// # Errors
/// The contract's refusal for the first thing that is wrong.
pub fn check_submission<'a>(
    body: &Json<'a>,
    rules: &Rules<'_>,
) -> Result<Submission<'a>, ApiError> {
    if !matches!(body, Json::Object(_)) {
        return Err(ApiError::new(
            ErrorCode::InvalidParameter,
            "The body must be a JSON object.",
        ));
    }
    if body.field("event").is_some() {
        let message =
            "A body with an `event` field is a webhook of this service, never a submission.";
        return Err(ApiError::new(ErrorCode::InvalidParameter, message));
    }
    check_version(body)?;
    let languages = check_languages(body, rules)?;
    let webhook_url = check_webhook(body, "webhook_url", rules)?;
    let lots = match required(body, "lots")? {
        Json::Array(lots) => check_lots(lots, rules)?,
        _ => {
            return Err(ApiError::new(
                ErrorCode::InvalidParameter,
                "`lots` must be a list of objects.",
            ));
        }
    };
    let submission = Submission {
        languages,
        webhook_url,
        lots,
    };
    if submission.webhooks().len() > MAX_WEBHOOKS {
        let message = format!("A job may name at most {MAX_WEBHOOKS} distinct webhook URLs.");
        return Err(ApiError::new(ErrorCode::InvalidWebhookUrl, message));
    }
    Ok(submission)
}

fn required<'j, 'a>(body: &'j Json<'a>, name: &str) -> Result<&'j Json<'a>, ApiError> {
    body.field(name).ok_or_else(|| {
        ApiError::new(ErrorCode::MissingField, format!("`{name}` is missing."))
            .with(json!({"field": name}))
    })
}

fn check_version(body: &Json<'_>) -> Result<(), ApiError> {
    match required(body, "version")? {
        Json::String(text) if text.is(VERSION) => Ok(()),
        _ => Err(ApiError::new(
            ErrorCode::UnsupportedVersion,
            format!("`version` must be \"{VERSION}\"."),
        )),
    }
}

fn check_languages(body: &Json<'_>, rules: &Rules<'_>) -> Result<Vec<String>, ApiError> {
    let Json::Array(tags) = required(body, "languages")? else {
        return Err(ApiError::new(
            ErrorCode::InvalidParameter,
            "`languages` must be a list of language tags.",
        ));
    };
    if tags.is_empty() || tags.len() > rules.languages {
        let message = format!(
            "`languages` must hold 1 to {} tags; it holds {}.",
            rules.languages,
            tags.len()
        );
        return Err(ApiError::new(ErrorCode::InvalidLanguage, message));
    }
    let mut languages: Vec<String> = Vec::with_capacity(tags.len());
    for (position, tag) in tags.iter().enumerate() {
        let tag = match tag {
            Json::String(text) => text.decode().ok().filter(|tag| is_language_tag(tag)),
            _ => None,
        };
        let Some(tag) = tag else {
            let message = format!(
                "`languages[{position}]` must be a BCP 47 tag of at most {MAX_LANGUAGE} characters, such as \"en\" or \"pt-BR\"."
            );
            return Err(ApiError::new(ErrorCode::InvalidLanguage, message)
                .with(json!({"position": position})));
        };
        if languages.iter().any(|seen| seen.eq_ignore_ascii_case(&tag)) {
            return Err(ApiError::new(
                ErrorCode::InvalidLanguage,
                format!("`languages` names \"{tag}\" twice."),
            ));
        }
        languages.push(tag.into_owned());
    }
    Ok(languages)
}

/// The shape of RFC 5646's `langtag`: a primary subtag of letters, further ones of letters and digits.
fn is_language_tag(tag: &str) -> bool {
    let mut subtags = tag.split('-');
    let primary = subtags.next().unwrap_or("");
    tag.len() <= MAX_LANGUAGE
        && (2..=8).contains(&primary.len())
        && primary.bytes().all(|b| b.is_ascii_alphabetic())
        && subtags.all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        })
}

/// Whether a language takes the vision text itself: `en` and `en-*`.
pub fn is_english(language: &str) -> bool {
    language
        .split('-')
        .next()
        .is_some_and(|primary| primary.eq_ignore_ascii_case("en"))
}

fn check_webhook<'a>(
    of: &Json<'a>,
    name: &str,
    rules: &Rules<'_>,
) -> Result<Option<Cow<'a, str>>, ApiError> {
    let refuse = |why: &str| ApiError::new(ErrorCode::InvalidWebhookUrl, format!("`{name}` {why}"));
    match of.field(name) {
        None => Ok(None),
        Some(Json::String(text)) => {
            let url = text
                .decode()
                .map_err(|_| refuse("holds half of a surrogate pair."))?;
            if url.is_empty() {
                return Ok(None);
            }
            if url.chars().count() > MAX_WEBHOOK {
                return Err(refuse(&format!("is longer than {MAX_WEBHOOK} characters.")));
            }
            (rules.webhook)(&url).map_err(|why| refuse(&format!("cannot be used: {why}.")))?;
            Ok(Some(url))
        }
        Some(_) => Err(refuse("must be a text.")),
    }
}

fn check_lots<'a>(lots: &[Json<'a>], rules: &Rules<'_>) -> Result<Vec<NewLot<'a>>, ApiError> {
    if lots.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidParameter,
            "`lots` is empty; send at least one lot.",
        ));
    }
    if lots.len() > MAX_LOTS {
        let message = format!(
            "A job may hold {MAX_LOTS} lots; split this one of {}.",
            lots.len()
        );
        let details = json!({"provided_lots": lots.len(), "max_allowed": MAX_LOTS});
        return Err(ApiError::new(ErrorCode::BatchSizeExceeded, message).with(details));
    }
    let mut seen = HashSet::with_capacity(lots.len());
    let mut checked = Vec::with_capacity(lots.len());
    for (position, lot) in lots.iter().enumerate() {
        let lot = check_lot(position, lot, rules)?;
        if !seen.insert(lot.lot_id.clone()) {
            let message = format!("`lot_id` \"{}\" stands twice in the job.", lot.lot_id);
            return Err(ApiError::new(ErrorCode::DuplicateLotId, message)
                .with(json!({"lot_id": lot.lot_id})));
        }
        checked.push(lot);
    }
    if checked.iter().all(|lot| lot.images.is_empty()) {
        let unusable: Vec<_> = checked
            .iter()
            .flat_map(|lot| &lot.unusable)
            .take(MAX_EXAMPLES)
            .collect();
        let message =
            "No lot has an image URL that can be used (http or https, no private address).";
        return Err(ApiError::new(ErrorCode::InvalidImageUrls, message)
            .with(json!({"invalid_urls": unusable})));
    }
    Ok(checked)
}

fn check_lot<'a>(
    position: usize,
    lot: &Json<'a>,
    rules: &Rules<'_>,
) -> Result<NewLot<'a>, ApiError> {
    let refuse = |what: String| {
        ApiError::new(ErrorCode::InvalidLot, format!("Lot {position}: {what}"))
            .with(json!({"position": position}))
    };
    if !matches!(lot, Json::Object(_)) {
        return Err(refuse("must be an object.".into()));
    }
    let text = |name: &str, text: &Text<'a>| {
        let text = text
            .decode()
            .map_err(|_| refuse(format!("`{name}` holds half of a surrogate pair.")))?;
        if text.contains('\0') {
            Err(refuse(format!("`{name}` holds a NUL.")))
        } else {
            Ok(text)
        }
    };
    let lot_id = match lot.field("lot_id") {
        Some(Json::String(id)) => text("lot_id", id)?,
        Some(Json::Number(id)) if !id.contains(['.', 'e', 'E', 'N', 'I']) => Cow::Borrowed(*id),
        Some(_) => return Err(refuse("`lot_id` must be a text or an integer.".into())),
        None => {
            let details = json!({"field": "lot_id", "position": position});
            return Err(ApiError::new(
                ErrorCode::MissingField,
                format!("Lot {position}: `lot_id` is missing."),
            )
            .with(details));
        }
    };
    if lot_id.is_empty() || lot_id.chars().count() > MAX_LOT_ID {
        return Err(refuse(format!(
            "`lot_id` must have 1 to {MAX_LOT_ID} characters."
        )));
    }
    let additional_info = match lot.field("additional_info") {
        None => Cow::Borrowed(""),
        Some(Json::String(info)) => text("additional_info", info)?,
        Some(_) => return Err(refuse("`additional_info` must be a text.".into())),
    };
    if additional_info.len() > MAX_INFO {
        return Err(refuse(format!(
            "`additional_info` is longer than {MAX_INFO} bytes."
        )));
    }
    let (images, unusable) = match lot.field("images") {
        None => (Vec::new(), Vec::new()),
        Some(Json::Array(images)) if images.len() <= rules.images => {
            check_images(images, rules, |url| text("images", url))?
        }
        Some(Json::Array(_)) => {
            return Err(refuse(format!(
                "`images` holds more than {}.",
                rules.images
            )));
        }
        Some(_) => return Err(refuse("`images` must be a list.".into())),
    };
    let webhook_url = check_webhook(lot, "webhook", rules).map_err(|refusal| {
        ApiError::new(refusal.code, format!("Lot {position}: {}", refusal.message))
            .with(json!({"position": position}))
    })?;
    Ok(NewLot {
        lot_id,
        additional_info,
        images,
        unusable,
        webhook_url,
    })
}

/// Image URLs, in the order sent.
type Urls<'a> = Vec<Cow<'a, str>>;

/// A lot's image URLs: those that can be used, and those that cannot.
fn check_images<'a>(
    images: &[Json<'a>],
    rules: &Rules<'_>,
    text: impl Fn(&Text<'a>) -> Result<Cow<'a, str>, ApiError>,
) -> Result<(Urls<'a>, Urls<'a>), ApiError> {
    let mut usable = Vec::with_capacity(images.len());
    let mut unusable = Vec::new();
    for image in images {
        let url = match image {
            Json::String(url) => Some(url),
            object => match object.field("url") {
                Some(Json::String(url)) => Some(url),
                _ => None,
            },
        };
        match url.map(&text).transpose()? {
            Some(url) if (rules.image)(&url).is_ok() => usable.push(url),
            Some(url) => unusable.push(listed(url)),
            None => {}
        }
    }
    // A job may name millions of images: no room is kept beside theirs.
    usable.shrink_to_fit();
    unusable.shrink_to_fit();
    Ok((usable, unusable))
}

/// An image URL that cannot be used, as it is listed.
fn listed(url: Cow<'_, str>) -> Cow<'_, str> {
    if url.chars().nth(MAX_LISTED).is_none() {
        return url;
    }
    let kept = url.chars().take(MAX_LISTED - CUT.chars().count());
    kept.chain(CUT.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_a_host_and_a_port() {
        for (url, expected) in [
            ("https://Hooks.Example/a?b=c://d", "hooks.example:443"),
            ("http://hooks.example", "hooks.example:80"),
            ("http://hooks.example:8080?x", "hooks.example:8080"),
            ("HTTPS://[2001:db8::1]/x", "[2001:db8::1]:443"),
            ("http://[2001:db8::1]:81#f", "[2001:db8::1]:81"),
        ] {
            assert_eq!(receiver(url), expected, "{url}");
        }
    }
}
