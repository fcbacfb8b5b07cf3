//! The tables of the status page: which columns each has, and how each column is drawn.

use super::components::{Cell, Column, dollars};
use super::rows::{BudgetRow, Image, LotFacts, Running};
use crate::config::ShownKey;
use crate::store::alerts::AlertRow;
use crate::store::audit::ActionRow;
use crate::store::queue::ModelQueue;
use crate::store::status::listing::{BatchLine, LotSummary};
use crate::store::status::{
    BatchDetails, BatchSummary, Costs, Delivery, DeliveryAttempt, Event, GroupCosts, JobCosts, JobDetails,
    JobSummary, LineOutcome, LotAttempt, Obstacle,
};

pub(super) const ACTIVE_JOBS: &[Column<JobSummary>] = &[
    ("job", |job| Cell::Job(&job.id)),
    ("client", |job| Cell::Text(&job.client)),
    ("status", |job| Cell::State(job.status.as_str())),
    ("lots", |job| Cell::Progress(job.lots)),
    ("failed", |job| Cell::Number(job.lots.failed)),
    ("open requests", |job| Cell::Number(job.open_requests)),
    ("accepted", |job| Cell::Time(job.created_at)),
];

pub(super) const JOBS: &[Column<JobSummary>] = &[
    ("job", |job| Cell::Job(&job.id)),
    ("client", |job| Cell::Text(&job.client)),
    ("status", |job| Cell::State(job.status.as_str())),
    ("lots", |job| Cell::Progress(job.lots)),
    ("failed", |job| Cell::Number(job.lots.failed)),
    ("accepted", |job| Cell::Time(job.created_at)),
    ("ended", |job| job.completed_at.into()),
];

pub(super) const JOBS_OF_BATCH: &[Column<JobSummary>] = &[
    ("job", |job| Cell::Job(&job.id)),
    ("client", |job| Cell::Text(&job.client)),
    ("status", |job| Cell::State(job.status.as_str())),
    ("lots", |job| Cell::Progress(job.lots)),
    ("failed", |job| Cell::Number(job.lots.failed)),
    ("accepted", |job| Cell::Time(job.created_at)),
];

