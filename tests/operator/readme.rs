//! The README's blocks do what it says: each is run as it is printed, in order, from a clean folder.

use std::os::unix::fs::PermissionsExt;

use crate::pages::{Reader, blocks, section};

const README: &str = include_str!("../../README.md");

/// The shell blocks of a section as one script.
fn script(reader: &Reader, heading: &str) -> String {
    let blocks = blocks(section(README, heading)).into_iter();
    let shell = blocks.filter(|block| block.language == "sh");
    shell.map(|block| reader.place(block.text)).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_first_job_of_the_readme_ends_with_results_and_a_verified_webhook() {
    let reader = Reader::new();
    let ran = reader.run(&script(&reader, "## Your first job"));
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    let log = reader.read("first/serve.log");
    assert!(ran.status.success(), "{out}\n{err}\n{log}");
    for said in [
        "\"status\":\"accepted\"",
        "\"lot_id\":\"11-12346\"",
        "batch_job_completed",
        "It balances",
        "\"status\":\"healthy\"",
    ] {
        assert!(out.contains(said), "{said} is missing in\n{out}\n{err}");
    }
    let results: serde_json::Value = serde_json::from_str(&reader.read("first/results.json")).unwrap();
    let lots = results["results"]["lots"].as_array().unwrap();
    assert_eq!(lots.len(), 2);
    for lot in lots {
        assert_eq!(lot["status"], "completed", "{lot}");
        assert_eq!(lot["descriptions"].as_array().unwrap().len(), 3, "{lot}");
    }
}

#[test]
fn the_production_blocks_start_a_daemon_that_is_checked_and_private() {
    let reader = Reader::new();
    // The daemon runs on, so the last block runs beside the test's own question.
    let blocks = script(&reader, "## In production");
    let serve = "batchkeeper serve --config production/config.toml";
    assert!(blocks.contains(serve), "{blocks}");
    let ask = format!(
        "{serve} &\ncurl -sS --retry 20 --retry-delay 1 --retry-connrefused http://{}:8081/metrics\n",
        reader.address
    );
    let ran = reader.run(&blocks.replace(&format!("{serve}\n"), &ask));
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(out.contains("the configuration is good"), "{out}");
    assert!(!out.contains("warning"), "{out}");
    assert!(out.contains("batchkeeper_"), "{out}\n{err}");
    for name in ["config.toml", "default.key", "openai.key"] {
        let path = reader.folder.path().join("production").join(name);
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{name}"
        );
    }
}

#[test]
fn init_overwrites_nothing() {
    let reader = Reader::new();
    let init = "batchkeeper init here";
    assert!(reader.run(init).status.success());
    let before = reader.read("here/default.key");
    std::fs::remove_file(reader.folder.path().join("here/config.toml")).unwrap();
    let again = reader.run(init);
    assert_eq!(again.status.code(), Some(1));
    let err = text(&again.stderr);
    assert!(
        err.contains("default.key exists already; nothing was written"),
        "{err}"
    );
    assert_eq!(reader.read("here/default.key"), before);
    assert!(!reader.folder.path().join("here/config.toml").exists());
}
