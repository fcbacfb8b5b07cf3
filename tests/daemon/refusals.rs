//! Requests that are refused, each in the contract's form and without a stored row, and every
//! accepted form of signature.

use std::collections::BTreeSet;

use crate::appliance::{Answer, Appliance, KEY, call, key, now, sign_bytes, submission};
use batchkeeper::domain::signature::{Key, Message, SignedRequest, sign};
use serde_json::{Value, json};

/// The key that the default client rotates to, and another client's.
const NEW_KEY: &str = "the key that comes after the first one";
const OTHER_KEY: &str = "a key that only the other client has";
const STRICT_KEY: &str = "a key for signatures of version one only";
const PATH: &str = "/api/v1/generate-descriptions";

fn appliance() -> Appliance {
    Appliance::with(&format!(
        r#"
        clients = [
            {{name = "default", keys = [{KEY:?}, {NEW_KEY:?}]}},
            {{name = "other", keys = [{OTHER_KEY:?}]}},
            {{name = "strict", keys = [{STRICT_KEY:?}], legacy = false}},
        ]
        [limits]
        max_body = "2MB"
        "#
    ))
}

fn key_of(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn sign_with(key: &str, bytes: &[u8]) -> String {
    sign(&key_of(key), Message::Bytes(bytes))
}

/// The headers of signature v1 with a timestamp that is `age` seconds old.
fn v1(key: &str, method: &str, target: &str, body: &[u8], age: i64) -> [String; 2] {
    let timestamp = (now().seconds() - age).to_string();
    let request = SignedRequest {
        timestamp: &timestamp,
        method,
        target,
        body,
    };
    let signature = request.sign(&key_of(key));
    [timestamp, signature]
}

/// Two lots with these ids.
fn lots(ids: [&str; 2]) -> Vec<Value> {
    let lot = |id| json!({"lot_id": id, "images": ["https://img.example/1.jpg"]});
    ids.map(lot).to_vec()
}

fn good() -> Value {
    submission(&lots(["a", "b"]), &["en", "ru"])
}

/// The good submission with one member set.
fn with(name: &str, value: Value) -> Value {
    let mut body = good();
    body[name] = value;
    body
}

/// The good submission with one member of its second lot set.
fn with_lot(name: &str, value: Value) -> Value {
    let mut body = good();
    body["lots"][1][name] = value;
    body
}

/// The good submission without a member.
fn without(name: &str) -> Value {
    let mut body = good();
    body.as_object_mut().unwrap().remove(name);
    body
}

/// Checks that the answer has the contract's error form and reveals nothing about the server.
fn check_form(answer: &Answer, status: u16, code: &str) -> Value {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, status, "{code}: {text}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some(), "{text}");
    let body = answer.json();
    let members: BTreeSet<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["code", "details", "error", "message"]));
    assert_eq!(body["code"], code, "{text}");
    assert!(
        body["error"].is_string() && body["message"].is_string() && body["details"].is_object(),
        "{text}"
    );
    for secret in [KEY, NEW_KEY, OTHER_KEY, "/tmp", "src/", ".rs"] {
        assert!(!text.contains(secret), "{text}");
    }
    body
}

/// Checks that `act` stores nothing.
fn unchanged<T>(appliance: &Appliance, act: impl FnOnce() -> T) -> T {
    appliance.wait_until_ingested();
    let before = appliance.dump();
    let done = act();
    assert_eq!(appliance.dump(), before, "something was stored");
    done
}

