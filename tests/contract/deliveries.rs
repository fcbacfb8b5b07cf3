//! A client looks after its own webhooks: it reads the deliveries of a job, has one sent again, and sends a test event.

use std::time::Duration;

use batchkeeper::domain::signature::ReceivedWebhook;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, KEY, call, now, submission, wait_for};
use crate::receiver::{Receiver, status};
use crate::{accepted, borrowed, refused, sign_with, v1};

const OTHER_KEY: &str = "a key that only the other client has";
const TEST: &str = "/api/v1/webhooks/test";

fn with_two_clients(config: &str) -> Appliance {
    Appliance::with(&format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}]}},
                    {{name = \"other\", keys = [{OTHER_KEY:?}], webhook_hosts = [\"hooks.example\"]}}]\n{config}"
    ))
}

/// A job of two lots with a webhook of its own for the second one.
fn job(appliance: &Appliance, url: &str, second: &str) -> String {
    let mut body = submission(&appliance.lots(2), &["en"]);
    body["webhook_url"] = json!(url);
    body["lots"][1]["webhook"] = json!(second);
    accepted(&appliance.submit(&body))
}

fn deliveries(appliance: &Appliance, job: &str) -> Vec<Value> {
    let answer = appliance.get(&format!("/api/v1/jobs/{job}/deliveries"));
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()["deliveries"].as_array().unwrap().clone()
}

/// Waits until every delivery of a job has this state.
fn all_are(appliance: &Appliance, job: &str, state: &str) -> Vec<Value> {
    wait_for(&format!("{state} deliveries"), || {
        let found = deliveries(appliance, job);
        found.iter().all(|it| it["status"] == state).then_some(found)
    })
}

fn resend_path(job: &str, delivery: &Value) -> String {
    format!("/api/v1/jobs/{job}/deliveries/{delivery}/resend")
}

/// Asks for a resend with a legacy signature over the job id.
fn resend(appliance: &Appliance, job: &str, delivery: &Value) -> Answer {
    let headers = [("X-Signature", sign_with(KEY, job.as_bytes()))];
    appliance.ask("POST", &resend_path(job, delivery), &headers)
}

/// Lets a minute pass for the resends of the past.
fn let_a_minute_pass(appliance: &Appliance) {
    let database = Connection::open(appliance.database()).unwrap();
    database.busy_timeout(Duration::from_mins(1)).unwrap();
    let sql = "UPDATE webhook_deliveries
               SET created_at = strftime('%Y-%m-%dT%H:%M:%fZ', created_at, '-1 minute') WHERE resend_number > 0";
    database.execute(sql, []).unwrap();
}

