//! The settings of glibc's allocator for the daemon.
//!
//! By default, each of many threads keeps an arena of its own, and a freed block of some megabytes raises the
//! size up to which blocks stay in an arena. After a few large requests the process would hold hundreds of
//! megabytes for nothing. glibc reads these settings from the environment, at the start of a program only.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable that glibc reads.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// Few arenas, and blocks from 256 KiB on are mapped one by one and given back when they are freed.
const SETTINGS: &str =
    "glibc.malloc.arena_max=4:glibc.malloc.mmap_threshold=262144:glibc.malloc.trim_threshold=262144";

/// Starts this program again in the same process with the settings, unless the environment has some.
///
/// # Errors
/// If the program cannot be started again. It runs on without the settings then.
pub(super) fn apply() -> io::Result<()> {
    if env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let mut command = Command::new(env::current_exe()?);
    let error = command
        .args(env::args_os().skip(1))
        .env(VARIABLE, SETTINGS)
        .exec();
    Err(error)
}
