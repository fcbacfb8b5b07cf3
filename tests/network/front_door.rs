//! The real program under attack, without a proxy in front of it. It keeps running, a good client
//! is answered during the attack, and all resources are released afterwards.
//!
//! A small attack of each kind runs with the other tests. The full attacks, with figures: `cargo
//! test --release --test network front_door:: -- --ignored --nocapture`.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::appliance::{Appliance, sign_bytes, wait_for};
use batchkeeper::base::clock::{Clock, SystemClock};
use crossbeam_channel::never;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The size of each attack, and the promise to the good client.
struct Scale {
    idle: usize,
    dripped: usize,
    uploads: usize,
    resets: usize,
    framing: usize,
    pipelined: usize,
    header_bytes: usize,
    /// The good client's requests during the attack.
    requests: usize,
    /// 99 of 100 of them are answered within this time,
    p99: Duration,
    /// or, on a slow machine, within this multiple of the median before the attack.
    times: u32,
}

/// The path of requests with a body.
const SUBMIT: &str = "/api/v1/generate-descriptions";
const CANCEL: &str = "/api/v1/batch-jobs/00000000-0000-4000-8000-000000000000/cancel";

/// Small attacks that can run beside all other tests, on any machine, in a debug build.
const SMALL: Scale = Scale {
    idle: 300,
    dripped: 60,
    uploads: 40,
    resets: 300,
    framing: 5,
    pipelined: 2_000,
    header_bytes: 3_000_000,
    requests: 40,
    p99: Duration::from_secs(2),
    times: 100,
};

const FULL: Scale = Scale {
    idle: 2_000,
    dripped: 500,
    uploads: 200,
    resets: 20_000,
    framing: 100,
    pipelined: 200_000,
    header_bytes: 200_000_000,
    requests: 1_000,
    p99: Duration::from_millis(100),
    times: 0,
};

/// The memory that an attack may take, in kB.
const MEMORY: u64 = 64 * 1024;
/// The additional threads during an attack: one for each connection, and a quarter more that are
/// ending.
const THREADS: u64 = 1024 + 256 + 32;
/// Additional open descriptors after an attack: the readers of the database stay open.
const SLACK: usize = 24;
const LONG: Duration = Duration::from_mins(2);

fn pause(time: Duration) {
    never::<()>().recv_timeout(time).ok();
}

/// The daemon's resources.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    threads: u64,
    memory: u64,
    descriptors: usize,
}

impl Held {
    fn now(id: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.unwrap().split_whitespace().next().unwrap();
            number.parse().unwrap()
        };
        Self {
            threads: value("Threads:"),
            memory: value("VmRSS:"),
            descriptors: std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count(),
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            threads: self.threads.max(other.threads),
            memory: self.memory.max(other.memory),
            descriptors: self.descriptors.max(other.descriptors),
        }
    }
}

/// The daemon, a job to read, and the attackers.
struct Field {
    appliance: Appliance,
    api: SocketAddr,
    job: String,
    clock: SystemClock,
    /// Whether the good client still waits for answers.
    is_good_client_waiting: Arc<AtomicBool>,
    /// The number of answers that the good client has received.
    answers: AtomicUsize,
}

impl Field {
    fn new() -> Self {
        Self::of(Appliance::start())
    }

    /// Starts a daemon with this limit of descriptors.
    fn scarce(descriptors: u64) -> Self {
        let mut appliance = Appliance::without_daemon("");
        appliance.descriptors = Some(descriptors);
        appliance.start_daemon();
        Self::of(appliance)
    }

    fn of(appliance: Appliance) -> Self {
        let job = appliance.job(&appliance.lots(2), &["en"]);
        appliance.ended(&job);
        appliance.wait_until_ingested();
        Self {
            api: appliance.api.strip_prefix("http://").unwrap().parse().unwrap(),
            appliance,
            job,
            clock: SystemClock::new(),
            is_good_client_waiting: Arc::default(),
            answers: AtomicUsize::new(0),
        }
    }

    /// Opens a connection of the attacker with this number. Every eighth attacker uses 127.0.0.1
    /// like the good client; the others have addresses of their own.
    fn attacker(&self, number: usize) -> TcpStream {
        let last = u8::try_from(number % 8 + 1).unwrap();
        self.attacker_from(Ipv4Addr::new(127, 0, 0, last)).unwrap()
    }

