//! What the status page shows. Each look costs what is open and what fits the page, not what there
//! ever was.

use rusqlite::params;

use super::inspect::{Table, table};
use super::{Stored, View};
use crate::base::clock::Timestamp;

/// Jobs that are not final, newest first.
pub fn jobs_under_way(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT id AS job, client, status, processed_lots || '/' || total_lots AS lots, failed_lots AS failed,
                open_vision + open_translations AS \"open requests\", created_at AS accepted
         FROM batch_jobs WHERE status IN ('pending', 'processing', 'translating') ORDER BY seq DESC LIMIT 25",
        [],
    )
}

/// Jobs that are final, newest first.
pub fn jobs_ended(view: &View, limit: u32) -> Stored<Table> {
    table(
        view,
        "SELECT id AS job, client, status, processed_lots || '/' || total_lots AS lots, failed_lots AS failed,
                created_at AS accepted, completed_at AS ended
         FROM batch_jobs WHERE completed_at IS NOT NULL ORDER BY seq DESC LIMIT ?",
        [limit],
    )
}

/// Batches that are not over, newest first.
pub fn batches_under_way(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT id AS batch, stage, state, openai_status AS \"at OpenAI\",
                (openai_completed + openai_failed) || '/' || lines AS lines, openai_failed AS failed,
                openai_batch_id AS \"OpenAI's id\", submitted_at AS submitted
         FROM openai_batches WHERE state NOT IN ('ingested', 'failed') ORDER BY id DESC LIMIT 25",
        [],
    )
}

/// Batches, newest first.
pub fn batches(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT id AS batch, stage, state, openai_status AS \"at OpenAI\",
                (openai_completed + openai_failed) || '/' || lines AS lines, openai_failed AS failed,
                openai_batch_id AS \"OpenAI's id\", created_at AS made, ingested_at AS \"taken in\"
         FROM openai_batches ORDER BY id DESC LIMIT 200",
        [],
    )
}

/// Webhook deliveries, newest first.
pub fn webhooks(view: &View, limit: u32) -> Stored<Table> {
    table(
        view,
        "SELECT id AS delivery, batch_job_id AS job, url AS receiver, state, attempts, response_status AS answer,
                error_message AS error, coalesce(delivered_at, next_at) AS at
         FROM webhook_deliveries ORDER BY id DESC LIMIT ?",
        [limit],
    )
}

/// Alerts that are closed, newest first.
pub fn alerts_closed(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT kind, subject, message, opened_at AS opened, closed_at AS closed
         FROM alerts WHERE closed_at IS NOT NULL ORDER BY id DESC LIMIT 100",
        [],
    )
}

/// What is stopped, what cannot be reached, what is looked for: why work waits.
pub fn obstacles(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT 'Paused: ' || scope AS what, reason AS why, since, until FROM pauses
         UNION ALL
         SELECT 'Webhooks to ' || host, failures || ' attempts in a row failed', since, NULL
         FROM (SELECT * FROM failing_receivers ORDER BY since LIMIT 10)
         UNION ALL
         SELECT 'Batch ' || id, 'the answer to its creation was lost; OpenAI is asked whether it has it',
                input_file_since, next_at
         FROM openai_batches WHERE state = 'creating' AND failures > 0 AND state NOT IN ('ingested', 'failed')
         UNION ALL
         SELECT 'Batch ' || id, failures || ' calls in a row failed' || coalesce(': ' || error, ''), created_at, next_at
         FROM openai_batches WHERE state IN ('sealed', 'uploaded', 'submitted', 'ended') AND failures > 0
           AND state NOT IN ('ingested', 'failed')
         LIMIT 50",
        [],
    )
}

/// How many requests of jobs that are not final wait for their images to be checked: a thousand at most.
pub fn images_due(view: &View) -> Stored<u64> {
    let mut query = view.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM requests WHERE images_due = 1 LIMIT 1000)",
    )?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// How many lines the batches have that are not over.
