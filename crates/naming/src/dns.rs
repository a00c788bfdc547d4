mod lookup;
mod watch;

use std::{collections::BTreeSet, net::SocketAddr, pin::Pin};

use evenkeel_balance::Endpoint;
use tokio::{
    sync::{mpsc, watch as latest},
    task::JoinSet,
};

use self::watch::{Addresses, Watch};
use crate::{
    Options, Resolution, ResolveError, Resolver, Updates,
    target::{Host, HostPort},
};

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
        let options = Options { servers, ..options.clone() };
        let mut dns = Self { literals: BTreeSet::new(), watches: Vec::new() };
        for host in hosts {
            match &host.host {
                Host::Ip(ip) => {
                    dns.literals.insert(SocketAddr::new(*ip, host.port()));
                }
                Host::Name(name) => dns.watches.push(Watch::new(name.clone(), host.port(), options.clone())),
            }
        }
        dns
    }
}

impl Resolver for Dns {
    fn run(self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut union = Union::new(self.literals, self.watches.len());
            if !union.addresses().is_empty() {
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

/// What changed about one name: its whole new list, or why it has none.
#[derive(Debug, PartialEq)]
struct Report {
    /// The name's position in the target.
    index: usize,
    outcome: Result<Addresses, ResolveError>,
}

/// The last good list of each name, and the literals.
struct Union {
    literals: Addresses,
    names: Vec<Addresses>,
}

impl Union {
    fn new(literals: Addresses, names: usize) -> Self {
        Self { literals, names: vec![BTreeSet::new(); names] }
    }

    fn apply(&mut self, report: Report) -> Result<Resolution, ResolveError> {
        self.names[report.index] = report.outcome?;
        Ok(self.resolution())
    }

    /// Sorted and without duplicates.
    fn addresses(&self) -> Addresses {
        self.names.iter().chain([&self.literals]).flatten().copied().collect()
    }

    fn resolution(&self) -> Resolution {
        Resolution::new(self.addresses().into_iter().map(Endpoint::new).collect())
    }
}
