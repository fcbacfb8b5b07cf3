//! Every recorded result file is read exactly as expected. Their sources are in
//! `tests/fixtures/openai-batches/SOURCES.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use batchkeeper::domain::result_line::{Answer, ResultLine, read_body, read_line};
use serde_json::{Value, json};

/// The format of a recording.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// A downloaded result file: one answer in each line.
    Lines,
    /// One answer, printed over many lines.
    OneLine,
    /// A recording of R's ellmer: `results` holds the lines' `response`, null written as `{}`.
    Ellmer,
    /// A recording of HTTP calls: bodies of synchronous answers.
    Calls,
}

/// The expected content of an answer.
#[derive(Debug)]
enum Expected {
    /// A text that begins like this, and the model.
    Text(&'static str, &'static str),
    OpenAiError(&'static str),
    Truncated,
}

use Expected::{OpenAiError, Text, Truncated};

/// The first answers of a file, as (custom id, answer, input, output and reasoning tokens), and the
/// totals of all answers: their number, input and output tokens.
struct Recorded {
    file: &'static str,
    form: Form,
    first: &'static [(&'static str, Expected, [u64; 3])],
    totals: (usize, u64, u64),
}

const GPT_35: &str = "gpt-3.5-turbo-0125";
const GPT_4O: &str = "gpt-4o-2024-08-06";
const GPT_4O_MINI: &str = "gpt-4o-mini-2024-07-18";
const GPT_41_NANO: &str = "gpt-4.1-nano-2025-04-14";
const GPT_54_NANO: &str = "gpt-5.4-nano-2026-03-17";

