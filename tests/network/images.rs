//! The image probe against hosts as they are: raw bytes from sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use batchkeeper::outbound::{ImageLimits, ImageProblem, OutboundError, UrlProblem};

use crate::outbound::{Host, LONG, SHORT, host, outbound, saying};

/// The first bytes of each type that OpenAI takes.
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR";
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00";
const WEBP: &[u8] = b"RIFF\x24\x00\x00\x00WEBPVP8 ";

fn limits(time: Duration) -> ImageLimits {
    ImageLimits {
        head_timeout: time,
        get_timeout: time,
        ..ImageLimits::default()
    }
}

fn probe(url: &str) -> Result<(), ImageProblem> {
    outbound().probe_image(url, &limits(LONG))
}

/// A head with those fields, without a body.
fn head(status: &str, fields: &[&str]) -> Vec<u8> {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\n{fields}Connection: close\r\n\r\n").into_bytes()
}

/// A response with those fields and that body.
fn response(status: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    [head(status, fields), body.to_vec()].concat()
}

fn is_head(request: &str) -> bool {
    request.starts_with("HEAD ")
}

/// A host that answers HEAD and GET with these bytes.
fn answering(to_head: Vec<u8>, to_get: Vec<u8>) -> Host {
    host(move |request, stream| {
        let answer = if is_head(request) { &to_head } else { &to_get };
        // The client closes the connection as soon as it knows enough.
        drop(stream.write_all(answer));
    })
}

/// The heads of the requests that a host has got.
fn requests(host: &Host) -> Vec<String> {
    host.asked.try_iter().map(|it| it.to_lowercase()).collect()
}

#[test]
fn a_head_with_a_type_and_a_size_that_openai_takes_is_enough() {
    for kind in [
        "image/jpeg",
        "image/png",
        "image/gif",
        "image/webp; q=1",
        "IMAGE/JPEG",
    ] {
        let kind = format!("Content-Type: {kind}");
        let refused = head("500 No", &[]);
        let host = answering(head("200 OK", &[&kind, "Content-Length: 10000000"]), refused);
        assert_eq!(probe(&host.url("/a.jpg")), Ok(()), "{kind}");
        let asked = host.asked.recv_timeout(LONG).unwrap();
        assert!(asked.starts_with("HEAD /a.jpg"), "{asked}");
        assert!(host.asked.is_empty());
    }
}

#[test]
fn only_a_get_rejects_an_image() {
    let heads = [
        head("200 OK", &["Content-Type: image/jpeg", "Content-Length: 0"]),
        head(
            "200 OK",
            &["Content-Type: image/jpeg", "Content-Length: 10000001"],
        ),
        head(
            "200 OK",
            &["Content-Type: image/jpeg", "Content-Length: nonsense"],
        ),
        head("200 OK", &["Content-Type: image/jpeg"]),
        head("200 OK", &["Content-Type: text/html", "Content-Length: 9"]),
        head("200 OK", &["Content-Type: text/plain", "Content-Length: 9"]),
        head("200 OK", &["Content-Type: application/json", "Content-Length: 9"]),
        head(
            "200 OK",
            &["Content-Type: application/octet-stream", "Content-Length: 9"],
        ),
        head("200 OK", &["Content-Type: image/heic", "Content-Length: 9"]),
        head("200 OK", &["Content-Length: 9"]),
        head("204 OK", &[]),
        head("302 Go", &["Location: /login", "Content-Length: 0"]),
        head(
            "302 Go",
            &["Location: http://169.254.169.254/", "Content-Length: 0"],
        ),
        head("302 Go", &["Content-Length: 0"]),
        head("403 No", &["Content-Length: 0"]),
        head("404 No", &["Content-Length: 0"]),
        head("405 No", &["Content-Length: 0"]),
        head("501 No", &["Content-Length: 0"]),
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec(),
        Vec::new(),
    ];
    for to_head in heads {
        let shown = String::from_utf8_lossy(&to_head).into_owned();
        let host = host(move |request, stream| {
            let answer = match (is_head(request), request.contains(" /login ")) {
                (true, false) => to_head.clone(),
                (_, true) => response("200 OK", &["Content-Type: text/html"], b"<html>"),
                (false, false) => response("200 OK", &["Content-Type: image/jpeg"], JPEG),
            };
            drop(stream.write_all(&answer));
        });
        assert_eq!(probe(&host.url("/")), Ok(()), "{shown}");
    }
}

