//! What the earlier service left: its dump, its batches' metadata and custom ids.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::batch::Stage;
use crate::clock::Timestamp;
use crate::job::JobStatus;

/// Tables that are read.
const JOBS: &str = "batch_jobs";
const LOTS: &str = "batch_lots";
/// Columns of theirs that are read, or known not to be needed.
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

/// A job of the earlier service.
#[derive(Clone, Debug)]
pub struct LegacyJob {
    /// Its UUID, lower case.
    pub id: String,
    /// As it stood.
    pub status: JobStatus,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Batches that it names, in whichever column; nobody has confirmed them.
    pub batches: Vec<String>,
    /// Languages wanted.
    pub languages: Vec<String>,
    /// Its webhook.
    pub webhook_url: Option<String>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// What it says of its number of lots.
    pub total_lots: u32,
    /// Its lots, in the dump's order.
    pub lots: Vec<LegacyLot>,
}

/// A lot of the earlier service.
#[derive(Clone, Debug)]
pub struct LegacyLot {
    /// Not unique in the job, there.
    pub lot_id: String,
    /// The seller's text.
    pub additional_info: String,
    /// Image URLs.
    pub images: Vec<String>,
    /// Those of them that could not be fetched.
    pub missing_images: Vec<String>,
    /// The description, where it is one.
    pub vision_result: Option<String>,
    /// Texts by language.
    pub translations: BTreeMap<String, String>,
    /// Why it failed.
    pub error_message: Option<String>,
}

/// What a dump holds, and what of it is not taken.
#[derive(Debug, Default)]
pub struct Dump {
    /// Jobs with their lots.
    pub jobs: Vec<LegacyJob>,
    /// Rows read, by table.
    pub read: BTreeMap<String, usize>,
    /// Refused rows with their reasons.
    pub refused: Vec<String>,
    /// Tables and columns that are passed over.
    pub notes: Vec<String>,
}

/// Reads a dump.
///
/// # Errors
/// When it is no JSON object of lists.
pub fn parse_dump(text: &[u8]) -> Result<Dump, String> {
    let tables: Map<String, Value> = serde_json::from_slice(text)
        .map_err(|error| format!("the dump is no JSON object: {error}"))?;
    let mut dump = Dump::default();
    let mut jobs: Vec<LegacyJob> = Vec::new();
    let mut places = HashMap::new();
    for row in rows(&tables, JOBS, &JOB_COLUMNS, &mut dump)? {
        match job(row) {
            Ok(job) if places.contains_key(&job.id) => {
                dump.refused.push(format!("job {}: there twice", job.id))
            }
            Ok(job) => {
                places.insert(job.id.clone(), jobs.len());
                jobs.push(job);
            }
            Err(why) => dump.refused.push(format!(
                "job {}: {why}",
                row.get("id").unwrap_or(&Value::Null)
            )),
        }
    }
    for row in rows(&tables, LOTS, &LOT_COLUMNS, &mut dump)? {
        let place = text_of(row, "batch_job_id").and_then(|id| places.get(&id.to_lowercase()));
        match (place, lot(row)) {
            (Some(place), Ok(lot)) => jobs[*place].lots.push(lot),
            (Some(_), Err(why)) => dump.refused.push(format!(
                "lot {}: {why}",
                row.get("lot_id").unwrap_or(&Value::Null)
            )),
            (None, _) => {
                let ids = (
                    row.get("lot_id").unwrap_or(&Value::Null),
                    row.get("batch_job_id").unwrap_or(&Value::Null),
                );
                dump.refused
                    .push(format!("lot {}: its job {} was not taken", ids.0, ids.1));
            }
        }
    }
    for (table, rows) in &tables {
        if table != JOBS && table != LOTS {
            let number = rows.as_array().map_or(0, Vec::len);
            let meaning = match table.as_str() {
                "batch_results" => {
                    ": results are taken from batch_lots, and a lot without a text there has none here"
                }
                "webhook_deliveries" => {
                    ": open jobs get deliveries of their own, of final ones nothing is told again"
                }
                _ => "",
            };
            dump.notes.push(format!(
                "table {table} with {number} rows is passed over{meaning}"
            ));
        }
    }
    for job in jobs {
        match lack_of_lots(&job) {
            Some(lack) if job.lots.is_empty() && !job.status.is_final() => dump.refused.push(lack),
            lack => {
                dump.notes.extend(lack);
                dump.jobs.push(job);
            }
        }
    }
    Ok(dump)
}

