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
