//! Synchronous jobs: their requests are asked of `/v1/responses` one by one, vision first, then all
//! translations side by side. Several of these steps work at once, on threads of their own, so that
//! nothing of it can hold up the batches.
//!
//! A call is a committed row before it is made. What cannot be had within the time that a client
//! waits, because OpenAI fails or the process ended, goes on in a batch: nothing is lost, and the
//! client polls.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::base::clock::{Clock, Moment, Timestamp};
use crate::config::Config;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Outcome;
use crate::domain::due::Due;
use crate::domain::result_line::{self, Answer};
use crate::domain::usage::TokenUsage;
use crate::openai::{CallError, ResponsesApi};
use crate::store::settle::RetryRules;
use crate::store::synchronous_calls::{self, Call, CallResult};
use crate::store::{Store, StoreError, Stored, Tx, View, alerts, requests};
use crate::workers::pauses;
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError, backoff};

/// See the module.
pub struct SynchronousCaller {
    store: Arc<Store>,
    api: Arc<dyn ResponsesApi>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    /// A call that has ended and could not be stored yet.
    unstored: Option<Ended>,
}

/// A call that has ended.
struct Ended {
    call: Call,
    job: String,
    model: String,
    response: Result<Value, CallError>,
}

impl SynchronousCaller {
    /// One of several.
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
        }
    }

    /// Sends what comes too late into a batch. With the account refused, or submissions stopped, that is
    /// everything: the batches wait until they may go on, a client would wait in vain.
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

    /// How long OpenAI asked all direct calls to wait; what is over by now is no pause any more.
    fn held_back(&self, now: Moment) -> Stored<Option<Duration>> {
        let longest = self.config.synchronous.timeout;
        let left = |view: &View| {
            let until =
                alerts::paused(view, &PauseScope::Synchronous)?.and_then(|pause| pause.until);
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

    fn make(&mut self, call: Call, now: Moment) -> Result<TickOutcome, WorkerError> {
        let line = self.store.read(|view| requests::of(view, call.request))?;
        let begun = self
            .store
            .write(now.wall, |tx| synchronous_calls::begin(tx, &call))?;
        if !begun {
            return Ok(TickOutcome::again());
        }
        let parameters = self.config.parameters(line.custom_id.stage());
        let response = self.api.respond(&line.body(&parameters));
        self.end(Ended {
            call,
            model: parameters.model().to_owned(),
            job: line.custom_id.job,
            response,
        })
    }

    /// Stores what a call came to. Where that cannot be done now it is kept for the next tick: it is paid.
    fn end(&mut self, ended: Ended) -> Result<TickOutcome, WorkerError> {
        match self.store_end(&ended) {
            Ok(()) => Ok(TickOutcome::again()),
            Err(error) => {
                if !matches!(error, StoreError::Conflict(_)) && error.passes() {
                    self.unstored = Some(ended);
                }
                Err(error.into())
            }
        }
    }

    fn store_end(&self, ended: &Ended) -> Stored<()> {
        let Ended {
            call,
            job,
            model,
            response,
        } = ended;
        let now = self.clock.now().wall;
        let (answer, usage) = match response {
            Ok(body) => result_line::read_body(200, body),
            Err(error) => (of_error(error), TokenUsage::ZERO),
        };
        let (mut outcome, text, error) = answer.outcome();
        let failure = response.as_ref().err();
        let account = failure.filter(|error| error.is_account_trouble());
        let not_run = failure.is_some_and(CallError::had_no_effect) && outcome == Outcome::Passing;
        if not_run || account.is_some() {
            // Not the request's fault, and nothing was paid: it counts as no attempt.
            outcome = Outcome::NotRun;
        }
        let result = CallResult {
            outcome,
            text,
            error: &error,
            model,
            response_id: response.as_ref().ok().and_then(|body| body["id"].as_str()),
            tokens: usage,
        };
        let rules = RetryRules {
            max_attempts: self.config.batch.max_attempts,
            check_images: self.config.images.check,
            batch_cap: None,
        };
        let asked = failure.and_then(CallError::retry_after);
        let again = now + backoff(self.config.openai.retry_interval, call.earlier, asked);
        self.store.write(now, |tx| {
            let until =
                synchronous_calls::accepted_at(tx, call.request)? + self.config.synchronous.timeout;
            let again = Some(again).filter(|again| account.is_none() && *again < until);
            synchronous_calls::end(tx, call, &result, rules, again)?;
            if response.is_ok() {
                pauses::clear_sending_pauses(tx)?;
            }
            if let Some(error) = account {
                let probe = backoff(self.config.openai.retry_interval, u32::MAX, None);
                return pauses::pause_sending(tx, error, probe);
            }
            match asked {
                Some(wait) => hold_back(tx, now + wait.min(self.config.synchronous.timeout)),
                None => Ok(()),
            }
        })?;
        log::info!(
            event = "call", job:%, request = call.request, outcome:%,
            response = result.response_id, model:%, error:%; ""
        );
        Ok(())
    }
}

/// OpenAI asked for a wait: no direct call is made before, nor before what it asked for earlier.
fn hold_back(tx: &Tx<'_>, until: Timestamp) -> Stored<()> {
    let reason = "OpenAI asked to wait (Retry-After)";
    let earlier = alerts::paused(tx, &PauseScope::Synchronous)?.and_then(|pause| pause.until);
    alerts::pause(
        tx,
        &PauseScope::Synchronous,
        reason,
        earlier.max(Some(until)),
    )
}

/// A call without a good answer, read as the same answer in a result file is.
fn of_error(error: &CallError) -> Answer {
    match error {
        CallError::Refused(refusal) => {
            let body = json!({"error": {
                "code": refusal.code, "param": refusal.param, "message": refusal.message,
            }});
            result_line::read_body(refusal.status, &body).0
        }
        CallError::NotSent { message } | CallError::Unknown { message } => Answer::Retry {
            code: String::new(),
            message: message.clone(),
        },
    }
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
        if let Some(ended) = self.unstored.take() {
            return self.end(ended);
        }
        if self.release_late(now)? {
            return Ok(TickOutcome::again());
        }
        let idle = self.config.steps.idle;
        if let Some(wait) = self.held_back(now)? {
            return Ok(TickOutcome::idle(wait.min(idle)));
        }
        let longest = self.config.synchronous.timeout;
        match self
            .store
            .read(|view| synchronous_calls::next(view, now.wall, longest))?
        {
            Due::Now(call) => self.make(call, now),
            Due::At(at) => Ok(TickOutcome::idle(at.since(now.wall).min(idle))),
            Due::Never => Ok(TickOutcome::idle(idle)),
        }
    }
}
