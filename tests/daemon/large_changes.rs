//! A change of all lots of the largest job, or of all lines of the largest batch, while clients submit. It takes
//! minutes, so it has a command of its own:
//! `cargo test --release --test daemon large_changes:: -- --ignored --nocapture` prints the figures.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::appliance::{Appliance, call, sign_bytes, submission};
use batchkeeper::base::clock::{Clock, SystemClock, Timestamp};
use batchkeeper::domain::batch::{CustomId, Outcome, Scheme, Stage};
use batchkeeper::domain::openai::{Batch, Identity};
use batchkeeper::store::batch_links::{BatchLink, link_own_batch};
use batchkeeper::store::retry::{self, RetryScope};
use batchkeeper::store::settle::{self, RetryRules, UnreadLines};
use batchkeeper::store::{Store, batches, cancel, job_changes, jobs, unclaimed_lines};
use rusqlite::Connection;
use serde_json::json;

const JOB: &str = "00000000-0000-4000-8000-000000000001";
/// The key of the batch, and this database's id.
const KEY: &str = "00000000000040008000000000000002";

/// A job of 50,000 lots, each with its description and ten translations that wait.
const LARGE_JOB: &str = "
    INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, total_lots, open_translations,
                            created_at, updated_at)
    VALUES ('00000000-0000-4000-8000-000000000001', 'default', 'api', 'batch', 'translating',
            '[\"de\",\"fr\",\"es\",\"it\",\"nl\",\"pl\",\"cs\",\"sv\",\"da\",\"fi\"]', 50000, 500000,
            '2026-11-24T02:24:00.000Z', '2026-11-24T02:24:00.000Z');
    WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 49999)
    INSERT INTO batch_lots (batch_job_id, position, lot_id, additional_info, images, status, vision_result)
    SELECT '00000000-0000-4000-8000-000000000001', n, 'lot ' || n, printf('%0300d', n),
           '[\"https://img.example/1.jpg\"]', 'pending', printf('%01000d', n) FROM n;
    INSERT INTO requests (lot, job, stage, language, state, since)
    SELECT l.id, j.seq, 'vision', '', 'done', j.created_at FROM batch_jobs j, batch_lots l;
    INSERT INTO requests (lot, job, stage, language, state, since)
    SELECT l.id, j.seq, 'translation', e.value, 'waiting', j.created_at
    FROM batch_jobs j, batch_lots l, json_each(j.languages) e;
    PRAGMA wal_checkpoint(TRUNCATE);";

/// All translations of that job have failed, and the job is over.
const FAILED_JOB: &str = "
    UPDATE requests SET state = 'failed' WHERE stage = 'translation';
    INSERT INTO lot_translations (lot, language, error) SELECT lot, language, 'refused' FROM requests WHERE state = 'failed';
    UPDATE batch_lots SET status = 'completed', processed_at = '2026-11-24T03:24:00.000Z';
    UPDATE batch_jobs SET status = 'completed', processed_lots = 50000, open_translations = 0,
                          completed_at = '2026-11-24T03:24:00.000Z';
    PRAGMA wal_checkpoint(TRUNCATE);";

/// 50,000 of its translations are in a batch that is planned.
const LARGE_BATCH: &str = "
    INSERT INTO openai_batches (id, submission_key, stage, scheme, state, base_url, organization, project, model,
                                parameters, next_at, created_at)
    VALUES (1, '00000000000040008000000000000002', 'translation', 'own', 'planned', 'https://api.openai.com', '', '',
            'm', '{}', '2026-11-24T02:24:00.000Z', '2026-11-24T02:24:00.000Z');
    INSERT INTO batch_lines (batch_id, request_id) SELECT 1, id FROM requests WHERE state = 'waiting' LIMIT 50000;
    INSERT INTO batch_links (batch_id, job) SELECT 1, seq FROM batch_jobs;
    UPDATE requests SET state = 'claimed' WHERE id IN (SELECT request_id FROM batch_lines);
    PRAGMA wal_checkpoint(TRUNCATE);";

/// That batch is at OpenAI, which has ended it.
const AT_OPENAI: &str = "
    UPDATE openai_batches SET state = 'ended', lines = 50000, input_sha256 = 'x', input_bytes = 1, input_file_id = 'file-1',
                              openai_batch_id = 'batch_1', openai_status = 'failed';
    PRAGMA wal_checkpoint(TRUNCATE);";

/// A database with the large job, changed by these statements.
struct Large {
    _folder: tempfile::TempDir,
    store: Store,
    now: Timestamp,
    times: Vec<Duration>,
}

impl Large {
    fn new(statements: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        make_large_job(&database);
        let connection = Connection::open(&database).unwrap();
        for statement in statements {
            connection.execute_batch(statement).unwrap();
        }
        let now = SystemClock::new().now().wall;
        let store = Store::open(&database, now).unwrap();
        Self {
            _folder: folder,
            store,
            now,
            times: Vec::new(),
        }
    }

