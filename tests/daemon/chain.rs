//! The whole chain: signed jobs over HTTP, two stages at a simulated OpenAI, results and webhooks.

use std::collections::BTreeSet;

use crate::appliance::{
    Appliance, assert_results, described, in_languages, key, now, sign_bytes, submission, wait_for,
};
use batchkeeper::domain::signature::{ReceivedWebhook, webhook_secret};
use batchkeeper::python_json::write_canonical_value;
use serde_json::{Value, json};

const LANGUAGES: [&str; 3] = ["en", "ru", "de"];

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.parse::<uuid::Uuid>().is_ok()
}

/// `2026-11-24T02:24:00Z`
fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        text.len() == 20 && text.ends_with('Z') && text.parse::<batchkeeper::base::clock::Timestamp>().is_ok()
    })
}

/// Checks the fields of a status that are the same in all stages.
fn check_status(status: &Value, job: &str, stage: &str) {
    assert_eq!(
        members(status),
        BTreeSet::from([
            "job_id",
            "status",
            "created_at",
            "updated_at",
            "completed_at",
            "progress",
            "languages",
            "processing_details",
            "openai_batch_id",
            "openai_vision_batch_id",
            "openai_translation_batch_id",
            "openai_batch_ids",
            "error_message",
            "error",
            "webhook_configured",
        ])
    );
    assert_eq!(
        members(&status["progress"]),
        BTreeSet::from([
            "total_lots",
            "processed_lots",
            "failed_lots",
            "completion_percentage",
            "estimated_completion",
            "requests",
        ])
    );
    assert_eq!(status["job_id"], job);
    assert_eq!(status["languages"], json!(LANGUAGES));
    assert_eq!(status["progress"]["total_lots"], 30);
    assert_eq!(status["progress"]["failed_lots"], 0);
    assert!(
        is_time(&status["created_at"]) && is_time(&status["updated_at"]),
        "{status}"
    );
    assert_eq!(status["openai_batch_id"], status["openai_vision_batch_id"]);
    assert_eq!(
        status["processing_details"],
        json!({
            "openai_vision_batch_id": status["openai_vision_batch_id"],
            "openai_translation_batch_id": status["openai_translation_batch_id"],
            "current_stage": stage,
        })
    );
    assert_eq!(
        (&status["error"], &status["error_message"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(status["webhook_configured"], false);
}

#[test]
fn a_job_of_thirty_lots_gets_every_text_and_reports_its_progress() {
    let appliance = Appliance::start();
    let submissions = |verb| assert_eq!(appliance.run(&[verb, "submissions"]).status, 0);
    // Each stage stalls until the test has seen the job in it.
    let stall = |stage| appliance.fault(&json!({"fault": "stall_in_progress", "match": stage}));
    stall("vision");
    let lots = appliance.lots(30);
    let taken = appliance.in_one_batch(|| appliance.submit(&submission(&lots, &LANGUAGES)));
    assert_eq!(taken.status, 201);
    assert!(taken.header("x-request-id").is_some());
    let taken = taken.json();
    assert_eq!(
        members(&taken),
        BTreeSet::from([
            "job_id",
            "status",
            "created_at",
            "total_lots",
            "lots_count",
            "languages",
            "estimated_completion",
            "creation_time",
            "processing_mode",
            "webhook_configured",
            "warnings",
        ])
    );
    assert_eq!(
        (&taken["status"], &taken["lots_count"], &taken["processing_mode"]),
        (&json!("accepted"), &json!(30), &json!("batch"))
    );
    let job = taken["job_id"].as_str().unwrap();
    assert!(is_uuid(job) && job == job.to_lowercase());

    let in_stage = |stage: &str| {
        wait_for(stage, || {
            let status = appliance.status(job);
            (status["status"] == stage && !status["openai_batch_ids"].as_array().unwrap().is_empty())
                .then_some(status)
        })
    };
    let processing = in_stage("processing");
    check_status(&processing, job, "vision_analysis");
    let vision = processing["openai_batch_id"].clone();
    assert!(vision.as_str().unwrap().starts_with("batch_"), "{processing}");
    assert_eq!(processing["openai_translation_batch_id"], Value::Null);
    assert_eq!(
        processing["openai_batch_ids"],
        json!([{"openai_batch_id": vision, "stage": "vision", "state": "running"}])
    );
    assert!(is_time(&processing["progress"]["estimated_completion"]));
    let early = appliance.read(&format!("/api/v1/batch-results/{job}"), job);
    assert_eq!(early.status, 202);
    assert!(early.header("retry-after").unwrap().parse::<u32>().is_ok());
    let early = early.json();
    assert_eq!(
        members(&early),
        BTreeSet::from(["error", "status", "progress", "message"])
    );
    assert_eq!(early["error"], "Job not completed");

    submissions("pause");
    appliance.clear_faults();
    stall("translation");
    submissions("resume");
    wait_for("translation batch", || {
        let status = appliance.status(job);
        let there = !status["openai_translation_batch_id"].is_null();
        there.then(|| check_status(&status, job, "translation"))
    });
    assert_eq!(appliance.status(job)["status"], "translating");
    appliance.clear_faults();

    let results = appliance.results(job);
    assert_results(&results, &lots, &LANGUAGES, &[]);
    assert_eq!(
        members(&results),
        BTreeSet::from([
            "job_id",
            "status",
            "completed_at",
            "processing_summary",
            "results"
        ])
    );
    assert!(is_time(&results["completed_at"]));
    assert_eq!(results["results"]["version"], "1.0.0");
    let summary = &results["processing_summary"];
    assert_eq!(
        (
            &summary["total_lots"],
            &summary["processed_lots"],
            &summary["failed_lots"],
            &summary["total_images_processed"]
        ),
        (&json!(30), &json!(30), &json!(0), &json!(60))
    );
    assert!(summary["total_processing_time"].is_string());
    for lot in results["results"]["lots"].as_array().unwrap() {
        assert_eq!(lot["processed_images"], 2);
        assert!(is_time(&lot["processed_at"]));
    }
    let done = appliance.status(job);
    check_status(&done, job, "completed");
    assert_eq!(done["progress"]["processed_lots"], 30);
    assert_eq!(done["progress"]["completion_percentage"], 100.0);
    assert!(is_time(&done["completed_at"]));

    // The results by pages, and as a file.
    for (query, from, to) in [
        ("?limit=10", 0, 10),
        ("?limit=10&offset=25", 25, 30),
        ("?offset=29", 29, 30),
        ("?limit=1&offset=30", 30, 30),
    ] {
        let page = appliance.read(&format!("/api/v1/batch-results/{job}{query}"), job);
        assert_eq!(page.status, 200);
        let page = page.json();
        let whole = &results["results"]["lots"].as_array().unwrap()[from..to];
        assert_eq!(page["results"]["lots"].as_array().unwrap(), whole, "{query}");
        assert_eq!(page["processing_summary"], *summary);
    }
    let file = appliance.read(&format!("/api/v1/batch-results/{job}/download"), job);
    assert_eq!(
        file.header("content-disposition"),
        Some(format!("attachment; filename=\"batch_results_{job}.json\"").as_str())
    );
    assert_eq!(file.json(), results);

    // The operator's queries, unchanged but for the job's id.
    let printed = "6908f1d2-39b9-4721-bb8a-dba18120df5f";
    let row = appliance.row(
        &"SELECT id, status, openai_batch_id, updated_at FROM batch_jobs WHERE id IN ('6908f1d2-39b9-4721-bb8a-dba18120df5f');"
            .replace(printed, job),
    );
    assert_eq!(row[..3], [json!(job), json!("completed"), vision]);
    let row = appliance.row(
        &"SELECT lot_id, LENGTH(vision_result) AS result_length, status FROM batch_lots WHERE batch_job_id = '6908f1d2-39b9-4721-bb8a-dba18120df5f' LIMIT 3;"
            .replace(printed, job),
    );
    let length = described(&lots[0], &[]).chars().count();
    assert_eq!(row, [json!("LOT-0000"), json!(length), json!("completed")]);
    appliance.assert_sound();
    assert_eq!(appliance.state()["executed"], 30 * 3);
}

#[test]
fn each_webhook_url_gets_its_own_lots_once() {
    let appliance = Appliance::start();
    appliance.fault(&json!({"fault": "hook_status", "match": "/hooks/one", "times": 2, "value": 500}));
    let mut lots = appliance.lots(7);
    for position in [1, 4] {
        lots[position]["webhook"] = json!(appliance.hook("one"));
    }
    lots[6]["webhook"] = json!(appliance.hook("job"));
    let mut body = submission(&lots, &LANGUAGES);
    body["webhook_url"] = json!(appliance.hook("job"));
    let taken = appliance.submit(&body).json();
    assert_eq!(taken["webhook_configured"], true);
    let job = taken["job_id"].as_str().unwrap();
    let results = appliance.results(job);
    assert_results(&results, &lots, &LANGUAGES, &[]);

    let lots_of = |positions: &[usize]| -> Value {
        positions
            .iter()
            .map(|at| results["results"]["lots"][*at].clone())
            .collect()
    };
    for (name, positions, attempts) in [("one", &[1, 4][..], 3), ("job", &[0, 2, 3, 5, 6], 1)] {
        let deliveries = appliance.delivered(name, attempts);
        let mut ids = BTreeSet::new();
        for (attempt, delivery) in (1..).zip(&deliveries) {
            let header = |name: &str| {
                let headers = delivery["headers"].as_array().unwrap();
                headers.iter().find(|pair| pair[0] == name).unwrap()[1]
                    .as_str()
                    .unwrap()
                    .to_owned()
            };
            let body = delivery["body"].as_str().unwrap();
            assert_eq!(header("content-type"), "application/json");
            assert_eq!(
                header("user-agent"),
                concat!("batchkeeper/", env!("CARGO_PKG_VERSION"))
            );
            assert_eq!(header("x-delivery-attempt"), format!("{attempt}"));
            assert_eq!(header("x-job-id"), job);
            assert_eq!(header("x-signature"), sign_bytes(body.as_bytes()));
            let (id, timestamp, signature) = (
                header("webhook-id"),
                header("webhook-timestamp"),
                header("webhook-signature"),
            );
            let received = ReceivedWebhook {
                id: &id,
                timestamp: &timestamp,
                signature: &signature,
                body: body.as_bytes(),
            };
            received.verify(&webhook_secret(&key()), now()).unwrap();
            ids.insert(id);

            let event: Value = serde_json::from_str(body).unwrap();
            let mut canonical = Vec::new();
            write_canonical_value(&event, &mut |piece| canonical.extend_from_slice(piece));
            assert_eq!(body.as_bytes(), canonical);
            let wanted = BTreeSet::from([
                "event",
                "job_id",
                "status",
                "timestamp",
                "completed_at",
                "total_lots",
                "completed_lots",
                "failed_lots",
                "results_available",
                "result_url",
                "processing_summary",
                "version",
                "lots",
            ]);
            assert!(members(&event).is_superset(&wanted), "{event}");
            assert_eq!(
                (
                    &event["event"],
                    &event["job_id"],
                    &event["status"],
                    &event["version"]
                ),
                (
                    &json!("batch_job_completed"),
                    &json!(job),
                    &json!("completed"),
                    &json!("1.0.0")
                )
            );
            // The counts are those of the job; the lots are those of the URL.
            assert_eq!(
                (
                    &event["total_lots"],
                    &event["completed_lots"],
                    &event["failed_lots"]
                ),
                (&json!(7), &json!(7), &json!(0))
            );
            assert_eq!(event["results_available"], true);
            assert_eq!(event["result_url"], format!("/api/v1/batch-results/{job}"));
            assert_eq!(event["processing_summary"], results["processing_summary"]);
            assert_eq!(
                (&event["completed_at"], &event["timestamp"]),
                (&results["completed_at"], &results["completed_at"])
            );
            assert_eq!(event["lots"], lots_of(positions));
        }
        assert_eq!(ids.len(), 1, "one id for all attempts: {ids:?}");
        assert_eq!(deliveries.len(), attempts);
    }
    wait_for("both deliveries noted", || {
        (appliance.cell::<i64>("SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'") == 2)
            .then_some(())
    });
    let attempts = "SELECT group_concat(response_status, ',') FROM (SELECT a.response_status FROM delivery_attempts a \
        JOIN webhook_deliveries ON id = delivery_id WHERE url LIKE '%/one' ORDER BY attempt)";
    assert_eq!(appliance.cell::<String>(attempts), "500,500,200");
    appliance.assert_sound();
}

#[test]
fn a_webhook_that_is_gone_or_always_fails_is_abandoned() {
    let appliance = Appliance::start();
    appliance.fault(&json!([
        {"fault": "hook_status", "match": "/hooks/gone", "value": 410},
        {"fault": "hook_status", "match": "/hooks/moved", "value": 302},
    ]));
    let mut lots = appliance.lots(2);
    lots[0]["webhook"] = json!(appliance.hook("gone"));
    lots[1]["webhook"] = json!(appliance.hook("moved"));
    let job = appliance.job(&lots, &["en"]);
    appliance.results(&job);
    wait_for("both deliveries to be abandoned", || {
        (appliance.cell::<i64>("SELECT count(*) FROM webhook_deliveries WHERE state = 'failed'") == 2)
            .then_some(())
    });
    assert_eq!(appliance.delivered("gone", 1).len(), 1);
    // Four pauses between five attempts.
    assert_eq!(appliance.delivered("moved", 5).len(), 5);
}

#[test]
fn english_results_are_the_description_itself() {
    let appliance = Appliance::start();
    let lots = appliance.lots(3);
    let job = appliance.job(&lots, &["en"]);
    assert_results(&appliance.results(&job), &lots, &["en"], &[]);
    let british = appliance.job(&lots, &["en-GB", "EN"]);
    let results = appliance.results(&british);
    let texts = &results["results"]["lots"][2]["descriptions"];
    let text = &in_languages(&described(&lots[2], &[]), &["en"])[0]["damages"];
    assert_eq!((&texts[0]["damages"], &texts[1]["damages"]), (text, text));
    let translations = appliance.cell::<i64>("SELECT count(*) FROM requests WHERE stage = 'translation'");
    assert_eq!(translations, 0);
    assert_eq!(appliance.state()["executed"], 6);
    appliance.assert_sound();
}

#[test]
fn without_english_the_description_is_only_translated() {
    let appliance = Appliance::start();
    let lots = appliance.lots(3);
    let job = appliance.job(&lots, &["de", "ru"]);
    assert_results(&appliance.results(&job), &lots, &["de", "ru"], &[]);
    appliance.assert_sound();
}

#[test]
fn simultaneous_jobs_get_their_own_texts() {
    let appliance = Appliance::with("[batch]\nmax_requests = 7");
    let lots = appliance.lots(20);
    let jobs = [
        (&lots[..5], &["en", "ru"][..]),
        (&lots[5..17], &["ru"]),
        (&lots[3..6], &["en"]),
        (&lots[10..20], &["de", "pl", "en"]),
    ];
    let ids = jobs.map(|(lots, languages)| appliance.job(lots, languages));
    for ((lots, languages), id) in jobs.iter().zip(&ids) {
        assert_results(&appliance.results(id), lots, languages, &[]);
    }
    appliance.assert_sound();
    assert_eq!(appliance.state()["executed"], (5 + 12 + 3 + 10) + (5 + 12 + 20));
}

#[test]
fn a_lot_without_a_usable_image_fails_alone() {
    let appliance = Appliance::start();
    let mut lots = appliance.lots(6);
    lots[1]["images"] = json!([]);
    lots[2].as_object_mut().unwrap().remove("images");
    lots[4]["images"] =
        json!(["ftp://img.example/1.jpg", "not a url", 7, {"href": "https://img.example/1.jpg"}]);
    let job = appliance.job(&lots, &LANGUAGES);
    let results = appliance.results(&job);
    assert_results(&results, &lots, &LANGUAGES, &[1, 2, 4]);
    for position in [1, 2, 4] {
        let lot = &results["results"]["lots"][position];
        assert_eq!(lot["status"], "failed");
        assert!(
            lot["error_message"]
                .as_str()
                .unwrap()
                .starts_with("INVALID_IMAGE_URLS"),
            "{lot}"
        );
        for description in lot["descriptions"].as_array().unwrap() {
            assert_eq!(description["damages"], Value::Null);
            assert!(description["error"].is_string());
        }
    }
    let status = appliance.status(&job);
    assert_eq!(
        (
            &status["progress"]["processed_lots"],
            &status["progress"]["failed_lots"]
        ),
        (&json!(6), &json!(3))
    );
    appliance.assert_sound();
}

#[test]
fn unreachable_images_are_left_out_or_fail_their_lot() {
    let appliance = Appliance::start();
    let (good, missing) = (appliance.image("truck.jpg"), appliance.image("missing.jpg"));
    let mut lots = appliance.lots(6);
    // One of four images is missing: the lot continues without it. If half of them or all are
    // missing, the lot fails.
    lots[1]["images"] =
        json!([good, missing, appliance.image("china.jpg"), {"url": appliance.image("flower.jpg")}]);
    lots[2]["images"] = json!([good, missing]);
    lots[3]["images"] = json!([missing, appliance.image("boat.jpg")]);
    lots[4]["images"] = json!(["http://127.0.0.1:1/refused.jpg"]);
    let job = appliance.job(&lots, &LANGUAGES);
    let results = appliance.results(&job);
    assert_results(&results, &lots, &LANGUAGES, &[1, 2, 3, 4]);
    let lot = |position: usize| &results["results"]["lots"][position];
    assert_eq!(lot(1)["status"], "completed");
    assert_eq!(
        (&lot(1)["missing_images"], &lot(1)["processed_images"]),
        (&json!([missing]), &json!(3))
    );
    assert_eq!(
        lot(1)["descriptions"],
        in_languages(&described(&lots[1], std::slice::from_ref(&missing)), &LANGUAGES)
    );
    for (position, missing) in [
        (2, json!([missing])),
        (3, lots[3]["images"].clone()),
        (4, lots[4]["images"].clone()),
    ] {
        assert_eq!(lot(position)["status"], "failed");
        assert_eq!(lot(position)["missing_images"], missing);
        assert!(
            lot(position)["error_message"]
                .as_str()
                .unwrap()
                .starts_with("IMAGE_UNREACHABLE"),
            "{}",
            lot(position)
        );
    }
    // No request of the failed lots was sent to OpenAI.
    assert_eq!(appliance.state()["executed"], 3 * 3);
    appliance.assert_sound();
}

#[test]
fn lots_that_wait_for_image_checks_continue_once_the_checks_are_turned_off() {
    // This address never answers, so the check is still running when the daemon ends.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut appliance = Appliance::start();
    let mut lots = appliance.lots(2);
    for lot in &mut lots {
        lot["images"] = json!([format!("http://{}/1.jpg", silent.local_addr().unwrap())]);
    }
    let job = appliance.job(&lots, &LANGUAGES);
    appliance.kill_daemon();
    appliance.configure("[images]\ncheck = false");
    appliance.start_daemon();
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
    appliance.assert_sound();
}

#[test]
fn a_job_whose_lots_all_fail_is_failed_and_its_webhook_says_so() {
    let appliance = Appliance::start();
    let mut lots = appliance.lots(2);
    for lot in &mut lots {
        lot["images"] = json!([appliance.image("missing.jpg")]);
    }
    let mut body = submission(&lots, &LANGUAGES);
    body["webhook_url"] = json!(appliance.hook("failed"));
    let job = appliance.submit(&body).json()["job_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let status = appliance.ended(&job);
    assert_eq!(status["status"], "failed");
    assert!(
        status["error_message"]
            .as_str()
            .unwrap()
            .contains("IMAGE_UNREACHABLE"),
        "{status}"
    );
    assert_eq!(status["error"], status["error_message"]);
    let results = appliance.read(&format!("/api/v1/batch-results/{job}"), &job);
    assert_eq!(results.status, 410);
    let results = results.json();
    assert_eq!(
        (&results["code"], &results["status"]),
        (&json!("JOB_FAILED"), &json!("failed"))
    );
    assert_eq!(results["results"]["lots"].as_array().unwrap().len(), 2);
    let event: Value =
        serde_json::from_str(appliance.delivered("failed", 1)[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&event["event"], &event["results_available"]),
        (&json!("batch_job_failed"), &json!(false))
    );
    assert_eq!(
        (&event["completed_lots"], &event["failed_lots"]),
        (&json!(0), &json!(2))
    );
    assert_eq!(appliance.state()["batches_total"], 0);
}

#[test]
fn a_killed_daemon_continues_where_it_stopped() {
    let mut appliance = Appliance::start();
    appliance.fault(&json!({"fault": "stall_in_progress"}));
    let lots = appliance.lots(5);
    let mut body = submission(&lots, &LANGUAGES);
    body["webhook_url"] = json!(appliance.hook("killed"));
    let taken = appliance.in_one_batch(|| appliance.submit(&body)).json();
    let job = taken["job_id"].as_str().unwrap().to_owned();
    for stage in ["openai_vision_batch_id", "openai_translation_batch_id"] {
        wait_for(stage, || (!appliance.status(&job)[stage].is_null()).then_some(()));
        appliance.kill_daemon();
        appliance.clear_faults();
        if stage == "openai_vision_batch_id" {
            wait_for("the batch's end", || {
                (appliance.state()["batches"]["completed"] == 1).then_some(())
            });
            appliance.fault(&json!({"fault": "stall_in_progress"}));
        }
        appliance.start_daemon();
    }
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
    assert_eq!(appliance.delivered("killed", 1).len(), 1);
    assert_eq!(appliance.state()["creates"], 2);
    appliance.assert_sound();
}
