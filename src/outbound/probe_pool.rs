//! A fixed pool of threads that check many images at once, with few requests to a slow host.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::client::GuardedClient;
use super::image_probe::{ImageLimits, ImageProblem};
use super::url;
use crate::base::thread_group::ThreadGroup;

/// Concurrent probes of one host, until the host has shown that it is fast.
const MIN_PER_HOST: usize = 4;
/// A probe that takes longer sets its host back to [`MIN_PER_HOST`]. A faster one lets the host have one
/// more.
const SLOW_PROBE: Duration = Duration::from_secs(1);
/// URLs of one host that may wait. Further URLs must be requested again later.
const MAX_QUEUED_PER_HOST: usize = 1000;

/// The result of one probe.
pub struct ProbeResult {
    /// The image's URL.
    pub url: String,
    /// Why the image cannot be fetched, if it cannot.
    pub outcome: Result<(), ImageProblem>,
}

/// A probe that a thread has finished.
struct FinishedProbe {
    result: ProbeResult,
    duration: Duration,
}

/// The pool of threads. Dropping it ends them.
pub struct ProbePool {
    threads: usize,
    to_threads: Sender<String>,
    from_threads: Receiver<FinishedProbe>,
    hosts: HashMap<String, HostQueue>,
    /// The names of the hosts, the next one to get a probe first.
    turns: VecDeque<String>,
    /// URLs that wait or are being probed.
    pending: HashSet<String>,
    running: usize,
}

/// The probes of one host.
struct HostQueue {
    queued: VecDeque<String>,
    running: usize,
    max_running: usize,
}

impl ProbePool {
    /// Starts `threads` threads that probe images.
    ///
    /// # Errors
    /// If the system refuses a further thread.
    pub fn start(group: &ThreadGroup, client: &Arc<GuardedClient>, threads: u32) -> io::Result<Self> {
        let (to_threads, urls) = bounded::<String>(0);
        let (finished, from_threads) = unbounded();
        for number in 1..=threads {
            let (client, urls, finished) = (client.clone(), urls.clone(), finished.clone());
            group.spawn(&format!("image-{number}"), move || {
                run_probes(&client, &urls, &finished);
            })?;
        }
        Ok(Self {
            threads: usize::try_from(threads).unwrap_or(usize::MAX),
            to_threads,
            from_threads,
            hosts: HashMap::new(),
            turns: VecDeque::new(),
            pending: HashSet::new(),
            running: 0,
        })
    }

    /// Queues an image, unless it is queued or being probed already. If too many images of its host wait, the
    /// request is dropped, and the caller must repeat it later.
    pub fn request(&mut self, url: &str) {
        if self.pending.contains(url) {
            return;
        }
        let name = host_and_port(url);
        let turns = &mut self.turns;
        let host = self.hosts.entry(name.clone()).or_insert_with(|| {
            turns.push_back(name);
            HostQueue {
                queued: VecDeque::new(),
                running: 0,
                max_running: MIN_PER_HOST,
            }
        });
        if host.queued.len() < MAX_QUEUED_PER_HOST {
            host.queued.push_back(url.to_owned());
            self.pending.insert(url.to_owned());
        }
    }

    /// Takes the results since the last call. If there are none yet and probes are running, it waits for the
    /// first one, at most `within`.
    pub fn take_results(&mut self, within: Duration) -> Vec<ProbeResult> {
        self.assign();
        if self.running == 0 {
            return Vec::new();
        }
        let mut results = Vec::new();
        let mut next = self.from_threads.recv_timeout(within).ok();
        while let Some(finished) = next {
            results.push(self.finish(finished));
            next = self.from_threads.try_recv().ok();
        }
        self.assign();
        results
    }

    /// Gives queued URLs to idle threads, one host after the other.
    fn assign(&mut self) {
        let mut skipped = 0;
        while self.running < self.threads && skipped < self.turns.len() {
            let Some(name) = self.turns.pop_front() else {
                return;
            };
            let Some(host) = self.hosts.get_mut(&name) else {
                continue;
            };
            let url = if host.running < host.max_running {
                host.queued.pop_front()
            } else {
                None
            };
            match url {
                // Sending cannot fail: the threads end only after the pool is dropped.
                Some(url) if self.to_threads.send(url.clone()).is_ok() => {
                    host.running += 1;
                    self.running += 1;
                    skipped = 0;
                }
                _ if host.running == 0 && host.queued.is_empty() => {
                    self.hosts.remove(&name);
                    continue;
                }
                _ => skipped += 1,
            }
            self.turns.push_back(name);
        }
    }

    /// Counts a finished probe, and sets how many further ones its host may have at once.
    fn finish(&mut self, finished: FinishedProbe) -> ProbeResult {
        let FinishedProbe { result, duration } = finished;
        self.running -= 1;
        self.pending.remove(&result.url);
        if let Some(host) = self.hosts.get_mut(&host_and_port(&result.url)) {
            host.running -= 1;
            host.max_running = if duration > SLOW_PROBE {
                MIN_PER_HOST
            } else {
                // Even a fast host leaves half of the threads to other hosts.
                (host.max_running + 1).min(self.threads / 2).max(MIN_PER_HOST)
            };
        }
        result
    }
}

fn host_and_port(text: &str) -> String {
    url::parse(text).map_or_else(|_| String::new(), |url| format!("{}:{}", url.host, url.port))
}

/// What each thread of the pool runs.
fn run_probes(client: &GuardedClient, urls: &Receiver<String>, done: &Sender<FinishedProbe>) {
    let limits = ImageLimits::default();
    for url in urls {
        let started = client.clock.now().steady;
        let mut outcome = client.probe_image(&url, &limits);
        if outcome.as_ref().is_err_and(ImageProblem::is_retryable) {
            // An image counts as missing only after two failures in a row.
            outcome = client.probe_image(&url, &limits);
        }
        let duration = client.clock.now().steady.saturating_sub(started);
        let result = ProbeResult { url, outcome };
        // Sending fails only if the daemon is stopping and has dropped the pool.
        drop(done.send(FinishedProbe { result, duration }));
    }
}
