//! Jobs of the earlier service taken in, and batches linked after the fact.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension, named_params, params};
use serde_json::json;

use super::settle::{self, Rules};
use super::{Stored, Tx, View, batches, events, requests};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::batch::{BatchState, CustomId, Scheme, Stage};
use crate::domain::job::{JobStatus, LotStatus, RequestState, is_english, receiver};
use crate::domain::legacy::{LegacyJob, LegacyLot, custom_ids};
use crate::domain::openai::{Batch, Identity};

/// Whose the imported jobs are.
const CLIENT: &str = "default";

/// Takes a job of the earlier service in; false when it is here already.
pub fn insert(tx: &Tx<'_>, job: &LegacyJob) -> Stored<bool> {
    if super::jobs::by_id(tx, &job.id)?.is_some() {
        return Ok(false);
    }
    let is_final = job.status.is_final();
    tx.execute(
        "INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, webhook_url, total_lots,
                error_message, legacy_batches, created_at, updated_at, completed_at)
         VALUES (:id, :client, 'import', 'batch', :status, :languages, :webhook, :total, :error, :batches, :created,
                :updated, :completed)",
        named_params! {
            ":id": job.id, ":client": CLIENT, ":status": job.status, ":languages": json!(job.languages).to_string(),
            ":webhook": job.webhook_url, ":total": if job.lots.is_empty() { job.total_lots as usize } else { job.lots.len() },
            ":error": job.error_message, ":batches": json!(job.batches).to_string(), ":created": job.created_at,
            ":updated": job.updated_at, ":completed": is_final.then_some(job.updated_at),
        },
    )?;
    let seq = tx.tx.last_insert_rowid();
    for (position, lot) in job.lots.iter().enumerate() {
        insert_lot(tx, job, seq, position, lot)?;
    }
    if let Some(url) = job.webhook_url.as_ref().filter(|_| !is_final) {
        tx.execute(
            "INSERT INTO webhook_deliveries (batch_job_id, url, host, state, created_at) VALUES (?, ?, ?, 'scheduled', ?)",
            params![job.id, url, receiver(url), tx.now],
        )?;
    }
    tx.execute(
        "UPDATE batch_jobs SET
            processed_lots = (SELECT count(*) FROM batch_lots WHERE batch_job_id = ?1 AND status IN ('completed', 'failed')),
            failed_lots = (SELECT count(*) FROM batch_lots WHERE batch_job_id = ?1 AND status = 'failed'),
            open_vision = (SELECT count(*) FROM requests WHERE job = seq AND state = 'held' AND stage = 'vision'),
            open_translations = (SELECT count(*) FROM requests WHERE job = seq AND state = 'held' AND stage = 'translation')
         WHERE id = ?1",
        [&job.id],
    )?;
    events::record(
        tx,
        Some(&job.id),
        None,
        "imported",
        Fields::new()
            .with("status", job.status.to_string())
            .with("lots", job.lots.len()),
    )?;
    Ok(true)
}

fn insert_lot(
    tx: &Tx<'_>,
    job: &LegacyJob,
    seq: i64,
    position: usize,
    lot: &LegacyLot,
) -> Stored<()> {
    let is_final = job.status.is_final();
    let wanted = |language: &&String| !is_english(language);
    let translated = |language: &String| lot.translations.contains_key(language);
    let has_text = (lot.vision_result.is_some()
        && job.languages.iter().any(|language| is_english(language)))
        || job.languages.iter().any(translated);
    let all_done =
        lot.vision_result.is_some() && job.languages.iter().filter(wanted).all(translated);
    let (status, error) = match (is_final || all_done, has_text) {
        (false, _) => (LotStatus::Pending, None),
        (true, true) => (LotStatus::Completed, None),
        (true, false) if job.status == JobStatus::Cancelled => (LotStatus::Cancelled, None),
        (true, false) => (
            LotStatus::Failed,
            Some(
                lot.error_message
                    .as_deref()
                    .unwrap_or("imported without a text"),
            ),
        ),
    };
    let missing = (!lot.missing_images.is_empty()).then(|| json!(lot.missing_images).to_string());
    let processed_at = (status != LotStatus::Pending).then_some(job.updated_at);
    tx.prepare_cached(
        "INSERT INTO batch_lots (batch_job_id, position, lot_id, additional_info, images, missing_images, status,
                vision_result, error_message, processed_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        job.id,
        position,
        lot.lot_id,
        lot.additional_info,
        json!(lot.images).to_string(),
        missing,
        status,
        lot.vision_result,
        error,
        processed_at
    ])?;
    let id = tx.tx.last_insert_rowid();
    // Of a description that is none: an open job's lot is described anew, and translated from that.
    let translations = match lot.is_misdescribed && !is_final {
        true => &BTreeMap::new(),
        false => &lot.translations,
    };
    for (language, text) in translations {
        tx.prepare_cached("INSERT INTO lot_translations (lot, language, text) VALUES (?, ?, ?)")?
            .execute(params![id, language, text])?;
    }
    if is_final {
        return Ok(());
    }
    let state = |done: bool| {
        if done {
            RequestState::Done
        } else {
            RequestState::Held
        }
    };
    let described = lot.vision_result.is_some();
    insert_request(tx, id, seq, Stage::Vision, "", state(described))?;
    for language in job.languages.iter().filter(wanted).filter(|_| described) {
        insert_request(
            tx,
            id,
            seq,
            Stage::Translation,
            language,
            state(translated(language)),
        )?;
    }
    Ok(())
}

