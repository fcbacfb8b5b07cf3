//! The client against scripted servers on the loopback interface: how each failure is classified,
//! the bytes that are sent, and OpenAI's recorded traffic.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use batchkeeper::base::clock::{Clock, SystemClock, Timestamp};
use batchkeeper::base::thread_group;
use batchkeeper::domain::endpoint::Endpoint;
use batchkeeper::domain::openai::BatchStatus;
use batchkeeper::openai::client::{ApiKey, ClientSettings, OpenAiClient};
use batchkeeper::openai::{
    Batch, BatchApi, CallError, CallResult, FileObject, Identity, NewBatch, OpenAiError,
};
use serde_json::{Value, json};

const KEY: &str = "sk-proj-abcdefghijklmnop";
/// A timeout that must not expire, also on a slow machine.
const LONG: Duration = Duration::from_mins(5);
/// A timeout that expires in the test, but is long enough to send a request.
const SHORT: Duration = Duration::from_secs(2);

/// A received request.
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.head.lines().skip(1).filter_map(|line| {
            let (header, value) = line.split_once(": ")?;
            header.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = found.next();
        assert_eq!(found.next(), None, "{name} is there twice");
        value
    }
}

/// Serves one connection for each script, one after another, and then closes the listener.
fn serve<T: Send + 'static>(
    scripts: Vec<Box<dyn FnOnce(TcpStream) -> T + Send>>,
) -> (String, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread_group::spawn_ungrouped("server", move || {
        let serve_one = |script: Box<dyn FnOnce(TcpStream) -> T + Send>| {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            script(stream)
        };
        scripts.into_iter().map(serve_one).collect()
    });
    (format!("http://{address}/v1"), served.unwrap())
}

/// Serves one connection with one script.
fn serve_one<T: Send + 'static>(
    script: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (String, JoinHandle<Vec<T>>) {
    serve(vec![Box::new(script)])
}

/// Serves one connection: reads the request and sends `answer`.
fn answering(answer: impl Into<Vec<u8>>) -> (String, JoinHandle<Vec<Seen>>) {
    let answer = answer.into();
    serve_one(move |mut stream| {
        let seen = take_request(&mut stream);
        // The client may have closed the connection already.
        drop(stream.write_all(&answer));
        seen
    })
}

fn take_request(stream: &mut TcpStream) -> Seen {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut seen = Seen {
        head: String::from_utf8(head).unwrap(),
        body: Vec::new(),
    };
    assert_eq!(seen.header("transfer-encoding"), None);
    let length = seen
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).unwrap();
    seen
}

