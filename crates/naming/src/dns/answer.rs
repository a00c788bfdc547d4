//! What look-ups find.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hickory_resolver::{
    Hosts,
    lookup::Lookup,
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
};

use crate::{FailureKind, ResolveError};

/// How long an answer of the system itself holds; `Options::max_interval` lowers it.
const STATIC_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What a whole look-up found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// Where the instances are: one for a host, one a record for a service. None where there is nothing to reach.
    pub(super) instances: Vec<Instance>,
    /// The addresses of every host of `instances`.
    pub(super) hosts: BTreeMap<(String, Family), Result<Records, ResolveError>>,
    /// Whether the name exists at all.
    pub(super) exists: bool,
    /// The TXT records with service configs; `None` where they were not asked for.
    pub(super) config: Option<Result<Texts, ResolveError>>,
}

/// An instance of a service, or all of those that a host's addresses are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Instance {
    pub(super) host: String,
    pub(super) port: u16,
    /// The number of the network interface that its IPv6 addresses are on; 0 where they say so themselves.
    pub(super) scope: u32,
    /// As in the SRV record: lower ones come first.
    pub(super) priority: u16,
    pub(super) weight: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

/// A complete answer for one address family; perhaps that there are none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Records {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// The smallest TTL of all records in the answer, aliases included.
    pub(super) ttl: Duration,
    /// Whether the name exists at all.
    pub(super) exists: bool,
}

/// The TXT records of a name; perhaps none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Texts {
    pub(super) name: String,
    pub(super) values: Vec<Vec<u8>>,
    /// `None` where there are no records.
    pub(super) ttl: Option<Duration>,
}

impl Answer {
    /// What is known of one host, by its families.
    pub(super) fn of_host(
        instance: Instance,
        v4: Result<Records, ResolveError>,
        v6: Result<Records, ResolveError>,
    ) -> Self {
        let exists = [&v4, &v6].into_iter().flatten().any(|records| records.exists);
        let is_nothing = |family: &Result<Records, _>| family.as_ref().is_ok_and(|found| found.addresses.is_empty());
        let instances = if is_nothing(&v4) && is_nothing(&v6) { Vec::new() } else { vec![instance.clone()] };
        let hosts = [((instance.host.clone(), Family::V4), v4), ((instance.host, Family::V6), v6)].into();
        Self { instances, hosts, exists, config: None }
    }

    pub(super) fn of_system(instance: Instance, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let [v4, v6] = records_of_system(addresses);
        Self::of_host(instance, Ok(v4), Ok(v6))
    }

    /// Whether the search list ends here: something was found, or a failure leaves open whether there is anything.
    pub(super) fn is_decisive(&self) -> bool {
        !self.instances.is_empty()
    }

    pub(super) fn has_addresses(&self) -> bool {
        self.hosts.values().flatten().any(|records| !records.addresses.is_empty())
    }
}

impl Instance {
    pub(super) fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, scope: 0, priority: 0, weight: 1 }
    }
}

/// The addresses that the system itself knows: those of the hosts file, and of `localhost` (A10).
///
/// Files of the system are read at every look-up, as C libraries do, so that an edit takes effect without a restart.
/// They are small and local; look-ups are rare.
pub(super) fn of_system(name: &Name) -> Option<Vec<IpAddr>> {
    let hosts = Hosts::from_system().unwrap_or_default();
    let found: Vec<IpAddr> = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)))
        .flat_map(|lookup| addresses(&lookup))
        .collect();
    if found.is_empty() && name.is_localhost() {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    (!found.is_empty()).then_some(found)
}

/// The IPv4 and the IPv6 addresses among those that the system knows.
pub(super) fn records_of_system(addresses: impl IntoIterator<Item = IpAddr>) -> [Records; 2] {
    let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
    [v4, v6].map(|addresses| Records { addresses, ttl: STATIC_TTL, exists: true })
}

pub(super) fn unreachable(name: impl std::fmt::Display, reason: &str) -> ResolveError {
    ResolveError::new(FailureKind::Unreachable, format!("cannot resolve `{name}`: {reason}"))
}

pub(super) fn addresses(lookup: &Lookup) -> BTreeSet<IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}
