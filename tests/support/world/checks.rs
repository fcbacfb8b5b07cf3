//! What must hold after each tick, and at rest.

use super::World;
use super::openai::{described_from, translated};
use batchkeeper::base::clock::Clock;
use batchkeeper::domain::job::{JobStatus, LotStatus, is_english};
use batchkeeper::store::invariants;
use batchkeeper::store::lots::LotRow;
use rusqlite::types::Value;
use std::time::Duration;

impl World {
    /// Checks the invariants of each tick.
    pub fn invariants(&mut self) {
        let violations = self.openai.state().violations.clone();
        assert!(violations.is_empty(), "{violations:?}\n{}", self.dump());
        let version = self.number("PRAGMA data_version");
        if version == self.seen_version {
            return;
        }
        self.seen_version = version;
        self.no_budget_is_overspent();
        if !self.is_restored {
            self.no_batch_is_unheard_of();
        }
        self.unchecked += 1;
        if self.unchecked >= self.check_every {
            self.look_everywhere();
        }
    }

    /// All invariants, now.
    pub fn look_everywhere(&mut self) {
        self.unchecked = 0;
        self.no_batch_of_ours_is_ignored();
        for (what, query) in INVARIANTS {
            // A recovery takes all attempts of a request up at once, those long over among them. That no request
            // is sent while another batch may answer it, OpenAI itself watches (`State::note_lines`).
            if self.is_restored && *what == TWO_BATCHES {
                continue;
            }
            if self.is_copy && *what == ORPHANS {
                continue;
            }
            let found = self.rows(query);
            assert!(found.is_empty(), "{what}: {found:?}\n{}", self.dump());
        }
    }

