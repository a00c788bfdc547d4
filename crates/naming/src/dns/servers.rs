use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType, rdata::SRV},
    },
    system_conf::read_system_conf,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::answer::{Answer, Family, Instance, Records, Texts, of_system, records_of_system, unreachable};
use crate::{FailureKind, Options, ResolveError};

/// How many targets of SRV records are looked up at the same time.
const TARGETS_AT_ONCE: usize = 16;

/// The label under which a name has its service config (gRFC A2).
const CONFIG_LABEL: &str = "_grpc_config";

/// The part of `Options::lookup_timeout` that a service config may delay its endpoints.
const CONFIG_SHARE: u32 = 4;

/// The DNS servers, for one look-up.
#[derive(Clone)]
pub(super) struct Servers {
    client: TokioResolver,
    search: Arc<[Name]>,
    ndots: usize,
    /// For messages, such as `10.0.0.1:53, 10.0.0.2:53`.
    names: String,
    timeout: Duration,
    deadline: Instant,
    /// Whether service configs are asked for.
    configs: bool,
}

impl Servers {
    /// The servers that `name` is looked up at.
    pub(super) fn for_name(name: &str, options: &Options) -> Result<Self, ResolveError> {
        Self::new(options).map_err(|problem| unreachable(name, &problem))
    }

    fn new(options: &Options) -> Result<Self, String> {
        let (config, mut opts) = settings(options)?;
        // Answers are asked for when their TTL ends: a cache could only make them older.
        opts.cache_size = 0;
        // `of_system` did it, in the order of C libraries: before the search list.
        opts.use_hosts_file = ResolveHosts::Never;
        // Two rounds: the second may go to another server.
        opts.attempts = 1;
        opts.timeout = options.lookup_timeout / 2;
        let search = match &options.search {
            Some(domains) => domains.iter().map(|domain| search_domain(domain)).collect::<Result<_, _>>()?,
            None => config.search().into(),
        };
        let (ndots, names) = (options.ndots.unwrap_or(opts.ndots), server_names(&config));
        let client = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(opts);
        Ok(Self {
            client: client.build().map_err(|error| error.to_string())?,
            search,
            ndots,
            names,
            timeout: options.lookup_timeout,
            deadline: Instant::now() + options.lookup_timeout,
            configs: options.service_config,
        })
    }

    /// Asks for each name of the search list in turn: for a host where there is a port to reach it at, else for a
    /// service. All records come from the same name, and a failure ends the search: else a server that stumbles would
    /// send calls to whoever owns the name in a wider domain.
    pub(super) async fn search(&self, name: &Name, port: Option<u16>) -> Result<Answer, ResolveError> {
        let mut exists = false;
        for candidate in self.candidates(name) {
            let mut answer = match port {
                Some(port) => self.host(&candidate, port).await,
                None => self.service(&candidate).await?,
            };
            if self.configs && answer.has_addresses() {
                answer.config = Some(self.config(&candidate).await);
            }
            if answer.is_decisive() {
                return Ok(answer);
            }
            exists |= answer.exists;
        }
        Ok(Answer { exists, ..Answer::default() })
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

    async fn host(&self, name: &Name, port: u16) -> Answer {
        let [v4, v6] = self.families(name).await;
        Answer::of_host(Instance::new(text(name), port), v4, v6)
    }

    /// The instances in the SRV records of `name` (RFC 2782), and their addresses.
    async fn service(&self, name: &Name) -> Result<Answer, ResolveError> {
        let Found { records, ttl, exists } = self.ask(name, RecordType::SRV, self.deadline, as_srv).await?;
        // The target `.` says that the service is not offered here.
        let records: Vec<SRV> = records.into_iter().filter(|record| !record.target.is_root()).collect();
        let targets: BTreeSet<Name> = records.iter().map(|record| record.target.clone()).collect();
        let hosts = self.targets(targets, ttl).await;
        let instances = records.iter().map(instance).collect();
        Ok(Answer { instances, hosts, exists, config: None })
    }

    /// The addresses of each of `targets`, valid no longer than the records that name them.
    async fn targets(
        &self,
        targets: BTreeSet<Name>,
        ttl: Duration,
    ) -> BTreeMap<(String, Family), Result<Records, ResolveError>> {
        let (mut waiting, mut running, mut found) = (targets.into_iter(), JoinSet::new(), BTreeMap::new());
        loop {
            while running.len() < TARGETS_AT_ONCE
                && let Some(target) = waiting.next()
            {
                let servers = self.clone();
                running.spawn(async move { (servers.families_of_target(&target).await, target) });
            }
            let Some(joined) = running.join_next().await else { return found };
            let (families, target) = joined.expect("a look-up neither panics nor is cancelled");
            for (family, records) in [Family::V4, Family::V6].into_iter().zip(families) {
                let bounded = records.map(|records| Records { ttl: records.ttl.min(ttl), ..records });
                found.insert((text(&target), family), bounded);
            }
        }
    }

    async fn families_of_target(&self, target: &Name) -> [Result<Records, ResolveError>; 2] {
        match of_system(target) {
            Some(addresses) => records_of_system(addresses).map(Ok),
            None => self.families(target).await,
        }
    }

    async fn families(&self, name: &Name) -> [Result<Records, ResolveError>; 2] {
        let (v4, v6) = tokio::join!(self.records(name, RecordType::A), self.records(name, RecordType::AAAA));
        [v4, v6]
    }

    async fn records(&self, name: &Name, family: RecordType) -> Result<Records, ResolveError> {
        let found = self.ask(name, family, self.deadline, RData::ip_addr).await?;
        Ok(Records { addresses: found.records.into_iter().collect(), ttl: found.ttl, exists: found.exists })
    }

    /// The TXT records that may have a service config for `name`. They delay its addresses by a part of the time only:
    /// some servers leave questions that they do not understand without an answer.
    async fn config(&self, name: &Name) -> Result<Texts, ResolveError> {
        let deadline = self.deadline.min(Instant::now() + self.timeout / CONFIG_SHARE);
        // A name with no room for one more label has no such record.
        let Ok(name) = name.prepend_label(CONFIG_LABEL) else { return Ok(Texts::default()) };
        let found = self.ask(&name, RecordType::TXT, deadline, as_text).await?;
        let ttl = (!found.records.is_empty()).then_some(found.ttl);
        Ok(Texts { name: text(&name), values: found.records, ttl })
    }

    /// What the servers have for a name, as `read` understands it; that there is nothing is an answer too.
    async fn ask<T>(
        &self,
        name: &Name,
        kind: RecordType,
        deadline: Instant,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Found<T>, ResolveError> {
        let lookup = timeout_at(deadline, self.client.lookup(name.clone(), kind));
        match lookup.await.unwrap_or(Err(NetError::Timeout)) {
            Ok(lookup) => {
                let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
                let records = lookup.answers().iter().filter_map(|record| read(&record.data)).collect();
                Ok(Found { records, ttl: Duration::from_secs(ttl.into()), exists: true })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))) => {
                let exists = response_code != ResponseCode::NXDomain;
                Ok(Found { records: Vec::new(), ttl: Duration::ZERO, exists })
            }
            Err(error) => Err(self.failure(name, &error)),
        }
    }

