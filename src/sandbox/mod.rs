//! A simulated OpenAI: Files, Batches and Responses as far as a batch client needs them, over the
//! same HTTP types as our own API. The demo, the tests and users without a key run on it.
//!
//! It is as strict as the real one is known to be, remembers everything on disk, and goes wrong on
//! demand (`faults.rs` has the menu). Nothing moves by itself: a batch advances when it is looked
//! at. It knows nothing of jobs, lots or the store.

mod http;
mod model;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use model::disk::StateFolderError;
pub use model::faults::Fault;
pub use model::responses::images::image_names;
pub use model::responses::object::ODD_UNICODE;
pub use model::responses::texts::{expected_description, expected_translation};
pub use model::settings::{
    Latencies, Pace, ProjectKey, Reasoning, SandboxSettings, SimulatedModel, UnknownFile,
};

use crate::base::clock::{Clock, Timestamp};
use crate::http::{Handler, Request, Response};
use model::error_reply::ErrorReply;
use model::ledger::LedgerEntry;
use model::responses::execution::FaultTarget;
use model::responses::object::ResponseFaults;

/// The simulated OpenAI.
pub struct Sandbox {
    folder: PathBuf,
    settings: SandboxSettings,
    clock: Arc<dyn Clock>,
    seq: AtomicU64,
    faults: model::faults::FaultRules,
    ledger: model::ledger::Ledger,
    files: model::files::operations::FileRecords,
    batches: model::batches::operations::BatchRecords,
    /// By batch: its project and model, and the tokens that it holds.
    queue: Mutex<BTreeMap<String, (String, u64)>>,
    hooks: Mutex<()>,
}

