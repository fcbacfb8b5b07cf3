//! Compares a database of five million lots with an empty one.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::client::{load, status_request};
use crate::openai::BareOpenAi;
use crate::rig::{self, Figure, Process, cell, job, pause, percentiles, rate, submit, wait};

/// The number of lots of the copied job, and the number of copies.
const LOTS: usize = 500;
const JOBS: usize = 10_000;
const CONFIG: &str = "openai = { poll_interval = \"1s\" }\n[batch]\nmax_requests = 50000";

pub fn growth() -> Vec<Figure> {
    let openai = BareOpenAi::start(3000);
    openai.complete();
    let mut appliance = rig::daemon(&openai, CONFIG);
    let database = appliance.database();
    let whole = job(50_000, &["en", "de"], None);
    let (id, _) = submit(&appliance, &job(LOTS, &["en", "de"], None));
    wait("the job's end", || {
        (!appliance.status(&id)["completed_at"].is_null()).then_some(())
    });
    let empty = submit_and_ingest(&appliance, &whole);

    appliance.kill_daemon();
    let filling = Instant::now();
    multiply(&database, &id);
    let filling = filling.elapsed();
    let size = std::fs::metadata(&database).unwrap().len();
    let begun = Instant::now();
    appliance.start_daemon();
    let started = begun.elapsed();

    let requests: Vec<Vec<u8>> = some_jobs(&database).iter().map(|id| status_request(id)).collect();
    let clients = vec![requests; 16];
    let (mut times, took) = load(&appliance.api, clients, 1000, 200, &AtomicBool::new(true));
    let [median, p99] = percentiles(&mut times);

    let process = Process(appliance.daemon_id());
    pause(Duration::from_secs(5));
    let before = process.processor_time();
    pause(Duration::from_mins(2));
    let audit = process.processor_time() - before;
    let full = submit_and_ingest(&appliance, &job(50_000, &["en", "de"], None));
    let begun = Instant::now();
    let doctor = appliance.run(&["doctor"]);
    let doctored = begun.elapsed();
    assert_eq!(doctor.status, 0, "{}{}", doctor.out, doctor.err);
    let beside = |what: &str, [ours, empty]: [Duration; 2]| Figure {
        work: format!("{what}, beside 5,000,000 lots; bare: the same into an empty database"),
        measured: format!("{ours:.2?}"),
        ratio: Some((format!("{empty:.2?}"), ours.as_secs_f64() / empty.as_secs_f64())),
    };
    vec![
        Figure::alone(
            "a database of 5,000,000 lots in 10,000 jobs",
            format!("{:.1} GB, made in {filling:.0?}", size as f64 / 1e9),
        ),
        Figure::alone("its start until it listens", format!("{started:.2?}")),
        Figure::alone(
            "status polls of its jobs, 16 clients",
            format!(
                "{:.0}/s, median {median:.1?}, p99 {p99:.1?}",
                rate(times.len(), took)
            ),
        ),
        Figure::alone(
            "its processor when idle, including the auditor's passes",
            format!("{:.2} % of a core", 100.0 * audit.as_secs_f64() / 120.0),
        ),
        beside("submit a job of 50,000 lots", [full.0, empty.0]),
        beside("ingest its 50,000 descriptions", [full.1, empty.1]),
        Figure::alone("`doctor` over everything", format!("{doctored:.1?}")),
    ]
}

/// The times of the job's submission and of the ingestion of its descriptions.
fn submit_and_ingest(appliance: &crate::appliance::Appliance, job: &rig::Signed) -> (Duration, Duration) {
    let (id, took) = submit(appliance, job);
    wait("the job's end", || {
        pause(Duration::from_millis(100));
        (!appliance.status(&id)["completed_at"].is_null()).then_some(())
    });
    let sql = "SELECT CAST(round((julianday(b.ingested_at) - julianday(e.at)) * 86400000) AS INTEGER)
               FROM openai_batches b JOIN events e ON e.batch_id = b.id AND e.kind = 'spooled'
               WHERE b.stage = 'vision' AND b.job_id = ?";
    let milliseconds: i64 = cell(&appliance.database(), sql, &id).unwrap();
    (took, Duration::from_millis(milliseconds.unsigned_abs()))
}

