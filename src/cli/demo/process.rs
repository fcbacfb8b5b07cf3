//! The daemon of the demo, as a process of its own that can be killed.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::CommandError;

/// A daemon that runs `serve`. It is killed when it is dropped.
pub(super) struct DaemonProcess {
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl DaemonProcess {
    /// A daemon that does not run yet. Its log is appended to `log`.
    pub(super) fn new(config: PathBuf, log: PathBuf) -> Self {
        Self {
            config,
            log,
            child: None,
        }
    }

    pub(super) fn start(&mut self) -> Result<(), CommandError> {
        let program = std::env::current_exe()?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether the daemon has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().map(Child::try_wait);
        !matches!(ended, None | Some(Ok(None)))
    }

    /// Ends the daemon as a power cut would: with SIGKILL.
    pub(super) fn kill(&mut self) -> Result<(), CommandError> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends the daemon in order: with SIGTERM.
    pub(super) fn stop(&mut self) -> Result<(), CommandError> {
        if let Some(mut child) = self.child.take() {
            if let Some(id) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                kill_process(id, Signal::TERM).map_err(std::io::Error::from)?;
            }
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            log::warn!("the demo's daemon was not ended: {error}");
        }
    }
}
