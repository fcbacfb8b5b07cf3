//! Files of the largest size are uploaded and downloaded without being held in memory. The test
//! runs alone, because the peak is that of the whole process.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use batchkeeper::base::thread_group;
use batchkeeper::openai::client::{ApiKey, ClientSettings, OpenAiClient};
use batchkeeper::openai::{BatchApi, Identity};

const SIZE: u64 = 200_000_000;

/// Resets the peak to the current resident memory (proc(5), `clear_refs`).
fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[test]
fn two_hundred_megabytes_take_little_memory() {
    let _alone = crate::alone();
    reset_peak();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread_group::spawn_ungrouped("server", move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = read_head(&mut stream);
        let (_, rest) = head.split_once("content-length: ").unwrap();
        let length = rest.lines().next().unwrap().parse::<u64>().unwrap();
        let mut body = (&mut stream).take(length);
        assert_eq!(io::copy(&mut body, &mut io::sink()).unwrap(), length);
        let answer = format!("{{\"id\":\"file-1\",\"bytes\":{SIZE}}}");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all(format!("{head}{answer}").as_bytes()).unwrap();
        drop(stream);

        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        let chunk = vec![b'x'; 50_000];
        for _ in 0..SIZE / 50_000 {
            stream.write_all(b"c350\r\n").unwrap();
            stream.write_all(&chunk).unwrap();
            stream.write_all(b"\r\n").unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    })
    .unwrap();
    let identity = Identity {
        base_url: format!("http://{address}/v1"),
        organization: String::new(),
        project: String::new(),
    };
    let client = OpenAiClient::new(ClientSettings::new(identity, ApiKey::new("sk-1"))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();

    let before = peak_kib();
    assert_eq!(client.upload("a.jsonl", &path).unwrap().bytes, Some(SIZE));
    let up = peak_kib();
    let mut output = std::fs::File::create(dir.path().join("output")).unwrap();
    assert_eq!(client.download("file-1", &mut output), Ok(SIZE));
    let down = peak_kib();
    served.join().unwrap();
    println!("peak: {before} KiB before, {up} KiB after the upload, {down} KiB after the download");
    assert!(down - before < 16 * 1024, "{before} {up} {down}");
}

/// Answers that never end, each in another part of the answer. The client abandons each of them in
/// time and does not collect its bytes.
#[test]
fn an_endless_answer_is_abandoned_and_takes_little_memory() {
    let _alone = crate::alone();
    // The tests before this one have left something.
    reset_peak();
    let before = peak_kib();
    let x = "x".repeat(64 * 1024);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (start, endless) in [
        ("HTTP/1.1 200 OK\r\n\r\n[", " ".repeat(64 * 1024)),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[",
            " ".repeat(64 * 1024),
        ),
        (chunked, format!("10000\r\n{x}\r\n")),
        (chunked, "1\r\n \r\n".repeat(10_000)),
        (&format!("{chunked}1;"), x.clone()),
        (&format!("{chunked}0\r\nX: "), x.clone()),
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n".repeat(10_000)),
        ("HTTP/1.1 200 OK\r\nX: ", x.clone()),
        ("HTTP/1.1 200 ", x.clone()),
        ("", x.clone()),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000)),
        (
            "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n",
            format!("10000\r\n{x}\r\n"),
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let first = start.to_owned();
        let served = thread_group::spawn_ungrouped("server", move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_head(&mut stream);
            // Until the client closes the connection.
            let begun = stream.write_all(first.as_bytes());
            while begun.is_ok() && stream.write_all(endless.as_bytes()).is_ok() {}
        });
        let identity = Identity {
            base_url,
            organization: String::new(),
            project: String::new(),
        };
        let mut settings = ClientSettings::new(identity, ApiKey::new("sk-1"));
        settings.timeouts.small = Duration::from_secs(3);
        let error = OpenAiClient::new(settings).unwrap().batch("batch_1").unwrap_err();
        assert!(error.to_string().len() < 2_000, "{start}");
        served.unwrap().join().unwrap();
    }
    let growth = peak_kib() - before;
    assert!(growth < 64 * 1024, "{growth} kB at most");
}
