//! The orders to the preloaded shim (`shim.c`), and its reports.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The errors (Linux) that a file operation may fail with.
pub const EIO: u32 = 5;
pub const ENOSPC: u32 = 28;

/// A moment of an HTTP call.
#[derive(Clone, Copy, Debug)]
pub enum OfCall {
    /// Nothing is sent.
    Before = 0,
    /// Everything is sent; the call may or may not have had its effect.
    Sent = 1,
    /// The call has had its effect, and its answer is not read yet.
    Answered = 2,
    /// The first bytes of the answer are read.
    Read = 3,
}

/// A moment of a transaction.
#[derive(Clone, Copy, Debug)]
pub enum OfCommit {
    /// Nothing of the transaction is in the WAL.
    Ahead = 0,
    /// A part of the transaction is in the WAL.
    Torn = 1,
    /// The whole transaction is in the WAL and synced.
    Done = 2,
}

/// What the shim does, and where. The patterns are those of fnmatch(3).
#[derive(Clone, Copy, Debug)]
pub enum Strike<'a> {
    /// SIGKILL at the `nth` call whose request line matches.
    Call(&'a str, u32, OfCall),
    /// SIGKILL at the `nth` transaction of the threads whose name matches.
    Commit(&'a str, u32, OfCommit),
    /// Each transaction of the threads whose name matches waits until the test lets it pass.
    Hold(&'a str),
    /// SIGKILL before the `nth` operation on a file of the data folder.
    KillAtFile(u32),
    /// The `nth` operation on a file of the data folder fails with this error; if `lasting`, all
    /// later operations fail too.
    FailFile { nth: u32, error: u32, lasting: bool },
}

const CALL: u32 = 1;
const COMMIT: u32 = 2;
const FILES: u32 = 3;
const HOLD: u32 = 4;

/// The size of the shim's `struct plan`: the mode, the orders, the reports and the pattern.
const LENGTH: usize = 8 * 4 + 200;
const PATTERN: usize = 32;
const NTH: u64 = 8;
const SEEN: u64 = 20;
const STRUCK: u64 = 24;
const SYNC: u64 = 28;

/// The compiled shim. Each test process compiles it once.
pub static SHIM: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = folder.join(format!("shim-{}.so", std::process::id()));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash/shim.c");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([made.as_os_str(), source.as_ref()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Another process may compile it at the same time: the rename replaces the file atomically.
    let shim = folder.join("shim.so");
    fs::rename(made, &shim).unwrap();
    shim
});

/// The file of orders, shared with the daemon.
pub struct Plan {
    pub path: PathBuf,
    file: File,
    data: PathBuf,
}

impl Plan {
    /// Creates the file without orders. `data` is the daemon's data folder.
    pub fn new(path: PathBuf, data: PathBuf) -> Self {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true);
        let file = file.open(&path).unwrap();
        file.write_all_at(&[0; LENGTH], 0).unwrap();
        Self { path, file, data }
    }

    /// Sets the orders. They take effect immediately.
    pub fn strike(&self, strike: Strike<'_>) {
        let files = format!("{}/*", self.data.display());
        let (mode, numbers, pattern) = match strike {
            Strike::Call(line, nth, moment) => (CALL, [moment as u32, nth, 0, 0], line),
            Strike::Commit(thread, nth, moment) => (COMMIT, [moment as u32, nth, 0, 0], thread),
            Strike::Hold(thread) => (HOLD, [0; 4], thread),
            Strike::KillAtFile(nth) => (FILES, [0, nth, 0, 0], files.as_str()),
            Strike::FailFile { nth, error, lasting } => {
                (FILES, [0, nth, u32::from(lasting), error], files.as_str())
            }
        };
        self.lift();
        let mut bytes = [0; LENGTH];
        for (at, number) in numbers.iter().enumerate() {
            bytes[4 + 4 * at..8 + 4 * at].copy_from_slice(&number.to_ne_bytes());
        }
        // A NUL byte ends the pattern.
        bytes[PATTERN..LENGTH - 1][..pattern.len()].copy_from_slice(pattern.as_bytes());
        self.file.write_all_at(&bytes[4..], 4).unwrap();
        // The mode is written last: the shim reads the other fields only after it.
        self.file.write_all_at(&mode.to_ne_bytes(), 0).unwrap();
    }

    /// Cancels the orders.
    pub fn lift(&self) {
        self.file.write_all_at(&0_u32.to_ne_bytes(), 0).unwrap();
    }

    /// Lets `transactions` transactions pass, counted from [`Plan::strike`].
    pub fn let_pass(&self, transactions: u32) {
        let bytes = transactions.to_ne_bytes();
        self.file.write_all_at(&bytes, NTH).unwrap();
    }

    /// How many calls, transactions or operations matched since [`Plan::strike`].
    pub fn seen(&self) -> u32 {
        self.number(SEEN)
    }

    /// How many of them the shim has struck.
    pub fn struck(&self) -> u32 {
        self.number(STRUCK)
    }

    /// Whether the operation that was struck last was a sync.
    pub fn struck_a_sync(&self) -> bool {
        self.number(SYNC) != 0
    }

    fn number(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        u32::from_ne_bytes(bytes)
    }
}
