//! Authentication: the forms of signature that `refusals.rs` does not test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::appliance::{self, Appliance, CLOCK, KEY, call, submission, wait_for};
use crate::{SUBMIT, accepted, borrowed, refused, sign_with, v1};
use batchkeeper::base::clock::Clock;
use batchkeeper::domain::signature::{Key, SignedRequest};

const OTHER_KEY: &str = "a key that only the other client has";
const HOOK_KEY: &str = "a key that signs webhooks and nothing else";

#[test]
fn unsigned_reads_are_accepted_for_the_default_client_if_configured() {
    let appliance = Appliance::with(&format!(
        "legacy_unsigned_reads = true
         clients = [{{name = \"default\", keys = [{KEY:?}]}}, {{name = \"other\", keys = [{OTHER_KEY:?}]}}]"
    ));
    let text = submission(&appliance.lots(2), &["en"]).to_string();
    let job = accepted(&appliance.post(
        &[("X-Signature", &sign_with(KEY, text.as_bytes()))],
        text.as_bytes(),
    ));
    let headers = [
        ("X-Signature", sign_with(OTHER_KEY, text.as_bytes())),
        ("X-Client-Id", "other".to_owned()),
    ];
    let others = accepted(&appliance.post(&borrowed(&headers), text.as_bytes()));
    appliance.results(&job);
    let get = |path: &str, headers: &[(&str, &str)]| {
        call("GET", &format!("{}/api/v1/{path}", appliance.api), headers, b"")
    };
    for path in ["batch-status/", "batch-results/", "jobs/"] {
        let own = get(&format!("{path}{job}"), &[]);
        assert_eq!(own.status, 200, "{path}");
        let named = get(&format!("{path}{job}"), &[("X-Client-Id", "default")]);
        assert_eq!(named.status, 200, "{path}");
        refused(&get(&format!("{path}{others}"), &[]), 404, "JOB_NOT_FOUND");
        let other = get(&format!("{path}{others}"), &[("X-Client-Id", "other")]);
        refused(&other, 401, "MISSING_SIGNATURE");
        // A signature that is sent must be right.
        let wrong = get(&format!("{path}{job}"), &[("X-Signature", "00")]);
        refused(&wrong, 403, "INVALID_SIGNATURE");
    }
    refused(&get("batch-jobs", &[]), 401, "MISSING_SIGNATURE");
    let cancel = format!("{}/api/v1/batch-jobs/{job}/cancel", appliance.api);
    refused(&call("POST", &cancel, &[], b""), 401, "MISSING_SIGNATURE");
    refused(&appliance.post(&[], text.as_bytes()), 401, "MISSING_SIGNATURE");
}

#[test]
fn webhooks_have_their_own_key_and_hosts() {
    let appliance = Appliance::with(&format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}], webhook_key = {HOOK_KEY:?},
                     webhook_hosts = [\"127.0.0.1\", \"*.client.example\"]}}]"
    ));
    let mut body = submission(&appliance.lots(2), &["en"]);
    for url in [
        "https://client.example/hook",
        "https://hooks.client.example.evil.test/hook",
        "https://evilclient.example/hook",
    ] {
        body["webhook_url"] = json!(url);
        refused(&appliance.submit(&body), 422, "INVALID_WEBHOOK_URL");
        body["webhook_url"] = json!(null);
        body["lots"][0]["webhook"] = json!(url);
        refused(&appliance.submit(&body), 422, "INVALID_WEBHOOK_URL");
        body["lots"][0]["webhook"] = json!(null);
    }
    body["webhook_url"] = json!("https://HOOKS.Client.Example:8443/hook");
    accepted(&appliance.submit(&body));
    body["webhook_url"] = json!(appliance.hook("own"));
    appliance.results(&accepted(&appliance.submit(&body)));
    let delivery = &appliance.delivered("own", 1)[0];
    let headers = delivery["headers"].as_array().unwrap();
    let signature = headers.iter().find(|it| it[0] == "x-signature").unwrap();
    let bytes = delivery["body"].as_str().unwrap().as_bytes();
    assert_eq!(signature[1], sign_with(HOOK_KEY, bytes));
    // The webhook key signs no request.
    let answer = appliance.post(&[("X-Signature", &sign_with(HOOK_KEY, bytes))], bytes);
    refused(&answer, 403, "INVALID_SIGNATURE");
}

#[test]
fn weak_or_published_keys_are_refused_at_start() {
    let appliance = Appliance::without_daemon("");
    for key in [
        "dev-secret-key-for-testing-2024",
        "default-shared-key-change-in-production",
        "fifteen bytes !",
        "",
    ] {
        for setting in ["keys = [KEY]", "keys = [GOOD]\nwebhook_key = KEY"] {
            let setting = setting.replace("KEY", &format!("{key:?}"));
            let setting = setting.replace("GOOD", &format!("{KEY:?}"));
            appliance.configure(&format!("[[clients]]\nname = \"default\"\n{setting}"));
            for command in ["check-config", "serve"] {
                let ran = appliance.run(&[command]);
                assert_eq!(ran.status, 1, "{key}: {}", ran.out);
                assert!(ran.err.contains("\"default\""), "{}", ran.err);
            }
        }
    }
}

/// Sends these bytes, and returns the answer's status and body.
fn raw(address: &str, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// Which of two values counts would otherwise depend on the program that reads them: a proxy, a log, this service.
#[test]
fn a_header_field_that_counts_once_is_refused_twice() {
    let mut appliance = Appliance::without_daemon("");
    std::fs::write(appliance.path("ops.token"), "0123456789abcdef").unwrap();
    appliance.configure(&format!(
        "ops_token_file = {:?}\n[images]\ncheck = false\n[batch]\nmax_wait = \"1h\"",
        appliance.path("ops.token")
    ));
    appliance.start_daemon();
    let body = submission(&appliance.lots(2), &["en"]).to_string();
    let signature = sign_with(KEY, body.as_bytes());
    let submit = |more: &str| {
        let length = body.len();
        let request = format!(
            "POST {SUBMIT} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n{body}"
        );
        raw(&appliance.api, request.as_bytes())
    };
    let [(_, timestamp), (_, v1)] = v1(KEY, "POST", SUBMIT, body.as_bytes());
    for (name, good) in [
        ("X-Signature", signature.as_str()),
        ("X-Client-Id", "default"),
        ("Idempotency-Key", "key-1"),
        ("Content-Type", "application/json"),
        ("X-Timestamp", timestamp.as_str()),
    ] {
        let upper = name.to_uppercase();
        let signed = match name {
            "X-Signature" => String::new(),
            "X-Timestamp" => format!("X-Signature: {v1}\r\n"),
            _ => format!("X-Signature: {signature}\r\n"),
        };
        for twice in [
            format!("{name}: {good}\r\n{name}: other\r\n"),
            format!("{name}: other\r\n{upper}: {good}\r\n"),
            format!("{name}: {good}\r\n{upper}: {good}\r\n"),
            format!("{name}: {good}\r\nX-Between: a\r\n{name}:\r\n"),
        ] {
            let (status, answer) = submit(&format!("{signed}{twice}"));
            assert_eq!(status, 400, "{twice}: {answer}");
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["code"], "INVALID_PARAMETER", "{twice}");
            assert!(answer["message"].as_str().unwrap().contains(name), "{answer}");
        }
    }
    assert_eq!(appliance.jobs(), 0);

    // Reads, cancels and the list obey the same rule, and so does the operators' token.
    for (method, path) in [
        ("GET", "/api/v1/batch-status/00000000-0000-4000-8000-000000000000"),
        ("GET", "/api/v1/batch-jobs"),
        (
            "POST",
            "/api/v1/batch-jobs/00000000-0000-4000-8000-000000000000/cancel",
        ),
    ] {
        let twice = "X-Signature: 00\r\nX-Signature: 01\r\n";
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{twice}\r\n");
        assert_eq!(raw(&appliance.api, request.as_bytes()).0, 400, "{path}");
    }
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    let ops = |fields: &str| {
        let request = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
        raw(&appliance.ops, request.as_bytes()).0
    };
    assert_eq!(ops(token), 200);
    assert_eq!(ops(&format!("{token}Authorization: Bearer guess\r\n")), 400);

    // A list may have several field lines (RFC 9110, 5.3; RFC 7240, 2).
    let prefer = "Prefer: wait=5\r\nPrefer: respond-async\r\n";
    let (status, answer) = submit(&format!("X-Signature: {signature}\r\n{prefer}"));
    assert_eq!(status, 201, "{answer}");
    assert_eq!(appliance.jobs(), 1);
}

#[test]
fn a_webhook_sent_back_to_us_cancels_nothing() {
    let appliance = Appliance::with("[images]\ncheck = false\n[batch]\nmax_wait = \"1h\"");
    let job = accepted(&appliance.submit(&submission(&appliance.lots(2), &["en"])));
    let body = json!({"event": "batch_job_completed", "job_id": job}).to_string();
    let url = format!("{}/api/v1/batch-jobs/{job}/cancel", appliance.api);
    let signature = sign_with(KEY, body.as_bytes());
    let answer = call("POST", &url, &[("X-Signature", &signature)], body.as_bytes());
    refused(&answer, 400, "INVALID_PARAMETER");
    assert_eq!(appliance.status(&job)["status"], "pending");
}

#[test]
fn an_unknown_client_is_refused_in_the_same_time() {
    let appliance = Appliance::start();
    let mut body = submission(&appliance.lots(2), &["en"]);
    body["comment"] = json!("x".repeat(3_000_000));
    let body = body.to_string();
    let url = format!("{}{SUBMIT}", appliance.api);
    let wrong = "0".repeat(64);
    let time = |client: &str| {
        let started = CLOCK.now().steady;
        let headers = [("X-Signature", wrong.as_str()), ("X-Client-Id", client)];
        refused(
            &call("POST", &url, &headers, body.as_bytes()),
            403,
            "INVALID_SIGNATURE",
        );
        CLOCK.now().steady - started
    };
    // The minimum of many measurements: other work on the machine only adds time. A busy machine
    // needs more rounds.
    let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
    let mut alike = false;
    for round in 0..300 {
        known = known.min(time("default"));
        unknown = unknown.min(time("nobody"));
        alike = (0.6..1.7).contains(&unknown.div_duration_f64(known));
        if round >= 15 && alike {
            break;
        }
    }
    assert!(alike, "{known:?} {unknown:?}");
}

#[test]
fn the_list_is_signed_over_path_and_query_as_sent() {
    let appliance = Appliance::start();
    let job = accepted(&appliance.submit(&submission(&appliance.lots(2), &["en"])));
    let path = "/api/v1/batch-jobs?status=&limit=5&created_after=2020-01-01T00%3A00%3A00Z";
    let legacy = |message: &str| vec![("X-Signature", sign_with(KEY, message.as_bytes()))];
    let answer = appliance.ask("GET", path, &legacy(path));
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(answer.json()["jobs"][0]["id"], job);
    assert_eq!(appliance.ask("GET", path, &v1(KEY, "GET", path, b"")).status, 200);
    for message in ["/api/v1/batch-jobs", "", &path.replace("%3A", ":")] {
        let answer = appliance.ask("GET", path, &legacy(message));
        refused(&answer, 403, "INVALID_SIGNATURE");
    }
}

/// The client has signed many bodies: its submissions, or `1`, `null` and the empty text for other services.
/// None of them may cancel a job that it does not name.
#[test]
fn a_cancel_is_signed_over_the_job_id_or_over_a_body_that_names_the_job() {
    let appliance = Appliance::with("[images]\ncheck = false\n[batch]\nmax_wait = \"1h\"");
    let [first, second] = [(); 2].map(|()| {
        let lots = appliance.lots(2);
        accepted(&appliance.submit(&submission(&lots, &["en"])))
    });
    let cancel = |job: &str, signed: &str, body: &str| {
        let url = format!("{}/api/v1/batch-jobs/{job}/cancel", appliance.api);
        let signature = sign_with(KEY, signed.as_bytes());
        call("POST", &url, &[("X-Signature", &signature)], body.as_bytes())
    };
    let named = |member: &str, job: &str| json!({member: job, "reason": "sold"}).to_string();
    let lots = submission(&appliance.lots(2), &["en"])["lots"].to_string();
    for body in [
        "1",
        "null",
        "\"\"",
        "{}",
        "{\"reason\": \"sold\"}",
        &lots,
        &format!("[\"{second}\"]"),
        &named("job_id", &first),
        &named("id", &first),
    ] {
        let answer = cancel(&second, body, body);
        let error = refused(&answer, 403, "INVALID_SIGNATURE");
        assert!(error["message"].as_str().unwrap().contains("`job_id`"), "{error}");
    }
    refused(&cancel(&second, "", ""), 403, "INVALID_SIGNATURE");
    refused(
        &cancel(&second, &named("job_id", &second), "{}"),
        403,
        "INVALID_SIGNATURE",
    );
    assert_eq!(appliance.status(&second)["status"], "pending");

    let body = named("job_id", &second);
    assert_eq!(cancel(&second, &body, &body).status, 200);
    let body = named("id", &first);
    assert_eq!(cancel(&first, &body, &body).status, 200);
}

#[test]
fn a_request_that_has_no_body_by_its_method_is_refused_with_one() {
    let appliance = Appliance::start();
    let job = accepted(&appliance.submit(&submission(&appliance.lots(2), &["en"])));
    // The end of the target could be read as the beginning of the body.
    let target = format!("/api/v1/batch-status/{job}?x=1.");
    let headers = v1(KEY, "GET", &target, b"more");
    let url = format!("{}{target}", appliance.api);
    for method in ["GET", "DELETE"] {
        let answer = call(method, &url, &borrowed(&headers), b"more");
        refused(&answer, 400, "INVALID_PARAMETER");
    }
}

#[test]
fn json_that_only_python_accepts_is_verified_and_then_refused() {
    let appliance = Appliance::start();
    // Signed over the canonical `lots`. NaN, 1e400 and half a surrogate pair have a canonical form.
    let sent = |lots: &str| {
        let parsed = batchkeeper::python_json::parse(lots.as_bytes()).unwrap();
        let message = batchkeeper::domain::signature::Message::Canonical(parsed.root());
        let signature = batchkeeper::domain::signature::sign(&crate::appliance::key(), message);
        let body = format!(
            "{{\"version\": \"1.0.0\", \"languages\": [\"en\"], \"lots\": {lots}, \"signature\": \"{signature}\"}}"
        );
        appliance.post(&[], body.as_bytes())
    };
    let lot = |more: &str| {
        format!("[{{\"lot_id\": \"a\", \"images\": [\"https://img.example/1.jpg\"]}}, {{{more}}}]")
    };
    for used in [
        "\"lot_id\": NaN",
        "\"lot_id\": 1e400",
        "\"lot_id\": \"\\ud83d\"",
        "\"lot_id\": \"b\", \"additional_info\": \"\\ude97\"",
        "\"lot_id\": \"b\", \"additional_info\": -Infinity",
        "\"lot_id\": \"b\", \"images\": [\"https://img.example/\\ud83d.jpg\"]",
    ] {
        refused(&sent(&lot(used)), 422, "INVALID_LOT");
    }
    let webhook = lot("\"lot_id\": \"b\", \"webhook\": \"https://h.example/\\ud83d\"");
    refused(&sent(&webhook), 422, "INVALID_WEBHOOK_URL");
    accepted(&sent(&lot(
        "\"lot_id\": \"b\", \"year\": NaN, \"km\": 1e400, \"note\": \"\\ud83d\"",
    )));
}

/// The client learns what to check; the operator learns in the log which client it was and what was wrong.
#[test]
fn the_log_says_what_is_wrong_with_a_signature() {
    let appliance = Appliance::start();
    let body = submission(&appliance.lots(2), &["en"]).to_string();
    let now = appliance::now().seconds();
    let answers: Vec<String> = [
        ("default", now, "a key that is not the client's"),
        ("default", now - 4_000, KEY),
        ("someone", now, KEY),
    ]
    .map(|(client, at, key)| {
        let timestamp = at.to_string();
        let request = SignedRequest {
            timestamp: &timestamp,
            method: "POST",
            target: "/api/v1/generate-descriptions",
            body: body.as_bytes(),
        };
        let signature = request.sign(&Key::new(key).unwrap());
        let headers = [
            ("X-Client-Id", client),
            ("X-Timestamp", &timestamp),
            ("X-Signature", &signature),
        ];
        let answer = appliance.post(&headers, body.as_bytes());
        assert_eq!(answer.status, 403);
        answer.json()["message"].to_string()
    })
    .into();
    assert!(answers.iter().all(|it| *it == answers[0]), "{answers:?}");
    for hint in ["key", "X-Client-Id", "what is signed", "clock"] {
        assert!(answers[0].contains(hint), "{}", answers[0]);
    }
    for cause in [
        "client=default cause=\"another key, or another method, path, query or body was signed\"",
        "X-Timestamp is off by -400",
        "client=someone cause=\"no client has this name\"",
    ] {
        wait_for(cause, || appliance.daemon_said(cause).then_some(()));
    }
}
