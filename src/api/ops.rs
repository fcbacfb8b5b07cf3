//! The operator's listener: health and what there is to look at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Failure, not_allowed, refused, seconds};
use crate::batch::BatchState;
use crate::clock::{Clock, Timestamp};
use crate::http::{Handler, Request, Response};
use crate::refusal::{Code, Refusal};
use crate::store::{Store, alerts, batches, jobs};

/// A step that has not ticked for so long, beyond the longest call it may be in, is unwell.
const UNWELL: Duration = Duration::from_hours(2);

/// A thread's sign of life.
#[derive(Clone, Debug)]
pub struct Vital {
    /// When it last ended a tick, on the steady clock.
    pub at: Duration,
    /// What it cannot get past, where there is such a thing.
    pub trouble: Option<String>,
}

/// The signs of life of all threads, and whether jobs can be stored.
pub struct Health {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    vitals: Mutex<BTreeMap<String, Vital>>,
    storage: Mutex<Option<Storage>>,
}

/// What the last try to store something came to.
#[derive(Clone)]
struct Storage {
    at: Duration,
    trouble: Option<String>,
}

/// How long it counts: whoever asks for health often does not make the database write as often.
const FRESH: Duration = Duration::from_secs(1);

impl Health {
    /// With no sign of life yet.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            vitals: Mutex::default(),
            storage: Mutex::default(),
        }
    }

    /// A thread's sign of life, with what it cannot get past.
    pub fn beat(&self, thread: &str, trouble: Option<String>) {
        let vital = Vital {
            at: self.clock.now().steady,
            trouble,
        };
        self.vitals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(thread.to_owned(), vital);
    }

    /// Why no job can be stored now; none: it can, tried by storing something a moment ago.
    fn storage(&self) -> Option<String> {
        let now = self.clock.now();
        let mut last = self.storage.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(storage) if now.steady.saturating_sub(storage.at) < FRESH => {
                storage.trouble.clone()
            }
            _ => {
                let trouble = self
                    .store
                    .probe(now.wall)
                    .err()
                    .map(|error| error.to_string());
                *last = Some(Storage {
                    at: now.steady,
                    trouble: trouble.clone(),
                });
                trouble
            }
        }
    }

    /// For clients: the status alone, 503 only when no job can be stored.
    pub(super) fn brief(&self) -> Response {
        match self.storage() {
            None => Response::json(200, &json!({"status": "healthy"})),
            Some(_) => Response::json(503, &json!({"status": "unhealthy"})),
        }
    }

    fn whole(&self) -> Response {
        let now = self.clock.now().steady;
        let storage = self.storage();
        let mut healthy = storage.is_none();
        let mut checks = Map::new();
        checks.insert("storage".into(), json!({"ok": healthy, "message": storage}));
        for (thread, vital) in self
            .vitals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let age = now.saturating_sub(vital.at);
            let ok = age < UNWELL && vital.trouble.is_none();
            healthy &= ok;
            let check =
                json!({"ok": ok, "seconds_since_tick": age.as_secs(), "message": vital.trouble});
            checks.insert(thread.clone(), check);
        }
        let status = if healthy { "healthy" } else { "unhealthy" };
        let answer =
            json!({"status": status, "version": env!("CARGO_PKG_VERSION"), "checks": checks});
        Response::json(if healthy { 200 } else { 503 }, &answer)
    }
}

/// The operator's pages.
pub struct Ops {
    store: Arc<Store>,
    health: Arc<Health>,
}

impl Ops {
    /// The operator's pages.
    pub fn new(store: Arc<Store>, health: Arc<Health>) -> Self {
        Self { store, health }
    }

    fn answer(&self, request: &Request) -> Result<Response, Failure> {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Err(not_allowed("GET, HEAD"));
        }
        match request.path.as_str() {
            "/health" => Ok(self.health.whole()),
            "/api/ops/summary" => self.summary(),
            "/api/ops/alerts" => self.alerts(),
            "/api/ops/batches" => self.batches(),
            _ => Err(Refusal::new(
                Code::NotFound,
                format!("There is nothing at {}.", request.path),
            )
            .into()),
        }
    }

    fn summary(&self) -> Result<Response, Failure> {
        let (by_status, active, open) = self.store.read(|view| {
            Ok((
                jobs::count_by_status(view)?,
                batches::active(view)?,
                alerts::list(view, true, 1000)?.len(),
            ))
        })?;
        let by_status: Map<_, _> = by_status
            .into_iter()
            .map(|(status, number)| (status.as_str().to_owned(), json!(number)))
            .collect();
        Ok(Response::json(
            200,
            &json!({"jobs": by_status, "batches_active": active, "alerts_open": open}),
        ))
    }

    fn alerts(&self) -> Result<Response, Failure> {
        let rows = self.store.read(|view| alerts::list(view, false, 200))?;
        let list: Value = rows.iter().map(alert).collect();
        Ok(Response::json(200, &json!({"alerts": list})))
    }

    fn batches(&self) -> Result<Response, Failure> {
        let rows = self
            .store
            .read(|view| batches::in_states(view, BatchState::ALL, 100))?;
        let list: Value = rows.iter().map(batch).collect();
        Ok(Response::json(200, &json!({"batches": list})))
    }
}

fn alert(row: &alerts::AlertRow) -> Value {
    json!({
        "kind": row.kind,
        "subject": row.subject,
        "message": row.message,
        "opened_at": row.opened_at.to_seconds_text(),
        "closed_at": row.closed_at.map(Timestamp::to_seconds_text),
    })
}

fn batch(row: &batches::BatchRow) -> Value {
    json!({
        "id": row.id,
        "openai_batch_id": row.openai_batch_id,
        "stage": row.stage.as_str(),
        "state": row.state.as_str(),
        "openai_status": row.openai_status,
        "model": row.model,
        "lines": row.lines,
        "completed": row.counts.completed,
        "failed": row.counts.failed,
        "failures": row.failures,
        "next_at": row.next_at.to_seconds_text(),
        "ended_at": seconds(row.ended_at),
    })
}

impl Handler for Ops {
    fn handle(&self, request: Request) -> Response {
        self.answer(&request).unwrap_or_else(Failure::into_response)
    }

    fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
        refused(status, code, message)
    }
}
