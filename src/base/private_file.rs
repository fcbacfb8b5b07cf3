//! Files that only the service's own user can read.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Creates an empty file with mode 0600, or empties the one that is there: it will hold clients' texts.
///
/// # Errors
/// When it cannot be created.
pub fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}
