//! The operators' pages as a place to work: find a lot, see why it waits, page through long lists.

use rusqlite::Connection;
use serde_json::json;

use crate::appliance::{Answer, Appliance, call, submission, wait_for};

const BROWSER: (&str, &str) = ("Accept", "text/html,application/xhtml+xml");

fn get(appliance: &Appliance, path: &str) -> Answer {
    call("GET", &format!("{}{path}", appliance.ops), &[BROWSER], b"")
}

fn html(appliance: &Appliance, path: &str) -> String {
    let answer = get(appliance, path);
    assert_eq!(answer.status, 200, "{path}");
    String::from_utf8(answer.body).unwrap()
}

/// Waits until a page shows a text.
fn shown(appliance: &Appliance, path: &str, what: &str) -> String {
    wait_for(&format!("{what:?} on {path}"), || {
        let page = html(appliance, path);
        page.contains(what).then_some(page)
    })
}

fn database(appliance: &Appliance) -> Connection {
    let database = Connection::open(appliance.database()).unwrap();
    database.busy_timeout(std::time::Duration::from_mins(1)).unwrap();
    database
}

#[test]
fn a_lot_is_found_by_its_id_with_its_texts_and_why_one_is_missing() {
    let appliance = Appliance::with("[images]\ncheck = false");
    let mut lots = appliance.lots(3);
    lots[1]["lot_id"] = json!("angry/1<b>");
    lots[1]["additional_info"] = json!("first line\n<script>alert(1)</script>\u{202e}");
    // The second lot's German translation is refused each time.
    appliance.fault(&json!({"fault": "refusal_line", "match": "_1_de$"}));
    let job = appliance.job(&lots, &["en", "de", "ru"]);
    appliance.results(&job);
    appliance.wait_until_ingested();

    // By the lot's id, and by the beginning of the job's.
    let found = get(&appliance, "/search?q=angry%2F1%3Cb%3E");
    assert_eq!(
        (found.status, found.header("location")),
        (303, Some(format!("/jobs/{job}/lots/1").as_str()))
    );
    let found = get(&appliance, &format!("/search?q={}", &job[..8]));
    assert_eq!(found.header("location"), Some(format!("/jobs/{job}").as_str()));
    // By OpenAI's ids of a batch and of its files.
    for column in [
        "openai_batch_id",
        "input_file_id",
        "output_file_id",
        "submission_key",
    ] {
        let id: String = appliance.cell(&format!("SELECT {column} FROM openai_batches WHERE id = 1"));
        let found = get(&appliance, &format!("/search?q={id}"));
        assert_eq!(found.header("location"), Some("/batches/1"), "{column}");
    }
    assert!(html(&appliance, "/search?q=%3Cb%3E").contains("Nothing is found"));

    let lot = html(&appliance, &format!("/jobs/{job}/lots/1"));
    for part in [
        "Lot angry/1&lt;b&gt;",
        "first line<br>&lt;script&gt;",
        "No text: ",
        "href=\"/batches/1\"",
        "rel=\"noopener noreferrer\"",
        "answered",
        "refused",
        "Previous lot",
    ] {
        assert!(lot.contains(part), "{part}: {lot}");
    }
    assert!(
        !lot.contains('\u{202e}') && !lot.contains("<script>alert"),
        "{lot}"
    );
    let russian: String = appliance.cell(
        "SELECT t.text FROM lot_translations t JOIN batch_lots l ON l.id = t.lot
         WHERE l.position = 1 AND language = 'ru'",
    );
    assert!(
        lot.contains(russian.split(['<', '&', '"', '\n']).next().unwrap()),
        "{russian}: {lot}"
    );

    // Each list leads to it.
    let of_job = html(&appliance, &format!("/jobs/{job}"));
    assert!(of_job.contains(&format!("/jobs/{job}/lots/1\"")), "{of_job}");
    let of_batch = html(&appliance, "/batches/1");
    assert!(of_batch.contains(&format!("/jobs/{job}/lots/1\"")), "{of_batch}");
    assert!(
        of_batch.contains("Time in each state") && of_batch.contains("at OpenAI"),
        "{of_batch}"
    );
    let costs = html(&appliance, "/costs");
    assert!(
        costs.contains("By client") && costs.contains("default") && costs.contains(&job),
        "{costs}"
    );
    let csv = call("GET", &format!("{}/costs.csv", appliance.ops), &[], b"");
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let csv = String::from_utf8(csv.body).unwrap();
    assert!(
        csv.starts_with("client,day,model,") && csv.contains("\r\ndefault,"),
        "{csv}"
    );
    for path in ["/jobs/none/lots/0", "/nothing"] {
        assert_eq!(get(&appliance, path).status, 404, "{path}");
    }
    for missing in [format!("/jobs/{job}/lots/3"), format!("/jobs/{job}/lots/x")] {
        assert_eq!(get(&appliance, &missing).status, 404, "{missing}");
    }
}

