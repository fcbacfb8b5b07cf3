//! `adopt`: links an OpenAI batch to a job by hand.

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::context::{Context, now, record_begin};
use super::recover::recovery;
use crate::domain::operator_action::ActionKind;

/// Options of `adopt`.
#[derive(Args)]
pub(super) struct AdoptOptions {
    /// The job's id
    #[arg(long)]
    job: String,
    /// OpenAI's id of the batch
    #[arg(long)]
    batch: String,
}

pub(super) fn run(context: &Context, AdoptOptions { job, batch }: &AdoptOptions) -> Outcome {
    record_begin(&context.open()?.1, ActionKind::Adopt, &format!("{job} {batch}"))?;
    recovery(context)?.adopt(job, batch, now())?;
    context.output.report(
        &json!({"job": job, "batch": batch}),
        &format!("batch {batch} is linked to job {job}\n"),
    )
}