#[test]
fn a_signed_submission_with_an_error_is_refused_whole() {
    let appliance = appliance();
    let long = |length| json!("x".repeat(length));
    let webhook = |url: &str| (422, "INVALID_WEBHOOK_URL", with("webhook_url", json!(url)));
    let language = |tags: Value| (422, "INVALID_LANGUAGE", with("languages", tags));
    let lot = |name: &str, value: Value| (422, "INVALID_LOT", with_lot(name, value));
    let image = |images: Value| {
        let mut body = good();
        body["lots"][0]["images"] = json!([]);
        body["lots"][1]["images"] = images;
        (422, "INVALID_IMAGE_URLS", body)
    };
    let eleven: Value = ["en", "ru", "de", "fr", "es", "pl", "it", "pt", "nl", "sv", "da"]
        .into_iter()
        .collect();
    let hundred_and_one: Vec<Value> = (0..101)
        .map(|n| json!({"lot_id": n, "images": ["https://img.example/1.jpg"], "webhook": format!("https://h.example/{n}")}))
        .collect();
    let cases = [
        (400, "INVALID_PARAMETER", json!([])),
        (400, "INVALID_PARAMETER", json!("text")),
        (400, "MISSING_FIELD", without("version")),
        (400, "MISSING_FIELD", without("languages")),
        (400, "MISSING_FIELD", without("lots")),
        (400, "MISSING_FIELD", with("lots", Value::Null)),
        (400, "MISSING_FIELD", with_lot("lot_id", Value::Null)),
        (400, "UNSUPPORTED_VERSION", with("version", json!("2.0.0"))),
        (400, "UNSUPPORTED_VERSION", with("version", json!(1))),
        (400, "INVALID_PARAMETER", with("lots", json!({}))),
        (400, "INVALID_PARAMETER", with("lots", json!([]))),
        (400, "INVALID_PARAMETER", with("languages", json!("en"))),
        (
            400,
            "INVALID_PARAMETER",
            with("event", json!("batch_job_completed")),
        ),
        language(json!([])),
        language(json!(["en", "EN"])),
        language(json!(["en", "e"])),
        language(json!(["en", 7])),
        language(json!(["en_US"])),
        language(json!(["русский"])),
        language(json!(["en-aaaaaaaa-bbbbbbbb-c"])),
        language(eleven),
        (409, "DUPLICATE_LOT_ID", with("lots", json!(lots(["a", "a"])))),
        (
            409,
            "DUPLICATE_LOT_ID",
            with(
                "lots",
                json!([
            {"lot_id": 1, "images": ["https://img.example/1.jpg"]}, {"lot_id": "1"}]),
            ),
        ),
        (422, "INVALID_LOT", with("lots", json!(["a", "b"]))),
        lot("lot_id", json!("")),
        lot("lot_id", json!(true)),
        lot("lot_id", json!(1.5)),
        lot("lot_id", long(101)),
        lot("lot_id", json!("a\0")),
        lot("additional_info", json!(7)),
        lot("additional_info", json!("a\0")),
        lot("additional_info", long(16 * 1024 + 1)),
        lot("images", json!("https://img.example/1.jpg")),
        lot("images", json!(vec!["https://img.example/1.jpg"; 101])),
        lot("images", json!(["https://img.example/1.jpg\0"])),
        lot("images", json!([{"url": "\0"}])),
        image(json!([])),
        image(json!(["ftp://img.example/1.jpg", "img.example/2.jpg", ""])),
        image(
            json!(["http://10.0.0.1/1.jpg", {"url": "http://169.254.169.254/latest"}, "http://[::1]/1.jpg"]),
        ),
        webhook("ftp://client.example/hook"),
        webhook("client.example/hook"),
        webhook("http://10.1.2.3/hook"),
        webhook("https://user@[fd00::1]/hook"),
        webhook("http://169.254.169.254/hook"),
        webhook(&format!("https://client.example/{}", "x".repeat(500))),
        (422, "INVALID_WEBHOOK_URL", with("webhook_url", json!(7))),
        (
            422,
            "INVALID_WEBHOOK_URL",
            with_lot("webhook", json!("http://192.168.1.1/hook")),
        ),
        (422, "INVALID_WEBHOOK_URL", with("lots", json!(hundred_and_one))),
    ];
    unchanged(&appliance, || {
        for (status, code, body) in cases {
            let answer = appliance.submit(&body);
            check_form(&answer, status, code);
        }
    });
}

