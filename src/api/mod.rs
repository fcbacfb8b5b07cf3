//! The front: the client API and the operator's pages, from an HTTP request to the intake or the
//! store and back. Knows no SQL.

use std::num::{IntErrorKind, ParseIntError};
use std::sync::Arc;

use crate::base::clock::Clock;
use crate::config::Config;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::http::{Handler, Request, Response};
use crate::ops::answers::{
    RETRY_AFTER, RequestError, method_not_allowed, no_such_path, openapi_document, server_refusal,
};
use crate::ops::{Health, RequestMetrics};
use crate::outbound::Guard;
use crate::python_json::{self, Json};
use crate::store::Store;
use crate::workers::wakeups::Wakeups;
use large_bodies::LargeBodyPermits;

mod auth;
mod cancel;
mod dry_run;
pub mod intake;
mod large_bodies;
mod legacy_routes;
mod limits;
mod list;
mod read;
mod submit;
mod synchronous;

use limits::Rates;
use synchronous::SynchronousPermits;

/// The client API.
pub struct Api {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    guard: Guard,
    health: Arc<Health>,
    rates: Rates,
    metrics: Arc<RequestMetrics>,
    wakeups: Wakeups,
    permits: SynchronousPermits,
    turns: LargeBodyPermits,
}

impl Api {
    /// The client API. `wakeups` wakes the workers when there may be work; `metrics` counts the requests.
    pub fn new(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        config: Arc<Config>,
        guard: Guard,
        health: Arc<Health>,
        metrics: Arc<RequestMetrics>,
        wakeups: Wakeups,
    ) -> Self {
        Self {
            store,
            clock,
            turns: LargeBodyPermits::new(config.http.workers),
            config,
            guard,
            health,
            rates: Rates::default(),
            metrics,
            wakeups,
            permits: SynchronousPermits::default(),
        }
    }

    fn answer(&self, request: &Request) -> Result<Response, RequestError> {
        let now = self.clock.now().wall;
        let route = Route::of(&request.path).ok_or_else(|| no_such_path(&request.path))?;
        if !route.takes(&request.method) {
            return Err(method_not_allowed(route.allow()));
        }
        match route {
            Route::Submit => self.submit(request, now),
            Route::List => self.list(request, now),
            Route::Cancel(id) => self.cancel(request, id, now),
            Route::Status(id) => self.status(request, id, now),
            Route::Results(id) => self.results(request, id, now, false),
            Route::Download(id) => self.results(request, id, now, true),
            Route::OlderStatus(id) => self.older_status(request, id, now),
            Route::OlderJob(id) => self.older_job(request, id, now),
            Route::Health => Ok(self.health.brief()),
            Route::Document => Ok(openapi_document(include_str!("openapi.json"))),
        }
    }
}

