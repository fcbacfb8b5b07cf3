//! How a connection is opened, and the pool of connections that read.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{StoreError, Stored};

/// The most connections that read. Each holds the schema and a cache, half a megabyte together, and two
/// hundred threads may read at the same moment. A read is short; a thread that finds no free connection
/// waits.
const READERS: usize = 8;
/// The page cache of a connection that reads; negative: in KiB. A long answer passes through all of them, and
/// the system's cache is behind them.
const READER_CACHE: i64 = -500;

/// Opens a connection that may write.
pub(super) fn connect(path: &Path) -> Stored<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(128);
    // A statement is planned once, not again for each value of a parameter.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Free space can then be given back. This only works in an empty file; in another it would be a write.
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages == 0 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    use_wal(&connection)?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -4000;",
    )?;
    connection.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
    Ok(connection)
}

/// Switches to WAL mode. The first time, this writes to the file.
///
/// If that fails, SQLite reports it only by the mode that it returns, or after it returned the mode. The
/// answer is therefore read to its end.
fn use_wal(connection: &Connection) -> Stored<()> {
    let mut change = connection.prepare("PRAGMA journal_mode = WAL")?;
    let modes = change.query_map([], |row| row.get(0))?;
    let modes: Vec<String> = modes.collect::<Result<_, _>>()?;
    if modes == ["wal"] {
        Ok(())
    } else {
        Err(StoreError::Broken(format!(
            "its journal stays in the mode {modes:?}"
        )))
    }
}

/// Locks a mutex. A panic of another holder rolled its transaction back, so the connection is sound.
pub(super) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connections that read, shared by all threads.
#[derive(Default)]
pub(super) struct Readers {
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    free: Vec<Connection>,
    in_use: usize,
}

impl Readers {
    /// Takes a reader for one read; waits until one is free.
    pub(super) fn take(&self) -> Reader<'_> {
        let mut pool = self
            .returned
            .wait_while(guard(&self.pool), |pool| pool.in_use >= READERS)
            .unwrap_or_else(PoisonError::into_inner);
        pool.in_use += 1;
        Reader {
            connection: pool.free.pop(),
            readers: self,
        }
    }
}

/// One of the [`Readers`]. Dropping it returns it to the pool.
pub(super) struct Reader<'r> {
    connection: Option<Connection>,
    readers: &'r Readers,
}

impl Reader<'_> {
    /// The reader's connection; opened at the first use.
    pub(super) fn open(&mut self, path: &Path) -> Stored<&Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = connect(path)?;
                connection.pragma_update(None, "query_only", true)?;
                connection.pragma_update(None, "cache_size", READER_CACHE)?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut pool = guard(&self.readers.pool);
        pool.free.extend(self.connection.take());
        pool.in_use -= 1;
        drop(pool);
        self.readers.returned.notify_one();
    }
}
