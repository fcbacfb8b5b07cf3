//! Free space: on the disk of the database, and inside its file.

use super::error::cannot;
use super::{Store, Stored, Tx, View};

/// The part of a file's pages that may stay free. New rows use those pages again.
const KEPT_PART: u64 = 4;
/// Fewer free pages than this are kept: 4 MB.
const LEAST_PAGES: u64 = 1024;
/// Pages that one transaction gives back: a megabyte, which takes some milliseconds.
const PAGES_A_TRANSACTION: u32 = 256;

impl Store {
    /// Bytes that can still be written to the disk of the database.
    ///
    /// # Errors
    /// If the file system cannot be read.
    pub fn free_bytes(&self) -> Stored<u64> {
        let disk = rustix::fs::statvfs(self.path())
            .map_err(|error| cannot("look at the disk of", self.path(), &error.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Whether the file has more free pages than it should keep, and can give them back.
pub fn has_surplus_pages(view: &View) -> Stored<bool> {
    let number = |sql: &str| view.query_row(sql, [], |row| row.get::<_, u64>(0));
    let free = number("PRAGMA freelist_count")?;
    let is_incremental = number("PRAGMA auto_vacuum")? == 2;
    Ok(is_incremental && free > LEAST_PAGES && free > number("PRAGMA page_count")? / KEPT_PART)
}

/// Gives some free pages at the end of the file back. The next checkpoint shortens the file.
pub fn give_back_pages(tx: &Tx<'_>) -> Stored<()> {
    let mut pages = tx.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_A_TRANSACTION})"))?;
    let mut freed = pages.query([])?;
    // Each row of the result frees one page.
    while freed.next()?.is_some() {}
    Ok(())
}
