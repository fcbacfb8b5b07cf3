//! Jobs of the earlier service, inserted as its dump has them.

use std::collections::BTreeMap;

use rusqlite::{named_params, params};
use serde_json::json;

use super::{Stored, Tx, events, jobs, requests};
use crate::base::fields::Fields;
use crate::domain::batch::Stage;
use crate::domain::job::{LotStatus, RequestState, is_english, receiver};
use crate::domain::legacy::{LegacyJob, LegacyLot};

/// The client that owns the imported jobs.
const CLIENT: &str = "default";

/// Inserts a job of the earlier service; false if the database has it already.
pub fn insert_job(tx: &Tx<'_>, job: &LegacyJob) -> Stored<bool> {
    if jobs::by_id(tx, &job.id)?.is_some() {
        return Ok(false);
    }
    let is_final = job.status.is_final();
    let total_lots = match job.lots.len() {
        0 => job.total_lots as usize,
        lots => lots,
    };
    tx.execute(
        "INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, webhook_url,
             total_lots,
                error_message, legacy_batches, created_at, updated_at, completed_at)
         VALUES (:id, :client, 'import', 'batch', :status, :languages, :webhook, :total, :error, :batches,
             :created,
                :updated, :completed)",
        named_params! {
            ":id": job.id, ":client": CLIENT, ":status": job.status,
            ":languages": json!(job.languages).to_string(),
            ":webhook": job.webhook_url, ":total": total_lots,
            ":error": job.error_message, ":batches": json!(job.batches).to_string(),
            ":created": job.created_at,
            ":updated": job.updated_at, ":completed": is_final.then_some(job.updated_at),
        },
    )?;
    let seq = tx.last_insert_rowid();
    for (position, lot) in job.lots.iter().enumerate() {
        let row = insert_lot(tx, job, position, lot)?;
        insert_translations(tx, job, row, lot)?;
        if !is_final {
            insert_requests(tx, job, seq, row, lot)?;
        }
    }
    if let Some(url) = job.webhook_url.as_ref().filter(|_| !is_final) {
        tx.execute(
            "INSERT INTO webhook_deliveries (batch_job_id, url, host, state, created_at)
                 VALUES (?, ?, ?, 'scheduled', ?)",
            params![job.id, url, receiver(url), tx.now],
        )?;
    }
    set_counters(tx, &job.id)?;
    let detail = Fields::new()
        .with("status", job.status.to_string())
        .with("lots", job.lots.len());
    events::record(tx, Some(&job.id), None, "imported", detail)?;
    Ok(true)
}

/// Sets a job's counters to what its rows say.
fn set_counters(tx: &Tx<'_>, job: &str) -> Stored<()> {
    tx.execute(
        "UPDATE batch_jobs SET
            processed_lots = (SELECT count(*) FROM batch_lots WHERE batch_job_id = ?1
                AND status IN ('completed', 'failed')),
            failed_lots = (SELECT count(*) FROM batch_lots WHERE batch_job_id = ?1 AND status = 'failed'),
            open_vision = (SELECT count(*) FROM requests WHERE job = seq AND state = 'held'
                AND stage = 'vision'),
            open_translations = (SELECT count(*) FROM requests WHERE job = seq AND state = 'held'
                AND stage = 'translation')
         WHERE id = ?1",
        [job],
    )?;
    Ok(())
}

/// Inserts a lot; gives its row.
fn insert_lot(tx: &Tx<'_>, job: &LegacyJob, position: usize, lot: &LegacyLot) -> Stored<i64> {
    let (status, error) = lot.status_in(job);
    let missing = (!lot.missing_images.is_empty()).then(|| json!(lot.missing_images).to_string());
    tx.prepare_cached(
        "INSERT INTO batch_lots (batch_job_id, position, lot_id, additional_info, images, missing_images,
             status,
                vision_result, error_message, processed_at)
         VALUES (:job, :position, :lot_id, :info, :images, :missing, :status, :text, :error, :processed)",
    )?
    .execute(named_params! {
        ":job": job.id, ":position": position, ":lot_id": lot.lot_id, ":info": lot.additional_info,
        ":images": json!(lot.images).to_string(), ":missing": missing,
        ":status": status, ":text": lot.vision_result,
        ":error": error, ":processed": (status != LotStatus::Pending).then_some(job.updated_at),
    })?;
    Ok(tx.last_insert_rowid())
}

/// Inserts a lot's translations, unless they will be made again: if formatting options stand in place of an
/// open job's description, the lot is described again and translated from that.
fn insert_translations(tx: &Tx<'_>, job: &LegacyJob, row: i64, lot: &LegacyLot) -> Stored<()> {
    let translations = match lot.is_misdescribed && !job.status.is_final() {
        true => &BTreeMap::new(),
        false => &lot.translations,
    };
    for (language, text) in translations {
        tx.prepare_cached("INSERT INTO lot_translations (lot, language, text) VALUES (?, ?, ?)")?
            .execute(params![row, language, text])?;
    }
    Ok(())
}

/// Inserts the requests of an open job's lot: done if the dump has the text, held if it has not.
fn insert_requests(tx: &Tx<'_>, job: &LegacyJob, seq: i64, row: i64, lot: &LegacyLot) -> Stored<()> {
    let state = |is_done: bool| match is_done {
        true => RequestState::Done,
        false => RequestState::Held,
    };
    let is_described = lot.vision_result.is_some();
    requests::insert_if_new(tx, row, seq, Stage::Vision, "", state(is_described))?;
    if !is_described {
        return Ok(());
    }
    for language in job.languages.iter().filter(|it| !is_english(it)) {
        let is_translated = lot.translations.contains_key(language);
        let state = state(is_translated);
        requests::insert_if_new(tx, row, seq, Stage::Translation, language, state)?;
    }
    Ok(())
}