    /// What batches have cost in a day is within the budgets, up to the price of one batch: what they
    /// cost is known when they are over.
    pub(super) fn no_budget_is_overspent(&self) {
        let clients = self.config.clients.iter();
        let limits = clients.map(|client| (client.name.as_str(), client.budget));
        for (client, limit) in limits.chain([("%", self.config.budgets.total)]) {
            let Some(limit) = limit.per_day else {
                continue;
            };
            let over = self.number(&format!(
                "SELECT count(*) FROM (SELECT day, sum(cost_picodollars) AS cost FROM v_spending
                                       WHERE mode = 'batch' AND client LIKE '{client}' GROUP BY day)
                 WHERE cost > {} + (SELECT coalesce(max(cost_picodollars), 0) FROM v_costs)",
                limit.0
            ));
            assert_eq!(over, 0, "a budget is overspent\n{}", self.dump());
        }
    }

    /// A job is final, and was so after that time at the latest.
    pub fn assert_took(&self, job: &str, most: Duration) {
        let took = self.number(&format!(
            "SELECT CAST((julianday(completed_at) - julianday(created_at)) * 86400 AS INTEGER)
             FROM batch_jobs WHERE id = '{job}' AND completed_at IS NOT NULL"
        ));
        let most = i64::try_from(most.as_secs()).unwrap();
        assert!(took <= most, "{job} took {took} s\n{}", self.dump());
    }

    /// An operator has no batch ignored that this database made.
    fn no_batch_of_ours_is_ignored(&self) {
        let ignored = self.texts("SELECT openai_batch_id FROM ignored_batches");
        let is_ignored = |batch: &super::openai::HeldBatch| ignored.contains(&batch.id);
        let openai = self.openai.state();
        let ours = openai
            .batches
            .iter()
            .filter(|batch| is_ignored(batch) && !batch.is_theirs());
        assert_eq!(
            ours.count(),
            0,
            "a batch of this database is ignored: {ignored:?}"
        );
    }

    /// Every batch at OpenAI belongs to a row, or to one that is about to look for it.
    pub(super) fn no_batch_is_unheard_of(&self) {
        let known =
            self.texts("SELECT openai_batch_id FROM openai_batches WHERE openai_batch_id IS NOT NULL");
        let mut searched = self.texts("SELECT submission_key FROM openai_batches WHERE state = 'creating'");
        let submitted = self.texts(
            "SELECT submission_key || ' ' || openai_batch_id FROM openai_batches WHERE state = 'submitted'",
        );
        let unheard: Vec<String> = {
            let openai = self.openai.state();
            // A create that was answered with the id of another program's batch: the next poll shows it.
            let theirs = openai.batches.iter().filter(|batch| batch.is_theirs());
            let theirs: Vec<&str> = theirs.map(|batch| batch.id.as_str()).collect();
            searched.extend(submitted.iter().filter_map(|row| {
                let (key, id) = row.split_once(' ')?;
                theirs.contains(&id).then(|| key.to_owned())
            }));
            let is_known = |batch: &super::openai::HeldBatch| {
                let key = batch.metadata.get("submission");
                batch.is_twin
                    || batch.is_theirs()
                    || known.contains(&batch.id)
                    || key.is_some_and(|key| searched.contains(key))
            };
            let unheard = openai.batches.iter().filter(|batch| !is_known(batch));
            unheard.map(|batch| batch.id.clone()).collect()
        };
        assert!(
            unheard.is_empty(),
            "{unheard:?} belong to no row\n{}",
            self.dump()
        );
    }

    /// Checks a world at rest: doctor finds nothing, no alert is open, every batch at OpenAI is known, and
    /// each final job's webhook arrived under one id.
    pub fn assert_at_rest(&mut self) {
        self.look_everywhere();
        self.assert_accounted_for();
        let findings = self.store().read(invariants::findings).expect("readable");
        assert!(findings.is_empty(), "{findings:?}\n{}", self.dump());
        // Not even for a minute: every invariant holds after every commit.
        let broken = self.texts("SELECT message FROM alerts WHERE kind = 'invariant'");
        assert!(broken.is_empty(), "{broken:?}\n{}", self.dump());
        let mut alerts = self.open_alerts();
        // A budget that is used up stays so until its day is over, the clock stays wrong, and unknown tokens are
        // reported for a day.
        alerts.retain(|kind| {
            !kind.starts_with("budget_") && !["clock_skew", "usage_unknown"].contains(&kind.as_str())
        });
        assert!(alerts.is_empty(), "{alerts:?} are still open\n{}", self.dump());
        let open = self.texts("SELECT id FROM batch_jobs WHERE completed_at IS NULL");
        assert!(open.is_empty(), "{open:?} are not final\n{}", self.dump());
        let known =
            self.texts("SELECT openai_batch_id FROM openai_batches WHERE openai_batch_id IS NOT NULL");
        let unknown: Vec<String> = self
            .openai
            .state()
            .batches
            .iter()
            .filter(|batch| !batch.is_theirs() && !known.contains(&batch.id))
            .map(|batch| batch.id.clone())
            .collect();
        assert!(
            unknown.is_empty(),
            "{unknown:?} belong to no row\n{}",
            self.dump()
        );
        for job in self.texts("SELECT id FROM batch_jobs") {
            let ids = self.receiver.ids(&job);
            // A restored backup does not know what was sent, so the job may be notified again.
            let most = 1 + self.retried.get(&job).copied().unwrap_or(0) + self.restores;
            assert!(
                !ids.is_empty() && ids.len() <= most,
                "job {job} was notified under {ids:?}\n{}",
                self.dump()
            );
        }
    }

    /// Checks that retention leaves the header and the counts of a job, and opens no alert.
    pub fn assert_cleaned(&mut self) {
        let costs = "SELECT * FROM v_costs ORDER BY batch_id";
        let headers =
            "SELECT id, status, total_lots, processed_lots, failed_lots FROM batch_jobs ORDER BY seq";
        let before = (self.rows(costs), self.rows(headers), self.made());
        let openai = self.openai.clone();
        self.restart_with(openai, |config| {
            config.retention.results = Duration::from_hours(1);
        });
        // Nothing is cleaned while OpenAI contradicts the clock.
        let behind = self.openai.state().now.as_millis();
        let behind = i64::try_from(behind).expect("a time") - self.now().millis();
        self.shift_clock(behind);
        // Longer than the clock may have been set back.
        self.advance(Duration::from_hours(14 * 24));
        self.run_for(Duration::from_hours(3));
        self.recover();
        self.run_for(Duration::from_hours(1));
        let left = self.texts(
            "SELECT id FROM batch_jobs WHERE cleaned_at IS NULL
             UNION ALL SELECT lot_id FROM batch_lots UNION ALL SELECT text FROM lot_translations
             UNION ALL SELECT stage FROM requests UNION ALL SELECT coalesce(outcome, 'a line') FROM batch_lines",
        );
        assert!(left.is_empty(), "{left:?} are not cleaned\n{}", self.dump());
        self.assert_at_rest();
        assert_eq!((self.rows(costs), self.rows(headers), self.made()), before);
    }

    /// A job is completed, and every lot has the right text in every language.
    pub fn assert_answered(&self, job: &str) {
        let row = self.job(job);
        assert_eq!(row.status, JobStatus::Completed, "{}", self.dump());
        assert_eq!(row.failed_lots, 0, "{}", self.dump());
        for (lot, sent) in self.lots(job).iter().zip(&self.sent[job]) {
            assert_eq!(lot.status, LotStatus::Completed, "{}", self.dump());
            for language in &row.languages {
                assert!(
                    self.has_text(lot, sent, language),
                    "{lot:?} has no {language} text\n{}",
                    self.dump()
                );
            }
        }
    }

    /// Every job is final, and everything of it has the right text or a reason.
    pub fn assert_accounted_for(&self) {
        for (job, sent) in &self.sent {
            let row = self.job(job);
            assert!(row.status.is_final(), "{job} is not final\n{}", self.dump());
            for lot in &self.lots(job) {
                let sent = &sent[usize::try_from(lot.position).expect("a position")];
                for language in &row.languages {
                    let has_reason = row.status == JobStatus::Cancelled
                        || lot.error_message.is_some()
                        || matches!(lot.translations.get(language), Some(Err(_)));
                    assert!(
                        self.has_text(lot, sent, language) || has_reason,
                        "{lot:?} has neither {language} text nor reason\n{}",
                        self.dump()
                    );
                }
            }
        }
    }

    /// Whether a lot has the text in a language; a wrong one is the end.
    pub(super) fn has_text(&self, lot: &LotRow, sent: &str, language: &str) -> bool {
        let seen = seen_in(lot, sent, self.is_restored);
        if let Some(text) = &lot.vision_result {
            assert!(seen.contains(text), "the text of another lot: {text}");
        }
        if is_english(language) {
            return lot.vision_result.is_some();
        }
        match lot.translations.get(language) {
            Some(Ok(text)) => {
                let right = seen.iter().any(|seen| *text == translated(language, seen));
                assert!(right, "another's text: {text}");
                true
            }
            _ => false,
        }
    }

    pub(super) fn rows(&self, query: &str) -> Vec<String> {
        let mut query = self.sql.prepare_cached(query).expect("SQL");
        let columns = query.column_count();
        let rows = query.query_map([], |row| {
            let cells: Result<Vec<String>, _> = (0..columns)
                .map(|at| row.get(at).map(|value: Value| cell(&value)))
                .collect();
            Ok(cells?.join(" "))
        });
        let rows = rows.expect("SQL").collect::<Result<_, _>>();
        rows.expect("rows")
    }

    /// The world as text, for the message of a failed check.
    pub fn dump(&self) -> String {
        let mut text = self.dump_of_rows();
        let openai = self.openai.state();
        for batch in &openai.batches {
            text += &format!(
                "at OpenAI {} {} lines={} key={:?}\n",
                batch.id,
                batch.status,
                batch.lines.len(),
                batch.metadata.get("submission")
            );
        }
        text += &format!("{} calls\n", openai.calls.len());
        let calls = openai.calls.iter().rev().take(40).rev();
        text += &format!("last calls {:?}\n", calls.collect::<Vec<_>>());
        text + &self.story.join("\n")
    }

    pub(super) fn dump_of_rows(&self) -> String {
        let mut text = format!("elapsed={:?} now={}\n", self.elapsed, self.clock.now().wall);
        for (what, query) in DUMP {
            text += &format!("{what}\n  {}\n", self.rows(query).join("\n  "));
        }
        text
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

const ORPHANS: &str = "orphans";
const TWO_BATCHES: &str = "requests in two live batches";

/// Queries that must give no row.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "tokens that are counted otherwise than attempts have them",
        "SELECT * FROM v_bad_usage",
    ),
    (ORPHANS, "SELECT * FROM v_orphans"),
    ("rows that refer to nothing", "PRAGMA foreign_key_check"),
    (
        "counters that differ from what they count",
        "SELECT j.id, j.open_vision, j.open_translations, j.processed_lots, j.failed_lots FROM batch_jobs j
         WHERE j.cleaning_since IS NULL AND j.pending_change IS NULL AND (j.open_vision <> (SELECT count(*) FROM requests r WHERE r.job = j.seq AND r.stage = 'vision'
                                 AND r.state IN ('waiting', 'claimed', 'held'))
            OR j.open_translations <> (SELECT count(*) FROM requests r WHERE r.job = j.seq AND r.stage = 'translation'
                                       AND r.state IN ('waiting', 'claimed', 'held'))
            OR j.processed_lots <> (SELECT count(*) FROM batch_lots l WHERE l.batch_job_id = j.id
                                    AND l.status IN ('completed', 'failed'))
            OR j.failed_lots <> (SELECT count(*) FROM batch_lots l WHERE l.batch_job_id = j.id AND l.status = 'failed'))",
    ),
    (
        TWO_BATCHES,
        "SELECT l.request_id FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id
         WHERE l.settled = 0 AND b.duplicate_of IS NULL AND b.state NOT IN ('ingested', 'failed')
         GROUP BY l.request_id HAVING count(*) > 1",
    ),
    (
        "submitted batches that their jobs do not know",
        "SELECT b.id, j.id FROM openai_batches b JOIN batch_links k ON k.batch_id = b.id JOIN batch_jobs j ON j.seq = k.job
         WHERE b.state = 'submitted' AND b.duplicate_of IS NULL
           AND CASE b.stage WHEN 'vision' THEN j.openai_batch_id ELSE j.openai_translation_batch_id END IS NULL",
    ),
    (
        "final jobs with open requests",
        "SELECT j.id, r.id FROM batch_jobs j JOIN requests r ON r.job = j.seq
         WHERE j.completed_at IS NOT NULL AND j.pending_change IS NULL AND r.state IN ('waiting', 'claimed', 'held')",
    ),
    (
        "final jobs whose webhooks are not due",
        "SELECT j.id FROM batch_jobs j JOIN webhook_deliveries d ON d.batch_job_id = j.id
         WHERE d.resend_number = (SELECT max(resend_number) FROM webhook_deliveries n WHERE n.batch_job_id = j.id AND n.url = d.url)
           AND j.pending_change IS NULL AND (j.completed_at IS NULL) <> (d.state = 'scheduled')",
    ),
    (
        "open lots of final jobs, or finished lots without text and reason",
        "SELECT l.id FROM batch_lots l JOIN batch_jobs j ON j.id = l.batch_job_id
         WHERE (j.completed_at IS NOT NULL AND j.pending_change IS NULL AND l.status = 'pending')
            OR (l.status = 'failed' AND l.error_message IS NULL)",
    ),
];