#[test]
fn errors_carry_the_details_that_programs_need() {
    let appliance = appliance();
    unchanged(&appliance, || {
        let many: Vec<Value> = (0..50_001).map(|n| json!({"lot_id": n})).collect();
        let refused = check_form(
            &appliance.submit(&with("lots", json!(many))),
            413,
            "BATCH_SIZE_EXCEEDED",
        );
        assert_eq!(
            refused["details"],
            json!({"provided_lots": 50_001, "max_allowed": 50_000})
        );

        let urls: Vec<String> = (0..30).map(|n| format!("ftp://img.example/{n}.jpg")).collect();
        let mut body = good();
        body["lots"][0]["images"] = json!(urls);
        body["lots"][1]["images"] = json!(["nowhere"]);
        let refused = check_form(&appliance.submit(&body), 422, "INVALID_IMAGE_URLS");
        assert_eq!(refused["details"]["invalid_urls"], json!(urls[..20]));

        let refused = check_form(&appliance.submit(&without("languages")), 400, "MISSING_FIELD");
        assert_eq!(refused["details"]["field"], "languages");

        // The index of the wrong lot.
        for (code, body) in [
            ("INVALID_WEBHOOK_URL", with_lot("webhook", json!("/hook"))),
            ("INVALID_LOT", with_lot("additional_info", json!(7))),
            ("INVALID_LANGUAGE", with("languages", json!(["en", "en_US"]))),
        ] {
            let refused = check_form(&appliance.submit(&body), 422, code);
            assert_eq!(refused["details"]["position"], 1, "{code}");
        }
    });
}

#[test]
fn a_request_that_is_no_submission_is_refused_first() {
    let appliance = appliance();
    let post = |headers: &[(&str, &str)], body: &[u8]| appliance.post(headers, body);
    unchanged(&appliance, || {
        let broken: [&[u8]; 8] = [
            b"",
            b" ",
            b"{",
            b"{\"lots\": [}",
            b"lots=1",
            b"{} {}",
            b"{\"version\": \"\xff\"}",
            b"\xef\xbb\xbf{}",
        ];
        for body in broken {
            check_form(
                &post(&[("X-Signature", &sign_bytes(body))], body),
                400,
                "INVALID_JSON",
            );
        }
        let deep = "[".repeat(100_000);
        check_form(
            &post(&[("X-Signature", &sign_bytes(deep.as_bytes()))], deep.as_bytes()),
            400,
            "INVALID_JSON",
        );

        let body = good().to_string();
        let signature = sign_bytes(body.as_bytes());
        for media_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonlines",
        ] {
            let answer = post(
                &[("X-Signature", &signature), ("Content-Type", media_type)],
                body.as_bytes(),
            );
            check_form(&answer, 415, "UNSUPPORTED_MEDIA_TYPE");
        }
        let large = vec![b' '; 2_000_001];
        check_form(
            &post(&[("X-Signature", &sign_bytes(&large))], &large),
            413,
            "REQUEST_TOO_LARGE",
        );
    });
}