#[test]
fn the_first_bytes_of_a_get_decide_whatever_its_type_says() {
    let refused = head("405 No", &["Content-Length: 0"]);
    let long = b"\xff\xd8\xff"
        .iter()
        .chain(&[7; 40_000])
        .copied()
        .collect::<Vec<u8>>();
    for kind in [
        "text/html",
        "application/octet-stream",
        "image/heic",
        "",
        "image/jpeg",
    ] {
        for body in [JPEG, PNG, GIF, WEBP, &long] {
            let kind = format!("Content-Type: {kind}");
            let size = format!("Content-Length: {}", body.len());
            let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
            let range = format!("Content-Range: bytes 0-{}/9000000", body.len() - 1);
            for answer in [
                response("200 OK", &[&kind, &size], body),
                response("200 OK", &[&kind], body),
                response("200 OK", &[&kind, "Transfer-Encoding: chunked"], &chunked),
                response("206 Part", &[&kind, &size, &range], body),
                // The connection ends before the announced size: the first bytes are there.
                response("200 OK", &[&kind, "Content-Length: 9000000"], body),
            ] {
                let host = answering(refused.clone(), answer);
                assert_eq!(probe(&host.url("/")), Ok(()), "{kind} {body:?}");
            }
        }
    }
}

/// Boxes that begin HEIC and AVIF files.
const HEIC: &[u8] = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic";
const AVIF: &[u8] = b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1";

#[test]
fn a_get_without_a_picture_that_openai_takes_says_what_came() {
    let not = |what: &str| ImageProblem::NotAnImage(what.to_owned());
    let svg = b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- a car -->\n<svg xmlns=\"x\"/>";
    for (answer, problem) in [
        (response("200 OK", &[], HEIC), not("HEIC")),
        (response("200 OK", &[], AVIF), not("AVIF")),
        (response("200 OK", &["Content-Type: image/jpeg"], svg), not("SVG")),
        (response("200 OK", &[], b"II*\x00\x08\x00\x00\x00"), not("TIFF")),
        (response("200 OK", &[], b"MM\x00*\x00\x00\x00\x08"), not("TIFF")),
        (response("200 OK", &[], b"BM\x36\x00\x0c\x00\x00\x00"), not("BMP")),
        (response("200 OK", &[], b"%PDF-1.7\n"), not("PDF")),
        (
            response(
                "200 OK",
                &["Content-Type: image/jpeg"],
                b" \n<!DOCTYPE html><title>Log in",
            ),
            not("HTML"),
        ),
        (
            response("200 OK", &["Content-Type: Text/Plain; a=b"], b"{\"error\": 1}"),
            not("text/plain"),
        ),
        (response("200 OK", &[], b"\xff\xd8"), not("unknown content")),
        (
            response("200 OK", &["Content-Type: image/jpeg"], b""),
            ImageProblem::Empty,
        ),
        (head("204 No", &[]), ImageProblem::Empty),
        (
            response("200 OK", &["Content-Type: image/jpeg", "Content-Length: 0"], b""),
            ImageProblem::Empty,
        ),
        (
            response("200 OK", &["Content-Length: 10000001"], JPEG),
            ImageProblem::TooLarge(10_000_001),
        ),
        (
            response("206 Part", &["Content-Range: bytes 0-11/20000000"], JPEG),
            ImageProblem::TooLarge(20_000_000),
        ),
        (head("404 No", &["Content-Length: 0"]), ImageProblem::Status(404)),
        (head("302 Go", &["Content-Length: 0"]), ImageProblem::Status(302)),
    ] {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let host = answering(head("405 No", &["Content-Length: 0"]), answer);
        assert_eq!(probe(&host.url("/")), Err(problem), "{shown}");
    }
}

#[test]
fn a_host_that_refuses_a_range_is_asked_without_one() {
    for status in ["416 Range", "400 Bad", "501 No"] {
        let host = host(move |request, stream| {
            let answer = match (is_head(request), request.to_lowercase().contains("\r\nrange:")) {
                (true, _) => head("405 No", &["Content-Length: 0"]),
                (_, true) => head(status, &["Content-Length: 0"]),
                _ => response("200 OK", &[], PNG),
            };
            drop(stream.write_all(&answer));
        });
        assert_eq!(probe(&host.url("/")), Ok(()), "{status}");
    }
    // Any other status is asked for once.
    let host = answering(head("404 No", &[]), head("404 No", &["Content-Length: 0"]));
    assert_eq!(probe(&host.url("/")), Err(ImageProblem::Status(404)));
    let asked = requests(&host);
    assert!(asked.len() <= 2, "{asked:?}");
}

