//! The figures of the whole sandbox, for tests and engineers.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use super::ledger::{ExecutionCounts, LedgerTotals};
use super::lock::lock;
use super::simulated_openai::SimulatedOpenAi;
use crate::domain::openai::BatchStatus;

/// The most ids that [`StateSummary::answered_more_than_once_ids`] names.
const MOST_IDS: usize = 20;

/// The figures of the whole sandbox since its state folder was created.
#[derive(Clone, Debug, Serialize)]
pub struct StateSummary {
    /// The sandbox's time.
    pub now: String,
    /// The number of batches, by status.
    pub batches: BTreeMap<&'static str, u64>,
    /// The number of batches.
    pub batches_total: usize,
    /// Batches that clients created.
    pub creates: usize,
    /// Uploaded files.
    pub uploads: u64,
    /// Cancelled batches.
    pub cancels: u64,
    /// Deliveries to the webhook sink.
    pub hooks: u64,
    /// Lines of past batches.
    pub seeded_lines: u64,
    /// Executed requests, synchronous ones included.
    pub executed: u64,
    /// Synchronous requests.
    pub synchronous: u64,
    /// Requests with a complete answer.
    pub answered: u64,
    /// Different custom ids.
    pub custom_ids: usize,
    /// The most executions of one custom id.
    pub max_executions: u64,
    /// The most complete answers to one custom id.
    pub max_answers: u64,
    /// Custom ids with several complete answers.
    pub answered_more_than_once: usize,
    /// The first of these, in alphabetical order.
    pub answered_more_than_once_ids: Vec<String>,
    /// What clients did that OpenAI's reference does not provide for.
    pub flags: Vec<FlagCount>,
    /// Batches that were created with the same metadata `submission`.
    pub duplicate_submissions: Vec<DuplicateSubmission>,
    /// How often each fault was triggered.
    pub faults_struck: BTreeMap<String, u64>,
    /// The number of files that are neither deleted nor expired, by purpose.
    pub files: BTreeMap<String, u64>,
    /// The bytes of these files.
    pub file_bytes: u64,
}

/// How often a kind of request was flagged.
#[derive(Clone, Debug, Serialize)]
pub struct FlagCount {
    /// The flag.
    pub flag: String,
    /// Method and path.
    pub request: String,
    /// How often.
    pub count: u64,
    /// The newest detail.
    pub detail: String,
}

/// Several batches with the same metadata `submission`.
#[derive(Clone, Debug, Serialize)]
pub struct DuplicateSubmission {
    /// The project.
    pub project: String,
    /// The value of `submission`.
    pub submission: String,
    /// The batches' ids.
    pub batches: Vec<String>,
}

impl SimulatedOpenAi {
    /// The figures of the whole sandbox, after every batch was advanced.
    ///
    /// # Errors
    /// If the state cannot be read or written.
    pub fn summarize_state(&self) -> io::Result<StateSummary> {
        let mut by_status = BatchStatus::ALL
            .iter()
            .map(|status| (status.as_str(), 0_u64))
            .collect::<BTreeMap<_, _>>();
        let batches = self.batches.all();
        for batch in &batches {
            let mut batch = lock(batch);
            self.advance(&mut batch)?;
            *by_status.entry(batch.status.as_str()).or_default() += 1;
        }
        let now = self.now();
        let (files, file_bytes) = self.files.totals(now);
        Ok(self.ledger.totals(|totals| {
            let highest =
                |count: fn(&ExecutionCounts) -> u64| totals.custom_ids.values().map(count).max().unwrap_or(0);
            let repeated = answered_more_than_once(totals);
            StateSummary {
                now: now.to_string(),
                batches: by_status,
                batches_total: batches.len(),
                creates: totals.creates.len(),
                uploads: totals.uploads,
                cancels: totals.cancels,
                hooks: totals.hooks,
                seeded_lines: totals.seeded,
                executed: totals.executed,
                synchronous: totals.synchronous,
                answered: totals.answered,
                custom_ids: totals.custom_ids.len(),
                max_executions: highest(|counts| counts.executed),
                max_answers: highest(|counts| counts.answered),
                answered_more_than_once: repeated.len(),
                answered_more_than_once_ids: repeated.into_iter().take(MOST_IDS).collect(),
                flags: flag_counts(totals),
                duplicate_submissions: duplicate_submissions(totals),
                faults_struck: totals.faults.clone(),
                files,
                file_bytes,
            }
        }))
    }
}

fn answered_more_than_once(totals: &LedgerTotals) -> Vec<String> {
    let mut ids = totals
        .custom_ids
        .iter()
        .filter(|(_, counts)| counts.answered > 1)
        .map(|(id, _)| id.clone())
        .collect::<Vec<_>>();
    ids.sort_unstable();
    ids
}

fn flag_counts(totals: &LedgerTotals) -> Vec<FlagCount> {
    totals
        .flags
        .iter()
        .map(|((flag, request), (count, detail))| FlagCount {
            flag: flag.clone(),
            request: request.clone(),
            count: *count,
            detail: detail.clone(),
        })
        .collect()
}

fn duplicate_submissions(totals: &LedgerTotals) -> Vec<DuplicateSubmission> {
    totals
        .submissions
        .iter()
        .filter(|(_, batches)| batches.len() > 1)
        .map(|((project, submission), batches)| DuplicateSubmission {
            project: project.clone(),
            submission: submission.clone(),
            batches: batches.clone(),
        })
        .collect()
}
