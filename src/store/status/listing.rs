//! Lists by pages, newest first. A page begins at a row's key (no OFFSET), so that a page costs the same anywhere
//! in the list. Each filter has an index that ends in the key.

use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};

use super::{BatchSummary, Delivery, Event, JobSummary};
use crate::base::clock::Timestamp;
use crate::domain::alert::AlertKind;
use crate::domain::batch::{BatchState, Stage};
use crate::domain::job::{JobStatus, LotStatus};
use crate::store::alerts::AlertRow;
use crate::store::audit::ActionRow;
use crate::store::{Stored, View};

/// Rows of a page.
pub const PAGE_ROWS: usize = 50;

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// At the first row.
    Start,
    /// After the row with this key, in the order of the list.
    After(i64),
    /// So that it ends before the row with this key.
    Before(i64),
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Its rows.
    pub rows: Vec<T>,
    /// The key after which the next page begins; `None` on the last page.
    pub next: Option<i64>,
    /// The key before which the previous page ends; `None` on the first page.
    pub previous: Option<i64>,
}

/// The order of a list by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

impl Order {
    fn reversed(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }

    /// How the key compares with that of the row before, and the word for the order.
    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Ascending => (">", "ASC"),
            Self::Descending => ("<", "DESC"),
        }
    }
}

/// A list: its columns and table, the key of its order, the conditions of its filters.
struct List {
    select: &'static str,
    key: &'static str,
    order: Order,
    conditions: Vec<(&'static str, Value)>,
}

impl List {
    fn new(select: &'static str, key: &'static str) -> Self {
        Self {
            select,
            key,
            order: Order::Descending,
            conditions: Vec::new(),
        }
    }

    /// Adds a condition with one `?`, if its value is given.
    fn when<V: ToString>(mut self, condition: &'static str, value: Option<V>) -> Self {
        let value = value.map(|value| (condition, Value::Text(value.to_string())));
        self.conditions.extend(value);
        self
    }

    fn sql(&self, cursor: Cursor) -> (String, Vec<Value>) {
        let (order, bound) = match cursor {
            Cursor::Start => (self.order, None),
            Cursor::After(key) => (self.order, Some(key)),
            Cursor::Before(key) => (self.order.reversed(), Some(key)),
        };
        let (compares, word) = order.sql();
        let mut conditions: Vec<String> = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        for (condition, value) in &self.conditions {
            values.push(value.clone());
            conditions.push(condition.replace('?', &format!("?{}", values.len())));
        }
        if let Some(key) = bound {
            values.push(Value::Integer(key));
            conditions.push(format!("{} {compares} ?{}", self.key, values.len()));
        }
        let condition = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        let (select, key) = (self.select, self.key);
        let sql = format!(
            "{select}{condition} ORDER BY {key} {word} LIMIT {}",
            PAGE_ROWS + 1
        );
        (sql, values)
    }

