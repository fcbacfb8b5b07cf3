//! The reference pages for operators say what the program says. `GOLDEN_UPDATE=1` writes those that are made from the
//! program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use batchkeeper::config::Config;
use batchkeeper::domain::alert::AlertKind;

use crate::appliance::Appliance;

const EXAMPLE: &str = include_str!("../../config.example.toml");
/// A configuration to which one key is added.
const LEAST: &str = "database = \"/tmp/none.db\"\n[[clients]]\nname = \"default\"\nkeys = [\"0123456789abcdef0123456789abcdef\"]\n";

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/reference")
        .join(name)
}

/// Compares a page with the text that the program gives, or writes it.
#[track_caller]
fn check(name: &str, text: &str) {
    if std::env::var("GOLDEN_UPDATE").is_ok_and(|value| value == "1") {
        fs::write(page(name), text).unwrap();
    }
    let found = fs::read_to_string(page(name)).unwrap_or_default();
    let differs = found
        .lines()
        .zip(text.lines())
        .find(|(found, text)| found != text);
    assert!(
        found == text,
        "docs/reference/{name} differs (GOLDEN_UPDATE=1 writes it); first line: {differs:?}"
    );
}

/// The names under `Commands:` in a help text.
fn subcommands(help: &str) -> Vec<&str> {
    let Some((_, rest)) = help.split_once("Commands:\n") else {
        return Vec::new();
    };
    let entries = rest.lines().take_while(|line| !line.is_empty());
    entries
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

#[test]
fn the_commands_are_listed_with_their_help() {
    let appliance = Appliance::without_daemon("");
    let help = |arguments: &[&str]| appliance.run(&[arguments, &["--help"]].concat()).out;
    let mut text =
        "# Commands\n\nWhat `--help` prints. Each command reads the configuration named by `--config`.\n"
            .to_owned();
    let whole = help(&[]);
    for command in subcommands(&whole) {
        let of_command = help(&[command]);
        text.push_str(&format!(
            "\n## {command}\n\n```text\n{}\n```\n",
            of_command.trim_end()
        ));
        for inner in subcommands(&of_command) {
            let of_inner = help(&[command, inner]);
            text.push_str(&format!(
                "\n### {command} {inner}\n\n```text\n{}\n```\n",
                of_inner.trim_end()
            ));
        }
    }
    check("commands.md", &text);
}

/// A key of the example, or the head of a section.
struct Entry {
    section: String,
    key: String,
    value: String,
    effect: String,
    /// Whether the example shows it as a comment: the default is something else.
    is_commented: bool,
}

/// The part before a comment, and the comment.
fn split_comment(line: &str) -> (&str, &str) {
    let (value, comment) = line.split_once(" # ").unwrap_or((line, ""));
    (value.trim(), comment.trim())
}

/// The keys of the example in their order, and the comments of the sections.
fn entries() -> (Vec<Entry>, Vec<(String, String)>) {
    let (mut entries, mut sections) = (Vec::new(), vec![(String::new(), String::new())]);
    let mut lines = EXAMPLE.lines();
    while let Some(line) = lines.next() {
        let (is_commented, line) = match line.strip_prefix("# ") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (head, comment) = split_comment(line);
        if head.starts_with('[') && head.ends_with(']') && !head.contains(' ') {
            sections.push((head.trim_matches(['[', ']']).to_owned(), comment.to_owned()));
            continue;
        }
        let Some((key, value)) = head.split_once(" = ") else {
            continue;
        };
        if !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            continue;
        }
        let (mut value, mut effect) = (value.to_owned(), comment.to_owned());
        if value.starts_with("\"\"\"") && !value[3..].contains("\"\"\"") {
            let last = lines.find(|line| line.contains("\"\"\"")).unwrap();
            value = "\"a prompt\"".to_owned();
            effect = split_comment(last).1.to_owned();
        }
        entries.push(Entry {
            section: sections.last().unwrap().0.clone(),
            key: key.to_owned(),
            value,
            effect,
            is_commented,
        });
    }
    (entries, sections)
}

/// The type of a value, as people say it.
fn kind(value: &str) -> &'static str {
    let parsed: toml::Table = toml::from_str(&format!("value = {value}")).unwrap();
    match &parsed["value"] {
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Integer(_) => "number",
        toml::Value::Array(_) => "list",
        toml::Value::Table(_) => "table",
        toml::Value::String(text) => {
            let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
            match unit {
                _ if unit.len() == text.len() => "text",
                "ms" | "s" | "m" | "h" | "d" => "duration",
                "KB" | "MB" | "GB" => "size",
                _ => "text",
            }
        }
        _ => "text",
    }
}

