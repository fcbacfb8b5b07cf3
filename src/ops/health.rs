//! Health: whether every thread ticks, the client port answers, and jobs can be stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, json};

use crate::base::clock::Clock;
use crate::config::Config;
use crate::http::Response;
use crate::store::{Store, StoreError, alerts};
use crate::workers::pauses;

/// How much later than its due time a tick may begin.
const SLACK: Duration = Duration::from_mins(1);
/// How long a tick may take in a thread that was not registered.
const DEFAULT_LONGEST_TICK: Duration = Duration::from_mins(30);
/// How long the last test write counts. Frequent requests for health then cause few writes.
const TEST_WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The ticks of a thread. Times are on the steady clock.
#[derive(Clone, Debug)]
pub struct ThreadHealth {
    /// The thread's name.
    pub thread: String,
    /// When its last tick ended. Before the first tick, when it was registered.
    pub ticked: Duration,
    /// How many ticks have ended.
    pub ticks: u64,
    /// When its current tick began; `None` while it waits.
    pub busy_since: Option<Duration>,
    /// When its next tick is due.
    pub due: Duration,
    /// How long a tick may take.
    pub longest_tick: Duration,
    /// The error of its last tick.
    pub error: Option<String>,
}

impl ThreadHealth {
    /// Why the thread is late; `None` if it is not.
    fn lateness(&self, now: Duration) -> Option<String> {
        let seconds_since = |time: Duration| now.saturating_sub(time).as_secs();
        match self.busy_since {
            Some(since) if now.saturating_sub(since) > self.longest_tick => {
                Some(format!("has been in one tick for {} s", seconds_since(since)))
            }
            None if now.saturating_sub(self.due) > SLACK => {
                Some(format!("should have ticked {} s ago", seconds_since(self.due)))
            }
            _ => None,
        }
    }
}

/// The health of the daemon, as its threads report it.
pub struct Health {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    threads: Mutex<BTreeMap<String, ThreadHealth>>,
    client_port_error: Mutex<Option<String>>,
    test_write: Mutex<Option<TestWrite>>,
}

