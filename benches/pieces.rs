//! Measures the program's smallest functions, each beside the least work that the same bytes need:
//! `cargo bench --bench pieces`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark ends at the first error"
)]

use batchkeeper::domain::endpoint::Endpoint;
use batchkeeper::domain::html;
use batchkeeper::domain::parameters::Parameters;
use batchkeeper::domain::result_line;
use batchkeeper::domain::signature::{Key, Message, sign, verify};
use batchkeeper::domain::vision::VisionParameters;
use batchkeeper::openai::jsonl::encode_request_line;
use batchkeeper::python_json;
use divan::Bencher;
use divan::counter::BytesCount;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

const KEY: &str = "a key of these measurements, long enough";
const TEXT: &str =
    "The front bumper’s left side is cracked – it hangs loose & shakes.\n\nThe bonnet is \"dented\".";

fn main() {
    divan::main();
}

/// A submission with 1,000 lots.
fn submission() -> Vec<u8> {
    let lot = |number: usize| {
        json!({"lot_id": format!("LOT-{number}"), "additional_info": "rear bumper torn – seller’s “as is”. ".repeat(8),
               "images": ["https://cdn.cars.example/1.jpg", "https://cdn.cars.example/2.jpg"]})
    };
    let lots: Vec<Value> = (0..1000).map(lot).collect();
    let body = json!({"version": "1.0.0", "languages": ["en", "de"], "lots": lots});
    body.to_string().into_bytes()
}

/// A line of a result file, about 3 KB long.
fn result_line() -> Vec<u8> {
    let body = json!({
        "id": "resp_0", "status": "completed", "error": null, "incomplete_details": null, "instructions": "x".repeat(2000),
        "model": "gpt-6-luna-2026-09-22",
        "output": [{"id": "msg_0", "type": "message", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "annotations": [], "text": TEXT.repeat(4)}]}],
        "usage": {"input_tokens": 500, "output_tokens": 50, "total_tokens": 550},
    });
    let response = json!({"status_code": 200, "request_id": "req_0", "body": body});
    let line = json!({"id": "batch_req_0", "custom_id": "v_0123456789abcdef0123456789abcdef_17", "response": response,
                      "error": null});
    line.to_string().into_bytes()
}

#[divan::bench_group]
mod submission_parsed {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let body = submission();
        bencher
            .counter(BytesCount::of_slice(&body))
            .bench(|| python_json::parse(divan::black_box(&body)).unwrap());
    }

    #[divan::bench]
    fn bare(bencher: Bencher) {
        let body = submission();
        bencher
            .counter(BytesCount::of_slice(&body))
            .bench(|| serde_json::from_slice::<Value>(divan::black_box(&body)).unwrap());
    }
}

#[divan::bench_group]
mod signature_of_a_parsed_submission {
    use super::*;

    /// Over canonical JSON, which is written during the measurement.
    #[divan::bench]
    fn ours(bencher: Bencher) {
        let body = submission();
        let (key, parsed) = (Key::new(KEY).unwrap(), python_json::parse(&body).unwrap());
        let signature = sign(&key, Message::Canonical(parsed.root()));
        bencher.counter(BytesCount::of_slice(&body)).bench(|| {
            verify(
                &signature,
                std::slice::from_ref(&key),
                &[Message::Canonical(divan::black_box(parsed.root()))],
            )
        });
    }

    /// Over the unchanged bytes.
    #[divan::bench]
    fn bare(bencher: Bencher) {
        let body = submission();
        bencher.counter(BytesCount::of_slice(&body)).bench(|| {
            let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
            mac.update(divan::black_box(&body));
            mac.finalize().into_bytes()
        });
    }
}

#[divan::bench_group]
mod line_of_an_input_file {
    use super::*;

    fn body() -> Value {
        let images = ["https://cdn.cars.example/1.jpg", "https://cdn.cars.example/2.jpg"];
        Parameters::Vision(VisionParameters::default()).body(false, TEXT, &images.map(str::to_owned), "", "")
    }

    /// From the lot's columns.
    #[divan::bench]
    fn ours() -> Vec<u8> {
        encode_request_line(
            Endpoint::Responses,
            "v_0123456789abcdef0123456789abcdef_17",
            &body(),
        )
        .unwrap()
    }

    /// From a value that exists already.
    #[divan::bench]
    fn bare(bencher: Bencher) {
        let body = body();
        bencher.bench(|| serde_json::to_vec(divan::black_box(&body)).unwrap());
    }
}

#[divan::bench_group]
mod line_of_a_result_file {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let line = result_line();
        bencher
            .counter(BytesCount::of_slice(&line))
            .bench(|| result_line::read_line(divan::black_box(&line)).unwrap());
    }

    #[divan::bench]
    fn bare(bencher: Bencher) {
        let line = result_line();
        bencher
            .counter(BytesCount::of_slice(&line))
            .bench(|| serde_json::from_slice::<Value>(divan::black_box(&line)).unwrap());
    }
}

#[divan::bench_group]
mod text_as_html {
    use super::*;

    #[divan::bench]
    fn ours() -> String {
        html::paragraphs(divan::black_box(TEXT))
    }

    #[divan::bench]
    fn bare() -> String {
        divan::black_box(TEXT).to_owned()
    }
}
