//! A lot over all jobs of its client.

use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, submission};
use crate::{accepted, borrowed, refused, sign_with};

const OTHER_KEY: &str = "a key that only the other client has";

fn appliance() -> Appliance {
    Appliance::with(&format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}]}}, {{name = \"other\", keys = [{OTHER_KEY:?}]}}]"
    ))
}

/// A job with three lots; the second has this id.
fn job_with_lot(appliance: &Appliance, lot_id: &str, languages: &[&str]) -> String {
    let mut lots = appliance.lots(3);
    lots[1]["lot_id"] = json!(lot_id);
    appliance.job(&lots, languages)
}

#[test]
fn a_lot_is_read_with_all_its_jobs_newest_first() {
    let appliance = appliance();
    let first = job_with_lot(&appliance, "11-1", &["en", "ru"]);
    let done = appliance.results(&first);
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let mut body = submission(&appliance.lots(2), &["de"]);
    body["metadata"] = json!({"order": "7"});
    body["lots"][0]["lot_id"] = json!("11-1");
    body["lots"][0]["reference"] = json!("shelf");
    let second = accepted(&appliance.submit(&body));
    job_with_lot(&appliance, "11-2", &["en"]);
    // Another client has a lot of the same id, and one of its own.
    let mut body = submission(&appliance.lots(2), &["en"]);
    body["lots"][0]["lot_id"] = json!("11-1");
    body["lots"][1]["lot_id"] = json!("theirs");
    let text = body.to_string();
    let headers = [
        ("X-Signature", sign_with(OTHER_KEY, text.as_bytes())),
        ("X-Client-Id", "other".to_owned()),
    ];
    let theirs = accepted(&appliance.post(&borrowed(&headers), text.as_bytes()));

    let answer = appliance.get("/api/v1/lots/11-1");
    assert_eq!(answer.status, 200, "{}", answer.json());
    let found = answer.json();
    assert_eq!(found["lot_id"], "11-1");
    assert_eq!(
        found["pagination"],
        json!({"limit": 10, "offset": 0, "total": 2, "has_more": false})
    );
    let jobs = found["jobs"].as_array().unwrap();
    assert_eq!(
        (&jobs[0]["job_id"], &jobs[1]["job_id"]),
        (&json!(second), &json!(first))
    );
    assert_eq!(
        (&jobs[0]["status"], &jobs[1]["status"]),
        (&json!("pending"), &json!("completed"))
    );
    assert_eq!(
        (&jobs[0]["metadata"], jobs[1].get("metadata")),
        (&json!({"order": "7"}), None)
    );
    assert_eq!(
        (&jobs[0]["completed_at"], &jobs[1]["completed_at"]),
        (&Value::Null, &done["completed_at"])
    );
    assert_eq!(jobs[1]["created_at"], appliance.status(&first)["created_at"]);
    // The lot as in results, in the languages of its job.
    assert_eq!(jobs[1]["lot"], done["results"]["lots"][1]);
    let waiting = &jobs[0]["lot"];
    assert_eq!(
        (&waiting["status"], &waiting["reference"]),
        (&json!("pending"), &json!("shelf"))
    );
    assert_eq!(waiting["descriptions"][0]["language"], "de");

    let page = appliance.get("/api/v1/lots/11-1?limit=1&offset=1").json();
    assert_eq!(page["jobs"], json!([jobs[1]]));
    let page = appliance.get("/api/v1/lots/11-1?limit=1").json();
    assert_eq!(page["pagination"]["has_more"], true);
    assert_eq!(
        appliance.get("/api/v1/lots/11-1?offset=2").json()["jobs"],
        json!([])
    );
    refused(
        &appliance.get("/api/v1/lots/11-1?limit=x"),
        400,
        "INVALID_PARAMETER",
    );

    // Another client's lot is as unknown as any, and the other client sees its own alone.
    let unknown = refused(&appliance.get("/api/v1/lots/nothing"), 404, "NOT_FOUND");
    let mut their = refused(&appliance.get("/api/v1/lots/theirs"), 404, "NOT_FOUND");
    their["details"] = unknown["details"].clone();
    assert_eq!(their, unknown);
    let headers = [
        ("X-Signature", sign_with(OTHER_KEY, b"11-1")),
        ("X-Client-Id", "other".to_owned()),
    ];
    let answer = appliance.ask("GET", "/api/v1/lots/11-1", &headers).json();
    assert_eq!(answer["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(answer["jobs"][0]["job_id"], json!(theirs));
    // While retention removes a job's lots, none is shown.
    let database = rusqlite::Connection::open(appliance.database()).unwrap();
    let clean = "UPDATE batch_jobs SET cleaning_since = completed_at WHERE id = ?";
    assert_eq!(database.execute(clean, [&first]), Ok(1));
    assert_eq!(
        appliance.get("/api/v1/lots/11-1").json()["pagination"]["total"],
        1
    );
}

#[test]
fn any_lot_id_can_be_named_and_every_signature_of_a_read_counts() {
    let appliance = appliance();
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    for (lot_id, path) in [
        ("a/b?c=d#e", "a%2Fb%3Fc%3Dd%23e"),
        ("жук \u{1F697}", "%D0%B6%D1%83%D0%BA%20%F0%9F%9A%97"),
        ("100%", "100%25"),
        ("a+b", "a+b"),
        ("..", "%2E%2E"),
        ("' OR 1=1 --", "'%20OR%201=1%20--"),
        ("<b>\"&", "%3Cb%3E%22%26"),
    ] {
        let job = job_with_lot(&appliance, lot_id, &["en"]);
        let target = format!("/api/v1/lots/{path}");
        let legacy = |bytes: &[u8]| [("X-Signature", sign_with(KEY, bytes))];
        let answers = [
            appliance.get(&target),
            appliance.get(&format!("{target}/")),
            appliance.ask("GET", &target, &legacy(lot_id.as_bytes())),
            appliance.ask("GET", &target, &legacy(b"")),
            appliance.ask("GET", &target, &legacy(target.as_bytes())),
        ];
        for answer in answers {
            assert_eq!(answer.status, 200, "{path}: {}", answer.json());
            let answer = answer.json();
            assert_eq!(
                (&answer["lot_id"], &answer["jobs"][0]["job_id"]),
                (&json!(lot_id), &json!(job))
            );
        }
    }
    for path in ["%00", "%FF%FE", "%", "%zz", &"a".repeat(2000)] {
        let answer = appliance.get(&format!("/api/v1/lots/{path}"));
        refused(&answer, 404, "NOT_FOUND");
    }
    for path in ["/api/v1/lots", "/api/v1/lots/", "/api/v1/lots/a/b"] {
        refused(&appliance.get(path), 404, "NOT_FOUND");
    }
    refused(
        &appliance.ask("GET", "/api/v1/lots/a", &[]),
        401,
        "MISSING_SIGNATURE",
    );
    let wrong = [("X-Signature", sign_with(KEY, b"b"))];
    refused(
        &appliance.ask("GET", "/api/v1/lots/a", &wrong),
        403,
        "INVALID_SIGNATURE",
    );
}
