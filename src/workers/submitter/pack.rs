//! Packing: which waiting requests go into the next batch, and whether it is made now.

use std::time::Duration;

use super::Submitter;
use super::shares;
use crate::base::clock::Moment;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Stage;
use crate::domain::decide::queue_limit::QueueTokens;
use crate::domain::decide::refused_batch::LONGEST_REFUSAL_WAIT;
use crate::domain::job::Mode;
use crate::domain::money::Money;
use crate::domain::parameters::Parameters;
use crate::jobs::reservation;
use crate::openai::jsonl::encode_request_line;
use crate::store::batches::{self, BatchPlan};
use crate::store::money;
use crate::store::queue::{self, QueueSpace};
use crate::store::requests::{self, InputLine, JobQueue, QueueFilter};
use crate::store::{StoreError, Stored, Tx, View, alerts, settle};
use crate::workers::worker::{TickOutcome, WorkerError, backoff};

/// Why a request fails that fits into no batch.
const TOO_LONG: &str = "REQUEST_TOO_LONG: the request is longer than a batch's input may be";

/// The rest of a paused model's requests waits for a probe that is at OpenAI, but not for longer: a batch that
/// OpenAI does not end shows no failing model.
const PROBE_TIMEOUT: Duration = Duration::from_hours(6);

/// Requests claimed in one transaction.
const CHUNK: u32 = 500;

/// A batch that is made now.
pub struct NewPack {
    /// Its requests.
    filter: QueueFilter,
    /// The most lines that it may have.
    full: u32,
    /// The jobs that have requests for it.
    queues: Vec<JobQueue>,
    /// Tokens that it may take of the model's queue.
    tokens: u64,
    /// The part of the answers' caps that counts there, in percent.
    cap_percent: u32,
    /// Lines that the budget of all clients pays for.
    affordable: u32,
    /// What a line reserves of a budget.
    line_cost: Money,
}

/// Whether a batch is made now.
pub enum PackDecision {
    /// This batch is made.
    Pack(NewPack),
    /// No batch is made for this time.
    Wait(Duration),
}

/// Whether a stage, or its model, is paused.
enum StagePause {
    /// It is, for this time.
    Lasting(Duration),
    /// It is not, or the pause is over. The next batch is a probe of at most this many lines, if that is given.
    Over(Option<u32>),
}

/// What still fits into a batch.
struct BatchSpace {
    lines: u32,
    bytes: u64,
    tokens: u64,
    /// Whether the batch has no line yet. Its first line goes in whatever it takes, or it would never go.
    is_empty: bool,
}

impl Submitter {
    /// Decides whether a batch is made now, and of which requests. The stages take turns.
    pub(super) fn decide_packing(&self, now: Moment) -> Result<PackDecision, WorkerError> {
        let most = self.config.batch.max_active;
        if most > 0 && self.store.read(batches::count_active)? >= most {
            return Ok(PackDecision::Wait(self.config.steps.idle));
        }
        let wait = self.store.read(|view| queue::creates_wait(view, now.wall))?;
        if !wait.is_zero() {
            return Ok(PackDecision::Wait(wait));
        }
        let turns = match self.last_stage {
            Stage::Vision => [Stage::Translation, Stage::Vision],
            Stage::Translation => [Stage::Vision, Stage::Translation],
        };
        let mut wait = self.config.steps.idle;
        for stage in turns {
            match self.decide_stage(stage, now)? {
                PackDecision::Wait(later) => wait = wait.min(later),
                pack => return Ok(pack),
            }
        }
        Ok(PackDecision::Wait(wait))
    }

    /// Decides the same for one stage. Requests with different caps take turns.
    fn decide_stage(&self, stage: Stage, now: Moment) -> Result<PackDecision, WorkerError> {
        let probe = match self.store.read(|view| self.stage_pause(view, stage, now))? {
            StagePause::Lasting(wait) => return Ok(PackDecision::Wait(wait)),
            StagePause::Over(probe) => probe,
        };
        let parameters = self.config.parameters(stage);
        let space = self
            .store
            .read(|view| queue::space(view, self.api.identity(), parameters.model(), now.wall))?;
        let (tokens, cap_percent) = match space {
            QueueSpace::Full => return Ok(PackDecision::Wait(self.config.steps.idle)),
            QueueSpace::Limited { tokens, cap_percent } => (tokens, cap_percent),
            QueueSpace::Unlimited => (u64::MAX, 0),
        };
        let caps = self.store.read(|view| requests::caps(view, stage))?;
        let mut wait = self.config.steps.idle;
        for cap in shares::caps_in_turn(caps, self.last_caps.get(&stage)) {
            match self.decide_cap(stage, cap, probe, now)? {
                PackDecision::Wait(later) => wait = wait.min(later),
                PackDecision::Pack(pack) => {
                    return Ok(PackDecision::Pack(NewPack {
                        tokens,
                        cap_percent,
                        ..pack
                    }));
                }
            }
        }
        Ok(PackDecision::Wait(wait))
    }

