//! An OpenAI-compatible server with habits of its own: a relay in front of the sandbox rewrites its JSON.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use batchkeeper::base::thread_group;
use serde_json::{Value, json};

use crate::appliance::{Appliance, assert_results, wait_for};

/// What a relay makes of an answer's JSON. It gets the request line.
type Rewrite = fn(&str, Value) -> String;

/// Starts a relay to the appliance's sandbox. Returns its base URL. Its thread ends with the test process.
fn relay(appliance: &Appliance, rewrite: Rewrite) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let upstream = appliance.sandbox.trim_start_matches("http://").to_owned();
    thread_group::spawn_ungrouped("relay", move || {
        for client in listener.incoming().map_while(Result::ok) {
            let upstream = upstream.clone();
            thread_group::spawn_ungrouped("relay-1", move || pass_on(client, &upstream, rewrite)).unwrap();
        }
    })
    .unwrap();
    url
}

fn read_head(from: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn pass_on(mut client: TcpStream, upstream: &str, rewrite: Rewrite) {
    let Some(head) = read_head(&mut client) else {
        return;
    };
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body).unwrap();
    let (line, fields) = head.split_once("\r\n").unwrap();
    let mut server = TcpStream::connect(upstream).unwrap();
    let request = format!("{line}\r\nConnection: close\r\n{fields}");
    server.write_all(&[request.as_bytes(), &body].concat()).unwrap();
    let answered = read_head(&mut server).unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    let is_good = answered.contains(" 200 ") && !line.contains("/content");
    let answer = match serde_json::from_slice(&answer) {
        Ok(value) if is_good => rewrite(line, value),
        _ => {
            client.write_all(&[answered.as_bytes(), &answer].concat()).ok();
            return;
        }
    };
    let length = answer.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    client
        .write_all(&[head.as_bytes(), answer.as_bytes()].concat())
        .ok();
}

/// An appliance whose daemon asks the relay.
fn appliance(rewrite: Rewrite) -> Appliance {
    let mut appliance = Appliance::without_daemon("");
    let base_url = relay(&appliance, rewrite);
    appliance.configure(&format!("[openai]\nbase_url = {base_url:?}"));
    appliance.start_daemon();
    appliance
}

/// Rewrites an object, and each object of a listing.
fn each(mut value: Value, change: &dyn Fn(&mut Value)) -> String {
    match value["data"].as_array_mut() {
        Some(list) => list.iter_mut().for_each(change),
        None => change(&mut value),
    }
    value.to_string()
}

#[test]
fn a_server_with_other_names_and_sizes_of_nothing_is_understood() {
    let appliance = appliance(|_, value| {
        each(value, &|object| {
            let name = object["object"].as_str().unwrap_or_default().to_owned();
            object["object"] = json!(match name.as_str() {
                "file" => "file_object",
                "batch" => "Batch.Job",
                other => other,
            });
            if name == "file" {
                object["bytes"] = json!(0);
            }
            if let Some(status) = object["status"].as_str() {
                object["status"] = json!(status.to_uppercase().replace('_', "-"));
            }
        })
    });
    let lots = appliance.lots(3);
    let results = appliance.results(&appliance.job(&lots, &["en", "de"]));
    assert_results(&results, &lots, &["en", "de"], &[]);
    appliance.assert_sound();
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM alerts"), 0);
}

/// Checks that an alert of a kind opens for a job, and quotes what the server sent.
fn quoted(rewrite: Rewrite, kind: &str, quote: &str) {
    let appliance = appliance(rewrite);
    appliance.job(&appliance.lots(2), &["en"]);
    let message = wait_for(kind, || {
        let sql = format!("SELECT coalesce((SELECT message FROM alerts WHERE kind = '{kind}'), '')");
        Some(appliance.cell::<String>(&sql)).filter(|it| !it.is_empty())
    });
    assert!(message.contains(quote), "{message}");
    assert!(message.contains("batchkeeper batches"), "{message}");
}

#[test]
fn a_state_that_is_not_known_is_quoted() {
    let rewrite: Rewrite = |line, value| {
        let is_poll = line.starts_with("GET /v1/batches/");
        each(value, &|object| {
            if is_poll {
                object["status"] = json!("JOB_STATE_PARKED");
            }
        })
    };
    quoted(rewrite, "unknown_state", "JOB_STATE_PARKED");
}

#[test]
fn an_answer_to_a_poll_that_is_no_batch_is_quoted() {
    let wrapped: Rewrite = |line, value| match line.starts_with("GET /v1/batches/") {
        true => json!({"wrapped": value, "note": "see the manual"}).to_string(),
        false => value.to_string(),
    };
    quoted(wrapped, "unknown_state", "see the manual");
    let html: Rewrite = |line, value| match line.starts_with("GET /v1/batches/") {
        true => "<html>Please sign in to the portal</html>".to_owned(),
        false => value.to_string(),
    };
    quoted(html, "unknown_state", "Please sign in to the portal");
}

#[test]
fn an_answer_to_an_upload_that_is_no_file_is_quoted_unless_the_file_is_listed() {
    let listed = appliance(|line, value| match line.starts_with("POST /v1/files ") {
        true => json!({"stored": true}).to_string(),
        false => value.to_string(),
    });
    listed.results(&listed.job(&listed.lots(2), &["en"]));
    let hidden: Rewrite = |line, value| match line {
        line if line.starts_with("POST /v1/files ") => json!({"stored": true}).to_string(),
        line if line.starts_with("GET /v1/files?") => json!({"data": [], "has_more": false}).to_string(),
        _ => value.to_string(),
    };
    quoted(hidden, "upload_failed", "\"stored\":true");
}
