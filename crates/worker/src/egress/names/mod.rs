//! Which addresses a host has: what the system's resolver finds, we find too.
//!
//! The hosts file comes first, then DNS. What neither has may be known to the system by other ways (`nsswitch.conf`), so its
//! own resolver has the last word.

mod dns;
mod hosts;
mod system;

use std::net::IpAddr;

use futures::future::BoxFuture;
use hickory_resolver::{
    config::{ResolverConfig, ResolverOpts},
    system_conf::read_system_conf,
};

pub(super) use self::hosts::HostsFile;
use self::{
    dns::{Dns, Miss},
    system::SystemResolver,
};

/// Who answers look-ups. Tests put their own answers in place of the system's.
pub(super) trait Names: Send + Sync + 'static {
    /// Every address of `host`; none, if it cannot be resolved.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Vec<IpAddr>>;
}

/// The system's names.
pub(super) struct SystemNames {
    hosts: HostsFile,
    dns: Option<Dns>,
    system: SystemResolver,
}

impl SystemNames {
    pub(super) fn new() -> Self {
        let hosts = HostsFile::of_system();
        match read_system_conf() {
            Ok((servers, options)) => Self::with(hosts, servers, options),
            Err(error) => {
                tracing::warn!(%error, "the system's DNS configuration cannot be used: names are left to its own resolver, and answers forgotten soon");
                Self { hosts, dns: None, system: SystemResolver::default() }
            }
        }
    }

    /// Names of this hosts file and these servers.
    pub(super) fn with(hosts: HostsFile, servers: ResolverConfig, options: ResolverOpts) -> Self {
        Self { hosts, dns: Dns::new(servers, options), system: SystemResolver::default() }
    }
}

impl Names for SystemNames {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Vec<IpAddr>> {
        Box::pin(async move {
            // A name of the hosts file is complete as it stands there: nobody is asked for its other family.
            let known = self.hosts.addresses(host);
            if !known.is_empty() {
                return known.to_vec();
            }
            match &self.dns {
                Some(dns) => match dns.addresses(host).await {
                    Ok(found) => found,
                    // The system would wait for the same name servers, and hold a thread meanwhile.
                    Err(Miss::Silence) => vec![],
                    Err(Miss::NoSuchName | Miss::NoAddress) => self.system.addresses(host).await,
                },
                None => self.system.addresses(host).await,
            }
        })
    }
}
