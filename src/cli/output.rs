//! What commands print: for people, or as JSON.

use std::io::{ErrorKind, Write};

use clap::Args;
use serde_json::Value;

use super::{CommandError, Outcome, Verdict};
use crate::base::escape::{escape_json, escape_lines};
use crate::store::Store;
use crate::store::inspect::{Listed, Table, plain};

/// Between two columns.
const GAP: &str = "  ";

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
            false => print(&aligned(table, terminal_width())),
        }
    }

    /// Prints a table of one row, and tables of its parts with their names. In JSON the parts are members of the
    /// row.
    pub(super) fn show_with(&self, row: &Table, parts: &[(&str, Table)]) -> Outcome {
        if self.json {
            let mut object = row.objects()[0].take();
            for (name, part) in parts {
                object[*name] = part.objects();
            }
            return print_json(&object);
        }
        let mut text = fields(row);
        for (name, part) in parts.iter().filter(|(_, part)| !part.rows.is_empty()) {
            text.push_str(&format!(
                "\n{}\n{}",
                name.replace('_', " "),
                aligned(part, terminal_width())
            ));
        }
        print(&text)
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
        true => Err(CommandError::not_found(name, list)),
    }
}

/// The first row of a table as text: a line for each cell that is not empty.
fn fields(row: &Table) -> String {
    let width = row.columns.iter().map(|column| column.chars().count()).max();
    let width = width.unwrap_or_default();
    let cells = row.columns.iter().zip(row.rows.iter().flatten());
    cells
        .map(|(column, cell)| (column, plain(cell)))
        .filter(|(_, cell)| !cell.is_empty())
        .map(|(column, cell)| format!("{column:width$}  {cell}\n"))
        .collect()
}

/// A column is not made narrower than this.
const NARROWEST: usize = 10;

/// The width of the terminal on standard output; `None` if that is a pipe or a file.
fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0.into())
}

/// Narrows the widest columns until a row fits, as far as that goes.
fn fit(widths: &mut [usize], room: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => return,
        }
    }
}

/// A text, cut to a width.
fn cut(cell: &str, width: usize) -> String {
    match cell.chars().count() > width {
        true => cell.chars().take(width - 1).chain(['…']).collect(),
        false => format!("{cell:width$}"),
    }
}

/// A table as text, its columns aligned. Long cells are cut where that makes a row fit into `room` characters.
fn aligned(table: &Table, room: Option<usize>) -> String {
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
    if let Some(room) = room {
        fit(&mut widths, room);
    }
    let mut text = String::new();
    for row in std::iter::once(&table.columns).chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| cut(cell, *width))
            .collect();
        text.push_str(cells.join(GAP).trim_end());
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
    print_raw(text.as_bytes())
}

/// Prints bytes that the program made itself.
pub(super) fn print_raw(bytes: &[u8]) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_cells_are_cut_to_the_terminal_and_nowhere_else() {
        let id = "0b9f1c7e-8d1e-4f0a-9f5b-0f6f2b1c3d4e";
        let table = Table {
            columns: ["id", "status", "error"].map(str::to_owned).into(),
            rows: vec![vec![json!(id), json!("failed"), json!("é".repeat(90))]],
        };
        let whole = aligned(&table, None);
        assert!(whole.contains(id) && whole.contains(&"é".repeat(90)), "{whole}");
        let narrow = aligned(&table, Some(60));
        let longest = narrow.lines().map(|line| line.chars().count()).max();
        assert_eq!(longest, Some(60), "{narrow}");
        assert!(narrow.contains(&id[..8]) && narrow.contains('…'), "{narrow}");
        // Nothing is made narrower than ten characters, however small the terminal is.
        assert!(aligned(&table, Some(1)).contains("0b9f1c7e-…  failed  ééééééééé…"));
        assert_eq!(aligned(&table, Some(1_000)), whole);
    }
}
