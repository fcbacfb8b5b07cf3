//! The HTTP server against the hazards of a bare tiny_http, and in plain use.

use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use batchkeeper::base::clock::{Clock, SystemClock};
use batchkeeper::base::thread_group::{ThreadEnd, ThreadGroup};
use batchkeeper::http::{Handler, HttpLimits, Request, Response, Server};
use crossbeam_channel::{Receiver, Sender, unbounded};
use serde_json::json;

const LONG: Duration = Duration::from_mins(2);

/// A handler whose answer depends on the path.
struct Tester {
    /// Receives a message when a request to `/wait` has arrived; the request then waits for
    /// permission.
    arrived: Sender<()>,
    leave: Receiver<()>,
    handled: AtomicUsize,
}

/// `length` bytes that depend on their position.
fn pattern(length: usize) -> impl Read {
    let piece: Vec<u8> = (0..251).collect();
    let times = length / 251 + 1;
    let all = (0..times).flat_map(move |_| piece.clone());
    ByteReader(all).take(length as u64)
}

struct ByteReader<I>(I);

impl<I: Iterator<Item = u8>> Read for ByteReader<I> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        for (to, from) in into.iter_mut().zip(&mut self.0) {
            *to = from;
            count += 1;
        }
        Ok(count)
    }
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

impl Handler for Tester {
    fn handle(&self, request: Request) -> Response {
        self.handled.fetch_add(1, Ordering::SeqCst);
        let number = |name: &str| request.parameter(name).unwrap().parse::<usize>().unwrap();
        match request.path.as_str() {
            "/echo" => Response::bytes(200, "application/octet-stream", request.body),
            "/length" => Response::json(200, &json!(request.body.len())),
            "/bytes" => Response::bytes(200, "x/y", vec![b'b'; number("n")]),
            "/stream" => Response::stream(200, "x/y", pattern(number("n"))),
            "/zeroes" => Response::stream(200, "x/y", io::repeat(0)),
            "/broken" => Response::stream(200, "x/y", Cursor::new(vec![b'h'; 100_000]).chain(Failing)),
            "/wait" => {
                self.arrived.send(()).unwrap();
                self.leave.recv_timeout(LONG).unwrap();
                Response::json(200, &json!("waited"))
            }
            "/empty" => Response::bytes(204, "x/y", Vec::new()),
            "/panic" => panic!("as asked"),
            _ => Response::json(
                200,
                &json!({
                    "method": request.method, "path": request.path, "query": request.query,
                    "headers": request.headers, "peer": request.peer.to_string(), "id": request.id,
                }),
            ),
        }
    }

    fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
        Response::json(status, &json!({"code": code, "message": message}))
    }
}

/// Joins its threads when it is dropped, so that no test leaves a thread behind.
struct Joined(ThreadGroup);

impl Drop for Joined {
    fn drop(&mut self) {
        assert!(self.0.join(LONG) || thread::panicking());
    }
}

/// The fields are dropped in this order.
struct World {
    server: Server,
    group: Joined,
    endings: Receiver<ThreadEnd>,
    tester: Arc<Tester>,
    arrived: Receiver<()>,
    leave: Sender<()>,
    clock: SystemClock,
}

