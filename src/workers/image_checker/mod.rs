//! The image checker: probes the images of waiting lots before OpenAI is paid to look at them.
//!
//! A tick stores the results of the probes, decides over the lots whose images are all checked, and starts
//! probes of the others in turns (`turns`). Waiting images are read from the database, and some of them at a
//! time are in memory. The results are in the database, too: a restart does not repeat them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::alert::PauseScope;
use crate::domain::decide::missing_images::{self, LotImagesDecision, has_too_few_images, oldest_check};
use crate::domain::url_expiry::with_expiry;
use crate::outbound::ImageProblem;
use crate::outbound::probe_pool::{ProbeDepth, ProbePool, ProbeResult};
use crate::store::images::{self, DueJob, DueLot, ImageCheck, MissingImage};
use crate::store::{Store, Stored, View, alerts, batches, settle};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

mod turns;

use turns::{Lane, ProbeTurns};

/// Lots read in one tick.
const LOTS: usize = 500;
/// Of these, lots of one job: a large job does not hold up the others.
const LOTS_OF_A_JOB: usize = 50;
/// How long the checker waits after a tick that read lots and found nothing to do, and how long at most after
/// many of them in a row.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The image checker.
pub struct ImageChecker {
    store: Arc<Store>,
    probes: ProbePool,
    config: Arc<Config>,
    turns: ProbeTurns,
    /// The last job of each lane whose lots were read.
    last_jobs: BTreeMap<Lane, i64>,
    /// The last request that was read of a job whose first lots all wait for their hosts.
    positions: HashMap<i64, i64>,
    /// Images of which the next probe reads every byte.
    whole: HashSet<String>,
    pause: Duration,
}

/// Images that must be probed first, and how deep.
type UncheckedImages = (Vec<String>, ProbeDepth);

/// A lot whose images are all checked.
struct CheckedLot {
    lot: DueLot,
    /// The images that the checks have shown to be missing.
    missing: Vec<MissingImage>,
}

impl CheckedLot {
    /// The number of its images that are missing, those included that OpenAI could not use.
    fn missing_images(&self) -> usize {
        let found = |url: &String| self.missing.iter().any(|image| image.url == *url);
        let images = self.lot.images.iter();
        images
            .filter(|url| self.lot.missing.contains(url) || found(url))
            .count()
    }

    fn has_too_few_images(&self) -> bool {
        has_too_few_images(self.lot.images.len(), self.missing_images())
    }

    /// Why it fails, for clients.
    fn failure(&self) -> String {
        let (images, missing) = (self.lot.images.len(), self.missing_images());
        let first = self.missing.first().map_or("", |image| image.reason.as_str());
        format!("IMAGE_UNREACHABLE: {missing} of {images} images cannot be used: {first}")
    }
}

/// What a tick has read.
#[derive(Default)]
struct ReadLots {
    checked: Vec<CheckedLot>,
    /// Lots that were read.
    lots: usize,
    /// Images that were queued for a probe.
    queued: usize,
}

impl ImageChecker {
    /// A checker that has read no lot yet. `probes` has as many threads as the configuration says.
    pub fn new(store: Arc<Store>, probes: ProbePool, config: Arc<Config>) -> Self {
        Self {
            store,
            probes,
            turns: ProbeTurns::new(config.images.concurrency),
            config,
            last_jobs: BTreeMap::new(),
            positions: HashMap::new(),
            whole: HashSet::new(),
            pause: PAUSE,
        }
    }

    /// The results of probes that say something about their image.
    fn take_results(&mut self, now: Moment) -> Vec<ProbeResult> {
        self.turns.set_time(now.steady);
        let mut results = self.probes.take_results();
        results.retain(|ProbeResult { url, outcome, took }| {
            let passing = outcome.as_ref().err().and_then(ImageProblem::passing);
            let is_postponed = passing.is_some_and(|problem| self.turns.postpone(url, problem));
            if let Some(job) = self.turns.finish(url, *took, is_postponed) {
                self.positions.remove(&job);
            }
            !is_postponed
        });
        results
    }

    fn store_results(&self, results: &[ProbeResult], now: Moment) -> Stored<()> {
        if results.is_empty() {
            return Ok(());
        }
        self.store.write(now.wall, |tx| {
            for ProbeResult { url, outcome, .. } in results {
                let problem = outcome.as_ref().err().map(ToString::to_string);
                images::record_check(tx, url, problem.as_deref())?;
            }
            Ok(())
        })
    }

    /// Reads the lots that wait, lane by lane where a lane has a place for images, and queues their images.
    fn read_lots(&mut self, jobs: &[DueJob], now: Moment) -> Stored<ReadLots> {
        let mut lanes: BTreeMap<Lane, Vec<i64>> = BTreeMap::new();
        for job in jobs {
            let lane = Lane {
                is_batch: !job.is_synchronous,
                client: job.client.clone(),
            };
            lanes.entry(lane).or_default().push(job.row);
        }
        self.last_jobs.retain(|lane, _| lanes.contains_key(lane));
        let most = LOTS / lanes.len().max(1);
        let mut read = ReadLots::default();
        for (lane, mut jobs) in lanes {
            let last = self.last_jobs.get(&lane).copied().unwrap_or(0);
            let first = jobs.partition_point(|job| *job <= last) % jobs.len();
            jobs.rotate_left(first);
            let before = read.lots;
            for job in jobs {
                if !self.turns.has_place(&lane) || read.lots - before > most {
                    break;
                }
                self.read_job(&lane, job, &mut read, now)?;
                self.last_jobs.insert(lane.clone(), job);
            }
        }
        Ok(read)
    }

