//! Packing: which waiting requests go into the next batch, fairly between stages, clients and jobs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Submitter;
use crate::base::clock::Moment;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Stage;
use crate::domain::money::Money;
use crate::domain::parameters::Parameters;
use crate::jobs::estimate;
use crate::openai::jsonl::request_line;
use crate::store::batches::{self, Plan};
use crate::store::money::{self, Allowance};
use crate::store::queue::{self, Room as QueueRoom};
use crate::store::requests::{self, Line, Queue};
use crate::store::{StoreError, alerts, settle};
use crate::workers::worker::{TickOutcome, WorkerError, backoff};

/// Why a request that no batch has room for fails.
const TOO_LONG: &str = "REQUEST_TOO_LONG: the request is longer than a batch's input may be";

/// Requests claimed in one transaction.
const CHUNK: u32 = 500;

/// A batch that should be made.
pub struct Packing {
    stage: Stage,
    cap: Option<u32>,
    queues: Vec<Queue>,
    /// Tokens that it may take of the model's queue.
    tokens: u64,
    /// Lines that the budget of all clients holds.
    affordable: u32,
    /// What a line is reserved.
    line_cost: Money,
}

/// Whether a batch should be made.
pub enum Choice {
    /// This one, now.
    Now(Packing),
    /// None for so long.
    Later(Duration),
}

/// What still fits.
struct Room {
    lines: u32,
    bytes: u64,
    tokens: u64,
    /// Nothing is in it yet: its first line goes whatever it takes, or it would never go.
    is_empty: bool,
}

impl Submitter {
    /// Chooses the stage whose requests are packed next: the stages take turns.
    pub(super) fn choose(&self, now: Moment) -> Result<Choice, WorkerError> {
        let most = self.config.batch.max_active;
        if most > 0 && self.store.read(batches::active)? >= most {
            return Ok(Choice::Later(self.config.steps.idle));
        }
        let wait = self
            .store
            .read(|view| queue::creates_wait(view, now.wall))?;
        if !wait.is_zero() {
            return Ok(Choice::Later(wait));
        }
        let turns = match self.last_stage {
            Stage::Vision => [Stage::Translation, Stage::Vision],
            Stage::Translation => [Stage::Vision, Stage::Translation],
        };
        let mut wait = self.config.steps.idle;
        for stage in turns {
            match self.choose_in(stage, now)? {
                Choice::Later(later) => wait = wait.min(later),
                now => return Ok(now),
            }
        }
        Ok(Choice::Later(wait))
    }

    fn choose_in(&self, stage: Stage, now: Moment) -> Result<Choice, WorkerError> {
        let scope = PauseScope::Model(self.config.parameters(stage).model().to_owned());
        if let Some(pause) = self.store.read(|view| alerts::paused(view, &scope))? {
            let longest = backoff(self.config.batch.queue_backoff, u32::MAX, None);
            let left = pause
                .until
                .map_or(Duration::MAX, |until| until.due_in(now.wall, longest));
            if !left.is_zero() {
                return Ok(Choice::Later(left));
            }
        }
        let parameters = self.config.parameters(stage);
        let tokens = match self
            .store
            .read(|view| queue::room(view, self.api.identity(), parameters.model(), now.wall))?
        {
            QueueRoom::Full => return Ok(Choice::Later(self.config.steps.idle)),
            QueueRoom::Of(tokens) => tokens,
            QueueRoom::Unknown => u64::MAX,
        };
        let caps = self.store.read(|view| requests::caps(view, stage))?;
        let mut wait = self.config.steps.idle;
        for cap in in_turn(caps, self.last_caps.get(&stage)) {
            match self.choose_of(stage, cap, tokens, now)? {
                Choice::Later(later) => wait = wait.min(later),
                now => return Ok(now),
            }
        }
        Ok(Choice::Later(wait))
    }

