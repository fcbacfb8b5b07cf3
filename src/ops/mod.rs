//! The operators' listener: health, metrics, the pages, and their figures as JSON.

use std::sync::Arc;

use serde_json::{Map, Value, json};

mod act;
mod actions;
pub(crate) mod answers;
mod auth;
mod costs;
mod health;
mod metrics;
mod pages;
mod prometheus_text;
mod request_metrics;
mod waits;
mod wrong_credentials;

pub use auth::{Operator, OperatorAuth, OperatorHandler};
pub use health::{Health, ThreadHealth};
pub use request_metrics::RequestMetrics;

use self::actions::FormKey;
use self::answers::{RequestError, method_not_allowed, openapi_document, server_refusal};
use self::metrics::Metrics;
use self::pages::StatusPage;
use crate::base::clock::{Clock, Moment, Timestamp};
use crate::config::Config;
use crate::http::{Request, Response};
use crate::store::{Store, alerts, batches, figures, status};

/// Gives the milliseconds by which the machine's clock is ahead of OpenAI's; `None` if unknown.
pub type ClockSkew = Box<dyn Fn(Moment) -> Option<i64> + Send + Sync>;

/// What operators may read.
pub struct Ops {
    store: Arc<Store>,
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    requests: Arc<RequestMetrics>,
    clock_skew: ClockSkew,
    metrics: Metrics,
    form_key: Option<FormKey>,
}

impl Ops {
    /// The operators' listener. `requests` holds the counts of the client API's requests.
    pub fn new(
        store: Arc<Store>,
        health: Arc<Health>,
        clock: Arc<dyn Clock>,
        config: Arc<Config>,
        requests: Arc<RequestMetrics>,
        clock_skew: ClockSkew,
    ) -> Self {
        let token = config.ops_token().reveal();
        let form_key = FormKey::new(token, store.database_id()).filter(|_| config.ops_actions);
        Self {
            form_key,
            store,
            health,
            clock,
            config,
            requests,
            clock_skew,
            metrics: Metrics::default(),
        }
    }

    fn answer(&self, request: &Request, operator: &Operator) -> Result<Response, RequestError> {
        if let (Some(kind), Some(key)) = (request.path.strip_prefix("/actions/"), &self.form_key) {
            return self.action(kind, key, request, operator);
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Err(method_not_allowed("GET, HEAD"));
        }
        match request.path.as_str() {
            "/health" => Ok(self.health.operator_response()),
            "/metrics" => {
                let now = self.clock.now();
                let skew = (self.clock_skew)(now);
                Ok(self
                    .metrics
                    .answer(&self.store, &self.health, &self.requests, skew, now)?)
            }
            "/api/ops/summary" => self.summary(),
            "/api/ops/alerts" => self.alerts(),
            "/api/ops/batches" => self.batches(),
            "/api/ops/webhooks" => self.webhooks(),
            "/api/ops/costs" => self.costs(),
            "/openapi.json" => Ok(openapi_document(include_str!("openapi.json"))),
            path => match pages::file(path) {
                Some(file) => Ok(file),
                None => self.page(operator)?.answer(request),
            },
        }
    }

    fn page<'a>(&'a self, operator: &'a Operator) -> Result<StatusPage<'a>, RequestError> {
        let now = self.clock.now();
        Ok(StatusPage {
            store: &self.store,
            health: &self.health,
            config: &self.config,
            figures: self.metrics.figures(&self.store, now.steady)?,
            now,
            operator,
        })
    }

    /// A refusal as a page, if a browser asked for a page.
    fn refuse_browser(
        &self,
        request: &Request,
        operator: &Operator,
        error: &RequestError,
    ) -> Option<Response> {
        let is_browser = request
            .header("accept")
            .is_some_and(|accept| accept.contains("text/html"));
        let RequestError::Refused(error, headers) = error else {
            return None;
        };
        if !is_browser || request.path.starts_with("/api/") {
            return None;
        }
        let page = self
            .page(operator)
            .ok()?
            .refusal(error.code.status(), &error.message)
            .ok()?;
        Some(
            headers
                .iter()
                .fold(page, |page, (name, value)| page.with_header(name, value)),
        )
    }

    fn summary(&self) -> Result<Response, RequestError> {
        let (by_status, active, open) = self.store.read(|view| {
            Ok((
                figures::jobs(view)?,
                batches::count_active(view)?,
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

    fn alerts(&self) -> Result<Response, RequestError> {
        let rows = self.store.read(|view| alerts::list(view, false, 200))?;
        let list: Value = rows.iter().map(alert).collect();
        Ok(Response::json(200, &json!({"alerts": list})))
    }

    fn costs(&self) -> Result<Response, RequestError> {
        let now = self.clock.now().wall;
        Ok(Response::json(
            200,
            &costs::answer(&self.store, &self.config, now)?,
        ))
    }

    fn batches(&self) -> Result<Response, RequestError> {
        let rows = self.store.read(|view| batches::newest(view, 100))?;
        let list: Value = rows.iter().map(batch).collect();
        Ok(Response::json(200, &json!({"batches": list})))
    }

    fn webhooks(&self) -> Result<Response, RequestError> {
        let rows = self.store.read(|view| status::deliveries(view, 200))?;
        let list: Value = rows.iter().map(delivery).collect();
        Ok(Response::json(200, &json!({"webhooks": list})))
    }
}

fn alert(row: &alerts::AlertRow) -> Value {
    json!({
        "kind": row.kind.as_str(),
        "subject": row.subject.to_string(),
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
        "ended_at": row.ended_at.map(Timestamp::to_seconds_text),
    })
}

fn delivery(row: &status::Delivery) -> Value {
    json!({
        "delivery": row.id,
        "job": row.job,
        "receiver": row.receiver,
        "state": row.state,
        "attempts": row.attempts,
        "answer": row.response_status,
        "error": row.error,
        "at": row.at.map(|at| at.to_string()),
    })
}

impl OperatorHandler for Ops {
    fn handle(&self, request: &Request, operator: &Operator) -> Response {
        self.answer(request, operator).unwrap_or_else(|error| {
            let page = self.refuse_browser(request, operator, &error);
            page.unwrap_or_else(|| error.into_response())
        })
    }

    fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
        server_refusal(status, code, message)
    }
}
