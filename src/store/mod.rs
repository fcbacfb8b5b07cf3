//! The store: one SQLite file, the only state there is.
//!
//! *Locking.* One connection writes, behind a mutex and always under `BEGIN IMMEDIATE`; reads have
//! connections of their own and see one snapshot each. Commands of other processes write by the
//! same rules, so every move is an `UPDATE … WHERE state = <expected>`.
//!
//! *Durability.* WAL with `synchronous = FULL`: what was committed survives a power cut. A full
//! disk rolls the transaction back and is an error that passes ([`StoreError::Full`]); an I/O error
//! or a corrupt page is not ([`StoreError::Broken`]): whoever sees it stops, and the daemon is told
//! ([`Store::broken`]), so that it ends whoever saw it.
//!
//! Nothing outside this folder names rusqlite.

use std::cell::RefCell;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::ops::Deref;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::Level;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, TransactionBehavior};

use crate::base::clock::Timestamp;
use crate::base::fields::Fields;

pub mod alerts;
pub mod backup;
pub mod batch_links;
pub mod batches;
pub mod cancel;
mod columns;
pub mod events;
pub mod figures;
pub mod free_space;
pub mod idempotency;
pub mod identity;
pub mod images;
pub mod inspect;
pub mod jobs;
pub mod legacy;
pub mod lots;
pub mod money;
pub mod notices;
pub mod orphans;
mod planned_calls;
pub mod queue;
pub mod report;
pub mod requests;
pub mod retention;
pub mod retry;
pub mod settle;
pub mod status;
pub mod stuck;
pub mod synchronous_calls;
pub mod webhook_deliveries;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The first schema of this layout. The schemas before it had other tables: `convert-database` reads the last
/// of them.
const FIRST_SCHEMA: i64 = 11;
/// Marks the file as ours: "bkpr".
const APPLICATION_ID: i64 = 0x626b_7072;
/// Connections that read, at most: each holds the schema and a cache, half a megabyte together, and two
/// hundred threads may want to look at the same moment. A look is short; who finds none free waits.
const READERS: usize = 8;
/// Of a connection that reads, negative for KiB: a long answer passes through all of them in turn, and
/// the system's own cache lies behind.
const READER_CACHE: i64 = -500;

/// Why the store did not do it.
#[derive(Debug)]
pub enum StoreError {
    /// The disk is full: nothing was changed, and it works again once there is room.
    Full,
    /// Another process holds the write lock of this file for too long.
    Busy(String),
    /// Who runs this may not write to this file.
    ReadOnly(String),
    /// The file cannot be opened now: no descriptor is left, as a rule.
    Unreachable(String),
    /// An I/O error or a corrupt file: go no further.
    Broken(String),
    /// A row was not in the state that the move starts from: somebody else moved it.
    Conflict(String),
    /// A mistake of the program, or a database that is not ours or newer than it.
    Other(String),
}

impl StoreError {
    /// Whether the same may work a little later.
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Self::Full | Self::Busy(_) | Self::Unreachable(_) | Self::Conflict(_)
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full"),
            Self::Busy(file) => write!(
                f,
                "{file} is locked by another process; try again, and if that lasts, end what holds it (a transaction \
                 left open in sqlite3, say)"
            ),
            Self::ReadOnly(file) => write!(
                f,
                "{file} cannot be written by this user; run it as the file's owner, such as runuser -u batchkeeper -- \
                 batchkeeper ..."
            ),
            Self::Unreachable(what) => write!(f, "the database cannot be opened now: {what}"),
            Self::Broken(what) => write!(f, "the database cannot be relied on: {what}"),
            Self::Conflict(what) | Self::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::CannotOpen) => Self::Unreachable(error.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Busy("the database".into())
            }
            Some(ErrorCode::ReadOnly) => Self::ReadOnly("the database".into()),
            Some(
                ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase,
            ) => Self::Broken(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Broken(format!("a JSON column does not parse: {error}"))
    }
}

/// What a store function gives.
pub type Stored<T> = Result<T, StoreError>;

/// A consistent view of the database, to read from.
pub type View = Connection;

/// A write transaction; its `now` is the one time of all that it writes.
pub struct Tx<'c> {
    tx: rusqlite::Transaction<'c>,
    tallies: settle::Tallies,
    /// Log records. A transaction that is rolled back writes none.
    log_records: RefCell<Vec<(Level, Fields)>>,
    /// The wall clock's time of this transaction.
    pub now: Timestamp,
}

impl Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.tx
    }
}

impl Tx<'_> {
    /// Runs a statement, planned once for each connection: what writes, writes the same again and again.
    fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.tx.prepare_cached(sql)?.execute(params)
    }

    /// Writes a log record once this transaction is committed.
    fn log_after_commit(&self, level: Level, fields: Fields) {
        self.log_records.borrow_mut().push((level, fields));
    }
}

/// A moment of a write transaction at which a process may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Nothing of it is stored yet.
    Ahead,
    /// All of it is.
    Done,
}

/// Told of every commit, before and after it.
pub type Watcher = Box<dyn Fn(Commit) + Send + Sync>;

