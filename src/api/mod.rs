//! The front: the client API and the operator's pages, from an HTTP request to the intake or the
//! store and back. Knows no SQL.

use std::sync::Arc;

use serde_json::Value;

use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::http::{Handler, Request, Response};
use crate::json::{self, Json};
use crate::net::Guard;
use crate::refusal::{Code, Refusal};
use crate::store::{Store, StoreError};
use turn::Turns;

mod auth;
mod doorkeeper;
mod ops;
mod read;
mod submit;
mod turn;

pub use doorkeeper::Doorkeeper;
pub use ops::{Health, Ops, Vital};

/// How long a client is asked to wait when nothing can be stored, seconds.
const RETRY_STORAGE: &str = "30";

/// The client API.
pub struct Api {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    guard: Guard,
    health: Arc<Health>,
    wake: Box<dyn Fn() + Send + Sync>,
    turns: Turns,
}

impl Api {
    /// The client API; `wake` tells the steps that there may be work.
    pub fn new(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        config: Arc<Config>,
        guard: Guard,
        health: Arc<Health>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            clock,
            turns: Turns::new(config.http.workers),
            config,
            guard,
            health,
            wake: Box::new(wake),
        }
    }

    fn answer(&self, request: &Request) -> Result<Response, Failure> {
        let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let now = self.clock.now().wall;
        match (request.method.as_str(), path.as_slice()) {
            ("POST", ["api", "v1", "generate-descriptions"]) => self.submit(request, now),
            ("GET", ["api", "v1", "batch-status", id]) => self.status(request, id, now),
            ("GET", ["api", "v1", "batch-results", id]) => self.results(request, id, now, false),
            ("GET", ["api", "v1", "batch-results", id, "download"]) => {
                self.results(request, id, now, true)
            }
            ("GET", ["health"]) => Ok(self.health.brief()),
            (_, ["api", "v1", "generate-descriptions"]) => Err(not_allowed("POST")),
            (_, ["api", "v1", "batch-status", _] | ["health"]) => Err(not_allowed("GET")),
            (
                _,
                ["api", "v1", "batch-results", _] | ["api", "v1", "batch-results", _, "download"],
            ) => Err(not_allowed("GET")),
            _ => Err(Refusal::new(
                Code::NotFound,
                format!("There is nothing at {}.", request.path),
            )
            .into()),
        }
    }
}

impl Handler for Api {
    fn handle(&self, request: Request) -> Response {
        let started = self.clock.now().steady;
        let response = self.answer(&request).unwrap_or_else(Failure::into_response);
        log::info!(
            "event=request id={} peer={} method={} path={:?} status={} bytes={} took={:?}",
            request.id,
            request.peer,
            request.method,
            request.path,
            response.status,
            request.body.len(),
            self.clock.now().steady.saturating_sub(started),
        );
        response
    }

    fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
        refused(status, code, message)
    }
}

/// A refusal of the server itself, in the contract's form.
fn refused(status: u16, code: &str, message: &str) -> Response {
    let code = code.parse().unwrap_or(Code::InvalidParameter);
    Response::json(status, &Refusal::new(code, message).body())
}

/// Why a request gets no good answer.
enum Failure {
    Refused(Refusal, Vec<(&'static str, String)>),
    Store(StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, Vec::new())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal, headers) => {
                let response = Response::json(refusal.code.status(), &refusal.body());
                headers.iter().fold(response, |response, (name, value)| {
                    response.with_header(name, value)
                })
            }
            Self::Store(error) => {
                log::error!("a request could not be answered: {error}");
                let message = "Nothing can be stored or read now; nothing of this request was. Send it again later.";
                let refusal = Refusal::new(Code::StorageUnavailable, message);
                Response::json(503, &refusal.body()).with_header("Retry-After", RETRY_STORAGE)
            }
        }
    }
}

fn not_allowed(allow: &str) -> Failure {
    let refusal = Refusal::new(
        Code::MethodNotAllowed,
        format!("This path takes {allow} only."),
    );
    Failure::Refused(refusal, vec![("Allow", allow.to_owned())])
}

/// The most JSON values in a body: the largest job of the contract has far fewer.
const MAX_VALUES: usize = 12_000_000;

fn parse_body(body: &[u8]) -> Result<Json<'_>, Refusal> {
    json::parse_within(body, MAX_VALUES)
        .map_err(|error| Refusal::new(Code::InvalidJson, format!("The body is no JSON: {error}.")))
}

fn seconds(time: Option<Timestamp>) -> Value {
    time.map(Timestamp::to_seconds_text).into()
}