fn http(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let mut answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn ok(body: &Value) -> Vec<u8> {
    http(200, "", body.to_string())
}

fn settings(base_url: &str) -> ClientSettings {
    let identity = Identity {
        base_url: base_url.to_owned(),
        organization: String::new(),
        project: String::new(),
    };
    let mut settings = ClientSettings::new(identity, ApiKey::new(KEY));
    settings.timeouts.small = LONG;
    settings.timeouts.create = LONG;
    settings
}

fn client(base_url: &str) -> OpenAiClient {
    OpenAiClient::new(settings(base_url)).unwrap()
}

fn new_batch() -> NewBatch {
    NewBatch {
        endpoint: Endpoint::Responses,
        input_file_id: "file-1".to_owned(),
        metadata: BTreeMap::from([("submission".to_owned(), "s-1".to_owned())]),
    }
}

fn pause(time: Duration) {
    crossbeam_channel::after(time).recv().unwrap();
}

/// Closes with a reset: the system sends one if bytes are unread.
fn reset(stream: TcpStream) {
    let mut byte = [0];
    stream.peek(&mut byte).unwrap();
    drop(stream);
}

#[track_caller]
fn not_sent<T: std::fmt::Debug>(call: CallResult<T>) -> String {
    match call {
        Err(CallError::NotSent { message }) => message,
        other => panic!("not NotSent: {other:?}"),
    }
}

#[track_caller]
fn unknown<T: std::fmt::Debug>(call: CallResult<T>) -> String {
    match call {
        Err(CallError::Unknown { message } | CallError::Unreadable { message }) => message,
        other => panic!("not Unknown: {other:?}"),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(call: CallResult<T>) -> OpenAiError {
    match call {
        Err(CallError::Refused(refusal)) => refusal,
        other => panic!("not Refused: {other:?}"),
    }
}

// Certainly not sent.

#[test]
fn a_refused_connection_was_not_sent() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let client = client(&format!("http://{}/v1", address.unwrap()));
    let message = not_sent(client.create_batch(&new_batch()));
    assert!(message.contains("refused"), "{message}");
}

#[test]
fn a_call_to_an_unknown_host_was_not_sent() {
    not_sent(client("https://nobody.invalid/v1").create_batch(&new_batch()));
}

#[test]
fn a_failed_tls_handshake_was_not_sent_and_shows_no_key() {
    let (base, served) = serve_one(|mut stream| {
        let mut hello = vec![0; 4096];
        let length = stream.read(&mut hello).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        hello.truncate(length);
        stream.read_to_end(&mut hello).ok();
        hello
    });
    not_sent(client(&base.replace("http:", "https:")).create_batch(&new_batch()));
    let sent = served.join().unwrap().remove(0);
    assert!(!sent.is_empty());
    assert!(!sent.windows(8).any(|window| window == &KEY.as_bytes()[..8]));
}

#[test]
fn a_tls_handshake_that_hangs_was_not_sent() {
    let (base, served) = serve_one(|mut stream| {
        stream.read_to_end(&mut Vec::new()).ok();
    });
    let mut settings = settings(&base.replace("http:", "https:"));
    settings.timeouts.connect = SHORT;
    let message = not_sent(OpenAiClient::new(settings).unwrap().create_batch(&new_batch()));
    assert!(message.contains("timeout"), "{message}");
    served.join().unwrap();
}

#[test]
fn a_call_without_a_valid_request_was_not_sent() {
    let client = client("http://127.0.0.1:9/v1");
    for id in ["", "..", "."] {
        not_sent(client.batch(id));
        not_sent(client.file(id));
        not_sent(client.batches(Some(id), 1));
    }
    let dir = tempfile::tempdir().unwrap();
    not_sent(client.upload("a.jsonl", &dir.path().join("absent")));
    let file = dir.path().join("there");
    std::fs::write(&file, "{}\n").unwrap();
    not_sent(client.upload("a.txt", &file));
    not_sent(client.upload("a\".jsonl", &file));
}

// The call may have had its effect.

#[test]
fn a_reset_before_the_answer_is_unknown() {
    let (base, served) = serve_one(reset);
    unknown(client(&base).create_batch(&new_batch()));
    served.join().unwrap();
}

#[test]
fn a_close_before_the_answer_is_unknown() {
    let (base, served) = answering("");
    unknown(client(&base).create_batch(&new_batch()));
    served.join().unwrap();
}

#[test]
fn a_reset_within_the_answer_is_unknown() {
    for part in [
        "HTTP/1.1 200 OK\r\nConte",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let (base, served) = serve_one(move |mut stream| {
            stream.write_all(part.as_bytes()).unwrap();
            reset(stream);
        });
        unknown(client(&base).create_batch(&new_batch()));
        served.join().unwrap();
    }
}

#[test]
fn a_success_whose_body_is_cut_or_makes_no_sense_is_unknown() {
    let whole = json!({"id": "batch_1", "object": "batch", "status": "validating"}).to_string();
    let cut = &whole[..whole.len() - 1];
    let deep = "[".repeat(100_000);
    let mut long = whole.clone();
    long.push_str(&" ".repeat(33 << 20));
    let answers = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{cut}", whole.len()).into_bytes(),
        format!("HTTP/1.1 200 OK\r\n\r\n{cut}").into_bytes(),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\n",
            whole.len()
        )
        .into_bytes(),
        http(200, "", deep),
        http(200, "", long),
        http(200, "", "<html>maintenance</html>"),
        http(200, "", ""),
        http(200, "Content-Encoding: gzip\r\n", [0x1f, 0x8b, 8, 0]),
        ok(&json!({"error": {"message": "no"}})),
        ok(&json!({"object": "list", "data": []})),
        ok(&json!({"id": "batch_1", "status": "validating", "input_file_id": "file-2"})),
        b"garbage\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_vec(),
    ];
    for answer in answers {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(120)]).into_owned();
        let (base, served) = answering(answer);
        let message = unknown(client(&base).create_batch(&new_batch()));
        println!("{shown:?}: {message}");
        served.join().unwrap();
    }
}

#[test]
fn silence_is_unknown_after_the_time_of_a_create() {
    let (base, served) = serve_one(|mut stream| {
        let seen = take_request(&mut stream);
        stream.read_to_end(&mut Vec::new()).ok();
        seen
    });
    let mut settings = settings(&base);
    settings.timeouts.create = SHORT;
    let message = unknown(OpenAiClient::new(settings).unwrap().create_batch(&new_batch()));
    assert!(message.contains("timeout"), "{message}");
    served.join().unwrap();
}

#[test]
fn a_dripping_answer_is_unknown_after_the_time_of_a_create() {
    let (base, served) = serve_one(|mut stream| {
        take_request(&mut stream);
        let mut drips = 0_u32;
        while stream
            .write_all(if drips == 0 {
                b"HTTP/1.1 200 OK\r\nX: "
            } else {
                b"x"
            })
            .is_ok()
        {
            drips += 1;
            pause(Duration::from_millis(20));
        }
        drips
    });
    let mut settings = settings(&base);
    settings.timeouts.create = SHORT;
    unknown(OpenAiClient::new(settings).unwrap().create_batch(&new_batch()));
    assert!(served.join().unwrap()[0] > 5);
}

