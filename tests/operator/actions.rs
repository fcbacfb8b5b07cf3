//! What operators change on the pages: in two steps, once, with a row of the audit; and what is refused.

use serde_json::json;

use crate::appliance::{Answer, Appliance, call, sign_bytes, submission, wait_for};

const TOKEN: &str = "the operators' token of the test";
const READ_TOKEN: &str = "a token of the test that may read";
const OWN_PAGE: (&str, &str) = ("Sec-Fetch-Site", "same-origin");

/// A daemon whose pages may act. `config` (TOML) is added.
fn appliance(config: &str) -> Appliance {
    let mut appliance = Appliance::without_daemon("");
    for (name, token) in [("ops.token", TOKEN), ("read.token", READ_TOKEN)] {
        std::fs::write(appliance.path(name), token).unwrap();
    }
    appliance.configure(&format!(
        "ops_actions = true\nops_token_file = {:?}\nops_read_token_file = {:?}\n{config}",
        appliance.path("ops.token"),
        appliance.path("read.token"),
    ));
    appliance.start_daemon();
    appliance
}

fn ask(appliance: &Appliance, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let bearer = format!("Bearer {TOKEN}");
    let mut all = vec![("Accept", "text/html"), ("Authorization", bearer.as_str())];
    if headers.iter().any(|(name, _)| *name == "Authorization") {
        all.pop();
    }
    all.extend_from_slice(headers);
    call(method, &format!("{}{path}", appliance.ops), &all, body.as_bytes())
}

fn html(answer: Answer) -> String {
    String::from_utf8(answer.body).unwrap()
}

fn page(appliance: &Appliance, path: &str) -> String {
    let answer = ask(appliance, "GET", path, &[], "");
    assert_eq!(answer.status, 200, "{path}");
    html(answer)
}

/// The body that a browser sends for the form of a page.
fn form(page: &str, typed: &str) -> String {
    let hidden = page.split("<input type=\"hidden\" name=\"").skip(1);
    let unescape = |text: &str| {
        text.replace("&quot;", "\"")
            .replace("&lt;", "<")
            .replace("&amp;", "&")
    };
    let encode = |text: &str| {
        let bytes = unescape(text);
        bytes
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect::<String>()
    };
    let mut body: String = hidden
        .map(|field| {
            let mut parts = field.split('"');
            let name = parts.next().unwrap();
            let value = parts.nth(1).unwrap();
            format!("{name}={}&", encode(value))
        })
        .collect();
    body.push_str(&format!("typed={typed}"));
    body
}

#[test]
fn a_failed_lot_is_sent_again_in_two_steps_and_once() {
    let appliance = appliance("[images]\ncheck = false");
    appliance.fault(&json!({"fault": "refusal_line", "match": "_1$", "times": 1}));
    let job = appliance.job(&appliance.lots(3), &["en", "de"]);
    appliance.results(&job);
    appliance.wait_until_ingested();
    let of_job = page(&appliance, &format!("/jobs/{job}"));
    let address = format!("/actions/retry_failed_lots?subject={job}");
    assert!(of_job.contains(&address), "{of_job}");

    // The effect in numbers, before anything is changed.
    let before = appliance.dump();
    let effect = page(&appliance, &address);
    assert!(
        effect.contains("1 lot: 1 description and 1 translation are sent."),
        "{effect}"
    );
    assert!(effect.contains("at most some 0.00"), "{effect}");
    let send = |headers: &[(&str, &str)], body: &str| {
        ask(&appliance, "POST", "/actions/retry_failed_lots", headers, body)
    };
    // Nothing but a form of an own page, with the text typed, changes anything.
    let own = form(&effect, &job[..8]);
    for (headers, body, status) in [
        (&[][..], own.clone(), 403),
        (&[("Sec-Fetch-Site", "cross-site")][..], own.clone(), 403),
        (&[("Sec-Fetch-Site", "none")][..], own.clone(), 403),
        (&[("Origin", "https://evil.example")][..], own.clone(), 403),
        (&[OWN_PAGE][..], own.replace("nonce=%", "nonce=%41%"), 403),
        (&[OWN_PAGE][..], form(&effect, "yes"), 400),
        (&[OWN_PAGE][..], String::new(), 403),
    ] {
        let refused = send(headers, &body);
        assert_eq!(refused.status, status, "{headers:?} {body}");
        assert!(refused.header("content-security-policy").is_some());
    }
    assert_eq!(appliance.dump(), before);

    // A double click sends the same form twice.
    for _ in 0..2 {
        let done = send(&[OWN_PAGE], &own);
        assert_eq!(
            (done.status, done.header("location")),
            (303, Some(format!("/jobs/{job}").as_str()))
        );
    }
    assert_eq!(
        appliance.cell::<i64>("SELECT count(*) FROM operator_actions WHERE outcome_of IS NULL"),
        1
    );
    appliance.results(&job);
    appliance.wait_until_ingested();
    let failed = "SELECT failed_lots FROM batch_jobs";
    assert_eq!(appliance.cell::<i64>(failed), 0);
    let audit = page(&appliance, "/audit");
    for part in ["retry_failed_lots", "127.0.0.1", "lots=1", "1 failed", &job] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    assert!(appliance.daemon_said("event=operator_action action=retry_failed_lots"));

    // A job that has ended cannot be cancelled.
    let other = page(&appliance, &format!("/actions/cancel_job?subject={job}"));
    let refused = ask(
        &appliance,
        "POST",
        "/actions/cancel_job",
        &[OWN_PAGE],
        &form(&other, &job[..8]),
    );
    assert_eq!(refused.status, 409);
    appliance.assert_sound();
}