#[test]
fn a_submission_without_a_valid_signature_gets_no_other_error() {
    let appliance = appliance();
    let body = good();
    let text = body.to_string();
    let bytes = text.as_bytes();
    let other_lots = json!({"lots": lots(["a", "c"])}).to_string();
    let right = sign_bytes(bytes);
    let half = &right[..32];
    let strict = sign_with(STRICT_KEY, bytes);
    let other = sign_with(OTHER_KEY, bytes);
    let stale = v1(KEY, "POST", PATH, bytes, 301);
    let early = v1(KEY, "POST", PATH, bytes, -310);
    let elsewhere = v1(
        KEY,
        "POST",
        "/api/v1/generate-descriptions?dry_run=true",
        bytes,
        0,
    );
    let fresh = v1(KEY, "POST", PATH, bytes, 0);
    let forged = (fresh[0].parse::<i64>().unwrap() + 1).to_string();
    let raw_as_v1 = format!("v1={right}");
    let cases: Vec<Vec<(&str, &str)>> = vec![
        vec![("X-Signature", "")],
        vec![("X-Signature", "nonsense")],
        vec![("X-Signature", half)],
        vec![("X-Signature", &other)],
        vec![("X-Signature", &right), ("X-Client-Id", "nobody")],
        vec![("X-Signature", &right), ("X-Client-Id", "other")],
        vec![("X-Signature", &other), ("X-Client-Id", "Other")],
        // This client's legacy signatures are not accepted.
        vec![("X-Signature", &strict), ("X-Client-Id", "strict")],
        vec![("X-Signature", &raw_as_v1)],
        vec![("X-Signature", &stale[1]), ("X-Timestamp", &stale[0])],
        vec![("X-Signature", &early[1]), ("X-Timestamp", &early[0])],
        vec![("X-Signature", &elsewhere[1]), ("X-Timestamp", &elsewhere[0])],
        vec![("X-Signature", &fresh[1]), ("X-Timestamp", &forged)],
        vec![("X-Signature", &fresh[1])],
    ];
    unchanged(&appliance, || {
        check_form(&appliance.post(&[], bytes), 401, "MISSING_SIGNATURE");
        // The answer says nothing about the errors in the body.
        check_form(
            &appliance.post(&[], b"{\"version\": 7}"),
            401,
            "MISSING_SIGNATURE",
        );
        let null = with("signature", Value::Null).to_string();
        check_form(&appliance.post(&[], null.as_bytes()), 401, "MISSING_SIGNATURE");
        for headers in &cases {
            check_form(&appliance.post(headers, bytes), 403, "INVALID_SIGNATURE");
        }
        for signature in [
            sign_bytes(other_lots.as_bytes()),
            sign_bytes(b""),
            right.clone(),
            "é".to_owned(),
        ] {
            let body = with("signature", json!(signature)).to_string();
            check_form(&appliance.post(&[], body.as_bytes()), 403, "INVALID_SIGNATURE");
        }
        let wrong = json!({"version": 7, "signature": "00"}).to_string();
        check_form(&appliance.post(&[], wrong.as_bytes()), 403, "INVALID_SIGNATURE");
    });
}

#[test]
fn a_webhook_sent_back_to_us_is_no_submission() {
    let appliance = appliance();
    let lots = appliance.lots(2);
    let mut body = submission(&lots, &["en"]);
    body["webhook_url"] = json!(appliance.hook("ours"));
    let job = appliance.submit(&body).json()["job_id"]
        .as_str()
        .unwrap()
        .to_owned();
    appliance.results(&job);
    let delivery = &appliance.delivered("ours", 1)[0];
    let body = delivery["body"].as_str().unwrap();
    let headers = delivery["headers"].as_array().unwrap();
    let signature = headers.iter().find(|pair| pair[0] == "x-signature").unwrap();
    let jobs = || appliance.cell::<i64>("SELECT count(*) FROM batch_jobs");
    let answer = appliance.post(
        &[("X-Signature", signature[1].as_str().unwrap())],
        body.as_bytes(),
    );
    check_form(&answer, 400, "INVALID_PARAMETER");
    assert_eq!(jobs(), 1);
}

