//! The code blocks of Markdown pages, and a shell that runs them as a reader would.
#![allow(dead_code, reason = "each test file uses the part of it that it needs")]
#![allow(
    clippy::unwrap_used,
    reason = "clippy does not count the helpers of an integration test as tests"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// Seconds after which a page's shell is ended.
const LIMIT: &str = "300";

/// A fenced code block.
#[derive(Clone, Copy, Debug)]
pub struct Block<'p> {
    /// The language after the fence.
    pub language: &'p str,
    /// What follows the language.
    pub info: &'p str,
    /// The lines of the block.
    pub text: &'p str,
}

/// The code blocks of a page, in order.
pub fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut rest = page;
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once("\n```") {
        let (fence, after) = after.split_once('\n').unwrap();
        let end = after.find("```\n").unwrap();
        let (language, info) = fence.split_once(' ').unwrap_or((fence, ""));
        found.push(Block {
            language,
            info,
            text: &after[..end],
        });
        // The line end stays: a fence begins after one.
        rest = &after[end + "```".len()..];
    }
    found
}

/// A section of a page, from its heading to the next one of the same level.
pub fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, text) = page.split_once(&format!("\n{heading}\n")).unwrap();
    let level = heading.split(' ').next().unwrap();
    text.split(&format!("\n{level} ")).next().unwrap()
}

/// A folder in which the blocks of a page run. The pages name 127.0.0.1; each folder has an address of its own
/// in its place, so that pages run side by side and meet no other program.
pub struct Reader {
    pub folder: TempDir,
    pub address: String,
}

impl Reader {
    /// A folder with the examples, as in a checkout.
    pub fn new() -> Self {
        static READERS: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        std::os::unix::fs::symlink(examples, folder.path().join("examples")).unwrap();
        let number = std::process::id() * 16 + READERS.fetch_add(1, Ordering::Relaxed);
        let byte = |power: u32| 1 + number / 250_u32.pow(power) % 250;
        Self {
            folder,
            address: format!("127.{}.{}.{}", byte(2), byte(1), byte(0)),
        }
    }

    /// A text of a page with the folder's address. Where a block runs `init` or the sandbox, the test's own
    /// lines and options bring the address there.
    pub fn place(&self, text: &str) -> String {
        let address = &self.address;
        let mut placed = String::new();
        for line in text.replace("127.0.0.1", address).split_inclusive('\n') {
            let line = line.replace(
                "batchkeeper sandbox ",
                &format!("batchkeeper sandbox --listen {address}:9090 "),
            );
            placed.push_str(&line);
            if line.starts_with("batchkeeper init ") {
                let folder = line.trim_end().rsplit(' ').next().unwrap();
                placed.push_str(&format!(
                    "sed -i 's/127\\.0\\.0\\.1/{address}/g' {folder}/*.*\n\
                     sed -i '1i listen = \"{address}:8080\"\\nops_listen = \"{address}:8081\"' {folder}/config.toml\n"
                ));
            }
        }
        placed
    }

    /// Runs a script in bash with the program on its PATH. Everything that it has started is killed at its end.
    pub fn run(&self, script: &str) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_batchkeeper"));
        let path = format!(
            "{}:{}",
            program.parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let script = format!("trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{script}");
        Command::new("timeout")
            .args([
                "--kill-after=5",
                LIMIT,
                "bash",
                "-eu",
                "-o",
                "pipefail",
                "-c",
                &script,
            ])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("OPENAI_API_KEY", "sk-of-the-test")
            .env_remove("BATCHKEEPER_CONFIG")
            .env_remove("RUST_LOG")
            .output()
            .unwrap()
    }

    /// A file of the folder as text; empty if there is none.
    pub fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Whether a program is installed.
pub fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(if program == "go" { "version" } else { "--version" });
    command.output().is_ok_and(|ran| ran.status.success())
}