/// The database.
pub struct Store {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Readers,
    database_id: String,
    watcher: Option<Watcher>,
    alarm: (Sender<String>, Receiver<String>),
}

impl Store {
    /// Opens the database, makes it where there is none, and brings it to this program's schema.
    ///
    /// # Errors
    /// When it cannot be opened, is not ours, or is newer than this program.
    pub fn open(path: &Path, now: Timestamp) -> Stored<Self> {
        Self::opened(path, now).map_err(|error| name(error, path))
    }

    fn opened(path: &Path, now: Timestamp) -> Stored<Self> {
        make_private_file(path)?;
        let mut writer = connect(path)?;
        migrate(&mut writer, path, now)?;
        let known = database_id(&writer)?;
        let database_id = match known {
            Some(id) => id,
            None => {
                // Only here: who looks waits for nobody's write, and needs no right to write.
                writer.execute(
                    "INSERT OR IGNORE INTO instance (id, database_id, created_at) VALUES (1, ?, ?)",
                    (uuid::Uuid::new_v4().simple().to_string(), now),
                )?;
                database_id(&writer)?
                    .ok_or_else(|| StoreError::Broken("its row of `instance` is gone".into()))?
            }
        };
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Readers::default(),
            database_id,
            watcher: None,
            alarm: bounded(1),
        })
    }

    /// The same store with a watcher, for tests alone: one that unwinds ends the process in their
    /// world, with the transaction rolled back or committed as it was at that moment.
    #[must_use]
    pub fn watched(mut self, watcher: Watcher) -> Self {
        self.watcher = Some(watcher);
        self
    }

    fn tell(&self, commit: Commit) {
        if let Some(watcher) = &self.watcher {
            watcher(commit);
        }
    }

    /// The id that this database puts into the metadata of its batches.
    pub fn database_id(&self) -> &str {
        &self.database_id
    }

    /// Says once why the database cannot be relied on any more.
    pub fn broken(&self) -> &Receiver<String> {
        &self.alarm.1
    }

    fn heed<T>(&self, done: Stored<T>) -> Stored<T> {
        let done = done.map_err(|error| name(error, &self.path));
        if let Err(StoreError::Broken(what)) = &done {
            // Said once is enough.
            self.alarm.0.try_send(what.clone()).ok();
        }
        done
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `change` in one transaction, committed when it gives `Ok` and rolled back otherwise.
    ///
    /// # Errors
    /// What `change` gives, or why the commit failed.
    pub fn write<T>(&self, now: Timestamp, change: impl FnOnce(&Tx<'_>) -> Stored<T>) -> Stored<T> {
        self.heed(self.transaction(now, change))
    }

    fn transaction<T>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&Tx<'_>) -> Stored<T>,
    ) -> Stored<T> {
        let mut writer = guard(&self.writer);
        let tx = Tx {
            tx: writer.transaction_with_behavior(TransactionBehavior::Immediate)?,
            tallies: settle::Tallies::default(),
            log_records: RefCell::default(),
            now,
        };
        let done = change(&tx)?;
        settle::write_tallies(&tx)?;
        self.tell(Commit::Ahead);
        tx.tx.commit()?;
        for (level, fields) in tx.log_records.into_inner() {
            fields.log(level, module_path!());
        }
        self.tell(Commit::Done);
        Ok(done)
    }

    /// Whether something can be stored now: tried by storing.
    ///
    /// # Errors
    /// Why nothing can be.
    pub fn probe(&self, now: Timestamp) -> Stored<()> {
        self.write(now, |tx| {
            Ok(tx
                .execute("UPDATE instance SET id = 1 WHERE id = 1", [])
                .map(drop)?)
        })
    }

    /// Runs `look` on one snapshot of the database. Keep it short: a long reader makes the WAL grow, and
    /// there are eight in all; never look again from within it.
    ///
    /// # Errors
    /// What `look` gives.
    pub fn read<T>(&self, look: impl FnOnce(&View) -> Stored<T>) -> Stored<T> {
        let mut reader = self.readers.take();
        let snapshot = reader.open(&self.path)?.unchecked_transaction()?;
        // A reader that cannot be opened is another matter: it may want nothing but a descriptor.
        self.heed(look(&snapshot))
    }
}

/// The connections that read, shared by all threads.
#[derive(Default)]
struct Readers {
    pool: Mutex<Pool>,
    back: Condvar,
}

#[derive(Default)]
struct Pool {
    free: Vec<Connection>,
    taken: usize,
}

impl Readers {
    /// A reader for the time of one look; waits until one is free.
    fn take(&self) -> Reader<'_> {
        let mut pool = self
            .back
            .wait_while(guard(&self.pool), |pool| pool.taken >= READERS)
            .unwrap_or_else(PoisonError::into_inner);
        pool.taken += 1;
        Reader {
            connection: pool.free.pop(),
            readers: self,
        }
    }
}

/// One of the [`Readers`]; dropping it gives it back.
struct Reader<'r> {
    connection: Option<Connection>,
    readers: &'r Readers,
}