pub(super) const JOB: &[Column<JobDetails>] = &[
    ("status", |job| Cell::State(job.summary.status.as_str())),
    ("client", |job| Cell::Text(&job.summary.client)),
    ("lots", |job| Cell::Progress(job.summary.lots)),
    ("failed lots", |job| Cell::Number(job.summary.lots.failed)),
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

/// A client's own values of a job.
pub(super) const METADATA: &[Column<(String, String)>] = &[
    ("key", |(key, _)| Cell::Text(key)),
    ("value", |(_, value)| Cell::Text(value)),
];

pub(super) const BATCHES: &[Column<BatchSummary>] = &[
    ("batch", |batch| Cell::Batch(batch.id)),
    ("stage", |batch| Cell::Text(batch.stage.as_str())),
    ("state", |batch| Cell::State(batch.state.as_str())),
    ("at OpenAI", |batch| Cell::state(batch.openai_status.as_deref())),
    ("lines", |batch| Cell::Progress(batch.lines)),
    ("failed", |batch| Cell::Number(batch.lines.failed)),
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
    ("failed", |batch| Cell::Number(batch.lines.failed)),
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
    ("failed lines", |batch| Cell::Number(batch.summary.lines.failed)),
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
    ("alert", |alert| Cell::Text(alert.kind.title())),
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

/// The lots of one job.
pub(super) const LOTS: &[Column<LotSummary>] = &[
    ("place", |lot| Cell::Id(lot.position)),
    ("lot", |lot| Cell::Lot(&lot.job, lot.position, &lot.id)),
    ("status", |lot| Cell::State(lot.status.as_str())),
    ("images", |lot| Cell::Number(lot.images)),
    ("missing", |lot| Cell::Number(lot.missing_images)),
    ("error", |lot| lot.error.as_deref().into()),
    ("ended", |lot| lot.processed_at.into()),
];

/// Lots of several jobs.
pub(super) const FOUND_LOTS: &[Column<LotSummary>] = &[
    ("lot", |lot| Cell::Lot(&lot.job, lot.position, &lot.id)),
    ("reference", |lot| lot.reference.as_deref().into()),
    ("job", |lot| Cell::Job(&lot.job)),
    ("status", |lot| Cell::State(lot.status.as_str())),
    ("error", |lot| lot.error.as_deref().into()),
    ("ended", |lot| lot.processed_at.into()),
];

pub(super) const LOT_FACTS: &[Column<LotFacts>] = &[
    ("status", |it| Cell::State(it.lot.status.as_str())),
    ("job", |it| Cell::Job(&it.job)),
    ("client", |it| Cell::Text(&it.client)),
    ("reference", |it| it.lot.reference.as_deref().into()),
    ("place in the job", |it| Cell::Id(it.lot.position.into())),
    ("webhook of its own", |it| {
        it.details.webhook_url.as_deref().into()
    }),
    ("ended", |it| it.lot.processed_at.into()),
    ("error", |it| it.lot.error_message.as_deref().into()),
];

pub(super) const IMAGES: &[Column<Image>] = &[
    ("image", |image| Cell::Address(&image.url)),
    ("problem", |image| image.problem.as_deref().into()),
];

pub(super) const LOT_ATTEMPTS: &[Column<LotAttempt>] = &[
    ("for", |attempt| match attempt.language.as_str() {
        "" => Cell::Text(attempt.stage.as_str()),
        language => Cell::Text(language),
    }),
    ("batch", |attempt| match attempt.batch {
        Some(batch) => Cell::Batch(batch),
        None => Cell::Text("synchronous call"),
    }),
    ("at", |attempt| Cell::Time(attempt.at)),
    ("outcome", |attempt| {
        Cell::State(attempt.outcome.as_deref().unwrap_or("not ingested"))
    }),
    ("tokens in", |attempt| Cell::Number(attempt.usage.input)),
    ("cached", |attempt| Cell::Number(attempt.usage.cached)),
    ("out", |attempt| Cell::Number(attempt.usage.output)),
    ("cost", |attempt| {
        attempt
            .cost
            .map_or(Cell::Text("unknown"), |cost| Cell::Owned(dollars(cost)))
    }),
    ("error", |attempt| attempt.error.as_deref().into()),
];

/// The lines of one batch.
pub(super) const LINES: &[Column<BatchLine>] = &[
    ("lot", |line| Cell::Lot(&line.job, line.position, &line.lot)),
    ("job", |line| Cell::Job(&line.job)),
    ("language", |line| Cell::Text(&line.language)),
    ("outcome", |line| {
        Cell::State(line.outcome.as_deref().unwrap_or("not ingested"))
    }),
    ("tokens", |line| Cell::Number(line.tokens)),
    ("error", |line| line.error.as_deref().into()),
];

pub(super) const EVENTS: &[Column<Event>] = &[
    ("at", |event| Cell::Time(event.at)),
    ("kind", |event| Cell::Text(&event.kind)),
    ("job", |event| {
        event.job.as_deref().map_or(Cell::Absent, Cell::Job)
    }),
    ("batch", |event| event.batch.map_or(Cell::Absent, Cell::Batch)),
    ("detail", |event| Cell::Text(&event.detail)),
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

/// The columns of what a client, model or day cost.
macro_rules! group_costs {
    ($name:ident, $heading:literal) => {
        pub(super) const $name: &[Column<GroupCosts>] = &[
            ($heading, |it| Cell::Text(&it.name)),
            ("answers", |it| Cell::Number(it.answers)),
            ("tokens in", |it| Cell::Number(it.usage.input)),
            ("cached", |it| Cell::Number(it.usage.cached)),
            ("out", |it| Cell::Number(it.usage.output)),
            ("cost", |it| Cell::Owned(cost_of(it))),
        ];
    };
}

group_costs!(COSTS_BY_CLIENT, "client");
group_costs!(COSTS_BY_MODEL, "model");
group_costs!(COSTS_BY_DAY, "day");

/// A cost, and whether more was spent that is not known.
fn cost_of(costs: &GroupCosts) -> String {
    match costs.is_partly_unknown {
        true => format!("{} and an unknown part", dollars(costs.cost)),
        false => dollars(costs.cost),
    }
}

pub(super) const ACTIONS: &[Column<ActionRow>] = &[
    ("at", |row| Cell::Time(row.at)),
    ("who", |row| Cell::Text(&row.actor)),
    ("from", |row| Cell::Text(&row.origin)),
    ("action", |row| Cell::Text(&row.action)),
    ("subject", |row| match row.subject.len() {
        36 => Cell::Job(&row.subject),
        _ => Cell::Text(&row.subject),
    }),
    ("seen and effect", |row| Cell::Text(&row.detail)),
    ("cost at most", |row| {
        row.cost.map_or(Cell::Absent, |cost| Cell::Owned(dollars(cost)))
    }),
];

pub(super) const RUNNING: &[Column<Running>] = &[
    ("version", |_| Cell::Text(env!("CARGO_PKG_VERSION"))),
    ("schema", |it| Cell::Text(&it.schema)),
    ("SQLite", |it| Cell::Text(it.sqlite)),
    ("database", |it| Cell::Text(&it.database)),
    ("bytes", |it| Cell::Number(it.bytes)),
    ("bytes of the WAL", |it| Cell::Number(it.wal_bytes)),
    ("free bytes on its disk", |it| Cell::Number(it.free_bytes)),
];

pub(super) const SETTINGS: &[Column<ShownKey>] = &[
    ("key", |it| Cell::Text(&it.key)),
    ("value", |it| Cell::Text(&it.value)),
    ("from", |it| Cell::Text(&it.source)),
];

pub(super) const BUDGETS: &[Column<BudgetRow>] = &[
    ("budget", |it| Cell::Owned(it.budget.subject().to_string())),
    ("limit", |it| Cell::Owned(dollars(it.budget.limit))),
    ("spent", |it| Cell::Owned(dollars(it.budget.spent))),
    ("reserved by batches", |it| {
        Cell::Owned(dollars(it.budget.reserved))
    }),
    ("promised to open jobs", |it| Cell::Owned(dollars(it.promised))),
    ("left", |it| Cell::Owned(dollars(it.budget.left()))),
    ("ends", |it| it.budget.ends_at().into()),
];

pub(super) const JOB_COSTS: &[Column<JobCosts>] = &[
    ("job", |it| Cell::Job(&it.job)),
    ("client", |it| Cell::Text(&it.client)),
    ("estimated US dollars", |it| Cell::Text(&it.estimated)),
    ("US dollars", |it| Cell::Text(&it.actual)),
];

pub(super) const QUEUES: &[Column<ModelQueue>] = &[
    ("model", |queue| Cell::Text(&queue.model)),
    ("limit in tokens", |queue| Cell::Number(queue.limit)),
    ("held by our batches", |queue| Cell::Number(queue.held)),
    ("part of caps, %", |queue| Cell::Number(queue.cap_percent.into())),
    ("learned", |queue| Cell::Time(queue.learned_at)),
];
