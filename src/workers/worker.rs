//! What a step is: one bounded piece of work at a time; and how it hears of work.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::base::clock::Moment;
use crate::store::StoreError;

/// When a step wants to be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Whether something was done: others may find work in it.
    pub worked: bool,
    /// Wait this long at most, unless woken.
    pub after: Duration,
}

impl Next {
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

/// A new file of the spool, empty, for its owner alone: it holds clients' texts.
///
/// # Errors
/// When it cannot be made.
pub fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Why a tick could not go on. What OpenAI or a receiver does wrong is no such error: it is stored
/// with the batch or delivery that it happened to.
#[derive(Debug)]
pub enum StepError {
    /// The database.
    Store(StoreError),
    /// A file of the spool.
    Spool(std::io::Error),
}

impl StepError {
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

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Spool(error) => write!(f, "spool: {error}"),
        }
    }
}

impl std::error::Error for StepError {}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for StepError {
    fn from(error: std::io::Error) -> Self {
        Self::Spool(error)
    }
}

/// A worker: a function of the store, the clock and the outside. The daemon's threads run ticks; a
/// simulation runs the very same ticks in one thread.
pub trait Step: Send {
    /// Its name: of its thread, in the log and in `/health`.
    fn name(&self) -> &'static str;

    /// Does one bounded piece of work.
    ///
    /// # Errors
    /// When the store or the spool cannot be relied on; see [`StepError::passes`].
    fn tick(&mut self, now: Moment) -> Result<Next, StepError>;
}

/// The wait after `failures` failed calls in a row: doubled each time, 32 times `first` at most,
/// or what the other side asks for where that is longer.
pub fn backoff(first: Duration, failures: u32, asked: Option<Duration>) -> Duration {
    let doubled = first.saturating_mul(1 << failures.min(5));
    doubled.max(asked.unwrap_or(Duration::ZERO))
}

/// Since when rows are waited for, on the steady clock: setting the wall clock neither cuts a wait
/// short nor draws it out, a restart begins it anew.
#[derive(Debug, Default)]
pub struct Waits(HashMap<i64, Duration>);

impl Waits {
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

/// Who waits for work is told that there may be some. Losing a word costs a delay, never work.
#[derive(Clone, Default)]
pub struct Bells(Arc<Mutex<Vec<Bell>>>);

struct Bell {
    ringers: &'static [&'static str],
    rope: Sender<()>,
}

impl Bells {
    /// A bell of one's own, rung by these; it is gone when the receiver is dropped.
    pub fn hear(&self, ringers: &'static [&'static str]) -> Receiver<()> {
        let (rope, ear) = bounded(1);
        self.bells().push(Bell { ringers, rope });
        ear
    }

    /// Rings the bells of all who hear this one.
    pub fn ring(&self, ringer: &str) {
        self.bells().retain(|bell| {
            // One that has been rung already need not be rung again.
            !bell.ringers.contains(&ringer)
                || !matches!(bell.rope.try_send(()), Err(TrySendError::Disconnected(())))
        });
    }

    fn bells(&self) -> MutexGuard<'_, Vec<Bell>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