#[test]
fn a_page_that_shows_an_old_state_changes_nothing() {
    let appliance = appliance("");
    let pause = page(&appliance, "/actions/pause?subject=intake");
    // Another person pauses it meanwhile.
    assert_eq!(appliance.run(&["pause", "intake"]).status, 0);
    let refused = ask(
        &appliance,
        "POST",
        "/actions/pause",
        &[OWN_PAGE],
        &form(&pause, ""),
    );
    assert_eq!(refused.status, 409);
    assert!(html(refused).contains("now: paused. Nothing was done; look again."));
    let origin = appliance.ops.clone();
    let resume = page(&appliance, "/actions/resume?subject=intake");
    // A browser without Fetch Metadata says its origin.
    let done = ask(
        &appliance,
        "POST",
        "/actions/resume",
        &[("Origin", origin.as_str())],
        &form(&resume, ""),
    );
    assert_eq!((done.status, done.header("location")), (303, Some("/alerts")));
    let actions = appliance
        .row("SELECT group_concat(action || ' ' || origin) FROM operator_actions WHERE outcome_of IS NULL");
    assert_eq!(actions, [json!("pause command line,resume 127.0.0.1")]);
}

#[test]
fn an_alert_is_acknowledged_and_a_webhook_is_tried_now_and_sent_again() {
    let appliance = appliance("[webhooks]\nretry_delays = [\"1h\"]");
    appliance.fault(&json!({"fault": "hook_status", "match": "POST /hooks/down", "value": 500, "times": 1}));
    let mut body = crate::appliance::submission(&appliance.lots(1), &["en"]);
    body["webhook_url"] = json!(appliance.hook("down"));
    appliance.submit(&body);
    wait_for("a delivery that waits", || {
        let waits =
            "SELECT count(*) FROM webhook_deliveries WHERE state = 'due' AND attempts = 1 AND in_flight = 0";
        (appliance.cell::<i64>(waits) == 1).then_some(())
    });
    let list = page(&appliance, "/webhooks");
    assert!(list.contains("/actions/try_webhook?subject=1"), "{list}");
    let now = page(&appliance, "/actions/try_webhook?subject=1");
    let done = ask(
        &appliance,
        "POST",
        "/actions/try_webhook",
        &[OWN_PAGE],
        &form(&now, ""),
    );
    assert_eq!(done.status, 303, "{:?}", done.header("location"));
    appliance.delivered("down", 1);
    wait_for("the delivery's end", || {
        let over = "SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'";
        (appliance.cell::<i64>(over) == 1).then_some(())
    });
    let again = page(&appliance, "/actions/resend_webhook?subject=1");
    let done = ask(
        &appliance,
        "POST",
        "/actions/resend_webhook",
        &[OWN_PAGE],
        &form(&again, ""),
    );
    assert_eq!(done.status, 303, "{:?}", done.header("location"));
    appliance.delivered("down", 2);

    assert_eq!(appliance.run(&["pause", "webhooks"]).status, 0);
    let alerts = page(&appliance, "/alerts");
    assert!(
        alerts.contains("/actions/acknowledge_alert?subject=1"),
        "{alerts}"
    );
    let noted = page(&appliance, "/actions/acknowledge_alert?subject=1");
    let done = ask(
        &appliance,
        "POST",
        "/actions/acknowledge_alert",
        &[OWN_PAGE],
        &form(&noted, ""),
    );
    assert_eq!(done.status, 303, "{:?}", done.header("location"));
    assert!(page(&appliance, "/alerts").contains("acknowledged"));
}

