//! The only place that starts threads. Each thread has a name, and a [`ThreadGroup`] reports the end of its
//! threads.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

/// The end of a thread of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadEnd {
    /// The thread's name.
    pub name: String,
    /// Whether a panic ended it.
    pub panicked: bool,
}

/// Threads that the process cannot do without. Clones share the same group.
#[derive(Clone, Debug)]
pub struct ThreadGroup {
    handles: Arc<Mutex<Vec<JoinHandle<()>>>>,
    ends: Sender<ThreadEnd>,
}

impl ThreadGroup {
    /// Creates an empty group, and the channel that reports the end of each of its threads.
    pub fn new() -> (Self, Receiver<ThreadEnd>) {
        let (ends, reported_ends) = unbounded();
        let group = Self {
            handles: Arc::default(),
            ends,
        };
        (group, reported_ends)
    }

    /// Starts a thread of this group. `ps -T`, the log and `/health` show its name.
    ///
    /// # Errors
    /// If the system refuses a further thread.
    pub fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.spawn_temporary(name, move || {
            run();
            false
        })
    }

    /// Starts a thread of this group that may end. `run` returns whether the process can do without it from then on;
    /// then its end is not reported.
    ///
    /// # Errors
    /// If the system refuses a further thread.
    pub fn spawn_temporary(
        &self,
        name: &str,
        run: impl FnOnce() -> bool + Send + 'static,
    ) -> std::io::Result<()> {
        let end_reporter = EndReporter {
            name: name.to_owned(),
            ends: self.ends.clone(),
            is_expected: false,
        };
        let handle = spawn_ungrouped(name, move || {
            let mut end_reporter = end_reporter;
            end_reporter.is_expected = run();
        })?;
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.retain(|handle| !handle.is_finished());
        handles.push(handle);
        Ok(())
    }

    /// Waits at most `within` until every thread has ended. Returns false if some threads still run.
    pub fn join(&self, within: Duration) -> bool {
        let handles = std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        let (done, all_done) = bounded::<()>(1);
        let joiner = spawn_ungrouped("joiner", move || {
            for handle in handles {
                // The thread's `EndReporter` has reported a panic already.
                drop(handle.join());
            }
            drop(done);
        });
        joiner.is_ok() && all_done.recv_timeout(within) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Reports the end of its thread when dropped. A panic drops it, too.
struct EndReporter {
    name: String,
    ends: Sender<ThreadEnd>,
    /// Whether the process can do without the thread.
    is_expected: bool,
}

impl Drop for EndReporter {
    fn drop(&mut self) {
        if self.is_expected {
            return;
        }
        let end = ThreadEnd {
            name: std::mem::take(&mut self.name),
            panicked: thread::panicking(),
        };
        // Sending fails only if the process is ending and has dropped the receiver.
        drop(self.ends.send(end));
    }
}

/// Starts a thread that belongs to no group, such as the thread of one connection.
///
/// # Errors
/// If the system refuses a further thread.
pub fn spawn_ungrouped<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(run)
}
