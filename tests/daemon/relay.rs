//! A relay in front of the sandbox that changes its answers: an OpenAI-compatible server with habits of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use batchkeeper::base::thread_group;
use serde_json::Value;

use crate::appliance::Appliance;

/// An answer on its way through the relay.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A refusal with a message in OpenAI's form.
    pub fn refused(status: u16, message: &str) -> Self {
        let body = serde_json::json!({"error": {"message": message, "type": "invalid_request_error"}});
        Self {
            status,
            body: body.to_string().into_bytes(),
        }
    }

    /// Rewrites the JSON of a good answer; other answers stay.
    pub fn rewrite(mut self, change: impl FnOnce(Value) -> String) -> Self {
        if let (200, Ok(value)) = (self.status, serde_json::from_slice(&self.body)) {
            self.body = change(value).into_bytes();
        }
        self
    }

    /// Changes the object of a good answer, or each object of a listing.
    pub fn each(self, change: impl Fn(&mut Value)) -> Self {
        self.rewrite(|mut value| {
            match value["data"].as_array_mut() {
                Some(list) => list.iter_mut().for_each(&change),
                None => change(&mut value),
            }
            value.to_string()
        })
    }

    /// Changes each line of a file.
    pub fn lines(mut self, change: impl Fn(&mut Value)) -> Self {
        let text = String::from_utf8(self.body).unwrap();
        let lines = text.lines().map(|line| {
            let mut line = serde_json::from_str(line).unwrap();
            change(&mut line);
            format!("{line}\n")
        });
        self.body = lines.collect::<String>().into_bytes();
        self
    }
}

/// What a server makes of a call. It gets the request line (`GET /v1/files HTTP/1.1`), and asks the sandbox for its
/// answer.
pub trait Habit: Fn(&str, &dyn Fn() -> Answer) -> Answer + Send + Sync + 'static {}
impl<F: Fn(&str, &dyn Fn() -> Answer) -> Answer + Send + Sync + 'static> Habit for F {}

/// Starts a relay to the appliance's sandbox. Returns its base URL. Its thread ends with the test process.
pub fn start(appliance: &Appliance, habit: impl Habit) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let upstream = appliance.sandbox.trim_start_matches("http://").to_owned();
    let habit = Arc::new(habit);
    thread_group::spawn_ungrouped("relay", move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (upstream, habit) = (upstream.clone(), habit.clone());
            thread_group::spawn_ungrouped("relay-1", move || pass_on(client, &upstream, habit.as_ref()))
                .unwrap();
        }
    })
    .unwrap();
    url
}

/// An appliance whose daemon asks a relay with a habit.
pub fn appliance(config: &str, habit: impl Habit) -> Appliance {
    let mut appliance = Appliance::without_daemon("");
    let base_url = start(&appliance, habit);
    appliance.configure(&format!("openai.base_url = {base_url:?}\n{config}"));
    appliance.start_daemon();
    appliance
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

fn pass_on(mut client: TcpStream, upstream: &str, habit: &impl Habit) {
    let Some(head) = read_head(&mut client) else {
        return;
    };
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body).unwrap();
    let (line, fields) = head.split_once("\r\n").unwrap();
    let answer = habit(line, &|| ask(upstream, line, fields, &body));
    let head = format!(
        "HTTP/1.1 {} Answer\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        answer.status,
        answer.body.len()
    );
    client.write_all(&[head.as_bytes(), &answer.body].concat()).ok();
}

fn ask(upstream: &str, line: &str, fields: &str, body: &[u8]) -> Answer {
    let mut server = TcpStream::connect(upstream).unwrap();
    let request = format!("{line}\r\nConnection: close\r\n{fields}");
    server.write_all(&[request.as_bytes(), body].concat()).unwrap();
    let head = read_head(&mut server).unwrap();
    let mut body = Vec::new();
    server.read_to_end(&mut body).unwrap();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap(),
        body: if head.to_lowercase().contains("transfer-encoding: chunked") {
            without_chunks(&body)
        } else {
            body
        },
    }
}

/// The body of a chunked answer (RFC 9112, 7.1).
fn without_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|it| it == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
    whole
}
