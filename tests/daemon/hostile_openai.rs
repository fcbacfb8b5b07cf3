//! A hostile or broken OpenAI: token counts that no line can have, and an answer that names another batch.

use crate::appliance::{Appliance, Ran, assert_results, call, wait_for};
use serde_json::{Value, json};

/// Waits for an open alert of a kind and gives its message.
fn alert(appliance: &Appliance, kind: &str) -> String {
    wait_for(kind, || {
        let alerts: Value = serde_json::from_str(&appliance.run(&["alerts", "--json"]).out).unwrap();
        let found = alerts.as_array()?.iter().find(|alert| alert["kind"] == kind)?;
        Some(found["message"].as_str()?.to_owned())
    })
}

/// Checks that every view of the costs answers, and that none of them is a fraction.
fn assert_costs_are_shown(appliance: &Appliance) {
    for path in ["/", "/metrics", "/health", "/api/ops/costs"] {
        let answer = call("GET", &format!("{}{path}", appliance.ops), &[], b"");
        assert_eq!(
            answer.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
    }
    for command in [
        &["report"][..],
        &["report", "--json"],
        &["doctor"],
        &["jobs", "list"],
    ] {
        let Ran { status, out, err } = appliance.run(command);
        assert_eq!(status, 0, "{command:?}: {out}{err}");
    }
    let real = "SELECT count(*) FROM v_costs WHERE typeof(input_tokens) = 'real' OR typeof(cost_picodollars) = 'real'";
    assert_eq!(appliance.cell::<i64>(real), 0);
}

/// Runs a job whose descriptions state `tokens` of input and of output, under a total budget.
fn run_with_absurd_usage(tokens: u64) {
    let appliance = Appliance::with(
        "[budgets]\nshow_costs = true\ntotal = { per_day = \"100\", per_month = \"1000\" }\n[steps]\naudit = \"100ms\"",
    );
    let lots = appliance.lots(12);
    let job = appliance.job(&lots, &["en", "de"]);
    let results = appliance.results(&job);
    let measured = appliance.cell::<i64>("SELECT sum(input_tokens) FROM openai_batches");
    assert_results(&results, &lots, &["en", "de"], &[]);
    appliance.fault(&json!({"fault": "absurd_usage", "match": "kind:description", "value": tokens}));
    let job = appliance.in_one_batch(|| appliance.job(&lots, &["en", "de"]));
    let results = appliance.results(&job);
    assert_results(&results, &lots, &["en", "de"], &[]);
    assert_eq!(
        results["processing_details"]["cost"]["usd"],
        Value::Null,
        "{results}"
    );
    appliance.wait_until_ingested();
    assert_costs_are_shown(&appliance);
    let batch: String = appliance.cell("SELECT openai_batch_id FROM openai_batches WHERE usage_unknown > 0");
    // A line names its job without the dashes.
    let line = format!("v_{}", job.replace('-', ""));
    wait_for("the alert that names batch, line and tokens", || {
        let message = alert(&appliance, "usage_unknown");
        let parts = [batch.as_str(), &line, &tokens.to_string(), "in 12 of its lines"];
        parts.iter().all(|part| message.contains(part)).then_some(())
    });
    // The estimate of the next job is what the first one took.
    let job = appliance.job(&lots, &["en", "de"]);
    let estimated = format!("SELECT estimated_tokens FROM batch_jobs WHERE id = '{job}'");
    assert!(appliance.cell::<i64>(&estimated) < 2 * measured);
    appliance.clear_faults();
    appliance.results(&job);
    appliance.assert_sound();
    assert_costs_are_shown(&appliance);
}

#[test]
fn usage_beyond_an_integer_s_range_is_stored_as_unknown() {
    run_with_absurd_usage(9_000_000_000_000_000_000);
}

#[test]
fn usage_beyond_a_model_s_window_is_stored_as_unknown() {
    run_with_absurd_usage(4_294_967_295);
}

#[test]
fn an_unknown_usage_counts_in_a_budget_at_its_reservation() {
    let appliance = Appliance::with("[budgets]\ntotal = { per_day = \"100\" }");
    appliance.fault(&json!({"fault": "absurd_usage"}));
    let reserved = "SELECT coalesce(sum(cost), 0) FROM reservations";
    let lots = appliance.lots(4);
    appliance.results(&appliance.job(&lots, &["en"]));
    appliance.wait_until_ingested();
    let kept = appliance.cell::<i64>(reserved);
    assert!(kept > 0);
    let costs = call("GET", &format!("{}/api/ops/costs", appliance.ops), &[], b"").json();
    assert!(costs["budgets"][0]["reserved_usd"] != "0.000000", "{costs}");
    // Half of the lines of the next batch are known.
    appliance.clear_faults();
    appliance.fault(&json!({"fault": "absurd_usage", "times": 2}));
    appliance.results(&appliance.job(&lots, &["en"]));
    appliance.wait_until_ingested();
    assert_eq!(appliance.cell::<i64>(reserved) - kept, kept / 2);
}

#[test]
fn a_synchronous_answer_with_an_absurd_usage_counts_in_a_budget() {
    let appliance = Appliance::with(
        "[budgets]\ntotal = { per_day = \"100\" }\n[synchronous]\nenabled = true\n[steps]\naudit = \"100ms\"",
    );
    appliance.fault(&json!({"fault": "absurd_usage"}));
    let answer = appliance.submit(&crate::appliance::submission(&appliance.lots(1), &["en"]));
    assert_eq!(answer.status, 200, "{}", answer.json());
    let job = answer.json()["job_id"].as_str().unwrap().to_owned();
    appliance.results(&job);
    assert!(alert(&appliance, "usage_unknown").contains(&job));
    let reserved = "SELECT coalesce(sum(cost), 0) FROM reservations WHERE batch_id IS NULL";
    assert!(appliance.cell::<i64>(reserved) > 0);
    assert_costs_are_shown(&appliance);
}

#[test]
fn a_create_answered_with_a_known_id_is_a_lost_answer() {
    let mut appliance = Appliance::with("[openai]\nsettling_time = \"2s\"\ncreate_timeout = \"1s\"");
    appliance.results(&appliance.job(&appliance.lots(2), &["en"]));
    appliance.fault(&json!({"fault": "create_known_id", "times": 1}));
    let lots = appliance.lots(3);
    let job = appliance.job(&lots, &["en"]);
    assert_results(&appliance.results(&job), &lots, &["en"], &[]);
    let said = "SELECT message FROM alerts WHERE kind = 'create_unclear'";
    let first: String = appliance.cell("SELECT openai_batch_id FROM openai_batches ORDER BY id LIMIT 1");
    let message: String = appliance.cell(said);
    assert!(message.contains(&first), "{message}");
    let open = "SELECT count(*) FROM alerts WHERE kind = 'create_unclear' AND closed_at IS NULL";
    assert_eq!(appliance.cell::<i64>(open), 0);
    appliance.assert_sound();
    appliance.kill_daemon();
    appliance.start_daemon();
    appliance.assert_sound();
}

/// Calls the sandbox as another program with the same key.
fn at_openai(appliance: &Appliance, path: &str, content_type: &str, body: &str) -> Value {
    let headers = [
        ("Authorization", "Bearer sk-sandbox"),
        ("Content-Type", content_type),
    ];
    let answer = call(
        "POST",
        &format!("{}/v1/{path}", appliance.sandbox),
        &headers,
        body.as_bytes(),
    );
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()
}

/// Makes a batch from these lines that carries the database's id; gives OpenAI's id of it.
fn strange_batch(appliance: &Appliance, lines: &str) -> String {
    let part = "--x\r\nContent-Disposition: form-data; name=";
    let form = format!(
        "{part}\"purpose\"\r\n\r\nbatch\r\n{part}\"file\"; filename=\"theirs.jsonl\"\r\n\r\n{lines}\r\n--x--\r\n"
    );
    let file = at_openai(appliance, "files", "multipart/form-data; boundary=x", &form);
    let database: String = appliance.cell("SELECT database_id FROM instance");
    let create = json!({"input_file_id": file["id"], "endpoint": "/v1/responses", "completion_window": "24h",
                        "metadata": {"batchkeeper": database, "stage": "vision"}});
    let batch = at_openai(appliance, "batches", "application/json", &create.to_string());
    batch["id"].as_str().unwrap().to_owned()
}

/// An appliance whose creates are stopped by a batch with these lines; gives OpenAI's id of it.
fn stopped_by(lines: impl Fn(&Appliance) -> String) -> (Appliance, String) {
    let mut appliance = Appliance::with("[steps]\naudit = \"100ms\"");
    appliance.results(&appliance.job(&appliance.lots(2), &["en"]));
    appliance.wait_until_ingested();
    let batch = strange_batch(&appliance, &lines(&appliance));
    appliance.kill_daemon();
    appliance.start_daemon();
    alert(&appliance, "restored_database");
    (appliance, batch)
}

/// A line of an input file, with or without a custom id.
fn input_line(custom_id: Option<&str>) -> String {
    let mut line =
        json!({"method": "POST", "url": "/v1/responses", "body": {"model": "gpt-6-luna", "input": "theirs"}});
    if let Some(id) = custom_id {
        line["custom_id"] = json!(id);
    }
    format!("{line}\n")
}

/// Runs `recover` with these options.
fn recover(appliance: &Appliance, options: &[&str]) -> Ran {
    appliance.run(&[&["recover"], options].concat())
}

#[test]
fn a_strange_batch_with_the_database_s_id_is_ignored_on_request() {
    let (mut appliance, batch) = stopped_by(|_| input_line(None).repeat(2));
    let found = recover(&appliance, &[]);
    assert_eq!(found.status, 1, "{found:?}");
    assert!(
        found.out.contains(&format!("recover --ignore {batch} --apply")),
        "{}",
        found.out
    );
    // It has no line that could be linked.
    let applied = recover(&appliance, &["--apply"]);
    assert!(applied.out.contains("creates stay stopped"), "{applied:?}");
    let looked = recover(&appliance, &["--ignore", &batch]);
    assert!(looked.out.contains("nothing was changed"), "{looked:?}");
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM ignored_batches"), 0);
    let job = appliance.job(&appliance.lots(2), &["en"]);
    let ignored = recover(&appliance, &["--ignore", &batch, "--apply"]);
    assert_eq!(ignored.status, 0, "{ignored:?}");
    assert!(ignored.out.contains("creates go on"), "{}", ignored.out);
    appliance.results(&job);
    let report = appliance.run(&["report", "--json"]);
    assert_eq!(report.status, 0, "{report:?}");
    let report: Value = serde_json::from_str(&report.out).unwrap();
    assert_eq!(report["ignored"][0]["openai_batch_id"], json!(batch), "{report}");
    assert!(appliance.run(&["report"]).out.contains("ignored by the operator"));
    // It stops nothing after the next start either.
    appliance.kill_daemon();
    appliance.start_daemon();
    appliance.results(&appliance.job(&appliance.lots(1), &["en"]));
    assert_eq!(recover(&appliance, &[]).status, 0);
    appliance.assert_sound();
}

#[test]
fn a_batch_with_a_line_of_this_program_is_never_ignored() {
    let (appliance, batch) = stopped_by(|appliance| {
        let job: String = appliance.cell("SELECT replace(id, '-', '') FROM batch_jobs");
        input_line(None) + &input_line(Some(&format!("v_{job}_0")))
    });
    for options in [
        &["--ignore", &batch, "--apply"][..],
        &["--ignore", &batch, "--unread", &batch, "--apply"],
    ] {
        let refused = recover(&appliance, options);
        assert_eq!(refused.status, 1, "{refused:?}");
        assert!(
            refused.err.contains("has a custom id of this program"),
            "{}",
            refused.err
        );
    }
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM ignored_batches"), 0);
    let known: String = appliance.cell("SELECT openai_batch_id FROM openai_batches");
    let refused = recover(&appliance, &["--ignore", &known, "--apply"]);
    assert!(refused.err.contains("has its row already"), "{}", refused.err);
}

#[test]
fn a_batch_whose_input_cannot_be_read_is_ignored_after_its_id_is_repeated() {
    let (appliance, batch) = stopped_by(|_| input_line(None));
    appliance.fault(&json!({"fault": "refuse", "match": ["GET /v1/files/", "/content"], "value": 403}));
    let found = recover(&appliance, &[]);
    assert!(
        found.out.contains(&format!("recover --ignore {batch}")),
        "{}",
        found.out
    );
    for options in [
        &["--ignore", &batch, "--apply"][..],
        &["--ignore", &batch, "--unread", "batch_other", "--apply"],
    ] {
        let refused = recover(&appliance, options);
        assert_eq!(refused.status, 1, "{refused:?}");
        assert!(
            refused.err.contains(&format!("--unread {batch} --apply")),
            "{}",
            refused.err
        );
    }
    assert_eq!(
        recover(&appliance, &["--ignore", &batch, "--unread", &batch, "--apply"]).status,
        0
    );
    let evidence: String = appliance.cell("SELECT evidence FROM ignored_batches");
    assert!(evidence.contains("the operator has confirmed it"), "{evidence}");
    appliance.clear_faults();
    appliance.results(&appliance.job(&appliance.lots(1), &["en"]));
}
