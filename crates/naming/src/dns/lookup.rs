use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RecordType},
    },
    system_conf::read_system_conf,
};
use tokio::time::{Instant, timeout_at};

use crate::{FailureKind, Options, ResolveError};

/// How long an answer of the system itself holds; `Options::max_interval` lowers it.
const STATIC_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What one look-up of a name found, for A and AAAA each.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) v4: Result<Records, ResolveError>,
    pub(super) v6: Result<Records, ResolveError>,
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

impl Answer {
    fn failed(error: ResolveError) -> Self {
        Self { v4: Err(error.clone()), v6: Err(error) }
    }

    fn of_system(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        let records = |addresses| Ok(Records { addresses, ttl: STATIC_TTL, exists: true });
        Self { v4: records(v4), v6: records(v6) }
    }

    /// Whether the search list ends here: addresses were found, or a failure leaves open whether there are any.
    fn is_decisive(&self) -> bool {
        [&self.v4, &self.v6].into_iter().any(|family| family.as_ref().map_or(true, |found| !found.addresses.is_empty()))
    }
}

/// Looks a name up: in the hosts file, then at the DNS servers. Addresses of `localhost` never need a server (A10).
///
/// Files of the system are read at every look-up, as C libraries do, so that an edit takes effect without a restart.
/// They are small and local; look-ups are rare.
pub(super) async fn look_up(name: &str, options: &Options) -> Answer {
    let name = match Name::from_ascii(name) {
        Ok(name) => name,
        Err(error) => return Answer::failed(unreachable(name, &error.to_string())),
    };
    if let Some(answer) = in_hosts_file(&name) {
        return answer;
    }
    if name.is_localhost() {
        return Answer::of_system([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    match Servers::new(options) {
        Ok(servers) => servers.search(&name).await,
        Err(error) => Answer::failed(unreachable(name, &format!("cannot read the system's DNS settings: {error}"))),
    }
}

fn in_hosts_file(name: &Name) -> Option<Answer> {
    let hosts = Hosts::from_system().unwrap_or_default();
    let found: Vec<IpAddr> = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)))
        .flat_map(|lookup| addresses(&lookup))
        .collect();
    (!found.is_empty()).then(|| Answer::of_system(found))
}

fn addresses(lookup: &Lookup) -> BTreeSet<IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// The DNS servers, for one look-up.
struct Servers {
    client: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
    /// For messages, such as `10.0.0.1:53, 10.0.0.2:53`.
    names: String,
    timeout: Duration,
}

