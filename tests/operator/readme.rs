//! The README's blocks do what it says: each is run as it is printed, in order, from a clean folder. Only
//! the ports differ, so that the test does not meet another program.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const README: &str = include_str!("../../README.md");
/// The ports in the README: the client API, the operator's pages, the sandbox, the receiver of webhooks.
const PORTS: [&str; 4] = ["8080", "8081", "9090", "9000"];

/// The shell blocks of a section, from its heading to the next one.
fn blocks(section: &str) -> Vec<&'static str> {
    let heading = format!("\n## {section}\n");
    let (_, text) = README.split_once(&heading).expect("the section is there");
    let text = text.split("\n## ").next().unwrap();
    let blocks = text.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Ports that are free now.
fn free_ports() -> Vec<String> {
    let listeners: Vec<TcpListener> = PORTS
        .iter()
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let ports = listeners
        .iter()
        .map(|it| it.local_addr().unwrap().port().to_string());
    ports.collect()
}

/// A folder with the examples, as in a checkout.
fn checkout() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    std::os::unix::fs::symlink(examples, folder.path().join("examples")).unwrap();
    folder
}

/// Runs a script with the program on its PATH. It has a session of its own, which is killed at its end.
fn run(folder: &Path, script: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_batchkeeper"));
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    Command::new("bash")
        .args(["-eu", "-o", "pipefail", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("OPENAI_API_KEY", "sk-of-the-test")
        .env_remove("BATCHKEEPER_CONFIG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The blocks as one script. A line of the test's own after the first one writes free ports into the files
/// that `init` has made.
fn script(section: &str, folder: &str) -> String {
    let mut blocks = blocks(section).into_iter();
    let first = blocks.next().unwrap();
    let (init, rest) = first.split_once('\n').unwrap();
    assert!(init.starts_with("batchkeeper init"), "{init}");
    let ports = free_ports();
    let replace = |text: &str| {
        let mut text = text.to_owned();
        for (old, new) in PORTS.iter().zip(&ports) {
            text = text.replace(&format!(":{old}"), &format!(":{new}"));
            text = text.replace(&format!("127.0.0.1 {old}"), &format!("127.0.0.1 {new}"));
        }
        text
    };
    let mut edits: String = PORTS
        .iter()
        .zip(&ports)
        .map(|(old, new)| format!("sed -i 's/:{old}/:{new}/g' {folder}/*.*\n"))
        .collect();
    edits.push_str(&format!(
        "sed -i '1i listen = \"127.0.0.1:{}\"\\nops_listen = \"127.0.0.1:{}\"' {folder}/config.toml\n",
        ports[0], ports[1]
    ));
    let rest = replace(rest).replace(
        "batchkeeper sandbox ",
        &format!("batchkeeper sandbox --listen 127.0.0.1:{} ", ports[2]),
    );
    let others: String = blocks.map(replace).collect();
    format!("trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{init}\n{edits}{rest}{others}")
}

#[test]
fn the_first_job_of_the_readme_ends_with_results_and_a_verified_webhook() {
    let folder = checkout();
    let ran = run(folder.path(), &script("Your first job", "first"));
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    let log = std::fs::read_to_string(folder.path().join("first/serve.log")).unwrap_or_default();
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
    let results = std::fs::read_to_string(folder.path().join("first/results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    let lots = results["results"]["lots"].as_array().unwrap();
    assert_eq!(lots.len(), 2);
    for lot in lots {
        assert_eq!(lot["status"], "completed", "{lot}");
        assert_eq!(lot["descriptions"].as_array().unwrap().len(), 3, "{lot}");
    }
}

#[test]
fn the_production_blocks_start_a_daemon_that_is_checked_and_private() {
    let folder = checkout();
    // The daemon runs on, so the last block runs beside the test's own question.
    let blocks = script("In production", "production");
    let (serve, port) = (
        "batchkeeper serve --config production/config.toml",
        "$(sed -n 's/^ops_listen = .*:\\([0-9]*\\)\"$/\\1/p' production/config.toml)",
    );
    assert!(blocks.contains(serve), "{blocks}");
    let ask = format!(
        "{serve} &\ncurl -sS --retry 20 --retry-delay 1 --retry-connrefused http://127.0.0.1:{port}/metrics\n"
    );
    let ran = run(folder.path(), &blocks.replace(&format!("{serve}\n"), &ask));
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(out.contains("the configuration is good"), "{out}");
    assert!(!out.contains("warning"), "{out}");
    assert!(out.contains("batchkeeper_"), "{out}\n{err}");
    for name in ["config.toml", "default.key", "openai.key"] {
        let path = folder.path().join("production").join(name);
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn init_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let init = "batchkeeper init here";
    assert!(run(folder.path(), init).status.success());
    let before = std::fs::read(folder.path().join("here/default.key")).unwrap();
    std::fs::remove_file(folder.path().join("here/config.toml")).unwrap();
    let again = run(folder.path(), init);
    assert_eq!(again.status.code(), Some(1));
    let err = text(&again.stderr);
    assert!(
        err.contains("default.key exists already; nothing was written"),
        "{err}"
    );
    assert_eq!(
        std::fs::read(folder.path().join("here/default.key")).unwrap(),
        before
    );
    assert!(!folder.path().join("here/config.toml").exists());
}