fn world(limits: HttpLimits) -> World {
    let (group, endings) = ThreadGroup::new();
    let (arrived_tx, arrived) = unbounded();
    let (leave, leave_rx) = unbounded();
    let tester = Arc::new(Tester {
        arrived: arrived_tx,
        leave: leave_rx,
        handled: AtomicUsize::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let clock = Arc::new(SystemClock::new());
    let handler: Arc<dyn Handler> = Arc::clone(&tester) as _;
    let server = Server::start(&group, clock, "test", listener, limits, handler).unwrap();
    World {
        server,
        group: Joined(group),
        endings,
        tester,
        arrived,
        leave,
        clock: SystemClock::new(),
    }
}

/// Short deadlines for quick tests, but long enough for a slow machine.
fn short() -> HttpLimits {
    HttpLimits {
        header_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_secs(2),
        body_stall: Duration::from_secs(2),
        write_stall: Duration::from_secs(2),
        ..HttpLimits::default()
    }
}

impl World {
    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Client(BufReader::new(stream))
    }

    /// Checks that the server answers another client without waiting for a deadline of [`LONG`].
    fn assert_alive(&self) {
        let before = self.clock.now().steady;
        let answer = self.connect().ask(&get("/")).unwrap();
        assert_eq!(answer.status, 200);
        let took = self.clock.now().steady - before;
        assert!(took < LONG / 2, "{took:?}");
        assert!(self.endings.is_empty());
    }

    /// The answer to one request on a new connection.
    fn ask(&self, request: &[u8]) -> Answer {
        self.connect().ask(request).unwrap()
    }

    fn refused(&self, request: &[u8], status: u16, code: &str) {
        let mut client = self.connect();
        let answer = client.ask(request).unwrap();
        let shown = String::from_utf8_lossy(request);
        let shown = &shown[..shown.len().min(99)];
        assert_eq!(answer.status, status, "{shown}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["code"], code, "{shown}");
        assert_eq!(answer.header("x-request-id").unwrap().len(), 36);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.at_end(), "{shown}");
    }

    fn handled(&self) -> usize {
        self.tester.handled.load(Ordering::SeqCst)
    }
}

struct Client(BufReader<TcpStream>);

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request)?;
        self.answer()
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn head(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        assert!(line.starts_with("HTTP/1.1 "), "{line}");
        let mut answer = Answer {
            status: line[9..12].parse().unwrap(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(answer);
            }
            let (name, value) = line.split_once(": ").unwrap();
            answer.headers.push((name.to_lowercase(), value.to_owned()));
        }
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head()?;
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).unwrap();
                let from = answer.body.len();
                answer.body.resize(from + size, 0);
                self.0.read_exact(&mut answer.body[from..])?;
                assert_eq!(self.line()?, "");
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = answer.header("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut answer.body)?;
        } else if answer.header("connection") == Some("close") {
            self.0.read_to_end(&mut answer.body)?;
        }
        Ok(answer)
    }

    /// The answer to an expectation; `None` if it is `100 Continue`.
    fn answer_or_continue(&mut self) -> Option<Answer> {
        let answer = self.head().unwrap();
        if answer.status == 100 {
            return None;
        }
        let length = answer.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Some(Answer { body, ..answer })
    }

    /// Whether the server has closed the connection, in any way.
    fn at_end(&mut self) -> bool {
        match self.0.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
}

fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

// Plain use.

#[test]
fn a_request_arrives_as_it_was_sent() {
    let world = world(HttpLimits::default());
    let answer = world.ask(
        b"get /a%20b?c=d&e HTTP/1.1\r\nHost: test\r\nX-Plain: 100% \"sure\"\r\n\
          X-Utf8: \xc3\xa9\r\nX-Latin: \xe9\r\nX-Gate-Peer: 10.0.0.1\r\nX-Request-Id: theirs\r\n\r\n",
    );
    let seen = answer.json();
    assert_eq!(seen["method"], "get");
    assert_eq!(
        (&seen["path"], &seen["query"]),
        (&json!("/a%20b"), &json!("c=d&e"))
    );
    assert_eq!(
        seen["headers"],
        json!([
            ["host", "test"],
            ["x-plain", "100% \"sure\""],
            ["x-utf8", "é"],
            ["x-latin", "é"],
            ["x-request-id", "theirs"]
        ])
    );
    assert_eq!(seen["peer"], "127.0.0.1");
    assert_eq!(seen["id"], answer.header("x-request-id").unwrap());
    assert!(answer.header("date").unwrap().ends_with(" GMT"));
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("x-gate-answer"), None);
}

#[test]
fn large_bodies_pass_both_ways_on_one_connection() {
    let world = world(HttpLimits {
        body_stall: LONG,
        write_stall: LONG,
        ..HttpLimits::default()
    });
    let mut client = world.connect();
    let mut body = Vec::new();
    pattern(25_000_000).read_to_end(&mut body).unwrap();
    for _ in 0..2 {
        // The body is sent while the answer is read: the answer is as long as the request.
        let answer = client.ask(&post("/echo", &body)).unwrap();
        assert!(answer.body == body);
    }
    assert_eq!(client.ask(&post("/length", &body)).unwrap().body, b"25000000");
    for size in [0, 1, 1023, 1024, 1025, 65_537, 262_144, 262_145, 1_048_577] {
        let answer = client.ask(&post("/echo", &body[..size])).unwrap();
        assert!(answer.body == body[..size], "{size}");
    }
}

