//! Runs the daemon until something ends it, then stops its threads in order.

use std::time::Duration;

use crossbeam_channel::{Receiver, select};
use sd_notify::NotifyState;

use super::systemd::notify_systemd;
use super::{Daemon, DaemonError, stop_signals};
use crate::base::thread_group::ThreadEnd;

/// How long threads may take to finish their current work when the daemon stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

impl Daemon {
    /// Serves until a signal arrives or `until` is closed, then stops.
    ///
    /// # Errors
    /// When a thread ended by itself, or the database failed.
    pub fn run(self, until: &Receiver<()>) -> Result<(), DaemonError> {
        let signals = stop_signals()?;
        notify_systemd(&[NotifyState::Ready]);
        let outcome = select! {
            recv(signals) -> signal => signal.map_err(|_| signals_ended()),
            recv(until) -> _ => Ok("its own end"),
            recv(self.thread_ends) -> end => Err(thread_ended(end.ok())),
            recv(self.store.broken()) -> what => Err(DaemonError::DatabaseBroken(what.unwrap_or_default())),
        };
        notify_systemd(&[NotifyState::Stopping]);
        match &outcome {
            Ok(cause) => log::info!(event = "stopping", cause; ""),
            Err(cause) => log::error!(event = "stopping", cause:%; ""),
        }
        self.stop();
        outcome.map(drop)
    }

    /// Lets every thread finish its transaction and end.
    fn stop(self) {
        drop(self.stop);
        for server in &self.servers {
            server.stop(SHUTDOWN_GRACE / 4);
        }
        if !self.group.join(SHUTDOWN_GRACE) {
            // The database holds the work of these threads, as after a crash.
            log::warn!(event = "stopped"; "with threads still in a call");
        }
        log::info!(event = "stopped"; "");
    }
}

fn thread_ended(end: Option<ThreadEnd>) -> DaemonError {
    end.map_or(DaemonError::AllThreadsEnded, DaemonError::ThreadEnded)
}

fn signals_ended() -> DaemonError {
    DaemonError::ThreadEnded(ThreadEnd {
        name: "signals".into(),
        panicked: false,
    })
}

/// Waits for a signal, or for a thread that ends by itself.
///
/// # Errors
/// When a thread ended.
pub fn wait_for_end<T>(signals: &Receiver<T>, thread_ends: &Receiver<ThreadEnd>) -> Result<(), DaemonError> {
    select! {
        recv(signals) -> _ => Ok(()),
        recv(thread_ends) -> end => Err(thread_ended(end.ok())),
    }
}