    fn read<T>(
        &self,
        view: &View,
        cursor: Cursor,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Stored<Page<T>> {
        let (sql, values) = self.sql(cursor);
        let mut query = view.prepare_cached(&sql)?;
        let keyed = query.query_and_then(params_from_iter(values), |row| {
            Ok((row.get::<_, i64>("page_key")?, read(row)?))
        })?;
        let mut keyed: Vec<(i64, T)> = view.readable(keyed).collect::<Result<_, _>>()?;
        let has_more = keyed.len() > PAGE_ROWS;
        keyed.truncate(PAGE_ROWS);
        let is_backward = matches!(cursor, Cursor::Before(_));
        if is_backward {
            keyed.reverse();
        }
        let first = keyed.first().map(|(key, _)| *key);
        let last = keyed.last().map(|(key, _)| *key);
        let (previous, next) = match cursor {
            Cursor::Start => (None, last.filter(|_| has_more)),
            Cursor::After(_) => (first, last.filter(|_| has_more)),
            Cursor::Before(_) => (first.filter(|_| has_more), last),
        };
        Ok(Page {
            rows: keyed.into_iter().map(|(_, row)| row).collect(),
            next,
            previous,
        })
    }
}

/// Which jobs a list shows.
#[derive(Clone, Debug, Default)]
pub struct JobsFilter {
    /// Their status.
    pub status: Option<JobStatus>,
    /// Their client.
    pub client: Option<String>,
    /// They were accepted at this time or later.
    pub since: Option<Timestamp>,
    /// A value of the client's metadata.
    pub metadata: Option<String>,
}

fn jobs(filter: &JobsFilter) -> List {
    let list = match &filter.metadata {
        None => List::new("SELECT *, seq AS page_key FROM batch_jobs", "seq"),
        // The order of the join is given: the index of the values ends in the key of the page.
        Some(_) => List::new(
            "SELECT j.*, m.job AS page_key FROM job_metadata m CROSS JOIN batch_jobs j ON j.seq = m.job",
            "m.job",
        ),
    };
    let is_first = "m.value = ? AND m.key = (SELECT min(key) FROM job_metadata o WHERE o.job = m.job AND o.value = m.value)";
    list.when(is_first, filter.metadata.as_ref())
        .when("status = ?", filter.status)
        .when("client = ?", filter.client.as_ref())
        .when(
            "seq >= (SELECT seq FROM batch_jobs WHERE created_at >= ? ORDER BY created_at LIMIT 1)",
            filter.since,
        )
}

/// A page of jobs, newest first.
pub fn jobs_page(view: &View, filter: &JobsFilter, cursor: Cursor) -> Stored<Page<JobSummary>> {
    jobs(filter).read(view, cursor, JobSummary::read)
}

/// Which batches a list shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchesFilter {
    /// Their state.
    pub state: Option<BatchState>,
    /// Their stage.
    pub stage: Option<Stage>,
    /// They were made at this time or later.
    pub since: Option<Timestamp>,
}

fn batches(filter: &BatchesFilter) -> List {
    List::new("SELECT *, id AS page_key FROM openai_batches", "id")
        .when("state = ?", filter.state)
        .when("stage = ?", filter.stage)
        .when(
            "id >= (SELECT id FROM openai_batches WHERE created_at >= ? ORDER BY created_at LIMIT 1)",
            filter.since,
        )
}

/// A page of batches, newest first.
pub fn batches_page(view: &View, filter: &BatchesFilter, cursor: Cursor) -> Stored<Page<BatchSummary>> {
    batches(filter).read(view, cursor, BatchSummary::read)
}

/// Which webhook deliveries a list shows.
#[derive(Clone, Debug, Default)]
pub struct DeliveriesFilter {
    /// Their state.
    pub state: Option<String>,
    /// The receiver's host and port.
    pub receiver: Option<String>,
    /// They were made at this time or later.
    pub since: Option<Timestamp>,
}

fn deliveries(filter: &DeliveriesFilter) -> List {
    let select = "SELECT *, coalesce(delivered_at, next_at) AS at, id AS page_key FROM webhook_deliveries";
    List::new(select, "id")
        .when("state = ?", filter.state.as_ref())
        .when("host = ?", filter.receiver.as_ref())
        .when(
            "id >= (SELECT id FROM webhook_deliveries WHERE created_at >= ? ORDER BY created_at LIMIT 1)",
            filter.since,
        )
}

/// A page of webhook deliveries, newest first.
pub fn deliveries_page(view: &View, filter: &DeliveriesFilter, cursor: Cursor) -> Stored<Page<Delivery>> {
    deliveries(filter).read(view, cursor, Delivery::read)
}

/// Which closed alerts a list shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlertsFilter {
    /// Their kind.
    pub kind: Option<AlertKind>,
    /// They were opened at this time or later.
    pub since: Option<Timestamp>,
}

fn closed_alerts(filter: &AlertsFilter) -> List {
    let mut list = List::new("SELECT *, id AS page_key FROM alerts", "id")
        .when("kind = ?", filter.kind)
        .when("opened_at >= ?", filter.since);
    list.conditions
        .push(("closed_at >= ?", Value::Text(String::new())));
    list
}

/// A page of closed alerts, newest first.
pub fn closed_alerts_page(view: &View, filter: &AlertsFilter, cursor: Cursor) -> Stored<Page<AlertRow>> {
    closed_alerts(filter).read(view, cursor, AlertRow::read)
}

/// Which events a list shows.
#[derive(Clone, Debug, Default)]
pub struct EventsFilter {
    /// Their kind.
    pub kind: Option<String>,
    /// They happened at this time or later.
    pub since: Option<Timestamp>,
}

fn events(filter: &EventsFilter) -> List {
    List::new("SELECT *, id AS page_key FROM events", "id")
        .when("kind = ?", filter.kind.as_ref())
        .when(
            "id >= (SELECT id FROM events WHERE at >= ? ORDER BY at LIMIT 1)",
            filter.since,
        )
}

/// A page of events, newest first.
pub fn events_page(view: &View, filter: &EventsFilter, cursor: Cursor) -> Stored<Page<Event>> {
    events(filter).read(view, cursor, Event::read)
}

