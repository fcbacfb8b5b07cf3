//! What a worker is, what a tick of it reports, and how long it backs off.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::base::clock::Moment;
pub use crate::domain::decide::backoff::backoff;
use crate::store::StoreError;
use crate::workers::wakeups::Topic;

/// What a tick reports: whether it did something, and when the next one is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickOutcome {
    /// Whether something was done: others may find work in it.
    pub worked: bool,
    /// Wait this long at most, unless woken.
    pub after: Duration,
}

impl TickOutcome {
    /// Something was done, and there may be more.
    pub fn again() -> Self {
        Self {
            worked: true,
            after: Duration::ZERO,
        }
    }

    /// Nothing to do before that.
    pub fn idle(after: Duration) -> Self {
        Self {
            worked: false,
            after,
        }
    }

    /// Something was done; nothing more before that.
    pub fn worked(after: Duration) -> Self {
        Self {
            worked: true,
            after,
        }
    }
}

/// `ENFILE` and `EMFILE`: clients of the listeners may hold all descriptors for a while.
const NO_DESCRIPTOR: [i32; 2] = [23, 24];

/// Why a tick could not go on. What OpenAI or a receiver does wrong is no such error: it is stored
/// with the batch or delivery that it happened to.
#[derive(Debug)]
pub enum WorkerError {
    /// The database.
    Store(StoreError),
    /// A file of the spool.
    Spool(std::io::Error),
}

impl WorkerError {
    /// Whether to try again a little later; otherwise the process must end.
    pub fn passes(&self) -> bool {
        match self {
            Self::Store(error) => error.passes(),
            Self::Spool(error) => {
                matches!(
                    error.kind(),
                    std::io::ErrorKind::StorageFull
                        | std::io::ErrorKind::QuotaExceeded
                        | std::io::ErrorKind::Interrupted
                ) || error
                    .raw_os_error()
                    .is_some_and(|code| NO_DESCRIPTOR.contains(&code))
            }
        }
    }
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Spool(error) => write!(f, "spool: {error}"),
        }
    }
}

impl std::error::Error for WorkerError {}

impl From<StoreError> for WorkerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for WorkerError {
    fn from(error: std::io::Error) -> Self {
        Self::Spool(error)
    }
}

/// A worker: a function of the store, the clock and one outside system. The daemon runs its ticks on a
/// thread; the simulation runs the same ticks in one thread.
pub trait Worker: Send {
    /// The name of its thread, in the log and in `/health`.
    fn name(&self) -> &'static str;

    /// The topic that it notifies after a tick that did something; `None` if that is work for no other
    /// worker.
    fn notifies(&self) -> Option<Topic> {
        None
    }

    /// The topics that wake it. What it cannot hear of (a command of the CLI, say) it finds when it looks
    /// next, after `steps.idle`.
    fn subscriptions(&self) -> &'static [Topic] {
        &[]
    }

    /// How long a tick may take before the worker counts as stuck.
    fn longest_tick(&self) -> Duration {
        Duration::from_mins(30)
    }

    /// Does one bounded piece of work.
    ///
    /// # Errors
    /// When the store or the spool cannot be relied on; see [`WorkerError::passes`].
    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError>;
}

/// Since when rows are waited for, on the steady clock: setting the wall clock neither cuts a wait
/// short nor draws it out, a restart begins it anew.
#[derive(Debug, Default)]
pub struct WaitTimes(HashMap<i64, Duration>);

impl WaitTimes {
    /// How long a row has been waited for; the first call begins the wait.
    pub fn waited(&mut self, row: i64, now: Moment) -> Duration {
        let since = *self.0.entry(row).or_insert(now.steady);
        now.steady.saturating_sub(since)
    }

    /// The row is not waited for any more.
    pub fn end(&mut self, row: i64) {
        self.0.remove(&row);
    }
}
