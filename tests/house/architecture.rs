//! The order of the folders, and the technology that each may name. Read from the `use` lines and paths of
//! the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Technologies, and the only folders that may name them.
const TECHNOLOGIES: [(&str, &[&str]); 7] = [
    ("rusqlite", &["src/store/"]),
    ("refinery", &["src/store/"]),
    ("ureq", &["src/openai/", "src/outbound/"]),
    ("tiny_http", &["src/http/"]),
    ("httparse", &["src/http/"]),
    ("signal_hook", &["src/daemon/"]),
    ("std::thread", &["src/base/"]),
];

/// Folders that a folder must not import although they stand below it.
const FORBIDDEN: [(&str, &[&str]); 5] = [
    ("api", &["openai", "sandbox"]),
    ("ops", &["openai", "sandbox"]),
    ("workers", &["http", "sandbox"]),
    ("store", &["openai", "outbound", "http", "config", "sandbox"]),
    ("sandbox", &["config"]),
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

/// The folder of `src` that holds a file; the file's own name for `main.rs` and `lib.rs`.
fn folder(path: &Path) -> String {
    let inside = path.strip_prefix("src").expect("under src");
    let first = inside.components().next().expect("a part");
    first.as_os_str().to_string_lossy().into_owned()
}

/// The folders that a file's code names by `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let letters = |c: char| c.is_ascii_lowercase() || c == '_';
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| letters(*c)).collect::<String>())
        .filter(|name| !name.is_empty())
        .collect()
}

/// The folders in the reading order of `lib.rs`.
fn reading_order() -> Vec<String> {
    let lib = fs::read_to_string("src/lib.rs").expect("lib.rs");
    lib.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

fn all_sources() -> Vec<PathBuf> {
    let mut all = Vec::new();
    sources(Path::new("src"), &mut all);
    all
}

#[test]
fn imports_go_down_the_page() {
    let order = reading_order();
    let place = |name: &str| order.iter().position(|it| it == name);
    let mut wrong = Vec::new();
    for path in all_sources() {
        let folder = folder(&path);
        if matches!(folder.as_str(), "main.rs" | "lib.rs") {
            continue;
        }
        let from = place(&folder).unwrap_or_else(|| panic!("{folder} is not in lib.rs"));
        for other in imports(&code(&path)).iter().filter(|it| **it != folder) {
            let Some(to) = place(other) else { continue };
            let edge = (folder.as_str(), other.as_str());
            let forbidden = FORBIDDEN
                .iter()
                .any(|(it, others)| *it == edge.0 && others.contains(&edge.1));
            if forbidden || to <= from {
                wrong.push(format!("{} imports {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_worker_calls_one_side_at_most() {
    for path in all_sources() {
        let code = code(&path);
        let known = imports(&code);
        let both = known.contains("openai") && known.contains("outbound");
        assert!(
            !(folder(&path) == "workers" && both),
            "{} calls OpenAI and strangers",
            path.display()
        );
    }
}

#[test]
fn a_technology_has_one_home() {
    for path in all_sources() {
        let code = code(&path);
        let shown = path.display().to_string();
        for (name, homes) in TECHNOLOGIES {
            let named = code.contains(&format!("{name}::")) || code.contains(&format!("use {name}"));
            assert!(
                !named || homes.iter().any(|home| shown.starts_with(home)),
                "{shown} names {name}"
            );
        }
    }
}

#[test]
fn the_simulated_openai_knows_no_http() {
    let mut model = Vec::new();
    sources(Path::new("src/sandbox/model"), &mut model);
    assert!(!model.is_empty());
    for path in model {
        let shown = path.display().to_string();
        assert!(!imports(&code(&path)).contains("http"), "{shown} names http");
        let front_end = ["sandbox::http", "super::http"];
        let code = code(&path);
        assert!(
            !front_end.iter().any(|it| code.contains(it)),
            "{shown} names its front end"
        );
    }
}

/// A header field of which the API reads the first value is refused if it stands twice.
#[test]
fn each_header_field_that_the_api_reads_counts_once() {
    let api = fs::read_to_string("src/api/mod.rs").expect("the API");
    let (_, list) = api.split_once("const SINGLE_FIELDS").expect("the list");
    let (list, _) = list.split_once("];").expect("its end");
    let list = list.to_ascii_lowercase();
    for path in all_sources().iter().filter(|path| path.starts_with("src/api")) {
        for read in code(path).split(".header(\"").skip(1) {
            let name = read.split('"').next().unwrap_or_default();
            assert!(
                list.contains(&format!("\"{name}\"")),
                "{name} in {}",
                path.display()
            );
        }
    }
}

#[test]
fn every_folder_is_in_the_reading_order() {
    let order = reading_order();
    for entry in fs::read_dir("src").expect("src") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy().into_owned();
        let known = matches!(name.as_str(), "main.rs" | "lib.rs") || order.contains(&name);
        assert!(known, "src/{name} is no folder of lib.rs");
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

#[test]
fn the_paths_that_the_guides_name_are_there() {
    let roots = [
        "src/",
        "tests/",
        "docs/",
        "examples/",
        "contrib/",
        "migrations",
        "fuzz",
        "benches",
    ];
    for guide in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(guide).expect("a guide");
        // Every second part stands between backticks.
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = roots.iter().any(|root| name.starts_with(root));
            let is_plain = !name.contains("NAME") && !name.contains(' ');
            if is_path && is_plain {
                assert!(Path::new(name).exists(), "{guide} names {name}");
            }
        }
    }
}