#[test]
fn a_get_ends_with_the_first_bytes_and_with_its_time() {
    // The rest of the picture never comes.
    let stalled = host(|request, stream| {
        if is_head(request) {
            drop(stream.write_all(&head("405 No", &["Content-Length: 0"])));
        } else {
            drop(stream.write_all(&response("200 OK", &["Content-Length: 5000"], JPEG)));
            // Until the client closes the connection.
            drop(stream.read(&mut [0]));
        }
    });
    assert_eq!(probe(&stalled.url("/")), Ok(()));
    // The beginning never comes, or byte by byte.
    for first in [&b""[..], b"\xff"] {
        let silent = host(move |request, stream| {
            if is_head(request) {
                drop(stream.write_all(&head("405 No", &["Content-Length: 0"])));
            } else {
                drop(stream.write_all(&response("200 OK", &["Content-Length: 5000"], first)));
                drop(stream.read(&mut [0]));
            }
        });
        let problem = outbound().probe_image(&silent.url("/"), &limits(SHORT));
        assert_eq!(problem, Err(ImageProblem::Request(OutboundError::Timeout)));
    }
    // An endless page ends after the bytes that are read of it.
    let endless = host(|request, stream| {
        if is_head(request) {
            drop(stream.write_all(&head("405 No", &["Content-Length: 0"])));
        } else if stream.write_all(&head("200 OK", &[])).is_ok() {
            while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        }
    });
    let problem = probe(&endless.url("/"));
    assert_eq!(problem, Err(ImageProblem::NotAnImage("unknown content".into())));
}

/// Redirects `/1` to `/2` and so on up to `/last`, which is an image.
fn chain(last: usize) -> Host {
    host(move |request, stream| {
        let number: usize = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let answer = if number == last {
            response("200 OK", &["Content-Type: image/gif", "Content-Length: 10"], GIF)
        } else {
            let location = format!("Location: {}", number + 1);
            head("302 Go", &[&location, "Content-Length: 0"])
        };
        drop(stream.write_all(&answer));
    })
}

