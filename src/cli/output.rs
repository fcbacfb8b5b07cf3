//! What commands print: for people, or as JSON.

use std::io::{ErrorKind, Write};

use clap::Args;
use serde_json::Value;

use super::{CommandError, Outcome, Verdict};
use crate::base::escape::{escape_json, escape_lines};
use crate::store::Store;
use crate::store::inspect::{Listed, Table, plain};

/// The form of the output.
#[derive(Args)]
pub(super) struct Output {
    /// Print JSON, for programs (not with serve, demo, sandbox)
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl Output {
    /// Prints what a command did: the JSON value, or the text.
    pub(super) fn report(&self, value: &Value, text: &str) -> Outcome {
        match self.json {
            true => print_json(value),
            false => print(text),
        }
    }

    /// Prints a table.
    pub(super) fn show(&self, table: &Table) -> Outcome {
        match self.json {
            true => print_json(&table.objects()),
            false => print(&aligned(table)),
        }
    }

    /// Prints a table of one row and the table of its parts. In JSON the parts are the row's member `name`.
    pub(super) fn show_with(&self, row: &Table, name: &str, parts: &Table) -> Outcome {
        if self.json {
            let mut object = row.objects()[0].take();
            object[name] = parts.objects();
            return print_json(&object);
        }
        self.show(row)?;
        self.show(parts)
    }

    /// Prints a list, and says how to get the rows that it leaves out.
    pub(super) fn show_list(&self, store: &Store, list: &Listed) -> Outcome {
        self.show(&list.table)?;
        let shown = list.table.rows.len();
        if u64::try_from(shown).is_ok_and(|shown| shown >= list.all) {
            return Ok(Verdict::Clean);
        }
        let note = format!(
            "{shown} of {}, open ones first, then the newest; all: sqlite3 -readonly {} 'SELECT * FROM {}'",
            list.all,
            store.path().display(),
            list.of
        );
        if self.json {
            complain(&note);
            return Ok(Verdict::Clean);
        }
        print(&format!("{note}\n"))
    }
}

/// The table if it has a row, otherwise an error that names the command that lists what exists.
pub(super) fn existing(table: Table, name: impl ToString, list: &'static str) -> Result<Table, CommandError> {
    match table.rows.is_empty() {
        false => Ok(table),
        true => Err(CommandError::NotFound {
            name: name.to_string(),
            list,
        }),
    }
}

/// A table as text, its columns aligned.
fn aligned(table: &Table) -> String {
    let rows: Vec<Vec<String>> = table
        .rows
        .iter()
        .map(|row| row.iter().map(plain).collect())
        .collect();
    let mut widths: Vec<usize> = table
        .columns
        .iter()
        .map(|column| column.chars().count())
        .collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&table.columns).chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Prints a text on standard output. Control characters from outside are escaped.
pub(super) fn print(text: &str) -> Outcome {
    write_out(&escape_lines(text))
}

/// Prints a value on a line of standard output.
pub(super) fn print_json(value: &Value) -> Outcome {
    write_out(&format!("{}\n", escape_json(&value.to_string())))
}

fn write_out(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader of a pipe may end before the text does.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Verdict::Clean),
    }
}

/// Prints a message on standard error.
pub(super) fn complain(message: &str) {
    let written = writeln!(std::io::stderr(), "batchkeeper: {}", escape_lines(message));
    // If standard error is closed, no place is left for the message.
    drop(written);
}
