//! The lots that a job has before its end.

use serde_json::{Value, json};

use crate::appliance::Appliance;
use crate::refused;

#[test]
fn the_lots_that_are_finished_can_be_read_before_the_end() {
    let appliance = Appliance::start();
    appliance.fault(&json!({"fault": "refusal_line", "match": "_2$"}));
    let lots = appliance.lots(5);
    let job = appliance.job(&lots, &["en", "ru"]);
    let done = appliance.results(&job);
    appliance.wait_until_ingested();
    assert_eq!(done["processing_summary"]["failed_lots"], 1);
    let path = format!("/api/v1/batch-results/{job}");
    // At the end there is nothing partial.
    let answer = appliance.get(&format!("{path}?partial=true"));
    assert_eq!((answer.status, answer.json()), (200, done.clone()));

    // An operator sends the failed lot again: the job is open, and four lots are finished.
    appliance.clear_faults();
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    assert_eq!(appliance.run(&["jobs", "retry", &job, "--failed-lots"]).status, 0);
    let finished: Vec<Value> = [0, 1, 3, 4].map(|at| done["results"]["lots"][at].clone()).into();
    let without = appliance.get(&path);
    assert_eq!(without.status, 202);
    assert!(without.json().get("results").is_none());
    let partial = |query: &str| {
        let answer = appliance.get(&format!("{path}?partial=true{query}"));
        assert_eq!((answer.status, answer.header("retry-after")), (202, Some("30")));
        answer.json()
    };
    let all = partial("");
    assert_eq!(all["results"]["version"], "1.0.0");
    assert_eq!(all["results"]["lots"], json!(finished));
    for name in ["error", "status", "progress", "message"] {
        assert_eq!(all[name], without.json()[name], "{name}");
    }
    // The offset counts finished lots.
    for (query, expected) in [
        ("&limit=1", &finished[..1]),
        ("&limit=2&offset=1", &finished[1..3]),
        ("&offset=2", &finished[2..]),
        ("&offset=4", &[]),
        ("&offset=99999999999", &[]),
    ] {
        assert_eq!(partial(query)["results"]["lots"], json!(expected), "{query}");
    }
    let other_path = format!("/api/v1/jobs/{job}/results?partial=1");
    assert_eq!(appliance.get(&other_path).json()["results"], all["results"]);
    for query in ["partial=false", "partial="] {
        let answer = appliance.get(&format!("{path}?{query}"));
        assert_eq!((answer.status, answer.json()), (202, without.json()), "{query}");
    }
    for query in ["partial=yes", "partial=true&partial=true"] {
        refused(
            &appliance.get(&format!("{path}?{query}")),
            400,
            "INVALID_PARAMETER",
        );
    }
    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
    assert_eq!(appliance.results(&job)["processing_summary"]["failed_lots"], 0);
}