impl Servers {
    fn new(options: &Options) -> Result<Self, NetError> {
        let (config, mut opts) = if options.servers.is_empty() {
            read_system_conf()?
        } else {
            let servers = options.servers.iter().copied().map(name_server).collect();
            (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
        };
        // Answers are asked for when their TTL ends: a cache could only make them older.
        opts.cache_size = 0;
        // `in_hosts_file` did it, in the order of C libraries: before the search list.
        opts.use_hosts_file = ResolveHosts::Never;
        // Two rounds: the second may go to another server.
        opts.attempts = 1;
        opts.timeout = options.lookup_timeout / 2;
        let (search, ndots, names) = (config.search().to_vec(), opts.ndots, server_names(&config));
        let client =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(opts).build()?;
        Ok(Self { client, search, ndots, names, timeout: options.lookup_timeout })
    }

    /// Asks for each name of the search list in turn. Both families stop at the same name, and a failure stops too:
    /// else a server that stumbles would send calls to whoever owns the name in a wider domain.
    async fn search(&self, name: &Name) -> Answer {
        let deadline = Instant::now() + self.timeout;
        let mut exists = false;
        for candidate in self.candidates(name) {
            let (v4, v6) = tokio::join!(
                self.records(&candidate, RecordType::A, deadline),
                self.records(&candidate, RecordType::AAAA, deadline),
            );
            let answer = Answer { v4, v6 };
            if answer.is_decisive() {
                return answer;
            }
            exists |= [&answer.v4, &answer.v6].into_iter().flatten().any(|records| records.exists);
        }
        let nothing = Ok(Records { addresses: BTreeSet::new(), ttl: Duration::ZERO, exists });
        Answer { v4: nothing.clone(), v6: nothing }
    }

    fn candidates(&self, name: &Name) -> Vec<Name> {
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        if name.is_fqdn() {
            return vec![absolute];
        }
        let searched = self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut candidates: Vec<Name> = searched.filter(|candidate| *candidate != absolute).collect();
        // `ndots` counts dots, of which a name has one fewer than labels.
        let first = usize::from(name.num_labels()) > self.ndots;
        candidates.insert(if first { 0 } else { candidates.len() }, absolute);
        candidates
    }

    async fn records(&self, name: &Name, family: RecordType, deadline: Instant) -> Result<Records, ResolveError> {
        let lookup = timeout_at(deadline, self.client.lookup(name.clone(), family));
        match lookup.await.unwrap_or(Err(NetError::Timeout)) {
            Ok(lookup) => {
                let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
                Ok(Records { addresses: addresses(&lookup), ttl: Duration::from_secs(ttl.into()), exists: true })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))) => Ok(Records {
                addresses: BTreeSet::new(),
                ttl: Duration::ZERO,
                exists: response_code != ResponseCode::NXDomain,
            }),
            Err(error) => Err(self.failure(name, &error)),
        }
    }

    fn failure(&self, name: &Name, error: &NetError) -> ResolveError {
        let name = name.to_string();
        let name = name.trim_end_matches('.');
        let servers = &self.names;
        match error {
            NetError::Timeout => ResolveError::new(
                FailureKind::TimedOut,
                format!("cannot resolve `{name}`: no answer from DNS server {servers} within {:?}", self.timeout),
            ),
            NetError::Dns(DnsError::ResponseCode(code)) => ResolveError::new(
                FailureKind::Server,
                format!(
                    "cannot resolve `{name}`: DNS server {servers} answered {}",
                    format!("{code:?}").to_uppercase()
                ),
            ),
            other => unreachable(name, &format!("DNS server {servers}: {other}")),
        }
    }
}

fn unreachable(name: impl std::fmt::Display, reason: &str) -> ResolveError {
    ResolveError::new(FailureKind::Unreachable, format!("cannot resolve `{name}`: {reason}"))
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn server_names(config: &ResolverConfig) -> String {
    let name = |server: &NameServerConfig| {
        let port = server.connections.first().map_or(0, |connection| connection.port);
        SocketAddr::new(server.ip, port).to_string()
    };
    config.name_servers().iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(name: &str, search: &[&str], ndots: usize) -> Vec<String> {
        let options = Options { servers: vec![([127, 0, 0, 1], 9).into()], ..Options::default() };
        let mut servers = Servers::new(&options).unwrap();
        servers.search = search.iter().map(|domain| Name::from_ascii(domain).unwrap()).collect();
        servers.ndots = ndots;
        servers.candidates(&Name::from_ascii(name).unwrap()).iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn the_search_list_applies_to_names_of_few_dots_first() {
        let search = ["ns.svc.local.", "svc.local."];
        assert_eq!(candidates("web.", &search, 5), ["web."]);
        assert_eq!(candidates("web", &search, 1), ["web.ns.svc.local.", "web.svc.local.", "web."]);
        assert_eq!(candidates("a.b", &search, 1), ["a.b.", "a.b.ns.svc.local.", "a.b.svc.local."]);
        assert_eq!(candidates("a.b", &search, 5), ["a.b.ns.svc.local.", "a.b.svc.local.", "a.b."]);
        assert_eq!(candidates("a.b", &[], 5), ["a.b."]);
    }

    #[tokio::test]
    async fn localhost_needs_no_server() {
        let options = Options { servers: vec![([127, 0, 0, 1], 9).into()], ..Options::default() };
        for name in ["localhost", "LOCALHOST.", "a.localhost"] {
            let answer = look_up(name, &options).await;
            let loopback = |records: &Records| records.addresses.iter().all(IpAddr::is_loopback);
            assert!(answer.is_decisive() && loopback(&answer.v4.unwrap()) && loopback(&answer.v6.unwrap()), "{name}");
        }
    }
}
