//! A request whose line or call brought no text: the decision on it is applied.

use rusqlite::params;

use super::request::{RequestRow, fail};
use super::tally::count_settled;
use crate::domain::batch::{Outcome, Stage};
use crate::domain::decide::blamed_image::{BlamedImage, SentImages};
pub use crate::domain::decide::failed_line::RetryRules;
use crate::domain::decide::failed_line::{FailedLine, FailedLineDecision, LineOrigin, LineSource};
use crate::domain::job::RequestState;
use crate::domain::url_expiry::with_expiry;
use crate::store::images::{MissingImage, add_missing};
use crate::store::lots::text_list;
use crate::store::predicates::OPEN_REQUEST;
use crate::store::{Stored, Tx, View};

/// What a request has met.
pub(in crate::store) struct Failure<'a> {
    /// The outcome of its line or call.
    pub(in crate::store) outcome: Outcome,
    /// What OpenAI said.
    pub(in crate::store) error: Option<&'a str>,
    /// Whether this program made the line, so that it knows the places of the images in it.
    pub(in crate::store) is_own_line: bool,
    /// Whether OpenAI may bill it.
    pub(in crate::store) may_be_billed: bool,
    /// How it was sent.
    pub(in crate::store) origin: LineOrigin,
    /// The row of its batch or call.
    pub(in crate::store) row: i64,
}

/// The decision on a request without a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Judged {
    /// It waits again with one image less.
    WithoutImage,
    /// It waits again as it was, or has ended.
    Otherwise,
}

/// Decides on a claimed request that has no text: it waits again, or fails with the reason.
pub(in crate::store) fn judge(
    tx: &Tx<'_>,
    request: &RequestRow,
    failure: &Failure<'_>,
    rules: RetryRules,
) -> Stored<Judged> {
    let images = match failure.outcome {
        Outcome::ImageUnreachable => Some(BlamedLot::find(tx, request, failure)?),
        _ => None,
    };
    let line = FailedLine {
        outcome: failure.outcome,
        error: images.as_ref().map(|lot| lot.reason.as_str()).or(failure.error),
        blamed_image: images.as_ref().map_or(BlamedImage::None, |lot| lot.blamed),
        may_be_billed: failure.may_be_billed,
        origin: failure.origin,
        history: request.history,
        source: source(tx, request)?,
        rules,
        seed: failure.row,
    };
    let blamed: &[MissingImage] = images.as_ref().map_or(&[], |lot| lot.image.as_slice());
    match line.decide() {
        FailedLineDecision::Fail { reason } => {
            add_missing(tx, request.lot, blamed)?;
            fail(tx, request, &reason)?;
        }
        FailedLineDecision::PutOff => put_off(tx, request)?,
        FailedLineDecision::Retry(retry) => {
            if retry.drop_image {
                add_missing(tx, request.lot, blamed)?;
            }
            let transient_wait = retry.wait.filter(|_| !retry.is_refusal);
            let wait_ms = transient_wait.map_or(0, |wait| wait.as_millis().try_into().unwrap_or(0_i64));
            tx.prepare_cached(
                "UPDATE requests SET state = 'waiting', attempts = attempts + ?, cap_raised = max(cap_raised, ?),
                        image_failures = image_failures + ?, images_due = ?, batch_cap = ?, since = ?, retry_at = ?,
                        transient_failures = transient_failures + ?, transient_wait_ms = transient_wait_ms + ?,
                        refusals = refusals + ?
                 WHERE id = ? AND state = 'claimed'",
            )?
            .execute(params![
                retry.is_counted,
                retry.raise,
                retry.check_images,
                retry.check_images && rules.check_images,
                retry.batch_cap,
                tx.now,
                retry.wait.map(|wait| tx.now + wait),
                transient_wait.is_some(),
                wait_ms,
                retry.is_refusal,
                request.id
            ])?;
            if retry.drop_image {
                return Ok(Judged::WithoutImage);
            }
        }
    }
    Ok(Judged::Otherwise)
}

/// A lot of which OpenAI cannot use an image.
struct BlamedLot {
    /// What the error says of its images.
    blamed: BlamedImage,
    /// The image that the error blames, as a list of at most one.
    image: Vec<MissingImage>,
    /// What OpenAI said, and the expiry of the URL.
    reason: String,
}

impl BlamedLot {
    fn find(tx: &Tx<'_>, request: &RequestRow, failure: &Failure<'_>) -> Stored<Self> {
        let mut query =
            tx.prepare_cached("SELECT images, missing_images, additional_info FROM batch_lots WHERE id = ?")?;
        let mut rows = query.query_and_then([request.lot], |row| {
            let info: String = row.get("additional_info")?;
            Stored::Ok((
                text_list(row.get("images")?)?,
                text_list(row.get("missing_images")?)?,
                info,
            ))
        })?;
        let (images, missing, info) = rows.next().transpose()?.unwrap_or_default();
        let sent = SentImages {
            info: &info,
            images: &images,
            missing: &missing,
            is_own_line: failure.is_own_line,
        };
        let error = failure.error.unwrap_or_default();
        let Some(url) = sent.blamed_by(error) else {
            let expired = images.iter().filter(|url| !missing.contains(url));
            let reasons = expired.map(|url| with_expiry(error, url, tx.now));
            let reason = reasons.max_by_key(String::len).unwrap_or_default();
            return Ok(Self {
                blamed: BlamedImage::None,
                image: Vec::new(),
                reason,
            });
        };
        let reason = with_expiry(error, url, tx.now);
        Ok(Self {
            blamed: sent.without(url),
            image: vec![MissingImage {
                url: url.to_owned(),
                reason: format!("OpenAI cannot use it: {reason}"),
            }],
            reason,
        })
    }
}

/// Whether a request has what it is made from: a translation needs its lot's description.
fn source(view: &View, request: &RequestRow) -> Stored<LineSource> {
    if request.stage == Stage::Vision {
        return Ok(LineSource::Present);
    }
    let mut query = view.prepare_cached(&format!(
        "SELECT vision_result IS NOT NULL,
                EXISTS (SELECT 1 FROM requests
                        WHERE lot = l.id AND stage = 'vision' AND {OPEN_REQUEST})
         FROM batch_lots l WHERE id = ?"
    ))?;
    let (is_described, is_pending) = query.query_row([request.lot], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(match (is_described, is_pending) {
        (true, _) => LineSource::Present,
        (false, true) => LineSource::Pending,
        (false, false) => LineSource::Absent,
    })
}

/// Cancels a translation until its lot has a description, which makes it wanted again.
fn put_off(tx: &Tx<'_>, request: &RequestRow) -> Stored<()> {
    request.settle(tx, RequestState::Cancelled)?;
    count_settled(tx, request.job, request.stage, 0);
    Ok(())
}
