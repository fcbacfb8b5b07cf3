//! A change of all lots of the largest job, while clients submit. It takes minutes, so it has a command of its
//! own: `cargo test --release --test daemon large_changes:: -- --ignored --nocapture` prints the figures.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::appliance::{Appliance, call, sign_bytes, submission};
use batchkeeper::base::clock::{Clock, SystemClock};
use batchkeeper::store::{Store, cancel, job_changes, jobs};
use rusqlite::Connection;

const JOB: &str = "00000000-0000-4000-8000-000000000001";

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

#[test]
#[ignore = "takes minutes"]
#[allow(
    clippy::disallowed_methods,
    reason = "it measures how long transactions and answers take"
)]
fn the_largest_job_is_cancelled_in_short_transactions() {
    for (what, lots) in [("in one transaction", u32::MAX), ("in chunks", job_changes::LOTS)] {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        make_large_job(&database);
        let now = SystemClock::new().now().wall;
        let store = Store::open(&database, now).unwrap();
        let mut times = Vec::new();
        let began = Instant::now();
        let job = store.read(|view| jobs::by_id(view, JOB)).unwrap().unwrap();
        store
            .write(now, |tx| cancel::cancel(tx, &job, "measured", lots))
            .unwrap();
        times.push(began.elapsed());
        while store.read(job_changes::next).unwrap().is_some() {
            let began = Instant::now();
            store
                .write(now, |tx| job_changes::advance(tx, job.seq, lots, false))
                .unwrap();
            times.push(began.elapsed());
        }
        let number = times.len();
        let (longest, p99) = longest_and_p99(times);
        println!("cancelled {what}: {number} transactions, p99 {p99:?}, longest {longest:?}");
    }

    let mut appliance = Appliance::without_daemon("[batch]\nmax_wait = \"10h\"");
    make_large_job(&appliance.database());
    appliance.start_daemon();
    let body = submission(&appliance.lots(2), &["en"]).to_string();
    let signature = sign_bytes(body.as_bytes());
    let began = Instant::now();
    let url = format!("{}/api/v1/batch-jobs/{JOB}/cancel", appliance.api);
    let of_job = sign_bytes(JOB.as_bytes());
    let headers = [("X-Signature", of_job.as_str())];
    assert_eq!(call("POST", &url, &headers, b"").status, 200);
    let cancelled = began.elapsed();
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
        "the cancel is answered after {cancelled:?}, its last lot after {whole:?}; {number} submissions meanwhile: p99 \
         {p99:?}, longest {longest:?}"
    );
    assert!(p99 < Duration::from_millis(200));
    assert_eq!(appliance.status(JOB)["status"], "cancelled");
    appliance.assert_sound();
}
