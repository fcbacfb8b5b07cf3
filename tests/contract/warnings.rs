//! The answer names what it ignores: a misspelled field or parameter must not become a paid job without a word.

use serde_json::json;

use crate::appliance::{Appliance, KEY, submission};
use crate::{accepted, borrowed, refused, sign_with, v1};

const STRICT_KEY: &str = "the key of a client without legacy signatures";
const SUBMIT: &str = "/api/v1/generate-descriptions";

fn appliance() -> Appliance {
    Appliance::with(&format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}]}},
                    {{name = \"strict\", keys = [{STRICT_KEY:?}], legacy = false}}]
         [synchronous]\nenabled = true"
    ))
}

#[test]
fn unknown_fields_are_named_once_and_cost_nothing_else() {
    let appliance = appliance();
    let mut body = submission(&appliance.lots(3), &["en"]);
    body["webhok_url"] = json!("https://client.example/hook");
    for lot in body["lots"].as_array_mut().unwrap() {
        lot["colour"] = json!("red");
    }
    let text = body.to_string();
    let signature = sign_with(KEY, text.as_bytes());
    let headers = [
        ("X-Signature", signature.as_str()),
        ("Idempotency-Key", "one job"),
    ];
    let sent = appliance.post(&headers, text.as_bytes());
    accepted(&sent);
    let expected = json!([
        "The field `webhok_url` is unknown and was ignored.",
        "The field `lots[].colour` is unknown and was ignored."
    ]);
    assert_eq!(sent.json()["warnings"], expected);
    assert_eq!(sent.header("idempotent-replayed"), None);
    // A repeat has the answer of the first request, and says that it is one.
    let again = appliance.post(&headers, text.as_bytes());
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json(), sent.json());
    // One lot is answered synchronously; its answer names the field too.
    body["lots"] = json!([body["lots"][0]]);
    let text = body.to_string();
    let sent = appliance.post(
        &[("X-Signature", &sign_with(KEY, text.as_bytes()))],
        text.as_bytes(),
    );
    assert_eq!((sent.status, &sent.json()["warnings"]), (200, &expected));
}

#[test]
fn an_unknown_query_parameter_is_refused_for_new_clients_and_a_warning_for_earlier_ones() {
    let appliance = appliance();
    let text = submission(&appliance.lots(2), &["en"]).to_string();
    let url = format!("{}{SUBMIT}?dryrun=true", appliance.api);
    let post = |headers: &[(&str, &str)]| crate::appliance::call("POST", &url, headers, text.as_bytes());
    let target = format!("{SUBMIT}?dryrun=true");
    let signed = v1(STRICT_KEY, "POST", &target, text.as_bytes());
    let strict = [&borrowed(&signed)[..], &[("X-Client-Id", "strict")]].concat();
    refused(&post(&strict), 400, "INVALID_PARAMETER");
    assert_eq!(appliance.jobs(), 0);
    let earlier = post(&[("X-Signature", &sign_with(KEY, text.as_bytes()))]);
    accepted(&earlier);
    assert_eq!(
        earlier.json()["warnings"],
        json!(["The query parameter `dryrun` is unknown and was ignored."])
    );
}

#[test]
fn a_compressed_body_is_refused_as_such() {
    let appliance = appliance();
    let headers = [("Content-Encoding", "gzip"), ("X-Signature", "00")];
    refused(
        &appliance.post(&headers, b"\x1f\x8b\x08"),
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    );
}

#[test]
fn a_dry_run_says_whether_the_budget_allows_the_job() {
    let appliance = Appliance::with("[budgets]\ntotal = { per_day = \"0.0001\" }");
    let dry_run = |lots: usize| {
        let text = submission(&appliance.lots(lots), &["en"]).to_string();
        let url = format!("{}{SUBMIT}?dry_run=true", appliance.api);
        let headers = [("X-Signature", sign_with(KEY, text.as_bytes()))];
        crate::appliance::call("POST", &url, &borrowed(&headers), text.as_bytes()).json()
    };
    assert_eq!(dry_run(1)["within_budget"], json!(true));
    assert_eq!(dry_run(500)["within_budget"], json!(false));
}
