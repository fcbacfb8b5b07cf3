//! Which image is probed next. The probes are shared by client, then by job, with few at a slow host.
//!
//! A client that names a thousand silent hosts takes three quarters of the probes at most, and batches of all
//! clients seven eighths: a synchronous request finds one at once.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::domain::decide::postponed_image::{self, PassingProblem};
use crate::outbound::host_and_port;

/// Concurrent probes of one host, until the host has shown that it is fast.
const MIN_PER_HOST: usize = 2;
/// A probe that takes longer sets its host back to [`MIN_PER_HOST`]. A faster one lets the host have one more.
const SLOW_PROBE: Duration = Duration::from_secs(1);
/// How long after its end a pause of a host counts for the next one.
const PAUSES_KEPT: Duration = Duration::from_mins(2);
/// Images of one host that may wait in a lane. Images of other hosts find a place.
const MAX_QUEUED_PER_HOST: usize = 64;

/// The images of one client that wait together. Lanes of synchronous requests come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    /// Whether they are for batches, and not for synchronous requests.
    pub is_batch: bool,
    /// The client's name.
    pub client: String,
}

/// The images that wait for a probe and those that are being probed. Its size is bounded by the number of
/// clients and probes.
#[derive(Debug)]
pub(super) struct ProbeTurns {
    probes: usize,
    /// The time on the steady clock, as of the last [`Self::set_time`].
    now: Duration,
    lanes: BTreeMap<Lane, LaneQueue>,
    /// The last lane of each kind that had its turn: synchronous, batch.
    last: [Option<Lane>; 2],
    hosts: HashMap<String, HostLoad>,
    running: HashMap<String, RunningProbe>,
}

/// The waiting images of a lane, by job; the job at the front is next.
#[derive(Debug, Default)]
struct LaneQueue {
    jobs: VecDeque<(i64, VecDeque<String>)>,
    urls: HashSet<String>,
    hosts: HashMap<String, usize>,
}

#[derive(Debug)]
struct RunningProbe {
    lane: Lane,
    job: i64,
    host: String,
}

#[derive(Debug)]
struct HostLoad {
    running: usize,
    most: usize,
    pause: Option<HostPause>,
}

/// A host that gets no probe for a while.
#[derive(Clone, Copy, Debug)]
struct HostPause {
    /// When the first pause in a row began.
    since: Duration,
    until: Duration,
    pauses: u32,
}

impl ProbeTurns {
    /// Turns for that number of concurrent probes.
    pub(super) fn new(probes: u32) -> Self {
        Self {
            probes: usize::try_from(probes).unwrap_or(usize::MAX),
            now: Duration::ZERO,
            lanes: BTreeMap::new(),
            last: [None, None],
            hosts: HashMap::new(),
            running: HashMap::new(),
        }
    }

    /// Sets the time on the steady clock.
    pub(super) fn set_time(&mut self, now: Duration) {
        self.now = now;
    }

    /// Whether a lane may have further images: it has fewer than there are probes.
    pub(super) fn has_place(&self, lane: &Lane) -> bool {
        let waiting = self.lanes.get(lane).map_or(0, |queue| queue.urls.len());
        waiting < self.probes
    }

    /// Whether there is a probe for which no image waits.
    pub(super) fn has_idle_probe(&self) -> bool {
        self.running.len() < self.probes
    }

    /// Queues an image of a job, if it is new and its lane and its host have a place. Returns whether it was
    /// queued.
    pub(super) fn offer(&mut self, lane: &Lane, job: i64, url: &str) -> bool {
        let is_running = self.running.contains_key(url);
        let host = host_and_port(url);
        if is_running || !self.has_place(lane) || self.is_paused(&host) {
            return false;
        }
        let queue = self.lanes.entry(lane.clone()).or_default();
        let of_host = queue.hosts.entry(host).or_default();
        if *of_host >= MAX_QUEUED_PER_HOST || !queue.urls.insert(url.to_owned()) {
            return false;
        }
        *of_host += 1;
        match queue.jobs.iter_mut().find(|(queued, _)| *queued == job) {
            Some((_, urls)) => urls.push_back(url.to_owned()),
            None => queue.jobs.push_back((job, VecDeque::from([url.to_owned()]))),
        }
        true
    }