#[test]
fn another_batch_or_file_than_was_asked_for_is_unknown() {
    let (base, served) = answering(ok(&json!({"id": "batch_2", "status": "completed"})));
    unknown(client(&base).batch("batch_1"));
    served.join().unwrap();
    let (base, served) = answering(ok(&json!({"id": "batch_2", "status": "cancelling"})));
    unknown(client(&base).cancel_batch("batch_1"));
    served.join().unwrap();
    let (base, served) = answering(ok(&json!({"id": "file-2", "object": "file"})));
    unknown(client(&base).file("file-1"));
    served.join().unwrap();
    let (base, served) = answering(ok(&json!({"id": "file-1", "deleted": false})));
    unknown(client(&base).delete_file("file-1"));
    served.join().unwrap();
}

// Refused.

#[test]
fn an_edge_that_answers_in_html_is_refused_with_its_status() {
    let (base, served) = answering(http(
        502,
        "Content-Type: text/html\r\nx-request-id: req_7\r\n",
        "<html>\r\n<h1>502 Bad Gateway</h1>",
    ));
    let error = client(&base).create_batch(&new_batch()).unwrap_err();
    assert!(!error.had_no_effect());
    let refusal = refused::<()>(Err(error));
    assert_eq!(
        (refusal.status, refusal.message.as_str(), &*refusal.request_id),
        (502, "<html> <h1>502 Bad Gateway</h1>", "req_7")
    );
    served.join().unwrap();
}

#[test]
fn a_wrong_key_is_an_account_error_and_is_not_shown() {
    let body = json!({"error": {
        "message": format!("Incorrect API key provided: {KEY}. You are in org-Abc123"),
        "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}});
    let (base, served) = answering(http(401, "", body.to_string()));
    let error = client(&base).create_batch(&new_batch()).unwrap_err();
    assert!(error.had_no_effect());
    let refusal = refused::<()>(Err(error));
    assert_eq!(refusal.code, "invalid_api_key");
    assert_eq!(
        refusal.message,
        "Incorrect API key provided: [key]. You are in org-…"
    );
    served.join().unwrap();
}

#[test]
fn an_error_counts_although_its_body_is_cut() {
    let (base, served) = answering("HTTP/1.1 400 X\r\nContent-Length: 1000\r\n\r\n{\"error\":{\"mess");
    let refusal = refused(client(&base).create_batch(&new_batch()));
    assert_eq!((refusal.status, refusal.code.as_str()), (400, ""));
    assert_eq!(refusal.message, "{\"error\":{\"mess");
    served.join().unwrap();
}

#[test]
fn waits_are_passed_on() {
    let date = "Date: Mon, 23 Nov 2026 10:00:00 GMT\r\nRetry-After: Mon, 23 Nov 2026 10:01:00 GMT";
    for (header, millis) in [
        ("Retry-After: 3", 3000),
        ("retry-after: 2.5", 2500),
        ("retry-after-ms: 40", 40),
        ("Retry-After: 999999", 3_600_000),
        (date, 60_000),
    ] {
        let body = r#"{"error":{"message":"slow","code":"rate_limit_exceeded","param":null}}"#;
        let (base, served) = answering(http(429, &format!("{header}\r\n"), body));
        let refusal = refused(client(&base).batch("batch_1"));
        assert_eq!(refusal.code, "rate_limit_exceeded");
        assert_eq!(
            refusal.retry_after,
            Some(Duration::from_millis(millis)),
            "{header}"
        );
        served.join().unwrap();
    }
}

#[test]
fn texts_under_detail_are_read_and_missing_files_are_not_found() {
    let body = json!({"error": {"detail": "no such window", "type": "invalid_request_error",
        "param": "completion_window", "code": "invalid_value"}});
    let (base, served) = answering(http(400, "", body.to_string()));
    let refusal = refused(client(&base).create_batch(&new_batch()));
    assert_eq!(
        refusal,
        OpenAiError {
            call: "POST /v1/batches".into(),
            status: 400,
            code: "invalid_value".to_owned(),
            param: "completion_window".into(),
            message: "no such window".to_owned(),
            ..OpenAiError::default()
        }
    );
    served.join().unwrap();
    let body = json!({"error": {"message": "No such File object: file-1", "param": "id",
        "type": "invalid_request_error", "code": null}, "detail": {"message": "x", "code": null}});
    let (base, served) = answering(http(404, "", body.to_string()));
    let error = client(&base).download("file-1", &mut Vec::new()).unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        "GET /v1/files/file-1/content: HTTP 404 (param id): No such File object: file-1"
    );
    served.join().unwrap();
}

#[test]
fn no_redirect_is_followed_and_the_key_goes_nowhere() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        let to = elsewhere.local_addr().unwrap();
        let location = format!("Location: http://{to}/v1/batches\r\n");
        let (base, served) = answering(http(status, &location, ""));
        let error = client(&base).create_batch(&new_batch()).unwrap_err();
        assert!(!error.had_no_effect());
        let refusal = refused::<()>(Err(error));
        assert_eq!(refusal.status, status);
        assert!(refusal.message.contains("not followed"), "{}", refusal.message);
        served.join().unwrap();
        let (base, served) = answering(http(status, &location, ""));
        assert_eq!(refused(client(&base).batch("batch_1")).status, status);
        served.join().unwrap();
        let nobody = elsewhere.accept().unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    }
}