pub fn lines_under_way(view: &View) -> Stored<u64> {
    let mut query = view.prepare_cached(
        "SELECT coalesce(sum(lines), 0) FROM openai_batches WHERE state NOT IN ('ingested', 'failed')",
    )?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// One job: what a person asks first.
pub fn job(view: &View, id: &str) -> Stored<Table> {
    table(
        view,
        "SELECT status, client, processed_lots || '/' || total_lots AS lots, failed_lots AS \"failed lots\",
                open_vision AS \"open descriptions\", open_translations AS \"open translations\",
                (SELECT group_concat(value, ', ') FROM json_each(languages)) AS languages,
                processing_mode AS mode, origin, webhook_url AS webhook, created_at AS accepted,
                completed_at AS ended, error_message AS error
         FROM batch_jobs WHERE id = ?",
        [id],
    )
}

/// The batches that work or worked for a job.
pub fn batches_of(view: &View, job: &str) -> Stored<Table> {
    table(
        view,
        "SELECT b.id AS batch, b.stage, b.state, b.openai_status AS \"at OpenAI\",
                (b.openai_completed + b.openai_failed) || '/' || b.lines AS lines, b.openai_failed AS failed,
                b.openai_batch_id AS \"OpenAI's id\", b.submitted_at AS submitted
         FROM batch_jobs j JOIN batch_links k ON k.job = j.seq JOIN openai_batches b ON b.id = k.batch_id
         WHERE j.id = ? ORDER BY b.id DESC LIMIT 100",
        [job],
    )
}

/// The first lots of a job that failed, with the reason.
pub fn failed_lots(view: &View, job: &str) -> Stored<Table> {
    table(
        view,
        "SELECT lot_id AS lot, error_message AS error, 
                (SELECT group_concat(value, ' ') FROM json_each(missing_images)) AS \"missing images\", processed_at AS at
         FROM batch_lots WHERE batch_job_id = ? AND status = 'failed' LIMIT 50",
        [job],
    )
}

/// A job's webhooks, each attempt a row.
pub fn attempts_of(view: &View, job: &str) -> Stored<Table> {
    table(
        view,
        "SELECT d.id AS delivery, d.url AS receiver, d.state, a.attempt, a.started_at AS started,
                a.response_status AS answer, a.error_message AS error, d.next_at AS next
         FROM webhook_deliveries d LEFT JOIN delivery_attempts a ON a.delivery_id = d.id
         WHERE d.batch_job_id = ? ORDER BY d.id, a.attempt LIMIT 200",
        [job],
    )
}

/// What happened to a job and to the batches that work for it, newest first.
pub fn events_of_job(view: &View, job: &str) -> Stored<Table> {
    table(
        view,
        "SELECT at, NULL AS batch, kind, detail, id FROM events WHERE job_id = ?1
         UNION ALL
         SELECT e.at, e.batch_id, e.kind, e.detail, e.id
         FROM batch_jobs j JOIN batch_links k ON k.job = j.seq JOIN events e ON e.batch_id = k.batch_id
         WHERE j.id = ?1 ORDER BY id DESC LIMIT 200",
        [job],
    )
    .map(without_last)
}

/// One batch: what a person asks first.
pub fn batch(view: &View, id: i64) -> Stored<Table> {
    table(
        view,
        "SELECT state, stage, model, openai_status AS \"at OpenAI\",
                (openai_completed + openai_failed) || '/' || lines AS lines, openai_failed AS \"failed lines\",
                openai_batch_id AS \"OpenAI's id\", submission_key AS \"submission key\",
                input_file_id AS \"input file\", output_file_id AS \"output file\", error_file_id AS \"error file\",
                duplicate_of AS \"duplicate of\", created_at AS made, submitted_at AS submitted, ended_at AS ended,
                ingested_at AS \"taken in\", cleaned_at AS \"files removed\", failures AS \"failed calls\", error
         FROM openai_batches WHERE id = ?",
        [id],
    )
}

/// The jobs that a batch works for.
pub fn jobs_of(view: &View, batch: i64) -> Stored<Table> {
    table(
        view,
        "SELECT j.id AS job, j.client, j.status, j.processed_lots || '/' || j.total_lots AS lots,
                j.failed_lots AS failed, j.created_at AS accepted
         FROM batch_links k JOIN batch_jobs j ON j.seq = k.job WHERE k.batch_id = ? ORDER BY j.seq DESC LIMIT 100",
        [batch],
    )
}

/// A batch's lines by what came of them.
pub fn lines_of(view: &View, batch: i64) -> Stored<Table> {
    table(
        view,
        "SELECT coalesce(outcome, 'not read yet') AS outcome, count(*) AS lines, sum(settled) AS settled,
                min(error) AS \"an error\"
         FROM batch_lines WHERE batch_id = ? GROUP BY outcome ORDER BY 2 DESC",
        [batch],
    )
}

/// What a batch cost, as `v_costs` has it.
pub fn costs_of(view: &View, batch: i64) -> Stored<Table> {
    table(
        view,
        "SELECT answered, input_tokens AS \"input tokens\", cached_tokens AS \"cached tokens\",
                output_tokens AS \"output tokens\", reasoning_tokens AS \"reasoning tokens\", cost_usd AS \"US dollars\"
         FROM v_costs WHERE batch_id = ?",
        [batch],
    )
}

/// What a job has come to, and what it was estimated to, as `v_job_costs` has it.
pub fn costs_of_job(view: &View, job: &str) -> Stored<Table> {
    table(
        view,
        "SELECT answers AS answered, input_tokens AS \"input tokens\", cached_tokens AS \"cached tokens\",
                output_tokens AS \"output tokens\", reasoning_tokens AS \"reasoning tokens\", cost_usd AS \"US dollars\",
                estimated_usd AS \"estimated US dollars\"
         FROM v_job_costs WHERE job_id = ?",
        [job],
    )
}

/// What happened to a batch, newest first.
pub fn events_of_batch(view: &View, batch: i64) -> Stored<Table> {
    table(
        view,
        "SELECT at, kind, detail FROM events WHERE batch_id = ? ORDER BY id DESC LIMIT 200",
        [batch],
    )
}

/// The columns but the last, which was there for the order.
fn without_last(mut table: Table) -> Table {
    table.columns.pop();
    for row in &mut table.rows {
        row.pop();
    }
    table
}

/// What happened in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stretch {
    /// Lots that have a text.
    pub completed: u64,
    /// Lots that failed.
    pub failed: u64,
    /// From acceptance to their end, of all of them together, milliseconds.
    pub millis: u64,
    /// Tokens read, other than from the cache; tokens read from it; tokens written.
    pub tokens: [u64; 3],
}

