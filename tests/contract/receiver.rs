//! A receiver of webhooks, or a host of images, with answers that the test defines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchkeeper::base::clock::Clock;
use batchkeeper::base::thread_group;
use crossbeam_channel::never;

use crate::appliance::{CLOCK, wait_for};

/// A received request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The time on the steady clock.
    pub at: Duration,
    /// The time on the wall clock, in milliseconds.
    pub wall: i64,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map_or("", |(_, value)| value.as_str())
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: String,
    pub body: &'static str,
    pub after: Duration,
}

pub fn status(status: u16) -> Reply {
    Reply {
        status,
        headers: String::new(),
        body: "",
        after: Duration::ZERO,
    }
}

impl Reply {
    pub fn with(mut self, header: &str) -> Self {
        self.headers.push_str(header);
        self.headers.push_str("\r\n");
        self
    }

    pub fn body(mut self, body: &'static str) -> Self {
        self.body = body;
        self
    }

    pub fn after(mut self, wait: Duration) -> Self {
        self.after = wait;
        self
    }
}

pub struct Receiver {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    most: Arc<AtomicUsize>,
}

impl Receiver {
    /// Starts a receiver. `reply` gets the number of earlier requests and the request.
    pub fn start(reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            most: Arc::default(),
        };
        let (seen, most, now) = (
            receiver.seen.clone(),
            receiver.most.clone(),
            Arc::new(AtomicUsize::new(0)),
        );
        let reply = Arc::new(reply);
        thread_group::spawn_ungrouped("receiver", move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, most, now, reply) = (seen.clone(), most.clone(), now.clone(), reply.clone());
                thread_group::spawn_ungrouped("receiver-1", move || {
                    let open = now.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(open, Ordering::SeqCst);
                    let answer = answer(&stream, &seen, reply.as_ref());
                    // This comes before the answer is sent: the client may call again as soon as it
                    // has the answer.
                    now.fetch_sub(1, Ordering::SeqCst);
                    // The client may have closed the connection.
                    (&stream).write_all(answer.as_bytes()).ok();
                })
                .unwrap();
            }
        })
        .unwrap();
        receiver
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The received requests, once there are `count` of them.
    pub fn seen(&self, count: usize) -> Vec<Seen> {
        wait_for(&format!("request {count}"), || {
            let seen = self.so_far();
            (seen.len() >= count).then_some(seen)
        })
    }

    pub fn so_far(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The largest number of connections that were open at the same time.
    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Reads a request and returns the bytes of its answer; `None` if no request arrived.
fn answer(
    stream: &TcpStream,
    seen: &Mutex<Vec<Seen>>,
    reply: &(dyn Fn(usize, &Seen) -> Reply + Send + Sync),
) -> String {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return String::new();
    }
    let path = line.split(' ').nth(1).unwrap_or("").to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return String::new();
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let now = CLOCK.now();
    let mut request = Seen {
        path,
        headers,
        body: Vec::new(),
        at: now.steady,
        wall: now.wall.millis(),
    };
    let length = request.header("content-length").parse().unwrap_or(0);
    request.body = vec![0; length];
    if reader.read_exact(&mut request.body).is_err() {
        return String::new();
    }
    let nth = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let Reply {
        status,
        headers,
        body,
        after,
    } = reply(nth, &request);
    // The channel never receives anything: this sleep makes the receiver slow.
    never::<()>().recv_timeout(after).ok();
    let length = body.len();
    let body = if line.starts_with("HEAD ") { "" } else { body };
    format!("HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// A receiver on every address of this machine that accepts connections and never answers.
pub fn mute() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread_group::spawn_ungrouped("mute", move || {
        let mut held = std::collections::VecDeque::new();
        for stream in listener.incoming().map_while(Result::ok) {
            held.push_back(stream);
            // The clients have closed the earlier connections.
            if held.len() > 200 {
                held.pop_front();
            }
        }
    })
    .unwrap();
    port
}
