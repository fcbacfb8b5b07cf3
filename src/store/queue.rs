//! How many tokens of a model OpenAI queues at once: the limit that its refusals name, and what our active
//! batches take of it.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::batches::BatchRow;
use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::domain::openai::Identity;
use crate::store::predicates::{ACTIVE_BATCH, LIVE_BATCH};

/// A limit is believed for this long. OpenAI raises it with the account's tier and does not say so.
const BELIEVED: Duration = Duration::from_hours(7 * 24);
/// Percent of the limit that are used. OpenAI counts differently from our estimate, and frees tokens late.
const USED: u64 = 85;
/// Batches that share the queue.
const BATCHES: u64 = 3;
/// How long a batch that OpenAI is still validating keeps the next one of its model waiting.
const ADMISSION: Duration = Duration::from_mins(10);
/// Batches that are created in [`HOUR`] at most; OpenAI takes 2,000.
const CREATES: u32 = 1_900;
/// The time in which OpenAI counts creates.
const HOUR: Duration = Duration::from_hours(1);

/// Stores how many tokens of a model OpenAI queues, as it said.
pub fn learn(tx: &Tx<'_>, model: &str, tokens: u64) -> Stored<()> {
    tx.execute(
        "INSERT INTO queue_limits VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET tokens = excluded.tokens, learned_at = excluded.learned_at",
        params![model, tokens, tx.now],
    )?;
    log::info!(event = "queue_limit", model:%, tokens; "");
    Ok(())
}

/// Counts `tokens` more of its model's queue for a batch.
pub fn add_tokens(tx: &Tx<'_>, batch: i64, tokens: u64) -> Stored<()> {
    tx.prepare_cached("UPDATE openai_batches SET queue_tokens = queue_tokens + ? WHERE id = ?")?
        .execute(params![tokens, batch])?;
    Ok(())
}

/// What our batches take of a model's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct QueueUse {
    /// Tokens, from the planning of a batch to its end.
    tokens: u64,
    /// Whether OpenAI has yet to accept one of the batches.
    is_admitting: bool,
}

/// What an account's batches of a model take. A batch whose call failed, whose create is in doubt, that was
/// abandoned, or that is set aside because its due time cannot be read, keeps no other batch waiting.
fn queue_use(view: &View, identity: &Identity, model: &str, now: Timestamp) -> Stored<QueueUse> {
    let mut query = view.prepare_cached(
        &format!("SELECT coalesce(sum(queue_tokens), 0),
                coalesce(max(abandoned_at IS NULL AND next_at GLOB '????-??-??T*Z' AND CASE state
                                        WHEN 'submitted' THEN openai_status = 'validating' AND submitted_at > ?
                                        WHEN 'creating' THEN 0
                                        ELSE failures = 0 END), 0)
         FROM openai_batches
         WHERE {ACTIVE_BATCH} AND {LIVE_BATCH}
           AND model = ? AND (base_url, organization, project) = (?, ?, ?)"),
    )?;
    let of = params![
        now.before(ADMISSION),
        model,
        identity.base_url,
        identity.organization,
        identity.project
    ];
    Ok(query.query_row(of, |row| {
        Ok(QueueUse {
            tokens: row.get(0)?,
            is_admitting: row.get(1)?,
        })
    })?)
}

/// Whether our own batches explain that a batch was refused for that limit. Then it is enough to wait for their
/// end and to make the next batches smaller. A batch of one line cannot be made smaller.
pub fn explains(view: &View, batch: &BatchRow, limit: u64, now: Timestamp) -> Stored<bool> {
    let own: u64 = view
        .prepare_cached("SELECT queue_tokens FROM openai_batches WHERE id = ?")?
        .query_row([batch.id], |row| row.get(0))?;
    let others = queue_use(view, &batch.identity, &batch.model, now)?.tokens;
    Ok(batch.lines > 1 && own > 0 && own.saturating_add(others) > usable(limit))
}

fn usable(limit: u64) -> u64 {
    limit.saturating_mul(USED) / 100
}

/// How many tokens the next batch of a model may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueSpace {
    /// No limit is known.
    Unlimited,
    /// This many.
    Tokens(u64),
    /// None before another batch has ended or passed its validation. Batches are admitted one after another,
    /// as OpenAI checks each that it validates against a queue without the others.
    Full,
}

/// How many tokens the next batch of a model may take.
pub fn space(view: &View, identity: &Identity, model: &str, now: Timestamp) -> Stored<QueueSpace> {
    let QueueUse {
        tokens: held,
        is_admitting,
    } = queue_use(view, identity, model, now)?;
    if is_admitting {
        return Ok(QueueSpace::Full);
    }
    let mut query =
        view.prepare_cached("SELECT tokens FROM queue_limits WHERE model = ? AND learned_at > ?")?;
    let limit: Option<u64> = query
        .query_row(params![model, now.before(BELIEVED)], |row| row.get(0))
        .optional()?;
    let Some(limit) = limit else {
        return Ok(QueueSpace::Unlimited);
    };
    let share = usable(limit) / BATCHES;
    let left = usable(limit).saturating_sub(held).min(share);
    Ok(if held == 0 || left > share / 2 {
        QueueSpace::Tokens(left)
    } else {
        QueueSpace::Full
    })
}

/// How long until OpenAI takes another create, by those of the last hour.
pub fn creates_wait(view: &View, now: Timestamp) -> Stored<Duration> {
    let mut query = view.prepare_cached(
        "SELECT created_at FROM openai_batches WHERE scheme = 'own' ORDER BY id DESC LIMIT 1 OFFSET ?",
    )?;
    let first: Option<rusqlite::Result<_>> =
        query.query_row([CREATES - 1], |row| Ok(row.get(0))).optional()?;
    let first: Option<Timestamp> = first.map_or(Ok(None), |first| view.readable_value(first))?;
    Ok(first.map_or(Duration::ZERO, |first| (first + HOUR).due_in(now, HOUR)))
}

/// A model's queue, for operators.
#[derive(Clone, Debug)]
pub struct ModelQueue {
    /// The model.
    pub model: String,
    /// The limit.
    pub limit: u64,
    /// Tokens that our batches take.
    pub held: u64,
    /// When OpenAI named it.
    pub learned_at: Timestamp,
}

/// The queues whose limit is known.
pub fn list(view: &View) -> Stored<Vec<ModelQueue>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT q.model, q.tokens, q.learned_at,
                (SELECT coalesce(sum(b.queue_tokens), 0) FROM openai_batches b
                 WHERE b.{ACTIVE_BATCH}
                   AND b.{LIVE_BATCH} AND b.model = q.model)
         FROM queue_limits q ORDER BY q.model"
    ))?;
    let rows = query.query_map([], |row| {
        Ok(ModelQueue {
            model: row.get(0)?,
            limit: row.get(1)?,
            learned_at: row.get(2)?,
            held: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
