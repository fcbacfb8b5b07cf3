//! The list of a client's jobs, and the methods and trailing slashes that every path accepts.

use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, call, submission};
use crate::{SUBMIT, accepted, borrowed, refused, sign_with};

const OTHER_KEY: &str = "a key that only the other client has";

#[test]
fn a_client_s_jobs_are_listed_newest_first_by_pages() {
    let appliance = Appliance::with(&format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}]}}, {{name = \"other\", keys = [{OTHER_KEY:?}]}}]
         [images]\ncheck = false\n[batch]\nmax_wait = \"1h\""
    ));
    let text = submission(&appliance.lots(1), &["en"]).to_string();
    let headers = [
        ("X-Signature", sign_with(OTHER_KEY, text.as_bytes())),
        ("X-Client-Id", "other".to_owned()),
    ];
    accepted(&appliance.post(&borrowed(&headers), text.as_bytes()));
    let mut jobs: Vec<String> = (1..=12)
        .map(|lots| accepted(&appliance.submit(&submission(&appliance.lots(lots), &["en"]))))
        .collect();
    jobs.reverse();
    let list = |query: &str| {
        let answer = appliance.get(&format!("/api/v1/batch-jobs{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.json());
        answer.json()
    };
    let ids = |list: &Value| -> Vec<String> {
        let rows = list["jobs"].as_array().unwrap().iter();
        rows.map(|row| {
            assert_eq!(row["id"], row["job_id"]);
            row["id"].as_str().unwrap().to_owned()
        })
        .collect()
    };
    let all = list("");
    assert_eq!(ids(&all), jobs[..10]);
    assert_eq!(
        all["pagination"],
        json!({"limit": 10, "offset": 0, "total": 12, "has_more": true})
    );
    assert_eq!(all["jobs"][0]["total_lots"], 12);
    let rest = list("?limit=5&offset=10");
    assert_eq!(ids(&rest), jobs[10..]);
    assert_eq!(rest["pagination"]["has_more"], false);
    for (query, limit) in [
        ("limit=0", 1),
        ("limit=-3", 1),
        ("limit=1000", 100),
        ("limit=99999999999999999999", 100),
        ("limit=", 10),
    ] {
        assert_eq!(list(&format!("?{query}"))["pagination"]["limit"], limit);
    }
    assert_eq!(ids(&list("?offset=9999999999")), [""; 0]);

    let path = format!("/api/v1/batch-jobs/{}/cancel", jobs[3]);
    let headers = [("X-Signature", sign_with(KEY, jobs[3].as_bytes()))];
    assert_eq!(appliance.ask("POST", &path, &headers).status, 200);
    assert_eq!(ids(&list("?status=cancelled")), jobs[3..4]);
    assert_eq!(list("?status=pending")["pagination"]["total"], 11);
    let times: Vec<String> = jobs
        .iter()
        .map(|job| appliance.cell(&format!("SELECT created_at FROM batch_jobs WHERE id = '{job}'")))
        .collect();
    // From the fifth job (included) up to the second (not included).
    let query = format!("?created_after={}&created_before={}", times[4], times[1]);
    assert_eq!(ids(&list(&query)), jobs[2..5]);
    assert_eq!(list("?created_after=2100-01-01")["pagination"]["total"], 0);
    for query in [
        "limit=x",
        "limit=5&limit=5",
        "offset=1.5",
        "status=done",
        "created_after=soon",
        "created_before=7",
    ] {
        let answer = appliance.get(&format!("/api/v1/batch-jobs?{query}"));
        refused(&answer, 400, "INVALID_PARAMETER");
    }
}

#[test]
fn a_cursor_leads_through_the_list_while_new_jobs_arrive() {
    let appliance = Appliance::with("[images]\ncheck = false\n[batch]\nmax_wait = \"1h\"");
    let send = || accepted(&appliance.submit(&submission(&appliance.lots(2), &["en"])));
    let mut jobs: Vec<String> = (0..7).map(|_| send()).collect();
    jobs.reverse();
    let list = |query: &str| {
        let answer = appliance.get(&format!("/api/v1/batch-jobs?{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.json());
        answer.json()
    };
    let (mut cursor, mut seen, mut sizes) = (String::new(), Vec::new(), Vec::new());
    loop {
        let page = list(&format!("limit=3&cursor={cursor}"));
        let rows = page["jobs"].as_array().unwrap();
        seen.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        sizes.push(rows.len());
        let next = page["pagination"]["next_cursor"].as_str().map(str::to_owned);
        assert_eq!(page["pagination"]["has_more"], next.is_some());
        // Jobs that arrive meanwhile move no page.
        send();
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!((seen, sizes), (jobs.clone(), vec![3, 3, 1]));
    // A page that ends with the last job is the last one. Filters work as without a cursor.
    let last = list(&format!("limit=2&cursor={}", jobs[4]));
    assert_eq!(last["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(last["pagination"]["next_cursor"], Value::Null);
    let none = list(&format!("status=completed&cursor={}", jobs[0]));
    assert_eq!(
        (&none["jobs"], &none["pagination"]["total"]),
        (&json!([]), &json!(0))
    );
    assert!(list("limit=3")["pagination"].get("next_cursor").is_none());
    for query in [
        "cursor=x".to_owned(),
        "cursor=00000000-0000-4000-8000-000000000000".into(),
        format!("cursor={}%00", jobs[0]),
        format!("cursor={}&offset=1", jobs[0]),
        format!("cursor={}&cursor={}", jobs[0], jobs[1]),
        format!("cursor={}", "a".repeat(4000)),
    ] {
        let answer = appliance.get(&format!("/api/v1/batch-jobs?{query}"));
        refused(&answer, 400, "INVALID_PARAMETER");
    }
}

#[test]
fn every_path_names_its_methods_and_accepts_one_trailing_slash() {
    let appliance = Appliance::start();
    let job = accepted(&appliance.submit(&submission(&appliance.lots(2), &["en"])));
    appliance.results(&job);
    let paths = [
        (SUBMIT.to_owned(), "POST"),
        ("/api/v1/batch-jobs".into(), "GET, HEAD"),
        ("/api/v1/lots/LOT-0000".into(), "GET, HEAD"),
        (format!("/api/v1/jobs/{job}/deliveries"), "GET, HEAD"),
        (format!("/api/v1/jobs/{job}/deliveries/1/resend"), "POST"),
        ("/api/v1/webhooks/test".into(), "POST"),
        (format!("/api/v1/batch-jobs/{job}/cancel"), "POST"),
        (format!("/api/v1/batch-status/{job}"), "GET, HEAD"),
        (format!("/api/v1/batch-results/{job}"), "GET, HEAD"),
        (format!("/api/v1/batch-results/{job}/download"), "GET, HEAD"),
        (format!("/api/v1/jobs/{job}"), "GET, HEAD"),
        (format!("/api/v1/jobs/{job}/status"), "GET, HEAD"),
        (format!("/api/v1/jobs/{job}/results"), "GET, HEAD"),
        ("/health".into(), "GET, HEAD"),
    ];
    for (path, allow) in &paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FROB"] {
            if allow.contains(method) {
                continue;
            }
            let answer = call(method, &format!("{}{path}", appliance.api), &[], b"");
            refused(&answer, 405, "METHOD_NOT_ALLOWED");
            assert_eq!(answer.header("allow"), Some(*allow), "{method} {path}");
        }
        for odd in [
            format!("{path}//"),
            format!("/{path}"),
            path.replacen("/", "//", 2),
        ] {
            let answer = call("GET", &format!("{}{odd}", appliance.api), &[], b"");
            refused(&answer, 404, "NOT_FOUND");
        }
        if allow.contains("GET") {
            let got = appliance.get(path);
            assert_eq!(got.status, 200, "{path}");
            let slashed = appliance.get(&format!("{path}/"));
            assert_eq!((slashed.status, &slashed.body), (200, &got.body), "{path}/");
            let signed = crate::v1(KEY, "HEAD", path, b"");
            let head = appliance.ask("HEAD", path, &signed);
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            assert_eq!(head.header("content-type"), got.header("content-type"));
        }
    }
}