impl Reader<'_> {
    fn open(&mut self, path: &Path) -> Stored<&Connection> {
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
        pool.taken -= 1;
        drop(pool);
        self.readers.back.notify_one();
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held rolled its transaction back; the connection is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock that makes one daemon the only one of its database; held until dropped.
#[derive(Debug)]
pub struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes the lock beside the database at `path`: a file of its own, since closing a second
    /// descriptor of the database would drop SQLite's locks.
    ///
    /// # Errors
    /// When another daemon holds it, or the file cannot be made.
    pub fn take(path: &Path) -> Stored<Self> {
        make_private_folder_of(path)?;
        let path = beside(path, ".lock");
        let file = private()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| cannot("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Other(format!(
                "another batchkeeper serves this database (it holds {}); stop it first",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(cannot("lock", &path, &error)),
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Other(format!("cannot {what} {}: {error}", path.display()))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// A new folder is for its owner alone.
fn make_private_folder_of(path: &Path) -> Stored<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(folder, mode)
            .map_err(|error| cannot("protect", folder, &error))?;
    }
    Ok(())
}

/// A new database is for its owner alone; SQLite gives its WAL the same mode.
fn make_private_file(path: &Path) -> Stored<()> {
    make_private_folder_of(path)?;
    if !path.exists() {
        private()
            .create_new(true)
            .open(path)
            .map_err(|error| cannot("make", path, &error))?;
    }
    Ok(())
}

/// An error that only the file's name lets a person act on gets it: SQLite does not say it.
fn name(error: StoreError, path: &Path) -> StoreError {
    match error {
        StoreError::Busy(_) => StoreError::Busy(path.display().to_string()),
        StoreError::ReadOnly(_) => StoreError::ReadOnly(path.display().to_string()),
        error => error,
    }
}

fn database_id(connection: &Connection) -> Stored<Option<String>> {
    let id = connection.query_row("SELECT database_id FROM instance", [], |row| row.get(0));
    Ok(id.optional()?)
}

fn connect(path: &Path) -> Stored<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(128);
    // A statement is planned once: not anew for each value that a parameter of it has.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // So that room can be given back. It is for an empty file; in another, it would be a write.
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages == 0 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    use_wal(&connection)?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA cell_size_check = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -4000;",
    )?;
    connection.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
    Ok(connection)
}

/// The first time, this writes to the file. Where that fails, SQLite says so only by the mode that it
/// names, or after having named it: so its answer is read to the end.
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

/// The way back from an upgrade: a copy beside the database, which the operator removes.
fn back_up_before_upgrade(
    connection: &Connection,
    path: &Path,
    schema: i64,
    now: Timestamp,
) -> Stored<()> {
    let to = beside(path, &format!(".schema-{schema}.{}", now.to_compact_text()));
    let snapshot = connection.unchecked_transaction()?;
    let copied = backup::copy(&snapshot, &to, &mut |_, _| {}).map_err(|error| {
        StoreError::Other(format!(
            "no backup could be made, so the schema was not upgraded: {error}"
        ))
    })?;
    log::info!(
        event = "backed_up", before = "upgrade", schema, path:% = copied.path.display(),
        bytes = copied.bytes; ""
    );
    Ok(())
}

/// All migrations in one transaction (apart from it, a crash between one and its history row makes
/// the next start fail), with foreign keys off meanwhile and checked afterwards.
fn migrate(connection: &mut Connection, path: &Path, now: Timestamp) -> Stored<()> {
    let ours: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if ours != APPLICATION_ID && tables > 0 {
        return Err(StoreError::Other(
            "this SQLite file is not batchkeeper's; name another database".into(),
        ));
    }
    let migrations = embedded::migrations::runner();
    let known = migrations
        .get_migrations()
        .iter()
        .map(|migration| i64::from(migration.version()))
        .max()
        .unwrap_or(0);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Other(format!(
            "the database has schema {found}, this program knows {known}: start the newer program that made it, \
             or restore a backup from before"
        )));
    }
    if found == known {
        return Ok(());
    }
    if (1..FIRST_SCHEMA).contains(&found) {
        let old = path.display();
        return Err(StoreError::Other(format!(
            "the database has schema {found}, of the program before this one. Stop that program, then convert the \
             database into a new file: batchkeeper convert-database {old} {old}.converted"
        )));
    }
    if found > 0 {
        back_up_before_upgrade(connection, path, found, now)?;
    }
    // Ours from now on: a process killed within the next lines leaves what the next one goes on with.
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    migrations
        .set_grouped(true)
        .run(connection)
        .map_err(|error| {
            StoreError::Other(format!(
                "the schema could not be brought up to date: {error}"
            ))
        })?;
    let broken = connection.prepare("PRAGMA foreign_key_check")?.exists([])?;
    if broken {
        return Err(StoreError::Broken(
            "rows refer to rows that are not there (PRAGMA foreign_key_check)".into(),
        ));
    }
    connection.pragma_update(None, "user_version", known)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Asserts that a move found its row in the state that it starts from.
fn moved(changed: usize, what: impl FnOnce() -> String) -> Stored<()> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict(what()))
    }
}