#[test]
fn the_settings_show_what_is_in_force_and_no_secret() {
    let appliance = Appliance::with("[alerts]\nwebhook_url = \"https://hooks.example/T0KEN\"");
    let settings = html(&appliance, "/settings");
    for part in [
        "batch.max_wait",
        "150ms",
        "retention.results",
        "default",
        "schema",
        "batchkeeper.db",
    ] {
        assert!(settings.contains(part), "{part}: {settings}");
    }
    assert!(
        !settings.contains("T0KEN") && !settings.contains(crate::appliance::KEY),
        "{settings}"
    );
}

#[test]
fn a_refusal_is_a_page_for_browsers_and_json_for_programs() {
    let appliance = Appliance::start();
    for (path, status) in [
        ("/jobs/none", 404),
        ("/jobs?status=odd", 400),
        ("/jobs?after=x", 400),
        ("/events?since=yesterday", 400),
    ] {
        let page = get(&appliance, path);
        assert_eq!(page.status, status, "{path}");
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8"),
            "{path}"
        );
        assert!(page.header("content-security-policy").is_some());
        let program = call("GET", &format!("{}{path}", appliance.ops), &[], b"");
        assert_eq!(program.header("content-type"), Some("application/json"), "{path}");
        assert!(program.json()["message"].is_string());
    }
    assert_eq!(
        get(&appliance, "/api/ops/jobs").header("content-type"),
        Some("application/json")
    );
}

#[test]
fn a_long_list_is_read_page_by_page() {
    let appliance = Appliance::start();
    let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120)
        INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, total_lots, processed_lots,
                                failed_lots, created_at, updated_at, completed_at)
        SELECT printf('%08x-0000-4000-8000-000000000000', i), 'default', 'api', 'batch',
               CASE i % 3 WHEN 0 THEN 'failed' ELSE 'completed' END, '[\"en\"]', 1, 1, i % 3 = 0,
               '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z' FROM n";
    assert_eq!(database(&appliance).execute(rows, []), Ok(120));
    let next = |page: &str| {
        let (_, rest) = page.split_once("rel=\"next\" href=\"")?;
        Some(rest.split('"').next().unwrap().replace("&amp;", "&"))
    };
    let mut path = Some("/jobs?status=failed".to_owned());
    let mut jobs = 0;
    while let Some(here) = path {
        let page = html(&appliance, &here);
        jobs += page.matches("class=\"id\"").count();
        assert!(page.contains("<option value=\"failed\" selected>"), "{page}");
        // A failed job has no full green bar.
        assert!(page.contains("class=\"bad\" x=\"0\" width=\"100\""), "{page}");
        path = next(&page);
    }
    assert_eq!(jobs, 40);
    let mut path = next(&html(&appliance, "/jobs"));
    let mut pages = 1;
    while let Some(here) = path {
        let page = html(&appliance, &here);
        assert!(page.contains("rel=\"prev\""), "{page}");
        pages += 1;
        path = next(&page);
    }
    assert_eq!(pages, 3);
    assert!(html(&appliance, "/jobs?since=2026-11-25").contains("There is none."));
    assert!(html(&appliance, "/jobs?since=2026-11-24").contains("0000-4000-8000"));
    assert!(html(&appliance, "/jobs?client=other").contains("There is none."));
}

