//! The image checker: probes the images of waiting lots before OpenAI is paid to look at them.
//!
//! A tick stores the results of the probes, decides over the lots whose images are all checked, and requests
//! probes of the others. The results are in the database: a restart does not repeat them.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::alert::PauseScope;
use crate::domain::decide::missing_images::{
    self, KEPT, LotImagesDecision, has_too_few_images, oldest_check,
};
use crate::outbound::probe_pool::{ProbePool, ProbeResult};
use crate::store::images::{self, DueLot, ImageCheck};
use crate::store::{Store, Stored, View, alerts, batches, settle};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// Lots read in one tick.
const LOTS: usize = 500;
/// Of these, lots of one job: a large job does not hold up the others.
const LOTS_OF_A_JOB: u32 = 50;
/// How long a tick waits for results of the probes.
const WAIT: Duration = Duration::from_millis(100);

/// The image checker.
pub struct ImageChecker {
    store: Arc<Store>,
    probes: ProbePool,
    config: Arc<Config>,
    /// The last job whose lots were read; 0 at the beginning of a round through all jobs.
    last_job: i64,
}

/// A lot whose images are all checked.
struct CheckedLot {
    lot: DueLot,
    missing: Vec<String>,
    first_problem: String,
}

impl CheckedLot {
    fn has_too_few_images(&self) -> bool {
        has_too_few_images(self.lot.images.len(), self.missing.len())
    }
}

/// The lots that a tick has read.
#[derive(Default)]
struct ReadLots {
    checked: Vec<CheckedLot>,
    /// Images of the other lots that must be probed.
    unchecked: Vec<String>,
    /// The last job read; `None` if the round through all jobs is complete.
    last_job: Option<i64>,
}

impl ImageChecker {
    /// A checker that has read no lot yet.
    pub fn new(store: Arc<Store>, probes: ProbePool, config: Arc<Config>) -> Self {
        Self {
            store,
            probes,
            config,
            last_job: 0,
        }
    }

    fn store_results(&self, results: &[ProbeResult], now: Moment) -> Stored<()> {
        if results.is_empty() {
            return Ok(());
        }
        self.store.write(now.wall, |tx| {
            for ProbeResult { url, outcome } in results {
                let problem = outcome.as_ref().err().map(ToString::to_string);
                images::record_check(tx, url, problem.as_deref())?;
            }
            images::forget(tx, now.wall.before(KEPT), results.len() * 2)
        })
    }

    fn read_lots(&self, now: Moment) -> Stored<ReadLots> {
        self.store.read(|view| {
            let (lots, last_job) = images::due(view, self.last_job, LOTS, LOTS_OF_A_JOB)?;
            let mut read = ReadLots {
                last_job,
                ..ReadLots::default()
            };
            for lot in lots {
                match check_lot(view, lot, now)? {
                    Ok(lot) => read.checked.push(lot),
                    Err(urls) => read.unchecked.extend(urls),
                }
            }
            Ok(read)
        })
    }

    /// Whether OpenAI may have answered a request that waits here, as after a restore.
    fn may_be_answered(&self) -> Stored<bool> {
        self.store.read(|view| {
            let stopped = alerts::paused(view, &PauseScope::Creates)?.is_some();
            Ok(stopped || !batches::is_compared(view)?)
        })
    }

    /// Decides over the lots and stores what follows; gives whether anything was stored.
    fn decide(&self, lots: &[CheckedLot], now: Moment) -> Stored<bool> {
        let may_be_answered = lots.iter().any(CheckedLot::has_too_few_images) && self.may_be_answered()?;
        let mut decided = Vec::new();
        for lot in lots {
            let (images, missing) = (lot.lot.images.len(), lot.missing.len());
            match missing_images::decide(images, missing, may_be_answered) {
                LotImagesDecision::Send => decided.push((lot, None)),
                LotImagesDecision::Fail => {
                    let problem = &lot.first_problem;
                    let reason = format!(
                        "IMAGE_UNREACHABLE: {missing} of {images} images cannot be fetched: {problem}"
                    );
                    decided.push((lot, Some(reason)));
                }
                LotImagesDecision::Wait => {}
            }
        }
        if decided.is_empty() {
            return Ok(false);
        }
        self.store.write(now.wall, |tx| {
            for (CheckedLot { lot, missing, .. }, failure) in &decided {
                images::mark_checked(tx, lot, missing)?;
                if let Some(reason) = failure {
                    settle::fail_unsent(tx, lot.request, reason)?;
                }
            }
            Ok(true)
        })
    }
}

/// A lot with its missing images, or the images that must be probed first.
fn check_lot(view: &View, lot: DueLot, now: Moment) -> Stored<Result<CheckedLot, Vec<String>>> {
    let since = oldest_check(lot.since, lot.openai_failed, now.wall);
    let (mut missing, mut unchecked) = (Vec::new(), Vec::new());
    let mut first_problem = None;
    for url in &lot.images {
        match images::last_check(view, url, since, now.wall)? {
            None => unchecked.push(url.clone()),
            Some(ImageCheck { problem: None }) => {}
            Some(ImageCheck {
                problem: Some(problem),
            }) => {
                first_problem.get_or_insert(problem);
                missing.push(url.clone());
            }
        }
    }
    if !unchecked.is_empty() {
        return Ok(Err(unchecked));
    }
    Ok(Ok(CheckedLot {
        lot,
        missing,
        first_problem: first_problem.unwrap_or_default(),
    }))
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
        // The time limits of the probes bound a tick.
        Duration::from_hours(2)
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let is_first_of_round = self.last_job == 0;
        // A tick waits for results once a round: the lots of all jobs are read before the next wait.
        let wait = match is_first_of_round {
            true => WAIT,
            false => Duration::ZERO,
        };
        let results = self.probes.take_results(wait);
        self.store_results(&results, now)?;
        let lots = self.read_lots(now)?;
        let is_whole_round = is_first_of_round && lots.last_job.is_none();
        self.last_job = lots.last_job.unwrap_or(0);
        for url in &lots.unchecked {
            self.probes.request(url);
        }
        if self.decide(&lots.checked, now)? {
            return Ok(TickOutcome::again());
        }
        Ok(TickOutcome::idle(
            match lots.unchecked.is_empty() && is_whole_round {
                true => self.config.steps.idle,
                false => Duration::ZERO,
            },
        ))
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

    fn lot(since: Moment, openai_failed: bool) -> DueLot {
        DueLot {
            request: 1,
            lot: 1,
            images: vec!["https://a.example/1.jpg".into(), "https://a.example/2.jpg".into()],
            since: since.wall,
            openai_failed,
        }
    }

    #[test]
    fn the_check_of_the_first_image_still_counts_after_the_last() {
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
        let unchecked = |lot: DueLot, now: Moment| {
            let checked = store.read(|view| check_lot(view, lot, now));
            checked.expect("a read").map_or_else(|urls| urls.len(), |_| 0)
        };
        find("https://a.example/1.jpg", at(60));
        assert_eq!(unchecked(lot(at(0), false), at(60)), 1);
        // A host that hangs: the second probe times out long after the first.
        find("https://a.example/2.jpg", at(1200));
        assert_eq!(unchecked(lot(at(0), false), at(1200)), 0);
        // For a lot that came later the check is too old; if OpenAI failed to fetch an image, an earlier one
        // is.
        assert_eq!(unchecked(lot(at(1100), false), at(1200)), 1);
        assert_eq!(unchecked(lot(at(100), true), at(1200)), 1);
        // A time in the future shows that the clock was set back.
        assert_eq!(unchecked(lot(at(9000), true), at(1200)), 1);
    }
}