// The bytes that are sent.

#[test]
fn a_create_is_sent_exactly_as_documented() {
    let (base, served) = answering(ok(
        &json!({"id": "batch_1", "status": "validating", "input_file_id": "file-1"}),
    ));
    let mut settings = settings(&format!("{base}/"));
    settings.identity.organization = "org-1".to_owned();
    settings.identity.project = "proj_1".to_owned();
    let client = OpenAiClient::new(settings).unwrap();
    assert_eq!(client.identity().base_url, base);
    let batch = client.create_batch(&new_batch()).unwrap();
    assert_eq!(batch.status, Some(BatchStatus::Validating));
    let seen = served.join().unwrap().remove(0);
    assert_eq!(seen.line(), "POST /v1/batches HTTP/1.1");
    assert_eq!(
        String::from_utf8(seen.body.clone()).unwrap(),
        "{\"input_file_id\":\"file-1\",\"endpoint\":\"/v1/responses\",\
         \"completion_window\":\"24h\",\"metadata\":{\"submission\":\"s-1\"}}"
    );
    for (name, value) in [
        ("authorization", format!("Bearer {KEY}").as_str()),
        ("openai-organization", "org-1"),
        ("openai-project", "proj_1"),
        ("content-type", "application/json"),
        ("user-agent", concat!("batchkeeper/", env!("CARGO_PKG_VERSION"))),
        ("host", base.trim_start_matches("http://").trim_end_matches("/v1")),
        ("accept", "application/json"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
}

#[test]
fn every_other_call_has_its_line_and_no_empty_headers() {
    let list = json!({"object": "list", "data": [], "has_more": false});
    type Try = fn(&OpenAiClient) -> bool;
    let cases: [(&str, Value, Try); 9] = [
        (
            "GET /v1/files/file-1 HTTP/1.1",
            json!({"id": "file-1"}),
            |client| client.file("file-1").is_ok(),
        ),
        (
            "DELETE /v1/files/file-1 HTTP/1.1",
            json!({"deleted": true}),
            |client| client.delete_file("file-1").is_ok(),
        ),
        (
            "GET /v1/files?purpose=batch&order=desc&limit=10000 HTTP/1.1",
            list.clone(),
            |client| client.input_files(None, 20_000).is_ok(),
        ),
        (
            "GET /v1/files?purpose=batch&order=desc&limit=1&after=a%26b HTTP/1.1",
            list.clone(),
            |client| client.input_files(Some("a&b"), 0).is_ok(),
        ),
        ("GET /v1/batches?limit=100 HTTP/1.1", list.clone(), |client| {
            client.batches(None, 500).is_ok()
        }),
        ("GET /v1/batches?limit=2&after=batch_1 HTTP/1.1", list, |client| {
            client.batches(Some("batch_1"), 2).is_ok()
        }),
        (
            "GET /v1/batches/a%2F..%2Fb HTTP/1.1",
            json!({"id": "a/../b", "status": "completed"}),
            |client| client.batch("a/../b").is_ok(),
        ),
        (
            "POST /v1/batches/batch_1/cancel HTTP/1.1",
            json!({"id": "batch_1", "status": "cancelling"}),
            |client| client.cancel_batch("batch_1").is_ok(),
        ),
        ("GET /v1/files/file-1/content HTTP/1.1", json!({}), |client| {
            client.download("file-1", &mut Vec::new()) == Ok(2)
        }),
    ];
    for (line, answer, call) in cases {
        let (base, served) = answering(ok(&answer));
        assert!(call(&client(&base)), "{line}");
        let seen = served.join().unwrap().remove(0);
        assert_eq!(seen.line(), line);
        assert_eq!(seen.header("openai-organization"), None);
        assert_eq!(seen.header("openai-project"), None);
        assert!(seen.body.is_empty());
        let length = line.starts_with("POST").then_some("0");
        assert_eq!(seen.header("content-length"), length);
    }
}

#[test]
fn no_connection_is_used_twice() {
    // The first connection stays open on the server's side while the second call comes.
    let batch = json!({"id": "batch_1", "status": "completed"});
    let script = move |batch: Value| {
        Box::new(move |mut stream: TcpStream| {
            take_request(&mut stream);
            stream.write_all(&ok(&batch)).unwrap();
            stream
        }) as Box<dyn FnOnce(TcpStream) -> TcpStream + Send>
    };
    let (base, served) = serve(vec![script(batch.clone()), script(batch)]);
    let client = client(&base);
    assert!(client.batch("batch_1").is_ok());
    assert!(client.batch("batch_1").is_ok());
    assert_eq!(served.join().unwrap().len(), 2);
}

#[test]
fn a_page_keeps_its_order_and_early_hints_are_ignored() {
    let data = ["batch_3", "batch_1", "batch_2"].map(|id| json!({"id": id, "status": "completed"}));
    let mut answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".to_vec();
    answer.extend(ok(&json!({"object": "list", "data": data, "has_more": true})));
    let (base, served) = answering(answer);
    let page = client(&base).batches(None, 3).unwrap();
    let ids = page.data.iter().map(|batch| batch.id.as_str());
    assert_eq!(ids.collect::<Vec<_>>(), ["batch_3", "batch_1", "batch_2"]);
    assert_eq!(page.has_more, Some(true));
    served.join().unwrap();
}

#[test]
fn batches_with_an_error_on_every_line_can_be_read_and_listed() {
    let blame = |line| {
        json!({"code": "model_not_found", "param": "body.model", "line": line,
               "message": "The provided model is not supported by the Batch API. ".repeat(3)})
    };
    let errors: Vec<Value> = (1..=50_000).map(blame).collect();
    let batch = json!({"id": "batch_1", "object": "batch", "status": "failed", "created_at": 1_795_400_000,
                       "errors": {"object": "list", "data": errors}});
    let (base, served) = answering(ok(&batch));
    let one = client(&base).batch("batch_1").unwrap();
    assert_eq!(one.errors.len(), 50_000);
    served.join().unwrap();
    let page = json!({"object": "list", "data": vec![&batch; 5], "has_more": true});
    let (base, served) = answering(ok(&page));
    let page = client(&base).batches(None, 100).unwrap();
    assert_eq!((page.data.len(), page.has_more), (5, Some(true)));
    assert!(page.data.iter().all(|batch| batch.errors.is_empty()));
    served.join().unwrap();
}

#[test]
fn a_page_may_take_longer_than_other_calls_but_must_keep_its_rate() {
    let page = json!({"object": "list", "has_more": false,
                      "data": [{"id": "batch_1", "status": "completed", "errors": "x".repeat(4000)}]});
    // Each piece comes in time, all of them take longer than a whole other call may.
    let slow = |pieces: usize| {
        let page = ok(&page);
        serve_one(move |mut stream| {
            take_request(&mut stream);
            for piece in page.chunks(page.len() / pieces + 1) {
                drop(stream.write_all(piece));
                pause(SHORT / 4);
            }
        })
    };
    let (base, served) = slow(10);
    let mut patient = settings(&base);
    patient.timeouts.small = SHORT;
    let client = OpenAiClient::new(patient).unwrap();
    assert_eq!(client.batches(None, 100).unwrap().data.len(), 1);
    served.join().unwrap();

    for (window, whole) in [(SHORT / 2, LONG), (LONG, SHORT)] {
        let (base, served) = slow(12);
        let mut strict = settings(&base);
        strict.timeouts.rate_window = window;
        strict.timeouts.min_rate = 1_000_000;
        strict.timeouts.page = whole;
        let message = unknown(OpenAiClient::new(strict).unwrap().batches(None, 100));
        assert!(message.contains("too slow"), "{message}");
        served.join().unwrap();
    }
}

// Files up and down.

/// Bytes without repetition.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn sixty_megabytes_go_up_byte_by_byte_in_a_right_frame() {
    let content = noise(60 << 20);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    std::fs::write(&path, &content).unwrap();
    let (base, served) = answering(ok(&json!({"id": "file-1", "object": "file",
        "bytes": content.len(), "created_at": 1_795_400_000, "filename": "bk-1.jsonl",
        "purpose": "batch", "status": "processed", "status_details": null})));
    let file = client(&base).upload("bk-1.jsonl", &path).unwrap();
    assert_eq!(
        file,
        FileObject {
            id: "file-1".to_owned(),
            bytes: Some(60 << 20),
            created_at: 1_795_400_000,
            filename: "bk-1.jsonl".to_owned(),
        }
    );
    let seen = served.join().unwrap().remove(0);
    assert_eq!(seen.line(), "POST /v1/files HTTP/1.1");
    let kind = seen.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
    assert!((20..=70).contains(&boundary.len()));
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; \
         filename=\"bk-1.jsonl\"\r\nContent-Type: application/jsonl\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    // `take_request` has read exactly as many bytes as Content-Length announces.
    let expected = head.len() + content.len() + tail.len();
    assert_eq!(seen.body.len(), expected);
    assert!(seen.body.starts_with(head.as_bytes()));
    assert!(seen.body.ends_with(tail.as_bytes()));
    assert!(seen.body[head.len()..expected - tail.len()] == content);
}

#[test]
fn an_upload_that_stalls_or_is_stored_otherwise_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    std::fs::File::create(&path).unwrap().set_len(60 << 20).unwrap();
    let (done, until_done) = crossbeam_channel::bounded::<()>(0);
    let (base, served) = serve_one(move |stream| {
        until_done.recv().ok();
        drop(stream);
    });
    let mut settings = settings(&base);
    settings.timeouts.stall = SHORT;
    let message = unknown(OpenAiClient::new(settings).unwrap().upload("a.jsonl", &path));
    assert!(message.contains("timeout"), "{message}");
    drop(done);
    served.join().unwrap();

    std::fs::write(&path, "{}\n").unwrap();
    let (base, served) = answering(ok(&json!({"id": "file-1", "bytes": 2})));
    let message = unknown(client(&base).upload("a.jsonl", &path));
    assert!(message.contains("3 bytes were sent"), "{message}");
    served.join().unwrap();
}

