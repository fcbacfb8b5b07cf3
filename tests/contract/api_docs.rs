//! The pages for clients in `docs/api` are true. Each code block is run, or is compared with what the program
//! answers:
//!
//! - `sh` blocks run in one shell, in order, after the setup of the quick start. `call` prints a status, which the
//!   comment at the line's end names.
//! - `python`, `js` and `go` blocks are files; the comment in their first line names them. A block that runs a file
//!   is skipped if its language is not installed.
//! - A `text` block after an `sh` block is what that block prints.
//! - A `json` block after an `sh` block is the answer of its last `call`. Ids and times may differ; `…` stands for
//!   any text. `json names` compares names and types alone, `json FILE` compares with a file that the page has
//!   written, and `json SCHEMA` with a schema of the OpenAPI document.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use batchkeeper::base::clock::Timestamp;
use batchkeeper::config::Config;
use batchkeeper::domain::api_error::ErrorCode;
use batchkeeper::domain::job::{JobStatus, LotStatus};
use batchkeeper::domain::signature::{Key, SignedRequest, webhook_headers, webhook_secret};
use serde_json::Value;
use uuid::Uuid;

use crate::openapi::Schema;
use crate::pages::{Block, Reader, blocks, is_installed, section};

/// Members whose values depend on the prompts, the prices or the speed of the machine.
const VARYING: [&str; 8] = [
    "took_ms",
    "creation_time",
    "total_processing_time",
    "learned_from_answers",
    "input",
    "cached",
    "output",
    "usd",
];

fn page(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api")
}

fn page_names() -> BTreeSet<String> {
    let files = std::fs::read_dir(folder()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".md")).collect()
}

/// The programs that run the files of a page, and what a block that runs one begins a line with.
const LANGUAGES: [(&str, &str, &str); 3] = [
    ("python", "python3", "python3 "),
    ("js", "node", "node "),
    ("go", "go", "go run "),
];

