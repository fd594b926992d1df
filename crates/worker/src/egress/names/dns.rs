//! DNS as the system's own resolver does it: search list, both families at once, answers remembered for as long as they say.

use std::{net::IpAddr, time::Duration};

use futures::future::select;
use hickory_resolver::{
    TokioResolver,
    config::{ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RecordType},
    },
};
use tokio::time::timeout;

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
/// How long the addresses of one family wait for those of the other (RFC 8305 §3 has 50 ms; a name that has a private address
/// beside a public one is refused, so we listen a little longer).
const OTHER_FAMILY: Duration = Duration::from_millis(250);

/// The name servers of the system, and how names are completed for them.
pub(super) struct Dns {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

/// Why name servers told no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// There is no such name, so there is nothing of either family.
    NoSuchName,
    /// The name has none.
    NoAddress,
    /// They do not answer.
    Silence,
}

impl Dns {
    /// `None`, if the configuration cannot be used.
    pub(super) fn new(servers: ResolverConfig, options: ResolverOpts) -> Option<Self> {
        let search = if servers.search().is_empty() { servers.domain().cloned().into_iter().collect() } else { servers.search().to_vec() };
        let ndots = options.ndots;
        let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default()).with_options(options);
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = MAX_LOOK_UPS;
        options.cache_size = MAX_ANSWERS;
        options.positive_min_ttl = Some(SHORTEST);
        options.positive_max_ttl = Some(LONGEST);
        options.negative_min_ttl = Some(SHORTEST);
        options.negative_max_ttl = Some(LONGEST_NONE);
        Some(Self { resolver: builder.build().ok()?, search, ndots })
    }

    /// Every address of `host`, at least one: those of the first of its complete names that has any.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Miss> {
        let mut miss = Miss::NoSuchName;
        for name in self.complete(host) {
            match self.of_both_families(&name).await {
                Ok(found) => return Ok(found),
                Err(Miss::Silence) => miss = Miss::Silence,
                Err(_) => {}
            }
        }
        Err(miss)
    }

    /// The names that `host` may stand for, in the order of resolv.conf(5). Any character may be in them, such as the `_` of
    /// many a container's name.
    fn complete(&self, host: &str) -> Vec<Name> {
        let Ok(mut name) = Name::from_str_relaxed(host) else { return vec![] };
        let is_complete = name.is_fqdn();
        let is_first = host.matches('.').count() >= self.ndots || name.is_localhost();
        let mut names = Vec::new();
        if !is_complete {
            names.extend(self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()));
        }
        name.set_fqdn(true);
        names.insert(if is_first { 0 } else { names.len() }, name);
        names
    }

    /// Asks for both families at once. Once one has come, the other may take its time, but not all of it: a name server that
    /// never answers for one family keeps nobody from the other.
    async fn of_both_families(&self, name: &Name) -> Result<Vec<IpAddr>, Miss> {
        let ask = |kind| Box::pin(self.of_family(name, kind));
        let (first, other) = select(ask(RecordType::A), ask(RecordType::AAAA)).await.factor_first();
        match first {
            Ok(mut found) => {
                found.extend(timeout(OTHER_FAMILY, other).await.into_iter().flatten().flatten());
                Ok(found)
            }
            Err(Miss::NoSuchName) => Err(Miss::NoSuchName),
            Err(miss) => other.await.map_err(|other| if miss == Miss::Silence { miss } else { other }),
        }
    }

    /// The addresses of one family, at least one.
    async fn of_family(&self, name: &Name, kind: RecordType) -> Result<Vec<IpAddr>, Miss> {
        let answer = self.resolver.lookup(name.clone(), kind).await.map_err(|error| Miss::of(&error))?;
        let found: Vec<_> = answer.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
        if found.is_empty() { Err(Miss::NoAddress) } else { Ok(found) }
    }
}

impl Miss {
    fn of(error: &NetError) -> Self {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => Self::NoSuchName,
            NetError::Timeout | NetError::Busy => Self::Silence,
            _ => Self::NoAddress,
        }
    }
}
