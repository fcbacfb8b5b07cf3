//! A relay between the daemon and the simulated OpenAI. It keeps every request as it was sent.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::names::Names;

/// A request of the daemon.
#[derive(Clone, Debug)]
pub struct Sent {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Sent {
    /// A header's value.
    pub fn header(&self, name: &str) -> &str {
        let mut all = self.headers.iter();
        let found = all.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Request line and headers, one in each line, with placeholders.
    pub fn head(&self, names: &Names) -> String {
        let mut head = format!("{} {}\n", self.method, self.target);
        for (name, value) in &self.headers {
            let value = if name.eq_ignore_ascii_case("host") {
                "<openai>"
            } else {
                value
            };
            head.push_str(&format!("{name}: {value}\n"));
        }
        names.plain(&head)
    }
}

/// The relay; it serves until the process ends.
pub struct Relay {
    pub address: SocketAddr,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Relay {
    /// A relay to OpenAI at this URL.
    pub fn start(openai: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            sent: Arc::default(),
        };
        let openai = openai.trim_start_matches("http://").to_owned();
        let sent = relay.sent.clone();
        let serve = move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (openai, sent) = (openai.clone(), sent.clone());
                // The daemon handles a broken connection.
                spawn(move || drop(pass(&client, &openai, &sent)));
            }
        };
        spawn(serve);
        relay
    }

    /// The POSTs to a path, in their order.
    pub fn posts(&self, path: &str) -> Vec<Sent> {
        let sent = self.sent.lock().unwrap();
        let posts = sent.iter().filter(|it| it.method == "POST" && it.target == path);
        posts.cloned().collect()
    }

    /// The different kinds of GETs, each once; the ids of files and batches are left out.
    pub fn gets(&self, names: impl Fn() -> Names) -> String {
        let sent = self.sent.lock().unwrap();
        let gets = sent.iter().filter(|it| it.method == "GET");
        let kinds: BTreeSet<String> = gets.map(|it| it.head(&names())).collect();
        kinds.into_iter().map(|kind| format!("{kind}\n")).collect()
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("relay".into()).spawn(work).unwrap();
}

/// Passes one request on, and returns its answer. Both connections are closed afterwards.
fn pass(client: &TcpStream, openai: &str, sent: &Mutex<Vec<Sent>>) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines[0].split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let headers = lines[1..].iter().map(|line| line.split_once(": ").unwrap());
    let mut request = Sent {
        method,
        target,
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: Vec::new(),
    };
    request.body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut request.body)?;

    let keeps = |line: &&String| !line.to_ascii_lowercase().starts_with("connection:");
    let mut head: String = lines
        .iter()
        .filter(keeps)
        .map(|line| format!("{line}\r\n"))
        .collect();
    head.push_str("Connection: close\r\n\r\n");
    let body = request.body.clone();
    sent.lock().unwrap().push(request);
    let mut server = TcpStream::connect(openai)?;
    server.write_all(head.as_bytes())?;
    server.write_all(&body)?;
    io::copy(&mut server, &mut &*client)?;
    Ok(())
}
