//! The status page as a browser shows it. Plain requests check its text. If Chromium is installed,
//! the test also checks the script, and `SCREENSHOTS=folder` saves screenshots.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::appliance::{Answer, Appliance, call, wait_for};
use batchkeeper::base::thread_group;
use rusqlite::Connection;
use serde_json::json;

fn page(appliance: &Appliance, path: &str) -> Answer {
    call("GET", &format!("{}{path}", appliance.ops), &[], b"")
}

fn html(appliance: &Appliance, path: &str) -> String {
    let answer = page(appliance, path);
    assert_eq!(answer.status, 200, "{path}");
    String::from_utf8(answer.body).unwrap()
}

/// The path of Debian's Chromium; `None` if it is not installed.
fn chromium() -> Option<PathBuf> {
    let found = [
        "/usr/bin/chromium",
        "/usr/bin/chromium-browser",
        "/usr/bin/google-chrome",
    ]
    .map(PathBuf::from)
    .into_iter()
    .find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no chromium here (apt-get install chromium)");
    }
    found
}

/// Runs headless Chromium on a page until the page's script has had time for two refreshes.
fn browser(chromium: &Path, profile: &Path, arguments: &[String]) -> String {
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Saves a screenshot if `SCREENSHOTS` is set.
fn picture(appliance: &Appliance, path: &str, name: &str, (width, height): (u32, u32), dark: bool) {
    let Some(folder) = std::env::var_os("SCREENSHOTS").map(PathBuf::from) else {
        return;
    };
    let Some(chromium) = chromium() else { return };
    let mut arguments = vec![
        format!("--screenshot={}", folder.join(name).display()),
        format!("--window-size={width},{height}"),
        format!("{}{path}", appliance.ops),
    ];
    if dark {
        arguments.insert(0, "--blink-settings=preferredColorScheme=0".into());
    }
    browser(&chromium, &appliance.path("profile"), &arguments);
}

const DESK: (u32, u32) = (1280, 1000);
const PHONE: (u32, u32) = (390, 1700);

#[test]
fn the_page_shows_no_jobs_then_work_then_an_alert_then_the_end() {
    let mut appliance = Appliance::without_daemon("");
    appliance.configure("[steps]\naudit = \"20ms\"");
    appliance.start_daemon();
    // Before any job.
    let empty = html(&appliance, "/");
    assert!(
        empty.contains("Ready for the first job") && empty.contains("All is well"),
        "{empty}"
    );
    picture(&appliance, "/", "empty.png", DESK, false);

    // One completed job, and one whose batch is stalled at OpenAI.
    let mut lots = appliance.lots(24);
    lots[3]["images"] = json!([appliance.image("missing.jpg")]);
    let mut body = crate::appliance::submission(&lots, &["en", "de"]);
    body["webhook_url"] = json!(appliance.hook("page"));
    let ended = appliance.submit(&body).json()["job_id"]
        .as_str()
        .unwrap()
        .to_owned();
    appliance.results(&ended);
    appliance.delivered("page", 1);
    // The statistics of a busy hour.
    let database = Connection::open(appliance.database()).unwrap();
    database.busy_timeout(Duration::from_mins(1)).unwrap();
    database
        .execute_batch(
            "WITH RECURSIVE ago (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ago WHERE n < 59)
             INSERT INTO minute_stats SELECT strftime('%Y-%m-%dT%H:%M', 'now', '-' || n || ' minutes'), 'lots_completed',
                    100 + (n * n * 7) % 60 - n, 100 * 1000 * (200 + (n * 13) % 90) FROM ago;
             INSERT INTO minute_stats SELECT strftime('%Y-%m-%dT%H:%M', 'now', '-20 minutes'), 'lots_failed', 9, 0",
        )
        .unwrap();
    appliance.fault(&json!({"fault": "stall_in_progress"}));
    let job = appliance.job(&appliance.lots(40), &["en", "ru", "de"]);
    let work = wait_for("the work on the page", || {
        let page = html(&appliance, "/");
        (page.contains(&job) && page.contains(">submitted<")).then_some(page)
    });
    for part in [
        "Throughput and latency",
        "10 of ",
        "Waiting work",
        "Active batches",
        &ended,
    ] {
        assert!(work.contains(part), "{part}: {work}");
    }
    picture(&appliance, "/", "work.png", DESK, false);
    picture(&appliance, "/", "dark.png", DESK, true);
    picture(&appliance, "/", "phone.png", PHONE, false);

    // The linked pages exist and show the same as the tables.
    let of_job = html(&appliance, &format!("/jobs/{ended}"));
    for part in ["accepted", "delivered", "ingested", ">200<", "/batches/1"] {
        assert!(of_job.contains(part), "{part}: {of_job}");
    }
    let of_lot = html(&appliance, &format!("/jobs/{ended}/lots/3"));
    assert!(
        of_lot.contains("missing.jpg") && of_lot.contains("IMAGE_UNREACHABLE"),
        "{of_lot}"
    );
    let of_batch = html(&appliance, "/batches/1");
    for part in [
        ended.as_str(),
        "input tokens",
        "answered",
        "spooled",
        "submission key",
    ] {
        assert!(of_batch.contains(part), "{part}: {of_batch}");
    }
    picture(&appliance, &format!("/jobs/{ended}"), "job.png", DESK, false);
    picture(&appliance, "/batches/1", "batch.png", DESK, false);
    for path in ["/jobs", "/batches", "/webhooks", "/alerts"] {
        assert!(html(&appliance, path).contains(&format!("href=\"{path}\" aria-current=\"page\"")));
    }
    for path in [
        "/jobs/none",
        "/batches/99",
        "/batches/x",
        "/jobs/",
        "/batches/1/2",
        "/status",
    ] {
        assert_eq!(page(&appliance, path).status, 404, "{path}");
    }

    let loaded = page(&appliance, "/");
    let policy = loaded.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );

    // With an alert.
    database
        .execute(
            "UPDATE batch_jobs SET open_vision = open_vision + 7 WHERE id = ?",
            [&job],
        )
        .unwrap();
    let alert = wait_for("the alert on the page", || {
        let page = html(&appliance, "/alerts");
        page.contains("v_bad_open_requests").then_some(page)
    });
    assert!(alert.contains("Open alerts"), "{alert}");
    wait_for("the alert in the head", || {
        html(&appliance, "/")
            .contains("One critical alert is open")
            .then_some(())
    });
    if let Some(seen) = seen_without_a_reload(&appliance, work) {
        assert!(
            seen.contains("One critical alert is open") && seen.contains("v_bad_open_requests"),
            "{seen}"
        );
        assert!(!seen.contains("not reached"), "{seen}");
    }
    picture(&appliance, "/", "alert.png", DESK, false);
    picture(&appliance, "/", "alert-phone-dark.png", PHONE, true);
}

