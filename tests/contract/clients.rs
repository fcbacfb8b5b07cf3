//! The example clients work. Each test is skipped if its interpreter is not installed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, assert_results, call, submission, wait_for};
use crate::pages::is_installed;

fn client(appliance: &Appliance, command: &str, body: &Value) -> (bool, String, String) {
    let job = appliance.path("job.json");
    std::fs::write(&job, body.to_string()).unwrap();
    run(appliance, command, &[&job])
}

/// Runs an example: `command` is its interpreter and its file.
fn run(appliance: &Appliance, command: &str, arguments: &[&Path]) -> (bool, String, String) {
    let mut words = command.split(' ');
    let ran = Command::new(words.next().unwrap())
        .args(words)
        .args(arguments)
        .current_dir("examples/clients")
        .env("BATCHKEEPER_URL", &appliance.api)
        .env("BATCHKEEPER_KEY", KEY)
        .env("BATCHKEEPER_POLL", "0.1")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ran.status.success(), text(ran.stdout), text(ran.stderr))
}

#[test]
fn the_example_clients_send_a_job_and_read_its_results() {
    for (needs, command) in [
        ("python3", "python3 client.py"),
        ("node", "node client.mjs"),
        ("curl", "sh client.sh"),
        ("go", "go run client.go"),
    ] {
        if !is_installed(needs) {
            println!("{command} is not tested: there is no {needs} here");
            continue;
        }
        let appliance = Appliance::start();
        let (good, _, err) = run(&appliance, command, &[]);
        assert!(!good && err.starts_with("usage: "), "{command}: {err}");
        let lots = appliance.lots(3);
        let body = submission(&lots, &["en", "ru"]);
        let (good, out, err) = client(&appliance, command, &body);
        assert!(good, "{command}: {err}");
        let results: Value = serde_json::from_str(&out).unwrap();
        assert_results(&results, &lots, &["en", "ru"], &[]);
        // The same file again is the same job: nothing is billed twice.
        assert_eq!(client(&appliance, command, &body), (good, out, err));
        assert_eq!(appliance.jobs(), 1);
        let (good, _, err) = client(&appliance, command, &json!({"version": "2.0.0", "lots": []}));
        assert!(!good && err.contains("UNSUPPORTED_VERSION"), "{command}: {err}");
        let mut failing = submission(&lots, &["en"]);
        for lot in failing["lots"].as_array_mut().unwrap() {
            lot["images"] = json!([format!("{}/nothing.jpg", appliance.sandbox)]);
        }
        let (good, out, err) = client(&appliance, command, &failing);
        assert!(!good && (out + &err).contains("JOB_FAILED"), "{command}");
    }
}

/// A process that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_example_receiver_accepts_genuine_webhooks_only() {
    if !is_installed("python3") {
        println!("receiver.py is not tested: there is no python3 here");
        return;
    }
    let appliance = Appliance::start();
    let secret = appliance.run(&["sign", "--webhook-secret"]).out;
    let mut receiver = Command::new("python3")
        .args(["examples/clients/receiver.py", "127.0.0.1", "0"])
        .env("WEBHOOK_SECRET", secret.trim())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines();
    let _running = Running(receiver);
    let mut next = || lines.next().unwrap().unwrap();
    let first = next();
    let url = format!("http://{}/hook", first.strip_prefix("listening on ").unwrap());
    let mut body = submission(&appliance.lots(2), &["en"]);
    body["webhook_url"] = json!(url);
    let job = appliance.submit(&body).json()["job_id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(next(), format!("batch_job_completed {job} 2"));
    let delivered = "SELECT state FROM webhook_deliveries ORDER BY id DESC LIMIT 1";
    wait_for("its answer", || {
        (appliance.cell::<String>(delivered) == "delivered").then_some(())
    });
    // The receiver refuses a webhook that is signed with another key.
    let forged = json!({"event": "batch_job_completed", "job_id": job}).to_string();
    let now = crate::now().seconds().to_string();
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", now.as_str()),
        ("webhook-signature", "v1,AAAA"),
    ];
    assert_eq!(call("POST", &url, &headers, forged.as_bytes()).status, 401);
    assert_eq!(call("POST", &url, &[], forged.as_bytes()).status, 401);
}