    /// Drops the waiting images of jobs that no longer want them.
    pub(super) fn keep_jobs(&mut self, wanted: &HashSet<i64>) {
        for queue in self.lanes.values_mut() {
            if queue.jobs.iter().any(|(job, _)| !wanted.contains(job)) {
                queue.keep(|job, _| wanted.contains(&job));
            }
        }
        self.lanes.retain(|_, queue| !queue.urls.is_empty());
    }

    /// After a probe of a batch's image that says nothing about the image: gives its host no probe for a while
    /// and drops the waiting images of the host, which are read again later. Returns false if the image counts
    /// as missing all the same. A synchronous request does not wait.
    pub(super) fn postpone(&mut self, url: &str, problem: PassingProblem) -> bool {
        let Some(probe) = self.running.get(url).filter(|probe| probe.lane.is_batch) else {
            return false;
        };
        let host = probe.host.clone();
        let load = self.hosts.entry(host.clone()).or_insert_with(HostLoad::new);
        // A pause that is long over says nothing any more.
        let pause = load.pause.filter(|pause| pause.until + PAUSES_KEPT > self.now);
        // Probes that ran at the same time met the same refusal.
        if pause.is_some_and(|pause| pause.until > self.now) {
            return true;
        }
        let (since, pauses) = pause.map_or((self.now, 0), |it| (it.since, it.pauses));
        let Some(wait) = postponed_image::decide(problem, pauses, self.now.saturating_sub(since)) else {
            return false;
        };
        if pauses == 0 {
            log::info!(event = "image_host_paused", host, seconds = wait.as_secs(), reason:? = problem; "");
        }
        load.pause = Some(HostPause {
            since,
            until: self.now + wait,
            pauses: pauses + 1,
        });
        for queue in self.lanes.values_mut() {
            if queue.hosts.get(&host).is_some_and(|waiting| *waiting > 0) {
                queue.keep(|_, url| host_and_port(url) != host);
            }
        }
        self.lanes.retain(|_, queue| !queue.urls.is_empty());
        true
    }

    fn is_paused(&self, host: &str) -> bool {
        let pause = self.hosts.get(host).and_then(|load| load.pause);
        pause.is_some_and(|pause| pause.until > self.now)
    }

    /// The next image to probe. The caller starts the probe, and reports its end with [`Self::finish`].
    pub(super) fn start_next(&mut self) -> Option<String> {
        if self.running.len() >= self.probes {
            return None;
        }
        for is_batch in [false, true] {
            for lane in self.lanes_in_turn(is_batch) {
                if let Some((job, url)) = self.take_from(&lane) {
                    let host = host_and_port(&url);
                    self.hosts
                        .entry(host.clone())
                        .or_insert_with(HostLoad::new)
                        .running += 1;
                    self.last[usize::from(is_batch)] = Some(lane.clone());
                    self.running.insert(url.clone(), RunningProbe { lane, job, host });
                    return Some(url);
                }
            }
        }
        None
    }

    /// Counts a finished probe, and sets how many further ones its host may have at once. Gives the job that
    /// it was started for. `is_postponed`: the probe says nothing about its image.
    pub(super) fn finish(&mut self, url: &str, took: Duration, is_postponed: bool) -> Option<i64> {
        let RunningProbe { job, host, .. } = self.running.remove(url)?;
        let most_of_host = (self.probes / 2).max(MIN_PER_HOST);
        if let Some(load) = self.hosts.get_mut(&host) {
            load.running -= 1;
            load.most = match took > SLOW_PROBE || is_postponed {
                true => MIN_PER_HOST,
                false => (load.most + 1).min(most_of_host),
            };
            if !is_postponed {
                load.pause = None;
            }
        }
        // The load of a host without probes is forgotten, once there are many, and its pauses a while after the
        // last one.
        if self.hosts.len() > 4 * self.probes {
            let paused = |pause: HostPause| pause.until + PAUSES_KEPT > self.now;
            let is_kept = |load: &HostLoad| load.running > 0 || load.pause.is_some_and(paused);
            self.hosts.retain(|_, load| is_kept(load));
        }
        Some(job)
    }

