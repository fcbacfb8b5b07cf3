//! Receivers, image hosts and an OpenAI behind certificates of a private CA, with the real program.

use std::fs;

use serde_json::json;

use crate::appliance::{Appliance, submission, wait_for};
use crate::tls::PrivateCa;

/// Whether a log line or an alert says this.
fn alerts_say(appliance: &Appliance, what: &str) {
    wait_for(what, || {
        let alerts = appliance.run(&["alerts"]).out;
        alerts.contains(what).then_some(())
    });
}

#[test]
fn webhooks_images_and_alerts_reach_hosts_behind_a_private_ca() {
    let mut appliance = Appliance::without_daemon("");
    let ca = PrivateCa::new("Hosts of the clients");
    let front = ca.serve("127.0.0.1", &appliance.sandbox);
    ca.write(&appliance.path("clients.pem"));
    appliance.configure(&format!(
        "[network]\nca_file = {:?}\n[alerts]\nwebhook_url = \"{}/hooks/alerts\"",
        appliance.path("clients.pem"),
        front.url
    ));
    appliance.start_daemon();
    assert!(appliance.daemon_said("event=ca_file setting=network.ca_file"));
    appliance.fault(&json!({"fault": "unauthorized", "times": 1}));
    let lots = [json!({"lot_id": "a", "images": [format!("{}/images/truck.jpg", front.url)]})];
    let mut body = submission(&lots, &["en"]);
    body["webhook_url"] = json!(format!("{}/hooks/told", front.url));
    let answer = appliance.submit(&body);
    assert_eq!(answer.status, 201, "{}", answer.json());
    appliance.delivered("told", 1);
    appliance.delivered("alerts", 1);
    let results = appliance.results(answer.json()["job_id"].as_str().unwrap());
    assert_eq!(results["results"]["lots"][0]["missing_images"], json!([]));
    let asked: Vec<String> = front.asked.try_iter().collect();
    assert!(
        asked.iter().any(|line| line.contains("/images/truck.jpg")),
        "{asked:?}"
    );
}

#[test]
fn the_alert_about_a_receiver_that_is_not_trusted_names_the_setting() {
    let mut appliance = Appliance::without_daemon("");
    let ca = PrivateCa::new("Hosts of the clients");
    let front = ca.serve("127.0.0.1", &appliance.sandbox);
    ca.write(&appliance.path("openai.pem"));
    // A CA for OpenAI vouches for no client's host, and the environment adds none.
    appliance.configure(&format!(
        "[openai]\nca_file = {:?}\n[webhooks]\nretry_delays = []",
        appliance.path("openai.pem")
    ));
    let file = appliance.path("openai.pem");
    appliance.start_daemon_with(&[("SSL_CERT_FILE", file.to_str().unwrap())]);
    let mut body = submission(&appliance.lots(1), &["en"]);
    body["webhook_url"] = json!(format!("{}/hooks/told", front.url));
    assert_eq!(appliance.submit(&body).status, 201);
    alerts_say(&appliance, "UnknownIssuer");
    alerts_say(&appliance, "network.ca_file");
    assert!(front.asked.is_empty());
}

#[test]
fn openai_behind_a_private_ca_is_trusted_by_its_own_setting_alone() {
    let mut appliance = Appliance::without_daemon("");
    let ca = PrivateCa::new("A gateway");
    let front = ca.serve("127.0.0.1", &appliance.sandbox);
    let file = appliance.path("gateway.pem");
    // A bundle may hold several certificates, and text between them.
    let other = PrivateCa::new("Another");
    fs::write(
        &file,
        format!("# Another\n{}\n# A gateway\r\n{}", other.pem(), ca.pem()),
    )
    .unwrap();
    let base_url = format!("[openai]\nbase_url = \"{}/v1\"", front.url);

    // A client's CA must not vouch for OpenAI.
    appliance.configure(&format!("{base_url}\n[network]\nca_file = {file:?}"));
    appliance.start_daemon();
    wait_for("the refusal", || {
        appliance.daemon_said("openai.ca_file").then_some(())
    });
    appliance.kill_daemon();
    assert!(front.asked.is_empty());

    appliance.configure(&format!("{base_url}\nca_file = {file:?}"));
    appliance.start_daemon();
    assert!(appliance.daemon_said("event=ca_file setting=openai.ca_file"));
    assert!(appliance.daemon_said("certificates=2"));
    let lots = appliance.lots(1);
    let job = appliance.job(&lots, &["en"]);
    appliance.results(&job);
    assert!(
        front
            .asked
            .try_iter()
            .any(|line| line.starts_with("POST /v1/batches "))
    );
}

#[test]
fn a_certificate_for_another_name_is_not_blamed_on_the_ca() {
    let mut appliance = Appliance::without_daemon("");
    let ca = PrivateCa::new("Hosts of the clients");
    let front = ca.serve("hooks.example", &appliance.sandbox);
    ca.write(&appliance.path("clients.pem"));
    appliance.configure(&format!(
        "[network]\nca_file = {:?}\n[webhooks]\nretry_delays = []",
        appliance.path("clients.pem")
    ));
    appliance.start_daemon();
    let mut body = submission(&appliance.lots(1), &["en"]);
    body["webhook_url"] = json!(front.url.replace("hooks.example", "127.0.0.1"));
    assert_eq!(appliance.submit(&body).status, 201);
    alerts_say(&appliance, "not valid for name");
    assert!(!appliance.run(&["alerts"]).out.contains("ca_file"));
}

#[test]
fn a_ca_file_that_cannot_be_used_is_refused_at_start() {
    let appliance = Appliance::without_daemon("");
    let path = appliance.path("ca.pem");
    let pem = PrivateCa::new("Whole").pem().to_owned();
    let key = rcgen::KeyPair::generate().unwrap();
    let half = &pem[..pem.len() / 2];
    let cut: String = pem
        .lines()
        .enumerate()
        .filter(|(at, _)| *at != 2)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    for (what, bytes, said) in [
        ("nothing", Some(Vec::new()), "no certificate"),
        ("a key alone", Some(key.serialize_pem().into()), "no certificate"),
        ("DER", Some(vec![0x30, 0x82, 0x01, 0x00, 0xff]), "no certificate"),
        ("half a certificate", Some(half.into()), "certificate 1"),
        (
            "a whole one and half of one",
            Some(format!("{pem}{half}").into()),
            "certificate 2",
        ),
        ("a line less", Some(cut.into()), "certificate 1"),
        ("no file", None, "No such file"),
    ] {
        fs::remove_file(&path).ok();
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
        }
        for section in ["network", "openai"] {
            appliance.configure(&format!("[{section}]\nca_file = {path:?}"));
            for command in ["check-config", "serve"] {
                let ran = appliance.run(&[command]);
                assert_eq!(ran.status, 1, "{what}: {}", ran.out);
                let setting = format!("{section}.ca_file: {}", path.display());
                assert!(ran.err.contains(&setting), "{what}: {}", ran.err);
                assert!(ran.err.contains(said), "{what}: {}", ran.err);
            }
        }
    }
}