fn post(appliance: &Appliance, target: &str, headers: &[(&'static str, String)], body: &str) -> Answer {
    let url = format!("{}{target}", appliance.api);
    call("POST", &url, &borrowed(headers), body.as_bytes())
}

#[test]
fn a_client_sees_what_became_of_each_webhook() {
    let receiver = Receiver::start(|_, seen| match seen.path.as_str() {
        "/good" => status(204),
        _ => status(500).body("the password of the database is x"),
    });
    let appliance = with_two_clients("[webhooks]\nretry_delays = [\"40ms\"]");
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let job = job(&appliance, &receiver.url("good"), &receiver.url("bad"));
    for waiting in deliveries(&appliance, &job) {
        assert_eq!(waiting["status"], "scheduled");
        assert_eq!(
            (&waiting["attempts"], &waiting["event"]),
            (&json!(0), &Value::Null)
        );
        for none in [
            "webhook_id",
            "response_status",
            "error",
            "last_attempt_at",
            "next_attempt_at",
        ] {
            assert_eq!(waiting[none], Value::Null, "{none}");
        }
    }
    appliance.wait_until_images_are_checked();
    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
    appliance.ended(&job);
    let found = wait_for("the end of both", || {
        let found = deliveries(&appliance, &job);
        let open = |it: &Value| it["status"] == "due" || it["status"] == "scheduled";
        (!found.iter().any(open)).then_some(found)
    });
    let of = |path: &str| found.iter().find(|it| it["url"] == receiver.url(path)).unwrap();
    let (good, bad) = (of("good"), of("bad"));
    assert_eq!(
        (&good["status"], &good["attempts"]),
        (&json!("delivered"), &json!(1))
    );
    assert_eq!(
        (&good["response_status"], &good["error"]),
        (&json!(204), &Value::Null)
    );
    assert_eq!(good["event"], "batch_job_completed");
    assert!(good["delivered_at"].is_string() && good["last_attempt_at"].is_string());
    let seen = receiver.so_far();
    let sent = seen.iter().find(|it| it.path == "/good").unwrap();
    assert_eq!(good["webhook_id"], sent.header("webhook-id"));
    assert_eq!((&bad["status"], &bad["attempts"]), (&json!("failed"), &json!(2)));
    // The receiver's body is not quoted.
    assert_eq!(bad["error"], "the receiver answered with status 500");
    assert_eq!(
        (&bad["delivered_at"], &bad["next_attempt_at"]),
        (&Value::Null, &Value::Null)
    );

    let path = format!("/api/v1/jobs/{job}/deliveries");
    let page = appliance.get(&format!("{path}?limit=1&offset=1")).json();
    assert_eq!(
        page["pagination"],
        json!({"limit": 1, "offset": 1, "total": 2, "has_more": false})
    );
    assert_eq!(page["deliveries"], json!([found[1]]));
    refused(
        &appliance.get(&format!("{path}?limit=x")),
        400,
        "INVALID_PARAMETER",
    );
    // Another client's job is no job.
    let theirs = [
        ("X-Signature", sign_with(OTHER_KEY, job.as_bytes())),
        ("X-Client-Id", "other".to_owned()),
    ];
    refused(&appliance.ask("GET", &path, &theirs), 404, "JOB_NOT_FOUND");
    let resend = resend_path(&job, &bad["id"]);
    refused(&appliance.ask("POST", &resend, &theirs), 404, "JOB_NOT_FOUND");
}

#[test]
fn a_client_has_a_webhook_sent_again_once_a_minute() {
    let receiver = Receiver::start(|nth, _| status(if nth < 2 { 410 } else { 204 }));
    let appliance = with_two_clients("");
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let job = job(&appliance, &receiver.url("a"), &receiver.url("b"));
    let open = deliveries(&appliance, &job);
    refused(
        &resend(&appliance, &job, &open[0]["id"]),
        409,
        "DELIVERY_NOT_RESENDABLE",
    );
    appliance.wait_until_images_are_checked();
    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
    let failed = all_are(&appliance, &job, "failed");
    let first = &failed[0];

    // The repeat of a signed request has the first answer.
    let path = resend_path(&job, &first["id"]);
    let headers = v1(KEY, "POST", &path, b"");
    let answer = appliance.ask("POST", &path, &headers);
    assert_eq!(answer.status, 201, "{}", answer.json());
    let again = appliance.ask("POST", &path, &headers);
    assert_eq!((again.status, again.json()), (201, answer.json()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let answer = answer.json();
    assert_eq!(
        (&answer["job_id"], &answer["resent"]),
        (&json!(job), &first["id"])
    );
    let new = &answer["delivery"];
    assert_ne!(new["id"], first["id"]);
    assert_ne!(new["webhook_id"], first["webhook_id"]);
    assert_eq!(new["url"], first["url"]);
    let arrived = receiver.seen(3).pop().unwrap();
    assert_eq!(arrived.header("webhook-id"), new["webhook_id"].as_str().unwrap());
    assert_eq!(arrived.header("x-signature"), sign_with(KEY, &arrived.body));
    wait_for("the resend's end", || {
        let found = deliveries(&appliance, &job);
        (found[0]["id"] == new["id"] && found[0]["status"] == "delivered").then_some(())
    });
    let event: String = appliance.cell("SELECT detail FROM events WHERE kind = 'webhook_resent'");
    assert!(event.contains("by=default"), "{event}");

    // Whatever delivery to the URL is named: the next one waits for a minute.
    for delivery in [&first["id"], &new["id"]] {
        let answer = resend(&appliance, &job, delivery);
        refused(&answer, 429, "RATE_LIMITED");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(resend(&appliance, &job, &failed[1]["id"]).status, 201);
    let_a_minute_pass(&appliance);
    assert_eq!(resend(&appliance, &job, &new["id"]).status, 201);
    assert_eq!(receiver.seen(5).len(), 5);

    // A job has its own deliveries alone.
    for odd in [
        json!(0),
        json!(-1),
        json!("x"),
        json!(9_999_999),
        json!("%27"),
        json!("9223372036854775808"),
    ] {
        let odd = odd.as_str().map_or_else(|| odd.to_string(), str::to_owned);
        let path = format!("/api/v1/jobs/{job}/deliveries/{odd}/resend");
        let answer = appliance.ask("POST", &path, &[("X-Signature", sign_with(KEY, job.as_bytes()))]);
        if answer.status != 429 {
            refused(&answer, 404, "NOT_FOUND");
        }
    }
    appliance.assert_sound();
}

#[test]
fn resends_are_signed_as_a_cancel_is_and_bounded() {
    let receiver = Receiver::start(|_, _| status(204));
    let mut appliance = with_two_clients("");
    let job = job(&appliance, &receiver.url("a"), &receiver.url("a"));
    let delivery = all_are(&appliance, &job, "delivered")[0]["id"].clone();
    let path = resend_path(&job, &delivery);
    let signed = |body: &str| [("X-Signature", sign_with(KEY, body.as_bytes()))];
    refused(&post(&appliance, &path, &[], ""), 401, "MISSING_SIGNATURE");
    for body in ["", "{}", "{\"job_id\": \"00000000-0000-4000-8000-000000000000\"}"] {
        refused(
            &post(&appliance, &path, &signed(body), body),
            403,
            "INVALID_SIGNATURE",
        );
    }
    let event = format!("{{\"event\": \"batch_job_completed\", \"job_id\": \"{job}\"}}");
    refused(
        &post(&appliance, &path, &signed(&event), &event),
        400,
        "INVALID_PARAMETER",
    );
    refused(&post(&appliance, &path, &signed("{"), "{"), 400, "INVALID_JSON");
    let named = format!("{{\"id\": \"{job}\"}}");
    assert_eq!(post(&appliance, &path, &signed(&named), &named).status, 201);
    all_are(&appliance, &job, "delivered");
    // Ten a minute, whatever came of them. The one with `event` and the one above were counted.
    let answers: Vec<u16> = (0..10)
        .map(|_| resend(&appliance, &job, &delivery).status)
        .collect();
    assert_eq!(answers, [429; 10]);
    let answer = resend(&appliance, &job, &delivery);
    let message = refused(&answer, 429, "RATE_LIMITED")["message"].clone();
    assert!(
        message.as_str().unwrap().starts_with("More than 10 "),
        "{message}"
    );

    appliance.kill_daemon();
    appliance.start_daemon();
    all_are(&appliance, &job, "delivered");
    let database = Connection::open(appliance.database()).unwrap();
    let clean = "UPDATE batch_jobs SET cleaning_since = completed_at WHERE id = ?";
    assert_eq!(database.execute(clean, [&job]), Ok(1));
    refused(&resend(&appliance, &job, &delivery), 410, "RESULTS_REMOVED");
}

#[test]
fn a_test_event_is_signed_and_its_outcome_is_the_answer() {
    let receiver = Receiver::start(|_, seen| match seen.path.as_str() {
        "/moved" => status(302).with("Location: http://127.0.0.1:1/"),
        "/slow" => status(204).after(Duration::from_secs(30)),
        "/bad" => status(503).body("secret"),
        _ => status(204),
    });
    let appliance = with_two_clients("[webhooks]\ntimeout = \"1s\"\nsignature_prefix = \"sha256=\"");
    let secret = appliance.run(&["sign", "--webhook-secret"]).out;
    let send = |path: &str| {
        let body = json!({"url": receiver.url(path)}).to_string();
        let answer = post(
            &appliance,
            TEST,
            &[("X-Signature", sign_with(KEY, body.as_bytes()))],
            &body,
        );
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()
    };
    let answer = send("good");
    assert_eq!(
        (&answer["event"], &answer["url"]),
        (&json!("test"), &json!(receiver.url("good")))
    );
    assert_eq!(
        (&answer["delivered"], &answer["response_status"]),
        (&json!(true), &json!(204))
    );
    assert_eq!(answer["error"], Value::Null);
    let seen = receiver.seen(1).pop().unwrap();
    let event: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        (&event["event"], &event["client"]),
        (&json!("test"), &json!("default"))
    );
    assert_eq!(
        seen.header("x-signature"),
        format!("sha256={}", sign_with(KEY, &seen.body))
    );
    assert_eq!(seen.header("webhook-id"), answer["webhook_id"].as_str().unwrap());
    let webhook = ReceivedWebhook {
        id: seen.header("webhook-id"),
        timestamp: seen.header("webhook-timestamp"),
        signature: seen.header("webhook-signature"),
        body: &seen.body,
    };
    assert!(webhook.verify(secret.trim(), now()).is_ok());
    for (path, status, error) in [
        ("bad", json!(503), "the receiver answered with status 503"),
        ("moved", json!(302), "the receiver answered with status 302"),
        ("slow", Value::Null, "no complete answer in time"),
    ] {
        let answer = send(path);
        assert_eq!(
            (&answer["delivered"], &answer["response_status"]),
            (&json!(false), &status)
        );
        assert_eq!(answer["error"], error);
    }
    // A v1 signature counts once.
    let body = json!({"webhook_url": receiver.url("once")}).to_string();
    let headers = v1(KEY, "POST", TEST, body.as_bytes());
    let first = post(&appliance, TEST, &headers, &body);
    let again = post(&appliance, TEST, &headers, &body);
    assert_eq!((again.status, again.json()), (200, first.json()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(
        receiver.so_far().iter().filter(|it| it.path == "/once").count(),
        1
    );
    // Nothing of a test is a delivery of a job.
    assert_eq!(
        appliance.cell::<i64>("SELECT count(*) FROM webhook_deliveries"),
        0
    );
    appliance.assert_sound();
}

#[test]
fn a_test_event_goes_to_no_address_that_a_webhook_may_not_go_to() {
    let receiver = Receiver::start(|_, _| status(204));
    let appliance = with_two_clients("[network]\nallow_private = false");
    let sent = |key: &str, client: &str, body: &Value| {
        let body = body.to_string();
        let headers = [
            ("X-Signature", sign_with(key, body.as_bytes())),
            ("X-Client-Id", client.to_owned()),
        ];
        post(&appliance, TEST, &headers, &body)
    };
    for (body, status, code) in [
        (json!({"url": receiver.url("x")}), 422, "INVALID_WEBHOOK_URL"),
        (
            json!({"url": format!("http://localhost:{}/", receiver.address.port())}),
            422,
            "INVALID_WEBHOOK_URL",
        ),
        (
            json!({"url": "http://169.254.169.254/latest/meta-data"}),
            422,
            "INVALID_WEBHOOK_URL",
        ),
        (json!({"url": "file:///etc/passwd"}), 422, "INVALID_WEBHOOK_URL"),
        (json!({"url": 7}), 422, "INVALID_WEBHOOK_URL"),
        (json!({"url": ""}), 400, "MISSING_FIELD"),
        (json!({}), 400, "MISSING_FIELD"),
        (json!([]), 400, "INVALID_PARAMETER"),
        (
            json!({"event": "test", "url": "https://hooks.example/"}),
            400,
            "INVALID_PARAMETER",
        ),
    ] {
        refused(&sent(KEY, "default", &body), status, code);
    }
    // A client with `webhook_hosts` sends to those alone.
    let elsewhere = json!({"url": "https://elsewhere.example/"});
    refused(&sent(OTHER_KEY, "other", &elsewhere), 422, "INVALID_WEBHOOK_URL");
    refused(&sent(OTHER_KEY, "default", &elsewhere), 403, "INVALID_SIGNATURE");
    refused(&post(&appliance, TEST, &[], "{}"), 401, "MISSING_SIGNATURE");
    refused(
        &post(&appliance, TEST, &[("X-Signature", sign_with(KEY, b"{"))], "{"),
        400,
        "INVALID_JSON",
    );
    assert_eq!(appliance.run(&["pause", "webhooks"]).status, 0);
    let paused = sent(KEY, "default", &json!({"url": "https://hooks.example/"}));
    refused(&paused, 503, "OVERLOADED");
    // The eleventh of a minute.
    let more = sent(KEY, "default", &json!({}));
    refused(&more, 429, "RATE_LIMITED");
    assert!(receiver.so_far().is_empty());
}
