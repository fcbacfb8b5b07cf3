//! Many simultaneous readers take little memory, however much they read. The test runs alone,
//! because the memory is that of the whole process.

use batchkeeper::base::clock::Timestamp;
use batchkeeper::store::{Store, inspect};

/// The number of reading threads, as in a daemon with 32 webhook senders.
const THREADS: u64 = 50;
/// The number of connections that they share.
const READERS: u64 = 8;
/// Rows of one kilobyte each: more than a reader's cache may hold.
const ROWS: u64 = 8_000;
/// The memory that a reader may keep, in KiB: its pages, its schema and its statements.
const EACH: u64 = 1_000;
/// The memory that a finished thread leaves behind, in KiB: an arena of the allocator.
const LEFT: u64 = 100;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

fn read_all(store: &Store) {
    let count = "SELECT count(detail || '') FROM events";
    let read = store.read(|view| inspect::table(view, count, []));
    assert_eq!(read.unwrap().rows, [[ROWS]]);
}

#[test]
fn readers_keep_little_of_what_they_read() {
    let _alone = crate::alone();
    let folder = tempfile::tempdir().unwrap();
    let now = Timestamp::from_seconds(1_795_400_000);
    let store = Store::open(&folder.path().join("batchkeeper.db"), now).unwrap();
    let rows = rusqlite::Connection::open(store.path()).unwrap();
    rows.execute(
        "INSERT INTO events (at, kind, detail)
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
         SELECT '', '', printf('%1000d', i) FROM n",
        [ROWS],
    )
    .unwrap();
    drop(rows);
    let before = resident_kib();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| read_all(&store));
        }
    });
    let grown = resident_kib() - before;
    assert!(grown < READERS * EACH + THREADS * LEFT, "{grown} KiB");
}