#[test]
fn unknown_paths_methods_and_jobs_are_refused() {
    let appliance = appliance();
    let job = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&job);
    let nobody = "00000000-0000-4000-8000-000000000000";
    let get =
        |path: &str, headers: &[(&str, &str)]| call("GET", &format!("{}{path}", appliance.api), headers, b"");
    unchanged(&appliance, || {
        for path in [
            "/",
            "/api",
            "/api/v1/generate-description",
            "/api/v1/batch-status",
            "/api/v2/generate-descriptions",
            "/api/v1/batch-results/x/y",
            "/metrics",
            "/api/ops/summary",
            "/%2e%2e/etc/passwd",
        ] {
            check_form(&get(path, &[]), 404, "NOT_FOUND");
        }
        for path in ["batch-status/", "batch-results/"] {
            let path = format!("/api/v1/{path}");
            for id in [nobody, "no-uuid", &job.to_uppercase()] {
                check_form(&appliance.read(&format!("{path}{id}"), id), 404, "JOB_NOT_FOUND");
            }
            // Another client's job is answered like an unknown job.
            let other = sign_with(OTHER_KEY, job.as_bytes());
            let answer = get(
                &format!("{path}{job}"),
                &[("X-Client-Id", "other"), ("X-Signature", &other)],
            );
            check_form(&answer, 404, "JOB_NOT_FOUND");
            check_form(&get(&format!("{path}{job}"), &[]), 401, "MISSING_SIGNATURE");
            check_form(&get(&format!("{path}{nobody}"), &[]), 401, "MISSING_SIGNATURE");
            check_form(
                &get(&format!("{path}{job}"), &[("X-Signature", &other)]),
                403,
                "INVALID_SIGNATURE",
            );
            // A signature for one job reads no other job.
            let wrong = sign_bytes(nobody.as_bytes());
            check_form(
                &get(&format!("{path}{job}"), &[("X-Signature", &wrong)]),
                403,
                "INVALID_SIGNATURE",
            );
        }
        for query in ["limit=x", "offset=x", "limit=1.5"] {
            let answer = appliance.read(&format!("/api/v1/batch-results/{job}?{query}"), &job);
            check_form(&answer, 400, "INVALID_PARAMETER");
        }
        let job = job.as_str();
        for (method, path, allow) in [
            ("GET", PATH.to_owned(), "POST"),
            ("PUT", PATH.to_owned(), "POST"),
            ("DELETE", PATH.to_owned(), "POST"),
            ("POST", format!("/api/v1/batch-status/{job}"), "GET, HEAD"),
            ("DELETE", format!("/api/v1/batch-results/{job}"), "GET, HEAD"),
            (
                "PATCH",
                format!("/api/v1/batch-results/{job}/download"),
                "GET, HEAD",
            ),
            ("POST", "/health".to_owned(), "GET, HEAD"),
        ] {
            let answer = call(method, &format!("{}{path}", appliance.api), &[], b"");
            check_form(&answer, 405, "METHOD_NOT_ALLOWED");
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        }
        check_form(
            &call("POST", &format!("{}/health", appliance.ops), &[], b""),
            405,
            "METHOD_NOT_ALLOWED",
        );
        check_form(
            &call("GET", &format!("{}/nothing", appliance.ops), &[], b""),
            404,
            "NOT_FOUND",
        );
    });
}

/// Lots as a client may write them. The signature covers what Python makes of them:
/// `json.dumps(json.loads(LOTS), separators=(',', ':'), sort_keys=True)`, HMAC-SHA256 with [`KEY`].
const LOTS: &str = r#"[ {"lot_id" : "Лот-1","images":["https://img.example/1.jpg"], "additional_info":"\u00fcber 😀 \ud83d\ude97 / \u007f \"q\"", "year": 2.50, "km":1E5, "z":{"b":1,"a":[true,null,-0.0]}},
  {"lot_id": 11223344556677889900,"images":[{"url":"https://img.example/2.jpg"}]} ]"#;
const SIGNED_BY_PYTHON: &str = "a24caf08f0fe997c88cb1d76c58b2f302fe783efc9a590a45d78d13b0ab5153b";