fn operator_actions(subject: Option<&str>) -> List {
    List::new("SELECT *, id AS page_key FROM operator_actions", "id").when("subject = ?", subject)
}

/// A page of the changes that persons made, of one subject if it is given, newest first.
pub fn operator_actions_page(view: &View, subject: Option<&str>, cursor: Cursor) -> Stored<Page<ActionRow>> {
    operator_actions(subject).read(view, cursor, ActionRow::read)
}

/// A lot in a list.
#[derive(Clone, Debug)]
pub struct LotSummary {
    /// Its job.
    pub job: String,
    /// Its place in the job, from 0.
    pub position: i64,
    /// The client's id of it.
    pub id: String,
    /// The client's own name of it.
    pub reference: Option<String>,
    /// Its state.
    pub status: LotStatus,
    /// How many images it has.
    pub images: u64,
    /// How many of them cannot be used.
    pub missing_images: u64,
    /// Why it failed.
    pub error: Option<String>,
    /// When it ended.
    pub processed_at: Option<Timestamp>,
}

impl LotSummary {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            job: row.get("batch_job_id")?,
            position: row.get("position")?,
            id: row.get("lot_id")?,
            reference: row.get("reference")?,
            status: row.get("status")?,
            images: row.get("image_count")?,
            missing_images: row.get("missing_count")?,
            error: row.get("error_message")?,
            processed_at: row.get("processed_at")?,
        })
    }
}

/// The columns of [`LotSummary`].
pub(super) const LOT_COLUMNS: &str =
    "batch_job_id, position, lot_id, reference, status, error_message, processed_at,
    json_array_length(images) AS image_count,
    coalesce(json_array_length(missing_images), 0) AS missing_count";

fn lots(job: &str, status: Option<LotStatus>) -> List {
    const SELECT: &str = "SELECT batch_job_id, position, lot_id, reference, status, error_message, processed_at,
        json_array_length(images) AS image_count,
        coalesce(json_array_length(missing_images), 0) AS missing_count, position AS page_key FROM batch_lots";
    let mut list = List::new(SELECT, "position")
        .when("batch_job_id = ?", Some(job))
        .when("status = ?", status);
    list.order = Order::Ascending;
    list
}

/// A page of the lots of a job, in their order.
pub fn lots_page(
    view: &View,
    job: &str,
    status: Option<LotStatus>,
    cursor: Cursor,
) -> Stored<Page<LotSummary>> {
    lots(job, status).read(view, cursor, LotSummary::read)
}

/// A line of a batch.
#[derive(Clone, Debug)]
pub struct BatchLine {
    /// The job of its lot.
    pub job: String,
    /// The lot's place in the job.
    pub position: i64,
    /// The client's id of the lot.
    pub lot: String,
    /// The language; empty in the vision stage.
    pub language: String,
    /// Its outcome; `None` if it is not ingested.
    pub outcome: Option<String>,
    /// OpenAI's error.
    pub error: Option<String>,
    /// Input and output tokens.
    pub tokens: u64,
}

impl BatchLine {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            job: row.get("batch_job_id")?,
            position: row.get("position")?,
            lot: row.get("lot_id")?,
            language: row.get("language")?,
            outcome: row.get("outcome")?,
            error: row.get("error")?,
            tokens: row.get("tokens")?,
        })
    }
}

fn lines(batch: i64) -> List {
    let select = "SELECT t.batch_job_id, t.position, t.lot_id, r.language, l.outcome, l.error,
            l.input_tokens + l.output_tokens AS tokens, l.request_id AS page_key
        FROM batch_lines l JOIN requests r ON r.id = l.request_id JOIN batch_lots t ON t.id = r.lot";
    let mut list = List::new(select, "l.request_id");
    list.conditions.push(("l.batch_id = ?", Value::Integer(batch)));
    list.order = Order::Ascending;
    list
}

