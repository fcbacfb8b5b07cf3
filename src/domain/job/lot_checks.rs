//! Checks of the lots of a submission.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::json;

use super::field_checks::check_webhook;
use super::own_fields::{InvalidOwnFields, check_reference};
use super::submission::{MAX_LOTS, NewLot, SubmissionRules};
use super::unknown_fields::UnknownFields;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::python_json::{Elements, Json, Text};

/// The most bytes of a lot's text.
const MAX_INFO_BYTES: usize = 16 * 1024;
/// The most characters of a lot's id.
const MAX_LOT_ID_CHARS: usize = 100;
/// The most characters of an unusable image URL in a list.
const MAX_LISTED_CHARS: usize = 500;
/// The end of an image URL that is cut there. A usable URL has no space, so a cut URL cannot look like one.
const CUT_MARK: &str = " …";
/// The most examples in an error.
const MAX_EXAMPLES: usize = 20;

/// Checks all lots.
pub(super) fn check_lots<'a>(
    lots: Elements<'a>,
    rules: &SubmissionRules<'_>,
    unknown: &mut UnknownFields,
    invalid: &mut InvalidOwnFields,
) -> Result<Vec<NewLot<'a>>, ApiError> {
    let number = lots.count();
    if number == 0 {
        return Err(ApiError::new(
            ErrorCode::InvalidParameter,
            "`lots` is empty; send at least one lot.",
        ));
    }
    if number > MAX_LOTS {
        let message = format!("A job may hold {MAX_LOTS} lots; split this one of {number}.");
        let details = json!({"provided_lots": number, "max_allowed": MAX_LOTS});
        return Err(ApiError::new(ErrorCode::BatchSizeExceeded, message).with(details));
    }
    let mut seen = HashSet::with_capacity(number);
    let mut checked = Vec::with_capacity(number);
    for (position, lot) in lots.enumerate() {
        let lot = check_lot(position, lot, rules, unknown, invalid)?;
        if !seen.insert(lot.lot_id.clone()) {
            let message = format!("`lot_id` \"{}\" stands twice in the job.", lot.lot_id);
            return Err(ApiError::new(ErrorCode::DuplicateLotId, message).with(json!({"lot_id": lot.lot_id})));
        }
        checked.push(lot);
    }
    if checked.iter().all(|lot| lot.images.is_empty()) {
        let invalid_urls: Vec<_> = checked
            .iter()
            .flat_map(|lot| &lot.unusable_images)
            .take(MAX_EXAMPLES)
            .collect();
        let message = "No lot has an image URL that can be used (http or https, no private address).";
        return Err(
            ApiError::new(ErrorCode::InvalidImageUrls, message).with(json!({"invalid_urls": invalid_urls}))
        );
    }
    Ok(checked)
}

fn check_lot<'a>(
    position: usize,
    lot: Json<'a>,
    rules: &SubmissionRules<'_>,
    unknown: &mut UnknownFields,
    invalid: &mut InvalidOwnFields,
) -> Result<NewLot<'a>, ApiError> {
    if !matches!(lot, Json::Object(_)) {
        return Err(invalid_lot(position, "must be an object."));
    }
    let fields = ["lot_id", "additional_info", "images", "webhook", "reference"];
    let [lot_id, info, images, webhook, reference] = lot.fields(fields, |name| unknown.note("lots[].", name));
    let lot_id = check_lot_id(position, lot_id)?;
    let additional_info = check_additional_info(position, info)?;
    let (images, unusable_images) = match images {
        None => (Vec::new(), Vec::new()),
        Some(Json::Array(images)) if images.count() <= rules.max_images => {
            check_images(position, images, rules)?
        }
        Some(Json::Array(_)) => {
            let problem = format!("`images` holds more than {}.", rules.max_images);
            return Err(invalid_lot(position, &problem));
        }
        Some(_) => return Err(invalid_lot(position, "`images` must be a list.")),
    };
    let webhook_url = check_webhook(webhook, "webhook", rules.check_webhook_url).map_err(|error| {
        ApiError::new(error.code, format!("Lot {position}: {}", error.message))
            .with(json!({"position": position}))
    })?;
    let reference = invalid.ignore_or_refuse("lots[].reference", check_reference(position, reference))?;
    Ok(NewLot {
        lot_id,
        additional_info,
        images,
        unusable_images,
        webhook_url,
        reference,
    })
}