/// Starts a proxy that returns the page `before` to the first request and passes all later requests
/// on. So the browser sees newer content only through its script.
fn seen_without_a_reload(appliance: &Appliance, before: String) -> Option<String> {
    let chromium = chromium()?;
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = between.local_addr().unwrap();
    let ops = appliance.ops.clone();
    let mut before = Some(before.into_bytes());
    // The thread ends with the test's process.
    thread_group::spawn_ungrouped("between", move || {
        for stream in between.incoming() {
            let mut stream = stream.unwrap();
            let mut head = String::new();
            let mut lines = BufReader::new(&stream);
            // A browser opens connections in advance and may send nothing on them.
            if lines.read_line(&mut head).unwrap_or(0) == 0 {
                continue;
            }
            while lines.read_line(&mut head).unwrap() > 2 {}
            let path = head.split(' ').nth(1).unwrap();
            let answer = call("GET", &format!("{ops}{path}"), &[], b"");
            let media_type = answer.header("content-type").unwrap().to_owned();
            let old = if path == "/" { before.take() } else { None };
            let body = old.unwrap_or(answer.body);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Security-Policy: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                answer.headers.iter().find(|(name, _)| name == "content-security-policy").map_or("default-src 'none'", |(_, policy)| policy),
                body.len()
            );
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).ok();
        }
    })
    .unwrap();
    let arguments = [
        "--dump-dom",
        "--virtual-time-budget=7000",
        &format!("http://{address}/"),
    ]
    .map(str::to_owned);
    Some(browser(&chromium, &appliance.path("profile"), &arguments))
}