/// A page of the lines of a batch, in the order of its input file.
pub fn lines_page(view: &View, batch: i64, cursor: Cursor) -> Stored<Page<BatchLine>> {
    lines(batch).read(view, cursor, BatchLine::read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn store() -> (tempfile::TempDir, Store, Timestamp) {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_seconds(1_795_400_000);
        let store = Store::open(&folder.path().join("a.db"), now).expect("a store");
        (folder, store, now)
    }

    /// Every list with its filters: none reads a table whole, or sorts it.
    #[test]
    fn no_page_reads_a_whole_table() {
        let (_folder, store, now) = store();
        let since = Some(now);
        let job = |status, client: Option<&str>, since| {
            jobs(&JobsFilter {
                status,
                client: client.map(str::to_owned),
                since,
                metadata: None,
            })
        };
        let by_metadata = |status| {
            jobs(&JobsFilter {
                status,
                client: Some("shop".into()),
                since,
                metadata: Some("order 7".into()),
            })
        };
        let failed = Some(JobStatus::Failed);
        let delivery = |state: Option<&str>, receiver: Option<&str>, since| {
            deliveries(&DeliveriesFilter {
                state: state.map(str::to_owned),
                receiver: receiver.map(str::to_owned),
                since,
            })
        };
        let batch = |state, stage, since| batches(&BatchesFilter { state, stage, since });
        let event = |kind: Option<&str>, since| {
            events(&EventsFilter {
                kind: kind.map(str::to_owned),
                since,
            })
        };
        let lists = [
            job(None, None, None),
            job(failed, None, None),
            job(None, Some("shop"), None),
            job(failed, Some("shop"), since),
            job(None, None, since),
            by_metadata(None),
            by_metadata(failed),
            delivery(None, None, None),
            delivery(Some("failed"), None, since),
            delivery(None, Some("a.example:443"), None),
            delivery(Some("failed"), Some("a.example:443"), None),
            batch(None, None, None),
            batch(Some(BatchState::Failed), Some(Stage::Vision), since),
            event(None, None),
            event(Some("retried"), None),
            event(None, since),
            lines(7),
            operator_actions(None),
            operator_actions(Some("intake")),
            lots("x", None),
            lots("x", Some(LotStatus::Failed)),
        ];
        for list in lists {
            for cursor in [Cursor::Start, Cursor::After(7), Cursor::Before(7)] {
                let (sql, values) = list.sql(cursor);
                let plan = plan(&store, &sql, values);
                let walks_in_order = list.conditions.is_empty() && cursor == Cursor::Start;
                let scans = plan.iter().filter(|step| step.starts_with("SCAN"));
                assert_eq!(scans.count(), usize::from(walks_in_order), "{sql}: {plan:?}");
                let sorts = plan.iter().any(|step| step.contains("TEMP B-TREE"));
                // The lots of one job with one status are sorted by position: they are few.
                assert!(
                    !sorts || sql.contains("status = ?2") && sql.contains("batch_lots"),
                    "{sql}: {plan:?}"
                );
            }
        }
    }

    fn plan(store: &Store, sql: &str, values: Vec<Value>) -> Vec<String> {
        store
            .read(|view| {
                let mut query = view.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let steps =
                    query.query_map(params_from_iter(values), |row| row.get::<_, String>("detail"))?;
                Ok(steps.collect::<Result<_, _>>()?)
            })
            .expect(sql)
    }

    #[test]
    fn pages_lead_forth_and_back() {
        let (_folder, store, now) = store();
        store
            .write(now, |tx| {
                for number in 0..120 {
                    let kind = if number % 2 == 0 { "even" } else { "odd" };
                    tx.execute(
                        "INSERT INTO events (at, kind, detail) VALUES (?, ?, ?)",
                        rusqlite::params![now, kind, number.to_string()],
                    )?;
                }
                Ok(())
            })
            .expect("events");
        let page = |cursor| {
            store
                .read(|view| events_page(view, &EventsFilter::default(), cursor))
                .expect("a page")
        };
        let numbers = |page: &Page<Event>| -> (String, String, usize) {
            let detail = |event: Option<&Event>| event.expect("a row").detail.clone();
            (
                detail(page.rows.first()),
                detail(page.rows.last()),
                page.rows.len(),
            )
        };
        let first = page(Cursor::Start);
        assert_eq!(numbers(&first), ("119".into(), "70".into(), 50));
        assert_eq!(first.previous, None);
        let second = page(Cursor::After(first.next.expect("more")));
        assert_eq!(numbers(&second), ("69".into(), "20".into(), 50));
        let third = page(Cursor::After(second.next.expect("more")));
        assert_eq!(
            (numbers(&third), third.next),
            (("19".into(), "0".into(), 20), None)
        );
        let back = page(Cursor::Before(third.previous.expect("earlier ones")));
        assert_eq!(numbers(&back), numbers(&second));
        let start = page(Cursor::Before(back.previous.expect("earlier ones")));
        assert_eq!((numbers(&start), start.previous), (numbers(&first), None));
        let odd = EventsFilter {
            kind: Some("odd".into()),
            since: None,
        };
        let odd = store
            .read(|view| events_page(view, &odd, Cursor::Start))
            .expect("a page");
        assert_eq!(numbers(&odd), ("119".into(), "21".into(), 50));
    }
}