/// A request, where there is none yet; gives whether it is new.
fn insert_request(
    tx: &Tx<'_>,
    lot: i64,
    job: i64,
    stage: Stage,
    language: &str,
    state: RequestState,
) -> Stored<bool> {
    let added = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO requests (lot, job, stage, language, state, since) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![lot, job, stage, language, state, tx.now])?;
    Ok(added == 1)
}

/// A job that nobody looks after, or only a part of which is looked after.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// Its UUID.
    pub id: String,
    /// Whether requests of it are held.
    pub is_held: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Languages wanted.
    pub languages: Vec<String>,
    /// Batches that it named, not confirmed.
    pub batches: Vec<String>,
    /// Its lots' ids.
    pub lots: Vec<String>,
}

/// The jobs of which requests are held, and those of the earlier service whose descriptions are awaited
/// still: it may have had their translations as well. Or the one job of that id, whatever it is.
pub fn orphans(view: &View, only: Option<&str>) -> Stored<Vec<Orphan>> {
    let mut query = view.prepare(
        "SELECT id, created_at, languages, coalesce(legacy_batches, '[]'), is_held FROM
            (SELECT *, EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state = 'held') AS is_held
             FROM batch_jobs j)
         WHERE CASE WHEN ?1 IS NULL
                    THEN status IN ('pending', 'processing', 'translating')
                         AND (is_held OR origin = 'import' AND open_vision > 0)
                    ELSE id = ?1 END
         ORDER BY created_at",
    )?;
    let mut lots =
        view.prepare("SELECT lot_id FROM batch_lots WHERE batch_job_id = ? ORDER BY position")?;
    let mut orphans = Vec::new();
    let mut rows = query.query([only])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let lots = lots
            .query_map([&id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        orphans.push(Orphan {
            created_at: row.get(1)?,
            languages: serde_json::from_str(&row.get::<_, String>(2)?)?,
            batches: serde_json::from_str(&row.get::<_, String>(3)?)?,
            is_held: row.get(4)?,
            lots,
            id,
        });
    }
    Ok(orphans)
}

/// What is linked.
pub struct Link<'a> {
    /// OpenAI's batch.
    pub remote: &'a Batch,
    /// The account that it was found under.
    pub identity: &'a Identity,
    /// What it asks for.
    pub stage: Stage,
    /// How its custom ids are made.
    pub scheme: Scheme,
    /// The key of its row.
    pub key: &'a str,
    /// The custom ids in its files.
    pub custom_ids: &'a [String],
    /// Why it is linked.
    pub evidence: &'a str,
}

