//! URLs as clients give them: what is taken, and where one leads.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::http::Uri;

/// What a checked URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedUrl {
    /// Whether it is `https`.
    pub https: bool,
    /// The host in lower case, without a last dot; an IPv6 address without its brackets.
    pub host: String,
    /// The address, where the host is one, in whatever form.
    pub address: Option<IpAddr>,
    /// The port, given or the scheme's own.
    pub port: u16,
}

/// Why a URL is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// It has white space, control characters or a backslash.
    #[error("the URL has spaces, control characters or backslashes")]
    Characters,
    /// It is no `http` or `https` URL.
    #[error("the URL must begin with http:// or https://")]
    Scheme,
    /// It can't be read.
    #[error("the URL is malformed")]
    Malformed,
    /// It has a user name or a password.
    #[error("the URL must not have a user name or password")]
    UserInfo,
    /// Its host is missing, or no host name or address.
    #[error("the URL has no valid host name or address (in ASCII)")]
    Host,
    /// Its port is no number from 1 to 65535.
    #[error("the URL's port must be a number from 1 to 65535")]
    Port,
    /// It names an address that must not be talked to.
    #[error("the URL names an address that is not on the public Internet")]
    Refused,
}

/// A URL as it is sent: what is not ASCII in it is percent-encoded, as browsers do.
pub fn encoded(url: &str) -> Cow<'_, str> {
    if url.is_ascii() {
        return Cow::Borrowed(url);
    }
    let mut encoded = String::with_capacity(url.len() * 3);
    for character in url.chars() {
        if character.is_ascii() {
            encoded.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(encoded)
}

/// Reads a URL, with the parser that will be used to connect to it.
pub fn parse(url: &str) -> Result<ParsedUrl, UrlProblem> {
    if url.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(UrlProblem::Characters);
    }
    let https = match url.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => true,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => false,
        _ => return Err(UrlProblem::Scheme),
    };
    let uri: Uri = url.parse().map_err(|_| UrlProblem::Malformed)?;
    let authority = uri.authority().ok_or(UrlProblem::Host)?;
    if authority.as_str().contains('@') {
        return Err(UrlProblem::UserInfo);
    }
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => {
            if https {
                443
            } else {
                80
            }
        }
        Some(port) => port
            .strip_prefix(':')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|port| *port > 0)
            .ok_or(UrlProblem::Port)?,
        None => return Err(UrlProblem::Malformed),
    };
    let (host, address) = parse_host(host)?;
    Ok(ParsedUrl {
        https,
        host,
        address,
        port,
    })
}

fn parse_host(host: &str) -> Result<(String, Option<IpAddr>), UrlProblem> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(UrlProblem::Host)?;
        let address: Ipv6Addr = inner.parse().map_err(|_| UrlProblem::Host)?;
        return Ok((address.to_string(), Some(address.into())));
    }
    let host = host.to_ascii_lowercase();
    let name = host.strip_suffix('.').unwrap_or(&host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(UrlProblem::Host);
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if number(last).is_none() && !last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok((name.to_owned(), None));
    }
    // What ends in a number is an IPv4 address or nothing.
    let address = loose_ipv4(name).ok_or(UrlProblem::Host)?;
    Ok((name.to_owned(), Some(address.into())))
}

/// An IPv4 address in any form that `inet_aton(3)` takes: one to four parts, each decimal, octal
/// (`0…`) or hexadecimal (`0x…`), the last filling what the others leave.
fn loose_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    let mut bits: u32 = 0;
    for (place, part) in first.iter().enumerate() {
        let shift = 24_usize.checked_sub(8 * place)?;
        bits |= u32::from(u8::try_from(*part).ok()?) << shift;
    }
    let room = 32_u32.checked_sub(8 * u32::try_from(first.len()).ok()?)?;
    let fits = u64::from(*last) < 1_u64 << room;
    (room > 0 && fits).then(|| Ipv4Addr::from_bits(bits | last))
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = if let Some(hex) = text.strip_prefix("0x") {
        (hex, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (text, 8)
    } else {
        (text, 10)
    };
    if radix == 16 && digits.is_empty() {
        return Some(0);
    }
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    u32::from_str_radix(digits, radix).ok().filter(|_| plain)
}

