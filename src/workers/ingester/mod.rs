//! The ingester: takes the result files of an ended batch into the spool, and from there to their lots.
//!
//! 1. The output file is fetched whole into the spool (`fetch`), and its lines are ingested (`lines`). The error
//!    file follows. So answers reach their jobs although the error file cannot be fetched. A file of another size
//!    than the server states is ingested as far as its lines are whole, and then judged (`sizes`).
//! 2. What the lines say together pauses the model or the stage, or ends its pause (`verdict`).
//! 3. Every line that brought no text gets its verdict (`settle`). No request is sent again and none fails
//!    before both files were read, or before an operator abandons the batch (`abandon`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::batch::{BatchState, ResultKind};
use crate::domain::due::Due;
use crate::openai::BatchApi;
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, View, unclaimed_lines};
use crate::workers::call_failure;
use crate::workers::pauses;
use crate::workers::spool::Spool;
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, WaitTimes, Worker, WorkerError};

mod abandon;
mod fetch;
mod lines;
mod settle;
mod sizes;
mod verdict;

use sizes::DoubtfulFile;

/// How long the ingester waits for a batch that was found to claim its requests.
const UNCLAIMED_WAIT: Duration = Duration::from_secs(1);

/// The worker that ingests results.
pub struct Ingester {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    spool: Spool,
    /// Since when each batch waits for its missing lines.
    missing: WaitTimes,
    /// The files whose size is not the one that the server states, by the batch's row.
    doubts: HashMap<(i64, ResultKind), DoubtfulFile>,
}

impl Ingester {
    /// An ingester that has fetched nothing yet.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        let spool = Spool::new(config.spool());
        Self {
            store,
            api,
            config,
            spool,
            missing: WaitTimes::default(),
            doubts: HashMap::new(),
        }
    }

    /// Does the next step of one batch.
    fn advance(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        let mut doubtful = Vec::new();
        for kind in [ResultKind::Output, ResultKind::Error] {
            let file = row.file(kind);
            if file.is_unread() {
                return self.ingest_lines(row, kind, now);
            }
            if file.is_spooled() {
                continue;
            }
            if !self.is_doubtful(row, kind) {
                return self.fetch(row, kind, now);
            }
            if self.ingest_part(row, kind, now)? {
                return Ok(TickOutcome::again());
            }
            doubtful.push(kind);
        }
        match doubtful.as_slice() {
            [] => self.settle(row, now),
            kinds => self.judge_sizes(row, kinds, now),
        }
    }
}

impl Worker for Ingester {
    fn name(&self) -> &'static str {
        "ingester"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::ResultsIngested)
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[Topic::BatchPolled, Topic::Audited]
    }

    fn longest_tick(&self) -> Duration {
        // A download of whole files is bounded by the least rate of a transfer.
        Duration::from_hours(12)
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let idle = self.config.steps.idle;
        if self.store.read(unclaimed_lines::has_any)? {
            return Ok(TickOutcome::idle(UNCLAIMED_WAIT.min(idle)));
        }
        let to_abandon = |view: &View| batches::next_to_abandon(view, BatchState::Ended);
        if let Some(row) = self.store.read(to_abandon)? {
            return self.abandon(&row, now);
        }
        if let Some(wait) = pauses::openai_paused(&self.store, &self.config, now)? {
            return Ok(TickOutcome::idle(wait.min(idle)));
        }
        let longest = pauses::longest_wait(&self.config);
        let due = self
            .store
            .read(|view| batches::next_due(view, &[BatchState::Ended], now.wall, longest))?;
        match due {
            Due::Now(row) => {
                let tick = self.advance(&row, now);
                call_failure::set_aside_unreadable(&self.store, &row, now, tick)
            }
            Due::At(at) => Ok(TickOutcome::idle(at.since(now.wall).min(idle))),
            Due::Never => Ok(TickOutcome::idle(idle)),
        }
    }
}
