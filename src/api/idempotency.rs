//! Repeats of a request: the keys by which a repeat is recognized, and the first answer given again.
//!
//! An `Idempotency-Key` and a v1 signature each belong to one request. Their first use is stored in the
//! transaction that changes the job, so that concurrent repeats find it there.

use sha2::{Digest, Sha256};

use super::json_response;
use crate::base::clock::Timestamp;
use crate::base::hex;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::job::Submission;
use crate::http::{Request, Response};
use crate::python_json::{Json, write_canonical_without};
use crate::store::idempotency::{self as stored, IdempotencyKey, KeyKind};
use crate::store::{Store, Stored, Tx, View};

/// The longest `Idempotency-Key`, in characters.
const MAX_KEY: usize = 255;

/// The keys of one request. A request without keys has no repeats.
#[derive(Clone, Debug, Default)]
pub struct IdempotencyKeys {
    /// The v1 signature in hex.
    pub signature: Option<String>,
    /// The header `Idempotency-Key`.
    pub header: Option<String>,
    /// The SHA-256 of the body in hex.
    pub body_sha256: String,
}

impl IdempotencyKeys {
    /// The keys of a POST; `signature` is its v1 signature.
    pub(super) fn of_request(request: &Request, signature: Option<String>) -> Result<Self, ApiError> {
        let header = request.header("idempotency-key");
        if let Some(key) = header
            && !(1..=MAX_KEY).contains(&key.chars().count())
        {
            let message = format!("`Idempotency-Key` must have 1 to {MAX_KEY} characters.");
            return Err(ApiError::new(ErrorCode::InvalidParameter, message));
        }
        let body_sha256 = match (header, &signature) {
            (None, None) => String::new(),
            _ => hex::encode(Sha256::digest(&request.body).as_slice()),
        };
        Ok(Self {
            signature,
            header: header.map(str::to_owned),
            body_sha256,
        })
    }

    /// The same without the header.
    pub(super) fn without_header(self) -> Self {
        Self { header: None, ..self }
    }

    /// The signature comes first. It covers the body, so a repeat with another header is a repeat.
    fn iter(&self) -> impl Iterator<Item = IdempotencyKey<'_>> {
        let signature = self.signature.as_deref().map(|text| IdempotencyKey {
            kind: KeyKind::Signature,
            text,
        });
        let header = self.header.as_deref().map(|text| IdempotencyKey {
            kind: KeyKind::Key,
            text,
        });
        signature.into_iter().chain(header)
    }
}

/// What a repeated request is answered with.
#[derive(Debug)]
pub enum Replay {
    /// The first answer, as JSON.
    Answer(String),
    /// A refusal: the key belongs to a request with another body.
    KeyReused,
}

impl Replay {
    /// The first answer again with `status`, or 409.
    pub(super) fn into_response(self, status: u16) -> Result<Response, ApiError> {
        match self {
            Self::Answer(answer) => Ok(replayed(json_response(status, answer))),
            Self::KeyReused => Err(ApiError::new(
                ErrorCode::IdempotencyKeyReused,
                "This Idempotency-Key was used for another body: send a new key, or the same bytes.",
            )),
        }
    }
}

/// Says in a header that the answer was given before.
pub(super) fn replayed(response: Response) -> Response {
    response.with_header("Idempotent-Replayed", "true")
}

/// An earlier use of one of a request's keys.
struct EarlierUse {
    job: Option<i64>,
    kind: KeyKind,
    replay: Replay,
}

fn find_earlier_use(view: &View, client: &str, keys: &IdempotencyKeys) -> Stored<Option<EarlierUse>> {
    for key in keys.iter() {
        if let Some(first) = stored::first_use(view, client, key)? {
            let replay = if first.body_sha256 == keys.body_sha256 {
                Replay::Answer(first.answer)
            } else {
                Replay::KeyReused
            };
            return Ok(Some(EarlierUse {
                job: first.job,
                kind: key.kind,
                replay,
            }));
        }
    }
    Ok(None)
}

/// The replay of a request; `None` if none of its keys was used before.
///
/// # Errors
/// The store's.
pub fn find_replay(view: &View, client: &str, keys: &IdempotencyKeys) -> Stored<Option<Replay>> {
    Ok(find_earlier_use(view, client, keys)?.map(|earlier| earlier.replay))
}

/// As [`find_replay`], and stores the signature of a repeat that was recognized by its header. The
/// signature does not cover the header: without this row, the repeat could be sent once more without it.
///
/// # Errors
/// The store's.
pub fn replay(tx: &Tx<'_>, client: &str, keys: &IdempotencyKeys) -> Stored<Option<Replay>> {
    let Some(earlier) = find_earlier_use(tx, client, keys)? else {
        return Ok(None);
    };
    if let (KeyKind::Key, Replay::Answer(_), Some(_)) = (earlier.kind, &earlier.replay, &keys.signature) {
        let signature = keys.clone().without_header();
        remember(tx, client, &signature, earlier.job, None)?;
    }
    Ok(Some(earlier.replay))
}

/// The replay of a submission that was not checked yet; `None` if it is new. A repeat needs no check.
///
/// # Errors
/// The store's.
pub fn replay_unchecked(
    store: &Store,
    client: &str,
    keys: &IdempotencyKeys,
    now: Timestamp,
) -> Stored<Option<Replay>> {
    if store.read(|view| find_replay(view, client, keys))?.is_none() {
        return Ok(None);
    }
    store.write(now, |tx| replay(tx, client, keys))
}

/// Stores the keys of a request in the transaction of its effect. `job` is the job that it has changed, if it has changed
/// one. `answer` is what the client gets; `None` if that is the stored acceptance of the job.
///
/// # Errors
/// The store's.
pub fn remember(
    tx: &Tx<'_>,
    client: &str,
    keys: &IdempotencyKeys,
    job: Option<i64>,
    answer: Option<&str>,
) -> Stored<()> {
    keys.iter()
        .try_for_each(|key| stored::record_use(tx, client, key, &keys.body_sha256, job, answer))
}

/// The SHA-256 of lots, languages and webhooks in hex. Equal submissions have the same: the client's own fields do not
/// count.
pub fn content_sha256(body: Json<'_>, submission: &Submission<'_>) -> String {
    let mut hash = Sha256::new();
    for text in [
        submission.languages.join("\n").as_str(),
        submission.webhook_url.as_deref().unwrap_or(""),
    ] {
        hash.update(text);
        hash.update([0]);
    }
    hash.update(b"[");
    let lots = body.field("lots").and_then(Json::as_array);
    for (position, lot) in lots.into_iter().flatten().enumerate() {
        if position > 0 {
            hash.update(b",");
        }
        write_canonical_without(lot, "reference", &mut |piece| hash.update(piece));
    }
    hash.update(b"]");
    hex::encode(hash.finalize().as_slice())
}