fn check_lot_id<'a>(position: usize, lot_id: Option<Json<'a>>) -> Result<Cow<'a, str>, ApiError> {
    let lot_id = match lot_id {
        Some(Json::String(id)) => check_text(position, "lot_id", id)?,
        Some(Json::Number(id)) if !id.contains(['.', 'e', 'E', 'N', 'I']) => Cow::Borrowed(id),
        Some(_) => {
            let problem = "`lot_id` must be a text or an integer.";
            return Err(invalid_lot(position, problem));
        }
        None => {
            let message = format!("Lot {position}: `lot_id` is missing.");
            return Err(ApiError::new(ErrorCode::MissingField, message)
                .with(json!({"field": "lot_id", "position": position})));
        }
    };
    if lot_id.is_empty() || lot_id.chars().count() > MAX_LOT_ID_CHARS {
        let problem = format!("`lot_id` must have 1 to {MAX_LOT_ID_CHARS} characters.");
        return Err(invalid_lot(position, &problem));
    }
    Ok(lot_id)
}

fn check_additional_info<'a>(position: usize, info: Option<Json<'a>>) -> Result<Cow<'a, str>, ApiError> {
    let info = match info {
        None => Cow::Borrowed(""),
        Some(Json::String(info)) => check_text(position, "additional_info", info)?,
        Some(_) => return Err(invalid_lot(position, "`additional_info` must be a text.")),
    };
    if info.len() > MAX_INFO_BYTES {
        let problem = format!("`additional_info` is longer than {MAX_INFO_BYTES} bytes.");
        return Err(invalid_lot(position, &problem));
    }
    Ok(info)
}

/// Decodes a text of a lot, which must have no lone surrogate and no NUL.
pub(super) fn check_text<'a>(position: usize, name: &str, text: Text<'a>) -> Result<Cow<'a, str>, ApiError> {
    let text = text.decode().map_err(|_| {
        let problem = format!("`{name}` holds half of a surrogate pair.");
        invalid_lot(position, &problem)
    })?;
    if text.contains('\0') {
        return Err(invalid_lot(position, &format!("`{name}` holds a NUL.")));
    }
    Ok(text)
}

pub(super) fn invalid_lot(position: usize, problem: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidLot, format!("Lot {position}: {problem}"))
        .with(json!({"position": position}))
}

/// Image URLs in the order sent.
type Urls<'a> = Vec<Cow<'a, str>>;

/// Separates a lot's image URLs into the usable and the unusable ones.
fn check_images<'a>(
    position: usize,
    images: Elements<'a>,
    rules: &SubmissionRules<'_>,
) -> Result<(Urls<'a>, Urls<'a>), ApiError> {
    let mut usable = Vec::new();
    let mut unusable = Vec::new();
    for image in images {
        let url = match image {
            Json::String(url) => Some(url),
            object => match object.field("url") {
                Some(Json::String(url)) => Some(url),
                _ => None,
            },
        };
        let url = url.map(|url| check_text(position, "images", url)).transpose()?;
        match url {
            Some(url) if (rules.check_image_url)(&url).is_ok() => usable.push(url),
            Some(url) => unusable.push(cut_listed_url(url)),
            None => {}
        }
    }
    // A job may have millions of images, so unused capacity is released.
    usable.shrink_to_fit();
    unusable.shrink_to_fit();
    Ok((usable, unusable))
}

/// Cuts a long unusable image URL for the list of them.
fn cut_listed_url(url: Cow<'_, str>) -> Cow<'_, str> {
    if url.chars().nth(MAX_LISTED_CHARS).is_none() {
        return url;
    }
    let kept = url.chars().take(MAX_LISTED_CHARS - CUT_MARK.chars().count());
    kept.chain(CUT_MARK.chars()).collect()
}
