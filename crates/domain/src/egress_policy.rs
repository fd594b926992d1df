//! Which addresses may be called: by default none that is not on the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks that are never called unless the operator allows them, after the IANA special-purpose registries
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, `…/iana-ipv6-special-registry`).
const BLOCKED: [&str; 31] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "100:0:0:1::/64",
    "::ffff:0:0:0/96",
];

/// Decides whether an address may be called.
#[derive(Clone, Debug)]
pub struct EgressPolicy {
    allowed: Vec<IpNet>,
    blocked: Vec<IpNet>,
}

impl EgressPolicy {
    /// A policy that, besides the public internet, allows the `allowed` networks.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        let blocked = BLOCKED.iter().map(|net| net.parse().expect("the table holds networks")).collect();
        Self { allowed, blocked }
    }

    /// Whether `address` may be called. An IPv6 address that carries an IPv4 one (mapped, compatible, NAT64, 6to4) is
    /// judged by what it carries too.
    pub fn permits(&self, address: IpAddr) -> bool {
        let carried = carried(address);
        let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address) || carried.is_some_and(|inner| net.contains(&inner)));
        is_in(&self.allowed) || !is_in(&self.blocked)
    }
}

/// The IPv4 address inside an IPv6 one: RFC 4291 §2.5.5 (mapped, compatible), RFC 6052 (NAT64), RFC 3056 (6to4).
fn carried(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Some(IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0 | 0xFFFF) | (0x64, 0xFF9B, 0, 0, 0, 0) if v6 != Ipv6Addr::LOCALHOST => v4(g, h),
        (0x2002, ..) => v4(b, c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(policy: &EgressPolicy, text: &str) -> bool {
        policy.permits(text.parse().expect("an address"))
    }

    #[test]
    fn only_the_public_internet_is_open() {
        let policy = EgressPolicy::new(vec![]);
        for open in ["1.1.1.1", "93.184.216.34", "172.32.0.1", "2606:4700:4700::1111", "100.128.0.1"] {
            assert!(permits(&policy, open), "{open}");
        }
        let closed = [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.9",
            "198.19.0.1",
            "::1",
            "::",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:db8::1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "2001::1",
            "fec0::1",
            "fd00:ec2::254",
            "::ffff:0:127.0.0.1",
        ];
        for address in closed {
            assert!(!permits(&policy, address), "{address}");
        }
    }

    #[test]
    fn the_operator_can_open_a_network_in_every_notation() {
        let policy = EgressPolicy::new(vec!["127.0.0.0/8".parse().expect("a network")]);
        for open in ["127.0.0.1", "::ffff:127.0.0.1"] {
            assert!(permits(&policy, open), "{open}");
        }
        for closed in ["::1", "10.0.0.1", "169.254.169.254"] {
            assert!(!permits(&policy, closed), "{closed}");
        }
    }
}