    /// The pause of a stage or of its model. While a probe is at OpenAI, the rest waits for it, but not for
    /// longer than [`PROBE_TIMEOUT`].
    fn stage_pause(&self, view: &View, stage: Stage, now: Moment) -> Stored<StagePause> {
        let longest = backoff(self.config.batch.queue_backoff, u32::MAX, None);
        let model = PauseScope::Model(self.config.parameters(stage).model().to_owned());
        let mut probe_lines: Option<u32> = None;
        for scope in [model, PauseScope::Stage(stage)] {
            let Some(pause) = alerts::paused(view, &scope)? else {
                continue;
            };
            let left = pause
                .until
                .map_or(Duration::MAX, |until| until.due_in(now.wall, longest));
            if !left.is_zero() {
                return Ok(StagePause::Lasting(left));
            }
            let Some(probe) = pause.probe else { continue };
            match batches::oldest_probe(view, &scope, probe.after_batch)? {
                None => probe_lines = probe_lines.into_iter().chain([probe.lines]).min(),
                Some(sent) if (sent + PROBE_TIMEOUT).due_in(now.wall, PROBE_TIMEOUT).is_zero() => {}
                Some(_) => return Ok(StagePause::Lasting(self.config.steps.idle)),
            }
        }
        Ok(StagePause::Over(probe_lines))
    }

    /// Lets requests be packed again whose wait after a failure is over. Returns whether there were
    /// any.
    pub(super) fn release_due(&self, now: Moment) -> Result<bool, WorkerError> {
        let rules = self.config.retry_rules();
        let longest = (rules.retry_period + rules.first_wait * 12).max(LONGEST_REFUSAL_WAIT) * 2;
        let has_due = |view: &View| requests::has_due(view, now.wall, longest);
        if !self.store.read(has_due)? {
            return Ok(false);
        }
        let release = |tx: &Tx<'_>| requests::release_due(tx, longest, CHUNK);
        Ok(self.store.write(now.wall, release)? > 0)
    }

    /// Decides the same for the requests of a stage with one cap.
    fn decide_cap(
        &self,
        stage: Stage,
        cap: Option<u32>,
        probe: Option<u32>,
        now: Moment,
    ) -> Result<PackDecision, WorkerError> {
        let full = [cap, probe].into_iter().flatten().min().unwrap_or(u32::MAX);
        let full = full.min(self.config.batch.max_requests);
        let parameters = self.config.parameters(stage);
        let budgets = self.config.spending_limits();
        let (filter, mut queues, line_cost, allowance) = self.store.read(|view| {
            let (filter, mut queues) = find_queues(view, stage, cap, probe.is_some(), full)?;
            if self.store.has_unreadable_rows() {
                queues = requests::retain_readable(view, filter, queues)?;
            }
            let line_cost = if queues.is_empty() {
                None
            } else {
                reservation::cost_of_line(view, stage, Mode::Batch, &parameters, now.wall)?
            };
            let allowance = money::allowance(view, &budgets, now.wall)?;
            Ok((filter, queues, line_cost.unwrap_or_default(), allowance))
        })?;
        let affordable = shares::limit_to_budgets(&mut queues, &allowance, line_cost);
        if affordable == 0 {
            return Ok(PackDecision::Wait(self.config.steps.idle));
        }
        let max_wait = self.config.batch.max_wait;
        let waiting: u32 = queues
            .iter()
            .map(|queue| queue.length)
            .fold(0, u32::saturating_add);
        let left = queues
            .iter()
            .map(|queue| (queue.since + max_wait).due_in(now.wall, max_wait))
            .min();
        match left {
            None => Ok(PackDecision::Wait(self.config.steps.idle)),
            Some(left) if waiting < full && !left.is_zero() => Ok(PackDecision::Wait(left)),
            Some(_) => Ok(PackDecision::Pack(NewPack {
                filter,
                full,
                queues,
                tokens: u64::MAX,
                cap_percent: 0,
                affordable,
                line_cost,
            })),
        }
    }