    fn failure(&self, name: &Name, error: &NetError) -> ResolveError {
        let name = text(name);
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

/// The records of one kind that a name has.
struct Found<T> {
    records: Vec<T>,
    /// The smallest TTL of all records in the answer, aliases included.
    ttl: Duration,
    exists: bool,
}

/// Which servers to ask and how, the system's search list included.
fn settings(options: &Options) -> Result<(ResolverConfig, ResolverOpts), String> {
    let system = read_system_conf();
    if options.servers.is_empty() {
        return system.map_err(|error| format!("cannot read the system's DNS settings: {error}"));
    }
    let servers = options.servers.iter().copied().map(name_server).collect();
    // A machine without DNS settings has no search list either.
    let (domain, search, ndots) = system.map_or_else(
        |_| (None, Vec::new(), 1),
        |(config, opts)| (config.domain().cloned(), config.search().to_vec(), opts.ndots),
    );
    let mut opts = ResolverOpts::default();
    opts.ndots = ndots;
    Ok((ResolverConfig::from_parts(domain, search, servers), opts))
}

fn search_domain(domain: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(domain).map_err(|error| format!("search domain {domain:?}: {error}"))?;
    name.set_fqdn(true);
    Ok(name)
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

fn as_srv(data: &RData) -> Option<SRV> {
    match data {
        RData::SRV(record) => Some(record.clone()),
        _ => None,
    }
}

/// The strings of a TXT record are one text.
fn as_text(data: &RData) -> Option<Vec<u8>> {
    match data {
        RData::TXT(record) => Some(record.txt_data.concat()),
        _ => None,
    }
}

fn instance(record: &SRV) -> Instance {
    let (priority, weight) = (record.priority, record.weight);
    Instance { priority, weight, ..Instance::new(text(&record.target), record.port) }
}

/// Without the last dot.
fn text(name: &Name) -> String {
    name.to_string().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(name: &str, search: &[&str], ndots: usize) -> Vec<String> {
        let options = Options {
            servers: vec![([127, 0, 0, 1], 9).into()],
            search: Some(search.iter().map(ToString::to_string).collect()),
            ndots: Some(ndots),
            ..Options::default()
        };
        let servers = Servers::new(&options).unwrap_or_else(|problem| panic!("{problem}"));
        servers.candidates(&Name::from_ascii(name).unwrap()).iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn the_search_list_applies_to_names_of_few_dots_first() {
        let search = ["ns.svc.local.", "svc.local"];
        assert_eq!(candidates("web.", &search, 5), ["web."]);
        assert_eq!(candidates("web", &search, 1), ["web.ns.svc.local.", "web.svc.local.", "web."]);
        assert_eq!(candidates("a.b", &search, 1), ["a.b.", "a.b.ns.svc.local.", "a.b.svc.local."]);
        assert_eq!(candidates("a.b", &search, 5), ["a.b.ns.svc.local.", "a.b.svc.local.", "a.b."]);
        assert_eq!(candidates("a.b", &[], 5), ["a.b."]);
    }

    #[tokio::test]
    async fn a_search_domain_that_is_none_is_named() {
        let options = Options { search: Some(vec!["a..b".to_owned()]), ..Options::default() };
        let options = Options { servers: vec![([127, 0, 0, 1], 9).into()], ..options };
        let Err(error) = Servers::for_name("web", &options) else { panic!("`a..b` is no domain") };
        assert!(error.message.contains("cannot resolve `web`: search domain \"a..b\""), "{error}");
    }
}
