use std::net::Ipv6Addr;

use hickory_resolver::proto::rr::Name;

use super::{
    answer::{Answer, Instance, of_system, unreachable},
    servers::Servers,
};
use crate::{
    Options, ResolveError, interface,
    target::{Host, HostPort, Scope},
};

/// Looks up what a target asks for. `Err` says that nothing is known at all.
pub(super) async fn look_up(asked: &HostPort, options: &Options) -> Result<Answer, ResolveError> {
    match &asked.host {
        Host::Ip(ip) => Ok(Answer::of_system(Instance::new(asked.name(), asked.port()), [*ip])),
        Host::Scoped(ip, scope) => scoped(*ip, scope, asked),
        Host::Name(host) => {
            let name = parse(host)?;
            match of_system(&name) {
                Some(addresses) => Ok(Answer::of_system(Instance::new(host, asked.port()), addresses)),
                None => Servers::for_name(host, options)?.search(&name, Some(asked.port())).await,
            }
        }
        Host::Service(service) => Servers::for_name(service, options)?.search(&parse(service)?, None).await,
    }
}

fn parse(name: &str) -> Result<Name, ResolveError> {
    Name::from_ascii(name).map_err(|error| unreachable(name, &error.to_string()))
}

fn scoped(ip: Ipv6Addr, scope: &Scope, asked: &HostPort) -> Result<Answer, ResolveError> {
    let number = match scope {
        Scope::Number(number) => *number,
        Scope::Interface(name) => interface::number_of(name)
            .map_err(|error| unreachable(asked.name(), &format!("network interface `{name}`: {error}")))?,
    };
    let instance = Instance { scope: number.get(), ..Instance::new(asked.name(), asked.port()) };
    Ok(Answer::of_system(instance, [ip.into()]))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use super::*;

    fn options() -> Options {
        Options { servers: vec![([127, 0, 0, 1], 9).into()], ..Options::default() }
    }

    async fn found(target: &str) -> BTreeSet<IpAddr> {
        let answer = look_up(&crate::target::host_port(target).unwrap(), &options()).await.unwrap();
        assert!(answer.is_decisive() && answer.config.is_none(), "{answer:?}");
        answer.hosts.into_values().flat_map(|records| records.unwrap().addresses).collect()
    }

    #[tokio::test]
    async fn localhost_needs_no_server() {
        for name in ["localhost:1", "LOCALHOST.", "a.localhost"] {
            assert!(found(name).await.iter().all(IpAddr::is_loopback), "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_scope_is_looked_up_among_the_interfaces() {
        assert_eq!(found("[fe80::1%lo]:80").await, ["fe80::1".parse().unwrap()].into());
        let missing = crate::target::host_port("[fe80::1%nosuch]:80").unwrap();
        let error = look_up(&missing, &options()).await.unwrap_err();
        assert!(error.message.contains("`[fe80::1%25nosuch]`: network interface `nosuch`"), "{error}");
    }
}
