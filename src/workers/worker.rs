//! The trait of a worker, the outcome of its tick, and how long rows are waited for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
pub use crate::domain::decide::backoff::backoff;
use crate::store::StoreError;
use crate::workers::wakeups::Topic;

/// The outcome of a tick: whether it did something, and when the next tick is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickOutcome {
    /// Whether the tick did something that may be work for other workers.
    pub worked: bool,
    /// The next tick comes after this time, or when the worker is woken.
    pub after: Duration,
}

impl TickOutcome {
    /// The tick did something, and there may be more to do.
    pub fn again() -> Self {
        Self {
            worked: true,
            after: Duration::ZERO,
        }
    }

    /// There is nothing to do for that time.
    pub fn idle(after: Duration) -> Self {
        Self { worked: false, after }
    }

    /// The tick did something, and there is nothing more to do for that time.
    pub fn worked(after: Duration) -> Self {
        Self { worked: true, after }
    }
}

/// How long a row is set aside that cannot be worked on because a row of it cannot be read.
pub const SET_ASIDE: Duration = Duration::from_mins(10);

/// `ENFILE` and `EMFILE`: clients of the listeners may hold all descriptors for a while.
const NO_DESCRIPTOR: [i32; 2] = [23, 24];

/// Why a tick could not go on. A failed call to OpenAI or to a receiver is no such error: it is stored with its
/// batch or delivery.
#[derive(Debug)]
pub enum WorkerError {
    /// The database.
    Store(StoreError),
    /// A file of the spool.
    Spool(std::io::Error),
}

impl WorkerError {
    /// Whether the tick can be tried again a little later. If not, the process must end.
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
    fn name(&self) -> &str;

    /// The topic that it notifies after a tick that did something; `None` if that is work for no other
    /// worker.
    fn notifies(&self) -> Option<Topic> {
        None
    }

    /// The topics that wake it. Work that no topic announces (a command of the CLI, for
    /// example) it finds after `steps.idle`.
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
    /// If the store or the spool fails; see [`WorkerError::passes`].
    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError>;
}

/// Starts another worker of the same kind. A worker that calls the outside has it started once its call is a committed
/// row, so that other calls do not wait for this one.
#[derive(Clone)]
pub struct Successor(Arc<dyn Fn() + Send + Sync>);

impl Successor {
    /// A successor that `start` starts.
    pub fn new(start: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(start))
    }

    /// Starts it.
    pub fn start(&self) {
        (self.0)();
    }
}

impl Default for Successor {
    /// No successor: the worker is the only one of its kind.
    fn default() -> Self {
        Self::new(|| {})
    }
}

/// Since when rows are waited for, on the steady clock. A wait does not change when the wall clock is set, and
/// begins again with a restart.
#[derive(Debug, Default)]
pub struct WaitTimes(HashMap<i64, Duration>);

impl WaitTimes {
    /// How long a row has been waited for; the first call begins the wait.
    pub fn waited(&mut self, row: i64, now: Moment) -> Duration {
        let since = *self.0.entry(row).or_insert(now.steady);
        now.steady.saturating_sub(since)
    }

    /// Ends the wait for a row.
    pub fn end(&mut self, row: i64) {
        self.0.remove(&row);
    }
}