/// Copies a finished job ten thousand times with all its rows, each copy under a new id.
fn multiply(database: &Path, job: &str) {
    let connection = Connection::open(database).unwrap();
    connection
        .execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -2000000; PRAGMA foreign_keys = OFF")
        .unwrap();
    let columns = |table: &str, but: &[&str]| -> String {
        let mut query = connection
            .prepare("SELECT name FROM pragma_table_info(?)")
            .unwrap();
        let names = query.query_map([table], |row| row.get::<_, String>(0)).unwrap();
        let names: Vec<String> = names.map(Result::unwrap).collect();
        let kept = names.into_iter().filter(|name| !but.contains(&name.as_str()));
        kept.collect::<Vec<_>>().join(", ")
    };
    let jobs = columns("batch_jobs", &["seq", "id"]);
    let lots = columns("batch_lots", &["id", "batch_job_id"]);
    let requests = columns("requests", &["id", "lot", "job"]);
    let statements = [
        format!("INSERT INTO batch_jobs (seq, id, {jobs}) SELECT seq + ?1, ?3, {jobs} FROM batch_jobs WHERE id = ?4"),
        format!(
            "INSERT INTO batch_lots (id, batch_job_id, {lots}) SELECT id + ?2, ?3, {lots} FROM batch_lots WHERE batch_job_id = ?4"
        ),
        format!(
            "INSERT INTO requests (id, lot, job, {requests}) SELECT r.id + ?2, r.lot + ?2, r.job + ?1, {requests}
             FROM requests r JOIN batch_lots l ON l.id = r.lot AND l.batch_job_id = ?4 AND ?3 <> ''"
        ),
        "INSERT INTO lot_translations SELECT t.lot + ?2, t.language, t.text, t.error
         FROM lot_translations t JOIN batch_lots l ON l.id = t.lot AND l.batch_job_id = ?4 AND ?3 <> '' AND ?1 > 0"
            .to_owned(),
        "INSERT INTO batch_lines (batch_id, request_id, outcome, settled, input_tokens, output_tokens)
         SELECT b.batch_id, b.request_id + ?2, b.outcome, b.settled, b.input_tokens, b.output_tokens
         FROM batch_lines b JOIN requests r ON r.id = b.request_id JOIN batch_lots l ON l.id = r.lot
         WHERE l.batch_job_id = ?4 AND ?3 <> '' AND ?1 > 0"
            .to_owned(),
    ];
    let usage = columns("job_usage", &["job"]);
    let more = [
        "INSERT INTO batch_links SELECT k.batch_id, k.job + ?1 FROM batch_links k JOIN batch_jobs j ON j.seq = k.job
         WHERE j.id = ?4 AND ?3 <> '' AND ?2 > 0"
            .to_owned(),
        format!(
            "INSERT INTO job_usage (job, {usage}) SELECT job + ?1, {usage} FROM job_usage
             WHERE job = (SELECT seq FROM batch_jobs WHERE id = ?4 AND ?3 <> '' AND ?2 > 0)"
        ),
    ];
    // The new ids begin after the largest id.
    let step = 10_000_000_i64;
    for copy in 1..=i64::try_from(JOBS).unwrap() {
        if copy % 100 == 1 {
            connection.execute_batch("BEGIN").unwrap();
        }
        let id = format!("{copy:08x}-0000-4000-8000-000000000000");
        for statement in statements.iter().chain(&more) {
            connection
                .prepare_cached(statement)
                .unwrap()
                .execute(params![copy * 1_000_000, copy * 2000 + step, id, job])
                .unwrap();
        }
        if copy % 100 == 0 {
            connection.execute_batch("COMMIT").unwrap();
        }
    }
    connection
        .execute_batch(
            "UPDATE openai_batches SET lines = (SELECT count(*) FROM batch_lines l WHERE l.batch_id = openai_batches.id);
             PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .unwrap();
}

fn some_jobs(database: &Path) -> Vec<String> {
    let connection = Connection::open(database).unwrap();
    let mut query = connection
        .prepare("SELECT id FROM batch_jobs WHERE seq % 97 = 0")
        .unwrap();
    let ids = query.query_map([], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}