#[test]
fn what_waits_is_shown_with_its_true_cause() {
    let appliance = Appliance::with("[webhooks]\nretry_delays = [\"1h\"]\n[batch]\nmax_wait = \"1h\"");
    appliance.fault(&json!({"fault": "hook_status", "match": "POST /hooks/down", "value": 500}));
    let job = appliance.job(&appliance.lots(2), &["en"]);
    appliance.wait_until_images_are_checked();
    let packing = shown(&appliance, "/", "2 vision requests");
    assert!(
        packing.contains("after batch.max_wait") && packing.contains(">in "),
        "{packing}"
    );
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let paused = shown(&appliance, "/", "submissions to OpenAI are paused");
    // The alert says the rest, once.
    assert_eq!(
        paused.matches("submissions paused by the operator").count(),
        1,
        "{paused}"
    );
    assert!(
        paused.contains("<code class=\"command\">batchkeeper resume submissions</code>"),
        "{paused}"
    );
    assert!(
        paused.contains("Paused by the operator") && !paused.contains("All is well"),
        "{paused}"
    );
    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
    assert_eq!(appliance.run(&["jobs", "cancel", &job]).status, 0);

    // A receiver that fails: when it is tried again stands under `until`.
    let mut body = submission(&appliance.lots(1), &["en"]);
    body["webhook_url"] = json!(appliance.hook("down"));
    let job = appliance.submit(&body).json()["job_id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(appliance.run(&["jobs", "cancel", &job]).status, 0);
    let failing = shown(&appliance, "/", "the last attempt failed");
    assert!(failing.contains("data-label=\"until\"><time"), "{failing}");
    let since = failing.split("data-label=\"since\">").skip(1);
    for cell in since {
        let cell = cell.split("</td>").next().unwrap();
        assert!(!cell.contains(">in "), "{cell}");
    }
    shown(&appliance, "/", "One receiver fails");
}

#[test]
fn a_lot_that_fails_twice_counts_once_and_a_refused_retry_changes_nothing() {
    let appliance = Appliance::with("[images]\ncheck = false");
    appliance.fault(&json!({"fault": "refusal_line", "match": "_1$"}));
    let job = appliance.job(&appliance.lots(4), &["en"]);
    appliance.results(&job);
    appliance.wait_until_ingested();
    let failed = "SELECT coalesce(sum(number), 0) FROM minute_stats WHERE what = 'lots_failed'";
    assert_eq!(appliance.cell::<i64>(failed), 1);
    let ran = appliance.run(&["jobs", "retry", &job, "--failed-lots"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    appliance.results(&job);
    appliance.wait_until_ingested();
    assert_eq!(appliance.cell::<i64>(failed), 1);
    let completed = "SELECT coalesce(sum(number), 0) FROM minute_stats WHERE what = 'lots_completed'";
    assert_eq!(appliance.cell::<i64>(completed), 3);
    let before = appliance.dump();
    let refused = appliance.run(&["jobs", "retry", &job, "--failed-translations"]);
    assert!(refused.out.contains("nothing to send"), "{refused:?}");
    let refused = appliance.run(&["jobs", "retry", &job]);
    assert_ne!(refused.status, 0, "{refused:?}");
    assert_eq!(appliance.dump(), before);
}

#[test]
fn a_client_s_own_words_find_its_jobs_and_lots() {
    let appliance = Appliance::with("[batch]\nmax_wait = \"1h\"");
    let nasty = "\"><script>alert(1)</script>\u{202e}";
    let send = |order: &str, reference: &str| {
        let mut body = submission(&appliance.lots(2), &["en"]);
        body["metadata"] = json!({"order": order, "copy": order, "note <b>": nasty});
        body["lots"][1]["reference"] = json!(reference);
        let answer = appliance.submit(&body);
        assert_eq!(answer.status, 201, "{}", answer.json());
        answer.json()["job_id"].as_str().unwrap().to_owned()
    };
    let first = send("order 1001", "shelf 7/a");
    let second = send("order 1002", nasty);
    let found = |query: &str| {
        let answer = get(&appliance, &format!("/search?q={query}"));
        assert_eq!(answer.status, 303, "{query}");
        answer.header("location").unwrap().to_owned()
    };
    assert_eq!(found("order+1001"), format!("/jobs/{first}"));
    assert_eq!(found("shelf+7%2Fa"), format!("/jobs/{first}/lots/1"));
    // Two jobs have the same value, and a lot has it as its reference.
    let shown = html(
        &appliance,
        "/search?q=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E%E2%80%AE",
    );
    for part in [
        format!("/jobs/{first}\""),
        format!("/jobs/{second}\""),
        format!("/jobs/{second}/lots/1\""),
    ] {
        assert!(shown.contains(&part), "{part}: {shown}");
    }
    let listed = html(&appliance, "/jobs?metadata=order+1002");
    assert!(listed.contains(&second) && !listed.contains(&first), "{listed}");
    assert_eq!(listed.matches("class=\"id\"").count(), 1, "{listed}");
    let both = html(
        &appliance,
        &format!(
            "/jobs?status=pending&client=default&metadata={}",
            "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E%E2%80%AE"
        ),
    );
    assert_eq!(both.matches("class=\"id\"").count(), 2, "{both}");
    assert!(html(&appliance, "/jobs?metadata=order").contains("There is none."));
    assert!(!both.contains("<script>alert"), "{both}");
    let job = html(&appliance, &format!("/jobs/{second}"));
    assert!(job.contains("The client's metadata"), "{job}");
    let lot = html(&appliance, &format!("/jobs/{second}/lots/1"));
    for page in [&shown, &listed, &job, &lot] {
        assert!(
            !page.contains("<script>alert") && !page.contains('\u{202e}'),
            "{page}"
        );
    }
    assert!(
        lot.contains("reference") && lot.contains("&lt;script&gt;"),
        "{lot}"
    );
}

#[test]
fn a_month_is_shown_by_the_hour_and_costs_by_the_day() {
    let appliance = Appliance::start();
    let job = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&job);
    appliance.wait_until_ingested();
    // Minutes of an hour 20 days ago, and of one 40 days ago.
    database(&appliance)
        .execute_batch(
            "WITH RECURSIVE n (n) AS (SELECT 10 UNION ALL SELECT n + 1 FROM n WHERE n < 40)
             INSERT INTO minute_stats SELECT strftime('%Y-%m-%dT%H:', 'now', d || ' days') || n, 'lots_completed', 3, 7
             FROM n, (SELECT -20 AS d UNION ALL SELECT -40);",
        )
        .unwrap();
    wait_for("the minutes to be added up", || {
        let rows = "SELECT group_concat(number || ' ' || millis) FROM minute_stats
                    WHERE minute < strftime('%Y-%m-%dT%H:%M', 'now', '-9 days') AND what = 'lots_completed'";
        (appliance.cell::<Option<String>>(rows).as_deref() == Some("93 217")).then_some(())
    });
    let month = html(&appliance, "/?span=month");
    assert!(
        month.contains("href=\"/?span=month\" aria-current=\"true\""),
        "{month}"
    );
    assert!(month.contains("95 lots completed in the last month"), "{month}");
    let day = appliance.cell::<String>("SELECT date('now')");
    let costs = html(&appliance, "/costs");
    assert!(
        costs.contains("Cost per day") && costs.contains(&format!("<title>{day}: $0.")),
        "{costs}"
    );
}
