//! Which addresses a host has: the hosts file first, then DNS, whose answers are remembered for as long as they say.

use std::{net::IpAddr, time::Duration};

use futures::future::BoxFuture;
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
    system_conf::read_system_conf,
};

/// How many look-ups may wait for the name server; beyond that they fail. Equal ones that wait at once are one.
const MAX_LOOK_UPS: usize = 4096;
/// How many answers are remembered; a name has two, one per family.
const MAX_ANSWERS: u64 = 4096;
/// The least time for which an answer is remembered, whatever TTL it has: a burst of connections is one look-up.
const SHORTEST: Duration = Duration::from_secs(1);
/// The most time for which an answer is remembered, whatever TTL it has: a receiver that moves is found again soon.
const LONGEST: Duration = Duration::from_mins(5);
/// The most time for which "there is none" is remembered: a name that has just been made works soon.
const LONGEST_NONE: Duration = Duration::from_secs(5);

/// Who answers look-ups. Tests put their own answers in place of the system's.
pub(super) trait Names: Send + Sync + 'static {
    /// Every address of `host`; none, if it cannot be resolved.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Vec<IpAddr>>;
}

/// The system's names: the hosts file first, then the name servers of its configuration.
pub(super) struct SystemNames {
    hosts: Hosts,
    dns: Option<TokioResolver>,
}

impl SystemNames {
    pub(super) fn new() -> Self {
        let (servers, options) = read_system_conf().unwrap_or_else(|error| {
            tracing::warn!(%error, "the system names no DNS server: only addresses and names of the hosts file can be called");
            Default::default()
        });
        Self::with(Hosts::from_system().unwrap_or_default(), servers, options)
    }

    /// Names of this hosts file and these servers.
    pub(super) fn with(hosts: Hosts, servers: ResolverConfig, options: ResolverOpts) -> Self {
        let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default()).with_options(options);
        let options = builder.options_mut();
        // Both families, so that a private address cannot hide behind a public one.
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = MAX_LOOK_UPS;
        options.cache_size = MAX_ANSWERS;
        options.positive_min_ttl = Some(SHORTEST);
        options.positive_max_ttl = Some(LONGEST);
        options.negative_min_ttl = Some(SHORTEST);
        options.negative_max_ttl = Some(LONGEST_NONE);
        Self { hosts, dns: builder.build().ok() }
    }

    /// A name of the hosts file is complete as it stands there: the name servers are not asked for its other family.
    fn in_hosts_file(&self, host: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_utf8(host) else { return vec![] };
        let of_type = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of_type);
        found.flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()).collect()
    }
}

impl Names for SystemNames {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Vec<IpAddr>> {
        Box::pin(async move {
            let known = self.in_hosts_file(host);
            let Some(dns) = self.dns.as_ref().filter(|_| known.is_empty()) else { return known };
            dns.lookup_ip(host).await.map_or_else(|_| vec![], |found| found.iter().collect())
        })
    }
}