    /// The lanes of a kind, beginning after the last one that had its turn.
    fn lanes_in_turn(&self, is_batch: bool) -> Vec<Lane> {
        let of_kind = || self.lanes.keys().filter(|lane| lane.is_batch == is_batch);
        let last = self.last[usize::from(is_batch)].as_ref();
        let after = of_kind().filter(|lane| last.is_none_or(|last| *lane > last));
        let before = of_kind().filter(|lane| last.is_some_and(|last| *lane <= last));
        after.chain(before).cloned().collect()
    }

    /// Takes the next image of a lane whose host may have one more probe. `None` if there is no such image, or
    /// the client or all batches have their share of the probes.
    fn take_from(&mut self, lane: &Lane) -> Option<(i64, String)> {
        let of_client = self.running.values().filter(|it| it.lane.client == lane.client);
        let of_batches = self.running.values().filter(|it| it.lane.is_batch);
        let all_but = |left: usize| self.probes.saturating_sub(left).max(1);
        let client_is_full = of_client.count() >= all_but((self.probes / 4).max(2));
        let batches_are_full = of_batches.count() >= all_but((self.probes / 8).max(1));
        if client_is_full || lane.is_batch && batches_are_full {
            return None;
        }
        let (hosts, running) = (&self.hosts, &self.running);
        let may_start = |url: &str| {
            let load = hosts.get(&host_and_port(url));
            !running.contains_key(url) && load.is_none_or(|load| load.running < load.most)
        };
        let queue = self.lanes.get_mut(lane)?;
        let taken = queue.take(may_start);
        if queue.urls.is_empty() {
            self.lanes.remove(lane);
        }
        taken
    }
}

impl LaneQueue {
    fn add_job(&mut self, job: i64, urls: VecDeque<String>) {
        for url in &urls {
            *self.hosts.entry(host_and_port(url)).or_default() += 1;
            self.urls.insert(url.clone());
        }
        self.jobs.push_back((job, urls));
    }

    /// Keeps the images of which `is_kept` says so.
    fn keep(&mut self, is_kept: impl Fn(i64, &str) -> bool) {
        for (job, mut urls) in std::mem::take(self).jobs {
            urls.retain(|url| is_kept(job, url));
            if !urls.is_empty() {
                self.add_job(job, urls);
            }
        }
    }

    /// Takes the first image that may start of the first job that has one. That job comes last then.
    fn take(&mut self, may_start: impl Fn(&str) -> bool) -> Option<(i64, String)> {
        for _ in 0..self.jobs.len() {
            let (job, mut urls) = self.jobs.pop_front()?;
            let found = urls.iter().position(|url| may_start(url));
            let url = found.and_then(|at| urls.remove(at));
            if !urls.is_empty() {
                self.jobs.push_back((job, urls));
            }
            if let Some(url) = url {
                self.urls.remove(&url);
                if let Some(of_host) = self.hosts.get_mut(&host_and_port(&url)) {
                    *of_host -= 1;
                }
                return Some((job, url));
            }
        }
        None
    }
}