const RECORDED: &[Recorded] = &[
    Recorded {
        file: "curator/basic_batch_completion.output1.jsonl",
        form: Form::Lines,
        first: &[
            (
                "0",
                Text("Spaghetti is a type of pasta that is typical", GPT_35),
                [10, 72, 0],
            ),
            (
                "1",
                Text("Sushi is a Japanese dish consisting of vineg", GPT_35),
                [9, 97, 0],
            ),
            (
                "2",
                Text("Ramen is a popular Japanese noodle soup dish", GPT_35),
                [9, 110, 0],
            ),
        ],
        totals: (3, 28, 279),
    },
    Recorded {
        file: "curator/basic_batch_resume.output1.jsonl",
        form: Form::Lines,
        first: &[
            (
                "0",
                Text("Spaghetti is a type of pasta that is long, t", GPT_35),
                [10, 95, 0],
            ),
            (
                "1",
                Text("Sushi is a Japanese dish made of vinegared r", GPT_35),
                [9, 57, 0],
            ),
            (
                "2",
                Text("Ramen is a popular Japanese noodle soup dish", GPT_35),
                [9, 75, 0],
            ),
        ],
        totals: (3, 28, 227),
    },
    Recorded {
        file: "curator/failed_request_batch_resume.output1.jsonl",
        form: Form::Lines,
        first: &[(
            "2",
            Text("Ramen is a type of Japanese noodle soup dish", GPT_35),
            [9, 92, 0],
        )],
        totals: (1, 9, 92),
    },
    Recorded {
        file: "curator/resubmission_batch_completion.output1.jsonl",
        form: Form::Lines,
        first: &[
            ("0", Text("Spaghetti", GPT_35), [10, 3, 0]),
            (
                "1",
                Text("Sushi is a Japanese dish that typically cons", GPT_35),
                [9, 105, 0],
            ),
        ],
        totals: (2, 19, 108),
    },
    Recorded {
        file: "curator/resubmission_batch_completion.output2.jsonl",
        form: Form::Lines,
        first: &[("2", Truncated, [9, 76, 0])],
        totals: (1, 9, 76),
    },
    Recorded {
        file: "curator/resubmission_batch_completion.output3.jsonl",
        form: Form::Lines,
        first: &[(
            "2",
            Text("Ramen is a popular Japanese noodle soup dish", GPT_35),
            [9, 92, 0],
        )],
        totals: (1, 9, 92),
    },
    Recorded {
        file: "ellmer/state-capitals.json",
        form: Form::Ellmer,
        first: &[
            ("0", Text("Des Moines.", GPT_54_NANO), [25, 7, 0]),
            ("1", Text("Albany.", GPT_54_NANO), [26, 7, 0]),
            ("2", Text("Sacramento.", GPT_54_NANO), [25, 7, 0]),
            ("3", Text("Austin.", GPT_54_NANO), [25, 6, 0]),
        ],
        totals: (4, 101, 27),
    },
    Recorded {
        file: "ellmer/state-capitals@30e1240d.json",
        form: Form::Ellmer,
        first: &[
            ("0", Text("Des Moines", GPT_41_NANO), [20, 3, 0]),
            ("1", Text("Albany.", GPT_41_NANO), [21, 4, 0]),
            ("2", Text("Sacramento.", GPT_41_NANO), [20, 4, 0]),
            ("3", Text("Austin", GPT_41_NANO), [20, 2, 0]),
        ],
        totals: (4, 81, 13),
    },
    Recorded {
        file: "ellmer/state-capitals@31a75820.json",
        form: Form::Ellmer,
        first: &[
            ("0", Text("Des Moines", GPT_41_NANO), [20, 2, 0]),
            ("1", Text("Albany", GPT_41_NANO), [21, 2, 0]),
            ("2", Text("Sacramento", GPT_41_NANO), [20, 3, 0]),
            ("3", Text("Austin", GPT_41_NANO), [20, 2, 0]),
        ],
        totals: (4, 81, 9),
    },
    Recorded {
        file: "ellmer/state-capitals@517e0f08.json",
        form: Form::Ellmer,
        first: &[
            ("0", Text("Des Moines", GPT_41_NANO), [20, 2, 0]),
            ("1", Text("Albany", GPT_41_NANO), [21, 2, 0]),
            ("2", Text("Sacramento", GPT_41_NANO), [20, 2, 0]),
            ("3", Text("Austin", GPT_41_NANO), [20, 1, 0]),
        ],
        totals: (4, 81, 7),
    },
    Recorded {
        file: "ellmer/state-capitals@5a65709b.json",
        form: Form::Ellmer,
        first: &[
            ("0", Text("Des Moines", GPT_41_NANO), [20, 3, 0]),
            ("1", Text("Albany.", GPT_41_NANO), [21, 4, 0]),
            ("2", Text("Sacramento.", GPT_41_NANO), [20, 4, 0]),
            ("3", Text("Austin", GPT_41_NANO), [20, 2, 0]),
        ],
        totals: (4, 81, 13),
    },
    Recorded {
        file: "ellmer/state-name.json",
        form: Form::Ellmer,
        first: &[
            ("0", Text("{\"name\":\"Des Moines\"}", GPT_54_NANO), [54, 14, 0]),
            ("1", Text("{\"name\":\"Albany\"}", GPT_54_NANO), [55, 14, 0]),
            ("2", Text("{\"name\":\"Sacramento\"}", GPT_54_NANO), [54, 14, 0]),
            ("3", Text("{\"name\":\"Austin\"}", GPT_54_NANO), [54, 13, 0]),
        ],
        totals: (4, 217, 55),
    },
    Recorded {
        file: "genai_navirag/batch_output.jsonl",
        form: Form::Lines,
        first: &[
            (
                "request-0",
                Text("- Trash can is below the bulletin board and ", GPT_4O),
                [390, 223, 0],
            ),
            (
                "request-1",
                Text("- Chair_1 is to the left of Trash_can_1 and ", GPT_4O),
                [353, 98, 0],
            ),
            (
                "request-2",
                Text("- Bottle_1 is to the right of Refrigerator_1", GPT_4O),
                [316, 88, 0],
            ),
            (
                "request-3",
                Text("- handle_1 is located on the refrigerator_1.", GPT_4O),
                [164, 12, 0],
            ),
        ],
        totals: (65, 36501, 11980),
    },
    Recorded {
        file: "openai-api-rs/batch_result.json",
        form: Form::OneLine,
        first: &[("request-1", Text("2 + 2 equals 4.", GPT_4O_MINI), [24, 8, 0])],
        totals: (1, 24, 8),
    },
    Recorded {
        file: "openai-batch-manager/response-object.json",
        form: Form::OneLine,
        first: &[(
            "505",
            Text("A black Porsche would be primarily black, wh", GPT_4O_MINI),
            [18, 46, 0],
        )],
        totals: (1, 18, 46),
    },
    Recorded {
        file: "openai-batch-manager/v1-chat-completion.json",
        form: Form::OneLine,
        first: &[(
            "79b70f3f-aeef-4d07-8d88-7e70eb86ed98",
            Text("The Pythagorean theorem is a fundamental pri", GPT_4O_MINI),
            [26, 170, 0],
        )],
        totals: (1, 26, 170),
    },
    Recorded {
        file: "openai-batch-manager/v1-responses.json",
        form: Form::OneLine,
        first: &[(
            "a5c40dc0-bf53-42e6-bc76-ca8628791e69",
            Text("{\"features\":[{\"details\":[\"Battery life of 10", GPT_4O_MINI),
            [243, 114, 0],
        )],
        totals: (1, 243, 114),
    },
    Recorded {
        file: "openai-dotnet/MaxTokens.json",
        form: Form::Calls,
        first: &[("0", Truncated, [14, 20, 0])],
        totals: (1, 14, 20),
    },
    Recorded {
        file: "openai-dotnet/ResponsesWithReasoning.json",
        form: Form::Calls,
        first: &[(
            "0",
            Text("For a tight, leak-resistant burrito:\n\n1. **W", "gpt-5.6-sol"),
            [30, 221, 56],
        )],
        totals: (1, 30, 221),
    },
    Recorded {
        file: "openai-dotnet/StructuredRefusalWorks.json",
        form: Form::Calls,
        first: &[
            (
                "0",
                OpenAiError("I'm very sorry, but I can't assist with "),
                [95, 13, 0],
            ),
            (
                "1",
                Text("I can't assist with that request because it ", GPT_4O),
                [52, 31, 0],
            ),
        ],
        totals: (2, 147, 44),
    },
];

