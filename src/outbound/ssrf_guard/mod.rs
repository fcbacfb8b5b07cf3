//! The SSRF guard: the rule that decides which addresses this program may connect to, so that a client
//! cannot make it talk to its own machine or network (server-side request forgery).
//!
//! The rule applies twice. [`SsrfGuard::check_url`] checks a URL as it is written, so that a submission can
//! be refused. [`GuardedResolver`] checks the addresses that a name has when a connection is made. ureq
//! connects to exactly those addresses, so a name cannot evade the check by changing its address in between
//! (DNS rebinding). [`GuardedClient`](super::GuardedClient) follows redirects itself and applies both checks
//! to each URL. It ignores the environment's proxies, since a proxy would resolve names itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::url::{self, ParsedUrl, UrlProblem};
use crate::base::cidr::Cidr;

/// The addresses that may be connected to.
#[derive(Clone, Debug)]
pub enum SsrfGuard {
    /// Only public addresses.
    DenyPrivate,
    /// Public addresses, and the addresses of these networks.
    Allow(Vec<Cidr>),
    /// Every address. This is for tests and closed networks.
    AllowAll,
}

impl SsrfGuard {
    /// Whether `address` may be connected to. If an IPv6 address embeds an IPv4 address to which a router may
    /// forward the packets, the rule applies to the IPv4 address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let listed = |address: IpAddr| match self {
            Self::AllowAll => true,
            Self::DenyPrivate => false,
            Self::Allow(networks) => networks.iter().any(|it| it.contains(address)),
        };
        match address.to_canonical() {
            IpAddr::V4(v4) => listed(v4.into()) || is_public_v4(v4),
            IpAddr::V6(v6) if listed(v6.into()) => true,
            IpAddr::V6(v6) => match embedded_v4(v6).as_slice() {
                [] => is_public_v6(v6),
                embedded => embedded.iter().all(|v4| self.allows((*v4).into())),
            },
        }
    }

    /// Checks a URL as it is written: `http` or `https`, a host, no user name, and no forbidden address. The
    /// addresses of a host name are checked when a connection is made.
    ///
    /// # Errors
    /// The first problem of the URL.
    pub fn check_url(&self, url: &str) -> Result<ParsedUrl, UrlProblem> {
        let parsed = url::parse(url)?;
        let name = parsed.host.as_str();
        let written_address = if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761, 6.3: these names always mean loopback.
            Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        } else {
            parsed.address
        };
        match written_address {
            Some(address) if !self.allows(address) => Err(UrlProblem::ForbiddenAddress),
            _ => Ok(parsed),
        }
    }
}

/// IPv4 networks that are not the public Internet: those of IANA's special-purpose registry, and the
/// addresses of the clouds' metadata services.
const SPECIAL_V4: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8),        // this network
    ([10, 0, 0, 0], 8),       // private
    ([100, 64, 0, 0], 10),    // carrier NAT (and Alibaba's metadata)
    ([127, 0, 0, 0], 8),      // loopback
    ([168, 63, 129, 16], 32), // Azure's own services
    ([169, 254, 0, 0], 16),   // link-local (and the other clouds' metadata)
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

fn is_public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4
        .iter()
        .any(|(network, bits)| Cidr::new(Ipv4Addr::from(*network).into(), *bits).contains(address.into()))
}

/// Only global unicast, 2000::/3, is public, and some of its networks are not. Loopback, unique local,
/// link-local, site-local and multicast addresses and fd00:ec2::254 (AWS's metadata) are outside of it.
fn is_public_v6(address: Ipv6Addr) -> bool {
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

/// The IPv4 addresses that an IPv6 address embeds, to which a router or a host may forward the packets. The
/// mapped form `::ffff:a.b.c.d` is an IPv4 address to the system itself, and is no case here.
fn embedded_v4(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        // IPv4-compatible, `::a.b.c.d` (RFC 4291). `::` and `::1` have this form, too; both are forbidden.
        (0, 0, 0, 0, 0, 0) => vec![v4(g, h)],
        // IPv4-translated, `::ffff:0:a.b.c.d` (RFC 2765).
        (0, 0, 0, 0, 0xffff, 0) => vec![v4(g, h)],
        // NAT64 (RFC 6052).
        (0x64, 0xff9b, 0, 0, 0, 0) => vec![v4(g, h)],
        // 6to4 (RFC 3056).
        (0x2002, ..) => vec![v4(b, c)],
        // Teredo (RFC 4380): the server's address, and the client's address with its bits inverted.
        (0x2001, 0, ..) => vec![v4(c, d), v4(!g, !h)],
        // ISATAP (RFC 5214) in a public network.
        (_, _, _, _, 0 | 0x200, 0x5efe) if is_public_v6(address) => vec![v4(g, h)],
        _ => Vec::new(),
    }
}

/// Resolves names for ureq, and refuses a name if the guard forbids any one of its addresses. ureq decides to
/// which of them it connects.
#[derive(Debug)]
pub struct GuardedResolver {
    guard: SsrfGuard,
    resolver: DefaultResolver,
}

impl GuardedResolver {
    /// Creates the resolver that applies `guard`.
    pub fn new(guard: SsrfGuard) -> Self {
        Self {
            guard,
            resolver: DefaultResolver::default(),
        }
    }

    fn check(&self, resolved: ResolvedSocketAddrs) -> Result<ResolvedSocketAddrs, Error> {
        if resolved.iter().all(|it| self.guard.allows(it.ip())) {
            Ok(resolved)
        } else {
            Err(Error::Other(Box::new(ForbiddenAddress)))
        }
    }
}

impl Resolver for GuardedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        self.check(self.resolver.resolve(uri, config, timeout)?)
    }
}

/// The error of [`GuardedResolver`], which ureq passes through as `Error::Other`.
#[derive(Debug, thiserror::Error)]
#[error("the host has an address that is not on the public Internet")]
pub struct ForbiddenAddress;

#[cfg(test)]
mod tests;