    /// The same when there are few connections: at most one for each answer of the good client. The
    /// good client may be slow on a busy machine.
    fn patient_attacker(&self, number: usize) -> TcpStream {
        if number.is_multiple_of(8) {
            let before = self.answers.load(Ordering::SeqCst);
            wait_for("an answer", || {
                (self.answers.load(Ordering::SeqCst) > before).then_some(())
            });
        }
        self.attacker(number)
    }

    fn attacker_from(&self, address: Ipv4Addr) -> std::io::Result<TcpStream> {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&socket, &SocketAddr::new(IpAddr::V4(address), 0))?;
        connect(&socket, &self.api)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LONG))?;
        stream.set_write_timeout(Some(LONG))?;
        Ok(stream)
    }

    /// The time of a good client's request: a signed `GET` of its job on a new connection.
    fn good(&self) -> Duration {
        let started = self.clock.now().steady;
        let answer = self.ask();
        let took = self.clock.now().steady - started;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\"completed\""), "{answer}");
        self.answers.fetch_add(1, Ordering::SeqCst);
        took
    }

    fn ask(&self) -> String {
        let mut stream = TcpStream::connect(self.api).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let signature = sign_bytes(self.job.as_bytes());
        let job = &self.job;
        let request = format!(
            "GET /api/v1/batch-status/{job} HTTP/1.1\r\nHost: h\r\nX-Signature: {signature}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Starts an attack, lets the good client send requests during it, and checks the promise.
    fn withstands<T>(&self, what: &str, scale: &Scale, attack: impl FnOnce(&Self) -> T) {
        let id = self.appliance.daemon_id();
        let mut usual: Vec<_> = (0..20).map(|_| self.good()).collect();
        usual.sort();
        let promised = scale.p99.max(usual[10] * scale.times);
        let before = Held::now(id);
        self.is_good_client_waiting.store(true, Ordering::SeqCst);
        let attacking = AtomicBool::new(true);
        let (mut took, most, attackers) = thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut took = Vec::new();
                let mut most = before;
                // Until the attack is complete, and a little longer.
                let mut after = 0;
                while after < scale.requests {
                    after += usize::from(!attacking.load(Ordering::SeqCst));
                    took.push(self.good());
                    most = most.most(Held::now(id));
                    pause(Duration::from_millis(1));
                }
                self.is_good_client_waiting.store(false, Ordering::SeqCst);
                (took, most)
            });
            let attackers = attack(self);
            attacking.store(false, Ordering::SeqCst);
            let (took, most) = client.join().unwrap();
            (took, most, attackers)
        });
        let released = self.clock.now().steady;
        drop(attackers);
        wait_for("the attack's descriptors", || {
            let now = Held::now(id);
            (now.descriptors <= before.descriptors + SLACK && now.threads <= before.threads + 8).then_some(())
        });
        let released = self.clock.now().steady - released;
        took.sort();
        let [p50, p99] = [50, 99].map(|percent| took[(took.len() - 1) * percent / 100]);
        let worst = took[took.len() - 1];
        println!(
            "{what}: {} requests, p50 {p50:.1?}, p99 {p99:.1?}, worst {worst:.1?}; memory +{} kB, \
             {} threads, {} descriptors at most; given back after {released:.1?}",
            took.len(),
            most.memory.saturating_sub(before.memory),
            most.threads,
            most.descriptors,
        );
        assert_eq!(id, self.appliance.daemon_id());
        assert!(p99 <= promised, "{what}: {p99:?} of {promised:?}");
        assert!(most.memory <= before.memory + MEMORY, "{what}: {most:?}");
        assert!(most.threads <= before.threads + THREADS, "{what}: {most:?}");
        assert!(released <= LONG, "{what}: {released:?}");
        self.good();
    }
}

