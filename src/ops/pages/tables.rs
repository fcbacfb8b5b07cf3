//! The tables of the status page: which columns each has, and how each column is drawn.

use super::components::{Cell, Column};
use crate::store::alerts::AlertRow;
use crate::store::status::{
    BatchDetails, BatchSummary, Costs, Delivery, DeliveryAttempt, Event, FailedLot, JobDetails, JobSummary,
    LineOutcome, Obstacle,
};

pub(super) const ACTIVE_JOBS: &[Column<JobSummary>] = &[
    ("job", |job| Cell::Job(&job.id)),
    ("client", |job| Cell::Text(&job.client)),
    ("status", |job| Cell::State(job.status.as_str())),
    ("lots", |job| Cell::Progress(job.lots)),
    ("failed", |job| Cell::Number(job.failed_lots)),
    ("open requests", |job| Cell::Number(job.open_requests)),
    ("accepted", |job| Cell::Time(job.created_at)),
];

pub(super) const ENDED_JOBS: &[Column<JobSummary>] = &[
    ("job", |job| Cell::Job(&job.id)),
    ("client", |job| Cell::Text(&job.client)),
    ("status", |job| Cell::State(job.status.as_str())),
    ("lots", |job| Cell::Progress(job.lots)),
    ("failed", |job| Cell::Number(job.failed_lots)),
    ("accepted", |job| Cell::Time(job.created_at)),
    ("ended", |job| job.completed_at.into()),
];

pub(super) const JOBS_OF_BATCH: &[Column<JobSummary>] = &[
    ("job", |job| Cell::Job(&job.id)),
    ("client", |job| Cell::Text(&job.client)),
    ("status", |job| Cell::State(job.status.as_str())),
    ("lots", |job| Cell::Progress(job.lots)),
    ("failed", |job| Cell::Number(job.failed_lots)),
    ("accepted", |job| Cell::Time(job.created_at)),
];

pub(super) const JOB: &[Column<JobDetails>] = &[
    ("status", |job| Cell::State(job.summary.status.as_str())),
    ("client", |job| Cell::Text(&job.summary.client)),
    ("lots", |job| Cell::Progress(job.summary.lots)),
    ("failed lots", |job| Cell::Number(job.summary.failed_lots)),
    ("open descriptions", |job| Cell::Number(job.open_vision)),
    ("open translations", |job| Cell::Number(job.open_translations)),
    ("languages", |job| Cell::Text(&job.languages)),
    ("mode", |job| Cell::Text(job.mode.as_str())),
    ("origin", |job| Cell::Text(&job.origin)),
    ("webhook", |job| job.webhook_url.as_deref().into()),
    ("accepted", |job| Cell::Time(job.summary.created_at)),
    ("ended", |job| job.summary.completed_at.into()),
    ("error", |job| job.error.as_deref().into()),
];

pub(super) const BATCHES: &[Column<BatchSummary>] = &[
    ("batch", |batch| Cell::Batch(batch.id)),
    ("stage", |batch| Cell::Text(batch.stage.as_str())),
    ("state", |batch| Cell::State(batch.state.as_str())),
    ("at OpenAI", |batch| Cell::state(batch.openai_status.as_deref())),
    ("lines", |batch| Cell::Progress(batch.lines)),
    ("failed", |batch| Cell::Number(batch.failed_lines)),
    ("OpenAI's id", |batch| batch.openai_id.as_deref().into()),
    ("created", |batch| Cell::Time(batch.created_at)),
    ("ingested", |batch| batch.ingested_at.into()),
];

/// Active batches, or those that work for a job.
pub(super) const WORKING_BATCHES: &[Column<BatchSummary>] = &[
    ("batch", |batch| Cell::Batch(batch.id)),
    ("stage", |batch| Cell::Text(batch.stage.as_str())),
    ("state", |batch| Cell::State(batch.state.as_str())),
    ("at OpenAI", |batch| Cell::state(batch.openai_status.as_deref())),
    ("lines", |batch| Cell::Progress(batch.lines)),
    ("failed", |batch| Cell::Number(batch.failed_lines)),
    ("OpenAI's id", |batch| batch.openai_id.as_deref().into()),
    ("submitted", |batch| batch.submitted_at.into()),
];