/// The last test write.
struct TestWrite {
    at: Duration,
    error: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    /// The health of a daemon without threads.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, config: Arc<Config>) -> Self {
        Self {
            store,
            clock,
            config,
            threads: Mutex::default(),
            client_port_error: Mutex::default(),
            test_write: Mutex::default(),
        }
    }

    /// Registers a thread before it is started. A tick of it takes `longest_tick` at most.
    pub fn register(&self, thread: &str, longest_tick: Duration) {
        let now = self.clock.now().steady;
        let health = ThreadHealth {
            thread: thread.to_owned(),
            ticked: now,
            ticks: 0,
            busy_since: None,
            due: now,
            longest_tick,
            error: None,
        };
        lock(&self.threads).insert(thread.to_owned(), health);
    }

    /// Removes a thread that has ended because there was no work for it.
    pub fn forget(&self, thread: &str) {
        lock(&self.threads).remove(thread);
    }

    /// Records that a thread begins a tick.
    pub fn record_tick_start(&self, thread: &str) {
        let now = self.clock.now().steady;
        self.update(thread, |health| health.busy_since = Some(now));
    }

    /// Records that a thread ended a tick, with its error. The next tick is due after `wait`.
    pub fn record_tick_end(&self, thread: &str, wait: Duration, error: Option<String>) {
        let now = self.clock.now().steady;
        self.update(thread, |health| {
            health.ticked = now;
            health.ticks += 1;
            health.busy_since = None;
            health.due = now + wait;
            health.error = error;
        });
    }

    fn update(&self, thread: &str, change: impl FnOnce(&mut ThreadHealth)) {
        if !lock(&self.threads).contains_key(thread) {
            self.register(thread, DEFAULT_LONGEST_TICK);
        }
        if let Some(health) = lock(&self.threads).get_mut(thread) {
            change(health);
        }
    }

    /// All registered threads by name.
    pub fn threads(&self) -> Vec<ThreadHealth> {
        lock(&self.threads).values().cloned().collect()
    }

    /// The threads that are late at `now` (the steady clock), each with the reason.
    pub fn late_threads(&self, now: Duration) -> Vec<(String, String)> {
        let threads = lock(&self.threads);
        let late = threads
            .values()
            .filter_map(|health| Some((health.thread.clone(), health.lateness(now)?)));
        late.collect()
    }

    /// Records the last test of the client port: its error, or `None` if the port answered.
    pub fn record_client_port(&self, error: Option<String>) {
        *lock(&self.client_port_error) = error;
    }

    /// Why no job can be stored now; `None` if one can. A test write finds this out, at most once in
    /// [`TEST_WRITE_INTERVAL`]; there must also be more free space than results need.
    pub(super) fn storage_error(&self) -> Option<String> {
        let now = self.clock.now();
        let mut last = lock(&self.test_write);
        if let Some(last) = &*last
            && now.steady.saturating_sub(last.at) < TEST_WRITE_INTERVAL
        {
            return last.error.clone();
        }
        let missing = self
            .store
            .probe(now.wall)
            .and_then(|()| pauses::missing_free_space(&self.store, &self.config));
        let error = match missing {
            Ok(None) => None,
            Ok(Some(_)) => Some(StoreError::Full.to_string()),
            Err(error) => Some(error.to_string()),
        };
        *last = Some(TestWrite {
            at: now.steady,
            error: error.clone(),
        });
        error
    }

    /// Whether every thread ticks without an error, the client port answers, and jobs can be stored.
    pub fn is_well(&self, now: Duration) -> bool {
        let is_well = |health: &ThreadHealth| health.error.is_none() && health.lateness(now).is_none();
        self.threads().iter().all(is_well)
            && lock(&self.client_port_error).is_none()
            && self.storage_error().is_none()
    }

    /// The answer for clients: the status alone. It is 503 only if no job can be stored.
    pub(crate) fn client_response(&self) -> Response {
        match self.storage_error() {
            None => Response::json(200, &json!({"status": "healthy"})),
            Some(_) => Response::json(503, &json!({"status": "unhealthy"})),
        }
    }

    /// Why nothing can be sent to OpenAI; `None` if something can.
    fn sending_problem(&self) -> Option<String> {
        match self.store.read(alerts::why_nothing_is_sent) {
            Ok(problem) => problem,
            Err(error) => Some(error.to_string()),
        }
    }

    /// The answer for operators: each check, with its error and the time since the last tick. The status is `degraded`,
    /// and no 503, if nothing can be sent to OpenAI: a restart of the process would not help.
    pub(super) fn operator_response(&self) -> Response {
        let now = self.clock.now().steady;
        let (storage, port) = (self.storage_error(), lock(&self.client_port_error).clone());
        let mut healthy = storage.is_none() && port.is_none();
        let mut checks = Map::new();
        checks.insert(
            "storage".into(),
            json!({"ok": storage.is_none(), "message": storage}),
        );
        checks.insert(
            "client_port".into(),
            json!({"ok": port.is_none(), "message": port}),
        );
        for thread in self.threads() {
            let message = thread.error.clone().or_else(|| thread.lateness(now));
            healthy &= message.is_none();
            let check = json!({
                "ok": message.is_none(),
                "seconds_since_tick": now.saturating_sub(thread.ticked).as_secs(),
                "in_a_tick": thread.busy_since.is_some(),
                "message": message,
            });
            checks.insert(thread.thread, check);
        }
        let sending = self.sending_problem();
        let status = match (healthy, &sending) {
            (false, _) => "unhealthy",
            (true, Some(_)) => "degraded",
            (true, None) => "healthy",
        };
        checks.insert(
            "sending".into(),
            json!({"ok": sending.is_none(), "message": sending}),
        );
        let answer = json!({"status": status, "version": env!("CARGO_PKG_VERSION"), "checks": checks});
        Response::json(if healthy { 200 } else { 503 }, &answer)
    }
}
