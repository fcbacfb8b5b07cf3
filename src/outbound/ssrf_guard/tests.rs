use proptest::prelude::*;

use super::*;
use crate::outbound::OutboundError;

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
fn only_the_public_internet_is_allowed() {
    for text in BAD {
        assert!(!SsrfGuard::DenyPrivate.allows(address(text)), "{text}");
        assert!(SsrfGuard::AllowAll.allows(address(text)), "{text}");
    }
    for text in GOOD {
        assert!(SsrfGuard::DenyPrivate.allows(address(text)), "{text}");
    }
}

#[test]
fn a_listed_network_is_allowed_in_every_form_and_nothing_beside_it() {
    let networks = ["127.0.0.1", "10.1.0.0/16", "fd12::/16"];
    let guard = SsrfGuard::Allow(networks.iter().map(|it| it.parse().unwrap()).collect());
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

#[test]
fn one_bad_address_among_many_is_enough() {
    let resolver = GuardedResolver::new(SsrfGuard::DenyPrivate);
    let check = |addresses: &[&str]| {
        let mut resolved = resolver.empty();
        for address in addresses {
            resolved.push(address.parse().unwrap());
        }
        resolver.check(resolved).map_err(OutboundError::from).map(drop)
    };
    assert_eq!(check(&["8.8.8.8:80", "[2606:4700::1111]:80"]), Ok(()));
    for bad in ["127.0.0.1:80", "[::1]:80", "[::ffff:10.0.0.1]:80"] {
        assert_eq!(check(&["8.8.8.8:80", bad]), Err(OutboundError::ForbiddenAddress));
    }
}

proptest! {
    #[test]
    fn an_embedded_address_gets_the_verdict_of_the_plain_one(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        let (high, low) = ((bits >> 16) & 0xffff, bits & 0xffff);
        let plain = SsrfGuard::DenyPrivate.allows(v4.into());
        for form in [
            format!("::ffff:{v4}"),
            format!("::ffff:0:{v4}"),
            format!("64:ff9b::{v4}"),
            format!("2002:{high:x}:{low:x}::1"),
            format!("2001:0:808:808:0:0:{:x}:{:x}", !high & 0xffff, !low & 0xffff),
        ] {
            prop_assert_eq!(SsrfGuard::DenyPrivate.allows(address(&form)), plain, "{}", form);
        }
    }

    #[test]
    fn nothing_outside_global_unicast_is_public(bits: u128) {
        let v6 = Ipv6Addr::from_bits(bits | (1 << 127));
        prop_assert!(!SsrfGuard::DenyPrivate.allows(v6.into()));
    }
}
