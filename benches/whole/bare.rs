//! The references: the same rows, bytes and files without the program around them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use batchkeeper::base::thread_group;
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, TransactionBehavior, params, params_from_iter};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Result lines in one transaction, as many as the ingester writes.
const LINES: usize = 200;
/// Requests claimed for a batch in one transaction, as many as the submitter claims.
const CLAIMS: usize = 500;
/// Tables that triggers fill. The reference does not write them.
const DERIVED: [&str; 5] = [
    "state_counts",
    "counters",
    "minute_stats",
    "job_usage",
    "client_usage",
];

/// Creates a database with the tables, indexes and settings of another one, and without triggers.
fn like(database: &Path, at: &Path) -> Connection {
    let connection = Connection::open(at).unwrap();
    settings(&connection);
    let source = Connection::open(database).unwrap();
    let mut query = source
        .prepare("SELECT sql FROM sqlite_schema WHERE type IN ('table', 'index') AND sql IS NOT NULL ORDER BY type DESC")
        .unwrap();
    let statements = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    for statement in statements {
        connection.execute_batch(&statement.unwrap()).unwrap();
    }
    connection
}

fn settings(connection: &Connection) {
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -4000; PRAGMA journal_size_limit = 67108864",
        )
        .unwrap();
}

/// The rows of every table that is not filled by triggers, parents first.
fn rows(database: &Path) -> Vec<(String, Vec<Vec<Cell>>)> {
    let source = Connection::open(database).unwrap();
    let mut query = source
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'refinery%' ORDER BY rowid")
        .unwrap();
    let names = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let names = names.map(Result::unwrap);
    names
        .filter(|name| !DERIVED.contains(&name.as_str()))
        .map(|name| {
            let mut query = source.prepare(&format!("SELECT * FROM {name}")).unwrap();
            let columns = query.column_count();
            let rows = query
                .query_map([], |row| (0..columns).map(|at| row.get(at)).collect())
                .unwrap();
            let rows = rows.map(Result::unwrap).collect();
            (name, rows)
        })
        .collect()
}

/// Inserts the rows of `database` into a new database: all in one transaction, or in one for each
/// job.
pub fn insert(database: &Path, one_for_each_job: bool) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = like(database, &folder.path().join("bare.db"));
    let tables = rows(database);
    let jobs = if one_for_each_job {
        tables
            .iter()
            .find(|(name, _)| name == "batch_jobs")
            .unwrap()
            .1
            .len()
    } else {
        1
    };
    if one_for_each_job {
        // Rows of other tables are split evenly, so a row may come before its job: no foreign keys
        // here.
        connection.pragma_update(None, "foreign_keys", false).unwrap();
    }
    let begun = Instant::now();
    for job in 0..jobs {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        for (table, rows) in &tables {
            let from = rows.len() * job / jobs;
            let to = rows.len() * (job + 1) / jobs;
            insert_rows(&transaction, table, &rows[from..to]);
        }
        transaction.commit().unwrap();
    }
    begun.elapsed()
}

fn insert_rows(to: &Connection, table: &str, rows: &[Vec<Cell>]) {
    let Some(first) = rows.first() else { return };
    let marks = vec!["?"; first.len()].join(", ");
    let mut insert = to
        .prepare_cached(&format!("INSERT INTO {table} VALUES ({marks})"))
        .unwrap();
    for row in rows {
        insert.execute(params_from_iter(row)).unwrap();
    }
}

/// Makes and sends a batch: inserts its rows, writes the lines of its input with serde_json, hashes
/// and syncs the file, and sends it over a socket.
pub fn upload(database: &Path, lines: &[u8]) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = like(database, &folder.path().join("bare.db"));
    connection.pragma_update(None, "foreign_keys", false).unwrap();
    let tables = rows(database);
    let (_, rows) = tables.iter().find(|(name, _)| name == "batch_lines").unwrap();
    let begun = Instant::now();
    for some in rows.chunks(CLAIMS) {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        insert_rows(&transaction, "batch_lines", some);
        transaction.commit().unwrap();
    }
    let mut took = begun.elapsed();

    let path = folder.path().join("input.jsonl");
    let mut file = File::create(&path).unwrap();
    let mut hash = Sha256::new();
    let lines: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').collect();
    for some in lines.chunks(1000) {
        let some = some.iter().filter(|line| !line.is_empty());
        let values: Vec<Value> = some.map(|line| serde_json::from_slice(line).unwrap()).collect();
        let begun = Instant::now();
        let mut text = Vec::new();
        for value in &values {
            serde_json::to_writer(&mut text, value).unwrap();
            text.push(b'\n');
        }
        hash.update(&text);
        file.write_all(&text).unwrap();
        took += begun.elapsed();
    }
    let begun = Instant::now();
    file.sync_all().unwrap();
    std::io::copy(&mut File::open(&path).unwrap(), &mut drain()).unwrap();
    took + begun.elapsed()
}