/// The program that a block needs and that is not installed.
fn missing_program(block: Block<'_>) -> Option<&'static str> {
    let needed = LANGUAGES
        .iter()
        .filter(|(_, _, call)| block.text.lines().any(|line| line.starts_with(call)));
    let mut programs = needed.map(|(_, program, _)| *program);
    programs.find(|program| !is_installed(program))
}

/// Runs a page's blocks and checks what they print and get.
fn follow(name: &str) {
    let reader = Reader::new();
    let (quick_start, text) = (page("README.md"), page(name));
    let all = blocks(&text);
    for block in &all {
        if LANGUAGES.iter().any(|(language, ..)| *language == block.language) {
            let first = block.text.lines().next().unwrap();
            let (_, file) = first.split_once(' ').expect("the first line names the file");
            std::fs::write(reader.folder.path().join(file), block.text).unwrap();
        }
    }
    let mut script = String::new();
    if name != "README.md" {
        let (setup, _) = quick_start.split_once("\n### Send a job").unwrap();
        for block in blocks(setup) {
            script.push_str(&reader.place(block.text));
        }
    }
    for (at, block) in all.iter().enumerate().filter(|(_, it)| it.language == "sh") {
        if let Some(program) = missing_program(*block) {
            println!("{name}: a block is skipped, because there is no {program} here");
            continue;
        }
        script.push_str(&format!("echo '--- block {at}'\n{}", reader.place(block.text)));
        script.push_str(&format!(
            "\n[ ! -e answer.json ] || cp answer.json answer-{at}.json\n"
        ));
    }
    let ran = reader.run(&script);
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    let err = String::from_utf8_lossy(&ran.stderr).into_owned();
    let log = reader.read("first/serve.log");
    assert!(
        ran.status.success(),
        "{name}: {}\n{out}\n{err}\n{log}",
        ran.status
    );
    for printed in out.split("--- block ").skip(1) {
        let (at, printed) = printed.split_once('\n').unwrap();
        let at: usize = at.parse().unwrap();
        check_statuses(name, all[at], printed);
        if let Some(next) = all.get(at + 1).filter(|next| next.language == "text") {
            assert_eq!(printed, next.text, "{name}: printed by\n{}", all[at].text);
        }
    }
    for (at, block) in all.iter().enumerate().filter(|(_, it)| it.language == "json") {
        check_json(name, &reader, *block, at);
    }
}

/// Compares the statuses that `call` has printed with the comments.
fn check_statuses(name: &str, block: Block<'_>, printed: &str) {
    let calls = block.text.lines().filter(|line| line.starts_with("call "));
    let expected: Vec<&str> = calls.map(|line| line.rsplit(" # ").next().unwrap()).collect();
    let is_status = |line: &&str| line.len() == 3 && line.bytes().all(|byte| byte.is_ascii_digit());
    let found: Vec<&str> = printed.lines().filter(is_status).collect();
    assert_eq!(found, expected, "{name}: the statuses of\n{}", block.text);
}

fn check_json(name: &str, reader: &Reader, block: Block<'_>, at: usize) {
    let documented: Value =
        serde_json::from_str(block.text).unwrap_or_else(|error| panic!("{name}: {error}\n{}", block.text));
    let document: Value = serde_json::from_str(include_str!("../../src/api/openapi.json")).unwrap();
    let schemas = &document["components"]["schemas"];
    if schemas[block.info].is_object() {
        let schema = Schema { document: &document };
        let complaint = schema.complaint(&schemas[block.info], &documented);
        assert_eq!(complaint, None, "{name}: {}", block.text);
        return;
    }
    let file = match block.info {
        "" | "names" => format!("answer-{}.json", at - 1),
        file => file.to_owned(),
    };
    let found = reader.read(&file).replace(&reader.address, "127.0.0.1");
    let found: Value = serde_json::from_str(&found).unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
    let comparison = Comparison {
        names_only: block.info == "names",
    };
    if let Some(difference) = comparison.difference("", &documented, &found) {
        panic!(
            "{name}: {difference}\n{}\nbut the answer is\n{found:#}",
            block.text
        );
    }
}

/// Compares a documented answer with a real one.
struct Comparison {
    names_only: bool,
}

impl Comparison {
    fn difference(&self, member: &str, documented: &Value, found: &Value) -> Option<String> {
        match (documented, found) {
            (Value::Object(documented), Value::Object(found)) => {
                let names = |of: &serde_json::Map<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
                if names(documented) != names(found) {
                    return Some(format!(
                        "{member} has {:?}, not {:?}",
                        names(found),
                        names(documented)
                    ));
                }
                let mut members = documented.iter();
                members.find_map(|(name, value)| self.difference(name, value, &found[name]))
            }
            (Value::Array(documented), Value::Array(found)) if documented.len() == found.len() => {
                let mut pairs = documented.iter().zip(found);
                pairs.find_map(|(documented, found)| self.difference(member, documented, found))
            }
            (Value::String(documented), Value::String(found)) => {
                let is_equal = self.names_only
                    || VARYING.contains(&member)
                    || match documented.split_once('…') {
                        Some((start, end)) => found.starts_with(start) && found.ends_with(end),
                        None => general(documented) == general(found),
                    };
                (!is_equal).then(|| format!("{member} is {found:?}, not {documented:?}"))
            }
            (Value::Number(_), Value::Number(_)) if self.names_only || VARYING.contains(&member) => None,
            _ => (documented != found).then(|| format!("{member} is {found}, not {documented}")),
        }
    }
}

/// A text with words in place of ids and times.
fn general(text: &str) -> String {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let general = |part: &str| match part {
        id if Uuid::parse_str(id).is_ok() => "JOB".to_owned(),
        time if time.parse::<Timestamp>().is_ok() => "TIME".to_owned(),
        id if id.strip_prefix("batch_").is_some_and(is_digits) => "BATCH".to_owned(),
        other => other.to_owned(),
    };
    text.split('/').map(general).collect::<Vec<_>>().join("/")
}

macro_rules! pages {
    ($($test:ident: $page:literal,)+) => {
        /// The pages whose blocks are run.
        const FOLLOWED: &[&str] = &[$($page),+];
        $(#[test] fn $test() { follow($page); })+
    };
}

pages! {
    the_quick_start_works: "README.md",
    signatures_in_four_languages_are_those_of_the_example: "authentication.md",
    sending_is_as_documented: "sending.md",
    following_is_as_documented: "following.md",
    webhooks_are_as_documented_and_verified_in_four_languages: "webhooks.md",
    one_lot_at_once_is_as_documented: "synchronous.md",
    cancelling_is_as_documented: "cancelling.md",
    errors_are_as_documented: "errors.md",
}

#[test]
fn the_index_has_every_page_and_no_page_with_blocks_is_left_out() {
    let index = page("README.md");
    for name in page_names() {
        assert!(
            name == "README.md" || index.contains(&format!("]({name})")),
            "{name}"
        );
        let runs = blocks(&page(&name)).iter().any(|it| it.language != "mermaid");
        assert_eq!(runs, FOLLOWED.contains(&name.as_str()), "{name}");
    }
}

/// The anchor of a heading on GitHub.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    for name in page_names() {
        let text = page(&name);
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap();
            if link.starts_with("https://") {
                continue;
            }
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { name.as_str() } else { file };
            let target = folder().join(target);
            assert!(target.exists(), "{name}: {link}");
            if !wanted.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#')));
                assert!(anchors.any(|it| it == wanted), "{name}: {link}");
            }
        }
    }
}

