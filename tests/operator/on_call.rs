//! Alerts reach the people on call: in chats, on phones and through programs, each in its own form, whatever the
//! other receivers do, and once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::appliance::{Appliance, call, wait_for};
use rusqlite::Connection;
use serde_json::{Value, json};

const CANARY: &str = "C4NARY0123456789";

fn sql(appliance: &Appliance) -> Connection {
    let connection = Connection::open(appliance.database()).unwrap();
    connection.busy_timeout(Duration::from_mins(1)).unwrap();
    connection
}

/// Writes a shell script into the appliance's folder, and gives the list that runs it.
fn script(appliance: &Appliance, name: &str, text: &str) -> String {
    let path = appliance.path(name);
    fs::write(&path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("[{:?}]", path.display().to_string())
}

fn receiver(name: &str, kind: &str, keys: &str) -> String {
    format!("[[alert_receivers]]\nname = {name:?}\nkind = {kind:?}\n{keys}\n")
}

fn header<'a>(delivery: &'a Value, name: &str) -> Option<&'a str> {
    let headers = delivery["headers"].as_array().unwrap();
    let found = headers.iter().find(|pair| pair[0] == name)?;
    found[1].as_str()
}

/// The texts that a webhook in Slack's form received.
fn chat(deliveries: &[Value]) -> Vec<String> {
    let text = |delivery: &Value| {
        let body: Value = serde_json::from_str(delivery["body"].as_str().unwrap()).unwrap();
        body["text"].as_str().unwrap().to_owned()
    };
    deliveries.iter().map(text).collect()
}

#[test]
fn each_receiver_is_told_once_in_its_own_form() {
    let mut appliance = Appliance::without_daemon("");
    let mail = appliance.path("mail").display().to_string();
    let program = script(
        &appliance,
        "pager",
        &format!("cat >> {mail}.part && echo ---- >> {mail}.part && cp {mail}.part {mail}"),
    );
    let config = [
        "[alerts]\ninstance = \"shop-1\"\n[steps]\naudit = \"20ms\"\n".to_owned(),
        receiver("chat", "slack", &format!("url = {:?}", appliance.hook("chat"))),
        receiver(
            "phone",
            "ntfy",
            &format!(
                "url = {:?}\ntoken = \"tk_{CANARY}\"\nleast_severity = \"warning\"",
                appliance.hook("phone")
            ),
        ),
        receiver(
            "mail",
            "command",
            &format!("command = {program}\nmail_header = true"),
        ),
    ];
    appliance.configure(&config.concat());
    appliance.start_daemon();
    // A notice: the phone is not notified.
    assert_eq!(appliance.run(&["pause", "intake"]).status, 0);
    let told = chat(&appliance.delivered("chat", 1));
    assert!(
        told[0].starts_with(
            "*[shop-1] notice: Paused by the operator*\n```\nAbout: intake\nintake paused by the operator"
        ),
        "{told:?}"
    );
    assert!(told[0].contains("batchkeeper resume intake"), "{told:?}");
    let letter = wait_for("the program's input", || {
        fs::read_to_string(&mail)
            .ok()
            .filter(|text| text.ends_with("----\n"))
    });
    assert!(
        letter.starts_with("Subject: [shop-1] notice: Paused by the operator\nMIME-Version: 1.0\n"),
        "{letter}"
    );

    // A restart repeats nothing. Changes while the daemon is away are reported after it, in one text.
    let unfinished = "SELECT count(*) FROM alert_notices WHERE state <> 'notified' OR attempts <> 1";
    wait_for("every notice's end", || {
        (appliance.cell::<i64>(unfinished) == 0).then_some(())
    });
    appliance.kill_daemon();
    for scope in ["submissions", "webhooks"] {
        assert_eq!(appliance.run(&["pause", scope]).status, 0);
    }
    assert_eq!(appliance.run(&["resume", "intake"]).status, 0);
    let warning = "INSERT INTO alerts (kind, subject, message, opened_at) VALUES ('webhook_receiver',
        'a' || char(13, 10) || 'X-Evil: <!channel>', 'down <!channel>; see: batchkeeper webhooks', '2026-11-24T00:00:00.000Z')";
    sql(&appliance).execute(warning, []).unwrap();
    appliance.start_daemon();
    let told = chat(&appliance.delivered("chat", 2));
    assert!(
        told[1].starts_with("*[shop-1] warning: 3 alerts opened, 1 closed*"),
        "{told:?}"
    );
    for text in [
        "About: submissions",
        "About: webhooks",
        "closed: Paused by the operator\nAbout: intake",
    ] {
        assert!(told[1].contains(text), "{text}: {told:?}");
    }
    assert!(
        !told[1].contains("<!channel>") && told[1].contains("&lt;!channel&gt;"),
        "{told:?}"
    );

    // The phone gets what is a warning at least.
    let phone = appliance.delivered("phone", 1);
    assert_eq!(
        header(&phone[0], "title"),
        Some("[shop-1] warning: A receiver takes no webhook")
    );
    assert_eq!(header(&phone[0], "priority"), Some("high"));
    assert_eq!(header(&phone[0], "tags"), Some("warning"));
    assert_eq!(
        header(&phone[0], "authorization"),
        Some(&*format!("Bearer tk_{CANARY}"))
    );
    assert_eq!(header(&phone[0], "x-evil"), None);
    let body = phone[0]["body"].as_str().unwrap();
    assert!(
        body.starts_with("About: a\\r\\nX-Evil: <!channel>\ndown <!channel>"),
        "{body}"
    );

    // The end is reported, too; and nothing was reported twice.
    assert_eq!(appliance.run(&["resume", "webhooks"]).status, 0);
    let told = chat(&appliance.delivered("chat", 3));
    assert!(
        told[2].starts_with("*[shop-1] closed: Paused by the operator*"),
        "{told:?}"
    );
    wait_for("every notice's end", || {
        (appliance.cell::<i64>(unfinished) == 0).then_some(())
    });
    assert_eq!(appliance.delivered("phone", 1).len(), 1);
    assert!(!appliance.printed().contains(CANARY));
}