#[test]
fn downloads_come_whole_however_they_are_framed() {
    let content = noise(3_000_000);
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in content.chunks(70_001) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut bare = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    bare.extend_from_slice(&content);
    for answer in [chunked, http(200, "", &content), bare] {
        let (base, served) = answering(answer);
        let mut into = Vec::new();
        let length = client(&base).download("file-1", &mut into).unwrap();
        assert_eq!(length, 3_000_000);
        assert!(into == content);
        served.join().unwrap();
    }
}

#[test]
fn downloads_cut_packed_or_too_large_are_unknown() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
    ];
    for answer in answers {
        let (base, served) = answering(answer);
        let mut settings = settings(&base);
        settings.max_download = 1000;
        unknown(
            OpenAiClient::new(settings)
                .unwrap()
                .download("file-1", &mut Vec::new()),
        );
        served.join().unwrap();
    }
    for (size, fits) in [(1000, true), (1001, false)] {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.extend(noise(size));
        let (base, served) = answering(answer);
        let mut settings = settings(&base);
        settings.max_download = 1000;
        let mut into = Vec::new();
        let call = OpenAiClient::new(settings).unwrap().download("file-1", &mut into);
        assert_eq!(call.is_ok(), fits, "{call:?}");
        assert!(into.len() <= 1000);
        served.join().unwrap();
    }
}

