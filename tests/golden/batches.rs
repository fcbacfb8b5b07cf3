//! The calls that the daemon sends to OpenAI for a batch: the input files, the uploads and the
//! creates.

use serde_json::{Value, json};

use crate::fixtures::Fixtures;
use crate::names::Names;
use crate::relay::{Relay, Sent};
use crate::{UNCHECKED, names_of, relayed};

/// The lots of every job in this file: texts and images of all kinds.
pub fn lots() -> Vec<Value> {
    vec![
        json!({"lot_id": "plain", "additional_info": "2021 BMW X5, front collision",
               "images": ["https://img.example/1.jpg", {"url": "https://img.example/2.jpg"}]}),
        json!({"lot_id": "quotes", "images": ["https://img.example/a.jpg?size=1024&sig=%D1%8F#top"],
               "additional_info": "\"Dent\" & 'scratch' \\ <b>bold</b>\n\ttab, {language}, 100 % / 5'11\""}),
        json!({"lot_id": "лот № 3",
               "additional_info": "Не бит, не крашен. 🚗💥 e\u{301} 日本語 \u{2028}\u{85}\u{7f}\u{1}",
               "images": ["https://img.example/фото/1.jpg"]}),
        json!({"lot_id": "no text", "images": ["https://img.example/3.jpg"]}),
        json!({"lot_id": "no image", "additional_info": "sold without photographs", "images": []}),
        json!({"lot_id": "some unusable", "additional_info": "", "year": 2020.50,
               "images": ["ftp://img.example/4.jpg", "https://img.example/5.jpg", {"no": "url"}, 7,
                          "http://10.0.0.1/6.jpg", {"url": "https://IMG.example:443/7.jpg"}]}),
        json!({"lot_id": 4_711, "additional_info": "damage ".repeat(60),
               "images": ["https://img.example/8.jpg"], "webhook": null}),
    ]
}

/// Parameters that differ from the defaults.
pub const OTHER: &str = r#"
    vision.model = "gpt-5-mini"
    vision.prompt = "Say \"what\" is broken.\nПо-английски. 🚗"
    vision.detail = "high"
    vision.max_output_tokens = 4096
    vision.reasoning_effort = ""
    translation.model = "gpt-6.1-terra"
    translation.prompt = "Into {language}, only {language}!"
    translation.max_output_tokens = 8192
    translation.reasoning_effort = "low"
"#;
const LANGUAGES: [&str; 5] = ["en", "ru", "pt-BR", "zh-Hant", "en-GB"];

/// The content of an upload: its head and the input file.
fn uploaded(upload: &Sent, names: &Names) -> (String, String) {
    let boundary = upload.header("content-type").split_once("boundary=").unwrap().1;
    names.know(boundary, "boundary");
    let text = upload.text();
    let starts = text.rfind("\r\n\r\n").unwrap() + 4;
    let ends = text.rfind("\r\n--").unwrap();
    let file = &text[starts..ends];
    let around = format!("{}<the file>{}", &text[..starts], &text[ends..]);
    let around = around.replace('\r', "\\r");
    let head = format!("{}\n{}", upload.head(names), names.plain(&around));
    (head, names.plain(file))
}

/// The calls that made a job's batches, and the input files.
fn sent(relay: &Relay, names: &Names) -> (String, Vec<String>) {
    let (uploads, creates) = (relay.posts("/v1/files"), relay.posts("/v1/batches"));
    assert_eq!(uploads.len(), creates.len());
    let mut calls = String::new();
    let mut files = Vec::new();
    for (upload, create) in uploads.iter().zip(&creates) {
        let (head, file) = uploaded(upload, names);
        files.push(file);
        let create = format!("{}\n{}", create.head(names), names.plain(create.text()));
        calls.push_str(&format!("{head}\n{create}\n\n"));
    }
    (calls, files)
}

/// Compares the batches of one job with this configuration.
fn check(folder: &str, config: &str) {
    let (appliance, relay) = relayed(&format!("{UNCHECKED}{config}"));
    // Translations are sent in the order of the descriptions.
    appliance.fault(&json!({"fault": "shuffle_output", "value": false}));
    let job = appliance.job(&lots(), &LANGUAGES);
    appliance.results(&job);
    let names = names_of(&appliance);
    names.job(&job, "first");
    let (calls, files) = sent(&relay, &names);
    let [vision, translation] = &files[..] else {
        panic!("{} batches were made", files.len());
    };
    let mut fixtures = Fixtures::of(folder);
    fixtures.add("vision.jsonl", vision);
    fixtures.add("translation.jsonl", translation);
    fixtures.add("calls.txt", calls);
    appliance.assert_sound();
    fixtures.add("gets.txt", relay.gets(|| names_of(&appliance)));
    fixtures.check();
}

#[test]
fn batches_with_the_default_parameters() {
    check("batch/default", "");
}

#[test]
fn batches_with_other_parameters() {
    check(
        "batch/other",
        &format!("{OTHER}openai.organization = \"org-of-this-test\""),
    );
}

#[test]
fn batches_that_raise_the_cap_of_an_answer() {
    // The description is cut short once, and so is the translation.
    let (appliance, relay) = relayed(UNCHECKED);
    for line in ["_0", "_0_ru"] {
        appliance.fault(&json!({"fault": "truncated_line", "match": format!("{line}$"), "times": 1}));
    }
    let job = appliance.job(&lots()[..1], &["ru"]);
    appliance.results(&job);
    let names = names_of(&appliance);
    names.job(&job, "first");
    let (_, files) = sent(&relay, &names);
    let mut fixtures = Fixtures::of("batch/raised");
    fixtures.add("inputs.jsonl", files.concat());
    fixtures.check();
    appliance.assert_sound();
}

#[test]
fn batches_leave_out_images_that_cannot_be_fetched() {
    let (appliance, relay) = relayed("");
    let names_of_images = ["truck", "no-such", "rocket", "flower", "china"];
    let images = names_of_images.map(|name| appliance.image(&format!("{name}.jpg")));
    let job = appliance.job(&[json!({"lot_id": "a", "images": images})], &["en"]);
    appliance.results(&job);
    let names = names_of(&appliance);
    names.job(&job, "first");
    let (_, files) = sent(&relay, &names);
    let mut fixtures = Fixtures::of("batch/checked");
    fixtures.add("vision.jsonl", files.concat());
    fixtures.check();
    appliance.assert_sound();
}