#[test]
fn a_receiver_that_fails_holds_up_no_other_and_its_secrets_stay_secret() {
    let mut appliance = Appliance::without_daemon("");
    let hanging = script(&appliance, "hanging", "sleep 15");
    let failing = script(&appliance, "failing", "yes | head -c 200000 >&2; exit 7");
    fs::write(
        appliance.path("url"),
        format!("{}/services/{CANARY}", appliance.sandbox),
    )
    .unwrap();
    let config = [
        "log = \"debug\"\n[steps]\naudit = \"20ms\"\n".to_owned(),
        receiver("hanging", "command", &format!("command = {hanging}")),
        receiver("failing", "command", &format!("command = {failing}")),
        // The server's 404 repeats the path.
        receiver(
            "gone",
            "slack",
            &format!("url = {{ file = {:?} }}", appliance.path("url")),
        ),
        receiver(
            "closed-port",
            "ntfy",
            &format!("url = \"http://127.0.0.1:1/{CANARY}\""),
        ),
        receiver("chat", "slack", &format!("url = {:?}", appliance.hook("chat"))),
    ];
    appliance.configure(&config.concat());
    appliance.start_daemon();
    assert_eq!(appliance.run(&["pause", "intake"]).status, 0);
    appliance.delivered("chat", 1);
    // The others are tried again, then abandoned. The receiver that works reports it.
    let mut shown = String::new();
    for name in ["failing", "gone", "closed-port"] {
        let told = wait_for("the alert about the receiver", || {
            let told = chat(&appliance.delivered("chat", 1)).join("\n");
            told.contains(&format!("About: alert_receiver:{name}\n"))
                .then_some(told)
        });
        shown.push_str(&told);
    }
    assert!(
        shown.contains("exit status: 7") && shown.contains("HTTP 404"),
        "{shown}"
    );
    let attempts = "SELECT min(attempts) FROM alert_notices WHERE receiver = 'gone' AND state = 'failed'";
    assert_eq!(appliance.cell::<i64>(attempts), 5);

    let page = |path: &str| {
        let answer = call("GET", &format!("{}{path}", appliance.ops), &[], b"");
        String::from_utf8(answer.body).unwrap()
    };
    for path in [
        "/",
        "/alerts",
        "/settings",
        "/health",
        "/metrics",
        "/api/ops/alerts",
    ] {
        shown.push_str(&page(path));
    }
    for command in [
        &["alerts", "show", "1"][..],
        &["alerts"],
        &["config", "show"],
        &["config", "show", "--json"],
        &["check-config"],
    ] {
        let ran = appliance.run(command);
        shown.push_str(&format!("{}{}", ran.out, ran.err));
    }
    shown.push_str(&appliance.printed());
    assert!(
        !shown.contains(CANARY),
        "{}",
        shown.lines().find(|line| line.contains(CANARY)).unwrap()
    );
}

