//! A process of the binary, and functions that wait for its output.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use batchkeeper::base::clock::{Clock, SystemClock};
use crossbeam_channel::never;

use super::plan::{Plan, SHIM};
use super::{BINARY, PATIENCE};

/// Waits in real time.
pub fn pause(time: Duration) {
    never::<()>().recv_timeout(time).unwrap_or_default();
}

/// Calls `look` until it returns a value. `what` names the value in the failure.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    let started = clock.now().steady;
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = clock.now().steady.saturating_sub(started);
        assert!(waited < PATIENCE, "waited {waited:?} for {what}");
        pause(Duration::from_millis(2));
    }
}

/// A process of the binary. It is killed when it is dropped, and writes its output to a file of its
/// own.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) log: PathBuf,
}

impl Process {
    /// Starts the process. With a plan, the shim is preloaded.
    pub(super) fn start(args: &[&str], log: PathBuf, plan: Option<&Plan>) -> Self {
        let file = File::create(&log).unwrap();
        let mut command = Command::new(BINARY);
        if let Some(plan) = plan {
            command.env("LD_PRELOAD", SHIM.as_os_str());
            command.env("TORTURE_PLAN", &plan.path);
        }
        let child = command
            .args(args)
            // A killed process leaves its socket in this folder.
            .env("TMPDIR", log.parent().unwrap())
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// The first word after `mark` in the output.
    pub(super) fn word_after(&mut self, mark: &str) -> String {
        let word = self.word_after_or_exit(mark);
        word.unwrap_or_else(|status| panic!("ended with {status} before it printed {mark}"))
    }

    /// The first word after `mark`, or the status if the process ended first.
    pub(super) fn word_after_or_exit(&mut self, mark: &str) -> Result<String, ExitStatus> {
        let log = self.log.clone();
        until(mark, || {
            let ended = self.child.try_wait().unwrap();
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some((_, rest)) = text.split_once(mark) {
                // An incomplete line may end within the word.
                let (line, _) = rest.split_once('\n')?;
                let end = line.find([' ', ';']).unwrap_or(line.len());
                return Some(Ok(line[..end].to_owned()));
            }
            ended.map(Err)
        })
    }

    /// Sends SIGKILL.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub(super) fn ask_to_end(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end and returns the exit status.
    pub(super) fn end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the end of the process", || child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
