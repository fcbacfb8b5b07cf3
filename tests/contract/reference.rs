//! The reference for clients: the examples and webhooks of the OpenAPI document, and its page.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use batchkeeper::domain::api_error::ErrorCode;
use batchkeeper::domain::job::JobStatus;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::appliance::{Appliance, call, submission};
use crate::openapi::{CANCEL, Schema, Witness};

#[test]
fn every_answer_has_examples_that_fit_its_schema() {
    let appliance = Appliance::start();
    let witness = Witness::of(&appliance.api);
    let schema = Schema {
        document: &witness.document,
    };
    for section in ["paths", "webhooks"] {
        for (path, item) in witness.document[section].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let what = format!("{method} {path}");
                assert!(operation["summary"].is_string(), "{what} has no summary");
                if operation["requestBody"].is_object() {
                    witness.check_examples(&what, &operation["requestBody"]["content"]);
                }
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let response = schema.resolve(response);
                    // The receiver of a webhook may answer with any body.
                    if section == "webhooks" {
                        continue;
                    }
                    let what = format!("{what} {status}");
                    witness.check_examples(&what, &response["content"]);
                    let Some(codes) = response["x-codes"].as_array() else {
                        continue;
                    };
                    let examples = witness.examples(&response["content"]["application/json"]);
                    let shown: BTreeSet<_> = examples.iter().filter_map(|it| it["code"].as_str()).collect();
                    assert_eq!(shown, codes.iter().filter_map(Value::as_str).collect(), "{what}");
                }
            }
        }
    }
}

#[test]
fn every_webhook_is_as_documented() {
    let appliance = Appliance::start();
    let witness = Witness::of(&appliance.api);
    let schema = Schema {
        document: &witness.document,
    };
    let send = |hook: &str, images: &[String]| -> String {
        let lots = json!([{"lot_id": "a", "images": images}, {"lot_id": "b", "images": images}]);
        let mut body = submission(lots.as_array().unwrap(), &["en", "ru"]);
        body["webhook_url"] = json!(appliance.hook(hook));
        let answer = appliance.submit(&body);
        answer.json()["job_id"].as_str().unwrap().to_owned()
    };
    send("batch_job_completed", &[appliance.image("truck.jpg")]);
    send("batch_job_failed", &[appliance.image("no-such.jpg")]);
    appliance.delivered("batch_job_completed", 1);
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let job = send("batch_job_cancelled", &[appliance.image("truck.jpg")]);
    let cancel = CANCEL.replace("{job_id}", &job);
    assert_eq!(appliance.v1("POST", &cancel, b"").status, 200);
    let documented = witness.document["webhooks"].as_object().unwrap();
    let events: Vec<&str> = JobStatus::ALL.iter().filter_map(|it| it.event()).collect();
    let names: BTreeSet<&str> = documented.keys().map(String::as_str).collect();
    let url = json!({"url": appliance.hook("test")}).to_string();
    let answer = appliance.v1("POST", "/api/v1/webhooks/test", url.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.json());
    let events: Vec<&str> = events.into_iter().chain(["test"]).collect();
    assert_eq!(names, events.iter().copied().collect());
    for event in events {
        let delivery = &appliance.delivered(event, 1)[0];
        let body: Value = serde_json::from_str(delivery["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["event"], event);
        let operation = &documented[event]["post"];
        let of = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(schema.complaint(of, &body), None, "{event}");
        let names: BTreeSet<&str> = delivery["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| header[0].as_str().unwrap())
            .collect();
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = schema.resolve(parameter)["name"].as_str().unwrap().to_lowercase();
            assert!(names.contains(name.as_str()), "{event}: {name}");
        }
    }
}

/// The values of an attribute of a page.
fn attributes<'p>(page: &'p str, name: &str) -> Vec<&'p str> {
    let start = format!(" {name}=\"");
    let found = page.split(start.as_str()).skip(1);
    found.map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn the_page_of_the_document_is_whole_and_loads_nothing() {
    let appliance = Appliance::start();
    let witness = Witness::of(&appliance.api);
    let answer = call("GET", &format!("{}/docs", appliance.api), &[], b"");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let page = String::from_utf8(answer.body.clone()).unwrap();
    // The policy allows the page's own style alone.
    let (_, style) = page.split_once("<style>").unwrap();
    let (style, _) = style.split_once("</style>").unwrap();
    let hash = STANDARD.encode(Sha256::digest(style));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with(&format!("default-src 'none'; style-src 'sha256-{hash}'; ")),
        "{policy}"
    );
    for loads in [
        "<script",
        "<img",
        "<link",
        "<iframe",
        "<form",
        " src=",
        " style=",
        " onclick=",
        "@import",
        "url(",
    ] {
        assert!(!page.contains(loads), "{loads}");
    }
    let ids: Vec<&str> = attributes(&page, "id");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    for link in attributes(&page, "href") {
        match link.strip_prefix('#') {
            Some(id) => assert!(ids.contains(&id), "{link} leads nowhere"),
            None => assert_eq!(link, "/openapi.json"),
        }
    }
    // It shows every operation with its answers, every object, and every example.
    for section in ["paths", "webhooks"] {
        for item in witness.document[section].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                let (_, shown) = page.split_once(&format!("<h2 id=\"{id}\">")).unwrap();
                let shown = shown.split("<h2").next().unwrap();
                for status in operation["responses"].as_object().unwrap().keys() {
                    assert!(shown.contains(&format!("<dt>{status}</dt>")), "{id}: {status}");
                }
            }
        }
    }
    for name in witness.document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(ids.contains(&format!("object-{name}").as_str()), "{name}");
    }
    for code in ErrorCode::ALL
        .iter()
        .filter(|code| **code != ErrorCode::InvalidOperatorToken)
    {
        let is_shown = page.contains(&format!("&quot;code&quot;: &quot;{code}&quot;"));
        let is_listener_s = matches!(code, ErrorCode::NotFound | ErrorCode::MethodNotAllowed);
        assert!(is_shown || is_listener_s, "{code}");
    }
    assert_eq!(
        call("HEAD", &format!("{}/docs", appliance.api), &[], b"").body,
        b""
    );
}
