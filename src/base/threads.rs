//! The one place that makes threads: each has a name, and its end is seen.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// The word of a thread that has ended, sent also when it panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The thread's name.
    pub name: String,
    /// Whether a panic ended it.
    pub panicked: bool,
}

/// The threads that must all live for the process to be whole. Clones share the same group.
#[derive(Clone, Debug)]
pub struct ThreadGroup {
    handles: Arc<Mutex<Vec<JoinHandle<()>>>>,
    ended: Sender<Ended>,
}

impl ThreadGroup {
    /// An empty group, and where the end of each of its threads is told.
    pub fn new() -> (Self, Receiver<Ended>) {
        let (ended, endings) = unbounded();
        (
            Self {
                handles: Arc::default(),
                ended,
            },
            endings,
        )
    }

    /// Starts a thread under `name` (seen in `ps -T`, the log and `/health`).
    ///
    /// # Errors
    /// When the machine gives no further thread.
    pub fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let last_word = LastWord {
            name: name.to_owned(),
            ended: self.ended.clone(),
        };
        let handle = spawn(name, move || {
            let _last_word = last_word;
            run();
        })?;
        self.handles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(handle);
        Ok(())
    }

    /// Waits until every thread has ended, `within` at most; false when some still run.
    pub fn join(&self, within: Duration) -> bool {
        let handles =
            std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        let (done, all_done) = bounded::<()>(1);
        let joiner = spawn("joiner", move || {
            for handle in handles {
                // A panic has been told by the thread's last word.
                drop(handle.join());
            }
            drop(done);
        });
        joiner.is_ok()
            && all_done.recv_timeout(within)
                == Err(crossbeam_channel::RecvTimeoutError::Disconnected)
    }
}

struct LastWord {
    name: String,
    ended: Sender<Ended>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let word = Ended {
            name: std::mem::take(&mut self.name),
            panicked: thread::panicking(),
        };
        // Nobody listens any more only when the process is ending.
        drop(self.ended.send(word));
    }
}

/// Starts a thread that belongs to no group: one connection's, a test's.
///
/// # Errors
/// When the machine gives no further thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(run)
}
