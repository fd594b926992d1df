//! Which addresses may be called: by default none that is not on the public internet.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// Networks that are never called unless the operator allows them, after the IANA special-purpose registries
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, `…/iana-ipv6-special-registry`); and the one
/// address outside of them at which a cloud answers its own machines alone (Azure's WireServer).
const BLOCKED: [&str; 32] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
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
        self.forbids(address).is_none()
    }

    /// Why `address` may not be called; `None` if it may.
    pub fn forbids(&self, address: IpAddr) -> Option<Forbidden> {
        // What an address carries comes first: that network is the one to allow.
        let judged = || carried(address).into_iter().chain([address]);
        let found = |nets: &[IpNet]| judged().find_map(|address| nets.iter().find(|net| net.contains(&address)).copied());
        let network = found(&self.blocked).filter(|_| found(&self.allowed).is_none())?;
        Some(Forbidden { address, network })
    }
}

/// An address that may not be called, and the network that would have to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The address.
    pub address: IpAddr,
    /// The blocked network to which it belongs.
    pub network: IpNet,
}

impl fmt::Display for Forbidden {
    /// For the operator: a customer must not see what a name resolves to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is in {}, which is not allowed", self.address, self.network)
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

    /// Where clouds tell a machine who it is and what it may do.
    #[test]
    fn no_cloud_tells_us_its_secrets() {
        let policy = EgressPolicy::new(vec![]);
        let services = [
            ("169.254.169.254", "AWS, Azure, Google, DigitalOcean, Hetzner, Oracle, OpenStack"),
            ("169.254.170.2", "the credentials of an ECS task"),
            ("169.254.170.23", "the credentials of an EKS pod"),
            ("169.254.169.253", "the name server of a VPC"),
            ("169.254.169.123", "its clock"),
            ("169.254.0.23", "Tencent"),
            ("169.254.42.42", "Scaleway"),
            ("168.63.129.16", "Azure's WireServer"),
            ("100.100.100.200", "Alibaba"),
            ("192.0.0.192", "Oracle, first generation"),
            ("fd00:ec2::254", "AWS"),
            ("fd00:ec2::23", "EKS"),
            ("fd00:ec2::253", "the name server of a VPC"),
            ("fd20:ce::254", "Google"),
            ("fd00:42::42", "Scaleway"),
            ("fd00:c1::a9fe:a9fe", "Oracle"),
            ("fe80::a9fe:a9fe", "OpenStack"),
            ("::ffff:168.63.129.16", "mapped"),
            ("64:ff9b::a83f:8110", "through NAT64"),
            ("2002:a83f:8110::1", "through 6to4"),
        ];
        for (address, whose) in services {
            assert!(!permits(&policy, address), "{address} ({whose})");
        }
        for neighbour in ["168.63.129.15", "168.63.129.17"] {
            assert!(permits(&policy, neighbour), "{neighbour} is anybody's");
        }
    }

    #[test]
    fn a_refusal_names_the_address_and_the_network_to_allow() {
        let cases = [
            ("10.1.2.3", "10.0.0.0/8"),
            ("168.63.129.16", "168.63.129.16/32"),
            ("fd00:ec2::254", "fc00::/7"),
            ("::ffff:10.1.2.3", "10.0.0.0/8"),
            ("64:ff9b::7f00:1", "127.0.0.0/8"),
            ("::ffff:8.8.8.8", "::ffff:0.0.0.0/96"),
        ];
        for (address, network) in cases {
            let parsed: IpAddr = address.parse().expect("an address");
            let forbidden = EgressPolicy::new(vec![]).forbids(parsed).expect("a refusal");
            assert_eq!((forbidden.address, forbidden.network.to_string().as_str()), (parsed, network));
            assert!(EgressPolicy::new(vec![forbidden.network]).permits(parsed), "{network} lets {address} through");
        }
        let shown = EgressPolicy::new(vec![]).forbids("10.1.2.3".parse().expect("an address")).expect("a refusal").to_string();
        assert_eq!(shown, "10.1.2.3 is in 10.0.0.0/8, which is not allowed");
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
