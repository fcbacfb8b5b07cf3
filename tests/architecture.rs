//! The arrows of the house: who may name whom. Read from the `use` lines and paths of the sources.
#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, from the ground up. A room knows rooms of lower floors, and on its own floor those
/// that stand before it where `in_order`, or none.
struct Floor {
    rooms: &'static [&'static str],
    in_order: bool,
    /// Rooms of lower floors that nobody on this floor may know.
    never: &'static [&'static str],
}

const EDGES: [&str; 4] = ["store", "openai", "net", "http"];
const STEPS: [&str; 13] = [
    "submitter",
    "poller",
    "ingester",
    "finisher",
    "intake",
    "images",
    "direct",
    "courier",
    "herald",
    "auditor",
    "janitor",
    "retention",
    "recovery",
];

const HOUSE: [Floor; 9] = [
    Floor {
        rooms: &["clock", "threads"],
        in_order: false,
        never: &[],
    },
    Floor {
        rooms: &[
            "cidr",
            "printable",
            "batch",
            "remote",
            "json",
            "signature",
            "refusal",
            "job",
            "vision",
            "translation",
            "parameters",
            "answer",
            "html",
            "legacy",
            "money",
            "config",
        ],
        in_order: true,
        never: &["threads"],
    },
    Floor {
        rooms: &EDGES,
        in_order: false,
        never: &["config"],
    },
    Floor {
        rooms: &["sandbox"],
        in_order: false,
        never: &["store", "openai", "net", "config"],
    },
    Floor {
        rooms: &["step", "trouble", "reconcile", "results", "estimate"],
        in_order: true,
        never: &["net", "http", "sandbox"],
    },
    Floor {
        rooms: &STEPS,
        in_order: false,
        never: &["http", "sandbox", "threads"],
    },
    Floor {
        rooms: &["api"],
        in_order: false,
        never: &["openai", "sandbox", "threads"],
    },
    Floor {
        rooms: &["daemon"],
        in_order: false,
        never: &["sandbox"],
    },
    Floor {
        rooms: &["commands"],
        in_order: false,
        never: &[],
    },
];

/// Technologies, and the only places that may name them.
const TECHNOLOGIES: [(&str, &[&str]); 7] = [
    ("rusqlite", &["src/store/"]),
    ("refinery", &["src/store/mod.rs"]),
    ("ureq", &["src/openai/client/", "src/net/"]),
    ("tiny_http", &["src/http/"]),
    ("httparse", &["src/http/"]),
    ("signal_hook", &["src/daemon.rs"]),
    ("std::thread", &["src/threads.rs"]),
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            into.push(path);
        }
    }
}

/// A file's code: comments, and tests at its end, left out.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source");
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn room(path: &Path) -> String {
    let inside = path.strip_prefix("src").expect("under src");
    let first = inside
        .components()
        .next()
        .expect("a part")
        .as_os_str()
        .to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Rooms that a file's code names by `crate::`.
fn known(code: &str) -> BTreeSet<String> {
    let letters = |c: char| c.is_ascii_lowercase() || c == '_';
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| letters(*c)).collect::<String>())
        .filter(|name| !name.is_empty())
        .collect()
}

fn place(name: &str) -> Option<(usize, usize)> {
    HOUSE
        .iter()
        .enumerate()
        .find_map(|(floor, it)| Some((floor, it.rooms.iter().position(|room| *room == name)?)))
}

fn all_sources() -> Vec<PathBuf> {
    let mut all = Vec::new();
    sources(Path::new("src"), &mut all);
    all
}

#[test]
fn arrows_go_down_only() {
    let mut wrong = Vec::new();
    for path in all_sources() {
        let room = room(&path);
        if matches!(room.as_str(), "main" | "lib") {
            continue;
        }
        let (floor, at) =
            place(&room).unwrap_or_else(|| panic!("{room} has no place in the house"));
        for other in known(&code(&path))
            .into_iter()
            .filter(|other| *other != room)
        {
            let Some((other_floor, other_at)) = place(&other) else {
                continue;
            };
            let below = other_floor < floor && !HOUSE[floor].never.contains(&other.as_str());
            let before = other_floor == floor && HOUSE[floor].in_order && other_at < at;
            if !below && !before {
                wrong.push(format!("{} knows {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_step_knows_the_store_and_one_edge_at_most() {
    for path in all_sources()
        .iter()
        .filter(|path| STEPS.contains(&room(path).as_str()))
    {
        let edges: Vec<_> = known(&code(path))
            .into_iter()
            .filter(|it| EDGES.contains(&it.as_str()) && it != "store")
            .collect();
        assert!(edges.len() <= 1, "{} knows {edges:?}", path.display());
    }
}

#[test]
fn a_technology_has_one_home() {
    for path in all_sources() {
        let code = code(&path);
        let shown = path.display().to_string();
        for (name, homes) in TECHNOLOGIES {
            let named =
                code.contains(&format!("{name}::")) || code.contains(&format!("use {name}"));
            assert!(
                !named || homes.iter().any(|home| shown.starts_with(home)),
                "{shown} names {name}"
            );
        }
    }
}

#[test]
fn every_module_is_in_the_house() {
    let lib = fs::read_to_string("src/lib.rs").expect("lib.rs");
    for module in lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
    {
        assert!(
            place(module).is_some(),
            "{module} has no place in the house"
        );
    }
}

#[test]
fn each_direct_dependency_has_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("a file of the project");
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).expect("a manifest");
    let architecture = read("ARCHITECTURE.md");
    let (_, reasons) = architecture
        .split_once("## Dependencies")
        .expect("the section on dependencies");
    for section in ["dependencies", "dev-dependencies"] {
        for name in manifest[section].as_table().expect("a table").keys() {
            assert!(reasons.contains(name.as_str()), "no reason for {name}");
        }
    }
}
