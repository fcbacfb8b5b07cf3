//! How much room there is beside the database, and within it.

use super::{Store, Stored, Tx, View, cannot};

/// Free pages that are kept to be used again: a part of the file's pages. A file in which as much
/// comes in as goes stays as it is.
const KEPT_PART: u64 = 4;
/// Free pages below this are not worth the work: 4 MB.
const WORTH_IT: u64 = 1024;
/// Pages of one transaction, a megabyte: some milliseconds.
const AT_ONCE: u32 = 256;

impl Store {
    /// Bytes that may still be written to the disk that holds the database.
    ///
    /// # Errors
    /// When the disk cannot be asked.
    pub fn room(&self) -> Stored<u64> {
        let disk = rustix::fs::statvfs(self.path())
            .map_err(|error| cannot("look at the disk of", self.path(), &error.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Whether more of the file is free than is worth keeping, and can be given back: not in a file that an
/// early program made, until a `VACUUM` with `PRAGMA auto_vacuum = INCREMENTAL`.
pub fn is_to_spare(view: &View) -> Stored<bool> {
    let cell = |sql: &str| view.query_row(sql, [], |row| row.get::<_, u64>(0));
    let free = cell("PRAGMA freelist_count")?;
    Ok(free > WORTH_IT
        && free > cell("PRAGMA page_count")? / KEPT_PART
        && cell("PRAGMA auto_vacuum")? == 2)
}

/// Gives some free pages back to the system, from the file's end; the file is cut at the next checkpoint.
pub fn give_back(tx: &Tx<'_>) -> Stored<()> {
    let mut pages = tx.prepare_cached(&format!("PRAGMA incremental_vacuum({AT_ONCE})"))?;
    let mut freed = pages.query([])?;
    // Every step frees a page.
    while freed.next()?.is_some() {}
    Ok(())
}
