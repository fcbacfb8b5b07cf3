//! How many tokens of a model OpenAI queues at once: the limit that its refusals name, and what our active
//! batches take of it.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::batches::BatchRow;
use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::domain::decide::queue_limit::{
    QueueRefusal, QueueRefusalDecision, QueueTokens, after_success, usable,
};
use crate::domain::openai::Identity;
use crate::store::predicates::{ACTIVE_BATCH, LIVE_BATCH};

/// A limit is believed for this long. OpenAI raises it with the account's tier and does not say so.
const BELIEVED: Duration = Duration::from_hours(7 * 24);
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
        "INSERT INTO queue_limits (model, tokens, learned_at) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET tokens = excluded.tokens, learned_at = excluded.learned_at",
        params![model, tokens, tx.now],
    )?;
    log::info!(event = "queue_limit", model:%, tokens; "");
    Ok(())
}

/// The part of the answers' caps that counts in a model's queue, in percent, and when it was last changed.
fn cap_percent(view: &View, model: &str) -> Stored<(u32, Option<Timestamp>)> {
    let mut query =
        view.prepare_cached("SELECT cap_percent, cap_changed_at FROM queue_limits WHERE model = ?")?;
    let found = query.query_row([model], |row| {
        Ok((row.get("cap_percent")?, row.get("cap_changed_at")))
    });
    let Some((percent, changed)) = found.optional()? else {
        return Ok((0, None));
    };
    Ok((percent, view.readable_value(changed)?.flatten()))
}

/// Changes the part of the caps that counts in a model's queue. The batches in it are counted by the new part, as
/// their sums are made of it.
pub fn set_cap_percent(tx: &Tx<'_>, model: &str, percent: u32) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE queue_limits SET cap_percent = ?1, cap_changed_at = ?2 WHERE model = ?3 AND cap_percent <> ?1",
        params![percent, tx.now, model],
    )?;
    if changed == 1 {
        log::info!(event = "queue_caps", model:%, percent; "");
    }
    Ok(())
}

/// Lowers the part of the caps that counts, because a batch of the model ran.
pub fn record_success(tx: &Tx<'_>, model: &str) -> Stored<()> {
    let (percent, changed) = cap_percent(tx, model)?;
    let unchanged = changed.map_or(Duration::MAX, |at| tx.now.since(at));
    set_cap_percent(tx, model, after_success(percent, unchanged))
}

/// Counts `tokens` more of its model's queue for a batch.
pub fn add_tokens(tx: &Tx<'_>, batch: i64, tokens: QueueTokens) -> Stored<()> {
    tx.prepare_cached(
        "UPDATE openai_batches SET queue_tokens = queue_tokens + ?, queue_caps = queue_caps + ? WHERE id = ?",
    )?
    .execute(params![tokens.input, tokens.caps, batch])?;
    Ok(())
}

/// What our batches take of a model's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct QueueUse {
    /// Tokens, from the planning of a batch to its end.
    tokens: QueueTokens,
    /// Whether OpenAI has yet to accept one of the batches.
    is_admitting: bool,
}

/// What an account's batches of a model take. A batch whose call failed, whose create is in doubt, that was
/// abandoned, or that is set aside because its due time cannot be read, keeps no other batch waiting.
fn queue_use(view: &View, identity: &Identity, model: &str, now: Timestamp) -> Stored<QueueUse> {
    let mut query = view.prepare_cached(
        &format!("SELECT coalesce(sum(queue_tokens), 0) AS input, coalesce(sum(queue_caps), 0) AS caps,
                coalesce(max(abandoned_at IS NULL AND next_at GLOB '????-??-??T*Z' AND CASE state
                                        WHEN 'submitted' THEN openai_status = 'validating' AND submitted_at > ?
                                        WHEN 'creating' THEN 0
                                        ELSE failures = 0 END), 0)
                    AS is_admitting
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
            tokens: QueueTokens {
                input: row.get("input")?,
                caps: row.get("caps")?,
            },
            is_admitting: row.get("is_admitting")?,
        })
    })?)
}

/// Decides what follows from the refusal of a batch for that limit.
pub fn decide_refusal(
    view: &View,
    batch: &BatchRow,
    limit: u64,
    now: Timestamp,
) -> Stored<QueueRefusalDecision> {
    let own = view
        .prepare_cached("SELECT queue_tokens, queue_caps FROM openai_batches WHERE id = ?")?
        .query_row([batch.id], |row| {
            Ok(QueueTokens {
                input: row.get("queue_tokens")?,
                caps: row.get("queue_caps")?,
            })
        })?;
    let others = queue_use(view, &batch.identity, &batch.model, now)?.tokens;
    let is_counted = own != QueueTokens::default();
    let refusal = QueueRefusal {
        limit,
        tokens: if is_counted { own + others } else { own },
        lines: batch.lines,
        cap_percent: cap_percent(view, &batch.model)?.0,
    };
    Ok(refusal.decide())
}

/// How many tokens the next batch of a model may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueSpace {
    /// No limit is known.
    Unlimited,
    /// This many, and how they are counted.
    Limited {
        /// The tokens.
        tokens: u64,
        /// The part of the answers' caps that counts.
        cap_percent: u32,
    },
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
    let mut query = view
        .prepare_cached("SELECT tokens, cap_percent FROM queue_limits WHERE model = ? AND learned_at > ?")?;
    let limit: Option<(u64, u32)> = query
        .query_row(params![model, now.before(BELIEVED)], |row| {
            Ok((row.get("tokens")?, row.get("cap_percent")?))
        })
        .optional()?;
    let Some((limit, cap_percent)) = limit else {
        return Ok(QueueSpace::Unlimited);
    };
    let held = held.counted(cap_percent);
    let share = usable(limit) / BATCHES;
    let tokens = usable(limit).saturating_sub(held).min(share);
    Ok(if held == 0 || tokens > share / 2 {
        QueueSpace::Limited { tokens, cap_percent }
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
    /// The part of the answers' caps that counts, in percent.
    pub cap_percent: u32,
    /// Tokens that our batches take.
    pub held: u64,
    /// When OpenAI named it.
    pub learned_at: Timestamp,
}

/// The queues whose limit is known.
pub fn list(view: &View) -> Stored<Vec<ModelQueue>> {
    let sum = |column: &str| {
        format!(
            "(SELECT coalesce(sum(b.{column}), 0) FROM openai_batches b
              WHERE b.{ACTIVE_BATCH} AND b.{LIVE_BATCH} AND b.model = q.model) AS {column}"
        )
    };
    let mut query = view.prepare_cached(&format!(
        "SELECT q.model, q.tokens, q.learned_at, q.cap_percent, {}, {} FROM queue_limits q ORDER BY q.model",
        sum("queue_tokens"),
        sum("queue_caps")
    ))?;
    let rows = query.query_map([], |row| {
        let held = QueueTokens {
            input: row.get("queue_tokens")?,
            caps: row.get("queue_caps")?,
        };
        let cap_percent = row.get("cap_percent")?;
        Ok(ModelQueue {
            model: row.get("model")?,
            limit: row.get("tokens")?,
            learned_at: row.get("learned_at")?,
            held: held.counted(cap_percent),
            cap_percent,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