/// The client API's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'r> {
    Submit,
    List,
    Cancel(&'r str),
    Status(&'r str),
    Results(&'r str),
    Download(&'r str),
    OlderStatus(&'r str),
    OlderJob(&'r str),
    Health,
    Document,
}

impl<'r> Route<'r> {
    /// One slash at the end is as good as none.
    fn of(path: &'r str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let parts: Vec<&str> = path.split('/').collect();
        if parts.contains(&"") {
            return None;
        }
        let rest = match parts.as_slice() {
            ["health"] => return Some(Self::Health),
            ["openapi.json"] => return Some(Self::Document),
            ["api", "v1", rest @ ..] => rest,
            _ => return None,
        };
        Some(match *rest {
            ["generate-descriptions"] => Self::Submit,
            ["batch-jobs"] => Self::List,
            ["batch-jobs", id, "cancel"] => Self::Cancel(id),
            ["batch-status", id] => Self::Status(id),
            ["batch-results", id] | ["jobs", id, "results"] => Self::Results(id),
            ["batch-results", id, "download"] => Self::Download(id),
            ["jobs", id, "status"] => Self::OlderStatus(id),
            ["jobs", id] => Self::OlderJob(id),
            _ => return None,
        })
    }

    /// The methods that it takes; HEAD is GET without the body.
    fn allow(self) -> &'static str {
        match self {
            Self::Submit | Self::Cancel(_) => "POST",
            _ => "GET, HEAD",
        }
    }

    /// Its path as the document writes it, whatever job is asked for.
    fn template(self) -> &'static str {
        match self {
            Self::Submit => "/api/v1/generate-descriptions",
            Self::List => "/api/v1/batch-jobs",
            Self::Cancel(_) => "/api/v1/batch-jobs/{job_id}/cancel",
            Self::Status(_) => "/api/v1/batch-status/{job_id}",
            Self::Results(_) => "/api/v1/batch-results/{job_id}",
            Self::Download(_) => "/api/v1/batch-results/{job_id}/download",
            Self::OlderStatus(_) => "/api/v1/jobs/{job_id}/status",
            Self::OlderJob(_) => "/api/v1/jobs/{job_id}",
            Self::Health => "/health",
            Self::Document => "/openapi.json",
        }
    }

    fn takes(self, method: &str) -> bool {
        self.allow().split(", ").any(|it| it == method)
    }
}

impl Handler for Api {
    fn handle(&self, request: Request) -> Response {
        let started = self.clock.now().steady;
        let response = self
            .answer(&request)
            .unwrap_or_else(RequestError::into_response);
        // Whoever watches asks every few seconds.
        let level = match request.path.as_str() {
            "/health" => log::Level::Debug,
            _ => log::Level::Info,
        };
        let took = self.clock.now().steady.saturating_sub(started);
        let route = Route::of(&request.path).map_or("", Route::template);
        self.metrics.record_answer(route, response.status, took);
        log::log!(
            level,
            "event=request id={} peer={} method={} path={:?} status={} bytes={} took={:?}",
            request.id,
            request.peer,
            request.method,
            request.path,
            response.status,
            request.body.len(),
            took,
        );
        response
    }

    fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
        self.metrics.record_refusal(status);
        server_refusal(status, code, message)
    }
}

/// A query parameter that may stand once.
fn parameter(request: &Request, name: &str) -> Result<Option<String>, ApiError> {
    let mut all = request.parameters(name);
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(ApiError::new(
            ErrorCode::InvalidParameter,
            format!("`{name}` stands twice in the query."),
        )),
        (first, None) => Ok(first),
    }
}

/// A whole number; one that is too great is as good as the greatest.
fn whole_number(text: &str) -> Result<i64, ParseIntError> {
    text.parse()
        .or_else(|error: ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow => Ok(i64::MAX),
            IntErrorKind::NegOverflow => Ok(i64::MIN),
            _ => Err(error),
        })
}

/// 503, with when to come back.
fn overloaded(message: &str) -> RequestError {
    let refusal = ApiError::new(ErrorCode::Overloaded, message);
    RequestError::Refused(refusal, vec![("Retry-After", RETRY_AFTER.to_owned())])
}

/// The most JSON values in a body: the largest job of the contract has far fewer.
const MAX_VALUES: usize = 12_000_000;

fn parse_body(body: &[u8]) -> Result<Json<'_>, ApiError> {
    python_json::parse_within(body, MAX_VALUES).map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidJson,
            format!("The body is no JSON: {error}."),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_has_every_route_and_its_methods() {
        let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for (path, item) in paths {
            let route = Route::of(path).unwrap();
            // The results have two paths.
            if path != "/api/v1/jobs/{job_id}/results" {
                assert_eq!(route.template(), path);
            }
            let methods: Vec<String> = item.as_object().unwrap().keys().cloned().collect();
            let allowed = route.allow().split(", ").filter(|it| *it != "HEAD");
            assert_eq!(methods, allowed.map(str::to_lowercase).collect::<Vec<_>>());
        }
        assert_eq!(paths.len(), 11);
    }
}