    /// Runs one transaction, and keeps its time.
    #[allow(clippy::disallowed_methods, reason = "it measures how long transactions take")]
    fn write<T>(
        &mut self,
        change: impl FnOnce(&batchkeeper::store::Tx<'_>) -> batchkeeper::store::Stored<T>,
    ) -> T {
        let began = Instant::now();
        let done = self.store.write(self.now, change).unwrap();
        self.times.push(began.elapsed());
        done
    }

    fn report(self, what: &str, how: &str) {
        let number = self.times.len();
        let (longest, p99) = longest_and_p99(self.times);
        println!("{what} {how}: {number} transactions, p99 {p99:?}, longest {longest:?}");
        assert!(how == ONE || p99 < Duration::from_millis(100));
    }

    fn change_lots(&mut self, lots: u32) {
        while let Some(job) = self.store.read(job_changes::next).unwrap() {
            self.write(|tx| job_changes::advance(tx, job.seq, lots, false));
        }
    }

    fn claim_lines(&mut self, lines: u32) {
        while self.write(|tx| unclaimed_lines::claim(tx, lines)) {}
    }
}

const ONE: &str = "in one transaction";
const CHUNKS: &str = "in chunks";
/// The two ways, with the lots and the lines of a chunk.
const WAYS: [(&str, u32, u32); 2] = [
    (ONE, u32::MAX, u32::MAX),
    (CHUNKS, job_changes::LOTS, unclaimed_lines::LINES),
];

fn make_large_job(database: &Path) {
    let now = SystemClock::new().now().wall;
    drop(Store::open(database, now).unwrap());
    Connection::open(database)
        .unwrap()
        .execute_batch(LARGE_JOB)
        .unwrap();
}

/// The longest of these times, and the time that 99 percent of them do not exceed.
fn longest_and_p99(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let at = (times.len() * 99).div_ceil(100).saturating_sub(1);
    (times[times.len() - 1], times[at])
}

/// A batch at OpenAI that carries that key of this database.
fn batch_at_openai(store: &Store, id: &str, key: &str) -> Batch {
    let batch = json!({
        "id": id, "object": "batch", "endpoint": "/v1/responses", "status": "in_progress", "input_file_id": "file-1",
        "completion_window": "24h", "created_at": 1_764_000_000, "expires_at": 1_764_086_400,
        "request_counts": {"total": 50_000, "completed": 0, "failed": 0},
        "metadata": {"batchkeeper": store.database_id(), "submission": key}
    });
    Batch::from_json(&batch).unwrap()
}

/// The custom id of a German translation.
fn custom_id(position: u32) -> String {
    let id = CustomId {
        job: JOB.into(),
        position,
        language: Some("de".into()),
    };
    id.to_string()
}

#[test]
#[ignore = "takes minutes"]
fn the_largest_job_is_cancelled_and_retried_in_short_transactions() {
    for (how, lots, _) in WAYS {
        let mut large = Large::new(&[]);
        let job = large.store.read(|view| jobs::by_id(view, JOB)).unwrap().unwrap();
        large.write(|tx| cancel::cancel(tx, &job, "measured", lots));
        large.change_lots(lots);
        large.report("cancelled", how);

        let mut large = Large::new(&["UPDATE requests SET state = 'held' WHERE state = 'waiting'"]);
        let job = large.store.read(|view| jobs::by_id(view, JOB)).unwrap().unwrap();
        large.write(|tx| job_changes::release(tx, &job, lots, false));
        large.change_lots(lots);
        large.report("released", how);

        let mut large = Large::new(&[FAILED_JOB]);
        let job = large.store.read(|view| jobs::by_id(view, JOB)).unwrap().unwrap();
        let scope = RetryScope::FailedTranslations;
        let size = large
            .store
            .read(|view| retry::retry_size(view, &job, scope))
            .unwrap();
        assert_eq!((size.lots, size.translations), (50_000, 500_000));
        large.write(|tx| retry::retry(tx, &job, scope, &size, lots, false));
        large.change_lots(lots);
        let waiting = "SELECT open_translations FROM batch_jobs";
        assert_eq!(number(&large.store, waiting), 500_000);
        large.report("retried", how);
    }
}

#[test]
#[ignore = "takes minutes"]
fn the_largest_batch_is_found_and_settled_in_short_transactions() {
    for (how, _, lines) in WAYS {
        let mut large = Large::new(&[LARGE_BATCH]);
        let found = batch_at_openai(&large.store, "batch_1", KEY);
        let id = large.store.database_id().to_owned();
        large.write(|tx| batches::link_listed(tx, &id, &found));
        while !large.write(|tx| batches::unplan(tx, 1, lines)) {}
        large.report("a planned batch dropped", how);

        let mut large = Large::new(&[LARGE_BATCH, AT_OPENAI]);
        let found = batch_at_openai(&large.store, "batch_2", KEY);
        let id = large.store.database_id().to_owned();
        large.write(|tx| batches::link_listed(tx, &id, &found));
        large.claim_lines(lines);
        assert_eq!(
            number(&large.store, "SELECT lines FROM openai_batches WHERE id = 2"),
            50_000
        );
        large.report("a second batch found", how);

        let mut large = Large::new(&[]);
        let found = batch_at_openai(&large.store, "batch_1", KEY);
        let custom_ids: Vec<String> = (0..50_000).map(custom_id).collect();
        let identity = Identity {
            base_url: "https://api.openai.com".into(),
            organization: String::new(),
            project: String::new(),
        };
        let link = BatchLink {
            batch: &found,
            identity: &identity,
            stage: Stage::Translation,
            scheme: Scheme::Own,
            key: KEY,
            custom_ids: &custom_ids,
            evidence: "measured",
        };
        large.write(|tx| link_own_batch(tx, &link));
        large.claim_lines(lines);
        assert_eq!(number(&large.store, "SELECT lines FROM openai_batches"), 50_000);
        large.report("a lost batch linked", how);

        let mut large = Large::new(&[LARGE_BATCH, AT_OPENAI]);
        let refused = UnreadLines {
            blamed: (1..=25_000)
                .map(|line| (line * 2, "its image is too large".to_owned()))
                .collect(),
            ..UnreadLines::all(Outcome::NotRun)
        };
        let mut after = 0;
        while let Some(last) =
            large.write(|tx| settle::settle_lines(tx, 1, after, lines, &refused, RetryRules::default()))
        {
            after = last;
        }
        large.report("a refused batch settled, half of its lines blamed,", how);
    }
}

fn number(store: &Store, sql: &str) -> i64 {
    let connection = Connection::open(store.path()).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
#[ignore = "takes minutes"]
#[allow(clippy::disallowed_methods, reason = "it measures how long answers take")]
fn clients_submit_while_the_largest_job_is_cancelled() {
    let mut appliance = Appliance::without_daemon("[batch]\nmax_wait = \"10h\"");
    make_large_job(&appliance.database());
    appliance.start_daemon();
    let began = Instant::now();
    let url = format!("{}/api/v1/batch-jobs/{JOB}/cancel", appliance.api);
    let of_job = sign_bytes(JOB.as_bytes());
    let headers = [("X-Signature", of_job.as_str())];
    assert_eq!(call("POST", &url, &headers, b"").status, 200);
    println!("the cancel is answered after {:?}", began.elapsed());
    submit_while_it_changes(&appliance);
    assert_eq!(appliance.status(JOB)["status"], "cancelled");
    appliance.assert_sound();
}

#[test]
#[ignore = "takes minutes"]
fn clients_submit_while_the_largest_job_is_retried() {
    let mut appliance = Appliance::without_daemon("[batch]\nmax_wait = \"10h\"");
    make_large_job(&appliance.database());
    let connection = Connection::open(appliance.database()).unwrap();
    connection.execute_batch(FAILED_JOB).unwrap();
    appliance.start_daemon();
    // Other workers would send the requests at once.
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let retried = appliance.run(&["jobs", "retry", JOB, "--failed-translations"]);
    assert_eq!(retried.status, 0, "{}", retried.err);
    submit_while_it_changes(&appliance);
    assert_eq!(
        appliance.cell::<i64>("SELECT open_translations FROM batch_jobs"),
        500_000
    );
    appliance.assert_sound();
}

/// Submits small jobs one after another until no job is being changed. Prints how long the answers took.
#[allow(clippy::disallowed_methods, reason = "it measures how long answers take")]
fn submit_while_it_changes(appliance: &Appliance) {
    let body = submission(&appliance.lots(2), &["en"]).to_string();
    let signature = sign_bytes(body.as_bytes());
    let began = Instant::now();
    let mut times = Vec::new();
    let changing = "SELECT count(*) FROM batch_jobs WHERE pending_change IS NOT NULL";
    while appliance.cell::<i64>(changing) > 0 {
        let key = times.len().to_string();
        let headers = [("X-Signature", signature.as_str()), ("Idempotency-Key", &key)];
        let began = Instant::now();
        let answer = appliance.post(&headers, body.as_bytes());
        times.push(began.elapsed());
        assert_eq!(answer.status, 201, "{}", answer.json());
    }
    let whole = began.elapsed();
    let number = times.len();
    let (longest, p99) = longest_and_p99(times);
    println!(
        "its last lot is changed after {whole:?}; {number} submissions meanwhile: p99 {p99:?}, longest {longest:?}"
    );
    assert!(p99 < Duration::from_millis(200));
}