#[test]
fn every_form_of_signature_on_a_submission_is_accepted() {
    let appliance = appliance();
    let signed_lots = |signature: &str| {
        format!(
            "{{\"lots\": {LOTS}, \"version\": \"1.0.0\", \"languages\": [\"en\"], \"signature\": \"{signature}\"}}"
        )
    };
    let accepted = |headers: &[(&str, &str)], body: &str| {
        let answer = appliance.post(headers, body.as_bytes());
        assert_eq!(answer.status, 201, "{headers:?}: {}", answer.json());
        answer.json()["job_id"].as_str().unwrap().to_owned()
    };
    let upper = SIGNED_BY_PYTHON.to_uppercase();
    accepted(&[], &signed_lots(SIGNED_BY_PYTHON));
    accepted(&[], &signed_lots(&upper));
    accepted(&[], &signed_lots(&format!("sha256={SIGNED_BY_PYTHON}")));
    // Some clients send both signatures; either is sufficient.
    accepted(&[("X-Signature", "00")], &signed_lots(SIGNED_BY_PYTHON));
    accepted(&[("X-Signature", SIGNED_BY_PYTHON)], &signed_lots("00"));

    let fresh = std::cell::Cell::new(0);
    let next = || {
        fresh.set(fresh.get() + 1);
        submission(&lots([&format!("l{}", fresh.get()), "m"]), &["en"]).to_string()
    };
    for (before, upper) in [("", false), ("", true), ("sha256=", false), ("SHA256=", true)] {
        let body = next();
        let hex = sign_bytes(body.as_bytes());
        let hex = if upper { hex.to_uppercase() } else { hex };
        accepted(
            &[
                ("X-Signature", &format!("{before}{hex}")),
                ("Content-Type", "application/json; charset=utf-8"),
            ],
            &body,
        );
    }
    for (client, secret) in [
        ("default", KEY),
        ("default", NEW_KEY),
        ("other", OTHER_KEY),
        ("strict", STRICT_KEY),
    ] {
        for age in [0, 290, -290] {
            let body = next();
            let [timestamp, signature] = v1(secret, "POST", PATH, body.as_bytes(), age);
            let headers = [
                ("X-Timestamp", timestamp.as_str()),
                ("X-Signature", &signature),
                ("X-Client-Id", client),
            ];
            let job = accepted(&headers, &body);
            let owner =
                appliance.cell::<String>(&format!("SELECT client FROM batch_jobs WHERE id = '{job}'"));
            assert_eq!(owner, client);
        }
        if client != "strict" {
            let body = next();
            accepted(
                &[
                    ("X-Signature", &sign_with(secret, body.as_bytes())),
                    ("X-Client-Id", client),
                ],
                &body,
            );
        }
    }
}

#[test]
fn every_form_of_signature_on_a_read_is_accepted() {
    let appliance = appliance();
    let job = appliance.job(&lots(["a", "b"]), &["en"]);
    let path = format!("/api/v1/batch-status/{job}");
    let read =
        |headers: &[(&str, &str)]| call("GET", &format!("{}{path}", appliance.api), headers, b"").status;
    for secret in [KEY, NEW_KEY] {
        for message in [job.as_bytes(), b""] {
            let hex = sign_with(secret, message);
            for form in [hex.clone(), hex.to_uppercase(), format!("sha256={hex}")] {
                assert_eq!(read(&[("X-Signature", &form)]), 200, "{form}");
            }
        }
        let [timestamp, signature] = v1(secret, "GET", &path, b"", 0);
        assert_eq!(
            read(&[("X-Signature", &signature), ("X-Timestamp", &timestamp)]),
            200
        );
        let [timestamp, signature] = v1(secret, "GET", &path, b"", 400);
        assert_eq!(
            read(&[("X-Signature", &signature), ("X-Timestamp", &timestamp)]),
            403
        );
    }
    let query = format!("/api/v1/batch-results/{job}?limit=1");
    let [timestamp, signature] = v1(KEY, "GET", &query, b"", 0);
    let headers = [("X-Signature", signature.as_str()), ("X-Timestamp", &timestamp)];
    assert!(matches!(
        call("GET", &format!("{}{query}", appliance.api), &headers, b"").status,
        200 | 202 | 410
    ));
    let unsigned_query = call("GET", &format!("{}{query}0", appliance.api), &headers, b"");
    check_form(&unsigned_query, 403, "INVALID_SIGNATURE");
    assert!(!format!("{:?}", key()).contains(KEY));
}