    /// Plans a batch and claims its requests, chunk by chunk. The next tick seals it.
    pub(super) fn pack(&mut self, pack: &NewPack, now: Moment) -> Result<TickOutcome, WorkerError> {
        let QueueFilter { stage, cap, .. } = pack.filter;
        self.last_stage = stage;
        self.last_caps.insert(stage, cap);
        let parameters = self.config.parameters(stage);
        let key = uuid::Uuid::new_v4().simple().to_string();
        let text = parameters.to_text().map_err(StoreError::from)?;
        let plan = BatchPlan {
            key: &key,
            stage,
            identity: self.api.identity(),
            model: parameters.model(),
            parameters: &text,
        };
        let batch = self.store.write(now.wall, |tx| batches::plan(tx, &plan))?;
        let mut space = BatchSpace {
            lines: pack.full.min(pack.affordable),
            bytes: self.config.batch.max_bytes,
            tokens: pack.tokens,
            is_empty: true,
        };
        let lines = space.lines.min(self.lines_that_fit(pack, &parameters)?);
        let mut shares = shares::fair_shares(&pack.queues, lines, batch);
        // Lines may take more than was estimated. Small queues then lose nothing by it.
        shares.sort_by_key(|(_, share)| *share);
        for (of, share) in shares {
            self.claim(batch, pack, of, share, &parameters, &mut space, now)?;
        }
        Ok(TickOutcome::again())
    }

    /// How many lines like the first waiting one fit by their bytes and tokens. Only lines that fit can be
    /// shared out evenly.
    fn lines_that_fit(&self, pack: &NewPack, parameters: &Parameters) -> Result<u32, WorkerError> {
        let Some(first) = pack.queues.first() else {
            return Ok(0);
        };
        let waiting = self
            .store
            .read(|view| requests::waiting(view, first.job, pack.filter, 0, 1))?;
        let Some(line) = waiting.first() else {
            return Ok(u32::MAX);
        };
        let (length, tokens) = line_size(line, parameters)?;
        let takes = tokens.counted(pack.cap_percent);
        let fit = (self.config.batch.max_bytes / length.max(1)).min(pack.tokens / takes.max(1));
        Ok(u32::try_from(fit).unwrap_or(u32::MAX).max(1))
    }

    #[allow(clippy::too_many_arguments, reason = "one call, in the loop above")]
    fn claim(
        &self,
        batch: i64,
        pack: &NewPack,
        of: &JobQueue,
        share: u32,
        parameters: &Parameters,
        space: &mut BatchSpace,
        now: Moment,
    ) -> Result<(), WorkerError> {
        let (mut left, mut after) = (share.min(space.lines), 0);
        while left > 0 {
            let waiting = self
                .store
                .read(|view| requests::waiting(view, of.job, pack.filter, after, left.min(CHUNK)))?;
            let (mut chosen, mut too_long) = (Vec::with_capacity(waiting.len()), Vec::new());
            let mut tokens = QueueTokens::default();
            for line in &waiting {
                let (length, of_line) = line_size(line, parameters)?;
                let takes = of_line.counted(pack.cap_percent);
                if length > self.config.batch.max_bytes {
                    after = line.request;
                    too_long.push(line.request);
                    continue;
                }
                if length > space.bytes || takes > space.tokens && !space.is_empty {
                    space.lines = 0;
                    left = 0;
                    break;
                }
                space.bytes -= length;
                space.tokens = space.tokens.saturating_sub(takes);
                space.is_empty = false;
                tokens = tokens + of_line;
                space.lines -= 1;
                left -= 1;
                after = line.request;
                chosen.push(line.request);
            }
            self.store.write(now.wall, |tx| {
                for request in &too_long {
                    settle::fail_unsent(tx, *request, TOO_LONG)?;
                }
                let claimed = requests::claim(tx, batch, &chosen)?;
                let cost = pack.line_cost.times(claimed as u64);
                money::reserve(tx, Some(batch), &of.client, cost)?;
                queue::add_tokens(tx, batch, tokens)
            })?;
            if waiting.len() < CHUNK as usize {
                break;
            }
        }
        Ok(())
    }
}

/// The queues of a stage with one cap. A probe has lines that have not failed, if there are any: others may
/// fail for a reason of their own.
fn find_queues(
    view: &View,
    stage: Stage,
    cap: Option<u32>,
    is_probe: bool,
    count_to: u32,
) -> Stored<(QueueFilter, Vec<JobQueue>)> {
    let mut filter = QueueFilter {
        stage,
        cap,
        unfailed: is_probe,
    };
    let mut queues = requests::queues(view, filter, count_to)?;
    if is_probe && queues.is_empty() {
        filter.unfailed = false;
        queues = requests::queues(view, filter, count_to)?;
    }
    Ok((filter, queues))
}

/// What a line takes: bytes of the input file, and tokens of the model's queue.
fn line_size(line: &InputLine, parameters: &Parameters) -> Result<(u64, QueueTokens), WorkerError> {
    let body = line.body(parameters);
    let form = parameters.form();
    let length = encode_request_line(form.endpoint, &line.custom_id.to_string(), &body)?.len() as u64;
    let output = body[form.limit_name()].as_u64().unwrap_or(0);
    let takes = reservation::queue_tokens_of_line(length, line.images.len(), parameters, output);
    Ok((length, takes))
}
