//! Finds what an id or the beginning of one names.

use super::listing::{LOT_COLUMNS, LotSummary};
use super::rows;
use crate::store::{Stored, View};

/// The most things of one kind that a search finds.
pub const MOST_FOUND: usize = 50;
/// The fewest characters of the beginning of a job's id.
const SHORTEST_BEGINNING: usize = 4;

/// What a search has found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Jobs, by id or the beginning of it, or by a value of the client's metadata.
    pub jobs: Vec<String>,
    /// Lots, by the client's id or reference, newest first.
    pub lots: Vec<LotSummary>,
    /// Batches, by their row, OpenAI's id, the id of a file, or the submission key.
    pub batches: Vec<i64>,
}

impl Found {
    /// Number of all things that were found.
    pub fn count(&self) -> usize {
        self.jobs.len() + self.lots.len() + self.batches.len()
    }
}

/// Finds jobs, lots and batches. Each lookup is by an index.
pub fn search(view: &View, text: &str) -> Stored<Found> {
    Ok(Found {
        jobs: jobs(view, text)?
            .into_iter()
            .chain(jobs_with_value(view, text)?)
            .collect(),
        lots: lots(view, text)?,
        batches: batches(view, text)?,
    })
}

fn jobs(view: &View, text: &str) -> Stored<Vec<String>> {
    let beginning = text.to_ascii_lowercase();
    let is_of_an_id = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    if beginning.len() < SHORTEST_BEGINNING || !beginning.bytes().all(is_of_an_id) {
        return Ok(Vec::new());
    }
    // `g` follows the last hexadecimal digit.
    let end = format!("{beginning}g");
    rows(
        view,
        &format!("SELECT id FROM batch_jobs WHERE id >= ? AND id < ? ORDER BY id LIMIT {MOST_FOUND}"),
        [beginning, end],
        |row| row.get("id"),
    )
}

/// The newest jobs with a value of the client's metadata.
fn jobs_with_value(view: &View, text: &str) -> Stored<Vec<String>> {
    rows(
        view,
        &format!(
            "SELECT j.id FROM (SELECT DISTINCT job FROM job_metadata WHERE value = ? ORDER BY job DESC
                               LIMIT {MOST_FOUND}) m
             JOIN batch_jobs j ON j.seq = m.job ORDER BY m.job DESC"
        ),
        [text],
        |row| row.get("id"),
    )
}

fn lots(view: &View, text: &str) -> Stored<Vec<LotSummary>> {
    let newest = |column: &str| {
        format!(
            "SELECT * FROM (SELECT id FROM batch_lots WHERE {column} = ?1 ORDER BY id DESC LIMIT {MOST_FOUND})"
        )
    };
    rows(
        view,
        &format!(
            "SELECT {LOT_COLUMNS} FROM batch_lots WHERE id IN ({} UNION {}) ORDER BY id DESC LIMIT {MOST_FOUND}",
            newest("lot_id"),
            newest("reference")
        ),
        [text],
        LotSummary::read,
    )
}

fn batches(view: &View, text: &str) -> Stored<Vec<i64>> {
    rows(
        view,
        &format!(
            "SELECT id FROM openai_batches WHERE openai_batch_id = ?1
             UNION SELECT id FROM openai_batches WHERE submission_key = ?1
             UNION SELECT id FROM openai_batches WHERE input_file_id = ?1
             UNION SELECT id FROM openai_batches WHERE output_file_id = ?1
             UNION SELECT id FROM openai_batches WHERE error_file_id = ?1
             UNION SELECT id FROM openai_batches WHERE id = ?2
             ORDER BY 1 DESC LIMIT {MOST_FOUND}"
        ),
        rusqlite::params![text, text.parse::<i64>().ok()],
        |row| row.get("id"),
    )
}