/// What the program says of a value of this key that it refuses.
fn range(entry: &Entry) -> String {
    let (least, most) = match kind(&entry.value) {
        "number" => ("0", "4294967295"),
        "duration" => ("\"0s\"", "\"9999d\""),
        "size" => ("\"0KB\"", "\"9999GB\""),
        _ => return String::new(),
    };
    let mut found = BTreeSet::new();
    for value in [least, most] {
        let text = match entry.section.as_str() {
            "" => format!("{} = {value}\n{LEAST}", entry.key),
            section => format!("{LEAST}[{section}]\n{} = {value}\n", entry.key),
        };
        let name = match entry.section.as_str() {
            "" => entry.key.clone(),
            section => format!("{section}.{}", entry.key),
        };
        let Err(error) = Config::parse(&text) else {
            continue;
        };
        let error = error.to_string();
        let Some((_, said)) = error.split_once(&name) else {
            continue;
        };
        if let Some((_, range)) = said.split_once(" is not from ") {
            found.insert(range.to_owned());
        } else if said.contains("longer than 0") || said.contains("= 0:") {
            found.insert("longer than 0".to_owned());
        }
    }
    found.into_iter().collect::<Vec<_>>().join("; ")
}

#[test]
fn every_key_of_the_configuration_is_listed() {
    let (entries, sections) = entries();
    let mut text = "# Configuration\n\n`config.example.toml` with types and ranges. Durations have a unit: `ms`, `s`, `m`, `h`, `d`. Sizes have\n\
        `KB`, `MB` or `GB`, or are a number of bytes. Variables of the environment override keys\n\
        ([operations.md](../how-to/operations.md)). `batchkeeper config show` prints the values in force.\n"
        .to_owned();
    for (section, comment) in &sections {
        let keys: Vec<&Entry> = entries.iter().filter(|entry| entry.section == *section).collect();
        if keys.is_empty() {
            continue;
        }
        let head = match section.as_str() {
            "" => "At the top".to_owned(),
            "alert_receivers" | "clients" | "prices" => format!("[[{section}]]"),
            section => format!("[{section}]"),
        };
        text.push_str(&format!("\n## {head}\n\n"));
        if !comment.is_empty() {
            text.push_str(&format!("In this section: {comment}.\n\n"));
        }
        text.push_str("| key | type | default | range | effect |\n|---|---|---|---|---|\n");
        for entry in keys {
            let default = match entry.is_commented {
                true => format!("not set; e.g. `{}`", entry.value),
                false => format!("`{}`", entry.value),
            };
            let cells = [
                format!("`{}`", entry.key),
                kind(&entry.value).to_owned(),
                default,
                range(entry),
                entry.effect.clone(),
            ];
            text.push_str(&format!(
                "| {} |\n",
                cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
            ));
        }
    }
    // A key that the program has and the example lacks would be missing here, too: `Config` refuses none of these.
    assert!(entries.len() > 100, "{}", entries.len());
    check("configuration.md", &text);
}

#[test]
fn every_metric_is_listed_with_its_meaning() {
    let appliance = Appliance::start();
    let job = appliance.job(&appliance.lots(2), &["en", "de"]);
    appliance.results(&job);
    appliance.wait_until_ingested();
    let url = format!("{}/metrics", appliance.ops);
    let metrics = crate::appliance::call("GET", &url, &[], b"");
    let said = String::from_utf8(metrics.body).unwrap();
    let mut rows: Vec<String> = Vec::new();
    for line in said.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let kind = said
                .lines()
                .find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")))
                .unwrap();
            rows.push(format!("| `{name}` | {kind} | {help} |"));
        }
    }
    rows.sort();
    let text = format!(
        "# Metrics\n\n`/metrics` of the operators' listener, in the text format of Prometheus. `contrib/alert-rules.yaml` has rules for\n\
         them, `contrib/grafana-dashboard.json` a dashboard.\n\n| metric | type | meaning |\n|---|---|---|\n{}\n",
        rows.join("\n")
    );
    check("metrics.md", &text);
}

#[test]
fn every_kind_of_alert_has_its_row() {
    let text = fs::read_to_string(page("alerts.md")).unwrap();
    let listed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(kind, _)| kind)
        .collect();
    let kinds: Vec<&str> = AlertKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(listed, kinds, "in the order of AlertKind");
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 4, "{line}");
        assert!(cells.iter().all(|cell| !cell.trim().is_empty()), "{line}");
    }
}