#[test]
fn a_download_is_exact_and_in_the_clients_version() {
    let world = world(HttpLimits::default());
    let mut expected = Vec::new();
    pattern(50_000_000).read_to_end(&mut expected).unwrap();
    let mut client = world.connect();
    let answer = client.ask(&get("/stream?n=50000000")).unwrap();
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert!(answer.body == expected);
    assert_eq!(client.ask(&get("/")).unwrap().status, 200);

    let old = world.ask(b"GET /stream?n=1000000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(old.header("transfer-encoding"), None);
    assert_eq!(old.header("connection"), Some("close"));
    assert!(old.body == expected[..1_000_000]);
}

#[test]
fn answers_without_a_body_have_none() {
    let world = world(HttpLimits::default());
    let mut client = world.connect();
    for (path, length) in [("/bytes?n=5", Some("5")), ("/zeroes", None)] {
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        client.send(head.as_bytes()).unwrap();
        let answer = client.head().unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (200, length));
    }
    let empty = client.ask(&get("/empty")).unwrap();
    assert_eq!((empty.status, empty.header("content-length")), (204, None));
    // No byte of these answers is left before the next answer.
    assert_eq!(client.ask(&get("/bytes?n=3")).unwrap().body, b"bbb");
    client
        .send(b"HEAD / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000001\r\n\r\n")
        .unwrap();
    assert_eq!(client.head().unwrap().status, 400);
    assert!(client.at_end());
}