    /// Reads some lots of a job: the first ones, or those behind them if all of these wait for their hosts.
    fn read_job(&mut self, lane: &Lane, job: i64, read: &mut ReadLots, now: Moment) -> Stored<()> {
        let after = self.positions.get(&job).copied().unwrap_or(0);
        let (found, last) = self.store.read(|view| {
            let lots = images::due(view, job, after, LOTS_OF_A_JOB)?;
            let last = lots.last().map(|lot| lot.request);
            let found: Stored<Vec<_>> = lots.into_iter().map(|lot| check_lot(view, lot, now)).collect();
            Ok((found?, last))
        })?;
        let (lots, before) = (found.len(), read.checked.len() + read.queued);
        for lot in found {
            match lot {
                Ok(lot) => read.checked.push(lot),
                Err((urls, depth)) => {
                    for url in urls.iter().filter(|url| self.turns.offer(lane, job, url)) {
                        read.queued += 1;
                        if depth == ProbeDepth::Whole {
                            self.whole.insert(url.clone());
                        }
                    }
                }
            }
        }
        read.lots += lots;
        let is_stuck = read.checked.len() + read.queued == before && self.turns.has_place(lane);
        match last.filter(|_| is_stuck && lots == LOTS_OF_A_JOB) {
            Some(last) => self.positions.insert(job, last),
            None => self.positions.remove(&job),
        };
        Ok(())
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
            match missing_images::decide(lot.lot.images.len(), lot.missing_images(), may_be_answered) {
                LotImagesDecision::Send => decided.push((lot, None)),
                LotImagesDecision::Fail => decided.push((lot, Some(lot.failure()))),
                LotImagesDecision::Wait => {}
            }
        }
        if decided.is_empty() {
            return Ok(false);
        }
        self.store.write(now.wall, |tx| {
            for (CheckedLot { lot, missing }, failure) in &decided {
                images::mark_checked(tx, lot, missing)?;
                if let Some(reason) = failure {
                    settle::fail_unsent(tx, lot.request, reason)?;
                }
            }
            Ok(true)
        })
    }
}

/// A lot with its missing images, or the images that must be probed first, and how deep.
fn check_lot(view: &View, lot: DueLot, now: Moment) -> Stored<Result<CheckedLot, UncheckedImages>> {
    let since = oldest_check(lot.since, lot.openai_failed, now.wall);
    let (mut missing, mut unchecked) = (Vec::new(), Vec::new());
    for url in lot.images.iter().filter(|url| !lot.missing.contains(url)) {
        match images::last_check(view, url, since, now.wall)? {
            None => unchecked.push(url.clone()),
            Some(ImageCheck { problem: None }) => {}
            Some(ImageCheck {
                problem: Some(problem),
            }) => {
                missing.push(MissingImage {
                    url: url.clone(),
                    reason: with_expiry(&problem, url, now.wall),
                });
            }
        }
    }
    if !unchecked.is_empty() {
        // OpenAI could not use one of them and did not say which: the first bytes show too little.
        let depth = match lot.openai_failed {
            true => ProbeDepth::Whole,
            false => ProbeDepth::Start,
        };
        return Ok(Err((unchecked, depth)));
    }
    Ok(Ok(CheckedLot { lot, missing }))
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
            Topic::ImageProbed,
            Topic::JobCancelled,
        ]
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let results = self.take_results(now);
        self.store_results(&results, now)?;
        let jobs = self.store.read(images::due_jobs)?;
        let rows: HashSet<i64> = jobs.iter().map(|job| job.row).collect();
        self.turns.keep_jobs(&rows);
        if rows.is_empty() {
            self.whole.clear();
        }
        self.positions.retain(|job, _| rows.contains(job));
        let read = self.read_lots(&jobs, now)?;
        let is_decided = self.decide(&read.checked, now)?;
        while let Some(url) = self.turns.start_next() {
            let depth = match self.whole.remove(&url) {
                true => ProbeDepth::Whole,
                false => ProbeDepth::Start,
            };
            self.probes.start_probe(url, depth);
        }
        if is_decided || read.queued > 0 || !results.is_empty() {
            self.pause = PAUSE;
        }
        if is_decided {
            return Ok(TickOutcome::again());
        }
        // A result wakes the checker. Without one, it reads on if there may be images for an idle probe.
        Ok(TickOutcome::idle(match (read.lots, read.queued) {
            (0, _) => self.config.steps.idle,
            (_, 0) => {
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                pause
            }
            _ if self.turns.has_idle_probe() => Duration::ZERO,
            _ => self.config.steps.idle,
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

    fn lot(since: Moment, openai_failed: bool) -> DueLot {
        DueLot {
            request: 1,
            lot: 1,
            images: vec!["https://a.example/1.jpg".into(), "https://a.example/2.jpg".into()],
            missing: Vec::new(),
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
                .write(now.wall, |tx| images::record_check(tx, url, Some("it hangs")))
                .expect("a write");
        };
        let unchecked = |lot: DueLot, now: Moment| {
            let checked = store.read(|view| check_lot(view, lot, now));
            checked
                .expect("a read")
                .map_or_else(|(urls, _)| urls.len(), |_| 0)
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