pub(super) const BATCH: &[Column<BatchDetails>] = &[
    ("state", |batch| Cell::State(batch.summary.state.as_str())),
    ("stage", |batch| Cell::Text(batch.summary.stage.as_str())),
    ("model", |batch| Cell::Text(&batch.model)),
    ("at OpenAI", |batch| {
        Cell::state(batch.summary.openai_status.as_deref())
    }),
    ("lines", |batch| Cell::Progress(batch.summary.lines)),
    ("failed lines", |batch| Cell::Number(batch.summary.failed_lines)),
    ("OpenAI's id", |batch| batch.summary.openai_id.as_deref().into()),
    ("submission key", |batch| Cell::Text(&batch.submission_key)),
    ("input file", |batch| batch.input_file.as_deref().into()),
    ("output file", |batch| batch.output_file.as_deref().into()),
    ("error file", |batch| batch.error_file.as_deref().into()),
    ("duplicate of", |batch| {
        batch.duplicate_of.map_or(Cell::Absent, Cell::Batch)
    }),
    ("created", |batch| Cell::Time(batch.summary.created_at)),
    ("submitted", |batch| batch.summary.submitted_at.into()),
    ("ended", |batch| batch.ended_at.into()),
    ("ingested", |batch| batch.summary.ingested_at.into()),
    ("files removed", |batch| batch.cleaned_at.into()),
    ("failed calls", |batch| Cell::Number(batch.failed_calls)),
    ("error", |batch| batch.error.as_deref().into()),
];

pub(super) const DELIVERIES: &[Column<Delivery>] = &[
    ("delivery", |delivery| Cell::Id(delivery.id)),
    ("job", |delivery| Cell::Job(&delivery.job)),
    ("receiver", |delivery| Cell::Text(&delivery.receiver)),
    ("state", |delivery| Cell::State(&delivery.state)),
    ("attempts", |delivery| Cell::Number(delivery.attempts)),
    ("answer", |delivery| delivery.response_status.into()),
    ("error", |delivery| delivery.error.as_deref().into()),
    ("at", |delivery| delivery.at.into()),
];

pub(super) const ATTEMPTS: &[Column<DeliveryAttempt>] = &[
    ("delivery", |attempt| Cell::Id(attempt.delivery)),
    ("receiver", |attempt| Cell::Text(&attempt.receiver)),
    ("state", |attempt| Cell::State(&attempt.state)),
    ("attempt", |attempt| {
        attempt.attempt.map_or(Cell::Absent, Cell::Number)
    }),
    ("started", |attempt| attempt.started_at.into()),
    ("answer", |attempt| attempt.response_status.into()),
    ("error", |attempt| attempt.error.as_deref().into()),
    ("next", |attempt| attempt.next_at.into()),
];

pub(super) const CLOSED_ALERTS: &[Column<AlertRow>] = &[
    ("kind", |alert| Cell::Text(alert.kind.as_str())),
    ("subject", |alert| Cell::Owned(alert.subject.to_string())),
    ("message", |alert| Cell::Text(&alert.message)),
    ("opened", |alert| Cell::Time(alert.opened_at)),
    ("closed", |alert| alert.closed_at.into()),
];

pub(super) const OBSTACLES: &[Column<Obstacle>] = &[
    ("what", |obstacle| Cell::Text(&obstacle.what)),
    ("why", |obstacle| Cell::Text(&obstacle.why)),
    ("since", |obstacle| obstacle.since.into()),
    ("until", |obstacle| obstacle.until.into()),
];

pub(super) const FAILED_LOTS: &[Column<FailedLot>] = &[
    ("lot", |lot| Cell::Text(&lot.id)),
    ("error", |lot| lot.error.as_deref().into()),
    ("missing images", |lot| lot.missing_images.as_deref().into()),
    ("at", |lot| lot.processed_at.into()),
];

pub(super) const EVENTS_OF_JOB: &[Column<Event>] = &[
    ("at", |event| Cell::Time(event.at)),
    ("batch", |event| event.batch.map_or(Cell::Absent, Cell::Batch)),
    ("kind", |event| Cell::Text(&event.kind)),
    ("detail", |event| Cell::Text(&event.detail)),
];

pub(super) const EVENTS_OF_BATCH: &[Column<Event>] = &[
    ("at", |event| Cell::Time(event.at)),
    ("kind", |event| Cell::Text(&event.kind)),
    ("detail", |event| Cell::Text(&event.detail)),
];

pub(super) const LINES_BY_OUTCOME: &[Column<LineOutcome>] = &[
    ("outcome", |line| {
        Cell::State(line.outcome.as_deref().unwrap_or("not ingested"))
    }),
    ("lines", |line| Cell::Number(line.lines)),
    ("settled", |line| Cell::Number(line.settled)),
    ("an error", |line| line.error.as_deref().into()),
];

pub(super) const COSTS: &[Column<Costs>] = &[
    ("answered", |costs| Cell::Number(costs.answered)),
    ("input tokens", |costs| Cell::Number(costs.usage.input)),
    ("cached tokens", |costs| Cell::Number(costs.usage.cached)),
    ("output tokens", |costs| Cell::Number(costs.usage.output)),
    ("reasoning tokens", |costs| Cell::Number(costs.usage.reasoning)),
    ("US dollars", |costs| Cell::Text(&costs.dollars)),
    ("estimated US dollars", |costs| {
        costs.estimated_dollars.as_deref().into()
    }),
];