#[test]
fn an_expectation_is_met_or_refused_before_the_body() {
    let world = world(HttpLimits::default());
    let mut client = world.connect();
    let expect = "POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n";
    client
        .send(format!("{expect}Content-Length: 4\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(client.line().unwrap(), "HTTP/1.1 100 Continue");
    assert_eq!(client.line().unwrap(), "");
    assert_eq!(client.ask(b"four").unwrap().body, b"four");
    client
        .send(format!("{expect}Content-Length: 100000001\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(client.answer().unwrap().status, 413);
}

#[test]
fn keep_alive_is_the_clients_choice_within_limits() {
    let limits = HttpLimits {
        requests_per_connection: 3,
        ..short()
    };
    let world = world(limits);
    let mut client = world.connect();
    assert_eq!(client.ask(&get("/")).unwrap().header("connection"), None);
    assert_eq!(client.ask(&get("/")).unwrap().header("connection"), None);
    let last = client.ask(&get("/")).unwrap();
    assert_eq!(last.header("connection"), Some("close"));
    assert!(client.at_end());

    let mut client = world.connect();
    let close = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    assert_eq!(client.ask(close).unwrap().header("connection"), Some("close"));
    assert!(client.at_end());

    let mut old = world.connect();
    let kept = old.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(kept.unwrap().header("connection"), Some("keep-alive"));
    let closed = old.ask(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(closed.header("connection"), Some("close"));
    assert!(old.at_end());

    let mut idle = world.connect();
    idle.ask(&get("/")).unwrap();
    assert!(idle.at_end());
}

// The hazards.

#[test]
fn bad_framing_is_refused_in_the_handlers_form() {
    let world = world(short());
    let post = "POST /echo HTTP/1.1\r\nHost: test\r\n";
    for (head, status) in [
        ("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        ("Content-Length: 5, 5\r\n\r\nhello", 400),
        ("Content-Length: +5\r\n\r\nhello", 400),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
        (
            "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
            400,
        ),
        ("X: a\r\n b\r\n\r\n", 400),
        ("X: a\nY: b\r\n\r\n", 400),
        ("X: a\0\r\n\r\n", 400),
        ("Host: again\r\n\r\n", 400),
    ] {
        world.refused(format!("{post}{head}").as_bytes(), status, "INVALID_PARAMETER");
    }
    world.refused(b"GET / HTTP/1.1\r\n\r\n", 400, "INVALID_PARAMETER");
    world.refused(b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "INVALID_PARAMETER");
    let many = format!("{post}{}\r\n", "A: b\r\n".repeat(64));
    world.refused(many.as_bytes(), 431, "REQUEST_TOO_LARGE");
    assert_eq!(world.handled(), 0);
    world.assert_alive();
}

#[test]
fn a_hundred_http2_prefaces_leave_nothing_behind() {
    let world = world(short());
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let before = threads();
    for _ in 0..100 {
        world.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "INVALID_PARAMETER");
        world.refused(b"GET / HTTP/2.0\r\n\r\n", 505, "INVALID_PARAMETER");
    }
    world.assert_alive();
    // Other tests run at the same time.
    assert!(threads() < before + 150);
}

#[test]
fn bodies_too_large_are_refused_unread_and_the_client_can_tell() {
    let world = world(HttpLimits {
        max_body_bytes: 1000,
        ..HttpLimits::default()
    });
    for length in [
        "1001",
        "100000000000",
        "18446744073709551615",
        "99999999999999999999",
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        world.refused(head.as_bytes(), 413, "REQUEST_TOO_LARGE");
    }
    // A client that sends the whole body before it reads still gets the answer.
    world.refused(&post("/echo", &vec![0; 20_000_000]), 413, "REQUEST_TOO_LARGE");
    assert_eq!(world.ask(&post("/echo", &[1; 1000])).body.len(), 1000);
    world.assert_alive();
}

#[test]
fn stalled_bodies_delay_no_other_client_and_meet_a_deadline() {
    let world = world(HttpLimits {
        workers: 2,
        ..short()
    });
    let mut stalled: Vec<_> = (0..30).map(|_| world.connect()).collect();
    for client in &mut stalled {
        client
            .send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\nx")
            .unwrap();
    }
    world.assert_alive();
    for client in &mut stalled {
        assert_eq!(client.answer().unwrap().status, 408);
    }
    // A byte now and then is too slow, too.
    let mut dripping = world.connect();
    let mut reader = dripping.0.get_ref().try_clone().unwrap();
    dripping
        .send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\n")
        .unwrap();
    assert!(drip(&mut dripping, &mut reader).starts_with("HTTP/1.1 408"));
    assert_eq!(world.handled(), 1);
}

/// Sends a byte every 20 ms until an answer comes.
fn drip(client: &mut Client, reader: &mut TcpStream) -> String {
    reader.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut piece = [0; 4096];
    for _ in 0..3_000 {
        match reader.read(&mut piece) {
            Ok(count) => return String::from_utf8_lossy(&piece[..count]).into_owned(),
            Err(_) => client.send(b"x").unwrap(),
        }
    }
    panic!("never refused");
}

#[test]
fn dripped_and_endless_heads_are_refused() {
    let world = world(short());
    let mut dripping = world.connect();
    let mut reader = dripping.0.get_ref().try_clone().unwrap();
    dripping.send(b"GET /").unwrap();
    assert!(drip(&mut dripping, &mut reader).starts_with("HTTP/1.1 408"));

    let mut silent = world.connect();
    assert!(silent.at_end());

    let mut endless = world.connect();
    endless.send(b"GET / HTTP/1.1\r\nX: ").unwrap();
    let line = vec![b'x'; 1_000_000];
    // 200 MB if the server accepted all of it.
    let mut sent = 0;
    while sent < 200 && endless.send(&line).is_ok() {
        sent += 1;
    }
    world.assert_alive();
    let exact = 16 * 1024 - get("/").len() - "X: \r\n".len();
    let padded =
        |size: usize| format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "x".repeat(size)).into_bytes();
    assert_eq!(world.ask(&padded(exact)).status, 200);
    world.refused(&padded(exact + 1), 431, "REQUEST_TOO_LARGE");
}

#[test]
fn many_keep_alive_clients_are_all_served() {
    let world = world(HttpLimits::default());
    let mut clients: Vec<_> = (0..50).map(|_| world.connect()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.ask(&get("/")).unwrap().status, 200);
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_without_hoarding() {
    let world = world(HttpLimits::default());
    let client = world.connect();
    let mut writer = client.0.get_ref().try_clone().unwrap();
    let sender = thread::Builder::new()
        .spawn(move || {
            let mut all = Vec::new();
            for number in 0..1000 {
                all.extend(post("/echo", format!("number {number}").as_bytes()));
            }
            writer.write_all(&all).unwrap();
        })
        .unwrap();
    let mut client = client;
    for number in 0..1000 {
        assert_eq!(
            client.answer().unwrap().body,
            format!("number {number}").as_bytes()
        );
    }
    assert!(client.at_end());
    sender.join().unwrap();
}

#[test]
fn a_body_cut_short_never_reaches_the_handler() {
    let world = world(short());
    let mut client = world.connect();
    client
        .send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nfive!")
        .unwrap();
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.answer().unwrap().status, 400);
    assert_eq!(world.handled(), 0);
    world.assert_alive();
}

#[test]
fn resets_at_every_point_are_survived() {
    let world = world(short());
    for _ in 0..20 {
        for request in [
            &get("/bytes?n=500000")[..],
            &get("/stream?n=10000000"),
            &get("/bytes?n=10000000"),
            b"GET / HT",
            b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nx",
        ] {
            let mut client = world.connect();
            client.send(request).unwrap();
            // Closing the connection with an unread answer resets it.
            client.0.get_ref().shutdown(Shutdown::Read).unwrap();
            drop(client);
        }
    }
    world.assert_alive();
}

#[test]
fn a_broken_stream_is_seen_to_be_cut() {
    let world = world(HttpLimits::default());
    let mut client = world.connect();
    assert!(client.ask(&get("/broken")).is_err());
    world.assert_alive();
}

/// Connects until the server serves a client: its threads end one after the other.
fn served_in_the_end(world: &World) -> Client {
    let served = |client: &mut Client| client.ask(&get("/")).is_ok_and(|it| it.status == 200);
    let clients = (0..500).map(|_| world.connect());
    let mut clients = clients.map(|mut client| served(&mut client).then_some(client));
    clients.find_map(|client| client).unwrap()
}

#[test]
fn connections_are_capped_in_all_and_per_peer() {
    for limits in [
        HttpLimits {
            connections: 5,
            workers: 5,
            ..HttpLimits::default()
        },
        HttpLimits {
            connections_per_peer: 5,
            workers: 5,
            ..HttpLimits::default()
        },
    ] {
        let world = world(limits);
        let mut clients: Vec<_> = (0..5).map(|_| world.connect()).collect();
        for client in &mut clients {
            client.send(&get("/wait")).unwrap();
            world.arrived.recv_timeout(LONG).unwrap();
        }
        let mut turned_away = world.connect();
        let answer = turned_away.answer().unwrap();
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["code"], "OVERLOADED");
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert!(turned_away.at_end());
        (0..5).for_each(|_| world.leave.send(()).unwrap());
        for client in &mut clients {
            assert_eq!(client.answer().unwrap().status, 200);
        }
        drop(clients);
        served_in_the_end(&world);
    }
}

#[test]
fn silent_connections_are_closed_before_served_ones() {
    let world = world(HttpLimits {
        connections: 6,
        ..HttpLimits::default()
    });
    let mut served = world.connect();
    served.send(&get("/wait")).unwrap();
    world.arrived.recv_timeout(LONG).unwrap();
    let mut silent: Vec<_> = (0..5).map(|_| world.connect()).collect();
    for client in &mut silent {
        client.send(b"GET / HT").unwrap();
    }
    // More connections than the limit: the silent ones are closed first, then those with the oldest
    // last request.
    let mut kept: Vec<_> = (0..7).map(|_| served_in_the_end(&world)).collect();
    assert!(kept[0].at_end());
    assert!(silent.iter_mut().all(Client::at_end));
    world.leave.send(()).unwrap();
    assert_eq!(served.answer().unwrap().status, 200);
}

#[test]
fn behind_a_trusted_proxy_its_clients_are_the_peers() {
    let forwarded = |target: &str, by: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {by}\r\n\r\n").into_bytes()
    };
    let open = world(HttpLimits {
        connections_per_peer: 1,
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..HttpLimits::default()
    });
    let mut busy = open.connect();
    busy.send(&forwarded("/wait", "6.6.6.6, 192.0.2.1")).unwrap();
    open.arrived.recv_timeout(LONG).unwrap();
    // The proxy's own connections are not counted, but the next request of the same client is.
    let _idle: Vec<_> = (0..3).map(|_| open.connect()).collect();
    open.refused(&forwarded("/", "192.0.2.1"), 503, "OVERLOADED");
    let other = open.ask(&forwarded("/", "192.0.2.2")).json();
    assert_eq!(other["peer"], "192.0.2.2");
    open.leave.send(()).unwrap();
    assert_eq!(busy.answer().unwrap().status, 200);
    // Another client's request on the same connection.
    let next = busy.ask(&forwarded("/", "192.0.2.1")).unwrap();
    assert_eq!(next.json()["peer"], "192.0.2.1");

    // The header of any other peer is ignored.
    let world = world(HttpLimits::default());
    let seen = world.ask(&forwarded("/", "192.0.2.1")).json();
    assert_eq!(seen["peer"], "127.0.0.1");
}

#[test]
fn large_bodies_share_a_budget_and_small_ones_do_not() {
    let world = world(HttpLimits {
        body_budget: 250_000,
        ..HttpLimits::default()
    });
    let announce = |length: u64| {
        format!(
            "POST /length HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes()
    };
    // An announced body that is not sent delays only its own client, 16 KiB each.
    let mut stalled: Vec<_> = (0..2).map(|_| world.connect()).collect();
    for client in &mut stalled {
        client.send(&announce(100_000)).unwrap();
        assert_eq!(client.line().unwrap(), "HTTP/1.1 100 Continue");
    }
    assert_eq!(world.ask(&post("/length", &[0; 110_000])).body, b"110000");
    world.refused(&announce(250_001), 503, "OVERLOADED");
    // A body that has arrived delays others.
    let mut first = world.connect();
    first.send(&announce(110_000)).unwrap();
    assert_eq!(first.line().unwrap(), "HTTP/1.1 100 Continue");
    assert_eq!(first.line().unwrap(), "");
    first.send(&[7; 70_000]).unwrap();
    let refused = (0..500).any(|_| {
        let mut client = world.connect();
        client.send(&announce(110_000)).unwrap();
        let refused = client.answer_or_continue().map(|answer| {
            assert_eq!(answer.json()["code"], "OVERLOADED");
            assert_eq!(answer.header("retry-after"), Some("5"));
            answer.status
        });
        refused == Some(503)
    });
    assert!(refused);
    assert_eq!(world.ask(&post("/length", &[0; 60_000])).body, b"60000");
    assert_eq!(first.ask(&[7; 40_000]).unwrap().body, b"110000");
    drop(stalled);
    assert_eq!(world.ask(&post("/length", &[0; 200_000])).body, b"200000");
}

#[test]
fn downloads_delay_no_small_request() {
    let world = world(HttpLimits {
        workers: 2,
        downloads: 2,
        write_stall: LONG,
        ..HttpLimits::default()
    });
    // None of these clients reads a byte.
    let mut greedy: Vec<_> = (0..2).map(|_| world.connect()).collect();
    for client in &mut greedy {
        client.send(&get("/zeroes")).unwrap();
        assert_eq!(client.head().unwrap().status, 200);
    }
    let mut large: Vec<_> = (0..6).map(|_| world.connect()).collect();
    for client in &mut large {
        client.send(&get("/bytes?n=3000000")).unwrap();
    }
    for _ in 0..20 {
        world.assert_alive();
    }
    // Two streams run and six wait. The next stream is refused. A buffered answer is never refused,
    // and neither is a short stream.
    let refused = world.ask(&get("/stream?n=3000000"));
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("5"));
    for short in [0, 5, 200_000] {
        let answer = world.ask(&get(&format!("/stream?n={short}")));
        assert_eq!((answer.status, answer.body.len()), (200, short));
        let length = answer.header("content-length").unwrap();
        assert_eq!(length, short.to_string());
    }
    drop(greedy);
    for client in &mut large {
        assert_eq!(client.answer().unwrap().body.len(), 3_000_000);
    }
    let answer = world.ask(&get("/stream?n=3000000"));
    assert_eq!(answer.body.len(), 3_000_000);
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let world = world(HttpLimits {
        downloads: 1,
        ..short()
    });
    let mut deaf = world.connect();
    deaf.send(&get("/zeroes")).unwrap();
    assert_eq!(deaf.head().unwrap().status, 200);
    // The only slot for downloads is free again once the first client is cut off.
    let answer = world.ask(&get("/stream?n=3000000"));
    assert_eq!(answer.body.len(), 3_000_000);
    assert!(deaf.0.read_to_end(&mut Vec::new()).is_ok_and(|count| count > 0) || deaf.at_end());
}

#[test]
fn a_panic_ends_its_worker_loudly_and_is_answered() {
    let world = world(HttpLimits {
        workers: 2,
        ..HttpLimits::default()
    });
    let answer = world.ask(&get("/panic"));
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["code"], "INTERNAL_ERROR");
    let ended = world.endings.recv_timeout(LONG).unwrap();
    assert!(ended.panicked && ended.name.starts_with("test-"));
}

#[test]
fn stopping_lets_running_requests_end_and_closes_the_rest() {
    let world = world(HttpLimits::default());
    let mut idle = world.connect();
    idle.ask(&get("/")).unwrap();
    let mut silent = world.connect();
    let mut busy = world.connect();
    busy.send(&get("/wait")).unwrap();
    world.arrived.recv_timeout(LONG).unwrap();
    thread::scope(|scope| {
        let stopping = scope.spawn(|| world.server.stop(LONG));
        assert!(idle.at_end() && silent.at_end());
        assert!(!stopping.is_finished());
        world.leave.send(()).unwrap();
        let answer = busy.answer().unwrap();
        assert_eq!(answer.body, b"\"waited\"");
        assert_eq!(answer.header("connection"), Some("close"));
        stopping.join().unwrap();
    });
    assert!(TcpStream::connect(world.server.address()).is_err());
    assert!(world.group.0.join(LONG));
    world.server.stop(Duration::ZERO);
}

#[test]
fn stopping_cuts_off_slow_requests_and_dropping_leaves_no_thread() {
    let world = world(HttpLimits::default());
    let mut endless = world.connect();
    endless.send(&get("/zeroes")).unwrap();
    assert_eq!(endless.head().unwrap().status, 200);
    let mut stalled = world.connect();
    stalled.ask(&get("/")).unwrap();
    stalled
        .send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    drop(world.server);
    assert!(world.group.0.join(LONG));
    assert!(world.endings.try_iter().all(|ended| !ended.panicked));
    let mut rest = Vec::new();
    drop(endless.0.read_to_end(&mut rest));
    assert!(stalled.at_end());
}

/// Runs one ignored test of this file in a process of its own, after some shell commands.
fn alone(test: &str, setup: &str) {
    let program = std::env::current_exe().unwrap();
    let command = format!(
        "{setup} && exec '{}' --exact --ignored listener::{test}",
        program.display()
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &command])
        .output()
        .unwrap();
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(output.status.success() && ran, "{output:?}");
}

