//! Files that only the service's own user may read.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Creates an empty file with mode 0600 for clients' texts. An existing file is emptied.
///
/// # Errors
/// If the file cannot be created.
pub fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}
