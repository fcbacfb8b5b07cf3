//! Health: every thread's sign of life, whether the client port answers, whether jobs can be stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, json};

use crate::base::clock::Clock;
use crate::config::Config;
use crate::http::Response;
use crate::store::{Store, StoreError};
use crate::workers::pauses;

/// How much later than it wanted to be called again a step may be.
const SLACK: Duration = Duration::from_mins(1);
/// How long a tick may take where nobody said otherwise.
const USUAL: Duration = Duration::from_mins(30);
/// How long the last try to store something counts: whoever asks for health often does not make the
/// database write as often.
const FRESH: Duration = Duration::from_secs(1);

/// A thread's sign of life.
#[derive(Clone, Debug)]
pub struct Vital {
    /// The thread's name.
    pub thread: String,
    /// When its last tick ended, or else when it was started; on the steady clock.
    pub ticked: Duration,
    /// How many ticks have ended.
    pub ticks: u64,
    /// Since when it is in a tick; none: it waits.
    pub busy_since: Option<Duration>,
    /// When it wanted to be called again.
    pub due: Duration,
    /// How long a tick of it may take.
    pub longest: Duration,
    /// What it cannot get past, where there is such a thing.
    pub trouble: Option<String>,
}

impl Vital {
    /// Why it does not tick as it should; none: it does.
    fn late(&self, now: Duration) -> Option<String> {
        let for_seconds = |since: Duration| now.saturating_sub(since).as_secs();
        match self.busy_since {
            Some(since) if now.saturating_sub(since) > self.longest => {
                Some(format!("is in one tick for {} s", for_seconds(since)))
            }
            None if now.saturating_sub(self.due) > SLACK => Some(format!(
                "was to tick {} s ago and did not",
                for_seconds(self.due)
            )),
            _ => None,
        }
    }
}

/// See the module.
pub struct Health {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    vitals: Mutex<BTreeMap<String, Vital>>,
    port: Mutex<Option<String>>,
    storage: Mutex<Option<Storage>>,
}

/// What the last try to store something came to.
#[derive(Clone)]
struct Storage {
    at: Duration,
    trouble: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    /// With no sign of life yet.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, config: Arc<Config>) -> Self {
        Self {
            store,
            clock,
            config,
            vitals: Mutex::default(),
            port: Mutex::default(),
            storage: Mutex::default(),
        }
    }

    /// A thread is about to be started; a tick of it takes `longest` at most.
    pub fn expect(&self, thread: &str, longest: Duration) {
        let now = self.clock.now().steady;
        let vital = Vital {
            thread: thread.to_owned(),
            ticked: now,
            ticks: 0,
            busy_since: None,
            due: now,
            longest,
            trouble: None,
        };
        lock(&self.vitals).insert(thread.to_owned(), vital);
    }

    /// A thread begins a tick.
    pub fn begins(&self, thread: &str) {
        let now = self.clock.now().steady;
        self.change(thread, |vital| vital.busy_since = Some(now));
    }

    /// A thread has ended a tick and wants the next one after `wait`; `trouble`: what it cannot get
    /// past.
    pub fn ends(&self, thread: &str, wait: Duration, trouble: Option<String>) {
        let now = self.clock.now().steady;
        self.change(thread, |vital| {
            vital.ticked = now;
            vital.ticks += 1;
            vital.busy_since = None;
            vital.due = now + wait;
            vital.trouble = trouble;
        });
    }

    fn change(&self, thread: &str, change: impl FnOnce(&mut Vital)) {
        if !lock(&self.vitals).contains_key(thread) {
            self.expect(thread, USUAL);
        }
        if let Some(vital) = lock(&self.vitals).get_mut(thread) {
            change(vital);
        }
    }

    /// All threads that have been expected, by name.
    pub fn vitals(&self) -> Vec<Vital> {
        lock(&self.vitals).values().cloned().collect()
    }

    /// Threads that do not tick as they should at `now` (the steady clock), and how so.
    pub fn late(&self, now: Duration) -> Vec<(String, String)> {
        let vitals = lock(&self.vitals);
        let late = vitals
            .values()
            .filter_map(|vital| Some((vital.thread.clone(), vital.late(now)?)));
        late.collect()
    }

    /// What a try of the client port came to; none: it answered.
    pub fn note_port(&self, silence: Option<String>) {
        *lock(&self.port) = silence;
    }

    /// Why no job can be stored now; none: it can, tried by storing something a moment ago, and there
    /// is more room than is left to results.
    pub(super) fn storage(&self) -> Option<String> {
        let now = self.clock.now();
        let mut last = lock(&self.storage);
        match &*last {
            Some(storage) if now.steady.saturating_sub(storage.at) < FRESH => {
                storage.trouble.clone()
            }
            _ => {
                let room = self
                    .store
                    .probe(now.wall)
                    .and_then(|()| pauses::missing_free_space(&self.store, &self.config));
                let trouble = match room {
                    Ok(None) => None,
                    Ok(Some(_)) => Some(StoreError::Full.to_string()),
                    Err(error) => Some(error.to_string()),
                };
                *last = Some(Storage {
                    at: now.steady,
                    trouble: trouble.clone(),
                });
                trouble
            }
        }
    }

    /// Whether every thread ticks and gets on, the client port answers, and jobs can be stored.
    pub fn is_well(&self, now: Duration) -> bool {
        let threads = self.vitals();
        let is_well = |vital: &Vital| vital.trouble.is_none() && vital.late(now).is_none();
        threads.iter().all(is_well) && lock(&self.port).is_none() && self.storage().is_none()
    }

    /// For clients: the status alone, 503 only when no job can be stored.
    pub(crate) fn brief(&self) -> Response {
        match self.storage() {
            None => Response::json(200, &json!({"status": "healthy"})),
            Some(_) => Response::json(503, &json!({"status": "unhealthy"})),
        }
    }

    /// For the operator: every thread's last tick, and what is wrong.
    pub(super) fn whole(&self) -> Response {
        let now = self.clock.now().steady;
        let (storage, port) = (self.storage(), lock(&self.port).clone());
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
        for vital in self.vitals() {
            let message = vital.trouble.clone().or_else(|| vital.late(now));
            healthy &= message.is_none();
            let check = json!({
                "ok": message.is_none(),
                "seconds_since_tick": now.saturating_sub(vital.ticked).as_secs(),
                "in_a_tick": vital.busy_since.is_some(),
                "message": message,
            });
            checks.insert(vital.thread, check);
        }
        let status = if healthy { "healthy" } else { "unhealthy" };
        let answer =
            json!({"status": status, "version": env!("CARGO_PKG_VERSION"), "checks": checks});
        Response::json(if healthy { 200 } else { 503 }, &answer)
    }
}
