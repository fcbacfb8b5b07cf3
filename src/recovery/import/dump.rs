//! The dump of the earlier service's tables: a JSON object with a list of rows for each.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::row::{read_job, read_lot};
use crate::domain::legacy::{LegacyJob, LegacyLot};

/// The tables that the import reads.
const JOBS: &str = "batch_jobs";
const LOTS: &str = "batch_lots";
/// The columns that the import knows: those that it reads, and those that it does not need.
const JOB_COLUMNS: [&str; 15] = [
    "id",
    "status",
    "created_at",
    "updated_at",
    "openai_batch_id",
    "openai_vision_batch_id",
    "openai_translation_batch_id",
    "languages",
    "webhook_url",
    "total_lots",
    "processed_lots",
    "failed_lots",
    "error_message",
    "retry_count",
    "client",
];
const LOT_COLUMNS: [&str; 12] = [
    "id",
    "batch_job_id",
    "lot_id",
    "additional_info",
    "image_urls",
    "status",
    "vision_result",
    "translations",
    "error_message",
    "missing_images",
    "created_at",
    "updated_at",
];

/// The most bytes of a row. The largest lot that the earlier service kept has less than 1 MB.
const MAX_ROW: u64 = 16_000_000;
/// The most unknown columns that are noted.
const MAX_NOTED_COLUMNS: usize = 50;

/// The jobs of a dump, and a report on what was refused or ignored.
#[derive(Debug, Default)]
pub struct Dump {
    /// Jobs with their lots.
    pub jobs: Vec<LegacyJob>,
    /// Number of rows read, by table.
    pub read: BTreeMap<String, usize>,
    /// Refused rows with their reasons.
    pub refused: Vec<String>,
    /// Ignored tables and columns, and jobs with too few lots.
    pub notes: Vec<String>,
}

/// Reads a dump row by row; only what is imported stays in memory.
///
/// # Errors
/// When the dump is not a JSON object of lists, has neither table, or cannot be read.
pub fn read_dump(from: impl Read) -> Result<Dump, String> {
    let mut rows = Rows::default();
    let from = LimitedRows {
        from,
        left: rows.left.clone(),
    };
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(from));
    (&mut rows)
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| match error.classify() {
            Category::Io => error.to_string(),
            _ => format!("the dump is no JSON object of tables: {error}"),
        })?;
    match [JOBS, LOTS]
        .iter()
        .any(|table| rows.dump.read.contains_key(*table))
    {
        true => Ok(rows.into_dump()),
        false => Err(format!(
            "the file has neither a table {JOBS} nor a table {LOTS}: make a dump with contrib/export-legacy.sql"
        )),
    }
}

/// Reads a dump whose rows have at most [`MAX_ROW`] bytes, as a whole row is in memory.
struct LimitedRows<R> {
    from: R,
    /// Bytes that may come before the row ends.
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for LimitedRows<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        let left = self
            .left
            .get()
            .checked_sub(u64::try_from(count).unwrap_or(u64::MAX));
        let left = left.ok_or_else(|| io::Error::other(format!("a row has more than {MAX_ROW} bytes")))?;
        self.left.set(left);
        Ok(count)
    }
}

/// The rows of a dump while it is read. A lot may come before its job.
struct Rows {
    dump: Dump,
    jobs: Vec<LegacyJob>,
    /// Indexes into `jobs`, by the job's id.
    places: HashMap<String, usize>,
    lots: Vec<DumpedLot>,
    /// The unknown columns that are noted.
    unknown_columns: BTreeSet<(&'static str, String)>,
    /// Bytes that may come before the row ends.
    left: Rc<Cell<u64>>,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            dump: Dump::default(),
            jobs: Vec::new(),
            places: HashMap::new(),
            lots: Vec::new(),
            unknown_columns: BTreeSet::new(),
            left: Rc::new(Cell::new(MAX_ROW)),
        }
    }
}

/// A row of [`LOTS`].
struct DumpedLot {
    job: Value,
    lot_id: Value,
    lot: Result<LegacyLot, String>,
}

impl Rows {
    fn add_job(&mut self, row: &Map<String, Value>) {
        match read_job(row) {
            Ok(job) if self.places.contains_key(&job.id) => {
                let refused = format!("job {}: there twice", job.id);
                self.dump.refused.push(refused);
            }
            Ok(job) => {
                self.places.insert(job.id.clone(), self.jobs.len());
                self.jobs.push(job);
            }
            Err(why) => {
                let refused = format!("job {}: {why}", row.get("id").unwrap_or(&Value::Null));
                self.dump.refused.push(refused);
            }
        }
    }