/// What is said of a job of which the dump holds fewer lots than the job counts. An open job with no
/// lot at all would have nothing left to do, and so be "completed" without a result.
fn lack_of_lots(job: &LegacyJob) -> Option<String> {
    let (there, said) = (job.lots.len(), job.total_lots);
    let lacks = there == 0 || u32::try_from(there).is_ok_and(|there| there < said);
    lacks.then(|| format!("job {}: {there} of its {said} lots are in the dump", job.id))
}

fn rows<'t>(
    tables: &'t Map<String, Value>,
    name: &str,
    known: &[&str],
    dump: &mut Dump,
) -> Result<Vec<&'t Map<String, Value>>, String> {
    let list = match tables.get(name) {
        None | Some(Value::Null) => {
            dump.notes.push(format!("table {name} is not in the dump"));
            return Ok(Vec::new());
        }
        Some(Value::Array(list)) => list,
        Some(_) => return Err(format!("{name} is no list of rows")),
    };
    dump.read.insert(name.to_owned(), list.len());
    let mut rows = Vec::with_capacity(list.len());
    for row in list {
        let Value::Object(row) = row else {
            dump.refused.push(format!("{name}: a row is no object"));
            continue;
        };
        for column in row
            .keys()
            .filter(|column| !known.contains(&column.as_str()))
        {
            let note = format!("column {name}.{column} is not known and passed over");
            if !dump.notes.contains(&note) {
                dump.notes.push(note);
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

fn text_of<'r>(row: &'r Map<String, Value>, column: &str) -> Option<&'r str> {
    row.get(column)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// A column of JSON: as it is, or as a text that holds it.
fn json_of(row: &Map<String, Value>, column: &str) -> Value {
    match row.get(column) {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
        Some(value) => value.clone(),
        None => Value::Null,
    }
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Image URLs: plain, or in objects as a submission has them.
fn images(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    let url = |item: &Value| Some(item.as_str().or(item["url"].as_str())?.to_owned());
    items.filter_map(url).collect()
}

fn job(row: &Map<String, Value>) -> Result<LegacyJob, String> {
    let id = text_of(row, "id").ok_or("it has no id")?.to_lowercase();
    uuid::Uuid::parse_str(&id)
        .ok()
        .filter(|_| id.len() == 36)
        .ok_or("its id is no UUID")?;
    let status = text_of(row, "status").ok_or("it has no status")?;
    let status = status
        .to_lowercase()
        .parse::<JobStatus>()
        .map_err(|error| format!("{:?} is no status of a job", error.text))?;
    let created_at = time(text_of(row, "created_at").ok_or("it has no created_at")?)?;
    let updated_at = text_of(row, "updated_at").map_or(Ok(created_at), time)?;
    let mut batches = Vec::new();
    for column in [
        "openai_vision_batch_id",
        "openai_batch_id",
        "openai_translation_batch_id",
    ] {
        if let Some(batch) =
            text_of(row, column).filter(|batch| !batches.iter().any(|known| known == batch))
        {
            batches.push(batch.to_owned());
        }
    }
    let mut languages = texts(&json_of(row, "languages"));
    if languages.is_empty() {
        languages.push("en".to_owned());
    }
    Ok(LegacyJob {
        id,
        status,
        created_at,
        updated_at,
        batches,
        languages,
        webhook_url: text_of(row, "webhook_url").map(str::to_owned),
        error_message: text_of(row, "error_message").map(str::to_owned),
        total_lots: row
            .get("total_lots")
            .and_then(Value::as_u64)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        lots: Vec::new(),
    })
}

fn lot(row: &Map<String, Value>) -> Result<LegacyLot, String> {
    let translations = match json_of(row, "translations") {
        Value::Object(texts) => texts
            .into_iter()
            .filter_map(|(language, text)| {
                Some((
                    language,
                    text.as_str().filter(|text| is_text(text))?.to_owned(),
                ))
            })
            .collect(),
        _ => BTreeMap::new(),
    };
    Ok(LegacyLot {
        lot_id: lot_id(row).ok_or("it has no lot_id")?,
        additional_info: text_of(row, "additional_info").unwrap_or("").to_owned(),
        images: images(&json_of(row, "image_urls")),
        missing_images: texts(&json_of(row, "missing_images")),
        vision_result: text_of(row, "vision_result")
            .filter(|text| is_text(text))
            .map(str::to_owned),
        translations,
        error_message: text_of(row, "error_message").map(str::to_owned),
    })
}

/// A lot's id: an integer is taken as its text, as in a submission.
fn lot_id(row: &Map<String, Value>) -> Option<String> {
    match row.get("lot_id") {
        Some(Value::Number(number)) if !number.is_f64() => Some(number.to_string()),
        _ => text_of(row, "lot_id").map(str::to_owned),
    }
}

/// The earlier service stored the answer's formatting options as a description, at times.
fn is_text(text: &str) -> bool {
    let packed: String = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| if c == '\'' { '"' } else { c })
        .collect();
    !packed.is_empty() && !packed.starts_with("{\"format\":{\"type\":")
}

/// A time of its tables: no zone, UTC; `T` or a space between date and time.
fn time(text: &str) -> Result<Timestamp, String> {
    let text = text.trim().replacen(' ', "T", 1);
    let zoned = text
        .parse()
        .or_else(|_| format!("{text}Z").parse::<Timestamp>());
    zoned.map_err(|_| format!("{text:?} is no time"))
}

/// The custom ids under which the earlier service asked for a lot's description, or its text in a
/// language. (Lot ids may hold colons: ids are made and compared, never taken apart.)
pub fn custom_ids(job_id: &str, lot_id: &str, language: Option<&str>) -> [String; 2] {
    match language {
        None => [
            format!("vision:{lot_id}"),
            format!("vision:{job_id}:{lot_id}"),
        ],
        Some(language) => [
            format!("tr:{lot_id}:{language}"),
            format!("translate:{job_id}:{lot_id}:{language}"),
        ],
    }
}

/// The stage and the job that a batch's description names.
pub fn described(description: &str) -> Option<(Stage, String)> {
    let forms = [
        ("Vision processing for job ", Stage::Vision),
        ("Translation processing for job ", Stage::Translation),
        ("Translation for job ", Stage::Translation),
    ];
    let (job, stage) = forms
        .iter()
        .find_map(|(form, stage)| Some((description.strip_prefix(form)?, *stage)))?;
    let job = uuid::Uuid::parse_str(job.trim()).ok()?;
    Some((stage, job.hyphenated().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_read_with_its_gaps() {
        let dump = parse_dump(
            br#"{"batch_jobs": [
                    {"id": "6908F1D2-39b9-4721-bb8a-dba18120df5f", "status": "processing", "created_at": "2025-08-06T14:02:11",
                     "openai_batch_id": null, "languages": ["en", "ru"], "webhook_url": null, "total_lots": 1, "colour": 1},
                    {"id": "nonsense", "status": "processing", "created_at": "2025-08-06T14:02:11"}],
                 "batch_lots": [
                    {"batch_job_id": "6908f1d2-39b9-4721-bb8a-dba18120df5f", "lot_id": "A:1", "image_urls": "[\"https://a/1.jpg\"]",
                     "vision_result": "{'format': {'type': 'text'}}", "translations": {"ru": "x"}},
                    {"batch_job_id": "440874b8-0136-4170-a312-b1111a2de6c6", "lot_id": "B"}],
                 "users": [1, 2]}"#,
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
        let dump = parse_dump(text.as_bytes()).expect("a dump");
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
    fn descriptions_name_stage_and_job() {
        let job = "6908f1d2-39b9-4721-bb8a-dba18120df5f";
        for (form, stage) in [
            ("Vision processing", Stage::Vision),
            ("Translation", Stage::Translation),
        ] {
            assert_eq!(
                described(&format!("{form} for job {job}")),
                Some((stage, job.to_owned()))
            );
        }
        assert_eq!(described("Vision processing for job of ours"), None);
    }
}
