//! The tokens that unfinished batches hold of their models' queues.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::sandbox::model::lock::lock;
use crate::sandbox::model::settings::SimulatedModel;

struct QueuedBatch {
    project: String,
    model: String,
    tokens: u64,
}

impl QueuedBatch {
    fn new(project: &str, model: &SimulatedModel, tokens: u64) -> Self {
        Self {
            project: project.to_owned(),
            model: model.name.clone(),
            tokens,
        }
    }
}

/// The batches that hold tokens of a queue, by id. Each project has a queue for each model.
#[derive(Default)]
pub struct TokenQueue(Mutex<BTreeMap<String, QueuedBatch>>);

impl TokenQueue {
    /// Adds a batch, whatever the model's limit.
    pub fn add(&self, batch: &str, project: &str, model: &SimulatedModel, tokens: u64) {
        let queued = QueuedBatch::new(project, model, tokens);
        lock(&self.0).insert(batch.to_owned(), queued);
    }

    /// Adds a batch, which has an id and a project, unless the queue would then exceed the limit.
    ///
    /// # Errors
    /// The limit.
    pub fn try_add(
        &self,
        (batch, project): (&str, &str),
        model: &SimulatedModel,
        tokens: u64,
        limit: Option<u64>,
    ) -> Result<(), u64> {
        let mut batches = lock(&self.0);
        if let Some(limit) = limit {
            let held = batches
                .values()
                .filter(|other| other.project == project && other.model == model.name)
                .map(|other| other.tokens)
                .sum::<u64>();
            if held.saturating_add(tokens) > limit {
                return Err(limit);
            }
        }
        let queued = QueuedBatch::new(project, model, tokens);
        batches.insert(batch.to_owned(), queued);
        Ok(())
    }

    /// Removes a batch that ended.
    pub fn remove(&self, batch: &str) {
        lock(&self.0).remove(batch);
    }

    /// The ids of all batches but one.
    pub fn others(&self, own: &str) -> Vec<String> {
        let batches = lock(&self.0);
        batches.keys().filter(|id| *id != own).cloned().collect()
    }
}
