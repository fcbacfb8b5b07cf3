//! A client that keeps its connection and uses little processor time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::appliance::sign_bytes;

/// A connection to the daemon.
pub struct Client {
    reader: BufReader<TcpStream>,
    address: String,
}

impl Client {
    /// Connects; `api` is `http://host:port`.
    pub fn connect(api: &str) -> Self {
        let address = api.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            reader: BufReader::new(stream),
            address,
        }
    }

    /// Sends a whole request and returns the answer's status and body. Connects again if the server
    /// closed the connection after its last request.
    pub fn send(&mut self, request: &[u8]) -> (u16, Vec<u8>) {
        self.reader.get_mut().write_all(request).unwrap();
        let (mut status, mut length, mut last) = (0, 0, false);
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            } else if line == "connection: close" {
                last = true;
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        if last {
            *self = Self::connect(&self.address);
        }
        (status, body)
    }
}

/// A signed `GET` of a job's status.
pub fn status_request(job: &str) -> Vec<u8> {
    get(&format!("/api/v1/batch-status/{job}"), job)
}

/// A signed `GET` of `path` of a job.
pub fn get(path: &str, job: &str) -> Vec<u8> {
    let signature = sign_bytes(job.as_bytes());
    format!("GET {path} HTTP/1.1\r\nHost: b\r\nX-Signature: {signature}\r\n\r\n").into_bytes()
}

/// A signed submission.
pub fn post(body: &str, signature: &str) -> Vec<u8> {
    format!(
        "POST /api/v1/generate-descriptions HTTP/1.1\r\nHost: b\r\nX-Signature: {signature}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Runs all clients at the same time. Each client repeats its requests in order until it has sent
/// `each` of them or `go_on` is false. Returns the time of each request and the total time.
pub fn load(
    api: &str,
    clients: Vec<Vec<Vec<u8>>>,
    each: usize,
    expected: u16,
    go_on: &AtomicBool,
) -> (Vec<Duration>, Duration) {
    let begun = Instant::now();
    let times = std::thread::scope(|scope| {
        let clients: Vec<_> = clients
            .into_iter()
            .map(|requests| {
                scope.spawn(move || {
                    let mut client = Client::connect(api);
                    let mut times = Vec::new();
                    for request in requests.iter().cycle().take(each) {
                        if !go_on.load(Ordering::Relaxed) {
                            break;
                        }
                        let begun = Instant::now();
                        let (status, body) = client.send(request);
                        times.push(begun.elapsed());
                        assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
                    }
                    times
                })
            })
            .collect();
        let times = clients.into_iter().map(|client| client.join().unwrap());
        times.flatten().collect()
    });
    (times, begun.elapsed())
}
