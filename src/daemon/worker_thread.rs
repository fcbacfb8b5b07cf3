//! The thread of one worker: ticks, waits, and wakes the workers for which there may be work.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};

use crate::base::clock::Clock;
use crate::ops::Health;
use crate::workers::wakeups::Wakeups;
use crate::workers::worker::{Worker, WorkerError};

/// The wait after an error that passes.
const RECOVER: Duration = Duration::from_secs(1);
/// The longest that a step waits without looking.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// How often the same trouble is logged: a full disk must not fill the journal.
const SAID_AGAIN: Duration = Duration::from_mins(1);

/// One worker, and what its thread needs.
pub(super) struct WorkerThread {
    pub(super) name: String,
    pub(super) worker: Box<dyn Worker>,
    pub(super) woken: Receiver<()>,
    pub(super) stopped: Receiver<Infallible>,
    pub(super) wakeups: Wakeups,
    pub(super) health: Arc<Health>,
    pub(super) clock: Arc<dyn Clock>,
}

impl WorkerThread {
    /// Ticks until the daemon stops, or until an error that does not pass.
    pub(super) fn run(mut self) {
        let mut said = None;
        loop {
            self.health.begins(&self.name);
            let wait = match self.worker.tick(self.clock.now()) {
                Ok(next) => {
                    let wait = next.after.min(LONGEST_WAIT);
                    self.health.ends(&self.name, wait, None);
                    if said.take().is_some() {
                        log::info!(event = "recovered", worker:% = self.name; "");
                    }
                    if next.worked {
                        self.worker
                            .notifies()
                            .into_iter()
                            .for_each(|topic| self.wakeups.notify(topic));
                    }
                    wait
                }
                Err(error) => match self.trouble(&error, &mut said) {
                    Some(wait) => wait,
                    None => return,
                },
            };
            let stopped = &self.stopped;
            if wait.is_zero() {
                select! {
                    recv(stopped) -> _ => return,
                    default => continue,
                }
            }
            select! {
                recv(stopped) -> _ => return,
                recv(self.woken) -> _ => {}
                default(wait) => {}
            }
        }
    }

    /// How long to wait after an error; none: the daemon must end. `said`: what was logged last, and
    /// when.
    fn trouble(
        &self,
        error: &WorkerError,
        said: &mut Option<(String, Duration)>,
    ) -> Option<Duration> {
        let (text, now) = (error.to_string(), self.clock.now().steady);
        let is_new = said
            .as_ref()
            .is_none_or(|(last, at)| *last != text || now.saturating_sub(*at) >= SAID_AGAIN);
        if is_new || !error.passes() {
            log::error!(
                event = "trouble", worker:% = self.name, passes = error.passes(), error:% = text;
                ""
            );
            *said = Some((text.clone(), now));
        }
        self.health.ends(&self.name, RECOVER, Some(text));
        error.passes().then_some(RECOVER)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{bounded, never};

    use super::*;
    use crate::base::clock::{Moment, SystemClock};
    use crate::base::thread_group::ThreadGroup;
    use crate::daemon::wait_for_the_end;
    use crate::store::{Store, StoreError};
    use crate::workers::worker::TickOutcome;

    /// Ticks well so often, then ends as it must not.
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

    /// The word of the daemon on a step that ends so, and what its health says of it.
    fn last_word(end: fn() -> WorkerError) -> (String, String) {
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
        };
        group
            .spawn("doomed", move || thread.run())
            .expect("a thread");
        let ended = wait_for_the_end(&never::<()>(), &endings).expect_err("it ends unasked");
        (
            ended,
            health.vitals()[0].trouble.clone().unwrap_or_default(),
        )
    }

    #[test]
    fn a_panic_in_a_step_is_the_daemons_end() {
        let (word, _) = last_word(|| panic!("as this test wants"));
        assert!(word.contains("thread doomed panicked"), "{word}");
    }

    #[test]
    fn an_error_that_does_not_pass_is_the_daemons_end() {
        let broken = || WorkerError::from(StoreError::Broken("a page".into()));
        let (word, trouble) = last_word(broken);
        assert!(word.contains("thread doomed ended"), "{word}");
        assert!(trouble.contains("a page"), "{trouble}");
    }
}
