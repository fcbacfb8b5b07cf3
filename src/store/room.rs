//! How much room there is beside the database.

use super::{Store, Stored, cannot};

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
