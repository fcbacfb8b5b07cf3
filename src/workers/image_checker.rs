//! ImageChecker are looked at before OpenAI is paid to: a lot goes on without those that are missing, and
//! fails alone when none, or too few, can be had.
//!
//! A tick takes in what the crew has found, gives the lots of which everything is known their
//! verdict, and asks for the rest. What is known is in the database: a restart does not look again.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::alert::PauseScope;
use crate::outbound::probe_pool::{ProbePool, ProbeResult};
use crate::store::images::{self, DueLot};
use crate::store::{Store, Stored, View, alerts, batches, settle};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// Lots looked at in one tick.
const LOTS: usize = 500;
/// Of these, lots of one job: however large one is, others go on beside it.
const LOTS_OF_A_JOB: u32 = 50;
/// A lot fails when more than so many percent of its images are missing.
const MAX_MISSING: usize = 30;
/// How long what was found of an image before a lot came is taken to be so still.
const FRESH: Duration = Duration::from_mins(5);
/// How long it is kept: a hundred images of a host that hangs take seven minutes, and what was found of the
/// first must be known with the last.
const KEPT: Duration = Duration::from_hours(1);
/// How long a tick waits for the crew.
const WAIT: Duration = Duration::from_millis(100);

/// See the module.
pub struct ImageChecker {
    store: Arc<Store>,
    probes: ProbePool,
    config: Arc<Config>,
    /// The job whose lots were looked at last.
    last_job: i64,
}

/// A lot of which everything is known.
struct Verdict {
    lot: DueLot,
    missing: Vec<String>,
    first_problem: String,
}

impl ImageChecker {
    /// A checker that has not looked at any lot yet.
    pub fn new(store: Arc<Store>, probes: ProbePool, config: Arc<Config>) -> Self {
        Self {
            store,
            probes,
            config,
            last_job: 0,
        }
    }

    fn keep(&self, found: &[ProbeResult], now: Moment) -> Stored<()> {
        if found.is_empty() {
            return Ok(());
        }
        self.store.write(now.wall, |tx| {
            for ProbeResult { url, outcome } in found {
                let problem = outcome.as_ref().err().map(ToString::to_string);
                images::record_check(tx, url, problem.as_deref())?;
            }
            images::forget(tx, now.wall.before(KEPT), found.len() * 2)
        })
    }

    /// Whether OpenAI may have answered what stands here as waiting, as after a restore: images that were
    /// there then may be gone now, and no lot fails for that.
    fn may_be_answered(&self) -> Stored<bool> {
        self.store.read(|view| {
            let stopped = alerts::paused(view, &PauseScope::Creates)?.is_some();
            Ok(stopped || !batches::is_compared(view)?)
        })
    }

    fn give(&self, verdicts: &[Verdict], now: Moment) -> Stored<()> {
        self.store.write(now.wall, |tx| {
            for verdict in verdicts {
                let Verdict {
                    lot,
                    missing,
                    first_problem,
                } = verdict;
                images::mark_checked(tx, lot, missing)?;
                if verdict.fails() {
                    let reason = format!(
                        "IMAGE_UNREACHABLE: {} of {} images cannot be fetched: {first_problem}",
                        missing.len(),
                        lot.images.len()
                    );
                    settle::fail_unsent(tx, lot.request, &reason)?;
                }
            }
            Ok(())
        })
    }
}

/// A lot's verdict, or the images of it that nothing is known of.
fn judge(view: &View, lot: DueLot, now: Moment) -> Stored<Result<Verdict, Vec<String>>> {
    let fresh = now.wall.before(FRESH);
    // A time in the future is one of a clock that was set back.
    let since = match lot.again && lot.since <= now.wall {
        true => lot.since,
        false => lot.since.min(fresh),
    };
    let (mut missing, mut unknown) = (Vec::new(), Vec::new());
    let mut first_problem = None;
    for url in &lot.images {
        match images::known(view, url, since, now.wall)? {
            None => unknown.push(url.clone()),
            Some(None) => {}
            Some(Some(problem)) => {
                first_problem.get_or_insert(problem);
                missing.push(url.clone());
            }
        }
    }
    if !unknown.is_empty() {
        return Ok(Err(unknown));
    }
    Ok(Ok(Verdict {
        lot,
        missing,
        first_problem: first_problem.unwrap_or_default(),
    }))
}

