//! The smallest possible OpenAI. It accepts files, keeps batches running until the benchmark
//! completes them, and answers every line with an answer of a fixed size. It costs almost no time,
//! so that the figures are the daemon's.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use batchkeeper::base::thread_group;
use serde_json::{Value, json};

use crate::rig::now_in_seconds;

/// The text in each line of a result file.
const TEXT: &str = "The front bumper’s left side is cracked – it hangs loose; the left headlamp is “broken”.\n\n\
    The bonnet is dented near its front edge, and the paint has come off in two places as large as a hand.";
/// Input and output tokens of a line.
const TOKENS: [u64; 2] = [500, 50];

/// An uploaded input file.
struct Input {
    name: String,
    body: Vec<u8>,
    created: i64,
}

/// A batch.
struct Batch {
    id: String,
    input: String,
    metadata: Value,
    created: i64,
    complete: bool,
    lines: usize,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Input>,
    /// Oldest first.
    batches: Vec<Batch>,
    /// Whether batches are complete as soon as they are created.
    complete_on_create: bool,
    line_bytes: usize,
    calls: HashMap<String, u64>,
    uploads: Vec<Upload>,
    hooks: Vec<Instant>,
}

/// The figures of an upload.
#[derive(Clone, Copy)]
pub struct Upload {
    /// The size of the whole request.
    pub bytes: u64,
    /// The time from its first byte to its last.
    pub took: Duration,
}

/// The server; it runs until the process ends.
#[derive(Clone)]
pub struct BareOpenAi {
    /// The server's address.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl BareOpenAi {
    /// Starts a server whose result lines have `line_bytes` bytes.
    pub fn start(line_bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State {
            line_bytes,
            ..State::default()
        };
        let server = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(state)),
        };
        let serving = server.clone();
        thread_group::spawn_ungrouped("bare-openai", move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serving = serving.clone();
                thread_group::spawn_ungrouped("bare-openai-1", move || serving.answer(&stream)).unwrap();
            }
        })
        .unwrap();
        server
    }

    /// Completes all batches, and every later batch as soon as it is created.
    pub fn complete(&self) {
        let mut state = self.lock();
        state.complete_on_create = true;
        state.batches.iter_mut().for_each(|batch| batch.complete = true);
    }

    /// Keeps later batches running until [`BareOpenAi::complete`].
    pub fn hold(&self) {
        self.lock().complete_on_create = false;
    }

    /// The number of batches so far.
    pub fn batches(&self) -> usize {
        self.lock().batches.len()
    }

    /// The figures of the newest upload.
    pub fn upload(&self) -> Upload {
        *self.lock().uploads.last().unwrap()
    }

    /// The newest input file.
    pub fn input(&self) -> Vec<u8> {
        let state = self.lock();
        let newest = state.files.values().max_by_key(|file| file.body.len());
        newest.unwrap().body.clone()
    }

    /// The number of calls of each kind since the last call of this function.
    pub fn calls(&self) -> HashMap<String, u64> {
        std::mem::take(&mut self.lock().calls)
    }

    /// The times at which webhooks arrived.
    pub fn hooks(&self) -> Vec<Instant> {
        self.lock().hooks.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn answer(&self, stream: &TcpStream) {
        let begun = Instant::now();
        let mut reader = BufReader::with_capacity(1 << 18, stream);
        let mut head = String::new();
        while reader.read_line(&mut head).unwrap_or(0) > 2 {}
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse().unwrap_or(0))
        });
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let path = target.split('?').next().unwrap_or("");
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let kind = format!("{method} {}", if parts.len() > 1 { "one" } else { parts[0] });
        *self.lock().calls.entry(kind).or_default() += 1;
        let answer = match (method, &*parts) {
            ("POST", ["files"]) => {
                let bytes = body.len() as u64;
                let file = self.store_file(body);
                self.lock().uploads.push(Upload {
                    bytes,
                    took: begun.elapsed(),
                });
                file
            }
            ("POST", ["batches"]) => self.create(&serde_json::from_slice(&body).unwrap()),
            ("GET", ["batches"]) => self.list(target),
            ("GET", ["batches", id]) => {
                let state = self.lock();
                match state.batches.iter().find(|batch| batch.id == *id) {
                    Some(batch) => state.object(batch),
                    None => Value::Null,
                }
            }
            ("GET", ["files"]) => json!({"object": "list", "data": [], "has_more": false}),
            ("GET", ["files", id, "content"]) => return self.send_results(stream, id),
            ("GET", ["files", id]) => {
                let bytes = self.output_lines(id).len() * self.lock().line_bytes;
                json!({"object": "file", "id": id, "bytes": bytes, "created_at": now_in_seconds(),
                       "filename": "output.jsonl", "purpose": "batch_output", "status": "processed"})
            }
            ("DELETE", ["files", id]) => json!({"id": id, "object": "file", "deleted": true}),
            ("POST", [_, "hook"]) => {
                self.lock().hooks.push(begun);
                json!({})
            }
            // Another program on this machine may connect.
            _ => Value::Null,
        };
        let body = answer.to_string();
        let status = if answer.is_null() {
            "404 Not Found"
        } else {
            "200 OK"
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        stream.write_all((head + &body).as_bytes()).ok();
    }

    /// Stores the only file of a multipart body.
    fn store_file(&self, mut body: Vec<u8>) -> Value {
        let text = |from: &[u8]| String::from_utf8_lossy(from).into_owned();
        let start = find(&body, b"{\"custom_id\"").unwrap();
        let head = text(&body[..start]);
        let name = head.split("filename=\"").nth(1).unwrap();
        let name = name.split('"').next().unwrap().to_owned();
        let end = body.iter().rposition(|byte| *byte == b'}').unwrap() + 1;
        body.truncate(end);
        body.drain(..start);
        let mut state = self.lock();
        let id = format!("file-{}", state.files.len());
        let created = now_in_seconds();
        let bytes = body.len() + 1;
        let object = json!({"object": "file", "id": id, "bytes": bytes, "created_at": created,
                           "filename": name, "purpose": "batch", "status": "processed"});
        let input = Input { name, body, created };
        state.files.insert(id, input);
        object
    }

    fn create(&self, order: &Value) -> Value {
        let mut state = self.lock();
        let input = order["input_file_id"].as_str().unwrap().to_owned();
        let lines = custom_ids(&state.files[&input].body).count();
        let batch = Batch {
            id: format!("batch_{}", state.batches.len()),
            input,
            metadata: order["metadata"].clone(),
            created: now_in_seconds(),
            complete: state.complete_on_create,
            lines,
        };
        let object = state.object(&batch);
        state.batches.push(batch);
        object
    }

    fn list(&self, target: &str) -> Value {
        let state = self.lock();
        let after = target.split("after=").nth(1);
        let after = after.map(|rest| rest.split('&').next().unwrap());
        let mut batches = state.batches.iter().rev();
        if let Some(after) = after {
            batches.by_ref().find(|batch| batch.id == after);
        }
        let data: Vec<Value> = batches
            .by_ref()
            .take(100)
            .map(|batch| state.object(batch))
            .collect();
        json!({"object": "list", "data": data, "has_more": batches.next().is_some()})
    }

    /// The custom ids of a batch's input.
    fn output_lines(&self, output: &str) -> Vec<String> {
        let state = self.lock();
        let input = output.replace("output", "file");
        let body = &state.files[&input].body;
        custom_ids(body).map(str::to_owned).collect()
    }

    fn send_results(&self, stream: &TcpStream, output: &str) {
        let size = self.lock().line_bytes;
        let lines = self.output_lines(output);
        let mut out = BufWriter::with_capacity(1 << 18, stream);
        let length = lines.len() * size;
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )
        .ok();
        let (before, after) = answer_around(size);
        let padding = "x".repeat(size);
        for id in lines {
            let missing = size - before.len() - id.len() - after.0.len() - after.1.len();
            for part in [&before, &id, &after.0, &padding[..missing], &after.1] {
                if out.write_all(part.as_bytes()).is_err() {
                    return;
                }
            }
        }
        out.flush().ok();
    }
}

