//! What the program is made of, held against `deny.toml`: licences, bans, sources; and that each direct
//! dependency has its reason written down.
#![allow(
    clippy::unwrap_used,
    reason = "clippy does not count the helpers of an integration test as tests"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn rules() -> toml::Table {
    toml::from_str(&read("deny.toml")).unwrap()
}

fn texts<'a>(table: &'a toml::Table, section: &str, key: &str) -> Vec<&'a str> {
    let list = table[section][key].as_array().unwrap().iter();
    list.map(|entry| entry.as_str().or_else(|| entry["crate"].as_str()).unwrap())
        .collect()
}

/// The packages that are built for this machine, ourselves left out.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", host().as_str()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap().iter();
    let used: BTreeSet<&str> = nodes.map(|node| node["id"].as_str().unwrap()).collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .filter(|it| used.contains(it["id"].as_str().unwrap()) && it["name"] != "batchkeeper")
        .cloned()
        .collect()
}

fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.unwrap().to_owned()
}

/// Whether an SPDX expression can be met by allowed licences alone. `AND` binds closer than `OR`; the
/// slash is how `OR` was once written.
fn allowed(expression: &str, licences: &[&str]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any(&words, &mut at, licences);
    met && at == words.len()
}

fn any(words: &[&str], at: &mut usize, licences: &[&str]) -> bool {
    let mut met = all(words, at, licences);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(words, at, licences);
    }
    met
}

fn all(words: &[&str], at: &mut usize, licences: &[&str]) -> bool {
    let mut met = one(words, at, licences);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, licences);
    }
    met
}

fn one(words: &[&str], at: &mut usize, licences: &[&str]) -> bool {
    let word = words.get(*at).copied().unwrap_or_default();
    *at += 1;
    if word == "(" {
        let met = any(words, at, licences);
        *at += 1;
        return met;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return licences.contains(&format!("{word} WITH {exception}").as_str());
    }
    licences.contains(&word)
}

#[test]
fn expressions_of_licences_are_read() {
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 AND MIT OR ISC", true),
        ("GPL-3.0 AND (MIT OR ISC)", false),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("MIT WITH Something", false),
        ("MIT ISC", false),
        ("", false),
    ] {
        assert_eq!(
            allowed(expression, &["MIT", "ISC"]),
            expected,
            "{expression}"
        );
    }
}

#[test]
fn licences_bans_and_sources_hold() {
    let rules = rules();
    let licences = texts(&rules, "licenses", "allow");
    let banned = texts(&rules, "bans", "deny");
    let registries = texts(&rules, "sources", "allow-registry");
    let packages = packages();
    assert!(packages.len() > 50);
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(allowed(licence, &licences), "{name} is under {licence:?}");
        assert!(!banned.contains(&name), "{name} is banned");
        let source = package["source"].as_str().unwrap_or_default();
        let registry = source.strip_prefix("registry+").unwrap_or_default();
        assert!(
            registries.contains(&registry),
            "{name} comes from {source:?}"
        );
    }
    // Whatever the platform: the lock file's every package has a checksum of that registry.
    let lock: toml::Table = toml::from_str(&read("Cargo.lock")).unwrap();
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(&name), "{name} is banned");
        assert!(
            name == "batchkeeper" || package.get("checksum").is_some(),
            "{name}"
        );
    }
}

#[test]
fn each_direct_dependency_has_its_reason() {
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let (_, reasons) = read("ARCHITECTURE.md")
        .split_once("## Dependencies")
        .map(|(before, after)| (before.to_owned(), after.to_owned()))
        .unwrap();
    for section in ["dependencies", "dev-dependencies"] {
        for (name, wanted) in manifest[section].as_table().unwrap() {
            assert!(reasons.contains(name.as_str()), "no reason for {name}");
            let version = wanted.get("version").unwrap_or(wanted).as_str().unwrap();
            assert!(!version.contains('*'), "{name} {version}");
        }
    }
}
