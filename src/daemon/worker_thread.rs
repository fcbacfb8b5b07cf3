//! The thread of one worker: ticks, waits, and wakes the workers for which there may be work.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};

use crate::base::clock::Clock;
use crate::base::thread_pool::PoolThread;
use crate::ops::Health;
use crate::workers::wakeups::Wakeups;
use crate::workers::worker::{Worker, WorkerError};

/// The wait after an error that may pass.
const ERROR_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between two ticks.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// How often the same error is logged. A full disk must not fill the journal.
const REPEAT_INTERVAL: Duration = Duration::from_mins(1);

/// A worker, and what its thread needs.
pub(super) struct WorkerThread {
    pub(super) name: String,
    pub(super) worker: Box<dyn Worker>,
    pub(super) woken: Receiver<()>,
    pub(super) stopped: Receiver<Infallible>,
    pub(super) wakeups: Wakeups,
    pub(super) health: Arc<Health>,
    pub(super) clock: Arc<dyn Clock>,
    /// Its place in a pool of workers of one kind; `None` if it is the only one.
    pub(super) pool: Option<Arc<PoolThread>>,
}

impl WorkerThread {
    /// Ticks until the daemon stops, until enough others of its kind wait for work, or until an error that cannot
    /// pass. Returns whether the daemon can go on without it.
    pub(super) fn run(mut self) -> bool {
        let mut last_error = None;
        loop {
            self.health.record_tick_start(&self.name);
            let wait = match self.worker.tick(self.clock.now()) {
                Ok(next) => {
                    let wait = next.after.min(LONGEST_WAIT);
                    self.health.record_tick_end(&self.name, wait, None);
                    if last_error.take().is_some() {
                        log::info!(event = "recovered", worker:% = self.name; "");
                    }
                    // Another one that wakes now must see that this one waits.
                    let ends = self.pool.as_ref().is_some_and(|thread| thread.end_work());
                    if next.worked {
                        self.worker
                            .notifies()
                            .into_iter()
                            .for_each(|topic| self.wakeups.notify(topic));
                    }
                    if ends {
                        self.health.forget(&self.name);
                        return true;
                    }
                    wait
                }
                Err(error) => match self.handle_error(&error, &mut last_error) {
                    Some(wait) => wait,
                    None => return false,
                },
            };
            let stopped = &self.stopped;
            if wait.is_zero() {
                select! {
                    recv(stopped) -> _ => return true,
                    default => continue,
                }
            }
            select! {
                recv(stopped) -> _ => return true,
                recv(self.woken) -> _ => {}
                default(wait) => {}
            }
        }
    }

    /// Logs an error and returns the wait after it; `None` if the daemon must end. `last_error` is the error
    /// that was logged last, and when.
    fn handle_error(
        &self,
        error: &WorkerError,
        last_error: &mut Option<(String, Duration)>,
    ) -> Option<Duration> {
        let (text, now) = (error.to_string(), self.clock.now().steady);
        let is_new = last_error
            .as_ref()
            .is_none_or(|(last, at)| *last != text || now.saturating_sub(*at) >= REPEAT_INTERVAL);
        if is_new || !error.passes() {
            log::error!(
                event = "trouble", worker:% = self.name, passes = error.passes(), error:% = text;
                ""
            );
            *last_error = Some((text.clone(), now));
        }
        self.health.record_tick_end(&self.name, ERROR_WAIT, Some(text));
        error.passes().then_some(ERROR_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{bounded, never};

    use super::*;
    use crate::base::clock::{Moment, SystemClock};
    use crate::base::thread_group::ThreadGroup;
    use crate::daemon::wait_for_end;
    use crate::store::{Store, StoreError};
    use crate::workers::worker::TickOutcome;

    /// Ticks without an error, then ends.
    struct Doomed {
        ticks: u32,
        end: fn() -> WorkerError,
    }

    impl Worker for Doomed {
        fn name(&self) -> &'static str {
            "doomed"
        }

        fn tick(&mut self, _: Moment) -> Result<TickOutcome, WorkerError> {
            self.ticks -= 1;
            match self.ticks {
                0 => Err((self.end)()),
                _ => Ok(TickOutcome::again()),
            }
        }
    }

    /// The daemon's error when a worker ends like this, and the error in its health.
    fn daemon_error(end: fn() -> WorkerError) -> (String, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(SystemClock::new());
        let store = Store::open(&folder.path().join("a.db"), clock.now().wall).expect("a store");
        let health = Arc::new(Health::new(Arc::new(store), clock.clone(), Arc::default()));
        let (group, endings) = ThreadGroup::new();
        let (_running, stopped) = bounded(0);
        let wakeups = Wakeups::default();
        let thread = WorkerThread {
            name: "doomed".into(),
            worker: Box::new(Doomed { ticks: 3, end }),
            woken: wakeups.subscribe(&[]),
            stopped,
            wakeups,
            health: health.clone(),
            clock,
            pool: None,
        };
        group
            .spawn_temporary("doomed", move || thread.run())
            .expect("a thread");
        let ended = wait_for_end(&never::<()>(), &endings).expect_err("it ends by itself");
        (
            ended.to_string(),
            health.threads()[0].error.clone().unwrap_or_default(),
        )
    }

    #[test]
    fn a_panic_in_a_worker_ends_the_daemon() {
        let (error, _) = daemon_error(|| panic!("as this test wants"));
        assert!(error.contains("thread doomed panicked"), "{error}");
    }

    #[test]
    fn an_error_that_cannot_pass_ends_the_daemon() {
        let broken = || WorkerError::from(StoreError::Broken("a page".into()));
        let (error, trouble) = daemon_error(broken);
        assert!(error.contains("thread doomed ended"), "{error}");
        assert!(trouble.contains("a page"), "{trouble}");
    }
}
