//! `convert-database OLD NEW`: a database of the program before this one, copied into a new file.

use std::path::Path;

use serde_json::json;

use super::{Command, Outcome, Refused, say};
use crate::base::clock::{Clock, SystemClock};
use crate::store::convert;

pub(super) fn run(command: &Command) -> Outcome {
    let [old, new] = command.operands.as_slice() else {
        let message = "convert-database takes the old file and a new one";
        return Err(Refused::Usage(message.into()));
    };
    let now = SystemClock::new().now().wall;
    let converted = convert::convert(Path::new(old), Path::new(new), now)?;
    let (tables, rows) = (converted.tables, converted.rows);
    let findings: String = converted
        .findings
        .iter()
        .map(|(view, number)| format!("{view} had {number} findings before and has them now\n"))
        .collect();
    say(
        command,
        &json!({"database": converted.path, "tables": tables, "rows": rows, "findings": converted.findings}),
        &format!(
            "{new}: {rows} rows of {tables} tables, compared with {old}, which is unchanged\n{findings}Next: set \
             `database` in the configuration to {new}, or move the old file away and the new one to its place. Then: \
             systemctl start batchkeeper && batchkeeper doctor\n"
        ),
    )
}
