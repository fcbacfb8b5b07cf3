//! The JSON answers of the operators' listener.

use serde_json::{Value, json};

use crate::appliance::{Appliance, call, now, submission, wait_for};
use crate::fixtures::Fixtures;
use crate::talk::{Ask, Talk};
use crate::{STEADY, UNCHECKED, names_of};

/// The pages, without the OpenAPI document.
const PAGES: [&str; 6] = [
    "/health",
    "/api/ops/summary",
    "/api/ops/alerts",
    "/api/ops/batches",
    "/api/ops/webhooks",
    "/api/ops/costs",
];

/// A page's JSON.
fn page(appliance: &Appliance, path: &str) -> Value {
    call("GET", &format!("{}{path}", appliance.ops), &[], b"").json()
}

/// Waits until `count` deliveries have ended.
fn wait_for_deliveries(appliance: &Appliance, count: usize) {
    wait_for("the end of every delivery", || {
        let page = page(appliance, "/api/ops/webhooks");
        let all = page["webhooks"].as_array().unwrap();
        let over = all
            .iter()
            .filter(|it| it["state"] == "delivered" || it["state"] == "failed");
        (over.count() == count).then_some(())
    });
}

/// Submits a job that must be accepted, and returns its id.
fn job(appliance: &Appliance, body: &Value) -> String {
    let answer = appliance.submit(body);
    assert_eq!(answer.status, 201, "{}", answer.json());
    answer.json()["job_id"].as_str().unwrap().to_owned()
}

/// The current day in UTC.
fn today() -> String {
    now().to_string()[..10].to_owned()
}

#[test]
fn the_operators_pages() {
    // Costs are shown by day. If midnight passes during the test, it runs again.
    let fixtures = loop {
        let day = today();
        let fixtures = pages();
        if today() == day {
            break fixtures;
        }
    };
    fixtures.check();
}

/// The pages before anything has happened, and after two jobs have ended.
fn pages() -> Fixtures {
    let appliance = Appliance::with(&format!(
        "{STEADY}{UNCHECKED}budgets.total = {{ per_day = \"5\", per_month = \"100\" }}"
    ));
    let names = names_of(&appliance);
    names.know(concat!("\"", env!("CARGO_PKG_VERSION"), "\""), "version");
    let mut fixtures = Fixtures::of("operators");
    let document = call("GET", &format!("{}/openapi.json", appliance.ops), &[], b"");
    fixtures.add("openapi.json", String::from_utf8(document.body).unwrap());
    // Every thread has ticked.
    wait_for("the watchdog", || {
        let page = page(&appliance, "/health");
        page["checks"]["watchdog"].is_object().then_some(())
    });
    let mut talk = Talk::with(&appliance.ops, &names);
    for path in PAGES {
        talk.ask(&format!("{path}, nothing has happened"), &Ask::new("GET", path));
    }

    // One job is completed. The other fails, and its receiver refuses further webhooks.
    let image = |name: &str| json!([format!("https://img.example/{name}.jpg")]);
    let lots = [
        json!({"lot_id": "a", "additional_info": "1990 Volvo V70", "images": image("1")}),
        json!({"lot_id": "b", "images": image("2")}),
    ];
    let mut body = submission(&lots, &["en", "ru"]);
    body["webhook_url"] = json!(appliance.hook("well"));
    let completed = job(&appliance, &body);
    names.job(&completed, "completed");
    appliance.ended(&completed);
    wait_for_deliveries(&appliance, 1);
    appliance.wait_until_ingested();
    appliance.fault(&json!({"fault": "hook_status", "match": "POST /hooks/gone", "value": 410}));
    body["webhook_url"] = json!(appliance.hook("gone"));
    body["lots"] = json!([{"lot_id": "a", "images": image("missing")}]);
    let failed = job(&appliance, &body);
    names.job(&failed, "failed");
    appliance.ended(&failed);
    wait_for_deliveries(&appliance, 2);
    appliance.wait_until_ingested();
    // OpenAI names a queue's limit only in refusals, and a refusal would change the number of
    // batches.
    let database = rusqlite::Connection::open(appliance.database()).unwrap();
    let learned = "INSERT INTO queue_limits (model, tokens, learned_at)
                   VALUES ('gpt-6-luna', 2000000, '2026-11-24T02:24:00.000Z')";
    assert_eq!(database.execute(learned, []), Ok(1));
    wait_for("one webhook sender", || {
        let page = page(&appliance, "/health");
        page["checks"]["webhook_sender-2"].is_null().then_some(())
    });
    for path in PAGES {
        talk.ask(&format!("{path}, two jobs have ended"), &Ask::new("GET", path));
    }
    for (method, path) in [
        ("HEAD", "/health"),
        ("POST", "/api/ops/summary"),
        ("GET", "/api/ops/jobs"),
    ] {
        talk.ask(&format!("{method} {path}"), &Ask::new(method, path));
    }
    fixtures.add("pages.txt", talk.text());
    fixtures
}