#[test]
fn a_dripping_download_ends_by_its_rate_and_a_silent_one_by_its_stall() {
    let (base, served) = serve_one(|mut stream| {
        take_request(&mut stream);
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n");
        while sent.is_ok() {
            pause(Duration::from_millis(10));
            sent = stream.write_all(b"drip");
        }
    });
    let mut dripped = settings(&base);
    dripped.timeouts.rate_window = Duration::from_millis(300);
    dripped.timeouts.min_rate = 10_000;
    let message = unknown(
        OpenAiClient::new(dripped)
            .unwrap()
            .download("file-1", &mut Vec::new()),
    );
    assert!(message.contains("too slow"), "{message}");
    served.join().unwrap();

    let (base, served) = serve_one(|mut stream| {
        take_request(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
            .unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
    });
    let mut silent = settings(&base);
    silent.timeouts.stall = SHORT;
    let message = unknown(
        OpenAiClient::new(silent)
            .unwrap()
            .download("file-1", &mut Vec::new()),
    );
    assert!(message.contains("timeout"), "{message}");
    served.join().unwrap();
}

#[test]
fn a_slow_disk_is_no_slow_download_and_a_full_disk_is_reported() {
    struct Slow(usize);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            pause(SHORT / 4);
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (base, served) = answering(http(200, "", noise(400_000)));
    let mut settings = settings(&base);
    settings.timeouts.rate_window = SHORT;
    settings.timeouts.min_rate = 10_000_000;
    let mut slow = Slow(0);
    let call = OpenAiClient::new(settings).unwrap().download("file-1", &mut slow);
    assert_eq!(call, Ok(400_000));
    assert_eq!(slow.0, 400_000);
    served.join().unwrap();

    let (base, served) = answering(http(200, "", "12345"));
    let mut room = [0_u8; 4];
    let message = unknown(client(&base).download("file-1", &mut room.as_mut_slice()));
    assert!(message.starts_with("writing the download"), "{message}");
    served.join().unwrap();
}

#[test]
fn an_early_refusal_of_an_upload_is_refused_or_unknown_but_never_a_success() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    std::fs::File::create(&path).unwrap().set_len(30 << 20).unwrap();
    let (base, served) = serve_one(|mut stream| {
        stream.write_all(&http(413, "", "too large")).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        reset(stream);
    });
    match client(&base).upload("a.jsonl", &path) {
        Err(CallError::Unknown { .. }) => {}
        other => assert_eq!(refused(other).status, 413),
    }
    served.join().unwrap();
}

