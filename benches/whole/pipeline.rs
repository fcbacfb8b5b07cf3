//! The stages of a large job: its input is built and uploaded, its results are ingested, read and
//! downloaded.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::appliance::Appliance;
use crate::bare;
use crate::client::{get, load, post, status_request};
use crate::openai::BareOpenAi;
use crate::rig::{self, Figure, Process, cell, job, megabytes, pause, percentiles, rate, submit, wait};

const LOTS: usize = 50_000;
const LINE: usize = 3000;
/// The prompt is so long that the input file has 190 MB.
const CONFIG: &str = "openai = { poll_interval = \"1s\" }\n[batch]\nmax_wait = \"1s\"\nmax_requests = 50000";

pub fn pipeline() -> Vec<Figure> {
    let mut figures = one_language();
    figures.extend(ten_languages());
    figures
}

/// The time between two timestamps of a batch.
fn between(database: &Path, from: &str, to: &str, stage: &str) -> Duration {
    let sql = format!(
        "SELECT CAST(round(sum(julianday({to}) - julianday({from})) * 86400000) AS INTEGER) FROM openai_batches WHERE stage = ?"
    );
    let milliseconds: i64 = cell(database, &sql, stage).unwrap();
    Duration::from_millis(milliseconds.unsigned_abs())
}

/// The time from the first spooled output to the outcome of the last line.
fn ingest_time(database: &Path, stage: &str) -> Duration {
    let sql = "SELECT CAST(round((julianday(max(b.ingested_at)) - julianday(min(e.at))) * 86400000) AS INTEGER)
               FROM openai_batches b JOIN events e ON e.batch_id = b.id AND e.kind = 'spooled' WHERE b.stage = ?";
    let milliseconds: i64 = cell(database, sql, stage).unwrap();
    Duration::from_millis(milliseconds.unsigned_abs())
}

fn count(database: &Path, state: &str) -> i64 {
    cell(
        database,
        "SELECT count(*) FROM openai_batches WHERE state = ?",
        state,
    )
    .unwrap()
}

/// One language, English: the vision batch alone.
fn one_language() -> Vec<Figure> {
    let openai = BareOpenAi::start(LINE);
    let prompt = "Describe the damage, part by part. ".repeat(83);
    let config = format!("{CONFIG}\n[vision]\nprompt = \"{prompt}\"");
    let appliance = rig::daemon(&openai, &config);
    let process = Process(appliance.daemon_id());
    let database = appliance.database();
    pause(Duration::from_secs(1));
    let idle = process.memory();
    submit(&appliance, &job(LOTS, &["en"], None));
    process.forget_peak();
    wait("the batch", || (count(&database, "submitted") == 1).then_some(()));
    let upload = openai.upload();
    let built = between(&database, "created_at", "submitted_at", "vision");
    let memory = process.peak().saturating_sub(idle);
    let reference = bare::upload(&database, &openai.input());
    let megabytes_sent = upload.bytes as f64 / 1e6;
    let mut figures = vec![
        Figure::against(
            &format!("build and upload a batch of 50,000 lines ({megabytes_sent:.0} MB)"),
            format!("{built:.2?}, of it on the wire {:.2?}", upload.took),
            built,
            reference,
        ),
        Figure::alone("additional memory during it", megabytes(memory)),
    ];

    let folder = tempfile::tempdir().unwrap();
    let mut copy = bare::copy(&database, &folder.path().join("copy.db"));
    let taken = Instant::now();
    process.forget_peak();
    let written = process.written();
    openai.complete();
    // The spooled file is deleted when it is ingested.
    let spooled = wait("the results", || spooled(&appliance, LOTS * LINE));
    wait("the end", || (count(&database, "ingested") == 1).then_some(()));
    let whole = taken.elapsed();
    let ours = ingest_time(&database, "vision");
    let written = process.written() - written;
    let memory = process.peak().saturating_sub(idle);
    let reference = bare::ingest(&mut copy, &spooled);
    figures.push(Figure::against(
        "ingest 50,000 results of 3 KB",
        format!(
            "{ours:.2?}, {:.0} lines/s; with poll and download {whole:.2?}",
            rate(LOTS, ours)
        ),
        ours,
        reference,
    ));
    figures.push(Figure::alone("additional memory during it", megabytes(memory)));
    let for_each = written as f64 / (LOTS * LINE) as f64;
    figures.push(Figure::alone(
        "written to disk during it, spool included",
        format!(
            "{}, {for_each:.1} bytes for each byte of results",
            megabytes(written / 1000)
        ),
    ));
    figures
}

/// The lines of the spooled output, once the file is complete.
fn spooled(appliance: &Appliance, bytes: usize) -> Option<Vec<Vec<u8>>> {
    let spool = appliance.database().with_file_name("spool");
    let mut files = fs::read_dir(spool).ok()?.map(|entry| entry.unwrap().path());
    let path = files.find(|path| path.to_string_lossy().ends_with(".output.jsonl"))?;
    let text = fs::read(path).ok().filter(|text| text.len() == bytes)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Some(lines.map(<[u8]>::to_vec).collect())
}