    fn add_lot(&mut self, row: &Map<String, Value>) {
        let column = |name| row.get(name).cloned().unwrap_or(Value::Null);
        self.lots.push(DumpedLot {
            job: column("batch_job_id"),
            lot_id: column("lot_id"),
            lot: read_lot(row),
        });
    }

    /// Adds one note for each column that the import does not know, up to [`MAX_NOTED_COLUMNS`].
    fn note_columns(&mut self, table: &'static str, known: &[&str], row: &Map<String, Value>) {
        for column in row.keys().filter(|name| !known.contains(&name.as_str())) {
            if self.unknown_columns.len() == MAX_NOTED_COLUMNS {
                return;
            }
            if self.unknown_columns.insert((table, column.clone())) {
                let note = format!("column {table}.{column} is not known and ignored");
                self.dump.notes.push(note);
            }
        }
    }

    fn note_table(&mut self, table: &str) {
        let meaning = match table {
            "batch_results" => {
                ": results are read from batch_lots, and a lot without a text there has none here"
            }
            "webhook_deliveries" => {
                ": open jobs get deliveries of their own, and final jobs are not reported again"
            }
            _ => "",
        };
        let note = format!("table {table} is ignored{meaning}");
        self.dump.notes.push(note);
    }

    /// Gives each lot to its job, and refuses what cannot be imported.
    fn into_dump(mut self) -> Dump {
        for table in [JOBS, LOTS] {
            if !self.dump.read.contains_key(table) {
                let note = format!("table {table} is not in the dump");
                self.dump.notes.push(note);
            }
        }
        for DumpedLot { job, lot_id, lot } in self.lots {
            let id = job.as_str().map(str::to_lowercase);
            match (id.and_then(|id| self.places.get(&id)), lot) {
                (Some(place), Ok(lot)) => self.jobs[*place].lots.push(lot),
                (Some(_), Err(why)) => self.dump.refused.push(format!("lot {lot_id}: {why}")),
                (None, _) => self
                    .dump
                    .refused
                    .push(format!("lot {lot_id}: its job {job} was not imported")),
            }
        }
        for job in self.jobs {
            match note_on_missing_lots(&job) {
                Some(note) if job.lots.is_empty() && !job.status.is_final() => {
                    self.dump.refused.push(note);
                }
                note => {
                    self.dump.notes.extend(note);
                    self.dump.jobs.push(job);
                }
            }
        }
        self.dump
    }
}

impl<'de> DeserializeSeed<'de> for &mut Rows {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Rows {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tables")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut tables: A) -> Result<(), A::Error> {
        while let Some(name) = tables.next_key::<String>()? {
            let table = match name.as_str() {
                JOBS => Table {
                    name: JOBS,
                    columns: &JOB_COLUMNS,
                    add: Rows::add_job,
                    rows: self,
                },
                LOTS => Table {
                    name: LOTS,
                    columns: &LOT_COLUMNS,
                    add: Rows::add_lot,
                    rows: self,
                },
                _ => {
                    // It is not kept in memory.
                    self.left.set(u64::MAX);
                    tables.next_value::<IgnoredAny>()?;
                    self.left.set(MAX_ROW);
                    self.note_table(&name);
                    continue;
                }
            };
            tables.next_value_seed(table)?;
        }
        Ok(())
    }
}

/// Reads the rows of one table one by one.
struct Table<'r> {
    name: &'static str,
    columns: &'static [&'static str],
    add: fn(&mut Rows, &Map<String, Value>),
    rows: &'r mut Rows,
}

impl<'de> DeserializeSeed<'de> for Table<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Table<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as a list of rows", self.name)
    }

    /// A table without rows is `null`: PostgreSQL's `json_agg` writes it so.
    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(row) = list.next_element::<Box<RawValue>>()? {
            number += 1;
            self.rows.left.set(MAX_ROW);
            match serde_json::from_str(row.get()).map_err(A::Error::custom)? {
                Value::Object(row) => {
                    self.rows.note_columns(self.name, self.columns, &row);
                    (self.add)(self.rows, &row);
                }
                _ => {
                    let refused = format!("{}: a row is no object", self.name);
                    self.rows.dump.refused.push(refused);
                }
            }
        }
        self.rows.dump.read.insert(self.name.to_owned(), number);
        Ok(())
    }
}