// Recorded traffic.

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures/openai-batches").join(name)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn three_hundred_recorded_batches_are_read() {
    let text = std::fs::read_to_string(fixture("openai-dotnet/batch_objects.jsonl")).unwrap();
    let batches = text
        .lines()
        .map(|line| Batch::from_json(&serde_json::from_str(line).unwrap()).unwrap())
        .collect::<Vec<_>>();
    let mut kinds = BTreeMap::new();
    for batch in &batches {
        assert_eq!(batch.status.unwrap().as_str(), batch.status_text);
        assert_eq!(batch.expires_at, Some(batch.created_at + 86_400));
        assert_eq!(batch.metadata["testMetadataKey"], "test metadata value");
        assert!(batch.id.starts_with("batch_") && batch.input_file_id.starts_with("file-"));
        assert_eq!((batch.model.as_ref(), batch.errors.len()), (None, 0));
        let files = (batch.output_file_id.is_some(), batch.error_file_id.is_some());
        let counts = (batch.counts.total, batch.counts.completed, batch.counts.failed);
        *kinds
            .entry((batch.status_text.as_str(), files, counts))
            .or_insert(0) += 1;
    }
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [
            (("cancelled", (false, false), (0, 0, 0)), 109),
            (("cancelled", (false, true), (1, 0, 0)), 62),
            (("cancelling", (false, false), (0, 0, 0)), 2),
            (("completed", (true, false), (1, 1, 0)), 122),
            (("expired", (false, true), (1, 0, 0)), 2),
            (("expired", (true, false), (1, 0, 0)), 1),
            (("validating", (false, false), (0, 0, 0)), 2),
        ]
    );
}

/// One exchange of a recording, from either recorder.
struct Exchange {
    method: String,
    path: String,
    answer: String,
}

fn recording(path: &Path) -> Vec<Exchange> {
    let value = read_json(path);
    let exchange = |entry: &Value| {
        let field = |names: [&str; 2]| {
            names
                .map(|name| entry[name].as_str())
                .into_iter()
                .flatten()
                .next()
        };
        let body = if entry["response_body"].is_null() {
            &entry["ResponseBody"]
        } else {
            &entry["response_body"]
        };
        let uri = field(["uri", "RequestUri"]).unwrap();
        assert_eq!(
            entry["status"].as_u64().or(entry["StatusCode"].as_u64()),
            Some(200)
        );
        Exchange {
            method: field(["method", "RequestMethod"]).unwrap().to_uppercase(),
            path: uri.strip_prefix("https://api.openai.com/v1/").unwrap().to_owned(),
            answer: body.as_str().map_or_else(|| body.to_string(), str::to_owned),
        }
    };
    let entries = value.as_array().or_else(|| value["Entries"].as_array());
    entries.unwrap().iter().map(exchange).collect()
}

/// Makes the recorded call again, against a server with the recorded answer.
fn replay(exchange: &Exchange, input: &Path, tally: &mut BTreeMap<String, u32>) -> Vec<u8> {
    let (base, served) = answering(http(200, "Content-Type: application/json\r\n", &exchange.answer));
    let client = client(&base);
    let mut content = Vec::new();
    let mut count = |what: &str| *tally.entry(what.to_owned()).or_insert(0) += 1;
    let (path, query) = exchange.path.split_once('?').unwrap_or((&exchange.path, ""));
    let parts = path.split('/').collect::<Vec<_>>();
    match (exchange.method.as_str(), parts.as_slice()) {
        ("POST", ["files"]) => {
            let file = client.upload("input.jsonl", input).unwrap();
            assert_eq!(file.bytes, Some(std::fs::metadata(input).unwrap().len()));
            count("uploaded");
        }
        ("GET", ["files", id]) => {
            client.file(id).unwrap();
            count("file");
        }
        ("GET", ["files", id, "content"]) => {
            client.download(id, &mut content).unwrap();
            count("content");
        }
        ("POST", ["batches"]) => {
            let id = serde_json::from_str::<Value>(&exchange.answer).unwrap();
            let new = NewBatch {
                endpoint: Endpoint::Responses,
                input_file_id: id["input_file_id"].as_str().unwrap().to_owned(),
                metadata: BTreeMap::new(),
            };
            count(&client.create_batch(&new).unwrap().status_text);
        }
        ("GET", ["batches", id]) => count(&client.batch(id).unwrap().status_text),
        ("POST", ["batches", id, "cancel"]) => {
            count(&client.cancel_batch(id).unwrap().status_text);
        }
        ("GET", ["batches"]) => {
            let after = query.split('&').find_map(|pair| pair.strip_prefix("after="));
            let page = client.batches(after, 20).unwrap();
            assert_eq!(page.has_more, Some(true));
            for batch in page.data {
                count(&format!("listed {}", batch.status_text));
            }
        }
        other => panic!("{other:?}"),
    }
    let seen = served.join().unwrap().remove(0);
    let line = format!("{} /v1/{path}", exchange.method);
    assert!(seen.line().starts_with(&line), "{} {line}", seen.line());
    content
}

