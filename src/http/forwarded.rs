//! Who sent a request that came through a proxy.

use std::net::{IpAddr, SocketAddr};

use crate::base::cidr::Cidr;

/// Whether an address is one of these.
pub fn trusted(address: IpAddr, proxies: &[Cidr]) -> bool {
    let address = address.to_canonical();
    proxies.iter().any(|proxy| proxy.contains(address))
}

/// The address that `X-Forwarded-For` names. Each proxy adds, at the end, whom it was connected to
/// by; so the list is read from its end, and only as long as the one who wrote it is trusted. What
/// a client put there itself is never reached.
pub fn peer(connected: IpAddr, headers: &[(String, String)], proxies: &[Cidr]) -> IpAddr {
    let written: Vec<&str> = headers
        .iter()
        .filter(|(name, _)| name == "x-forwarded-for")
        .flat_map(|(_, value)| value.split(','))
        .collect();
    let mut peer = connected;
    for entry in written.into_iter().rev() {
        if !trusted(peer, proxies) {
            break;
        }
        match address(entry.trim()) {
            Some(address) => peer = address,
            None => break,
        }
    }
    peer
}

/// An address, with or without brackets and port, as proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address: Option<IpAddr> = bare.parse().ok();
    address
        .or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(connected: &str, values: &[&str]) -> String {
        let proxies: Vec<Cidr> = ["127.0.0.1", "10.0.0.0/8", "::1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let headers: Vec<_> = values
            .iter()
            .map(|value| ("x-forwarded-for".to_owned(), (*value).to_owned()))
            .collect();
        peer(connected.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn only_what_a_trusted_proxy_wrote_counts() {
        for (connected, values, expected) in [
            ("127.0.0.1", &["192.0.2.7"][..], "192.0.2.7"),
            ("::1", &["192.0.2.7"], "192.0.2.7"),
            // Nobody's word.
            ("192.0.2.9", &["192.0.2.7"], "192.0.2.9"),
            ("127.0.0.1", &[], "127.0.0.1"),
            // The client's own word stands further left.
            ("127.0.0.1", &["1.1.1.1, 192.0.2.7"], "192.0.2.7"),
            ("127.0.0.1", &["1.1.1.1", "192.0.2.7"], "192.0.2.7"),
            // Two proxies.
            ("127.0.0.1", &["1.1.1.1, 192.0.2.7, 10.1.2.3"], "192.0.2.7"),
            ("127.0.0.1", &["10.1.2.3"], "10.1.2.3"),
            // No address: the last one known.
            ("127.0.0.1", &["192.0.2.7, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["192.0.2.7,, 10.1.2.3"], "10.1.2.3"),
            // The forms that are about.
            ("127.0.0.1", &["192.0.2.7:4711"], "192.0.2.7"),
            ("127.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("127.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("::ffff:127.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
        ] {
            assert_eq!(seen(connected, values), expected, "{connected} {values:?}");
        }
    }
}
