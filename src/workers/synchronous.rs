//! The synchronous worker: asks OpenAI's `/v1/responses` for the requests of synchronous jobs one by one: a
//! lot's description first, then its translations. Several of these workers run on threads of their own, so
//! that slow calls do not hold up the batches.
//!
//! A call is a committed row before it is made. A request that is not answered within the time that a client
//! waits goes on in a batch, and the client polls.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::base::clock::{Clock, Moment, Timestamp};
use crate::base::fields::Fields;
use crate::config::Config;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Stage;
use crate::domain::decide::stated_usage::UsageLimits;
use crate::domain::decide::synchronous_failure::{EndedSynchronousCall, PauseDecision, as_answer};
use crate::domain::due::Due;
use crate::domain::job::Mode;
use crate::domain::request_body::RAISED;
use crate::domain::result_line;
use crate::domain::usage::TokenUsage;
use crate::jobs::reservation;
use crate::openai::{CallError, ResponsesApi};
use crate::store::synchronous_calls::{self, SynchronousCall, SynchronousResult};
use crate::store::{Store, StoreError, Stored, Tx, View, alerts, events, jobs, money, requests};
use crate::workers::pauses;
use crate::workers::wakeups::Topic;
use crate::workers::worker::{SET_ASIDE, Successor, TickOutcome, Worker, WorkerError};

/// The longest id of a response that is stored, in bytes.
const MAX_ID: usize = 256;

/// The synchronous worker.
pub struct SynchronousCaller {
    store: Arc<Store>,
    api: Arc<dyn ResponsesApi>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    /// A call that has ended and could not be stored yet. It is kept: it is paid for.
    unstored: Option<MadeCall>,
    successor: Successor,
}

/// A call that was made.
struct MadeCall {
    call: SynchronousCall,
    job: String,
    stage: Stage,
    model: String,
    /// The cap of its answer, at most.
    output_cap: u32,
    response: Result<Value, CallError>,
}

impl SynchronousCaller {
    /// Makes calls for this store; several may run side by side.
    pub fn new(
        store: Arc<Store>,
        api: Arc<dyn ResponsesApi>,
        clock: Arc<dyn Clock>,
        config: Arc<Config>,
    ) -> Self {
        Self {
            store,
            api,
            clock,
            config,
            unstored: None,
            successor: Successor::default(),
        }
    }

    /// Has another worker started for each call that this one begins.
    pub fn with_successor(mut self, successor: Successor) -> Self {
        self.successor = successor;
        self
    }

    /// Leaves the requests that come too late to the batches. While the account is paused, or an operator has
    /// paused submissions, these are all requests: the batches wait until the pause ends, and a client would
    /// wait in vain.
    fn release_late(&self, now: Moment) -> Result<bool, WorkerError> {
        let stopped = |view: &View| alerts::paused(view, &PauseScope::Submissions);
        let paused = pauses::sending_paused(&self.store, &self.config, now)?.is_some()
            || self.store.read(stopped)?.is_some();
        let before = if paused {
            now.wall + self.config.synchronous.timeout
        } else {
            now.wall.before(self.config.synchronous.timeout)
        };
        if !self
            .store
            .read(|view| synchronous_calls::any_late(view, before))?
        {
            return Ok(false);
        }
        let released = self
            .store
            .write(now.wall, |tx| synchronous_calls::release_late(tx, before))?;
        Ok(released > 0)
    }

    /// How long the pause of all synchronous calls still lasts; `None` if there is none. A pause that is over
    /// ends.
    fn remaining_pause(&self, now: Moment) -> Stored<Option<Duration>> {
        let longest = self.config.synchronous.timeout;
        let left = |view: &View| {
            let until = alerts::paused(view, &PauseScope::Synchronous)?.and_then(|pause| pause.until);
            Ok(until.map(|until| until.due_in(now.wall, longest)))
        };
        match self.store.read(left)? {
            Some(Duration::ZERO) => {}
            left => return Ok(left),
        }
        self.store.write(now.wall, |tx| match left(tx)? {
            Some(Duration::ZERO) => alerts::resume(tx, &PauseScope::Synchronous).map(|_| None),
            left => Ok(left),
        })
    }

    fn make(&mut self, call: SynchronousCall, now: Moment) -> Result<TickOutcome, WorkerError> {
        let line = match self.store.read(|view| requests::input_line(view, call.request)) {
            Err(StoreError::Unreadable(_)) => {
                self.store.write(now.wall, |tx| {
                    synchronous_calls::set_aside(
                        tx,
                        &call,
                        tx.now + SET_ASIDE.min(self.config.synchronous.timeout),
                    )
                })?;
                return Ok(TickOutcome::again());
            }
            line => line?,
        };
        let begun = self
            .store
            .write(now.wall, |tx| synchronous_calls::begin(tx, &call))?;
        if !begun {
            return Ok(TickOutcome::again());
        }
        self.successor.start();
        let parameters = self.config.parameters(line.custom_id.stage());
        let response = self
            .api
            .respond(parameters.form().endpoint, &line.body(&parameters));
        self.end(MadeCall {
            call,
            model: parameters.model().to_owned(),
            output_cap: parameters.max_output_tokens().saturating_mul(RAISED),
            stage: line.custom_id.stage(),
            job: line.custom_id.job,
            response,
        })
    }

