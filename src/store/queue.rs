//! How much of a model OpenAI takes at once: the limit that its refusals name, and what our batches
//! under way take of it.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{Stored, Tx, View};
use crate::clock::Timestamp;

/// After so long a limit is tried again: an account's tier rises, and nobody tells us.
const BELIEVED: Duration = Duration::from_hours(7 * 24);
/// Of a hundred tokens of the limit so many are used: OpenAI counts otherwise than we estimate, and
/// lets go of them late.
const USED: u64 = 85;
/// So many batches fit into the queue.
const BATCHES: u64 = 3;
/// Batches that are made in an hour; OpenAI takes 2,000.
const CREATES: u32 = 1_900;
/// See [`CREATES`].
const HOUR: Duration = Duration::from_hours(1);

/// OpenAI said how many tokens of a model it takes.
pub fn learn(tx: &Tx<'_>, model: &str, tokens: u64) -> Stored<()> {
    tx.execute(
        "INSERT INTO queue_limits VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET tokens = excluded.tokens, learned_at = excluded.learned_at",
        params![model, tokens, tx.now],
    )?;
    log::info!("event=queue_limit model={model} tokens={tokens}");
    Ok(())
}

/// A batch takes so much more of its model's queue.
pub fn take(tx: &Tx<'_>, batch: i64, tokens: u64) -> Stored<()> {
    tx.prepare_cached("UPDATE openai_batches SET queue_tokens = queue_tokens + ? WHERE id = ?")?
        .execute(params![tokens, batch])?;
    Ok(())
}

/// What our batches hold of a model's queue, from their planning to their end; apart from `except`.
fn held(view: &View, model: &str, except: i64) -> Stored<u64> {
    let mut query = view.prepare_cached(
        "SELECT coalesce(sum(queue_tokens), 0) FROM openai_batches
         WHERE state IN ('planned', 'sealed', 'uploaded', 'creating', 'submitted') AND state NOT IN ('ingested', 'failed')
           AND model = ? AND id <> ?",
    )?;
    Ok(query.query_row(params![model, except], |row| row.get(0))?)
}

/// Whether a refusal for that limit is explained by what our own batches take; then nothing need be
/// waited for but their end.
pub fn explains(view: &View, batch: i64, model: &str, limit: u64) -> Stored<bool> {
    let own: u64 = view
        .prepare_cached("SELECT queue_tokens FROM openai_batches WHERE id = ?")?
        .query_row([batch], |row| row.get(0))?;
    Ok(own > 0 && own.saturating_add(held(view, model, batch)?) > usable(limit))
}

fn usable(limit: u64) -> u64 {
    limit.saturating_mul(USED) / 100
}

/// How many tokens the next batch of a model may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// As many as it likes: no limit is known.
    Unknown,
    /// So many.
    Of(u64),
    /// None, before another batch has ended.
    Full,
}

/// What the queue of a model has room for.
pub fn room(view: &View, model: &str, now: Timestamp) -> Stored<Room> {
    let mut query =
        view.prepare_cached("SELECT tokens FROM queue_limits WHERE model = ? AND learned_at > ?")?;
    let limit: Option<u64> = query
        .query_row(params![model, now.before(BELIEVED)], |row| row.get(0))
        .optional()?;
    let Some(limit) = limit else {
        return Ok(Room::Unknown);
    };
    let held = held(view, model, 0)?;
    let share = usable(limit) / BATCHES;
    let left = usable(limit).saturating_sub(held).min(share);
    Ok(if held == 0 || left > share / 2 {
        Room::Of(left)
    } else {
        Room::Full
    })
}

/// How long until OpenAI takes another batch: it counts those of an hour.
pub fn creates_wait(view: &View, now: Timestamp) -> Stored<Duration> {
    let mut query = view.prepare_cached(
        "SELECT created_at FROM openai_batches ORDER BY id DESC LIMIT 1 OFFSET ?",
    )?;
    let first: Option<Timestamp> = query
        .query_row([CREATES - 1], |row| row.get(0))
        .optional()?;
    Ok(first.map_or(Duration::ZERO, |first| (first + HOUR).due_in(now, HOUR)))
}

/// A model's queue, for whoever looks.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The model.
    pub model: String,
    /// The limit.
    pub limit: u64,
    /// What our batches hold.
    pub held: u64,
    /// Since when it is known.
    pub learned_at: Timestamp,
}

/// The limits that are known.
pub fn list(view: &View) -> Stored<Vec<Queue>> {
    let mut query =
        view.prepare_cached("SELECT model, tokens, learned_at FROM queue_limits ORDER BY model")?;
    let mut rows = query.query([])?;
    let mut queues = Vec::new();
    while let Some(row) = rows.next()? {
        let model: String = row.get(0)?;
        queues.push(Queue {
            held: held(view, &model, 0)?,
            limit: row.get(1)?,
            learned_at: row.get(2)?,
            model,
        });
    }
    Ok(queues)
}
