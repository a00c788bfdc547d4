mod answer;
mod config;
mod lookup;
mod servers;
mod watch;

use std::{cmp::Reverse, collections::BTreeMap, net::SocketAddr, pin::Pin};

use evenkeel_balance::Endpoint;
use tokio::{
    sync::{mpsc, watch as latest},
    task::JoinSet,
};

use self::watch::Watch;
use crate::{Options, Resolution, ResolveError, Resolver, Updates, target::HostPort};

/// Resolves names through DNS: one [`Watch`] a name, and the union of what they and the literals in the list give.
///
/// A list is published as soon as any part of it is known: one broken name does not hold up the others.
pub(crate) struct Dns {
    literals: Addresses,
    watches: Vec<Watch>,
}

impl Dns {
    pub(crate) fn new(server: Option<SocketAddr>, hosts: &[HostPort], options: &Options) -> Self {
        let servers = server.map_or_else(|| options.servers.clone(), |server| vec![server]);
        // A list has no one owner whose config would hold for all.
        let service_config = options.service_config && hosts.len() == 1;
        let options = Options { servers, service_config, ..options.clone() };
        let mut dns = Self { literals: Addresses::new(), watches: Vec::new() };
        for host in hosts {
            match host.address() {
                Some(address) => insert(&mut dns.literals, address, Share { priority: 0, weight: 1 }),
                None => dns.watches.push(Watch::new(host.clone(), options.clone())),
            }
        }
        dns
    }
}

impl Resolver for Dns {
    fn run(self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut union = Union::new(self.literals, self.watches.len());
            if !union.literals.is_empty() {
                updates.send(Ok(union.resolution()));
            }
            let (requests, _) = latest::channel(());
            let (reports, mut news) = mpsc::channel(1);
            // Dropping the set, with this future, stops the watches.
            let mut tasks = JoinSet::new();
            for (index, watch) in self.watches.into_iter().enumerate() {
                tasks.spawn(watch.run(index, requests.subscribe(), reports.clone()));
            }
            drop(reports);
            loop {
                tokio::select! {
                    report = news.recv() => match report {
                        Some(report) => updates.send(union.apply(report)),
                        // Every watch is gone, which only a panic or a stopping runtime does.
                        None => return,
                    },
                    () = updates.requested() => requests.send_modify(|()| ()),
                }
            }
        })
    }
}

/// What changed about one name: all that is known of it now, or why nothing is.
#[derive(Debug, PartialEq)]
struct Report {
    /// The name's position in the target.
    index: usize,
    outcome: Result<Known, ResolveError>,
}

/// What a name resolves to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    addresses: Addresses,
    config: ServiceConfig,
}

/// JSON, or why a config that is there is none.
type ServiceConfig = Option<Result<String, ResolveError>>;

/// What is known of each address.
type Addresses = BTreeMap<SocketAddr, Share>;

/// What an SRV record says of an address; rank 0 and weight 1 without one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    /// The rank of its priority: 0 comes first.
    priority: u32,
    weight: u32,
}

/// Of an address that is named more than once, the best rank counts, and then the largest weight.
fn insert(addresses: &mut Addresses, address: SocketAddr, share: Share) {
    let known = addresses.entry(address).or_insert(share);
    *known = std::cmp::min_by_key(*known, share, |share| (share.priority, Reverse(share.weight)));
}

/// The last good list of each name, and the literals.
struct Union {
    literals: Addresses,
    names: Vec<Known>,
}

impl Union {
    fn new(literals: Addresses, names: usize) -> Self {
        Self { literals, names: vec![Known::default(); names] }
    }

    fn apply(&mut self, report: Report) -> Result<Resolution, ResolveError> {
        self.names[report.index] = report.outcome?;
        Ok(self.resolution())
    }

    fn resolution(&self) -> Resolution {
        let mut resolution = Resolution::new(self.endpoints());
        // Only the one name of a target has its config looked up.
        resolution.service_config = self.names.iter().find_map(|name| name.config.clone());
        resolution
    }

    /// In order of rank, then of address, and without duplicates.
    fn endpoints(&self) -> Vec<Endpoint> {
        let mut union = self.literals.clone();
        for (address, share) in self.names.iter().flat_map(|name| &name.addresses) {
            insert(&mut union, *address, *share);
        }
        let endpoint = |(address, share): (SocketAddr, Share)| {
            Endpoint::new(address).weighted(share.weight).with_priority(share.priority)
        };
        let mut endpoints: Vec<Endpoint> = union.into_iter().map(endpoint).collect();
        endpoints.sort_by_key(|endpoint| endpoint.priority);
        endpoints
    }
}