/// Opens a loopback connection whose other end reads and drops all bytes.
pub fn drain() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    thread_group::spawn_ungrouped("drain", move || {
        let (mut from, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 18];
        while matches!(from.read(&mut buffer), Ok(1..)) {}
    })
    .unwrap();
    stream
}

/// Copies the database without its triggers.
pub fn copy(database: &Path, to: &Path) -> Connection {
    let source = Connection::open(database).unwrap();
    source.execute("VACUUM INTO ?", [to.to_str().unwrap()]).unwrap();
    let copy = Connection::open(to).unwrap();
    settings(&copy);
    let triggers: Vec<String> = {
        let mut query = copy
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
            .unwrap();
        let names = query.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    };
    for trigger in triggers {
        copy.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    copy
}

/// Parses the result lines of the only job's vision batch with serde_json and updates the rows of
/// each line.
pub fn ingest(database: &mut Connection, lines: &[Vec<u8>]) -> Duration {
    let job: String = database
        .query_row("SELECT id FROM batch_jobs", [], |row| row.get(0))
        .unwrap();
    let begun = Instant::now();
    for some in lines.chunks(LINES) {
        let tx = database
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        let mut lot = tx
            .prepare_cached("SELECT id FROM batch_lots WHERE batch_job_id = ? AND position = ?")
            .unwrap();
        let mut request = tx
            .prepare_cached(
                "UPDATE requests SET state = 'done' WHERE lot = ? AND stage = 'vision' RETURNING id",
            )
            .unwrap();
        let mut result = tx
            .prepare_cached(
                "UPDATE batch_lines SET outcome = 'answered', settled = 1, input_tokens = ?, output_tokens = ?
                 WHERE batch_id = 1 AND request_id = ?",
            )
            .unwrap();
        let mut text = tx
            .prepare_cached(
                "UPDATE batch_lots SET vision_result = ?, status = 'completed', processed_at = '2026-01-01T00:00:00.000Z' WHERE id = ?",
            )
            .unwrap();
        for line in some {
            let line: Value = serde_json::from_slice(line).unwrap();
            let position = line["custom_id"].as_str().unwrap().rsplit('_').next().unwrap();
            let position: i64 = position.parse().unwrap();
            let body = &line["response"]["body"];
            let words = body["output"][0]["content"][0]["text"].as_str().unwrap();
            let tokens = |name: &str| body["usage"][name].as_i64().unwrap();
            let lot: i64 = lot.query_row(params![job, position], |row| row.get(0)).unwrap();
            let request: i64 = request.query_row([lot], |row| row.get(0)).unwrap();
            result
                .execute([tokens("input_tokens"), tokens("output_tokens"), request])
                .unwrap();
            text.execute(params![words, lot]).unwrap();
        }
        drop((lot, request, result, text));
        tx.commit().unwrap();
    }
    begun.elapsed()
}

/// Reads a job's texts in order and sends them over a socket. Returns the time and the number of
/// bytes.
pub fn read(database: &Path) -> (Duration, usize) {
    let connection = Connection::open(database).unwrap();
    settings(&connection);
    let mut to = drain();
    let begun = Instant::now();
    let mut lots = connection
        .prepare("SELECT id, lot_id, vision_result, images, processed_at FROM batch_lots ORDER BY batch_job_id, position")
        .unwrap();
    let mut texts = connection
        .prepare("SELECT language, text FROM lot_translations WHERE lot = ?")
        .unwrap();
    let (mut rows, mut count) = (lots.query([]).unwrap(), 0);
    let mut out = Vec::with_capacity(1 << 17);
    while let Some(row) = rows.next().unwrap() {
        let id: i64 = row.get(0).unwrap();
        for at in 1..5 {
            serde_json::to_writer(&mut out, row.get_ref(at).unwrap().as_str().unwrap()).unwrap();
        }
        let mut of_lot = texts.query([id]).unwrap();
        while let Some(text) = of_lot.next().unwrap() {
            for at in 0..2 {
                serde_json::to_writer(&mut out, text.get_ref(at).unwrap().as_str().unwrap()).unwrap();
            }
        }
        if out.len() > 1 << 16 {
            count += out.len();
            to.write_all(&out).unwrap();
            out.clear();
        }
    }
    to.write_all(&out).unwrap();
    (begun.elapsed(), count + out.len())
}

/// Serves a constant answer with one thread for each connection. Returns the time that `clients`
/// clients need for `each` requests.
pub fn echo(clients: usize, each: usize, request: &[u8], answer: &[u8]) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let (length, answer) = (request.len(), answer.to_vec());
    thread_group::spawn_ungrouped("echo", move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread_group::spawn_ungrouped("echo-1", move || {
                stream.set_nodelay(true).ok();
                let mut request = vec![0; length];
                while stream.read_exact(&mut request).is_ok() {
                    if stream.write_all(&answer).is_err() {
                        break;
                    }
                }
            })
            .unwrap();
        }
    })
    .unwrap();
    let requests = vec![vec![request.to_vec()]; clients];
    let go_on = std::sync::atomic::AtomicBool::new(true);
    crate::client::load(&api, requests, each, 200, &go_on).1
}
