//! Which endpoint URLs are refused when they are written, because nothing would ever be sent to them.

use std::net::IpAddr;

use thiserror::Error;
use url::{Host, Url};

use crate::{egress_policy::EgressPolicy, endpoint::EndpointUrl};

/// Decides whether an endpoint may be given a URL. A host name is not looked up: what it stands for is vetted at each send.
#[derive(Clone, Debug)]
pub struct UrlPolicy {
    is_https_only: bool,
    egress: EgressPolicy,
}

/// Why an endpoint may not have a URL.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RefusedUrl {
    /// It is not https, and the operator wants no other.
    #[error("must be an https URL: no other is accepted here (POSTHASTE_ENDPOINT_HTTPS_ONLY)")]
    NotHttps,
    /// Its host is an address that the egress policy forbids.
    #[error(
        "can never be called: {0} is not on the public internet. Use a host that is, or have the operator allow its network with POSTHASTE_EGRESS_ALLOW"
    )]
    Blocked(IpAddr),
}

impl UrlPolicy {
    /// A policy that accepts what `egress` permits; if `is_https_only`, https URLs alone.
    pub fn new(is_https_only: bool, egress: EgressPolicy) -> Self {
        Self { is_https_only, egress }
    }

    /// Refuses a URL to which nothing would ever be sent.
    pub fn check(&self, url: &EndpointUrl) -> Result<(), RefusedUrl> {
        // What does not parse was refused before: there is nothing to add.
        let Ok(url) = Url::parse(url.as_str()) else { return Ok(()) };
        if self.is_https_only && url.scheme() != "https" {
            return Err(RefusedUrl::NotHttps);
        }
        // The parser turns every notation of an address (decimal, hexadecimal, octal, shortened) into the address.
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.egress.permits(address) { Ok(()) } else { Err(RefusedUrl::Blocked(address)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is_https_only: bool, allowed: &[&str], url: &str) -> Result<(), RefusedUrl> {
        let allowed = allowed.iter().map(|net| net.parse().expect("a network")).collect();
        UrlPolicy::new(is_https_only, EgressPolicy::new(allowed)).check(&EndpointUrl::parse(url).expect("a URL"))
    }

    #[test]
    fn an_address_that_is_never_called_is_refused_however_it_is_written() {
        let loopback = RefusedUrl::Blocked(IpAddr::from([127, 0, 0, 1]));
        for host in ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "0x7f.1"] {
            let url = format!("http://{host}:8080/hook");
            assert_eq!(check(false, &[], &url), Err(loopback), "{url}");
            assert_eq!(check(false, &["127.0.0.0/8"], &url), Ok(()), "{url}");
        }
        for host in ["[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1]", "169.254.169.254", "10.0.0.1", "0", "192.168.1.1"] {
            let url = format!("https://{host}/");
            assert!(matches!(check(false, &[], &url), Err(RefusedUrl::Blocked(_))), "{url}");
        }
        for url in ["https://1.1.1.1/", "http://[2606:4700:4700::1111]/", "http://localhost/", "http://db.internal/"] {
            assert_eq!(check(false, &[], url), Ok(()), "{url}");
        }
    }

    #[test]
    fn other_schemes_than_https_can_be_refused() {
        assert_eq!(check(true, &[], "http://example.com/"), Err(RefusedUrl::NotHttps));
        assert_eq!(check(true, &[], "HTTPS://example.com/"), Ok(()));
        assert_eq!(check(true, &["10.0.0.0/8"], "http://10.0.0.1/"), Err(RefusedUrl::NotHttps));
        assert_eq!(check(true, &["10.0.0.0/8"], "https://10.0.0.1/"), Ok(()));
    }
}
