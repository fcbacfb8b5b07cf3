//! The image checks are shared: a client whose hosts are silent delays no other client.

use std::net::TcpListener;

use batchkeeper::domain::signature::{Key, Message, sign};
use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, submission, wait_for};

const OTHER_KEY: &str = "the-key-of-the-other-client";

/// Lots whose images are on hosts of their own that accept connections and say nothing.
fn silent_lots(port: u16) -> Vec<Value> {
    let images = |lot: u8| (0..100).map(move |image| format!("http://127.7.{lot}.{image}:{port}/1.jpg"));
    let lot = |lot| json!({"lot_id": format!("silent-{lot}"), "images": images(lot).collect::<Vec<_>>()});
    (0..10).map(lot).collect()
}

#[test]
fn a_thousand_silent_hosts_of_one_client_delay_no_other() {
    let appliance = Appliance::with(&format!(
        "[synchronous]\nenabled = true\n[images]\nconcurrency = 16\n\
         [[clients]]\nname = \"default\"\nkeys = [{KEY:?}]\n\
         [[clients]]\nname = \"other\"\nkeys = [{OTHER_KEY:?}]"
    ));
    // Connections wait in the queue of a listener that accepts none.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let attack = appliance.job(&silent_lots(listener.local_addr().unwrap().port()), &["en"]);

    let post = |lots: &[Value]| {
        let body = submission(lots, &["en"]).to_string();
        let signature = sign(&Key::new(OTHER_KEY).unwrap(), Message::Bytes(body.as_bytes()));
        let headers = [("X-Client-Id", "other"), ("X-Signature", signature.as_str())];
        appliance.post(&headers, body.as_bytes())
    };
    let answer = post(&appliance.lots(1));
    assert_eq!(answer.status, 200, "{}", answer.json());
    let answer = post(&appliance.lots(2));
    assert_eq!(answer.status, 201, "{}", answer.json());
    let job = answer.json()["job_id"].as_str().unwrap().to_owned();
    let completed = format!("SELECT count(*) FROM batch_jobs WHERE id = '{job}' AND status = 'completed'");
    wait_for("the other client's job", || {
        (appliance.cell::<i64>(&completed) == 1).then_some(())
    });
    assert_eq!(appliance.status(&attack)["status"], "pending");
}