/// Where a `Location` of an answer from `base` leads. (Dots in paths are left to the server.)
pub fn join(base: &str, location: &str) -> String {
    let location = location.split('#').next().unwrap_or_default();
    let location = location.trim().replace(' ', "%20");
    let scheme_end = base.find("://").map_or(0, |at| at + 3);
    let after = |from: usize, ends: &[char]| {
        let rest = base.get(from..).unwrap_or_default();
        rest.find(ends).map_or(base.len(), |at| from + at)
    };
    let authority_end = after(scheme_end, &['/', '?', '#']);
    let path_end = after(authority_end, &['?', '#']);
    let up_to = |end: usize| base.get(..end).unwrap_or_default();
    let has_scheme = location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    if has_scheme {
        location
    } else if location.starts_with("//") {
        format!("{}{location}", up_to(scheme_end.saturating_sub(2)))
    } else if location.starts_with('/') {
        format!("{}{location}", up_to(authority_end))
    } else if location.starts_with('?') {
        format!("{}{location}", up_to(path_end))
    } else if location.is_empty() {
        base.to_owned()
    } else {
        let folder = up_to(path_end)
            .rfind('/')
            .filter(|at| *at >= authority_end)
            .map_or_else(
                || format!("{}/", up_to(authority_end)),
                |at| up_to(at + 1).to_owned(),
            );
        format!("{folder}{location}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Guard;
    use super::*;

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
            let parsed = Guard::DenyPrivate.check_url(url).unwrap();
            assert_eq!(
                (parsed.https, parsed.host.as_str(), parsed.port),
                (https, host, port),
                "{url}"
            );
        }
    }

    #[test]
    fn bad_urls_are_told_apart() {
        use UrlProblem::{Characters, Host, Malformed, Port, Refused, Scheme, UserInfo};
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
            ("http://localhost/", Refused),
            ("http://LOCALHOST.:80/", Refused),
            ("http://a.localhost/", Refused),
            ("http://127.0.0.1/", Refused),
            ("http://127.1/", Refused),
            ("http://127.0.0.1./", Refused),
            ("http://0/", Refused),
            ("http://0x/", Refused),
            ("http://2130706433/", Refused),
            ("http://0x7f000001/", Refused),
            ("http://0X7F.1/", Refused),
            ("http://017700000001/", Refused),
            ("http://0177.0.0.01/", Refused),
            ("http://0xa9.0xfe.0xa9.0xfe/", Refused),
            ("http://169.254.43518/", Refused),
            ("http://[::1]/", Refused),
            ("http://[::]/", Refused),
            ("http://[::ffff:127.0.0.1]/", Refused),
            ("http://[::ffff:7f00:1]/", Refused),
            ("http://[fd00:ec2::254]/", Refused),
            ("http://[64:ff9b::7f00:1]/", Refused),
        ] {
            assert_eq!(Guard::DenyPrivate.check_url(url), Err(problem), "{url:?}");
        }
        // A host that is not ASCII is a matter for whoever writes the URL.
        assert!(
            Guard::AllowAll
                .check_url("http://b\u{fc}cher.example/")
                .is_err()
        );
        assert!(Guard::AllowAll.check_url("http://localhost:8080/").is_ok());
    }

    #[test]
    fn locations_are_joined() {
        let base = "http://h:1/a/b?c";
        for (location, expected) in [
            ("https://x/y", "https://x/y"),
            ("ftp://x/y", "ftp://x/y"),
            ("//x/y", "http://x/y"),
            ("/y?z#f", "http://h:1/y?z"),
            ("y z", "http://h:1/a/y%20z"),
            ("?d", "http://h:1/a/b?d"),
            ("", base),
        ] {
            assert_eq!(join(base, location), expected, "{location}");
        }
        assert_eq!(join("http://h", "y"), "http://h/y");
        assert_eq!(join("http://h?a/b", "y"), "http://h/y");
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
        fn nothing_panics(url in "(https?://)?[\\[\\]0-9a-fx.:@/?#%\u{0}-\u{ff}]{0,30}", to in ".{0,20}") {
            let parsed = parse(&url);
            prop_assert!(parsed.is_err() || url.starts_with("http"));
            join(&url, &to);
        }
    }
}