/// Who calls.
struct CallingProject {
    project: String,
    organization: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    /// Opens the state in a folder, or begins it.
    ///
    /// # Errors
    /// When the folder cannot be used, or holds what is no state.
    pub fn open(
        state_dir: &Path,
        settings: SandboxSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StateFolderError> {
        let failed = |error: io::Error| StateFolderError::new(state_dir, &error);
        std::fs::create_dir_all(state_dir).map_err(failed)?;
        let ledger = model::ledger::Ledger::open(state_dir)?;
        let files = model::files::operations::FileRecords::open(state_dir)?;
        let batches = model::batches::operations::BatchRecords::open(state_dir)?;
        let newest = files.newest_seq().max(batches.newest_seq());
        let sandbox = Self {
            folder: state_dir.to_owned(),
            settings,
            clock,
            seq: AtomicU64::new(newest + 1),
            faults: model::faults::FaultRules::open(state_dir)?,
            ledger,
            files,
            batches,
            queue: Mutex::default(),
            hooks: Mutex::default(),
        };
        sandbox.reconcile().map_err(failed)?;
        Ok(sandbox)
    }

    fn now(&self) -> Timestamp {
        self.clock.now().wall
    }

    fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed)
    }

    fn answer(&self, request: &Request) -> Result<Response, ErrorReply> {
        let path = request
            .path
            .trim_matches('/')
            .split('/')
            .collect::<Vec<_>>();
        if !matches!(path[..], ["sandbox", ..]) {
            self.delay(request)?;
        }
        match (request.method.as_str(), &path[..]) {
            ("GET" | "HEAD", ["images", name]) => model::responses::images::serve(name),
            ("POST", ["hooks", name]) => self.take_hook(request, name),
            (_, ["sandbox", rest @ ..]) => self.control(request, rest),
            (_, ["v1", rest @ ..]) => {
                if let Some(response) = self.instead(request, rest)? {
                    return Ok(response);
                }
                let caller = self.authenticate(request)?;
                self.note_oddities(request, rest)?;
                let response = self.call(&caller, request, rest)?;
                self.on_its_way(request, rest, response)
            }
            _ => Err(unknown_url(request)),
        }
    }

    fn call(
        &self,
        caller: &CallingProject,
        request: &Request,
        path: &[&str],
    ) -> Result<Response, ErrorReply> {
        match (request.method.as_str(), path) {
            ("POST", ["files"]) => self.upload(caller, request),
            ("GET", ["files"]) => self.list_files(caller, request),
            ("GET", ["files", id]) => self.get_file(caller, id),
            ("DELETE", ["files", id]) => self.delete_file(caller, id),
            ("GET", ["files", id, "content"]) => self.file_content(caller, id),
            ("POST", ["batches"]) => self.create_batch(caller, request),
            ("GET", ["batches"]) => self.list_batches(caller, request),
            ("GET", ["batches", id]) => self.get_batch(caller, id),
            ("POST", ["batches", id, "cancel"]) => self.cancel_batch(caller, id),
            ("POST", ["responses"]) => self.respond(request),
            ("GET", ["models"]) => self.list_models(),
            ("GET", ["models", id]) => self.get_model(id),
            _ => Err(unknown_url(request)),
        }
    }

    fn authenticate(&self, request: &Request) -> Result<CallingProject, ErrorReply> {
        let key = request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(str::trim)
            .unwrap_or("");
        let mut known = self.settings.api_keys.iter().filter(|one| one.key == key);
        let found = match request.header("openai-project").filter(|id| !id.is_empty()) {
            Some(wanted) => {
                if self.settings.api_keys.iter().any(|one| one.key == key)
                    && !known.clone().any(|one| one.project == wanted)
                {
                    return Err(ErrorReply::new(
                        401,
                        "OpenAI-Project header should match project for API key",
                    )
                    .code("mismatched_project"));
                }
                known.find(|one| one.project == wanted)
            }
            None => known.next(),
        };
        let found = found.ok_or_else(|| unauthorized(key))?;
        Ok(CallingProject {
            project: found.project.clone(),
            organization: request
                .header("openai-organization")
                .unwrap_or("")
                .to_owned(),
        })
    }

    /// Notes what a strict reader of the API would not send; none of it changes the answer.
    fn note_oddities(&self, request: &Request, path: &[&str]) -> Result<(), ErrorReply> {
        let known: &[&str] = match (request.method.as_str(), path) {
            ("GET", ["files"]) => &["after", "limit", "order", "purpose"],
            ("GET", ["batches"]) => &["after", "limit"],
            _ => &[],
        };
        if let Some(key) = request.header("idempotency-key") {
            self.flag(request, path, "idempotency_key", key)?;
        }
        for pair in request.query.iter().flat_map(|query| query.split('&')) {
            let name = pair.split('=').next().unwrap_or(pair);
            if !name.is_empty() && !known.contains(&name) {
                self.flag(request, path, "unknown_query_parameter", name)?;
            }
        }
        Ok(())
    }

    fn flag(
        &self,
        request: &Request,
        path: &[&str],
        flag: &str,
        detail: &str,
    ) -> Result<(), ErrorReply> {
        let place = path.first().copied().unwrap_or("");
        let entry = LedgerEntry::Flag {
            flag: flag.to_owned(),
            request: format!("{} /v1/{place}", request.method),
            detail: detail.to_owned(),
        };
        Ok(self.ledger.note(self.now(), entry)?)
    }

    /// `POST /responses`.
    fn respond(&self, request: &Request) -> Result<Response, ErrorReply> {
        let body: serde_json::Value = serde_json::from_slice(&request.body).map_err(|_| {
            ErrorReply::new(400, "We could not parse the JSON body of your request.")
        })?;
        let text = body
            .get("input")
            .map(ToString::to_string)
            .unwrap_or_default();
        let names = ["/v1/responses", &text];
        let seed = self.next_seq().to_string();
        let mut struck = Vec::new();
        let mut target = FaultTarget {
            names: &names,
            seed: &seed,
            struck: &mut struck,
        };
        let now = self.now();
        let outcome = self.run(&body, &mut target, ResponseFaults::default(), now.seconds());
        struck.push(LedgerEntry::Executed {
            batch: None,
            custom_id: String::new(),
            status: outcome.status,
            answered: outcome.whole,
        });
        self.ledger.append(now, &struck)?;
        Ok(Response::bytes(
            outcome.status,
            "application/json",
            outcome.body.get().as_bytes().to_vec(),
        )
        .with_header("x-ratelimit-limit-requests", "500")
        .with_header("x-ratelimit-remaining-requests", "499")
        .with_header("x-ratelimit-reset-requests", "120ms"))
    }

    fn list_models(&self) -> Result<Response, ErrorReply> {
        let models = self
            .settings
            .models
            .iter()
            .map(|model| model_object(&model.name))
            .collect::<Vec<_>>();
        model::error_reply::ok(&serde_json::json!({"object": "list", "data": models}))
    }

    fn get_model(&self, id: &str) -> Result<Response, ErrorReply> {
        match self.settings.model(id) {
            Some(_) => model::error_reply::ok(&model_object(id)),
            None => Err(
                ErrorReply::new(404, format!("The model '{id}' does not exist"))
                    .code("model_not_found")
                    .param("model"),
            ),
        }
    }
}

impl Handler for Sandbox {
    fn handle(&self, request: Request) -> Response {
        let mut response = self
            .answer(&request)
            .unwrap_or_else(|refusal| refusal.response());
        if let Err(error) = self.faults.save() {
            response = ErrorReply::from(error).response();
        }
        if !request.path.starts_with("/v1/") {
            return response;
        }
        let hash = model::ids::hex(&["request", &request.id]);
        response
            .with_header("x-request-id", &format!("req_{}", &hash[..32]))
            .with_header("openai-version", "2020-10-01")
            .with_header("openai-organization", "org-sandbox")
    }

    fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
        ErrorReply::new(status, message).code(code).response()
    }
}

fn model_object(id: &str) -> serde_json::Value {
    serde_json::json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "system", "shutdown_date": null})
}

fn unknown_url(request: &Request) -> ErrorReply {
    ErrorReply::new(
        404,
        format!("Invalid URL ({} {})", request.method, request.path),
    )
}

fn unauthorized(key: &str) -> ErrorReply {
    let start = key.chars().take(3).collect::<String>();
    ErrorReply::new(401, format!("Incorrect API key provided: {start}***.")).code("invalid_api_key")
}
