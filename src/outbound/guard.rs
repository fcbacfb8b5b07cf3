//! Which addresses may be talked to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::url::{self, ParsedUrl, UrlProblem};
use crate::base::cidr::Cidr;

/// Decides which addresses may be connected to.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Public addresses alone.
    DenyPrivate,
    /// Public addresses, and what is in these networks.
    Allow(Vec<Cidr>),
    /// Every address; for tests and closed networks.
    AllowAll,
}

impl Guard {
    /// Whether `address` may be connected to. Where an IPv6 address carries an IPv4 one that the
    /// packets may end at, both must be.
    pub fn allows(&self, address: IpAddr) -> bool {
        let listed = |address: IpAddr| match self {
            Self::AllowAll => true,
            Self::DenyPrivate => false,
            Self::Allow(networks) => networks.iter().any(|it| it.contains(address)),
        };
        match address.to_canonical() {
            IpAddr::V4(v4) => listed(v4.into()) || public_v4(v4),
            IpAddr::V6(v6) if listed(v6.into()) => true,
            IpAddr::V6(v6) => match carried(v6) {
                Carried::None => public_v6(v6),
                Carried::One(v4) => self.allows(v4.into()),
                Carried::Two(a, b) => self.allows(a.into()) && self.allows(b.into()),
            },
        }
    }

    /// Checks a URL as it is written: `http` or `https`, a host, no user name, and no address
    /// that is plainly refused. (A name is judged when it is connected to.)
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check_url(&self, url: &str) -> Result<ParsedUrl, UrlProblem> {
        let parsed = url::parse(url)?;
        let name = parsed.host.as_str();
        let plainly = if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761 has these be loopback wherever they are looked up.
            Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        } else {
            parsed.address
        };
        match plainly {
            Some(address) if !self.allows(address) => Err(UrlProblem::Refused),
            _ => Ok(parsed),
        }
    }
}

/// Networks that are not the public Internet, as IANA's registry of special IPv4 addresses lists
/// them, and what clouds answer metadata on.
const SPECIAL_V4: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8),        // this network
    ([10, 0, 0, 0], 8),       // private
    ([100, 64, 0, 0], 10),    // carrier NAT (and Alibaba's metadata)
    ([127, 0, 0, 0], 8),      // loopback
    ([168, 63, 129, 16], 32), // Azure's own services
    ([169, 254, 0, 0], 16),   // link-local (and everybody else's metadata)
    ([172, 16, 0, 0], 12),    // private
    ([192, 0, 0, 0], 24),     // protocol assignments (and Oracle's metadata)
    ([192, 0, 2, 0], 24),     // documentation
    ([192, 31, 196, 0], 24),  // AS112
    ([192, 88, 99, 0], 24),   // 6to4 relays
    ([192, 168, 0, 0], 16),   // private
    ([198, 18, 0, 0], 15),    // benchmarking
    ([198, 51, 100, 0], 24),  // documentation
    ([203, 0, 113, 0], 24),   // documentation
    ([224, 0, 0, 0], 4),      // multicast
    ([240, 0, 0, 0], 4),      // reserved, and broadcast
];

fn public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|(network, bits)| {
        Cidr::new(Ipv4Addr::from(*network).into(), *bits).contains(address.into())
    })
}

/// Global unicast is 2000::/3; nothing beside it is public (so not loopback, unique local,
/// link-local, site-local, multicast, nor fd00:ec2::254), and some of it is not either.
fn public_v6(address: Ipv6Addr) -> bool {
    let within = |network: &str| {
        network
            .parse::<Cidr>()
            .is_ok_and(|cidr| cidr.contains(address.into()))
    };
    within("2000::/3")
        && ![
            "2001::/23",         // protocol assignments: Teredo, benchmarking, ORCHID
            "2001:db8::/32",     // documentation
            "2620:4f:8000::/48", // AS112
            "3fff::/20",         // documentation
        ]
        .iter()
        .any(|network| within(network))
}

