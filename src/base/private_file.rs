//! Files that only the service's own user may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Creates an empty file with mode 0600. A file of that name is removed first, and a symbolic link is not
/// followed: another user may have put it there.
///
/// # Errors
/// If the file cannot be created, or another process creates it at the same moment.
pub fn create_private(path: &Path) -> std::io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    private().create_new(true).open(path)
}

/// Makes a folder with mode 0700. A folder that is there keeps its mode, if it belongs to this user and is no
/// symbolic link.
///
/// # Errors
/// If it is something else, or cannot be made.
pub fn make_private_folder(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let message = "it must be a folder of the service's own user, and no symbolic link";
        return Err(std::io::Error::new(ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Options that open a file for its owner alone, and follow no symbolic link.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_prepared_file_or_link_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (target, path) = (folder.path().join("target"), folder.path().join("file"));
        fs::write(&target, "kept").unwrap();
        symlink(&target, &path).unwrap();
        assert!(private().open(&path).is_err());
        drop(create_private(&path).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"kept");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        drop(create_private(&path).unwrap());
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
}