#[test]
fn recorded_conversations_are_replayed() {
    let mut tally = BTreeMap::new();
    let mut exchanges = 0;
    for (name, inputs, outputs) in [
        ("basic_batch_completion", 1, 1),
        ("basic_batch_resume", 1, 1),
        ("batch_cancel", 1, 0),
        ("failed_request_batch_resume", 1, 1),
        ("resubmission_batch_completion", 3, 3),
    ] {
        let (mut input, mut output) = (0, 0);
        for exchange in recording(&fixture(&format!("curator/{name}.http.json"))) {
            if (exchange.method.as_str(), exchange.path.as_str()) == ("POST", "files") {
                input += 1;
            }
            let sent = fixture(&format!("curator/{name}.input{}.jsonl", input - 1));
            let content = replay(&exchange, &sent, &mut tally);
            if !content.is_empty() {
                output += 1;
                let stored = fixture(&format!("curator/{name}.output{output}.jsonl"));
                assert!(content == std::fs::read(stored).unwrap(), "{name} {output}");
            }
            exchanges += 1;
        }
        assert_eq!((input, output), (inputs, outputs), "{name}");
    }
    let input = fixture("ruby-openai/batch.jsonl");
    for name in ["create_input", "create", "retrieve", "cancel", "list"] {
        for exchange in recording(&fixture(&format!("ruby-openai/batches_{name}.http.json"))) {
            replay(&exchange, &input, &mut tally);
            exchanges += 1;
        }
    }
    // The uploaded files of these recordings are not kept; all other calls are repeated.
    for name in [
        "CreateGetAndCancelBatchProtocol",
        "CanRehydrateBatchOperation_True",
        "ListBatchesAsync_WithOptions_AfterIdStartsFromNextPage",
    ] {
        for exchange in recording(&fixture(&format!("openai-dotnet/{name}.json"))) {
            if exchange.path == "files" {
                let file = serde_json::from_str(&exchange.answer).unwrap();
                assert!(FileObject::from_json(&file).is_some());
            } else {
                replay(&exchange, &input, &mut tally);
            }
            exchanges += 1;
        }
    }
    assert_eq!(exchanges, 75);
    let tally = tally.iter().map(|(what, count)| (what.as_str(), *count));
    assert_eq!(
        tally.collect::<Vec<_>>(),
        [
            ("cancelling", 3),
            ("completed", 6),
            ("content", 6),
            ("file", 7),
            ("finalizing", 3),
            ("in_progress", 20),
            ("listed cancelled", 8),
            ("listed completed", 21),
            ("listed in_progress", 3),
            ("listed validating", 2),
            ("uploaded", 8),
            ("validating", 16),
        ]
    );
}

#[test]
fn the_date_of_an_answer_is_kept_unless_it_is_not_trusted() {
    let dated = |status| {
        let list = json!({"object": "list", "data": [], "has_more": false});
        http(
            status,
            "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            list.to_string(),
        )
    };
    let date = Timestamp::from_seconds(784_111_777);
    for (status, trusts, expected) in [(200, true, Some(date)), (200, false, None), (503, true, None)] {
        let (base, served) = answering(dated(status));
        let mut settings = settings(&base);
        settings.trust_date = trusts;
        let client = OpenAiClient::new(settings).unwrap();
        let page = client.batches(None, 1);
        assert_eq!(
            page.ok().and_then(|page| page.date),
            expected,
            "{status} {trusts}"
        );
        let newest = client.newest_date();
        assert_eq!(newest.map(|newest| newest.date), expected, "{status} {trusts}");
        served.join().unwrap();
    }
    let (base, served) = answering(dated(200));
    let client = client(&base);
    assert_eq!(client.input_files(None, 1).unwrap().date, Some(date));
    let newest = client.newest_date().unwrap();
    assert!(newest.received.steady <= SystemClock::new().now().steady);
    served.join().unwrap();
}

#[test]
fn additional_header_fields_are_sent_and_never_shown() {
    let (base, served) = answering(http(400, "", r#"{"error": {"message": "no azure-key-0123"}}"#));
    let mut settings = settings(&base);
    settings.headers = vec![
        ("api-key".to_owned(), ApiKey::new("azure-key-0123")),
        ("Authorization".to_owned(), ApiKey::new("")),
        ("X-Team".to_owned(), ApiKey::new("cars")),
    ];
    let client = OpenAiClient::new(settings.clone()).unwrap();
    let error = client.batch("batch_1").unwrap_err().to_string();
    assert!(!error.contains("azure-key") && error.contains("[key]"), "{error}");
    let sent = served.join().unwrap()[0].head.to_lowercase();
    assert!(
        sent.contains("api-key: azure-key-0123") && sent.contains("x-team: cars"),
        "{sent}"
    );
    assert!(!sent.contains("authorization"), "{sent}");
    assert!(!format!("{settings:?}").contains("azure-key"));
    for (name, value) in [
        ("Host", "a"),
        ("Content-Length", "1"),
        ("a b", "c"),
        ("X-Odd", "a\nb"),
    ] {
        settings.headers = vec![(name.to_owned(), ApiKey::new(value))];
        let refused = OpenAiClient::new(settings.clone()).unwrap_err();
        assert!(refused.to_string().contains(name), "{refused}");
    }
}