/// The cells of the table rows of a text, without the heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with('|'));
    let cells = lines.map(|line| {
        line.trim_matches('|')
            .split(" | ")
            .map(str::trim)
            .collect::<Vec<_>>()
    });
    let mut rows = Vec::new();
    for row in cells {
        if row[0].starts_with("---") {
            rows.pop();
        } else {
            rows.push(row);
        }
    }
    rows
}

#[test]
fn the_errors_table_has_every_code_with_its_status() {
    let text = page("errors.md");
    let (codes, listener) = section(&text, "## Codes").split_once("\nThe listener").unwrap();
    let documented: Vec<(String, u16)> = rows(codes)
        .iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].parse().unwrap()))
        .collect();
    let mut expected: Vec<(String, u16)> = ErrorCode::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), code.status()))
        .collect();
    expected.sort_by_key(|(code, status)| {
        let at = documented.iter().position(|(known, _)| known == code);
        (at.unwrap_or(usize::MAX), *status)
    });
    assert_eq!(documented, expected);
    assert!(
        documented.is_sorted_by_key(|(_, status)| *status),
        "the rows are sorted"
    );
    let repeats = rows(codes)
        .iter()
        .all(|row| ["yes", "no", "later"].contains(&row[4]));
    assert!(repeats && rows(listener).len() == 5);
    for row in rows(listener) {
        row[1].trim_matches('`').parse::<ErrorCode>().unwrap();
    }
}

#[test]
fn the_states_are_those_of_the_program() {
    let text = page("concepts.md");
    let states = |heading| -> Vec<String> {
        let rows = rows(section(&text, heading));
        rows.iter()
            .map(|row| row[0].trim_matches('`').to_owned())
            .collect()
    };
    let jobs: Vec<String> = JobStatus::ALL.iter().map(ToString::to_string).collect();
    let lots: Vec<String> = LotStatus::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(states("## The states of a job"), jobs);
    assert_eq!(states("## The states of a lot"), lots);
    let picture = blocks(&text)[0].text.to_owned();
    let arrows = picture.lines().filter_map(|line| line.split_once(" --> "));
    let drawn: BTreeSet<String> = arrows
        .flat_map(|(from, to)| [from.trim(), to.split(':').next().unwrap()])
        .filter(|state| *state != "[*]")
        .map(str::to_owned)
        .collect();
    assert_eq!(drawn, jobs.into_iter().collect());
}