/// Links a batch of the earlier service to the job whose lots it names; gives how many lines fit.
pub fn link_legacy(tx: &Tx<'_>, job_id: &str, link: &Link<'_>) -> Stored<usize> {
    let Some(job) = super::jobs::by_id(tx, job_id)? else {
        return Ok(0);
    };
    let row = insert_batch(tx, link, Some(job_id))?;
    let mut belongs: HashMap<String, Vec<(i64, String)>> = HashMap::new();
    let mut lots = tx.prepare_cached("SELECT id, lot_id FROM batch_lots WHERE batch_job_id = ?")?;
    let mut rows = lots.query([job_id])?;
    while let Some(lot) = rows.next()? {
        let (lot, lot_id): (i64, String) = (lot.get(0)?, lot.get(1)?);
        let languages: Vec<Option<&str>> = match link.stage {
            Stage::Vision => vec![None],
            Stage::Translation => job
                .languages
                .iter()
                .filter(|it| !is_english(it))
                .map(|it| Some(it.as_str()))
                .collect(),
        };
        for language in languages {
            for id in custom_ids(job_id, &lot_id, language) {
                belongs
                    .entry(id)
                    .or_default()
                    .push((lot, language.unwrap_or("").to_owned()));
            }
        }
    }
    let mut fitting = 0;
    for custom_id in link.custom_ids {
        for (lot, language) in belongs.get(custom_id).into_iter().flatten() {
            fitting += claim_line(
                tx,
                row,
                *lot,
                job.seq,
                link.stage,
                language,
                Some(custom_id),
            )?;
        }
    }
    complete_link(tx, row, link, fitting)
}

/// Takes a batch of our own up whose row is lost; gives how many lines fit.
pub fn link_own(tx: &Tx<'_>, link: &Link<'_>) -> Stored<usize> {
    let row = insert_batch(tx, link, None)?;
    if link.custom_ids.is_empty() {
        batches::mark_lost(tx, row, link.evidence)?;
        return Ok(0);
    }
    let mut lot = tx.prepare_cached(
        "SELECT l.id, j.seq FROM batch_lots l JOIN batch_jobs j ON j.id = l.batch_job_id
         WHERE l.batch_job_id = ? AND l.position = ?",
    )?;
    let mut fitting = 0;
    for text in link.custom_ids {
        let Ok(id) = text.parse::<CustomId>() else {
            continue;
        };
        let found: Option<(i64, i64)> = lot
            .query_row(params![id.job, id.position], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        if let Some((lot, job)) = found {
            let language = id.language.as_deref().unwrap_or("");
            fitting += claim_line(tx, row, lot, job, link.stage, language, None)?;
        }
    }
    complete_link(tx, row, link, fitting)
}

fn insert_batch(tx: &Tx<'_>, link: &Link<'_>, job_id: Option<&str>) -> Stored<i64> {
    let remote = link.remote;
    tx.execute(
        "INSERT INTO openai_batches (submission_key, stage, scheme, state, openai_batch_id, job_id, base_url,
                organization, project, model, parameters, input_file_id, openai_time, openai_expires, openai_status,
                next_at, created_at, submitted_at)
         VALUES (:key, :stage, :scheme, 'submitted', :remote, :job, :base_url, :organization, :project, :model, '{}',
                :input, :time, :expires, :status, :now, :made, :now)",
        named_params! {
            ":key": link.key, ":stage": link.stage, ":scheme": link.scheme, ":remote": remote.id, ":job": job_id,
            ":base_url": link.identity.base_url, ":organization": link.identity.organization,
            ":project": link.identity.project, ":model": remote.model.as_deref().unwrap_or(""),
            ":input": remote.input_file_id, ":time": remote.created_at, ":expires": remote.expires_at,
            ":status": remote.status_text, ":now": tx.now,
            // What it costs is that day's, not that of its recovery.
            ":made": Timestamp::from_seconds(remote.created_at),
        },
    )?;
    Ok(tx.tx.last_insert_rowid())
}

/// One line of a linked batch: its request exists then and is claimed, unless it has its answer.
fn claim_line(
    tx: &Tx<'_>,
    batch: i64,
    lot: i64,
    job: i64,
    stage: Stage,
    language: &str,
    custom_id: Option<&str>,
) -> Stored<usize> {
    let is_over: bool = tx
        .prepare_cached("SELECT completed_at IS NOT NULL FROM batch_jobs WHERE seq = ?")?
        .query_row([job], |row| row.get(0))?;
    if is_over {
        // Its job was taken back meanwhile: a text is stored, and changes nothing.
        insert_request(tx, lot, job, stage, language, RequestState::Cancelled)?;
    } else if insert_request(tx, lot, job, stage, language, RequestState::Claimed)?
        || claim_put_off(tx, lot, stage, language)?
    {
        tx.prepare_cached(
            "UPDATE batch_jobs SET open_translations = open_translations + 1 WHERE seq = ?",
        )?
        .execute([job])?;
    }
    let request: i64 = tx
        .prepare_cached("SELECT id FROM requests WHERE lot = ? AND stage = ? AND language = ?")?
        .query_row(params![lot, stage, language], |row| row.get(0))?;
    tx.prepare_cached(
        "UPDATE requests SET state = 'claimed' WHERE id = ? AND state IN ('held', 'waiting')",
    )?
    .execute([request])?;
    requests::leave_planned(tx, request)?;
    tx.prepare_cached("INSERT OR IGNORE INTO batch_links (batch_id, job) VALUES (?, ?)")?
        .execute([batch, job])?;
    Ok(tx
        .prepare_cached(
            "INSERT OR IGNORE INTO batch_lines (batch_id, request_id, custom_id) VALUES (?, ?, ?)",
        )?
        .execute(params![batch, request, custom_id])?)
}

