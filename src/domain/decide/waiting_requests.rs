//! Why waiting requests wait: the first thing that keeps the submitter from sending them, in the order in which it
//! looks at these things.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Stage;

/// What keeps requests waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitCause {
    /// The images of their lots are being checked.
    ImageChecks,
    /// OpenAI could not answer them, and is asked again later.
    TransientFailure,
    /// A scope is paused.
    Paused(PauseScope),
    /// OpenAI's batches were not compared with the database yet.
    NotCompared,
    /// OpenAI refuses uploads or creates; batches that were refused are tried again first.
    RefusedCalls,
    /// The disk has too little free space for results.
    DiskLow,
    /// As many batches are active as `batch.max_active` allows.
    MaxActive(u32),
    /// OpenAI takes no more creates in this hour.
    CreateRate,
    /// The queue of a model at OpenAI is full, or OpenAI has yet to accept the batch before.
    QueueFull(String),
    /// A budget does not pay for one more of them. The text names it.
    Budget(String),
    /// They wait until the next batch is full, or the oldest has waited `batch.max_wait`.
    Packing,
    /// An import or a restore left them for an operator.
    Held,
}

impl WaitCause {
    /// The cause for people.
    pub fn to_words(&self) -> String {
        match self {
            Self::ImageChecks => "the images of their lots are being checked".into(),
            Self::TransientFailure => "OpenAI failed on them and is asked again later".into(),
            Self::Paused(scope) => format!("{} paused", scope.in_words()),
            Self::NotCompared => "OpenAI's batches are being compared with the database first".into(),
            Self::RefusedCalls => "OpenAI refuses new batches; those that it refused are tried first".into(),
            Self::DiskLow => "the disk has less free space than limits.disk_reserve".into(),
            Self::MaxActive(most) => format!("{most} batches are active, as batch.max_active allows"),
            Self::CreateRate => "OpenAI takes no more batches in this hour".into(),
            Self::QueueFull(model) => {
                format!("OpenAI's queue of {model} is full, or its last batch is not accepted yet")
            }
            Self::Budget(budget) => budget.clone(),
            Self::Packing => "the next batch is packed when it is full, or after batch.max_wait".into(),
            Self::Held => "an import left them; look with: batchkeeper recover".into(),
        }
    }
}

/// Requests that wait for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Their stage; `None` for those of both.
    pub stage: Option<Stage>,
    /// How many there are.
    pub requests: u64,
    /// The reason.
    pub cause: WaitCause,
    /// Since when the oldest of them waits, if that is known.
    pub since: Option<Timestamp>,
    /// When they go on, if that is known.
    pub until: Option<Timestamp>,
}

/// A cause, and when it ends if that is known.
pub type Stop = (WaitCause, Option<Timestamp>);

/// The waiting requests of a stage.
#[derive(Clone, Debug)]
pub struct StageWaits {
    /// The stage.
    pub stage: Stage,
    /// Those that a batch could take now.
    pub queued: u64,
    /// Since when the oldest of these waits.
    pub since: Option<Timestamp>,
    /// Those whose lots' images are not checked.
    pub unchecked: u64,
    /// Those that wait after a failure.
    pub failed: u64,
    /// When the first of these is due.
    pub retry_at: Option<Timestamp>,
    /// What keeps every batch of the stage waiting.
    pub stop: Option<Stop>,
    /// Those that a budget keeps waiting. They are among the queued ones.
    pub budgets: Vec<Wait>,
}

/// Attributes the waiting requests of a stage to their causes. `all` is what keeps every batch waiting.
pub fn attribute(waits: StageWaits, all: Option<&Stop>, max_wait: Duration) -> Vec<Wait> {
    let stage = Some(waits.stage);
    let of = |requests, (cause, until): Stop, since| Wait {
        stage,
        requests,
        cause,
        since,
        until,
    };
    let mut found = vec![
        of(waits.unchecked, (WaitCause::ImageChecks, None), None),
        of(waits.failed, (WaitCause::TransientFailure, waits.retry_at), None),
    ];
    match all.or(waits.stop.as_ref()) {
        Some(stop) => found.push(of(waits.queued, stop.clone(), waits.since)),
        None => {
            let of_budgets = waits.budgets.iter().map(|wait| wait.requests).sum();
            let packed_by = waits.since.map(|since| since + max_wait);
            let rest = waits.queued.saturating_sub(of_budgets);
            found.extend(waits.budgets);
            found.push(of(rest, (WaitCause::Packing, packed_by), waits.since));
        }
    }
    found.retain(|wait| wait.requests > 0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_WAIT: Duration = Duration::from_mins(10);

    /// Requests, cause, until.
    type Shown = (u64, WaitCause, Option<Timestamp>);

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_seconds(1_795_400_000 + minute * 60)
    }

    fn waits() -> StageWaits {
        StageWaits {
            stage: Stage::Vision,
            queued: 10,
            since: Some(at(0)),
            unchecked: 0,
            failed: 0,
            retry_at: None,
            stop: None,
            budgets: Vec::new(),
        }
    }

    fn budget(requests: u64) -> Wait {
        Wait {
            stage: Some(Stage::Vision),
            requests,
            cause: WaitCause::Budget("the budget total 2026-11-24 is used up".into()),
            since: None,
            until: Some(at(99)),
        }
    }

    #[test]
    fn requests_are_attributed_to_what_stops_them_first() {
        let paused = (WaitCause::Paused(PauseScope::Submissions), None);
        let queue = (WaitCause::QueueFull("m".into()), None);
        let stopped = StageWaits {
            stop: Some(queue.clone()),
            budgets: vec![budget(4)],
            ..waits()
        };
        let unready = StageWaits {
            queued: 0,
            unchecked: 2,
            failed: 3,
            retry_at: Some(at(5)),
            ..waits()
        };
        let over_budget = StageWaits {
            budgets: vec![budget(4)],
            ..waits()
        };
        let cases: [(StageWaits, Option<&Stop>, Vec<Shown>); 6] = [
            (waits(), None, vec![(10, WaitCause::Packing, Some(at(10)))]),
            (waits(), Some(&paused), vec![(10, paused.0.clone(), None)]),
            (stopped.clone(), None, vec![(10, queue.0.clone(), None)]),
            (stopped, Some(&paused), vec![(10, paused.0.clone(), None)]),
            (
                unready,
                Some(&paused),
                vec![
                    (2, WaitCause::ImageChecks, None),
                    (3, WaitCause::TransientFailure, Some(at(5))),
                ],
            ),
            (
                over_budget,
                None,
                vec![
                    (4, budget(4).cause, Some(at(99))),
                    (6, WaitCause::Packing, Some(at(10))),
                ],
            ),
        ];
        for (waits, all, expected) in cases {
            let found: Vec<_> = attribute(waits.clone(), all, MAX_WAIT)
                .into_iter()
                .map(|wait| (wait.requests, wait.cause, wait.until))
                .collect();
            assert_eq!(found, expected, "{waits:?} {all:?}");
        }
    }
}
