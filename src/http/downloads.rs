//! The threads for long responses, shared by the owners of the responses.
//!
//! A client that reads slowly keeps its thread. If all threads are in use and a response of another owner
//! arrives, the slowest response of the owner with the most is cut. So one client cannot keep all others from
//! their results.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::connection_limiter::ConnectionLimiter;
use super::worker::{IDLE, OutgoingResponse};
use crate::base::clock::Clock;
use crate::base::thread_pool::PoolThread;

/// An owner's response is cut for one of another owner if it has this many more than that one.
const SURPLUS: usize = 2;

/// The long responses that are being written and those that wait.
pub struct Downloads {
    clock: Arc<dyn Clock>,
    limiter: Arc<ConnectionLimiter>,
    threads: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    waiting: VecDeque<OutgoingResponse>,
    /// By the request's id.
    running: HashMap<String, RunningDownload>,
}

struct RunningDownload {
    owner: String,
    since: Duration,
    bytes: Arc<AtomicU64>,
    /// Whether it was cut. Its thread is free soon.
    is_cut: bool,
}

impl Downloads {
    /// Downloads for `threads` threads. `limiter` has the connections of the clients.
    pub fn new(threads: usize, limiter: Arc<ConnectionLimiter>, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            limiter,
            threads,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Queues a response. A stream is given back if too many wait: the client can request it again. Bytes may be
    /// the only report of what the request did, so they always wait.
    pub fn push(&self, response: OutgoingResponse) -> Option<OutgoingResponse> {
        if self.threads == 0 {
            return Some(response);
        }
        let mut state = self.lock();
        let all_in_use = state.running_or_waiting() >= self.threads;
        if response.is_stream() && all_in_use && !self.cut_for(&mut state, &response.owner) {
            let of_owner = state.waiting.iter().filter(|it| it.owner == response.owner);
            let most_of_owner = (self.threads / 2).max(1);
            if state.waiting.len() >= self.threads || of_owner.count() >= most_of_owner {
                return Some(response);
            }
        }
        state.waiting.push_back(response);
        drop(state);
        self.changed.notify_one();
        None
    }

    /// Writes responses until [`Self::close`], then those that are left; or until none comes for [`IDLE`]. Returns
    /// true: the server can do without this thread then.
    pub fn run(&self, thread: &PoolThread) -> bool {
        loop {
            let (state, wait) = self
                .changed
                .wait_timeout_while(self.lock(), IDLE, |state| {
                    state.waiting.is_empty() && !state.is_closed
                })
                .unwrap_or_else(PoisonError::into_inner);
            let (is_closed, has_work) = (state.is_closed, !state.waiting.is_empty());
            drop(state);
            if has_work {
                thread.begin_work();
                self.write_next();
                thread.end_work();
            } else if is_closed || wait.timed_out() && thread.end_wait() {
                return true;
            }
        }
    }

    /// Writes the next response, if one waits.
    pub fn write_next(&self) {
        let next = self.next(&mut self.lock());
        if let Some((id, response)) = next {
            response.write();
            self.lock().running.remove(&id);
        }
    }

    /// Ends the threads.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// The next response: the first one of the owner with the fewest running ones.
    fn next(&self, state: &mut State) -> Option<(String, OutgoingResponse)> {
        let running = |response: &OutgoingResponse| state.running_of(&response.owner).count();
        let (at, _) = state
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(_, it)| running(it))?;
        let mut response = state.waiting.remove(at)?;
        let download = RunningDownload {
            owner: response.owner.clone(),
            since: self.clock.now().steady,
            bytes: response.count_bytes(),
            is_cut: false,
        };
        let id = response.id.clone();
        state.running.insert(id.clone(), download);
        Some((id, response))
    }

    /// Cuts the slowest response of the owner with the most, unless `owner` has nearly as many.
    fn cut_for(&self, state: &mut State, owner: &str) -> bool {
        let now = self.clock.now().steady;
        let own = state.running_of(owner).count();
        let most = |it: &RunningDownload| state.running_of(&it.owner).count();
        let rate = |it: &RunningDownload| {
            let seconds = now.saturating_sub(it.since).as_secs().max(1);
            it.bytes.load(Ordering::Relaxed) / seconds
        };
        let victim = state
            .running
            .iter()
            .filter(|(_, it)| !it.is_cut && most(it) >= own + SURPLUS)
            .max_by_key(|(_, it)| (most(it), std::cmp::Reverse(rate(it))))
            .map(|(id, _)| id.clone());
        let Some(id) = victim else {
            return false;
        };
        if let Some(download) = state.running.get_mut(&id) {
            download.is_cut = true;
            log::info!(
                event = "http_download_cut", request:% = id, owner = download.owner;
                "its owner has the most downloads, and another waits"
            );
        }
        self.limiter.close_request(&id);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn running_of(&self, owner: &str) -> impl Iterator<Item = &RunningDownload> {
        let owned = move |it: &&RunningDownload| it.owner == owner && !it.is_cut;
        self.running.values().filter(owned)
    }

    fn running_or_waiting(&self) -> usize {
        self.running.len() + self.waiting.len()
    }
}