#[test]
fn a_test_is_sent_to_every_receiver() {
    let appliance = Appliance::without_daemon("");
    let none = appliance.run(&["alerts", "test"]);
    assert_eq!(none.status, 2, "{}", none.err);
    assert!(none.err.contains("[[alert_receivers]]"), "{}", none.err);
    let program = script(
        &appliance,
        "pager",
        &format!("cat > {}", appliance.path("got").display()),
    );
    let hooks = [
        format!("[alerts]\nwebhook_url = {:?}\n", appliance.hook("signed")),
        receiver("chat", "slack", &format!("url = {:?}", appliance.hook("chat"))),
        receiver("phone", "ntfy", &format!("url = {:?}", appliance.hook("phone"))),
        receiver("pager", "command", &format!("command = {program}")),
    ];
    appliance.configure(&hooks.concat());
    let all = appliance.run(&["alerts", "test", "--json"]);
    assert_eq!(all.status, 0, "{}{}", all.out, all.err);
    let rows: Vec<Value> = serde_json::from_str(&all.out).unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["receiver"].as_str().unwrap()).collect();
    assert_eq!(names, ["alerts.webhook_url", "chat", "phone", "pager"]);
    assert!(rows.iter().all(|row| row["outcome"] == "taken"), "{rows:?}");
    let signed: Value =
        serde_json::from_str(appliance.delivered("signed", 1)[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(signed["event"], "alert_test");
    assert!(chat(&appliance.delivered("chat", 1))[0].contains("[batchkeeper] test"));
    let phone = appliance.delivered("phone", 1);
    assert_eq!(
        header(&phone[0], "title"),
        Some("[batchkeeper] test: alerts reach this receiver")
    );
    let got = fs::read_to_string(appliance.path("got")).unwrap();
    assert!(got.starts_with("[batchkeeper] test"), "{got}");

    let broken = script(&appliance, "pager", "echo no route >&2; exit 4");
    appliance.configure(&receiver("pager", "command", &format!("command = {broken}")));
    let failed = appliance.run(&["alerts", "test", "pager"]);
    assert_eq!(failed.status, 1, "{}", failed.out);
    assert!(failed.out.contains("exit status: 4: no route"), "{}", failed.out);
    let unknown = appliance.run(&["alerts", "test", "closed-port"]);
    assert_eq!(unknown.status, 2);
    assert!(unknown.err.contains("\"closed-port\""), "{}", unknown.err);
}

#[test]
fn check_config_names_what_is_wrong_with_a_receiver() {
    let appliance = Appliance::without_daemon("[network]\nallow_private = false\n");
    let check = |text: &str| {
        appliance.configure(&format!("[network]\nallow_private = false\n{text}"));
        let ran = appliance.run(&["check-config"]);
        (ran.status, format!("{}{}", ran.out, ran.err))
    };
    let (status, said) = check(&receiver(
        "chat",
        "slack",
        &format!("url = \"http://127.0.0.1/{CANARY}\""),
    ));
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("\"chat\": url") && !said.contains(CANARY), "{said}");
    let (status, said) = check(&receiver(
        "pager",
        "command",
        "command = [\"/nonexistent/pager\"]",
    ));
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("warning: alert_receivers \"pager\""), "{said}");
    let (status, said) = check(&receiver(
        "chat",
        "slack",
        &format!("ulr = \"https://a/{CANARY}\""),
    ));
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("unknown field `ulr`") && !said.contains(CANARY),
        "{said}"
    );
}

#[test]
fn a_batch_near_its_end_and_a_high_share_of_failed_lines_open_alerts() {
    let appliance = Appliance::with("[steps]\naudit = \"20ms\"\n");
    appliance.fault(&json!({"fault": "stall_in_progress"}));
    appliance.job(&appliance.lots(1), &["en"]);
    let running = "SELECT count(*) FROM openai_batches WHERE openai_status = 'in_progress'";
    wait_for("a batch at OpenAI", || {
        (appliance.cell::<i64>(running) > 0).then_some(())
    });
    let change = |text: &str| sql(&appliance).execute(text, []).unwrap();
    let open = |kind: &str| {
        let shown = appliance.run(&["alerts"]).out;
        shown.lines().find(|line| line.contains(kind)).map(str::to_owned)
    };
    assert_eq!(open("batch_expiring"), None);
    change("UPDATE openai_batches SET openai_expires = unixepoch() + 3600");
    let said = wait_for("the alert about the batch", || open("batch_expiring"));
    assert!(said.contains("batch:1"), "{said}");
    change("UPDATE openai_batches SET openai_expires = unixepoch() + 80000");
    wait_for("its end", || open("batch_expiring").is_none().then_some(()));

    change(
        "INSERT INTO minute_stats (minute, what, number)
         VALUES (strftime('%Y-%m-%dT%H:%M', 'now'), 'lines_failed', 300)",
    );
    let said = wait_for("the alert about the lines", || open("failed_lines"));
    assert!(said.contains("lines"), "{said}");
    change("UPDATE minute_stats SET number = 0 WHERE what = 'lines_failed'");
    wait_for("its end", || open("failed_lines").is_none().then_some(()));
}

#[test]
fn failed_lines_are_counted_as_they_are_ingested() {
    let appliance = Appliance::with("");
    appliance.fault(&json!({"fault": "refusal_line", "times": 2}));
    let job = appliance.job(&appliance.lots(5), &["en"]);
    appliance.ended(&job);
    appliance.wait_until_ingested();
    let counted = |what: &str| {
        appliance.cell::<i64>(&format!(
            "SELECT coalesce(sum(number), 0) FROM minute_stats WHERE what = '{what}'"
        ))
    };
    let lines = |outcome: &str| {
        appliance.cell::<i64>(&format!(
            "SELECT count(*) FROM batch_lines WHERE outcome {outcome} 'answered'"
        ))
    };
    assert_eq!(counted("lines_answered"), lines("="));
    assert_eq!(counted("lines_failed"), lines("<>"));
    assert!(counted("lines_failed") > 0);
}
