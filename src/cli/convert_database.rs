//! `convert-database`: copies a database of the program before this one into a new file.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::context::{Context, now};
use crate::store::convert;

/// Options of `convert-database`.
#[derive(Args)]
pub(super) struct ConvertOptions {
    /// The old database, which stays unchanged
    old: PathBuf,
    /// The new file
    new: PathBuf,
}

pub(super) fn run(context: &Context, options: &ConvertOptions) -> Outcome {
    let converted = convert::convert(&options.old, &options.new, now())?;
    let (tables, rows) = (converted.tables, converted.rows);
    let findings: String = converted
        .findings
        .iter()
        .map(|(view, number)| format!("{view} had {number} findings before and has them now\n"))
        .collect();
    let (old, new) = (options.old.display(), options.new.display());
    context.output.report(
        &json!({"database": converted.path, "tables": tables, "rows": rows, "findings": converted.findings}),
        &format!(
            "{new}: {rows} rows of {tables} tables, compared with {old}, which is unchanged\n{findings}Next: \
             set `database` in the configuration to {new}, or move the old file away and the new one to \
             its place. Then: systemctl start batchkeeper && batchkeeper doctor\n"
        ),
    )
}