impl State {
    fn object(&self, batch: &Batch) -> Value {
        let (status, output) = if batch.complete {
            ("completed", json!(batch.input.replace("file", "output")))
        } else {
            ("in_progress", Value::Null)
        };
        let done = if batch.complete { batch.lines } else { 0 };
        let [input, output_tokens] = TOKENS.map(|tokens| tokens * done as u64);
        let filename = &self.files[&batch.input].name;
        assert!(self.files[&batch.input].created <= batch.created, "{filename}");
        json!({
            "id": batch.id, "object": "batch", "endpoint": "/v1/responses", "model": "gpt-6-luna-2026-09-22",
            "errors": null, "input_file_id": batch.input, "completion_window": "24h", "status": status,
            "output_file_id": output, "error_file_id": null, "created_at": batch.created,
            "in_progress_at": batch.created, "expires_at": batch.created + 86_400,
            "request_counts": {"total": batch.lines, "completed": done, "failed": 0},
            "usage": {"input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
                      "output_tokens": output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
                      "total_tokens": input + output_tokens},
            "metadata": batch.metadata,
        })
    }
}

/// The text before and after the custom id in a result line. `instructions` makes the line as long
/// as a real one.
fn answer_around(size: usize) -> (String, (String, String)) {
    let mark = "MARK";
    let [input, output] = TOKENS;
    let body = json!({
        "id": "resp_0", "object": "response", "created_at": 1_790_000_000, "status": "completed",
        "error": null, "incomplete_details": null, "instructions": mark, "max_output_tokens": 2048,
        "model": "gpt-6-luna-2026-09-22",
        "output": [{"id": "msg_0", "type": "message", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": TEXT}]}],
        "usage": {"input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
                  "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
                  "total_tokens": input + output},
    });
    let text = body.to_string();
    let (first, rest) = text.split_once(mark).unwrap();
    let before = "{\"id\":\"batch_req_0\",\"custom_id\":\"".to_owned();
    let middle = format!("\",\"response\":{{\"status_code\":200,\"request_id\":\"req_0\",\"body\":{first}");
    let end = format!("{rest}}},\"error\":null}}\n");
    assert!(before.len() + middle.len() + end.len() + 64 < size);
    (before, (middle, end))
}

fn custom_ids(body: &[u8]) -> impl Iterator<Item = &str> {
    body.split(|byte| *byte == b'\n').filter_map(|line| {
        let rest = line.strip_prefix(b"{\"custom_id\":\"")?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        std::str::from_utf8(&rest[..end]).ok()
    })
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}
