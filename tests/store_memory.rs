//! Many readers at once take little memory, however much they read. Alone in its process, so that
//! the memory is its own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only the #[test] functions for tests, not what serves them"
)]

use batchkeeper::clock::Timestamp;
use batchkeeper::store::Store;

/// Readers at the same time: as many as a daemon with 32 couriers has threads.
const READERS: u64 = 50;
/// Rows of a kilobyte each: more than one reader's cache may hold.
const ROWS: u64 = 8_000;
/// What a reader may keep, in KiB: its pages, its schema and its statements.
const EACH: u64 = 1_000;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// Reads all rows on `readers` connections, each open while the next one reads.
fn read_all(store: &Store, readers: u64) {
    if readers == 0 {
        return;
    }
    let rows: u64 = store
        .read(|view| {
            let rows = view.query_row("SELECT count(detail || '') FROM events", [], |row| {
                row.get(0)
            })?;
            read_all(store, readers - 1);
            Ok(rows)
        })
        .unwrap();
    assert_eq!(rows, ROWS);
}

#[test]
fn readers_keep_little_of_what_they_read() {
    let folder = tempfile::tempdir().unwrap();
    let now = Timestamp::from_seconds(1_795_400_000);
    let store = Store::open(&folder.path().join("batchkeeper.db"), now).unwrap();
    store
        .write(now, |tx| {
            Ok(tx.execute(
                "INSERT INTO events (at, kind, detail)
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                 SELECT '', '', printf('%1000d', i) FROM n",
                [ROWS],
            )?)
        })
        .unwrap();
    let before = resident_kib();
    read_all(&store, READERS);
    let grown = resident_kib() - before;
    assert!(grown < READERS * EACH, "{grown} KiB");
}