    /// The same of the requests with one cap.
    fn choose_of(
        &self,
        stage: Stage,
        cap: Option<u32>,
        tokens: u64,
        now: Moment,
    ) -> Result<Choice, WorkerError> {
        let full = self.config.batch.max_requests;
        let parameters = self.config.parameters(stage);
        let budgets = self.config.spending_limits();
        let (mut queues, line_cost, allowance) = self.store.read(|view| {
            let queues = requests::queues(view, stage, cap, full)?;
            let line_cost = if queues.is_empty() {
                None
            } else {
                estimate::of_line(view, stage, &parameters, now.wall)?
            };
            let allowance = money::allowance(view, &budgets, now.wall)?;
            Ok((queues, line_cost.unwrap_or_default(), allowance))
        })?;
        let affordable = afford(&mut queues, &allowance, line_cost);
        if affordable == 0 {
            return Ok(Choice::Later(self.config.steps.idle));
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
            None => Ok(Choice::Later(self.config.steps.idle)),
            Some(left) if waiting < cap.unwrap_or(full).min(full) && !left.is_zero() => {
                Ok(Choice::Later(left))
            }
            Some(_) => Ok(Choice::Now(Packing {
                stage,
                cap,
                queues,
                tokens,
                affordable,
                line_cost,
            })),
        }
    }

    /// Plans a batch and claims its requests, chunk by chunk; sealing it is the next move.
    pub(super) fn pack(
        &mut self,
        packing: &Packing,
        now: Moment,
    ) -> Result<TickOutcome, WorkerError> {
        self.last_stage = packing.stage;
        self.last_caps.insert(packing.stage, packing.cap);
        let parameters = self.config.parameters(packing.stage);
        let key = uuid::Uuid::new_v4().simple().to_string();
        let text = parameters.to_text().map_err(StoreError::from)?;
        let plan = Plan {
            key: &key,
            stage: packing.stage,
            identity: self.api.identity(),
            model: parameters.model(),
            parameters: &text,
        };
        let batch = self.store.write(now.wall, |tx| batches::plan(tx, &plan))?;
        let full = self.config.batch.max_requests;
        let mut room = Room {
            lines: packing
                .cap
                .unwrap_or(full)
                .min(full)
                .min(packing.affordable),
            bytes: self.config.batch.max_bytes,
            tokens: packing.tokens,
            is_empty: true,
        };
        let lines = room.lines.min(self.typical(packing, &parameters)?);
        let mut shares = shares(&packing.queues, lines, batch);
        // Where lines take more than was thought, small queues lose nothing by it.
        shares.sort_by_key(|(_, share)| *share);
        for (of, share) in shares {
            self.claim(batch, packing, of, share, &parameters, &mut room, now)?;
        }
        Ok(TickOutcome::again())
    }

    /// How many lines like the first one that waits fit by their bytes and tokens: what is shared out
    /// evenly must be what there is.
    fn typical(&self, packing: &Packing, parameters: &Parameters) -> Result<u32, WorkerError> {
        let Some(first) = packing.queues.first() else {
            return Ok(0);
        };
        let waiting = self
            .store
            .read(|view| requests::waiting(view, first.job, packing.stage, packing.cap, 0, 1))?;
        let Some(line) = waiting.first() else {
            return Ok(u32::MAX);
        };
        let (length, takes) = demand(line, parameters)?;
        let fit = (self.config.batch.max_bytes / length.max(1)).min(packing.tokens / takes.max(1));
        Ok(u32::try_from(fit).unwrap_or(u32::MAX).max(1))
    }