#[test]
fn three_redirects_are_followed_and_none_past_the_guard() {
    assert_eq!(probe(&chain(4).url("/1")), Ok(()));
    assert_eq!(probe(&chain(5).url("/1")), Err(ImageProblem::TooManyRedirects));
    let around = answering(
        head("302 Go", &["Location: /", "Content-Length: 0"]),
        head("302 Go", &["Location: /", "Content-Length: 0"]),
    );
    assert_eq!(probe(&around.url("/")), Err(ImageProblem::TooManyRedirects));

    let secret = answering(head("200 OK", &[]), response("200 OK", &[], GIF));
    for location in [
        format!("http://127.0.0.2:{}/", secret.port),
        format!("http://[::ffff:127.0.0.2]:{}/", secret.port),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        format!("//0x7f.2:{}/", secret.port),
        format!("\\\\127.0.0.2:{}/", secret.port),
        format!("http:\\\\127.0.0.2:{}\\x", secret.port),
        format!("http:/\\2130706434:{}", secret.port),
        format!("//127.0.0.2\\@127.0.0.1:{}/", secret.port),
        // Full-width digits and the ideographic full stop, in UTF-8.
        format!(
            "http://\u{ff11}\u{ff12}\u{ff17}\u{3002}0\u{3002}0\u{3002}2:{}/",
            secret.port
        ),
        format!("http://%31%32%37.0.0.2:{}/", secret.port),
    ] {
        let host = saying(format!(
            "HTTP/1.1 301 Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ));
        let refused = Err(ImageProblem::Request(OutboundError::ForbiddenAddress));
        assert_eq!(probe(&host.url("/")), refused, "{location}");
    }
    assert!(secret.asked.is_empty());
    for (location, problem) in [
        ("file:///etc/passwd", UrlProblem::Scheme),
        ("javascript:alert(1)", UrlProblem::Scheme),
        ("http://user:word@127.0.0.1/", UrlProblem::UserInfo),
        ("http://127.0.0.1:99999/", UrlProblem::Malformed),
        ("http://a b/", UrlProblem::Malformed),
    ] {
        let elsewhere = saying(format!(
            "HTTP/1.1 302 Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ));
        let refused = Err(ImageProblem::Request(OutboundError::Url(problem)));
        assert_eq!(probe(&elsewhere.url("/")), refused, "{location}");
    }
}

#[test]
fn a_location_is_resolved_and_encoded_as_browsers_do() {
    for (location, path) in [
        (&b"../x.jpg"[..], "/a/x.jpg"),
        (b"./x", "/a/b/x"),
        (b"/a/../b", "/b"),
        (b"../../../../x", "/x"),
        (b"/a/%2e%2E/./b/", "/b/"),
        (b"x`y", "/a/b/x%60y"),
        (b"/<x>{y}\"|", "/%3Cx%3E%7By%7D%22|"),
        (b"..\\x\\y.jpg", "/a/x/y.jpg"),
        (b"caf\xe9.jpg", "/a/b/caf%E9.jpg"),
        ("café.jpg?ü=é".as_bytes(), "/a/b/caf%C3%A9.jpg?%C3%BC=%C3%A9"),
        (b"two words.jpg ", "/a/b/two%20words.jpg"),
        (b"50%.jpg", "/a/b/50%.jpg"),
        (b"?a=<b> `c`&d='e'\"", "/a/b/c.jpg?a=%3Cb%3E%20`c`&d=%27e%27%22"),
        (b"#part", "/a/b/c.jpg?q"),
        (b"y#part", "/a/b/y"),
        (b"//h/x", ""),
        (b"HTTP:x", "/a/b/x"),
        (b"http:/x", "/x"),
        (b"\tx\t", "/a/b/x"),
    ] {
        let sent = location.to_vec();
        let host = host(move |request, stream: &mut TcpStream| {
            let answer = if request.contains(" /a/b/c.jpg?q HTTP") && !sent.starts_with(b"#") {
                let location = [b"HTTP/1.1 302 Go\r\nLocation: ", &sent[..]].concat();
                [
                    &location[..],
                    b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                ]
                .concat()
            } else {
                response("200 OK", &["Content-Type: image/gif", "Content-Length: 10"], GIF)
            };
            drop(stream.write_all(&answer));
        });
        let result = probe(&host.url("/a/b/c.jpg?q"));
        let shown = String::from_utf8_lossy(location);
        if path.is_empty() {
            assert!(result.is_err(), "{shown}");
            continue;
        }
        assert_eq!(result, Ok(()), "{shown}");
        let last = std::iter::from_fn(|| host.asked.recv_timeout(SHORT).ok()).last();
        let asked = last.unwrap();
        assert!(
            asked.starts_with(&format!("HEAD {path} HTTP")),
            "{shown}: {asked}"
        );
    }
}

#[test]
fn a_whole_image_is_read_to_its_end() {
    let photo = include_bytes!("../../src/sandbox/model/responses/images/truck.jpg");
    let whole = |answer: Vec<u8>| {
        let host = answering(head("405 No", &[]), answer);
        let probed = outbound().probe_whole_image(&host.url("/"), &ImageLimits::default());
        let asked = requests(&host);
        assert!(
            asked
                .iter()
                .all(|it| it.starts_with("get ") && !it.contains("\r\nrange:"))
        );
        probed
    };
    let size = format!("Content-Length: {}", photo.len());
    assert_eq!(whole(response("200 OK", &[&size], photo)), Ok(()));
    assert_eq!(
        whole(response("200 OK", &["Content-Type: text/html"], photo)),
        Ok(())
    );
    let half = &photo[..photo.len() / 2];
    assert_eq!(whole(response("200 OK", &[], half)), Err(ImageProblem::Damaged));
    // The host announces more than it sends.
    let cut = whole(response("200 OK", &[&size], half));
    assert!(
        matches!(cut, Err(ImageProblem::Request(OutboundError::Connection(_)))),
        "{cut:?}"
    );
    let endless = host(|_, stream| {
        let mut answer = response("200 OK", &[], JPEG);
        while stream.write_all(&answer).is_ok() {
            answer = vec![7; 65_536];
        }
    });
    let problem = outbound().probe_whole_image(&endless.url("/"), &ImageLimits::default());
    assert_eq!(problem, Err(ImageProblem::TooLarge(10_000_001)));
    let heic = whole(response("200 OK", &["Content-Type: image/jpeg"], HEIC));
    assert_eq!(heic, Err(ImageProblem::NotAnImage("HEIC".into())));
    assert_eq!(
        whole(head("403 No", &["Content-Length: 0"])),
        Err(ImageProblem::Status(403))
    );
}
