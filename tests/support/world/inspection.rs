//! Looking into the database beside the workers.

use super::World;
use batchkeeper::domain::batch::BatchState;
use batchkeeper::store::batches;
use batchkeeper::store::batches::BatchRow;
use batchkeeper::store::jobs::{self, JobRow};
use batchkeeper::store::lots::{self, LotFilter, LotRow};

impl World {
    pub fn job(&self, id: &str) -> JobRow {
        let job = self.store().read(|view| jobs::by_id(view, id));
        job.expect("readable").expect("a job")
    }

    pub fn lots(&self, id: &str) -> Vec<LotRow> {
        let lots = self
            .store()
            .read(|view| lots::page(view, id, LotFilter::All, 0, 60_000));
        lots.expect("readable")
    }

    pub fn batch_in(&self, state: BatchState) -> Option<BatchRow> {
        let rows = self.store().read(|view| batches::in_states(view, &[state], 1));
        rows.expect("readable").into_iter().next()
    }

    /// The first column of the first row, a number.
    pub fn number(&self, query: &str) -> i64 {
        self.sql
            .prepare_cached(query)
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The first column of every row.
    pub fn texts(&self, query: &str) -> Vec<String> {
        let mut query = self.sql.prepare_cached(query).expect("SQL");
        let rows = query.query_map([], |row| row.get(0)).expect("SQL");
        rows.collect::<Result<_, _>>().expect("texts")
    }

    /// Runs SQL beside the program, as another process would.
    pub fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.sql.execute_batch(sql)
    }

    /// How many batches OpenAI has.
    pub fn made(&self) -> usize {
        self.openai.state().batches.len()
    }

    pub fn open_alerts(&self) -> Vec<String> {
        self.texts("SELECT kind FROM alerts WHERE closed_at IS NULL ORDER BY id")
    }
}
