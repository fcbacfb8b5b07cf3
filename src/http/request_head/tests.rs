use proptest::prelude::*;

use super::*;

fn head(text: &str) -> Result<RequestHead, HttpError> {
    parse(text.as_bytes(), 8)
}

fn get(fields: &str) -> Result<RequestHead, HttpError> {
    head(&format!("GET /a?b=c HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
}

fn status(result: Result<RequestHead, HttpError>) -> u16 {
    result.map_or_else(|error| error.status, |_| 200)
}

#[test]
fn a_plain_request_is_read() {
    let head = get("X-A:  1 \r\nContent-Length: 007\r\nExpect: 100-Continue\r\n").unwrap();
    assert_eq!(head.method, "GET");
    assert_eq!(head.target, "/a?b=c");
    assert_eq!(head.body_length, 7);
    assert!(head.is_http_1_1 && head.keep_alive && head.expects_continue);
    let expected = [("host", "h"), ("x-a", "1")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(head.headers, expected);
}

#[test]
fn framing_that_could_be_read_in_two_ways_is_refused() {
    for (fields, expected) in [
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5\r\ncontent-length: 6\r\n", 400),
        ("Content-Length: 5, 5\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: -5\r\n", 400),
        ("Content-Length: 0x5\r\n", 400),
        ("Content-Length: 5 5\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", 411),
        ("Transfer-Encoding: identity\r\n", 411),
        ("Transfer-Encoding: xchunked\r\n", 411),
        ("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", 400),
        ("Transfer-Encoding : chunked\r\n", 400),
        ("X-A: 1\r\n folded\r\n", 400),
        ("X-A: a\0b\r\n", 400),
        ("X-A: a\rb\r\n", 400),
        ("X A: 1\r\n", 400),
        (": 1\r\n", 400),
        ("no colon\r\n", 400),
        ("Host: other\r\n", 400),
        ("Expect: a-cake\r\n", 417),
    ] {
        assert_eq!(status(get(fields)), expected, "{fields:?}");
    }
    assert_eq!(
        get("Content-Length: 99999999999999999999999\r\n").map(|head| head.body_length),
        Ok(u64::MAX)
    );
}

#[test]
fn only_two_versions_and_four_forms_of_target_are_supported() {
    for (line, expected) in [
        ("GET / HTTP/1.0", 200),
        ("GET / HTTP/1.1", 400), // without Host
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/2.0", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET /", 400),
        ("GET  / HTTP/1.0", 400),
        ("GET / HTTP/1.0 ", 400),
        ("GET /\u{e9} HTTP/1.0", 400),
        ("GET /#a HTTP/1.0", 400),
        ("GET a HTTP/1.0", 400),
        ("GET * HTTP/1.0", 400),
        ("OPTIONS * HTTP/1.0", 200),
        ("CONNECT h:1 HTTP/1.0", 400),
        ("GET ftp://h/ HTTP/1.0", 400),
        ("GET http://u@h/ HTTP/1.0", 400),
        ("GET http:///a HTTP/1.0", 400),
        ("G\u{0}T / HTTP/1.0", 400),
    ] {
        assert_eq!(status(head(&format!("{line}\r\n\r\n"))), expected, "{line}");
    }
    for (target, path) in [
        ("http://h.example/a?b", "/a?b"),
        ("HTTPS://h.example", "/"),
        ("http://h.example?b", "/?b"),
    ] {
        let head = head(&format!("GET {target} HTTP/1.1\r\nHost: evil\r\n\r\n")).unwrap();
        assert_eq!(head.target, path);
        assert_eq!(head.headers, [("host".to_owned(), "h.example".to_owned())]);
    }
}

#[test]
fn fields_of_the_connection_are_removed() {
    let fields = "Connection: X, Close\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n";
    let head = get(fields).unwrap();
    assert!(!head.keep_alive);
    assert_eq!(head.headers.len(), 1);
    let forged = format!("{}Peer: 10.0.0.1\r\n", PRIVATE_FIELD_PREFIX);
    assert_eq!(get(&forged).unwrap().headers.len(), 1);
    let old = parse(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 8).unwrap();
    assert!(old.keep_alive && !old.is_http_1_1);
    assert!(!parse(b"GET / HTTP/1.0\r\n\r\n", 8).unwrap().keep_alive);
}

#[test]
fn too_many_fields_are_refused() {
    assert_eq!(status(get(&"A: b\r\n".repeat(7))), 200);
    assert_eq!(status(get(&"A: b\r\n".repeat(8))), 431);
}

#[test]
fn the_end_is_found_however_the_bytes_arrive() {
    let bytes = b"GET / HTTP/1.0\r\nA: b\r\n\r\nrest";
    for split in 0..bytes.len() {
        let early = end_of_head(&bytes[..split], 0).unwrap();
        let found = match early {
            Some(end) => end,
            None => end_of_head(bytes, split).unwrap().unwrap(),
        };
        assert_eq!(found, bytes.len() - 4);
    }
    assert!(end_of_head(b"GET / HTTP/1.1\nHost: a\r\n\r\n", 0).is_err());
    assert!(end_of_head(b"GET / HTTP/1.1\r\nHost: a\n\n", 0).is_err());
    assert!(end_of_head(b"\n", 0).is_err());
}

proptest! {
    #[test]
    fn nothing_panics_and_what_passes_is_clean(
        bytes in "(GET|POST|[A-Z]{1,5}) [/a-z?#%\u{0}-\u{ff}]{0,12} HTTP/[0-2].[0-2]\r\n\
                  (([a-zA-Z-]{1,8}|Host|Content-Length|Connection): ?[ -~\u{0}-\u{ff}]{0,9}\r\n){0,5}\r\n"
    ) {
        if let Ok(head) = parse(bytes.as_bytes(), 8) {
            prop_assert!(head.target.bytes().all(|byte| byte.is_ascii_graphic()));
            for (name, value) in head.headers {
                prop_assert!(!name.is_empty() && name.is_ascii());
                prop_assert!(!value.contains(['\r', '\n', '\0']));
            }
        }
    }
}