/// The note on a job that counts more lots than the dump holds; `None` if no lot is missing. An open job
/// without any lot is refused: it would have nothing left to do, and be "completed" without a result.
fn note_on_missing_lots(job: &LegacyJob) -> Option<String> {
    let (there, said) = (job.lots.len(), job.total_lots);
    let lacks = there == 0 || u32::try_from(there).is_ok_and(|there| there < said);
    lacks.then(|| format!("job {}: {there} of its {said} lots are in the dump", job.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_read_with_its_gaps() {
        let dump = read_dump(
            &br#"{"batch_jobs": [
                    {"id": "6908F1D2-39b9-4721-bb8a-dba18120df5f", "status": "processing",
                     "created_at": "2025-08-06T14:02:11", "openai_batch_id": null, "languages": ["en", "ru"],
                     "webhook_url": null, "total_lots": 1, "colour": 1},
                    {"id": "nonsense", "status": "processing", "created_at": "2025-08-06T14:02:11"}],
                 "batch_lots": [
                    {"batch_job_id": "6908f1d2-39b9-4721-bb8a-dba18120df5f", "lot_id": "A:1",
                     "image_urls": "[\"https://a/1.jpg\"]",
                     "vision_result": "{'format': {'type': 'text'}}", "translations": {"ru": "x"}},
                    {"batch_job_id": "440874b8-0136-4170-a312-b1111a2de6c6", "lot_id": "B"}],
                 "users": [1, 2]}"#[..],
        )
        .expect("a dump");
        assert_eq!(
            (dump.jobs.len(), dump.refused.len(), dump.notes.len()),
            (1, 2, 2),
            "{dump:?}"
        );
        let job = &dump.jobs[0];
        assert_eq!(job.created_at.to_string(), "2025-08-06T14:02:11.000Z");
        assert_eq!(job.lots[0].images, ["https://a/1.jpg"]);
        assert_eq!(
            job.lots[0].vision_result, None,
            "formatting options are no description"
        );
        assert_eq!(job.lots[0].translations["ru"], "x");
    }

    #[test]
    fn an_open_job_without_lots_is_refused_and_a_gap_is_said() {
        let job = |digit: char, status: &str| {
            format!(
                r#"{{"id": "{digit}908f1d2-39b9-4721-bb8a-dba18120df5f", "status": "{status}",
                     "created_at": "2025-08-06 14:02:11.123456", "total_lots": 2}}"#
            )
        };
        let text = format!(
            r#"{{"batch_jobs": [{}, {}, {}], "batch_lots": [
                 {{"batch_job_id": "3908f1d2-39b9-4721-bb8a-dba18120df5f", "lot_id": 1234567890123}}]}}"#,
            job('1', "processing"),
            job('2', "failed"),
            job('3', "pending"),
        );
        let dump = read_dump(text.as_bytes()).expect("a dump");
        let taken: Vec<_> = dump.jobs.iter().map(|job| &job.id[..1]).collect();
        assert_eq!(taken, ["2", "3"]);
        assert_eq!(
            dump.refused,
            ["job 1908f1d2-39b9-4721-bb8a-dba18120df5f: 0 of its 2 lots are in the dump"]
        );
        assert_eq!(
            dump.notes,
            [
                "job 2908f1d2-39b9-4721-bb8a-dba18120df5f: 0 of its 2 lots are in the dump",
                "job 3908f1d2-39b9-4721-bb8a-dba18120df5f: 1 of its 2 lots are in the dump"
            ]
        );
        assert_eq!(dump.jobs[1].lots[0].lot_id, "1234567890123");
    }

    #[test]
    fn a_dump_that_is_made_to_exhaust_memory_is_refused() {
        let start = &b"{\"batch_lots\": [{\"vision_result\": \""[..];
        let error = read_dump(start.chain(io::repeat(b'A'))).expect_err("refused");
        assert!(error.contains("a row has more than"), "{error}");

        let columns: Vec<String> = (0..20_000).map(|number| format!("\"c{number}\": 1")).collect();
        let text = format!("{{\"batch_jobs\": [{{{}}}]}}", columns.join(","));
        let dump = read_dump(text.as_bytes()).expect("read");
        assert_eq!(
            dump.notes.len(),
            MAX_NOTED_COLUMNS + 1,
            "and one on the table that is missing"
        );

        // A large table that is ignored is no large row.
        let others = format!("{{\"logs\": \"{}\", \"batch_jobs\": []}}", "A".repeat(17_000_000));
        assert!(read_dump(others.as_bytes()).is_ok());
    }
}