enum Carried {
    None,
    One(Ipv4Addr),
    Two(Ipv4Addr, Ipv4Addr),
}

/// The IPv4 addresses in an IPv6 address that some router or host on the way may unpack. (The
/// mapped form, `::ffff:a.b.c.d`, is IPv4 to the system itself.)
fn carried(address: Ipv6Addr) -> Carried {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        // Compatible (`::a.b.c.d`), which unspecified and loopback look like; both are refused.
        (0, 0, 0, 0, 0, 0) => Carried::One(v4(g, h)),
        // Translated, `::ffff:0:a.b.c.d` (RFC 2765).
        (0, 0, 0, 0, 0xffff, 0) => Carried::One(v4(g, h)),
        // NAT64 (RFC 6052).
        (0x64, 0xff9b, 0, 0, 0, 0) => Carried::One(v4(g, h)),
        // 6to4 (RFC 3056).
        (0x2002, ..) => Carried::One(v4(b, c)),
        // Teredo (RFC 4380): the server's, and the client's inverted.
        (0x2001, 0, ..) => Carried::Two(v4(c, d), v4(!g, !h)),
        // ISATAP (RFC 5214), in a public network.
        (_, _, _, _, 0 | 0x200, 0x5efe) if public_v6(address) => Carried::One(v4(g, h)),
        _ => Carried::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BAD: [&str; 58] = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "168.63.129.16",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::8.8.8.8",
        "2001:0:808:808::f5ff:fffe",
        "2001:0:a00:1::f7f7:f7f7",
        "2001:2::1",
        "2001:10::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2002:c0a8:1::1",
        "2a00:1450::5efe:10.0.0.1",
        "2a00:1450::200:5efe:192.168.1.1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "4000::1",
    ];

    const GOOD: [&str; 17] = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2001:0:808:808::f7f7:f7f7",
        "2606:4700:4700::1111",
        "2a00:1450:4001::5efe:8.8.8.8",
    ];

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_public_internet_is_told_from_all_else() {
        for text in BAD {
            assert!(!Guard::DenyPrivate.allows(address(text)), "{text}");
            assert!(Guard::AllowAll.allows(address(text)), "{text}");
        }
        for text in GOOD {
            assert!(Guard::DenyPrivate.allows(address(text)), "{text}");
        }
    }

    #[test]
    fn a_listed_network_is_open_in_every_form_and_nothing_beside_it() {
        let networks = ["127.0.0.1", "10.1.0.0/16", "fd12::/16"];
        let guard = Guard::Allow(networks.iter().map(|it| it.parse().unwrap()).collect());
        for text in [
            "127.0.0.1",
            "::ffff:127.0.0.1",
            "10.1.255.1",
            "fd12:3::4",
            "8.8.8.8",
        ] {
            assert!(guard.allows(address(text)), "{text}");
        }
        for text in ["127.0.0.2", "::1", "10.2.0.1", "fd13::1", "2002:a02:1::"] {
            assert!(!guard.allows(address(text)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_carried_address_is_judged_as_itself(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let (high, low) = ((bits >> 16) & 0xffff, bits & 0xffff);
            let plain = Guard::DenyPrivate.allows(v4.into());
            for form in [
                format!("::ffff:{v4}"),
                format!("::ffff:0:{v4}"),
                format!("64:ff9b::{v4}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001:0:808:808:0:0:{:x}:{:x}", !high & 0xffff, !low & 0xffff),
            ] {
                prop_assert_eq!(Guard::DenyPrivate.allows(address(&form)), plain, "{}", form);
            }
        }

        #[test]
        fn nothing_outside_global_unicast_is_public(bits: u128) {
            let v6 = Ipv6Addr::from_bits(bits | (1 << 127));
            prop_assert!(!Guard::DenyPrivate.allows(v6.into()));
        }
    }
}