#[test]
fn a_large_body_is_in_memory_once() {
    alone("peak_memory", "true");
}

#[test]
#[ignore = "run by a_large_body_is_in_memory_once"]
fn peak_memory() {
    let world = world(HttpLimits::default());
    let mut client = world.connect();
    client
        .send(b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n")
        .unwrap();
    for _ in 0..100 {
        client.send(&[b'x'; 1_000_000]).unwrap();
    }
    assert_eq!(client.answer().unwrap().body, b"100000000");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|it| it.starts_with("VmHWM")).unwrap();
    let peak: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // In kilobytes. While the body is handed over, the worker's part grows as the server's part
    // shrinks.
    assert!(peak < 150_000, "{line}");
}

#[test]
fn running_out_of_descriptors_is_survived() {
    alone("scarce_descriptors", "ulimit -n 150");
}

#[test]
#[ignore = "run by running_out_of_descriptors_is_survived"]
fn scarce_descriptors() {
    let world = world(short());
    for round in 0..3 {
        // Every descriptor that the process may open, first for clients and then for files.
        let mut clients = Vec::new();
        while clients.len() < 40 {
            match TcpStream::connect(world.server.address()) {
                Ok(stream) => clients.push(stream),
                Err(_) => break,
            }
        }
        for client in &mut clients {
            client.write_all(&get("/stream?n=100000")).unwrap();
        }
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        if round > 0 {
            // Requests that find no descriptor left.
            files.truncate(files.len().saturating_sub(round));
            for client in &mut clients {
                drop(client.write_all(&get("/")));
            }
        }
        clients.truncate(1);
        drop(files);
        drop(clients);
        let gone = world.clock.now().steady;
        let assert_alive = || {
            let asked = world.connect().ask(&get("/"));
            asked.is_ok_and(|answer| answer.status == 200)
        };
        while !assert_alive() {
            assert!(world.clock.now().steady - gone < LONG);
        }
    }
    world.assert_alive();
}

#[test]
#[ignore = "a measurement: cargo test --release --test network listener:: throughput -- --ignored --nocapture"]
fn throughput() {
    let world = world(HttpLimits {
        requests_per_connection: u32::MAX,
        ..HttpLimits::default()
    });
    for (clients, body) in [(1, 0), (4, 0), (16, 0), (16, 2000)] {
        let before = world.clock.now().steady;
        let each = 20_000 / clients;
        thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    let mut client = world.connect();
                    let request = post("/length", &vec![0; body]);
                    for _ in 0..each {
                        assert_eq!(client.ask(&request).unwrap().status, 200);
                    }
                });
            }
        });
        let took = world.clock.now().steady - before;
        println!(
            "{clients} clients, {body} bytes: {:.0} requests/s",
            f64::from(each * clients) / took.as_secs_f64()
        );
    }
}