    /// Stores what follows from a call.
    fn end(&mut self, made: MadeCall) -> Result<TickOutcome, WorkerError> {
        match self.store_result(&made) {
            Ok(()) => Ok(TickOutcome::again()),
            Err(error) => {
                if !matches!(error, StoreError::Conflict(_)) && error.passes() {
                    self.unstored = Some(made);
                }
                Err(error.into())
            }
        }
    }

    /// A call whose tokens are unknown counts in the budgets as a line that is reserved.
    fn keep_unknown_cost(&self, tx: &Tx<'_>, made: &MadeCall, stated: &str) -> Stored<()> {
        let detail = Fields::new().with_text(stated);
        events::record(tx, Some(&made.job), None, "usage_unknown", detail)?;
        let parameters = self.config.parameters(made.stage);
        let cost = reservation::cost_of_line(tx, made.stage, Mode::Synchronous, &parameters, tx.now)?;
        match (cost, jobs::by_id(tx, &made.job)?) {
            (Some(cost), Some(job)) => money::reserve(tx, None, &job.client, cost),
            _ => Ok(()),
        }
    }

    fn store_result(&self, made: &MadeCall) -> Stored<()> {
        let MadeCall {
            call,
            job,
            model,
            output_cap,
            response,
            ..
        } = made;
        let now = self.clock.now().wall;
        let (answer, stated) = match response {
            Ok(body) => result_line::read_body(200, body),
            Err(error) => (as_answer(error), TokenUsage::ZERO),
        };
        let (outcome, text, error) = answer.outcome();
        let limits = UsageLimits::of_request(model, Some(u64::from(*output_cap)));
        let usage = limits.usage(stated);
        let response_id = response.as_ref().ok().and_then(|body| body["id"].as_str());
        let response_id = response_id.filter(|id| id.len() <= MAX_ID);
        let rules = self.config.retry_rules();
        // OpenAI may have done the work although its answer was lost.
        let may_be_billed = matches!(
            response,
            Err(CallError::Unknown { .. } | CallError::Unreadable { .. })
        ) || usage.may_be_billed();
        let stored = self.store.write(now, |tx| {
            let ended = EndedSynchronousCall {
                outcome,
                error: response.as_ref().err(),
                earlier: call.earlier,
                at: now,
                accepted_at: synchronous_calls::accepted_at(tx, call.request)?,
                timeout: self.config.synchronous.timeout,
                retry_interval: self.config.openai.retry_interval,
            };
            let decision = ended.decide();
            let result = SynchronousResult {
                outcome: decision.outcome,
                text,
                error: &error,
                may_be_billed,
                model,
                response_id,
                usage,
            };
            synchronous_calls::end(tx, call, &result, rules, decision.next_call)?;
            if usage.is_unknown() {
                self.keep_unknown_cost(tx, made, &limits.describe(stated))?;
            }
            apply_pause(tx, decision.pause, response.as_ref().err())?;
            Ok(decision.outcome)
        });
        let outcome = stored?;
        log::info!(
            event = "call", job:%, request = call.request, outcome:%,
            response = response_id, model:%, error:%; ""
        );
        Ok(())
    }
}

fn apply_pause(tx: &Tx<'_>, decision: PauseDecision, error: Option<&CallError>) -> Stored<()> {
    match (decision, error) {
        (PauseDecision::ClearAccount, _) => pauses::clear_sending_pauses(tx),
        (PauseDecision::PauseAccount { scope, wait }, Some(error)) => {
            pauses::pause_account(tx, scope, error, wait)
        }
        (PauseDecision::PauseCalls(until), _) => pause_calls(tx, until),
        (PauseDecision::Keep | PauseDecision::PauseAccount { .. }, _) => Ok(()),
    }
}

/// Pauses all synchronous calls until then, or until a later time that OpenAI asked for before.
fn pause_calls(tx: &Tx<'_>, until: Timestamp) -> Stored<()> {
    let scope = PauseScope::Synchronous;
    let reason = "OpenAI asked to wait (Retry-After)";
    let earlier = alerts::paused(tx, &scope)?.and_then(|pause| pause.until);
    alerts::pause(tx, &scope, reason, earlier.max(Some(until)))
}

impl Worker for SynchronousCaller {
    fn name(&self) -> &'static str {
        "synchronous"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::SynchronousCallEnded)
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[
            Topic::SynchronousJobStored,
            Topic::ImagesChecked,
            Topic::SynchronousCallEnded,
        ]
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if let Some(made) = self.unstored.take() {
            return self.end(made);
        }
        if self.release_late(now)? {
            return Ok(TickOutcome::again());
        }
        let idle = self.config.steps.idle;
        if let Some(wait) = self.remaining_pause(now)? {
            return Ok(TickOutcome::idle(wait.min(idle)));
        }
        let longest = self.config.synchronous.timeout;
        match self
            .store
            .read(|view| synchronous_calls::next_due(view, now.wall, longest))?
        {
            Due::Now(call) => self.make(call, now),
            Due::At(at) => Ok(TickOutcome::idle(at.since(now.wall).min(idle))),
            Due::Never => Ok(TickOutcome::idle(idle)),
        }
    }
}
