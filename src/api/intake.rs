//! The intake: a submission whose signature holds is checked and stored whole, in one transaction
//! with what makes its repeats count once.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::base::clock::Timestamp;
use crate::base::hex;
use crate::config::{BudgetPolicy, ClientConfig, Config};
use crate::domain::api_error::ApiError;
use crate::domain::job::{self, Mode, Rules, Submission};
use crate::domain::money::Money;
use crate::jobs::estimate;
use crate::outbound::Guard;
use crate::python_json::{Json, canonical};
use crate::store::idempotency::{self, Kind, Token};
use crate::store::jobs::{self, JobRow, NewJob};
use crate::store::money::{self, Standing};
use crate::store::{Store, StoreError, Stored, Tx, View};

/// Checks what a client sent.
///
/// # Errors
/// The contract's refusal of the first thing that is wrong; nothing is stored then.
pub fn check<'a>(
    body: &Json<'a>,
    client: &ClientConfig,
    mode: Mode,
    config: &Config,
    guard: &Guard,
) -> Result<Submission<'a>, ApiError> {
    let image = |url: &str| {
        let checked = guard.check_url(url);
        checked.map(drop).map_err(|problem| problem.to_string())
    };
    let webhook = |url: &str| {
        let checked = guard
            .check_url(url)
            .map_err(|problem| problem.to_string())?;
        if client.may_tell(&checked.host) {
            Ok(())
        } else {
            Err(format!(
                "this client's webhooks do not go to {}",
                checked.host
            ))
        }
    };
    let images = match mode {
        Mode::Batch => config.images.max_per_lot,
        Mode::Synchronous => config.synchronous.max_images,
    };
    let rules = Rules {
        languages: usize::try_from(config.limits.languages).unwrap_or(usize::MAX),
        images: usize::try_from(images).unwrap_or(usize::MAX),
        image: &image,
        webhook: &webhook,
    };
    job::check_submission(body, &rules)
}

/// What a request counts once by; empty: by nothing.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The v1 signature's hex.
    pub signature: Option<String>,
    /// The client's `Idempotency-Key`.
    pub key: Option<String>,
    /// The SHA-256 of the body, hex.
    pub body_sha256: String,
}

impl Marks {
    /// The signature comes first: it covers the body, so that a repeat with another key is a repeat.
    fn tokens(&self) -> impl Iterator<Item = Token<'_>> {
        let signature = self.signature.as_deref().map(|text| Token {
            kind: Kind::Signature,
            text,
        });
        let key = self.key.as_deref().map(|text| Token {
            kind: Kind::Key,
            text,
        });
        signature.into_iter().chain(key)
    }
}

/// SHA-256 of some bytes, hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes).as_slice())
}

/// What equal submissions have in common: the SHA-256 of lots, languages and webhooks.
pub fn content_sha256(body: &Json<'_>, submission: &Submission<'_>) -> String {
    let mut hash = Sha256::new();
    for text in [
        submission.languages.join("\n").as_str(),
        submission.webhook_url.as_deref().unwrap_or(""),
    ] {
        hash.update(text);
        hash.update([0]);
    }
    if let Some(lots) = body.field("lots") {
        canonical(lots, &mut |piece| hash.update(piece));
    }
    hex::encode(hash.finalize().as_slice())
}

/// A submission that was checked, with what its repeats are known by.
pub struct Incoming<'a> {
    /// Whose it is.
    pub client: &'a str,
    /// What was sent.
    pub submission: &'a Submission<'a>,
    /// What it counts once by.
    pub marks: &'a Marks,
    /// Of [`content_sha256`].
    pub content_sha256: &'a str,
    /// How it is answered.
    pub mode: Mode,
}

/// What a request that counts once was before.
#[derive(Debug)]
pub enum Before {
    /// The same; what was answered then (JSON).
    Answered(String),
    /// Another: its key was used for another body.
    KeyReused,
}

/// What became of a submission.
#[derive(Debug)]
pub enum Taken {
    /// It is a job now; the row, and what is answered (JSON).
    New(Box<JobRow>, String),
    /// It came before.
    Again(Before),
    /// It is new, and was not admitted.
    NotNow,
    /// What it is estimated to cost would break a budget.
    OverBudget {
        /// Which, and how it stands.
        standing: Box<Standing>,
        /// The estimate.
        cost: Money,
    },
    /// The client has sent as many lots as it may today, or would have.
    DayIsFull {
        /// Lots taken today.
        taken: u64,
    },
}

/// What was answered to a request before, where it counts once.
///
/// # Errors
/// The store's.
pub fn repeated(view: &View, client: &str, marks: &Marks) -> Stored<Option<Before>> {
    Ok(earlier(view, client, marks)?.map(|(_, _, before)| before))
}