/// Claims a translation that was put off until its lot is described; gives whether it was.
fn claim_put_off(tx: &Tx<'_>, lot: i64, stage: Stage, language: &str) -> Stored<bool> {
    let claimed = tx
        .prepare_cached(
            "UPDATE requests SET state = 'claimed' WHERE lot = ? AND stage = ? AND language = ? AND state = 'cancelled'",
        )?
        .execute(params![lot, stage, language])?;
    Ok(claimed == 1)
}

fn complete_link(tx: &Tx<'_>, batch: i64, link: &Link<'_>, lines: usize) -> Stored<usize> {
    tx.execute(
        "UPDATE openai_batches SET lines = ? WHERE id = ?",
        params![lines, batch],
    )?;
    batches::link_jobs(tx, batch)?;
    let detail = Fields::new()
        .with("openai_batch", link.remote.id.as_str())
        .with("lines", lines)
        .with("evidence", link.evidence.to_string());
    events::record(tx, None, Some(batch), "linked", detail)?;
    Ok(lines)
}

/// How many of these custom ids of our own are lines of jobs that this database does not have.
pub fn without_a_job(view: &View, custom_ids: &[String]) -> Stored<usize> {
    let mut exists =
        view.prepare_cached("SELECT EXISTS (SELECT 1 FROM batch_jobs WHERE id = ?)")?;
    let mut jobs: HashMap<String, bool> = HashMap::new();
    let mut missing = 0;
    for id in custom_ids
        .iter()
        .filter_map(|id| id.parse::<CustomId>().ok())
    {
        let known = match jobs.get(&id.job) {
            Some(known) => *known,
            None => {
                let known = exists.query_row([&id.job], |row| row.get(0))?;
                jobs.insert(id.job, known);
                known
            }
        };
        missing += usize::from(!known);
    }
    Ok(missing)
}

/// Makes a copied database another one than its original, and leaves the original's open work to it:
/// nothing of that is asked about, taken in or sent here. Its requests are held; gives the new id and
/// how many they are.
pub fn new_identity(tx: &Tx<'_>) -> Stored<(String, usize)> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    tx.execute(
        "UPDATE appliance SET database_id = ?, created_at = ?",
        params![id, tx.now],
    )?;
    let rules = Rules {
        max_attempts: u32::MAX,
        check_images: false,
        batch_cap: None,
    };
    let live = BatchState::ALL
        .iter()
        .filter(|state| !matches!(state, BatchState::Ingested | BatchState::Failed));
    let live: Vec<BatchState> = live.copied().collect();
    for row in batches::in_states(tx, &live, u32::MAX)? {
        match row.state {
            BatchState::Planned => batches::unplan(tx, row.id)?,
            _ => settle::abandon(tx, row.id, "left to the original database", rules)?,
        }
    }
    tx.execute(
        "UPDATE direct_calls SET started_at = coalesce(started_at, ?1), ended_at = ?1, outcome = 'not_run',
                error = 'left to the original database'
         WHERE ended_at IS NULL",
        [tx.now],
    )?;
    // Its files at OpenAI are the original's, too.
    tx.execute(
        "UPDATE openai_batches SET cleaned_at = ? WHERE cleaned_at IS NULL",
        [tx.now],
    )?;
    tx.execute(
        "UPDATE requests SET state = 'held' WHERE state IN ('waiting', 'claimed')",
        [],
    )?;
    // Those that were held before are, too.
    let held = "SELECT count(*) FROM requests WHERE state = 'held'";
    Ok((id, tx.query_row(held, [], |row| row.get(0))?))
}
