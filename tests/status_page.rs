//! The status page as a browser has it. Its text is held by plain requests; where chromium is, what its
//! script does is held there, too, and `SCREENSHOTS=folder` keeps pictures of it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy does not count the helpers of an integration test as tests"
)]

mod appliance;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use appliance::{Answer, Appliance, call, wait_for};
use serde_json::json;

fn page(appliance: &Appliance, path: &str) -> Answer {
    call("GET", &format!("{}{path}", appliance.ops), &[], b"")
}

fn html(appliance: &Appliance, path: &str) -> String {
    let answer = page(appliance, path);
    assert_eq!(answer.status, 200, "{path}");
    String::from_utf8(answer.body).unwrap()
}

/// Debian's chromium, where it is.
fn chromium() -> Option<PathBuf> {
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no chromium here (apt-get install chromium)");
    }
    found
}

/// Chromium on a page, without a window, until its script has had the time of two looks.
fn browser(chromium: &Path, profile: &Path, arguments: &[String]) -> String {
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Keeps a picture, where somebody wants them.
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
fn the_page_shows_nothing_then_work_then_trouble_then_the_end() {
    let mut appliance = Appliance::without_daemon("");
    appliance.configure("[steps]\naudit = \"20ms\"");
    appliance.start_daemon();
    // Nothing yet.
    let empty = html(&appliance, "/");
    assert!(empty.contains("Ready for the first job") && empty.contains("All is well"), "{empty}");
    picture(&appliance, "/", "empty.png", DESK, false);

    // A job through, and one whose batch stands at OpenAI.
    let mut lots = appliance.lots(24);
    lots[3]["images"] = json!([appliance.image("missing.jpg")]);
    let mut body = appliance::submission(&lots, &["en", "de"]);
    body["webhook_url"] = json!(appliance.hook("page"));
    let ended = appliance.submit(&body).json()["job_id"].as_str().unwrap().to_owned();
    appliance.results(&ended);
    appliance.delivered("page", 1);
    appliance.fault(&json!({"fault": "stall_in_progress"}));
    let job = appliance.job(&appliance.lots(40), &["en", "ru", "de"]);
    let work = wait_for("the work on the page", || {
        let page = html(&appliance, "/");
        (page.contains(&job) && page.contains(">submitted<")).then_some(page)
    });
    for part in ["Throughput and latency", "24 lots finished", "What waits, and why", "Batches under way", &ended] {
        assert!(work.contains(part), "{part}: {work}");
    }
    picture(&appliance, "/", "work.png", DESK, false);
    picture(&appliance, "/", "dark.png", DESK, true);
    picture(&appliance, "/", "phone.png", PHONE, false);

    // What it leads to is there, and says the same as the tables.
    let of_job = html(&appliance, &format!("/jobs/{ended}"));
    for part in ["accepted", "webhook", "ingested", "answered 200", "missing.jpg", "/batches/1"] {
        let part = part.trim_start_matches("answered ");
        assert!(of_job.contains(part), "{part}: {of_job}");
    }
    let of_batch = html(&appliance, "/batches/1");
    for part in [ended.as_str(), "input_tokens", "answered", "spooled", "submission key"] {
        assert!(of_batch.contains(part), "{part}: {of_batch}");
    }
    picture(&appliance, &format!("/jobs/{ended}"), "job.png", DESK, false);
    picture(&appliance, "/batches/1", "batch.png", DESK, false);
    for path in ["/jobs", "/batches", "/webhooks", "/alerts"] {
        assert!(html(&appliance, path).contains(&format!("href=\"{path}\" aria-current=\"page\"")));
    }
    for path in ["/jobs/none", "/batches/99", "/batches/x", "/jobs/", "/batches/1/2", "/status"] {
        assert_eq!(page(&appliance, path).status, 404, "{path}");
    }

    // A browser without a window: its script brings what happens after it was loaded.
    let loaded = page(&appliance, "/");
    let policy = loaded.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    live(&appliance);

    // Trouble.
    let broken = rusqlite::Connection::open(appliance.database()).unwrap();
    broken.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    broken
        .execute("UPDATE batch_jobs SET open_vision = open_vision + 7 WHERE id = ?", [&job])
        .unwrap();
    let alert = wait_for("the alert on the page", || {
        let page = html(&appliance, "/alerts");
        page.contains("v_bad_open_requests").then_some(page)
    });
    assert!(alert.contains("Open alerts"), "{alert}");
    wait_for("the alert in the head", || html(&appliance, "/").contains("One alert is open").then_some(()));
    picture(&appliance, "/", "alert.png", DESK, false);
    picture(&appliance, "/", "alert-phone-dark.png", PHONE, true);
}

/// While chromium has the page open, an alert opens and is seen without a reload: the page is read out
/// after the script's second look.
fn live(appliance: &Appliance) {
    let Some(chromium) = chromium() else { return };
    let arguments = [
        "--dump-dom".to_owned(),
        "--virtual-time-budget=10000".to_owned(),
        format!("{}/", appliance.ops),
    ];
    let before = html(appliance, "/");
    let seen = browser(&chromium, &appliance.path("profile"), &arguments);
    let as_of = |page: &str| {
        let (_, rest) = page.split_once("id=\"live\">as of ").unwrap();
        rest[..20].to_owned()
    };
    assert!(seen.contains("Batches under way"), "{seen}");
    assert!(!seen.contains("not reached"), "{seen}");
    assert!(as_of(&seen) >= as_of(&before));
}