#[test]
fn the_example_of_a_signature_is_right_byte_by_byte() {
    let text = page("authentication.md");
    let example = section(&text, "### An example, byte by byte");
    let rows = rows(example);
    let [key, timestamp, method, target, body] = [0, 1, 2, 3, 4].map(|at| rows[at][1].trim_matches('`'));
    let request = SignedRequest {
        timestamp,
        method,
        target,
        body: body.as_bytes(),
    };
    let signature = request.sign(&Key::new(key).unwrap());
    let message = format!("{timestamp}.{method}.{target}.{body}");
    let blocks: Vec<&str> = blocks(example).iter().map(|block| block.text).collect();
    let headers = format!("X-Client-Id: default\nX-Timestamp: {timestamp}\nX-Signature: {signature}\n");
    assert_eq!(blocks, [format!("{message}\n"), headers]);
    assert!(example.contains(&format!("The signed message has {} bytes", message.len())));
    assert!(example.contains(&format!(
        "these {} bytes of text; the first is `{:#04x}`",
        key.len(),
        key.as_bytes()[0]
    )));
    // The programs of the page print the same.
    assert_eq!(text.matches(&format!("\n```text\n{signature}\n```")).count(), 4);
    let secret = webhook_secret(&Key::new(key).unwrap());
    assert!(text.contains(&format!("\n```text\n{secret}\n```")));
}

#[test]
fn the_tables_of_limits_and_headers_are_those_of_the_program() {
    let config = Config::default();
    let (limits, text) = (&config.limits, page("limits.md"));
    let defaults: Vec<String> = rows(&text).iter().map(|row| row[1].replace(',', "")).collect();
    let synchronous = &config.synchronous;
    let expected = [
        limits.submit.to_string(),
        limits.synchronous.to_string(),
        limits.read.to_string(),
        "10".to_owned(),
        limits.lots_per_day.to_string(),
        format!(
            "{} and {} of all clients",
            synchronous.per_client, synchronous.concurrency
        ),
        batchkeeper::domain::job::MAX_LOTS.to_string(),
        format!("{} MB", limits.max_body / 1_000_000),
        format!(
            "{} and {} KiB",
            config.http.headers,
            config.http.head_bytes / 1024
        ),
        format!("{} s", synchronous.timeout.as_secs()),
    ];
    assert_eq!(defaults, expected);
    let webhooks = page("webhooks.md");
    let keys = [Key::new("0123456789abcdef").unwrap()];
    let headers = webhook_headers(&keys, "", "msg_1", 1, crate::now(), b"");
    for (name, _) in headers.iter().chain([&("X-Job-ID", String::new())]) {
        assert!(webhooks.contains(&format!("\n| `{name}` |")), "{name}");
    }
    for status in JobStatus::ALL {
        if let Some(event) = status.event() {
            assert!(webhooks.contains(&format!("\n| `{event}` |")), "{event}");
        }
    }
}

#[test]
fn the_sentences_with_defaults_are_those_of_the_program() {
    let config = Config::default();
    let (limits, webhooks, synchronous) = (&config.limits, &config.webhooks, &config.synchronous);
    let megabytes = |bytes: u64| bytes / 1_000_000;
    for (name, sentence) in [
        (
            "concepts.md",
            format!("1 to 50,000 lots and 1 to {} languages", limits.languages),
        ),
        (
            "sending.md",
            format!("1 to {} distinct BCP 47 tags", limits.languages),
        ),
        (
            "sending.md",
            format!("The body has at most {} MB", megabytes(limits.max_body)),
        ),
        (
            "sending.md",
            format!(
                "At most {} a lot, {} for [one lot at once]",
                config.images.max_per_lot, synchronous.max_images
            ),
        ),
        (
            "synchronous.md",
            format!(
                "in the response, within {} seconds",
                synchronous.timeout.as_secs()
            ),
        ),
        (
            "webhooks.md",
            format!("Answer 2xx within {} seconds", webhooks.timeout.as_secs()),
        ),
        (
            "webhooks.md",
            format!("would be longer than {} MB", megabytes(webhooks.max_body)),
        ),
        (
            "final.md",
            format!("after {} days", config.retention.results.as_secs() / 86_400),
        ),
    ] {
        assert!(page(name).contains(&sentence), "{name}: {sentence}");
    }
    let delays = webhooks.retry_delays.iter().map(std::time::Duration::as_secs);
    let minutes: Vec<f64> = delays.map(|seconds| seconds as f64 / 60.0).collect();
    assert_eq!(minutes, [0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 180.0, 360.0, 720.0]);
    assert!(page("webhooks.md").contains("30 s, 1, 2, 5, 15 and 60 min, 3, 6 and 12 h,"));
    assert_eq!(limits.dedupe_window.as_secs(), 3600);
    assert!(page("sending.md").contains("without `Idempotency-Key` | one hour |"));
}
