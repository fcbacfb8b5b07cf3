//! Synchronous jobs: the calls to OpenAI, and the answers to the client.

use serde_json::{Value, json};

use crate::appliance::{KEY, submission};
use crate::batches::{OTHER, lots};
use crate::fixtures::Fixtures;
use crate::hand;
use crate::names::Names;
use crate::relay::Relay;
use crate::talk::{Ask, Talk};
use crate::{SUBMIT, UNCHECKED, names_of, relayed};

const LANGUAGES: [&str; 3] = ["de", "en", "ru"];

/// A submission signed over its body.
fn submit(body: &Value) -> Ask {
    let body = body.to_string();
    let signature = hand::legacy(KEY, body.as_bytes());
    let headers = vec![("X-Signature", signature)];
    Ask::new("POST", SUBMIT).with(headers).body(body.as_bytes())
}

/// The requests to `/v1/responses` from the `first` on. Translations run at the same time, so they
/// are sorted.
fn asked(relay: &Relay, first: usize, names: &Names) -> String {
    let mut sent = relay.posts("/v1/responses").split_off(first);
    sent[1..].sort_by(|a, b| a.body.cmp(&b.body));
    let texts = sent.iter().map(|it| {
        let head = it.head(names);
        format!("{head}\n{}\n\n", names.plain(it.text()))
    });
    texts.collect()
}

/// Each lot as a job of its own, with this configuration.
fn check(folder: &str, config: &str) {
    let (appliance, relay) = relayed(&format!("{UNCHECKED}synchronous.enabled = true\n{config}"));
    let names = names_of(&appliance);
    let mut fixtures = Fixtures::of(folder);
    let mut talk = Talk::with(&appliance.api, &names);
    for (number, lot) in lots().iter().enumerate() {
        // A lot without an image makes no call.
        if lot["lot_id"] == "no image" {
            continue;
        }
        let first = relay.posts("/v1/responses").len();
        let answer = talk.ask(
            &format!("lot {number}"),
            &submit(&submission(std::slice::from_ref(lot), &LANGUAGES)),
        );
        assert_eq!(answer.status, 200, "{}", answer.json());
        fixtures.add(&format!("asked-{number}.txt"), asked(&relay, first, &names));
    }
    fixtures.add("answers.txt", talk.text());
    fixtures.check();
    appliance.assert_sound();
}

#[test]
fn calls_with_the_default_parameters() {
    check("synchronous/default", "");
}

#[test]
fn calls_with_other_parameters() {
    check("synchronous/other", OTHER);
}

#[test]
fn answers_to_jobs_of_one_lot() {
    let config = "synchronous.enabled = true\nsynchronous.max_images = 5";
    let (appliance, _relay) = relayed(&format!("{UNCHECKED}{config}"));
    let names = names_of(&appliance);
    let mut talk = Talk::with(&appliance.api, &names);
    let lots = lots();
    let job = |lot: usize, languages: &[&str]| submission(&lots[lot..=lot], languages);
    let keyed = |key: &str| vec![("Idempotency-Key", key.to_owned())];

    let first = submit(&job(0, &LANGUAGES)).with(keyed("first"));
    talk.ask("with a key", &first);
    talk.ask("the same again", &first);
    let other = submit(&job(1, &LANGUAGES)).with(keyed("first"));
    talk.ask("another body with that key", &other);
    let later = submit(&job(1, &["en"])).with(vec![("Prefer", "respond-async".to_owned())]);
    let accepted = talk.ask("the client prefers to poll", &later);
    appliance.results(accepted.json()["job_id"].as_str().unwrap());

    let fault = |order: Value| appliance.fault(&order);
    fault(json!({"fault": "bad_param", "times": 1, "match": "Volvo"}));
    let mut wrong = job(0, &["en", "ru"]);
    wrong["lots"][0]["additional_info"] = json!("1998 Volvo V70");
    talk.ask("a request that OpenAI refuses", &submit(&wrong));
    fault(json!({"fault": "refusal_line", "times": 1, "match": "\"input_image\""}));
    talk.ask("the model refuses", &submit(&job(0, &["en"])));
    fault(json!({"fault": "refusal_line", "times": 1, "match": "The vehicle was described as"}));
    talk.ask(
        "the model refuses the translation",
        &submit(&job(0, &["en", "ru"])),
    );
    let mut missing = job(0, &["en"]);
    missing["lots"][0]["images"] = json!(["ftp://img.example/1.jpg", "https://img.example/missing.jpg"]);
    talk.ask("OpenAI cannot fetch the image", &submit(&missing));
    talk.ask("no image", &submit(&job(4, &["en"])));
    talk.ask("more images than are taken at once", &submit(&job(5, &["en"])));
    fault(json!({"fault": "unauthorized"}));
    talk.ask("the account is refused", &submit(&job(3, &["en"])));

    let mut fixtures = Fixtures::of("synchronous/answers");
    fixtures.add("submit.txt", talk.text());
    fixtures.check();
}
