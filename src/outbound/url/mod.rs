//! Reads clients' URLs, and resolves the `Location` of a redirect.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::http::Uri;
use url::Url;

use crate::base::percent;

/// The parts of a URL that decide where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedUrl {
    /// Whether it is `https`.
    pub https: bool,
    /// The host in lower case, without a last dot; an IPv6 address without its brackets.
    pub host: String,
    /// The address, if the host is an IP address in any of its forms.
    pub address: Option<IpAddr>,
    /// The port: the given one, or the scheme's default.
    pub port: u16,
}

/// Why a URL is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// It has white space, control characters or a backslash.
    #[error("the URL has spaces, control characters or backslashes")]
    Characters,
    /// It is not an `http` or `https` URL.
    #[error("the URL must begin with http:// or https://")]
    Scheme,
    /// It does not parse.
    #[error("the URL is malformed")]
    Malformed,
    /// It has a user name or a password.
    #[error("the URL must not have a user name or password")]
    UserInfo,
    /// Its host is missing, or is neither a host name nor an address.
    #[error("the URL has no valid host name or address (in ASCII)")]
    Host,
    /// Its port is not a number from 1 to 65535.
    #[error("the URL's port must be a number from 1 to 65535")]
    Port,
    /// The SSRF guard forbids the address that it names.
    #[error("the URL names an address that is not on the public Internet")]
    ForbiddenAddress,
}

/// Percent-encodes the characters of a URL that are not ASCII, as browsers do.
pub fn percent_encode(url: &str) -> Cow<'_, str> {
    if url.is_ascii() {
        return Cow::Borrowed(url);
    }
    Cow::Owned(percent::encode(url, |byte| byte.is_ascii()))
}

/// Reads a URL with the parser that ureq uses when it connects.
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
    // A host whose last label is a number must be an IPv4 address.
    let address = loose_ipv4(name).ok_or(UrlProblem::Host)?;
    Ok((name.to_owned(), Some(address.into())))
}

/// Reads an IPv4 address in any form of `inet_aton(3)`: one to four parts, each decimal, octal (`0…`) or
/// hexadecimal (`0x…`). The last part fills the remaining bytes.
fn loose_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    let mut bits: u32 = 0;
    for (place, part) in first.iter().enumerate() {
        let shift = 24_usize.checked_sub(8 * place)?;
        bits |= u32::from(u8::try_from(*part).ok()?) << shift;
    }
    let free_bits = 32_u32.checked_sub(8 * u32::try_from(first.len()).ok()?)?;
    let fits = u64::from(*last) < 1_u64 << free_bits;
    (free_bits > 0 && fits).then(|| Ipv4Addr::from_bits(bits | last))
}

/// Reads one part of an IPv4 address.
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
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    u32::from_str_radix(digits, radix).ok().filter(|_| is_plain)
}

/// The host and the port of a URL, as `host:port`. It is empty if the URL cannot be used.
pub fn host_and_port(url: &str) -> String {
    parse(url).map_or_else(|_| String::new(), |url| format!("{}:{}", url.host, url.port))
}

/// The URL to which a `Location` in the response from `base` leads, resolved and encoded by the WHATWG URL
/// standard, as browsers do. The crate `url` does it. The caller checks the result before it connects.
pub fn join(base: &str, location: &[u8]) -> Result<String, UrlProblem> {
    // Browsers keep the bytes that are not ASCII, whatever their encoding.
    let location = percent::encode_bytes(location, |byte| byte.is_ascii());
    let base = Url::parse(base).map_err(|_| UrlProblem::Malformed)?;
    let mut url = base.join(&location).map_err(|_| UrlProblem::Malformed)?;
    if url.cannot_be_a_base() {
        // Such as `data:`: it names no host.
        return Err(UrlProblem::Scheme);
    }
    url.set_fragment(None);
    // Browsers leave a backslash in a query as it is; `parse` refuses one everywhere.
    Ok(url.as_str().replace('\\', "%5C"))
}

#[cfg(test)]
mod tests;