    #[allow(clippy::too_many_arguments, reason = "one call, in the loop above")]
    fn claim(
        &self,
        batch: i64,
        packing: &Packing,
        of: &Queue,
        share: u32,
        parameters: &Parameters,
        room: &mut Room,
        now: Moment,
    ) -> Result<(), WorkerError> {
        let (mut left, mut after) = (share.min(room.lines), 0);
        while left > 0 {
            let waiting = self.store.read(|view| {
                requests::waiting(
                    view,
                    of.job,
                    packing.stage,
                    packing.cap,
                    after,
                    left.min(CHUNK),
                )
            })?;
            let (mut chosen, mut too_long) = (Vec::with_capacity(waiting.len()), Vec::new());
            let mut tokens = 0;
            for line in &waiting {
                let (length, takes) = demand(line, parameters)?;
                if length > self.config.batch.max_bytes {
                    after = line.request;
                    too_long.push(line.request);
                    continue;
                }
                if length > room.bytes || takes > room.tokens && !room.is_empty {
                    room.lines = 0;
                    left = 0;
                    break;
                }
                room.bytes -= length;
                room.tokens = room.tokens.saturating_sub(takes);
                room.is_empty = false;
                tokens += takes;
                room.lines -= 1;
                left -= 1;
                after = line.request;
                chosen.push(line.request);
            }
            self.store.write(now.wall, |tx| {
                for request in &too_long {
                    settle::fail_unsent(tx, *request, TOO_LONG)?;
                }
                let claimed = requests::claim(tx, batch, &chosen)?;
                let cost = packing.line_cost.times(claimed as u64);
                money::reserve(tx, batch, &of.client, cost)?;
                queue::take(tx, batch, tokens)
            })?;
            if waiting.len() < CHUNK as usize {
                break;
            }
        }
        Ok(())
    }
}

/// What a line takes: bytes of the input, tokens of the model's queue.
fn demand(line: &Line, parameters: &Parameters) -> Result<(u64, u64), WorkerError> {
    let body = line.body(parameters);
    let length = request_line(&line.custom_id.to_string(), &body)?.len() as u64;
    let output = body["max_output_tokens"].as_u64().unwrap_or(0);
    let takes = estimate::of_queue(length, line.images.len(), parameters, output);
    Ok((length, takes))
}

/// Cuts each client's queues to what its budget holds, and gives how many lines that of all holds.
fn afford(queues: &mut Vec<Queue>, allowance: &Allowance, line_cost: Money) -> u32 {
    let mut left: HashMap<String, u32> = allowance
        .clients
        .iter()
        .map(|(client, money)| (client.clone(), money.holds(line_cost)))
        .collect();
    for queue in queues.iter_mut() {
        if let Some(left) = left.get_mut(&queue.client) {
            queue.length = queue.length.min(*left);
            *left -= queue.length;
        }
    }
    queues.retain(|queue| queue.length > 0);
    allowance
        .total
        .map_or(u32::MAX, |money| money.holds(line_cost))
}

/// The caps that requests are sent apart by, and none of the rest, in the order of their turns: after the
/// one whose turn was last. However long one of them takes, the others go on.
fn in_turn(caps: Vec<u32>, last: Option<&Option<u32>>) -> Vec<Option<u32>> {
    let place = |cap: Option<u32>| cap.unwrap_or(u32::MAX);
    let mut turns: Vec<Option<u32>> = caps.into_iter().map(Some).chain([None]).collect();
    if let Some(last) = last {
        let had = turns.partition_point(|cap| place(*cap) <= place(*last));
        turns.rotate_left(had);
    }
    turns
}

/// Each queue's share of `lines`: even between clients, and between the jobs of one; what a small
/// queue does not need goes to the others, and what cannot be divided to whose turn it is in this batch.
fn shares(queues: &[Queue], lines: u32, batch: i64) -> Vec<(&Queue, u32)> {
    let mut clients: BTreeMap<&str, Vec<&Queue>> = BTreeMap::new();
    for queue in queues {
        clients.entry(&queue.client).or_default().push(queue);
    }
    let lengths = |jobs: &[&Queue]| jobs.iter().map(|queue| queue.length).collect::<Vec<_>>();
    let wanted: Vec<u32> = clients
        .values()
        .map(|jobs| lengths(jobs).into_iter().fold(0, u32::saturating_add))
        .collect();
    let mut shares = Vec::with_capacity(queues.len());
    let of_clients = even(&wanted, lines, spread(batch, 0));
    for (jobs, lines) in clients.into_values().zip(of_clients) {
        let of_jobs = even(&lengths(&jobs), lines, spread(batch, 1));
        shares.extend(jobs.into_iter().zip(of_jobs));
    }
    shares
}