/// Sends as much as the server accepts; the server may close the connection.
fn say(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// The status of the answer; `None` if the connection was closed without one.
fn answer(stream: &mut TcpStream) -> Option<u16> {
    let mut start = [0; 12];
    match stream.read_exact(&mut start) {
        Ok(()) => std::str::from_utf8(&start[9..]).unwrap().parse().ok(),
        Err(error) => {
            assert!(
                error.kind() != ErrorKind::WouldBlock,
                "no answer within the timeout"
            );
            None
        }
    }
}

fn post(length: &str) -> Vec<u8> {
    post_to(SUBMIT, length)
}

fn post_to(path: &str, length: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// Sends bodies without a valid signature that take much more memory than their bytes. The daemon
/// reads one at a time, so that all of them together take as much memory as one.
fn dense_bodies(field: &Field, path: &str, count: usize, bytes: usize) {
    let before = field.appliance.peak_memory();
    let body = format!("[0{}]", ",0".repeat(bytes / 2));
    let request = [post_to(path, &body.len().to_string()), body.into_bytes()].concat();
    thread::scope(|scope| {
        for number in 0..count {
            let request = &request;
            scope.spawn(move || {
                let mut attacker = field.attacker(number);
                // One after the other: the last body waits for all others.
                attacker.set_read_timeout(Some(10 * LONG)).unwrap();
                say(&mut attacker, request);
                let status = answer(&mut attacker);
                assert!(matches!(status, Some(401 | 503)), "{status:?}");
            });
        }
        let good: Vec<_> = (0..20).map(|_| field.good()).collect();
        println!("the good client meanwhile: {:.1?} at most", good.iter().max());
    });
    let took = field.appliance.peak_memory() - before;
    println!("{count} bodies of {bytes} bytes without a signature: {took} kB");
    // All bodies, and one more for what is kept of the one that is read.
    let most = (count + 1) * bytes / 1024;
    assert!(took < u64::try_from(most).unwrap(), "{took} kB of {most}");
}

/// Runs every attack, one after the other, on one daemon.
fn besiege(field: &Field, scale: &Scale) {
    field.withstands("idle connections", scale, |field| {
        (0..scale.idle)
            .map(|number| field.attacker(number))
            .collect::<Vec<_>>()
    });
    field.withstands("dripped headers", scale, |field| {
        let mut attackers: Vec<_> = (0..scale.dripped).map(|it| field.attacker(it)).collect();
        for attacker in &mut attackers {
            say(attacker, b"GET / HTTP/1.1\r\nX: ");
        }
        // Each round sends one byte, until the good client has its answers.
        let is_good_client_waiting = field.is_good_client_waiting.clone();
        let dripping = thread::Builder::new().spawn(move || {
            while is_good_client_waiting.load(Ordering::SeqCst) {
                attackers.retain_mut(|attacker| say(attacker, b"x"));
                pause(Duration::from_millis(50));
            }
        });
        dripping.unwrap()
    });
    field.withstands("stalled uploads", scale, |field| {
        let announced = ["100000000", "1000000", "70000", "60000"];
        let stall = |number: usize| {
            let mut attacker = field.attacker(number);
            say(&mut attacker, &post(announced[number % 4]));
            say(&mut attacker, &vec![b'{'; number * 50]);
            attacker
        };
        (0..scale.uploads).map(stall).collect::<Vec<_>>()
    });
    field.withstands("connect, send, reset", scale, |field| {
        for number in 0..scale.resets {
            let mut attacker = field.attacker(number);
            say(&mut attacker, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
            // Closing the connection here sends a reset.
            sockopt::set_socket_linger(&attacker, Some(Duration::ZERO)).unwrap();
        }
    });
    field.withstands("lengths beyond reason", scale, |field| {
        for length in ["100000000000", "9223372036854775808", "18446744073709551616"] {
            for number in 0..scale.framing {
                let mut attacker = field.attacker(number);
                say(&mut attacker, &post(length));
                assert_eq!(answer(&mut attacker), Some(413));
            }
        }
    });
    field.withstands("framing that can be read in two ways", scale, |field| {
        let start = format!("POST {SUBMIT} HTTP/1.1\r\nHost: h\r\n");
        for (rest, status) in [
            ("Content-Length: 5, 5\r\n\r\nhello", 400),
            ("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
            ("Content-Length: +5\r\n\r\nhello", 400),
            (
                "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
                400,
            ),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nhel", 411),
        ] {
            for number in 0..scale.framing {
                let mut attacker = field.attacker(number);
                say(&mut attacker, format!("{start}{rest}").as_bytes());
                assert_eq!(answer(&mut attacker), Some(status), "{rest:?}");
            }
        }
    });
    field.withstands("bodies shorter than announced", scale, |field| {
        for number in 0..scale.framing {
            let mut attacker = field.attacker(number);
            say(&mut attacker, &post("500"));
            say(&mut attacker, b"{}");
            attacker.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(answer(&mut attacker), Some(400));
        }
    });
    field.withstands("HTTP/2.0", scale, |field| {
        for number in 0..scale.framing {
            let mut attacker = field.attacker(number);
            say(&mut attacker, b"GET / HTTP/2.0\r\n\r\n");
            assert_eq!(answer(&mut attacker), Some(505));
        }
    });
    field.withstands("keep-alive clients at once", scale, |field| {
        let mut clients: Vec<_> = (0..50).map(|number| field.attacker(number)).collect();
        for _ in 0..3 {
            for client in &mut clients {
                say(client, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
            }
            for client in &mut clients {
                assert_eq!(answer(client), Some(200));
                let mut rest = Vec::new();
                while !rest.ends_with(b"\"healthy\"}") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).unwrap();
                    rest.push(byte[0]);
                }
            }
        }
    });
    field.withstands("one header line without an end", scale, |field| {
        let mut attacker = field.attacker(1);
        say(&mut attacker, b"GET / HTTP/1.1\r\nX: ");
        let piece = vec![b'x'; 1_000_000];
        let mut sent = 0;
        while sent < scale.header_bytes && say(&mut attacker, &piece) {
            sent += piece.len();
        }
        attacker
    });
    field.withstands("pipelined requests", scale, |field| {
        let mut attacker = field.attacker(1);
        let request = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_000);
        attacker.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        // The attacker reads nothing, so the server stops reading too.
        let mut sent = 0;
        while sent < scale.pipelined && say(&mut attacker, &request) {
            sent += 1_000;
        }
        attacker
    });
}

#[test]
fn attacks_delay_no_good_client_and_leave_nothing_behind() {
    let field = Field::new();
    besiege(&field, &SMALL);
    for path in [SUBMIT, CANCEL] {
        dense_bodies(&field, path, 6, 4_000_000);
    }
    field.appliance.assert_sound();
}

#[test]
#[ignore = "takes a minute in a release build"]
fn attacks_in_full() {
    // The attackers' descriptors belong to this process.
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )
    .unwrap();
    let field = Field::new();
    besiege(&field, &FULL);
    descriptors_run_out(&field, 20);
    field.appliance.assert_sound();
}

#[test]
#[ignore = "takes some hundred megabytes"]
fn dense_bodies_in_full() {
    for path in [SUBMIT, CANCEL] {
        dense_bodies(&Field::new(), path, 10, 23_000_000);
    }
}

/// Lowers the descriptor limit to a few more than are open, while connections arrive. The daemon
/// serves few of them or none and keeps running. Afterwards it serves as before.
fn descriptors_run_out(field: &Field, rounds: usize) {
    let id = field.appliance.daemon_id();
    let pid = Pid::from_raw(i32::try_from(id).unwrap());
    let before = Held::now(id);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap();
    for round in 0..rounds {
        let few = u64::try_from(before.descriptors + round % 10).unwrap();
        let usual = limit(Some(few)).current;
        let mut attackers: Vec<_> = (0..60).map(|number| field.attacker(number)).collect();
        for attacker in &mut attackers {
            say(attacker, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
        }
        // Until the daemon was refused a descriptor more than once.
        pause(Duration::from_millis(250));
        drop(attackers);
        limit(usual);
        // The waiting connections are accepted now and are closed already, so there is space in the
        // queue.
        wait_for("a free connection", || {
            field.ask().starts_with("HTTP/1.1 200 ").then_some(())
        });
    }
    wait_for("the daemon", || {
        let now = Held::now(id);
        (now.descriptors <= before.descriptors + SLACK).then_some(())
    });
    field.good();
}

/// Beside the daemon's own files, 256 descriptors are enough for a few connections only.
#[test]
fn a_daemon_with_few_descriptors_serves_fewer_connections_and_keeps_running() {
    let field = Field::scarce(256);
    let scale = Scale {
        requests: 100,
        ..SMALL
    };
    field.withstands("256 descriptors, idle connections", &scale, |field| {
        (0..scale.idle)
            .map(|number| field.patient_attacker(number))
            .collect::<Vec<_>>()
    });
    field.withstands("256 descriptors, stalled uploads", &scale, |field| {
        let stall = |number| {
            let mut attacker = field.patient_attacker(number);
            say(&mut attacker, &post("60000"));
            attacker
        };
        (0..scale.idle).map(stall).collect::<Vec<_>>()
    });
    descriptors_run_out(&field, 4);
    field.appliance.assert_sound();
}