impl Stretch {
    /// Lots that were finished.
    pub fn lots(&self) -> u64 {
        self.completed + self.failed
    }

    /// A lot's mean time from acceptance to its end, milliseconds.
    pub fn mean(&self) -> Option<u64> {
        self.millis.checked_div(self.lots())
    }

    fn add(&mut self, what: &str, number: u64, millis: u64) {
        match what {
            "lots_completed" => self.completed += number,
            "lots_failed" => self.failed += number,
            "input_tokens" => self.tokens[0] += number,
            "cached_tokens" => self.tokens[1] += number,
            "output_tokens" => self.tokens[2] += number,
            _ => {}
        }
        self.millis += millis;
    }

    /// Both stretches together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.completed += other.completed;
        self.failed += other.failed;
        self.millis += other.millis;
        for (sum, tokens) in self.tokens.iter_mut().zip(other.tokens) {
            *sum += tokens;
        }
        self
    }
}

/// The last `count` stretches of `minutes` minutes each, the one of `now` last; they begin at whole
/// multiples of their length since the epoch.
pub fn stretches(view: &View, now: Timestamp, minutes: u32, count: u32) -> Stored<Vec<Stretch>> {
    let length = i64::from(minutes) * 60;
    let first = (now.seconds() / length + 1 - i64::from(count)) * length;
    let mut query = view.prepare_cached(
        "SELECT (unixepoch(minute) - ?1) / ?2, what, sum(number), sum(millis) FROM minutes
         WHERE minute >= strftime('%Y-%m-%dT%H:%M', ?1, 'unixepoch') GROUP BY 1, 2",
    )?;
    let mut stretches = vec![Stretch::default(); usize::try_from(count).unwrap_or(0)];
    let mut rows = query.query(params![first, length])?;
    while let Some(row) = rows.next()? {
        let at: usize = row.get(0)?;
        // What a clock that was set back has left in the future is not shown.
        if let Some(stretch) = stretches.get_mut(at) {
            let what: String = row.get(1)?;
            stretch.add(&what, row.get(2)?, row.get(3)?);
        }
    }
    Ok(stretches)
}
