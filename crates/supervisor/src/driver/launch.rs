use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use evenkeel_balance::{Address, CheckSettings};
use evenkeel_checker::{Checker, Probe};
use evenkeel_config::{CheckKind, Limits, Service};

use crate::{
    ReplicaName,
    process::{Command, Limit, Notify, Resource},
};

/// What a replica is started with.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) command: Command,
    /// Where it takes calls.
    pub(super) address: Option<Address>,
    /// Where it is checked.
    check_address: Option<Address>,
}

impl Launch {
    /// Fills in the replica's port, number and name.
    pub(super) fn new(replica: &ReplicaName, service: &Service, taken: &[u16]) -> io::Result<Self> {
        let port = match service.port {
            Some(0) => Some(free_port(taken)?),
            Some(first) => {
                Some(first.checked_add(u16::try_from(replica.number).unwrap_or(u16::MAX)).ok_or_else(|| {
                    io::Error::other(format!("its port would be {first} + {}, beyond 65535", replica.number))
                })?)
            }
            None => None,
        };
        let fill = |text: &str| Service::fill(text, &replica.service, replica.number, port);
        let address = service.address().map(|text| parse_address(&fill(text))).transpose()?;
        let check_address = service.check().address.map(|text| parse_address(&fill(&text))).transpose()?;
        let command = Command {
            args: service.args.iter().map(|text| fill(text)).collect(),
            environment: service.environment.iter().map(|(name, text)| (name.clone(), fill(text))).collect(),
            directory: service.directory.clone(),
            user: service.user.clone(),
            group: service.group.clone(),
            limits: limits(service.limits),
            notify: (service.notify || service.watchdog.is_some()).then_some(Notify { watchdog: service.watchdog }),
            ..Command::new(replica.to_string(), &service.command)
        };
        Ok(Self { command, check_address: check_address.or_else(|| address.clone()), address })
    }

    /// The port that it takes calls on.
    pub(super) fn port(&self) -> Option<u16> {
        match &self.address {
            Some(Address::Tcp(address)) => Some(address.port()),
            _ => None,
        }
    }

    /// Begins to check it, as its service says.
    pub(super) fn check(&self, service: &Service) -> Result<Option<Checker>, String> {
        let check = service.check();
        let probe = match check.kind {
            CheckKind::Grpc => Probe::watch(&check.service),
            CheckKind::Http => Probe::http(&check.path),
            CheckKind::Tcp => Probe::tcp(),
            CheckKind::None => return Ok(None),
        };
        let Some(address) = self.check_address.clone() else { return Ok(None) };
        let prober = probe.at(address).map_err(|error| error.to_string())?;
        let mut settings = CheckSettings::every(check.interval);
        (settings.timeout, settings.rise, settings.fall) = (check.timeout, check.rise, check.fall);
        // A start should be seen as soon as it has succeeded, and these are few.
        settings.failing_interval = settings.failing_interval.min(FAILING_INTERVAL);
        Checker::start(prober, settings).map(Some).map_err(|error| error.to_string())
    }
}

/// How often a replica is checked that does not serve.
const FAILING_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

/// The kernel's choice. Another process may take it before the replica does; then that start fails, and the next one has
/// another port.
fn free_port(taken: &[u16]) -> io::Result<u16> {
    loop {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if !taken.contains(&port) {
            return Ok(port);
        }
    }
}

fn parse_address(text: &str) -> io::Result<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Address::Unix(path.into()));
    }
    let address: Result<SocketAddr, _> = text.parse();
    address.map(Address::Tcp).map_err(|_| io::Error::other(format!("`address` {text:?} is no ADDR:PORT or unix:PATH")))
}

fn limits(limits: Limits) -> BTreeMap<Resource, Limit> {
    let named = [
        (Resource::As, limits.memory),
        (Resource::Nofile, limits.files),
        (Resource::Nproc, limits.processes),
        (Resource::Core, limits.core),
        (Resource::Cpu, limits.cpu.map(|cpu| cpu.as_secs())),
    ];
    named.into_iter().filter_map(|(resource, limit)| Some((resource, Limit::both(limit?)))).collect()
}

#[cfg(test)]
mod tests {
    use evenkeel_config::File;

    use super::*;

    fn launch(toml: &str, number: u32) -> Launch {
        let file = File::parse("test.toml", toml).unwrap();
        let replica = ReplicaName { service: "a".into(), number };
        Launch::new(&replica, &file.services["a"], &[]).unwrap()
    }

    #[test]
    fn ports_numbers_and_names_are_filled_in() {
        let toml = "[service.a]\ncommand = \"x\"\nport = 5000\nargs = [\"-p{port}\", \"{service}-{replica}\"]\n\
                    environment = { P = \"{port}\" }\nreplicas = 3\nlimits = { files = 64, cpu = \"2s\" }\n";
        let launch = launch(toml, 2);
        assert_eq!(launch.command.args, ["-p5002", "a-2"]);
        assert_eq!(launch.command.environment["P"], "5002");
        assert_eq!((launch.command.replica.as_str(), launch.port()), ("a/2", Some(5002)));
        assert_eq!(launch.command.limits[&Resource::Nofile], Limit::both(64));
        assert_eq!(launch.command.limits[&Resource::Cpu], Limit::both(2));
    }

    #[test]
    fn any_free_port_is_another_for_each() {
        let toml = "[service.a]\ncommand = \"x\"\nport = 0\n";
        let (a, b) = (launch(toml, 0), launch(toml, 1));
        assert!(a.port().is_some_and(|port| port != 0) && a.port() != b.port());
    }

    #[test]
    fn unix_sockets_are_addresses_too() {
        let toml = "[service.a]\ncommand = \"x\"\naddress = \"unix:/run/a-{replica}.sock\"\n";
        assert_eq!(launch(toml, 1).address, Some(Address::Unix("/run/a-1.sock".into())));
    }
}
