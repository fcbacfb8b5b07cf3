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
struct Host {
    port: u16,
    asked: Receiver<String>,
}

fn host(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Host {
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
fn saying(text: impl Into<String>) -> Host {
    let text = text.into();
    // The client may close the connection before it has read everything.
    host(move |_, stream| drop(stream.write_all(text.as_bytes())))
}

impl Host {
    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// In these tests, 127.0.0.1 counts as a public address.
fn outbound() -> GuardedClient {
    let guard = SsrfGuard::Allow(vec!["127.0.0.1".parse().unwrap()]);
    GuardedClient::new(guard, Arc::new(SystemClock::new()), LONG)
}

const LONG: Duration = Duration::from_mins(2);
const SHORT: Duration = Duration::from_millis(300);

fn post(url: &str) -> Result<batchkeeper::outbound::PostResponse, OutboundError> {
    outbound().post(url, &[], b"{}".to_vec(), LONG)
}

fn probe(url: &str) -> Result<(), ImageProblem> {
    probe_within(url, LONG)
}

fn probe_within(url: &str, time: Duration) -> Result<(), ImageProblem> {
    let limits = ImageLimits {
        head_timeout: time,
        get_timeout: time,
        ..ImageLimits::default()
    };
    outbound().probe_image(url, &limits)
}

fn image(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n")
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
    let outbound = GuardedClient::new(SsrfGuard::DenyPrivate, Arc::new(SystemClock::new()), LONG);
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

#[test]
fn images_are_found_by_head_or_by_their_beginning() {
    let by_head = saying(image(1000));
    assert_eq!(probe(&by_head.url("/a.jpg")), Ok(()));
    assert!(by_head.asked.recv().unwrap().starts_with("HEAD /a.jpg"));

    for head in [
        "HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "",
    ] {
        let by_get = host(move |request, stream| {
            let answer = if request.starts_with("HEAD") {
                head.to_owned()
            } else {
                image(9_000_000) + &"x".repeat(40_000)
            };
            drop(stream.write_all(answer.as_bytes()));
        });
        assert_eq!(probe(&by_get.url("/")), Ok(()), "{head}");
        by_get.asked.recv_timeout(LONG).unwrap();
        let get = by_get.asked.recv_timeout(LONG).unwrap().to_lowercase();
        assert!(get.starts_with("get / ") && get.contains("\r\nrange: bytes=0-32767\r\n"));
    }
}

#[test]
fn other_content_is_reported_as_no_image() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: Text/HTML; charset=utf-8\r\n\
                Content-Length: 2\r\n\r\nhi";
    let cases = [
        (image(10_000_001), ImageProblem::TooLarge(10_000_001)),
        (
            page.to_owned(),
            ImageProblem::NotAnImage(Some("text/html".into())),
        ),
        (
            "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
            ImageProblem::Status(404),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".to_owned(),
            ImageProblem::NotAnImage(None),
        ),
        (image(0), ImageProblem::Empty),
        (
            "HTTP/1.1 206 OK\r\nContent-Type: image/png\r\nContent-Length: 5\r\n\
             Content-Range: bytes 0-4/20000000\r\n\r\nhello"
                .to_owned(),
            ImageProblem::TooLarge(20_000_000),
        ),
    ];
    for (answer, problem) in cases {
        assert_eq!(probe(&saying(answer.clone()).url("/")), Err(problem), "{answer}");
    }
    // The beginning is announced and never arrives.
    let stalled = host(|request, stream| {
        if request.starts_with("GET") {
            stream.write_all(image(100).as_bytes()).unwrap();
            // Until the client closes the connection.
            drop(stream.read(&mut [0]));
        }
    });
    assert_eq!(
        probe_within(&stalled.url("/"), SHORT),
        Err(ImageProblem::Request(OutboundError::Timeout))
    );
}

/// Redirects `/1` to `/2` and so on up to `/last`, which is an image.
fn chain(last: usize) -> Host {
    host(move |request, stream| {
        let number: usize = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let answer = if number == last {
            image(5) + "image"
        } else {
            let next = number + 1;
            format!("HTTP/1.1 302 Go\r\nLocation: {next}\r\nContent-Length: 0\r\n\r\n")
        };
        drop(stream.write_all(answer.as_bytes()));
    })
}

#[test]
fn three_redirects_are_followed_and_none_past_the_guard() {
    assert_eq!(probe(&chain(4).url("/1")), Ok(()));
    assert_eq!(probe(&chain(5).url("/1")), Err(ImageProblem::TooManyRedirects));

    let secret = saying(image(5) + "image");
    for location in [
        format!("http://127.0.0.2:{}/", secret.port),
        format!("http://localhost.:{}/", secret.port).replace("localhost.", "[::ffff:127.0.0.2]"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        format!("//0x7f.2:{}/", secret.port),
    ] {
        let host = saying(format!(
            "HTTP/1.1 301 Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ));
        let refused = Err(ImageProblem::Request(OutboundError::ForbiddenAddress));
        assert_eq!(probe(&host.url("/")), refused, "{location}");
    }
    assert!(secret.asked.is_empty());
    let elsewhere = saying("HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        probe(&elsewhere.url("/")),
        Err(ImageProblem::Request(OutboundError::Url(UrlProblem::Scheme)))
    );
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
    let host = saying(image(5) + "image");
    assert_eq!(probe(&host.url("/")), Ok(()));
}