#[test]
fn the_read_token_reads_but_neither_texts_nor_changes() {
    let appliance = appliance("[images]\ncheck = false");
    let job = appliance.job(&appliance.lots(1), &["en"]);
    appliance.results(&job);
    let bearer = format!("Bearer {READ_TOKEN}");
    let read = [("Authorization", bearer.as_str())];
    let of_job = html(ask(&appliance, "GET", &format!("/jobs/{job}"), &read, ""));
    assert!(
        of_job.contains("completed") && !of_job.contains("/actions/"),
        "{of_job}"
    );
    let lot = html(ask(&appliance, "GET", &format!("/jobs/{job}/lots/0"), &read, ""));
    assert!(
        lot.contains("does not show texts") && !lot.contains("Volvo"),
        "{lot}"
    );
    let whole = page(&appliance, &format!("/jobs/{job}/lots/0"));
    assert!(whole.contains("Volvo"), "{whole}");
    assert_eq!(
        ask(&appliance, "GET", "/actions/pause?subject=intake", &read, "").status,
        403
    );
    let own = form(&page(&appliance, "/actions/pause?subject=intake"), "");
    let headers = [("Authorization", bearer.as_str()), OWN_PAGE];
    assert_eq!(
        ask(&appliance, "POST", "/actions/pause", &headers, &own).status,
        403
    );
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM pauses"), 0);
    for (path, status) in [
        ("/actions/pause?subject=openai", 404),
        ("/actions/abandon_batch?subject=1", 404),
        ("/actions/odd?subject=1", 404),
        ("/actions/cancel_job?subject=none", 404),
    ] {
        assert_eq!(ask(&appliance, "GET", path, &[], "").status, status, "{path}");
    }
}

#[test]
fn without_ops_actions_the_pages_only_read() {
    let appliance = Appliance::start();
    for path in ["/actions/pause?subject=intake", "/actions/pause"] {
        let url = format!("{}{path}", appliance.ops);
        assert_eq!(call("GET", &url, &[], b"").status, 404, "{path}");
        let refused = call("POST", &url, &[OWN_PAGE], b"");
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, Some("GET, HEAD")),
            "{path}"
        );
    }
    let alerts = call("GET", &format!("{}/alerts", appliance.ops), &[], b"");
    assert!(!html(alerts).contains("/actions/"));
    let mut refused = Appliance::without_daemon("ops_actions = true");
    refused.configure("ops_actions = true");
    let checked = refused.run(&["check-config"]);
    assert!(
        checked.err.contains("ops_actions needs ops_token_file"),
        "{checked:?}"
    );
    refused.kill_daemon();
}

#[test]
fn a_change_by_a_command_is_in_the_audit() {
    let appliance = Appliance::with("[batch]\nmax_wait = \"1h\"");
    let job = appliance.job(&appliance.lots(2), &["en"]);
    for command in [
        &["jobs", "cancel", &job][..],
        &["pause", "webhooks"],
        &["resume", "webhooks"],
        &["clock", "confirm"],
    ] {
        assert_eq!(appliance.run(command).status, 0, "{command:?}");
    }
    // Nothing was changed: no row.
    assert_eq!(appliance.run(&["resume", "webhooks"]).status, 0);
    assert_ne!(appliance.run(&["jobs", "cancel", &job]).status, 0);
    let rows = appliance.row(
        "SELECT group_concat(action || ' ' || subject, '; ') FROM operator_actions WHERE outcome_of IS NULL",
    );
    let expected = format!("cancel_job {job}; pause webhooks; resume webhooks; confirm_clock clock");
    assert_eq!(rows, [json!(expected)]);
}

/// The outcome row of a kind of action, once it is there.
fn outcome(appliance: &Appliance, kind: &str) -> String {
    let sql = format!(
        "SELECT max(detail) FROM operator_actions WHERE action = '{kind}' AND outcome_of IS NOT NULL"
    );
    wait_for("the outcome", || appliance.cell::<Option<String>>(&sql))
}

/// Sends the form of an action's page; `typed` is what is typed.
fn act(appliance: &Appliance, address: &str, typed: &str) -> Answer {
    let effect = page(appliance, address);
    let (path, _) = address.split_once('?').unwrap();
    ask(appliance, "POST", path, &[OWN_PAGE], &form(&effect, typed))
}