/// Ten languages: half a million translations while clients poll, then the download of the results.
fn ten_languages() -> Vec<Figure> {
    let languages = ["bg", "cs", "de", "es", "fr", "it", "lt", "pl", "ro", "uk"];
    let openai = BareOpenAi::start(LINE);
    let appliance = rig::daemon(&openai, CONFIG);
    let process = Process(appliance.daemon_id());
    let database = appliance.database();
    pause(Duration::from_secs(1));
    let idle = process.memory();
    openai.complete();
    let (id, _) = submit(&appliance, &job(LOTS, &languages, None));
    wait("the descriptions", || {
        (count(&database, "ingested") == 1).then(|| openai.hold())
    });
    let batches = |state: &str| usize::try_from(count(&database, state)).unwrap();
    wait("all translation batches", || {
        let made = openai.batches();
        (made > languages.len() && batches("submitted") + batches("ingested") == made).then_some(())
    });
    process.forget_peak();
    openai.complete();
    wait("the job's end", || {
        (!appliance.status(&id)["completed_at"].is_null()).then_some(())
    });
    let results = LOTS * languages.len();
    let ours = ingest_time(&database, "translation");
    let mut figures = vec![
        Figure::alone(
            "ingest 500,000 translations of 3 KB, including their downloads",
            format!("{ours:.1?}, {:.0} lines/s", rate(results, ours)),
        ),
        Figure::alone(
            "additional memory during it",
            megabytes(process.peak().saturating_sub(idle)),
        ),
    ];
    figures.extend(download(&appliance, &process, &id, idle));
    figures.push(polls_under_load(&appliance, &openai, &id));
    figures
}

/// Polls while the results of a large job are ingested and another job is submitted.
fn polls_under_load(appliance: &Appliance, openai: &BareOpenAi, id: &str) -> Figure {
    openai.hold();
    let batches = openai.batches();
    submit(appliance, &job(LOTS, &["en"], None));
    wait("its batch", || (openai.batches() > batches).then_some(()));
    let go_on = AtomicBool::new(true);
    let (mut times, took) = std::thread::scope(|scope| {
        let polls = scope.spawn(|| {
            let clients = vec![vec![status_request(id)]; 8];
            load(&appliance.api, clients, usize::MAX, 200, &go_on)
        });
        openai.complete();
        submit(appliance, &job(LOTS, &["en"], None));
        let live = "SELECT count(*) FROM batch_jobs WHERE completed_at IS NULL OR status = ?";
        wait("both", || {
            (cell::<i64>(&appliance.database(), live, "") == Some(0)).then_some(())
        });
        go_on.store(false, Ordering::Relaxed);
        polls.join().unwrap()
    });
    let [median, p99] = percentiles(&mut times);
    Figure::alone(
        "status polls while a job of 50,000 lots is submitted and the results of another are ingested, 8 clients",
        format!(
            "{:.0}/s, median {median:.1?}, p99 {p99:.1?}",
            rate(times.len(), took)
        ),
    )
}

fn download(appliance: &Appliance, process: &Process, job: &str, idle: u64) -> Vec<Figure> {
    wait("every batch to end", || {
        let live = "SELECT count(*) FROM openai_batches WHERE state NOT IN ('ingested', 'failed', ?)";
        (cell::<i64>(&appliance.database(), live, "") == Some(0)).then_some(())
    });
    let begin = || {
        let mut stream = TcpStream::connect(appliance.api.trim_start_matches("http://")).unwrap();
        let path = format!("/api/v1/batch-results/{job}/download");
        let request = String::from_utf8(get(&path, job)).unwrap();
        let request = request.replace("Host: b", "Host: b\r\nConnection: close");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    process.forget_peak();
    let begun = Instant::now();
    let mut reader = BufReader::with_capacity(1 << 18, begin());
    let mut bytes = 0;
    loop {
        let length = reader.fill_buf().unwrap().len();
        if length == 0 {
            break;
        }
        bytes += length;
        reader.consume(length);
    }
    let ours = begun.elapsed();
    let memory = process.peak().saturating_sub(idle);
    let (reference, bare_bytes) = bare::read(&appliance.database());
    let figure = Figure::against(
        &format!("download the results of the job ({:.0} MB)", bytes as f64 / 1e6),
        format!("{ours:.2?}"),
        ours,
        // The same number of bytes.
        reference.mul_f64(bytes as f64 / bare_bytes as f64),
    );

    // A reader that stops in the middle while 1,000 jobs are submitted.
    let wal = appliance.path("batchkeeper.db-wal");
    let mut slow = begin();
    slow.read_exact(&mut vec![0; 1 << 20]).unwrap();
    let before = fs::metadata(&wal).unwrap().len();
    let one = || {
        let job = rig::job(2, &["en"], None);
        post(&job.body, &job.signature)
    };
    let jobs = vec![(0..1000).map(|_| one()).collect()];
    load(&appliance.api, jobs, 1000, 201, &AtomicBool::new(true));
    let after = fs::metadata(&wal).unwrap().len();
    drop(slow);
    vec![
        figure,
        Figure::alone("additional memory during it", megabytes(memory)),
        Figure::alone(
            "the WAL before and after 1,000 jobs beside a stalled reader",
            format!("{}, {}", megabytes(before / 1000), megabytes(after / 1000)),
        ),
    ]
}