impl Verdict {
    fn fails(&self) -> bool {
        let (missing, all) = (self.missing.len(), self.lot.images.len());
        missing == all || missing * 100 > all * MAX_MISSING
    }
}

impl Worker for ImageChecker {
    fn name(&self) -> &'static str {
        "image_checker"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::ImagesChecked)
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[
            Topic::BatchJobStored,
            Topic::SynchronousJobStored,
            Topic::ResultsIngested,
        ]
    }

    fn longest_tick(&self) -> Duration {
        // A tick is bounded by the time limits of its checks.
        Duration::from_hours(2)
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        // The crew is waited for once a round: the jobs beyond this tick's are looked at before that.
        let wait = if self.last_job == 0 {
            WAIT
        } else {
            Duration::ZERO
        };
        let found = self.probes.take_results(wait);
        self.keep(&found, now)?;
        let (mut verdicts, unknown, last_job) = self.store.read(|view| {
            let (lots, last_job) = images::due(view, self.last_job, LOTS, LOTS_OF_A_JOB)?;
            let (mut verdicts, mut unknown) = (Vec::new(), Vec::new());
            for lot in lots {
                match judge(view, lot, now)? {
                    Ok(verdict) => verdicts.push(verdict),
                    Err(urls) => unknown.extend(urls),
                }
            }
            Ok((verdicts, unknown, last_job))
        })?;
        let whole_round = self.last_job == 0 && last_job.is_none();
        self.last_job = last_job.unwrap_or(0);
        unknown.iter().for_each(|url| self.probes.request(url));
        if verdicts.iter().any(Verdict::fails) && self.may_be_answered()? {
            verdicts.retain(|verdict| !verdict.fails());
        }
        if !verdicts.is_empty() {
            self.give(&verdicts, now)?;
            return Ok(TickOutcome::again());
        }
        let nothing = unknown.is_empty() && whole_round;
        Ok(TickOutcome::idle(if nothing {
            self.config.steps.idle
        } else {
            Duration::ZERO
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    fn at(seconds: u64) -> Moment {
        Moment {
            wall: Timestamp::from_seconds(1_700_000_000) + Duration::from_secs(seconds),
            steady: Duration::from_secs(seconds),
        }
    }

    fn lot(since: Moment, again: bool) -> DueLot {
        DueLot {
            request: 1,
            lot: 1,
            images: vec![
                "https://a.example/1.jpg".into(),
                "https://a.example/2.jpg".into(),
            ],
            since: since.wall,
            again,
        }
    }

    #[test]
    fn what_was_found_of_the_first_image_is_known_with_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("a.db"), at(0).wall).expect("a store");
        let find = |url: &str, now: Moment| {
            store
                .write(now.wall, |tx| {
                    images::record_check(tx, url, Some("it hangs"))?;
                    images::forget(tx, now.wall.before(KEPT), 10)
                })
                .expect("a write");
        };
        let unknown = |lot: DueLot, now: Moment| {
            let judged = store.read(|view| judge(view, lot, now));
            judged
                .expect("a read")
                .map_or_else(|urls| urls.len(), |_| 0)
        };
        find("https://a.example/1.jpg", at(60));
        assert_eq!(unknown(lot(at(0), false), at(60)), 1);
        // A host that hangs: the second image's time-out comes long after the first one's.
        find("https://a.example/2.jpg", at(1200));
        assert_eq!(unknown(lot(at(0), false), at(1200)), 0);
        // For a lot that came later it is old; for one that OpenAI could not fetch, what was before is.
        assert_eq!(unknown(lot(at(1100), false), at(1200)), 1);
        assert_eq!(unknown(lot(at(100), true), at(1200)), 1);
        // A time that the clock has yet to reach once more says nothing.
        assert_eq!(unknown(lot(at(9000), true), at(1200)), 1);
    }
}