#[test]
fn all_webhooks_of_a_receiver_are_sent_again_and_the_outcome_is_a_row() {
    let appliance = appliance("");
    let jobs: Vec<String> = (0..3)
        .map(|_| {
            let mut body = submission(&appliance.lots(1), &["en"]);
            body["webhook_url"] = json!(appliance.hook("again"));
            let answer = appliance.submit(&body);
            answer.json()["job_id"].as_str().unwrap().to_owned()
        })
        .collect();
    for job in &jobs {
        appliance.ended(job);
    }
    appliance.delivered("again", 3);
    wait_for("the deliveries' ends", || {
        let open = "SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered'";
        (appliance.cell::<i64>(open) == 0).then_some(())
    });
    let host = appliance.cell::<String>("SELECT host FROM webhook_deliveries LIMIT 1");
    let day = appliance.cell::<String>("SELECT date('now')");
    // Without a day there is no link.
    assert!(!page(&appliance, &format!("/webhooks?receiver={host}")).contains("/actions/resend_webhooks"));
    let list = page(&appliance, &format!("/webhooks?receiver={host}&since={day}"));
    let link = |kind: &str| {
        let (_, rest) = list.split_once(&format!("href=\"/actions/{kind}?")).expect(kind);
        format!("/actions/{kind}?{}", rest.split('"').next().unwrap())
    };
    let address = link("resend_webhooks");
    let effect = page(&appliance, &address);
    assert!(effect.contains("3 webhooks of jobs that ended from"), "{effect}");
    assert_eq!(act(&appliance, &address, "2").status, 400);
    let done = act(&appliance, &address, "3");
    assert_eq!(done.status, 303);
    let place = done.header("location").unwrap().to_owned();
    appliance.delivered("again", 6);
    assert_eq!(outcome(&appliance, "resend_webhooks"), "sent_again=3");
    let audit = page(&appliance, &place);
    assert!(
        audit.contains("outcome of resend_webhooks") && audit.contains("sent_again=3"),
        "{audit}"
    );
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM operator_tasks"), 0);

    // A test event, signed as the client's webhooks.
    assert_eq!(act(&appliance, &link("send_test_event"), "").status, 303);
    assert_eq!(outcome(&appliance, "send_test_event"), "status=200");
    let events = appliance.delivered("again", 7);
    let body = events[6]["body"].as_str().unwrap();
    assert!(body.contains("\"event\":\"test\""), "{body}");
    let headers = events[6]["headers"].as_array().unwrap();
    let signature = headers.iter().find(|pair| pair[0] == "x-signature").unwrap();
    assert_eq!(signature[1], sign_bytes(body.as_bytes()));
    appliance.assert_sound();
}

#[test]
fn a_backup_is_made_from_the_page_and_its_outcome_is_a_row() {
    let without = appliance("");
    assert!(!page(&without, "/settings").contains("/actions/back_up"));
    let refused = act(&without, "/actions/back_up?subject=database", "");
    assert_eq!(refused.status, 409);
    drop(without);
    let appliance = appliance("[backup]\ndir = \"/nonexistent\"");
    assert!(page(&appliance, "/settings").contains("/actions/back_up?subject=database"));
    // A folder that cannot be made.
    let folder = "[backup]\ndir = \"/proc/backups\"";
    drop(appliance);
    let failing = self::appliance(folder);
    assert_eq!(act(&failing, "/actions/back_up?subject=database", "").status, 303);
    assert!(outcome(&failing, "back_up").starts_with("failed="));
    drop(failing);
    let copies = tempfile::tempdir().unwrap();
    let working = self::appliance(&format!("[backup]\ndir = {:?}", copies.path().join("copies")));
    assert_eq!(act(&working, "/actions/back_up?subject=database", "").status, 303);
    let made = outcome(&working, "back_up");
    assert!(made.contains("file=") && made.contains("rows="), "{made}");
    assert_eq!(
        std::fs::read_dir(copies.path().join("copies")).unwrap().count(),
        1
    );
    assert_eq!(working.cell::<i64>("SELECT count(*) FROM backups"), 1);
}

#[test]
fn the_outcome_of_a_change_of_a_job_is_a_second_row() {
    let appliance = appliance("[images]\ncheck = false");
    appliance.fault(&json!({"fault": "refusal_line", "match": "_1$", "times": 1}));
    let job = appliance.job(&appliance.lots(3), &["en"]);
    appliance.results(&job);
    let address = format!("/actions/retry_failed_lots?subject={job}");
    assert_eq!(act(&appliance, &address, &job[..8]).status, 303);
    let retried = outcome(&appliance, "retry_failed_lots");
    assert_eq!(retried, "status=completed lots=3 failed_lots=0");
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    // More lots than one transaction changes.
    let other = appliance.job(&appliance.lots(70), &["en"]);
    let address = format!("/actions/cancel_job?subject={other}");
    assert_eq!(act(&appliance, &address, &other[..8]).status, 303);
    let cancelled = outcome(&appliance, "cancel_job");
    assert!(cancelled.starts_with("status=cancelled lots=70"), "{cancelled}");
    // One outcome for each change, and none is changed afterwards.
    let rows = "SELECT count(*) FROM operator_actions WHERE outcome_of IS NOT NULL";
    assert_eq!(appliance.cell::<i64>(rows), 2);
}
