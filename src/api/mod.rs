//! The client API: from an HTTP request to the store and back. It contains no SQL.
//!
//! [`Route`] finds what a request asks for. Then `auth` verifies its signature, `limits` counts it against
//! the client's rate, and the file that is named as the route answers it.

use std::sync::Arc;

use crate::base::clock::Clock;
use crate::config::Config;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::http::{Handler, Request, Response};
use crate::ops::answers::{RequestError, method_not_allowed, no_such_path, openapi_document, server_refusal};
use crate::ops::{Health, RequestMetrics};
use crate::outbound::{GuardedClient, SsrfGuard};
use crate::python_json::{self, Document};
use crate::store::Store;
use crate::workers::wakeups::Wakeups;

mod auth;
mod cancel;
mod deliveries;
pub mod idempotency;
mod job_change;
mod large_bodies;
mod legacy_routes;
mod limits;
mod list;
mod lot;
mod page;
mod query;
mod reference_page;
mod results;
mod routes;
mod status;
pub mod submit;
mod synchronous;
mod test_event;

use large_bodies::LargeBodyPermits;
use limits::RateLimiter;
use routes::Route;
use synchronous::SynchronousPermits;
use test_event::TestEventPermits;

/// The media type of request and response bodies.
const JSON: &str = "application/json";

/// The header fields that the API reads and that count once. None of them is a list, so a sender must not repeat
/// one (RFC 9110, 5.3). Of two, a proxy may read the other one than this service does.
const SINGLE_FIELDS: [&str; 5] = [
    "X-Signature",
    "X-Timestamp",
    "X-Client-Id",
    "Idempotency-Key",
    "Content-Type",
];

/// The client API.
pub struct Api {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    guard: SsrfGuard,
    outbound: Arc<GuardedClient>,
    health: Arc<Health>,
    metrics: Arc<RequestMetrics>,
    wakeups: Wakeups,
    rates: RateLimiter,
    synchronous: SynchronousPermits,
    test_events: TestEventPermits,
    large_bodies: LargeBodyPermits,
}

impl Api {
    /// The client API. `outbound` sends test events, and its guard checks the URLs of submissions. `wakeups` wakes the workers when there may be work; `metrics` counts the requests.
    pub fn new(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        config: Arc<Config>,
        outbound: Arc<GuardedClient>,
        health: Arc<Health>,
        metrics: Arc<RequestMetrics>,
        wakeups: Wakeups,
    ) -> Self {
        Self {
            store,
            clock,
            large_bodies: LargeBodyPermits::new(config.http.workers),
            config,
            guard: outbound.guard().clone(),
            outbound,
            health,
            metrics,
            wakeups,
            rates: RateLimiter::default(),
            synchronous: SynchronousPermits::default(),
            test_events: TestEventPermits::default(),
        }
    }

    fn answer(&self, request: &Request) -> Result<Response, RequestError> {
        let now = self.clock.now().wall;
        let route = Route::of(&request.path).ok_or_else(|| no_such_path(&request.path))?;
        if !route.is_allowed(&request.method) {
            return Err(method_not_allowed(route.allow()));
        }
        if let Some(name) = request.repeated_field(&SINGLE_FIELDS) {
            let message = format!("The request has more than one header field `{name}`: send it once.");
            return Err(ApiError::new(ErrorCode::InvalidParameter, message).into());
        }
        match route {
            Route::Submit => self.submit(request, now),
            Route::List => self.list(request, now),
            Route::Lot(id) => self.lot(request, id, now),
            Route::Cancel(id) => self.cancel(request, id, now),
            Route::Deliveries(id) => self.deliveries(request, id, now),
            Route::Resend(id, delivery) => self.resend(request, id, delivery, now),
            Route::TestEvent => self.test_event(request, now),
            Route::Status(id) => self.status(request, id, now),
            Route::Results(id) => self.results(request, id, now),
            Route::Download(id) => self.download(request, id, now),
            Route::LegacyStatus(id) => self.legacy_status(request, id, now),
            Route::LegacyJob(id) => self.legacy_job(request, id, now),
            Route::Health => Ok(self.health.client_response()),
            Route::OpenApi => Ok(openapi_document(reference_page::DOCUMENT)),
            Route::Docs => Ok(reference_page::response()),
        }
    }
}

impl Handler for Api {
    fn handle(&self, request: Request) -> Response {
        let started = self.clock.now().steady;
        let response = self.answer(&request).unwrap_or_else(RequestError::into_response);
        if response.status == ErrorCode::InvalidSignature.status() {
            self.metrics.wrong_signatures.record(request.peer, started);
        }
        // Monitoring asks for `/health` every few seconds.
        let level = match request.path.as_str() {
            "/health" => log::Level::Debug,
            _ => log::Level::Info,
        };
        let took = self.clock.now().steady.saturating_sub(started);
        let route = Route::of(&request.path).map_or("", Route::template);
        self.metrics.record_answer(route, response.status, took);
        log::log!(
            level, event = "request", id:% = request.id, peer:% = request.peer,
            method:% = request.method, path = request.path, status = response.status,
            bytes = request.body.len(), took:?; ""
        );
        response
    }

    fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
        self.metrics.record_refusal(status);
        server_refusal(status, code, message)
    }
}

/// A JSON text as an answer.
fn json_response(status: u16, text: String) -> Response {
    Response::bytes(status, JSON, text.into_bytes())
}

/// 503 with the seconds after which the client may send its request again.
fn overloaded(message: &str, retry_after: &str) -> RequestError {
    let error = ApiError::new(ErrorCode::Overloaded, message);
    RequestError::Refused(error, vec![("Retry-After", retry_after.to_owned())])
}

/// The most JSON values in a body. The largest job of the contract has far fewer.
const MAX_VALUES: usize = 12_000_000;

fn parse_body(body: &[u8]) -> Result<Document<'_>, ApiError> {
    python_json::parse_within(body, MAX_VALUES)
        .map_err(|error| ApiError::new(ErrorCode::InvalidJson, format!("The body is no JSON: {error}.")))
}
