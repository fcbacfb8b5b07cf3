//! Rows with a value that this program cannot read: a time, a list or a number that was changed by hand.
//!
//! A query of a worker's queue sets such a row aside: it is left out, and the others are read. The store then
//! says that the rows must be found, and the auditor reports each with its column. `doctor` always looks.

use super::inspect::{cell, plain};
use super::times::{TIMES, Times, is_time};
use super::{StoreError, Stored, View};
use crate::domain::alert::{AlertCause, AlertKind, AlertSubject};

/// The most rows of a table that are found.
const MOST: u32 = 20;
/// The columns with a JSON list that no CHECK holds. The elements are texts, or objects.
const LISTS: [(&str, &str, &str, &str); 4] = [
    ("batch_jobs", "t.id", "languages", "text"),
    ("batch_lots", "t.id", "images", "text"),
    ("batch_lots", "t.id", "missing_images", "text"),
    ("openai_batches", "t.id", "openai_errors", "object"),
];

/// A value that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableValue {
    /// Its table.
    pub table: String,
    /// Its row, by the key of the table.
    pub row: String,
    /// Its column.
    pub column: String,
    /// The value.
    pub value: String,
}

impl UnreadableValue {
    /// The problem, without table and row.
    pub fn finding(&self) -> String {
        let Self { column, value, .. } = self;
        format!("{column} is {value:?}, which cannot be read")
    }

    /// The cause of the alert.
    pub fn cause(&self) -> AlertCause {
        let Self {
            table, row, column, ..
        } = self;
        let message = format!(
            "{table} row {row}: {}. The row is set aside, and everything else goes on. Write the value again: a time \
             has the form strftime('%Y-%m-%dT%H:%M:%fZ', 'now'). See: batchkeeper doctor",
            self.finding()
        );
        let subject = AlertSubject::Named(format!("{table} {row} {column}"));
        AlertCause { subject, message }
    }
}

impl View<'_> {
    /// The rows that can be read. The others are set aside.
    pub(super) fn readable<T>(
        &self,
        rows: impl Iterator<Item = Stored<T>>,
    ) -> impl Iterator<Item = Stored<T>> {
        rows.filter(|row| !self.is_unreadable(row))
    }

    /// A value that a rule can do without; `None` if it cannot be read.
    pub(super) fn readable_value<T>(&self, value: rusqlite::Result<Option<T>>) -> Stored<Option<T>> {
        let value = value.map_err(StoreError::from);
        match self.is_unreadable(&value) {
            true => Ok(None),
            false => value,
        }
    }

    fn is_unreadable<T>(&self, value: &Stored<T>) -> bool {
        let is_unreadable = matches!(value, Err(StoreError::Unreadable(_)));
        if is_unreadable {
            self.note_skipped_row();
        }
        is_unreadable
    }
}

/// Every value that cannot be read, up to [`MOST`] of each table. Unknown states are left to `v_bad_states`.
pub fn find(view: &View) -> Stored<Vec<UnreadableValue>> {
    let mut found = Vec::new();
    for Times {
        table,
        row,
        compared,
        others,
    } in &TIMES
    {
        let times = compared.iter().chain(*others).copied();
        let numbers = numbers(view, table)?;
        let columns = times.chain(numbers.iter().map(String::as_str));
        let columns: Vec<String> = columns.map(|name| format!("'{name}', t.{name}")).collect();
        let bad = format!(
            "iif(typeof(c.value) = 'text', NOT ({}), c.value < 0)",
            is_time("c.value")
        );
        let from = format!("{table} t, json_each(json_object({})) c", columns.join(", "));
        found.extend(find_where(view, table, row, "c.key", "c.value", &from, &bad)?);
    }
    for (table, row, column, element) in LISTS {
        let value = format!("t.{column}");
        let bad = format!(
            "iif(json_valid({value}), json_type({value}) <> 'array'
                 OR EXISTS (SELECT 1 FROM json_each({value}) e WHERE e.type <> '{element}'), TRUE)"
        );
        let name = format!("'{column}'");
        found.extend(find_where(
            view,
            table,
            row,
            &name,
            &value,
            &format!("{table} t"),
            &bad,
        )?);
    }
    let kinds = AlertKind::ALL.iter().map(|kind| format!("'{kind}'"));
    let bad = format!("t.kind NOT IN ({})", kinds.collect::<Vec<_>>().join(", "));
    found.extend(find_where(
        view, "alerts", "t.id", "'kind'", "t.kind", "alerts t", &bad,
    )?);
    Ok(found)
}

/// The columns of a table that hold whole numbers. None of them is ever below 0.
fn numbers(view: &View, table: &str) -> Stored<Vec<String>> {
    let mut query = view.prepare("SELECT name FROM pragma_table_info(?) WHERE type = 'INTEGER'")?;
    let names = query.query_map([table], |row| row.get("name"))?;
    Ok(names.collect::<Result<_, _>>()?)
}

fn find_where(
    view: &View,
    table: &str,
    row: &str,
    column: &str,
    value: &str,
    from: &str,
    bad: &str,
) -> Stored<Vec<UnreadableValue>> {
    let mut query = view.prepare(&format!(
        "SELECT {row}, {column}, {value} FROM {from} WHERE {value} IS NOT NULL AND {bad} LIMIT {MOST}"
    ))?;
    let found = query.query_map([], |row| {
        let text = |at: usize| row.get_ref(at).map(|value| plain(&cell(value)));
        Ok(UnreadableValue {
            table: table.to_owned(),
            row: text(0)?,
            column: text(1)?,
            value: text(2)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}
