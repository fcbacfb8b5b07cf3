//! The example configurations in `examples/proxy` with the real nginx and Caddy, if they are
//! installed: `cargo test --test network proxies:: -- --ignored`.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::appliance::{Appliance, key, now, sign_bytes, submission, wait_for};
use batchkeeper::domain::signature::SignedRequest;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde_json::{Value, json};

/// A client that is not the proxy.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);

struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Proxy {
    fn start(mut command: Command, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let proxy = Self { child, address };
        wait_for("the proxy", || TcpStream::connect(address).ok());
        proxy
    }

    /// Runs the example within a whole configuration, without TLS, on ports of this test.
    fn nginx(appliance: &Appliance) -> Self {
        let address = free();
        let folder = appliance.path("nginx");
        std::fs::create_dir(&folder).unwrap();
        let example: String = include_str!("../../examples/proxy/nginx.conf")
            .replace("listen 443 ssl http2;", &format!("listen {address};"))
            .replace(
                "server 127.0.0.1:8080;",
                &format!("server {};", host(&appliance.api)),
            )
            .lines()
            .filter(|line| !line.trim_start().starts_with("ssl_"))
            .map(|line| format!("{line}\n"))
            .collect();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {}/{name};\n", folder.display()))
            .collect();
        let text = format!(
            "daemon off; master_process off; pid {0}/pid; error_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{paths}{example}}}\n",
            folder.display()
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(&path);
        Self::start(command, address)
    }

    fn caddy(appliance: &Appliance) -> Self {
        let address = free();
        let example = include_str!("../../examples/proxy/Caddyfile")
            .replace("batchkeeper.example {", &format!("http://:{} {{", address.port()))
            .replace("127.0.0.1:8080", host(&appliance.api));
        let path = appliance.path("Caddyfile");
        std::fs::write(&path, format!("{{\n\tadmin off\n\tauto_https off\n}}\n{example}")).unwrap();
        let mut command = Command::new("caddy");
        command
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(&path);
        command.env("HOME", appliance.path("home"));
        Self::start(command, address)
    }

    fn connect(&self) -> TcpStream {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::new(IpAddr::V4(CLIENT), 0)).unwrap();
        connect(&socket, &self.address).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
        stream
    }

    /// Returns the status and the unchanged body. The proxy closes the connection.
    fn ask(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        let head = format!("{head}\r\nHost: batchkeeper.example\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // The proxy may refuse the request before all of it is sent.
        stream.write_all(body).ok();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.get(9..12).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

fn host(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

/// Checks what must be true behind any proxy.
fn assert_common_behaviour(appliance: &Appliance, proxy: &Proxy) {
    let mut body = submission(&appliance.lots(40), &["en", "ru"]);
    // More than a proxy keeps in memory.
    body["note"] = json!("x".repeat(5_000_000));
    let body = body.to_string();
    let signature = sign_bytes(body.as_bytes());
    let post = "POST /api/v1/generate-descriptions HTTP/1.1\r\nContent-Type: application/json";
    let head = format!(
        "{post}\r\nX-Signature: {signature}\r\nX-Forwarded-For: 192.0.2.66\r\nContent-Length: {}",
        body.len()
    );
    let (status, answer) = proxy.ask(&head, body.as_bytes());
    assert_eq!(status, 201, "{answer}");
    let start = answer.find('{').unwrap();
    let end = answer.rfind('}').unwrap();
    let answer: Value = serde_json::from_str(&answer[start..=end]).unwrap();
    let job = answer["job_id"].as_str().unwrap();
    // The client's address is the one that the proxy names, not the one that the client names.
    let log = appliance.printed();
    let line = log
        .lines()
        .find(|line| line.contains("generate-descriptions"))
        .unwrap();
    assert!(line.contains(&format!("peer={CLIENT} ")), "{line}");

    appliance.ended(job);
    // Path and query arrive as they were signed.
    let target = format!("/api/v1/batch-results/{job}?limit=100&x=%2f..%20%C3%A9+a//b");
    let timestamp = now().seconds().to_string();
    let signed = SignedRequest {
        timestamp: &timestamp,
        method: "GET",
        target: &target,
        body: b"",
    };
    let signature = signed.sign(&key());
    let head = format!("GET {target} HTTP/1.1\r\nX-Timestamp: {timestamp}\r\nX-Signature: {signature}");
    let (status, results) = proxy.ask(&head, b"");
    assert_eq!(status, 200, "{results}");
    assert!(results.contains("LOT-0000") && results.contains("LOT-0039"));

    // The proxy or the listener stops the attacks. A good request succeeds afterwards.
    for (rest, body, refused) in [
        ("Content-Length: 100000000000", "", [413, 400]),
        ("Content-Length: 5, 5", "hello", [400, 400]),
        ("Content-Length: 5\r\nContent-Length: 6", "hello!", [400, 400]),
        ("Content-Length: +5", "hello", [400, 400]),
        (
            "Transfer-Encoding: identity\r\nContent-Length: 5",
            "hello",
            [400, 501],
        ),
    ] {
        let (status, answer) = proxy.ask(&format!("{post}\r\n{rest}"), body.as_bytes());
        assert!(refused.contains(&status), "{rest}: {status} {answer}");
        assert_eq!(proxy.ask("GET /health HTTP/1.1", b"").0, 200);
    }
}

#[test]
#[ignore = "needs nginx"]
fn behind_nginx() {
    let appliance = Appliance::with("[http]\ntrusted_proxies = [\"127.0.0.1\"]");
    let proxy = Proxy::nginx(&appliance);
    assert_common_behaviour(&appliance, &proxy);
    // nginx gives a chunked body a length, so only the signature is refused.
    let chunked =
        "POST /api/v1/generate-descriptions HTTP/1.1\r\nX-Signature: 00\r\nTransfer-Encoding: chunked";
    assert_eq!(proxy.ask(chunked, b"2\r\n{}\r\n0\r\n\r\n").0, 403);
}

#[test]
#[ignore = "needs Caddy"]
fn behind_caddy() {
    let appliance = Appliance::with("[http]\ntrusted_proxies = [\"127.0.0.1\"]");
    let proxy = Proxy::caddy(&appliance);
    assert_common_behaviour(&appliance, &proxy);
    // Caddy passes a chunked body on unchanged. It is refused, with a remedy.
    let chunked =
        "POST /api/v1/generate-descriptions HTTP/1.1\r\nX-Signature: 00\r\nTransfer-Encoding: chunked";
    assert_eq!(proxy.ask(chunked, b"2\r\n{}\r\n0\r\n\r\n").0, 411);
}