impl HostLoad {
    fn new() -> Self {
        Self {
            running: 0,
            most: MIN_PER_HOST,
            pause: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(client: &str, is_batch: bool) -> Lane {
        Lane {
            is_batch,
            client: client.into(),
        }
    }

    fn silent(number: usize) -> String {
        format!("https://silent-{number}.example/1.jpg")
    }

    fn start_all(turns: &mut ProbeTurns) -> Vec<String> {
        std::iter::from_fn(|| turns.start_next()).collect()
    }

    #[test]
    fn a_client_with_many_silent_hosts_leaves_probes_to_others() {
        let mut turns = ProbeTurns::new(16);
        let attacker = lane("attacker", true);
        for number in 0..100 {
            turns.offer(&attacker, 1, &silent(number));
        }
        assert!(!turns.has_place(&attacker), "the queue is bounded");
        assert_eq!(start_all(&mut turns).len(), 12);
        for number in 100..200 {
            turns.offer(&lane("other", true), 2, &silent(number));
        }
        // Batches of all clients leave an eighth to synchronous requests.
        assert_eq!(start_all(&mut turns).len(), 2);
        assert!(turns.offer(&lane("other", false), 3, &silent(300)));
        assert!(turns.offer(&lane("attacker", false), 4, &silent(301)));
        assert_eq!(start_all(&mut turns), [silent(300)]);
    }

    #[test]
    fn clients_and_their_jobs_take_turns() {
        let mut turns = ProbeTurns::new(64);
        for (client, job, first) in [("a", 1, 0), ("a", 2, 10), ("b", 3, 20)] {
            for number in 0..3 {
                turns.offer(&lane(client, true), job, &silent(first + number));
            }
        }
        let order = [0, 20, 10, 21, 1, 22, 11, 2, 12].map(silent);
        assert_eq!(start_all(&mut turns), order);
    }

    #[test]
    fn a_host_has_two_probes_until_it_is_fast() {
        let mut turns = ProbeTurns::new(64);
        let url = |number: usize| format!("https://one.example/{number}.jpg");
        for number in 0..60 {
            assert!(turns.offer(&lane("a", true), 1, &url(number)));
        }
        assert!(!turns.offer(&lane("a", true), 1, &url(0)), "it waits already");
        assert_eq!(start_all(&mut turns), [url(0), url(1)]);
        assert!(!turns.offer(&lane("b", true), 2, &url(0)), "it is being probed");
        assert_eq!(turns.finish(&url(0), Duration::ZERO, false), Some(1));
        assert_eq!(start_all(&mut turns), [url(2), url(3)]);
        turns.finish(&url(1), SLOW_PROBE * 2, false);
        turns.finish(&url(2), SLOW_PROBE * 2, false);
        assert_eq!(start_all(&mut turns), [url(4)]);
    }

    #[test]
    fn a_host_that_asks_for_patience_gets_no_probe_for_a_while_and_others_go_on() {
        let mut turns = ProbeTurns::new(64);
        let url = |number: usize| format!("https://one.example/{number}.jpg");
        for number in 0..4 {
            turns.offer(&lane("a", true), 1, &url(number));
        }
        assert_eq!(start_all(&mut turns), [url(0), url(1)]);
        let asks = PassingProblem::HostAsksToWait(Some(Duration::from_secs(5)));
        for number in [0, 1] {
            assert!(turns.postpone(&url(number), asks));
            turns.finish(&url(number), Duration::ZERO, true);
        }
        assert!(!turns.offer(&lane("a", true), 1, &url(4)));
        assert!(turns.offer(&lane("a", true), 1, &silent(1)));
        assert_eq!(
            start_all(&mut turns),
            [silent(1)],
            "the host's others are dropped"
        );
        // It asks again, and again, until patience ends.
        let mut time = Duration::ZERO;
        loop {
            time += Duration::from_mins(2);
            turns.set_time(time);
            assert!(turns.offer(&lane("a", true), 1, &url(0)));
            assert_eq!(start_all(&mut turns), [url(0)]);
            let is_postponed = turns.postpone(&url(0), asks);
            turns.finish(&url(0), Duration::ZERO, is_postponed);
            if !is_postponed {
                break;
            }
        }
        assert_eq!(time, Duration::from_mins(10), "it counts as missing then");
        assert!(turns.offer(&lane("a", false), 2, &url(0)));
        assert_eq!(start_all(&mut turns), [url(0)]);
        assert!(
            !turns.postpone(&url(0), asks),
            "a synchronous request does not wait"
        );
    }

    #[test]
    fn the_images_of_a_cancelled_job_are_dropped() {
        let mut turns = ProbeTurns::new(64);
        turns.offer(&lane("a", true), 1, &silent(1));
        turns.offer(&lane("a", true), 2, &silent(2));
        turns.offer(&lane("b", true), 3, &silent(3));
        turns.keep_jobs(&HashSet::from([2]));
        assert_eq!(start_all(&mut turns), [silent(2)]);
        assert!(turns.lanes.is_empty());
    }
}