/// Files without answers: inputs, and Batch objects with the calls around them.
const NO_ANSWERS: &[&str] = &[
    "SOURCES.md",
    "curator/basic_batch_completion.http.json",
    "curator/basic_batch_completion.input0.jsonl",
    "curator/basic_batch_resume.http.json",
    "curator/basic_batch_resume.input0.jsonl",
    "curator/batch_cancel.http.json",
    "curator/batch_cancel.input0.jsonl",
    "curator/failed_request_batch_resume.http.json",
    "curator/failed_request_batch_resume.input0.jsonl",
    "curator/resubmission_batch_completion.http.json",
    "curator/resubmission_batch_completion.input0.jsonl",
    "curator/resubmission_batch_completion.input1.jsonl",
    "curator/resubmission_batch_completion.input2.jsonl",
    "genai_navirag/batch_input.jsonl",
    "lexarena/batch_input_gpt-5_2.head40.jsonl",
    "openai-api-rs/batch_request.json",
    "openai-dotnet/CanRehydrateBatchOperation_True.json",
    "openai-dotnet/CreateGetAndCancelBatchProtocol.json",
    "openai-dotnet/ListBatchesAsync_WithOptions_AfterIdStartsFromNextPage.json",
    "openai-dotnet/batch_objects.jsonl",
    "ruby-openai/batch.jsonl",
    "ruby-openai/batches_cancel.http.json",
    "ruby-openai/batches_create.http.json",
    "ruby-openai/batches_create_input.http.json",
    "ruby-openai/batches_list.http.json",
    "ruby-openai/batches_retrieve.http.json",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openai-batches")
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// A line of a result file, rebuilt from the part that a recording kept.
fn line_around(index: usize, response: &Value, none: &Value) -> ResultLine {
    let line = json!({"custom_id": index.to_string(), "response": response, "error": none});
    read_line(line.to_string().as_bytes()).unwrap()
}

fn answers(bytes: &[u8], form: Form) -> Vec<ResultLine> {
    let whole = || serde_json::from_slice::<Value>(bytes).unwrap();
    match form {
        Form::Lines => lines(bytes).map(|line| read_line(line).unwrap()).collect(),
        Form::OneLine => vec![read_line(bytes).unwrap()],
        Form::Ellmer => (whole()["results"].as_array().unwrap().iter().enumerate())
            .map(|(index, response)| line_around(index, response, &json!({})))
            .collect(),
        Form::Calls => (whole()["Entries"].as_array().unwrap().iter().enumerate())
            .map(|(index, call)| {
                let body = &call["ResponseBody"];
                let status = &call["StatusCode"];
                let response = json!({"status_code": status, "body": body});
                let line = line_around(index, &response, &Value::Null);
                let status = u16::try_from(status.as_u64().unwrap()).unwrap();
                let (answer, usage) = read_body(status, body);
                assert_eq!((&answer, &usage), (&line.answer, &line.usage));
                line
            })
            .collect(),
    }
}

fn check(answer: &Answer, expected: &Expected, what: &str) {
    match (answer, expected) {
        (Answer::Text { text, model }, Text(start, expected_model)) => {
            assert!(text.starts_with(start), "{what}: {text}");
            assert_eq!(model.as_deref(), Some(*expected_model), "{what}");
        }
        (Answer::Refusal { message }, OpenAiError(start)) => {
            assert!(message.starts_with(start), "{what}: {message}");
        }
        (Answer::Truncated, Truncated) => {}
        _ => panic!("{what}: {answer:?} where {expected:?} was expected"),
    }
}

#[test]
fn every_recorded_answer_is_read() {
    for recorded in RECORDED {
        let file = recorded.file;
        let bytes = fs::read(folder().join(file)).unwrap();
        let answers = answers(&bytes, recorded.form);
        for (line, (custom_id, expected, tokens)) in answers.iter().zip(recorded.first) {
            let what = format!("{file}, {custom_id}");
            assert_eq!(line.custom_id, *custom_id, "{what}");
            check(&line.answer, expected, &what);
            let usage = line.usage;
            let read = [usage.input, usage.output, usage.reasoning];
            assert_eq!(read, *tokens, "{what}");
            assert_eq!(usage.cached, 0, "{what}");
        }
        // All answers that are not listed are texts.
        for line in answers.iter().skip(recorded.first.len()) {
            assert!(matches!(line.answer, Answer::Text { .. }), "{file}: {line:?}");
        }
        let sum = |tokens: fn(&ResultLine) -> u64| answers.iter().map(tokens).sum::<u64>();
        let totals = (
            answers.len(),
            sum(|line| line.usage.input),
            sum(|line| line.usage.output),
        );
        assert_eq!(totals, recorded.totals, "{file}");
    }
}

#[test]
fn no_file_is_left_out() {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder()).unwrap();
                found.insert(name.to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    let known: BTreeSet<String> = RECORDED
        .iter()
        .map(|recorded| recorded.file)
        .chain(NO_ANSWERS.iter().copied())
        .map(str::to_owned)
        .collect();
    assert_eq!(found, known);
}

#[test]
fn request_lines_are_not_read_as_answers() {
    for file in NO_ANSWERS.iter().filter(|file| file.contains("input")) {
        if !file.ends_with(".jsonl") {
            continue;
        }
        let bytes = fs::read(folder().join(file)).unwrap();
        for line in lines(&bytes) {
            match read_line(line).unwrap().answer {
                Answer::Malformed { code, .. } => assert_eq!(code, "no_answer", "{file}"),
                other => panic!("{file}: {other:?}"),
            }
        }
    }
}

/// A truncated download: no part of a line counts as an answer.
#[test]
fn no_cut_line_is_read() {
    let bytes = fs::read(folder().join("openai-batch-manager/v1-responses.json")).unwrap();
    let whole = bytes.trim_ascii_end();
    for end in 0..whole.len() {
        assert!(read_line(&whole[..end]).is_err(), "cut at {end}");
    }
    assert!(read_line(whole).is_ok());
}
