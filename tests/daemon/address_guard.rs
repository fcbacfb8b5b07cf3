//! The address guard at submission: a URL with a private address is refused in every spelling.
//! `tests/network/outbound.rs` tests names that only resolve to a private address: the connection
//! is refused.

use crate::appliance::{Appliance, submission};
use serde_json::{Value, json};

/// Loopback, private and metadata addresses in unusual spellings.
const BAD: [&str; 26] = [
    "127.0.0.1",
    "127.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0X7F.0x1",
    "017700000001",
    "0177.0.0.01",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST.",
    "a.localhost",
    "10.0.0.1",
    "172.16.1.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0xa9fea9fe",
    "224.0.0.1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[fd00:ec2::254]",
    "[64:ff9b::a9fe:a9fe]",
];

/// Texts that are no URL that the contract accepts.
const ODD: [&str; 8] = [
    "ftp://client.example/",
    "file:///etc/passwd",
    "http://user@client.example/",
    "http://client.example\\@127.0.0.1/",
    "http://client.example:0/",
    "http://client.example/ a",
    "http://[::1%25lo]/",
    "//client.example/",
];

fn lot(image: &str, webhook: Option<&str>) -> Value {
    json!({"lot_id": image, "images": [image], "webhook": webhook})
}

fn refused(appliance: &Appliance, body: &Value, code: &str) {
    let answer = appliance.submit(body);
    assert_eq!(answer.status, 422, "{body}");
    assert_eq!(answer.json()["code"], code, "{body}");
}

#[test]
fn private_addresses_are_refused_at_submission_in_every_spelling() {
    let appliance = Appliance::with("[network]\nallow_private = false");
    let before = appliance.dump();
    let urls = BAD
        .iter()
        .flat_map(|host| [format!("http://{host}/"), format!("https://{host}:8443/a?b")]);
    for url in urls.chain(ODD.iter().map(|url| (*url).to_owned())) {
        let good = [
            lot("https://i.example/1.jpg", None),
            lot("https://i.example/2.jpg", None),
        ];
        let mut body = submission(&good, &["en"]);
        body["webhook_url"] = json!(url);
        refused(&appliance, &body, "INVALID_WEBHOOK_URL");
        let own = [good[0].clone(), lot("https://i.example/2.jpg", Some(&url))];
        refused(&appliance, &submission(&own, &["en"]), "INVALID_WEBHOOK_URL");
        let images = [lot(&url, None), lot(&format!("{url}#2"), None)];
        refused(&appliance, &submission(&images, &["en"]), "INVALID_IMAGE_URLS");
    }
    assert_eq!(appliance.dump(), before);
}

#[test]
fn a_webhook_to_our_own_api_starts_and_cancels_no_job() {
    // Behind a proxy, a client may name our public address. A webhook is signed with the client's own key.
    let appliance = Appliance::start();
    appliance.fault(&json!({"fault": "stall_in_progress", "match": "translation"}));
    let open = appliance.job(&appliance.lots(1), &["en", "de"]);
    let targets = [
        format!("{}/api/v1/generate-descriptions", appliance.api),
        format!("{}/api/v1/generate-descriptions?dryrun=0", appliance.api),
        format!("{}/api/v1/batch-jobs/{open}/cancel", appliance.api),
    ];
    for target in &targets {
        let mut body = submission(&appliance.lots(2), &["en"]);
        body["webhook_url"] = target.clone().into();
        body["lots"][0]["lot_id"] = target.clone().into();
        let job = appliance.submit(&body).json()["job_id"]
            .as_str()
            .unwrap()
            .to_owned();
        appliance.results(&job);
        let status = format!(
            "SELECT coalesce(max(response_status), 0) FROM webhook_deliveries WHERE url = '{target}'"
        );
        let status = crate::appliance::wait_for("an answer", || {
            Some(appliance.cell::<i64>(&status)).filter(|status| *status > 0)
        });
        assert!((400..500).contains(&status), "{target}: {status}");
    }
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM batch_jobs"), 4);
    assert_ne!(appliance.status(&open)["status"], "cancelled");
}
