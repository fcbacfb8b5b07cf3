//! The outgoing client against hostile servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use batchkeeper::base::clock::{Clock, SystemClock};
use batchkeeper::base::thread_group;
use batchkeeper::outbound::{
    GuardedClient, HttpPost, ImageLimits, ImageProblem, OutboundError, SsrfGuard, UrlProblem,
};
use crossbeam_channel::{Receiver, never, unbounded};

/// A server on a loopback address that answers each request with `answer` and reports every
/// request. Its thread ends with the test process.
pub struct Host {
    pub port: u16,
    pub asked: Receiver<String>,
}

pub fn host(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Host {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, asked) = unbounded();
    thread_group::spawn_ungrouped("host", move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            let request = head + &String::from_utf8_lossy(&body);
            answer(&request, reader.get_mut());
            // The test may have dropped the receiver.
            drop(tell.send(request));
        }
    })
    .unwrap();
    Host { port, asked }
}

/// A server that always sends the same text.
pub fn saying(text: impl Into<String>) -> Host {
    let text = text.into();
    // The client may close the connection before it has read everything.
    host(move |_, stream| drop(stream.write_all(text.as_bytes())))
}

impl Host {
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// In these tests, 127.0.0.1 counts as a public address.
pub fn outbound() -> GuardedClient {
    let guard = SsrfGuard::Allow(vec!["127.0.0.1".parse().unwrap()]);
    GuardedClient::new(guard, Arc::new(SystemClock::new()), LONG, None)
}

pub const LONG: Duration = Duration::from_mins(2);
pub const SHORT: Duration = Duration::from_millis(300);

fn post(url: &str) -> Result<batchkeeper::outbound::PostResponse, OutboundError> {
    outbound().post(url, &[], b"{}".to_vec(), LONG)
}

#[test]
fn a_post_sends_its_headers_and_reports_the_answer() {
    let host = saying("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\nnot\x1b now!");
    let headers = [
        ("X-Signature", "abc".to_owned()),
        ("Content-Type", "application/json".to_owned()),
    ];
    let reply = outbound()
        .post(&host.url("/hook?a=b"), &headers, b"{\"a\":1}".to_vec(), LONG)
        .unwrap();
    assert_eq!(reply.status, 503);
    assert_eq!(reply.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(reply.body_start, "not\\u{1b} now!");
    let request = host.asked.recv_timeout(LONG).unwrap();
    let lower = request.to_lowercase();
    assert!(request.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
    for field in [
        "x-signature: abc\r\n",
        "content-length: 7\r\n",
        "content-type: application/json\r\n",
        concat!("user-agent: batchkeeper/", env!("CARGO_PKG_VERSION"), "\r\n"),
    ] {
        assert_eq!(lower.matches(field).count(), 1, "{field} in {request}");
    }
}

#[test]
fn a_redirected_post_is_an_answer() {
    let host = saying("HTTP/1.1 307 No\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(post(&host.url("/")).unwrap().status, 307);
    assert_eq!(host.asked.iter().take(1).count(), 1);
    assert!(host.asked.is_empty());
}

#[test]
fn no_request_leaves_for_a_refused_address() {
    let outbound = GuardedClient::new(SsrfGuard::DenyPrivate, Arc::new(SystemClock::new()), LONG, None);
    let host = saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    for name in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0x7f000001",
        "[::ffff:127.0.0.1]",
    ] {
        let url = format!("http://{name}:{}/", host.port);
        let refused = outbound.post(&url, &[], Vec::new(), LONG).unwrap_err();
        assert_eq!(refused, OutboundError::ForbiddenAddress, "{url}");
        assert!(!refused.is_retryable());
        let refused = outbound.probe_image(&url, &ImageLimits::default());
        assert_eq!(
            refused,
            Err(ImageProblem::Request(OutboundError::ForbiddenAddress)),
            "{url}"
        );
    }
    let bad = outbound.post("http://a:0/", &[], Vec::new(), LONG);
    assert_eq!(bad.unwrap_err(), OutboundError::Url(UrlProblem::Port));
    assert!(host.asked.is_empty());
}

#[test]
fn faults_are_distinguished() {
    let clock = SystemClock::new();
    let before = clock.now().steady;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let error = outbound().post(&url, &[], Vec::new(), SHORT).unwrap_err();
    assert_eq!(error, OutboundError::Timeout);
    drop(silent);
    let error = post(&url).unwrap_err();
    assert!(matches!(error, OutboundError::Connection(_)), "{error}");
    assert!(error.is_retryable());

    // A head that arrives byte by byte takes the whole timeout, and no longer.
    let dripping = host(|_, stream| {
        let pause = never::<()>();
        let text = b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
        for byte in text {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            assert!(pause.recv_timeout(Duration::from_millis(10)).is_err());
        }
    });
    let error = outbound()
        .post(&dripping.url("/"), &[], Vec::new(), SHORT)
        .unwrap_err();
    assert_eq!(error, OutboundError::Timeout);

    let garbage = saying("SSH-2.0-OpenSSH_9.9\r\n\r\n");
    let error = post(&garbage.url("/")).unwrap_err();
    assert!(matches!(error, OutboundError::Other(_)), "{error}");
    let huge = saying(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000)));
    let error = post(&huge.url("/")).unwrap_err();
    assert!(matches!(error, OutboundError::Other(_)), "{error}");
    let cut = saying("HTTP/1.1 200 OK\r\nContent-Le");
    assert!(post(&cut.url("/")).is_err());
    let plain = saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let tls = plain.url("/").replace("http:", "https:");
    assert!(post(&tls).is_err());
    assert!(clock.now().steady - before < LONG);
}

#[test]
fn a_status_counts_although_its_body_never_ends() {
    let cut = saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    let reply = post(&cut.url("/")).unwrap();
    assert_eq!((reply.status, reply.body_start.as_str()), (200, "only this"));
    let endless = host(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        if stream.write_all(head).is_ok() {
            while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        }
    });
    assert_eq!(post(&endless.url("/")).unwrap().body_start.len(), 500);
}

/// The environment can only be set for another process.
#[test]
fn proxies_of_the_environment_are_ignored() {
    let proxy = saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env(name, proxy.url(""));
    }
    for name in ["NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    let output = command
        .args(["--exact", "--ignored", "outbound::behind_a_proxy"])
        .output()
        .unwrap();
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(output.status.success() && ran, "{output:?}");
    assert!(proxy.asked.is_empty());
}

#[test]
#[ignore = "run by proxies_of_the_environment_are_ignored"]
fn behind_a_proxy() {
    let host = saying("HTTP/1.1 204 OK\r\n\r\n");
    assert_eq!(post(&host.url("/")).unwrap().status, 204);
    let host = saying("HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: 5\r\n\r\n");
    let probed = outbound().probe_image(&host.url("/"), &ImageLimits::default());
    assert_eq!(probed, Ok(()));
}