const DUMP: &[(&str, &str)] = &[
    (
        "jobs",
        "SELECT seq, status, total_lots, processed_lots, failed_lots, open_vision, open_translations, openai_batch_id,
                openai_translation_batch_id, error_message FROM batch_jobs",
    ),
    (
        "batches",
        "SELECT id, submission_key, stage, state, openai_batch_id, openai_status, lines, output_file_id, output_bytes,
                output_ingested, error_file_id, error_bytes, error_ingested, settled_to, duplicate_of, failures, next_at, error
         FROM openai_batches ORDER BY id DESC LIMIT 30",
    ),
    (
        "open requests",
        "SELECT id, job, stage, language, state, attempts, cap_raised, image_failures, batch_cap, since,
                retry_at, transient_failures, transient_wait_ms, refusals FROM requests
         WHERE state NOT IN ('done', 'failed') LIMIT 30",
    ),
    (
        "open lines",
        "SELECT batch_id, request_id, outcome, error, settled FROM batch_lines WHERE settled = 0 LIMIT 30",
    ),
    ("pauses", "SELECT * FROM pauses"),
    ("alerts", "SELECT * FROM alerts ORDER BY id DESC LIMIT 10"),
    (
        "events",
        "SELECT at, batch_id, kind, detail FROM (SELECT * FROM events ORDER BY id DESC LIMIT 30) ORDER BY id",
    ),
];

/// The right descriptions of a lot. OpenAI may have seen it before its last missing images were left out. A
/// restored store may not know that the last images were left out.
fn seen_in(lot: &LotRow, sent: &str, is_restored: bool) -> Vec<String> {
    let images: Vec<&str> = lot.images.iter().map(String::as_str).collect();
    let described = |images: &[&str]| described_from(sent, images);
    if is_restored {
        return (1..=images.len())
            .map(|count| described(&images[..count]))
            .collect();
    }
    let without = |count: usize| {
        let missing = &lot.missing_images[..count];
        let left = lot.images.iter().filter(|url| !missing.contains(url));
        described(&left.map(String::as_str).collect::<Vec<_>>())
    };
    (0..=lot.missing_images.len()).map(without).collect()
}