/// The same, with the job and with what it was known by.
fn earlier(view: &View, client: &str, marks: &Marks) -> Stored<Option<(i64, Kind, Before)>> {
    for token in marks.tokens() {
        if let Some(first) = idempotency::answered(view, client, token)? {
            let before = if first.body_sha256 == marks.body_sha256 {
                Before::Answered(first.answer)
            } else {
                Before::KeyReused
            };
            return Ok(Some((first.job, token.kind, before)));
        }
    }
    Ok(None)
}

/// As [`repeated`], in the transaction that answers: the signature of a repeat that was known by its
/// key is used up too, or it could be sent once more without the key, which it does not cover.
fn repeat(tx: &Tx<'_>, client: &str, marks: &Marks) -> Stored<Option<Before>> {
    let Some((job, kind, before)) = earlier(tx, client, marks)? else {
        return Ok(None);
    };
    if let (Kind::Key, Before::Answered(_), Some(_)) = (kind, &before, &marks.signature) {
        let marks = Marks {
            key: None,
            ..marks.clone()
        };
        remember(tx, client, &marks, job, None)?;
    }
    Ok(Some(before))
}

/// Uses up what a request counts once by, in the transaction of its effect on a job; `answer`: what
/// is answered, where that is not the job's acceptance.
///
/// # Errors
/// The store's.
pub fn remember(
    tx: &Tx<'_>,
    client: &str,
    marks: &Marks,
    job: i64,
    answer: Option<&str>,
) -> Stored<()> {
    marks.tokens().try_for_each(|token| {
        idempotency::remember(tx, client, token, &marks.body_sha256, job, answer)
    })
}

/// What was answered to a submission that comes again; none: it is new. Nothing of it need be checked
/// then.
///
/// # Errors
/// The store's.
pub fn again(store: &Store, client: &str, marks: &Marks, now: Timestamp) -> Stored<Option<Before>> {
    if store.read(|view| earlier(view, client, marks))?.is_none() {
        return Ok(None);
    }
    store.write(now, |tx| repeat(tx, client, marks))
}

/// Stores a job durably, with its lots, requests, deliveries and answer, unless it repeats an earlier
/// one. A new one must be admitted under its id; `answer` makes what is answered from the row.
///
/// # Errors
/// The store's; nothing is stored then.
pub fn accept(
    store: &Store,
    config: &Config,
    incoming: &Incoming<'_>,
    admit: impl FnOnce(&str) -> bool,
    answer: impl FnOnce(&JobRow) -> Value,
    now: Timestamp,
) -> Stored<Taken> {
    let Incoming {
        client,
        submission,
        marks,
        content_sha256,
        mode,
    } = *incoming;
    let id = uuid::Uuid::new_v4().to_string();
    let new = NewJob {
        id: &id,
        client,
        submission,
        check_images: config.images.check,
        mode,
    };
    store.write(now, |tx| {
        if let Some(before) = repeat(tx, client, marks)? {
            return Ok(Taken::Again(before));
        }
        let window = config.limits.dedupe_window;
        if marks.key.is_none() && window > Duration::ZERO {
            let equal = idempotency::equal(tx, client, content_sha256, tx.now.before(window))?;
            if let Some((job, answer)) = equal {
                remember(tx, client, marks, job, None)?;
                return Ok(Taken::Again(Before::Answered(answer)));
            }
        }
        if !admit(&id) {
            return Ok(Taken::NotNow);
        }
        let most = u64::from(config.limits.lots_per_day);
        let taken = idempotency::lots_taken(tx, client, tx.now)?;
        let lots = submission.lots.len();
        if most > 0 && taken.saturating_add(u64::try_from(lots).unwrap_or(u64::MAX)) > most {
            return Ok(Taken::DayIsFull { taken });
        }
        let estimate = estimate::of(tx, config, submission, mode, tx.now)?;
        let budgets = config.limits_of_money();
        if let Some(cost) = estimate.cost
            && (config.budgets.on_exceeded == BudgetPolicy::Refuse || mode == Mode::Synchronous)
            && !budgets.is_none()
            && let Some(standing) = money::broken_by(tx, &budgets, client, cost, tx.now)?
        {
            let standing = Box::new(standing);
            return Ok(Taken::OverBudget { standing, cost });
        }
        jobs::insert(tx, &new)?;
        let row = jobs::by_id(tx, &id)?;
        let row = row.ok_or_else(|| StoreError::Conflict(format!("job {id} is gone")))?;
        let answer = answer(&row).to_string();
        money::keep_estimate(tx, row.seq, estimate.cost, estimate.tokens)?;
        idempotency::accept(tx, row.seq, client, content_sha256, &answer)?;
        remember(tx, client, marks, row.seq, None)?;
        idempotency::take_lots(tx, client, lots)?;
        Ok(Taken::New(Box::new(row), answer))
    })
}
