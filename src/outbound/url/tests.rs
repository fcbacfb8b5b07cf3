use proptest::prelude::*;

use super::*;
use crate::outbound::SsrfGuard;

#[test]
fn good_urls_are_read() {
    for (url, https, host, port) in [
        ("http://example.com", false, "example.com", 80),
        ("HTTPS://Example.COM./a?b#c", true, "example.com", 443),
        ("https://a_b.example:8443/x", true, "a_b.example", 8443),
        ("http://8.8.8.8/", false, "8.8.8.8", 80),
        ("http://[2606:4700::1111]:81/", false, "2606:4700::1111", 81),
        (
            "http://xn--bcher-kva.example/",
            false,
            "xn--bcher-kva.example",
            80,
        ),
        ("http://1.2.3.4.example/", false, "1.2.3.4.example", 80),
    ] {
        let parsed = SsrfGuard::DenyPrivate.check_url(url).unwrap();
        assert_eq!(
            (parsed.https, parsed.host.as_str(), parsed.port),
            (https, host, port),
            "{url}"
        );
    }
}

#[test]
fn each_bad_url_names_its_problem() {
    use UrlProblem::{Characters, ForbiddenAddress, Host, Malformed, Port, Scheme, UserInfo};
    for (url, problem) in [
        ("", Scheme),
        ("example.com", Scheme),
        ("ftp://example.com", Scheme),
        ("file:///etc/passwd", Scheme),
        ("javascript:alert(1)", Scheme),
        ("http:/example.com", Scheme),
        ("http://", Malformed),
        ("http:///path", Malformed),
        ("http://:80/", Host),
        ("http://a b/", Characters),
        ("http://a\u{a0}b/", Characters),
        ("http://a/\r\nX: y", Characters),
        ("http://a\0/", Characters),
        ("http://good\\@evil/", Characters),
        ("http://user@example.com/", UserInfo),
        ("http://user:word@example.com/", UserInfo),
        ("http://example.com:0/", Port),
        ("http://example.com:/", Port),
        ("http://example.com:65536/", Port),
        ("http://example..com/", Host),
        ("http://.example.com/", Host),
        ("http://exa%6dple.com/", Malformed),
        ("http://1.2.3.4.5/", Host),
        ("http://256.1.1.1/", Host),
        ("http://1.2.3.256/", Host),
        ("http://08.8.8.8/", Host),
        ("http://example.123/", Host),
        ("http://[::1%25eth0]/", Host),
        ("http://localhost/", ForbiddenAddress),
        ("http://LOCALHOST.:80/", ForbiddenAddress),
        ("http://a.localhost/", ForbiddenAddress),
        ("http://127.0.0.1/", ForbiddenAddress),
        ("http://127.1/", ForbiddenAddress),
        ("http://127.0.0.1./", ForbiddenAddress),
        ("http://0/", ForbiddenAddress),
        ("http://0x/", ForbiddenAddress),
        ("http://2130706433/", ForbiddenAddress),
        ("http://0x7f000001/", ForbiddenAddress),
        ("http://0X7F.1/", ForbiddenAddress),
        ("http://017700000001/", ForbiddenAddress),
        ("http://0177.0.0.01/", ForbiddenAddress),
        ("http://0xa9.0xfe.0xa9.0xfe/", ForbiddenAddress),
        ("http://169.254.43518/", ForbiddenAddress),
        ("http://[::1]/", ForbiddenAddress),
        ("http://[::]/", ForbiddenAddress),
        ("http://[::ffff:127.0.0.1]/", ForbiddenAddress),
        ("http://[::ffff:7f00:1]/", ForbiddenAddress),
        ("http://[fd00:ec2::254]/", ForbiddenAddress),
        ("http://[64:ff9b::7f00:1]/", ForbiddenAddress),
    ] {
        assert_eq!(SsrfGuard::DenyPrivate.check_url(url), Err(problem), "{url:?}");
    }
    // A host name in other than ASCII characters must be written in its ASCII form.
    assert!(
        SsrfGuard::AllowAll
            .check_url("http://b\u{fc}cher.example/")
            .is_err()
    );
    assert!(SsrfGuard::AllowAll.check_url("http://localhost:8080/").is_ok());
}

#[test]
fn locations_are_joined() {
    let base = "http://h:1/a/b?c";
    for (location, expected) in [
        ("https://x/y", Some("https://x/y")),
        ("ftp://x/y", Some("ftp://x/y")),
        ("//x/y", Some("http://x/y")),
        ("/y?z#f", Some("http://h:1/y?z")),
        ("y z", Some("http://h:1/a/y%20z")),
        ("?d", Some("http://h:1/a/b?d")),
        ("", Some(base)),
        (
            "//b\u{fc}cher.example/\u{fc}",
            Some("http://xn--bcher-kva.example/%C3%BC"),
        ),
        ("http://x:99999/", None),
        ("data:image/gif;base64,R0lGOD", None),
        ("A: !", None),
    ] {
        let joined = join(base, location.as_bytes());
        assert_eq!(joined.as_deref().ok(), expected, "{location}");
    }
    assert_eq!(join("http://h", b"y").as_deref(), Ok("http://h/y"));
    assert_eq!(join("http://h?a/b", b"y").as_deref(), Ok("http://h/y"));
}

proptest! {
    #[test]
    fn every_spelling_of_an_address_is_that_address(bits: u32, parts in 1_usize..=4, radixes: [u8; 4]) {
        let octets = bits.to_be_bytes();
        let mut numbers: Vec<u32> = octets[..parts - 1].iter().map(|it| u32::from(*it)).collect();
        let rest = octets[parts - 1..].iter().fold(0_u32, |sum, it| (sum << 8) | u32::from(*it));
        numbers.push(rest);
        let spelt: Vec<String> = numbers
            .iter()
            .zip(radixes)
            .map(|(number, radix)| match radix % 3 {
                0 => format!("{number}"),
                1 => format!("0{number:o}"),
                _ => format!("0x{number:x}"),
            })
            .collect();
        let parsed = parse(&format!("http://{}/", spelt.join("."))).unwrap();
        prop_assert_eq!(parsed.address, Some(IpAddr::V4(Ipv4Addr::from_bits(bits))));
    }

    #[test]
    fn a_resolved_location_can_be_sent(location in proptest::collection::vec(any::<u8>(), 0..40)) {
        let joined = join("http://h/a/b?c", &location).unwrap_or_else(|_| "http://h/".into());
        let parsed = parse(&joined);
        let expected = [UrlProblem::Scheme, UrlProblem::UserInfo, UrlProblem::Host, UrlProblem::Port];
        prop_assert!(parsed.is_ok() || parsed.is_err_and(|it| expected.contains(&it)), "{}", joined);
    }

    #[test]
    fn nothing_panics(url in "(https?://)?[\\[\\]0-9a-fx.:@/?#%\u{0}-\u{ff}]{0,30}", to in ".{0,20}") {
        let parsed = parse(&url);
        prop_assert!(parsed.is_err() || url.starts_with("http"));
        drop(join(&url, to.as_bytes()));
    }
}
