//! The address of a client behind a proxy.

use std::net::{IpAddr, SocketAddr};

use crate::base::cidr::Cidr;

/// Whether an address belongs to a trusted proxy.
pub fn is_trusted(address: IpAddr, proxies: &[Cidr]) -> bool {
    let address = address.to_canonical();
    proxies.iter().any(|proxy| proxy.contains(address))
}

/// The client's address according to `X-Forwarded-For`. Each proxy appends the address from which it got the
/// request. So the list is read from its end, and only while the writer of an entry is trusted. Entries that
/// a client wrote itself are never reached.
pub fn client_address(connected: IpAddr, headers: &[(String, String)], proxies: &[Cidr]) -> IpAddr {
    let entries: Vec<&str> = headers
        .iter()
        .filter(|(name, _)| name == "x-forwarded-for")
        .flat_map(|(_, value)| value.split(','))
        .collect();
    let mut peer = connected;
    for entry in entries.into_iter().rev() {
        if !is_trusted(peer, proxies) {
            break;
        }
        match entry_address(entry.trim()) {
            Some(address) => peer = address,
            None => break,
        }
    }
    peer
}

/// The address of an entry, with or without brackets and port. Proxies write it in all these forms.
fn entry_address(text: &str) -> Option<IpAddr> {
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
        client_address(connected.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn only_entries_of_trusted_proxies_count() {
        for (connected, values, expected) in [
            ("127.0.0.1", &["192.0.2.7"][..], "192.0.2.7"),
            ("::1", &["192.0.2.7"], "192.0.2.7"),
            // The connection is not from a trusted proxy.
            ("192.0.2.9", &["192.0.2.7"], "192.0.2.9"),
            ("127.0.0.1", &[], "127.0.0.1"),
            // The client wrote the entries further left itself.
            ("127.0.0.1", &["1.1.1.1, 192.0.2.7"], "192.0.2.7"),
            ("127.0.0.1", &["1.1.1.1", "192.0.2.7"], "192.0.2.7"),
            // Two proxies.
            ("127.0.0.1", &["1.1.1.1, 192.0.2.7, 10.1.2.3"], "192.0.2.7"),
            ("127.0.0.1", &["10.1.2.3"], "10.1.2.3"),
            // An entry is not an address: the last trusted one counts.
            ("127.0.0.1", &["192.0.2.7, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["192.0.2.7,, 10.1.2.3"], "10.1.2.3"),
            // The forms that proxies write.
            ("127.0.0.1", &["192.0.2.7:4711"], "192.0.2.7"),
            ("127.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("127.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("::ffff:127.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
        ] {
            assert_eq!(seen(connected, values), expected, "{connected} {values:?}");
        }
    }
}