/// `whole` shared out evenly, to nobody more than is wanted. What is left goes by ones, from the place
/// `turn` on: where there is less than one for each, nobody is passed over for long.
fn even(wanted: &[u32], whole: u32, turn: u64) -> Vec<u32> {
    let mut order: Vec<u32> = wanted.to_vec();
    order.sort_unstable();
    let (mut level, mut left) = (u32::MAX, whole);
    for (served, wants) in order.into_iter().enumerate() {
        let still = u32::try_from(wanted.len() - served).unwrap_or(u32::MAX);
        if wants > left / still {
            level = left / still;
            break;
        }
        left -= wants;
    }
    let mut shares: Vec<u32> = wanted.iter().map(|wants| *wants.min(&level)).collect();
    let mut left = whole - shares.iter().sum::<u32>().min(whole);
    let places = wanted.len().max(1) as u64;
    let first = usize::try_from(turn % places).unwrap_or(0);
    for at in (first..wanted.len()).chain(0..first) {
        if left > 0 && shares[at] < wanted[at] {
            shares[at] += 1;
            left -= 1;
        }
    }
    shares
}

/// A number that is spread evenly over the batches, also over every second or third of them
/// (Steele, Lea and Flood's SplitMix64).
fn spread(batch: i64, level: u64) -> u64 {
    let mut mixed = batch
        .unsigned_abs()
        .wrapping_mul(2)
        .wrapping_add(level)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    #[test]
    fn what_is_sent_apart_takes_turns_with_the_rest() {
        for (last, expected) in [
            (None, [Some(1), Some(8), None]),
            (Some(Some(1)), [Some(8), None, Some(1)]),
            (Some(Some(4)), [Some(8), None, Some(1)]),
            (Some(Some(8)), [None, Some(1), Some(8)]),
            (Some(None), [Some(1), Some(8), None]),
        ] {
            assert_eq!(in_turn(vec![1, 8], last.as_ref()), expected, "{last:?}");
        }
    }

    fn queue(job: i64, client: &str, length: u32) -> Queue {
        Queue {
            job,
            client: client.into(),
            since: Timestamp::from_millis(0),
            length,
        }
    }

    #[test]
    fn clients_share_evenly_whatever_their_number_of_jobs() {
        let queues = [
            queue(1, "a", 50_000),
            queue(2, "a", 50_000),
            queue(3, "b", 2),
            queue(4, "c", 50_000),
        ];
        let shares: Vec<(i64, u32)> = shares(&queues, 1002, 1)
            .into_iter()
            .map(|(queue, share)| (queue.job, share))
            .collect();
        assert_eq!(shares, [(1, 250), (2, 250), (3, 2), (4, 500)]);
    }

    #[test]
    fn nobody_gets_more_than_is_wanted_and_nothing_is_left_over_that_is() {
        assert_eq!(even(&[5, 1, 9], 100, 0), [5, 1, 9]);
        assert_eq!(even(&[5, 1, 9], 9, 0), [4, 1, 4]);
        assert_eq!(even(&[5, 1, 9], 10, 0), [5, 1, 4]);
        assert_eq!(even(&[5, 1, 9], 10, 1), [4, 1, 5]);
        assert_eq!(even(&[5, 1, 9], 1, 4), [0, 1, 0]);
        assert!(even(&[], 9, 3).is_empty());
    }

    #[test]
    fn where_there_is_less_than_one_line_for_each_nobody_is_passed_over_for_long() {
        // Twelve large jobs of one client, a small one of another; and every second or third batch alone.
        let mut queues: Vec<Queue> = (1..=12).map(|job| queue(job, "a", 1000)).collect();
        queues.push(queue(13, "b", 2));
        for step in 1..=3 {
            let mut last = [0; 14];
            for (nth, batch) in (0..600).zip((1..).step_by(step)) {
                for (queue, share) in shares(&queues, 1, batch) {
                    let job = usize::try_from(queue.job).unwrap();
                    let limit = if job == 13 { 20 } else { 200 };
                    assert!(nth - last[job] < limit, "job {job} by batch {batch}");
                    if share > 0 {
                        last[job] = nth;
                    }
                }
            }
        }
    }
}
