//! `doctor`: checks the database's integrity, links and invariants.

use serde_json::Value;

use super::context::Context;
use super::output::print;
use super::{Outcome, Verdict};
use crate::store::inspect::Table;
use crate::store::invariants::findings;

pub(super) fn run(context: &Context) -> Outcome {
    let (_, store) = context.open()?;
    let rows: Vec<Vec<Value>> = store
        .read(findings)?
        .into_iter()
        .map(|it| {
            let cells = [it.invariant.to_owned(), it.subject, it.finding];
            cells.map(Value::from).into()
        })
        .collect();
    if rows.is_empty() && !context.output.json {
        return print("nothing found: the file is whole, every link holds, every counter equals its rows\n");
    }
    let columns = ["invariant", "subject", "finding"];
    let table = Table {
        columns: columns.map(str::to_owned).into(),
        rows,
    };
    context.output.show(&table)?;
    Ok(Verdict::clean_if(table.rows.is_empty()))
}
