//! What no single value can be wrong about: names, ports and dependencies that must fit together.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{CheckKind, File, Proxy, Service, Upstream, document::Document, nearest::suggest};

pub(crate) fn validate(document: &Document<'_>, file: &File) {
    let names: Vec<&str> = document.names("service");
    for (name, service) in &file.services {
        check_name(document, "service", name);
        check_numbers(document, name, service);
        check_port(document, name, service);
        check_addresses(document, name, service);
        check_dependencies(document, name, service, &names);
    }
    for (name, proxy) in &file.proxies {
        check_name(document, "proxy", name);
        check_upstream(document, name, proxy, file, &names);
        check_failover(document, name, proxy);
        check_backend_tls(document, name, proxy);
        check_limits(document, name, proxy);
    }
    check_ports_apart(document, &file.services);
    check_listeners_apart(document, file);
    if let Some(cycle) = cycle(&file.services) {
        let message = format!("services wait for each other: {}", cycle.join(" after "));
        document.refuse_at(&["service", cycle[0], "after"], message, "; take one `after` out".to_owned());
    }
}

/// Names stand in commands (`NAME/REPLICA`), file names and prefixes of lines.
fn check_name(document: &Document<'_>, section: &str, name: &str) {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        let message = format!("{name:?} is no name for a {section}");
        document.refuse_at(&[section, name], message, ": letters, digits, `-`, `_` and `.` are allowed".to_owned());
    }
}

fn check_numbers(document: &Document<'_>, name: &str, service: &Service) {
    let refuse = |key: &str, message: &str| {
        document.refuse_at(&["service", name, key], format!("`service.{name}.{key}` {message}"), String::new());
    };
    if service.command.is_empty() {
        refuse("command", "is empty");
    }
    for (key, number) in [("replicas", service.replicas), ("max_unavailable", service.max_unavailable)] {
        if number == 0 {
            refuse(key, "is 0; the least is 1");
        }
    }
    // Either would end every start as soon as it was made.
    for (key, duration) in [("start_timeout", Some(service.start_timeout)), ("watchdog", service.watchdog)] {
        if duration == Some(Duration::ZERO) {
            refuse(key, "is 0, which no process can meet");
        }
    }
    if service.backoff.initial.is_zero() {
        refuse("backoff", "has an `initial` of 0: what fails at once would be started again without a pause");
    }
    if service.slots() > 1_000 {
        refuse("replicas", "and `standby` together are more than 1000");
    }
    if !(0.0..=1.0).contains(&service.backoff.jitter) || service.backoff.multiplier.is_nan() {
        refuse("backoff", "has a `jitter` outside 0 to 1, or a `multiplier` that is no number");
    }
    if service.crash_loop.exits == 0 {
        refuse("crash_loop", "has `exits = 0`; the least is 1");
    }
    let check = service.check();
    if check.interval == Duration::ZERO || check.timeout == Duration::ZERO || check.rise == 0 || check.fall == 0 {
        refuse("check", "has an `interval`, `timeout`, `rise` or `fall` of 0");
    }
    if check.kind != CheckKind::None && service.address().is_none() && check.address.is_none() {
        refuse("check", "has nowhere to ask: give the service a `port` or an `address`, or the check an `address`");
    }
}

fn check_port(document: &Document<'_>, name: &str, service: &Service) {
    let uses_port = |text: &String| text.contains("{port}");
    let check = service.check.as_ref().and_then(|check| check.address.as_ref());
    let used = service.args.iter().chain(service.environment.values()).chain(&service.address).chain(check);
    let used = used.into_iter().any(uses_port);
    if used && service.port.is_none() {
        let message = format!("`{{port}}` is used in [service.{name}], which has no `port`");
        document.refuse_at(&["service", name], message, ": add `port = 50051`, or `port = 0` for any".to_owned());
    }
    let last = u64::from(service.port.unwrap_or(0)) + u64::from(service.slots());
    if service.port.is_some_and(|port| port != 0) && last > 1 << 16 {
        let message = format!("`service.{name}.port` leaves no port for each replica");
        document.refuse_at(&["service", name, "port"], message, ": the last is 65535".to_owned());
    }
}

fn check_addresses(document: &Document<'_>, name: &str, service: &Service) {
    let check = service.check.as_ref().and_then(|check| check.address.as_deref());
    for (key, address) in [("address", service.address()), ("check.address", check)] {
        let Some(address) = address else { continue };
        let filled = Service::fill(address, name, 0, Some(1));
        if !filled.starts_with("unix:") && filled.parse::<SocketAddr>().is_err() {
            let message = format!("`service.{name}.{key}`: {address:?} is no address");
            let advice = ": write ADDR:PORT, such as \"127.0.0.1:{port}\", or unix:PATH".to_owned();
            let path: Vec<&str> = ["service", name].into_iter().chain(key.split('.')).collect();
            document.refuse_at(&path, message, advice);
        }
    }
}

fn check_dependencies(document: &Document<'_>, name: &str, service: &Service, names: &[&str]) {
    for unknown in service.after.iter().filter(|after| !names.contains(&after.as_str())) {
        let message = format!("`service.{name}.after` names no service of this file: `{unknown}`");
        let others: Vec<&str> = names.iter().copied().filter(|other| *other != name).collect();
        document.refuse_at(&["service", name, "after"], message, suggest(unknown, &others));
    }
}

fn check_upstream(document: &Document<'_>, name: &str, proxy: &Proxy, file: &File, names: &[&str]) {
    match proxy.upstream() {
        Some(Upstream::Service(service)) if !names.contains(&service) => {
            let message = format!("`proxy.{name}.service` names no service of this file: `{service}`");
            document.refuse_at(&["proxy", name, "service"], message, suggest(service, names));
        }
        Some(Upstream::Service(service)) if file.services.get(service).is_some_and(|s| s.address().is_none()) => {
            let message = format!("`proxy.{name}.service` is `{service}`, which takes no calls");
            document.refuse_at(&["proxy", name, "service"], message, ": give it a `port` or an `address`".to_owned());
        }
        Some(Upstream::Service(_)) if !proxy.standby.is_empty() => {
            let message = format!("`proxy.{name}.standby` is for a `target`");
            document.refuse_at(&["proxy", name, "standby"], message, "; a service has its own `standby`".to_owned());
        }
        Some(_) => {}
        None => {
            let message = format!("[proxy.{name}] needs one of `service` and `target`");
            document.refuse_at(&["proxy", name], message, String::new());
        }
    }
}

fn check_failover(document: &Document<'_>, name: &str, proxy: &Proxy) {
    let Some(failover) = &proxy.failover else { return };
    let refuse = |key: &str, message: &str, advice: &str| {
        let message = format!("`proxy.{name}.failover{key}` {message}");
        document.refuse_at(&["proxy", name, "failover", key.trim_start_matches('.')], message, advice.to_owned());
    };
    if let Some(factor) = failover.overprovisioning_factor.filter(|factor| *factor < 100) {
        refuse(".overprovisioning_factor", &format!("is {factor}, in percent"), "; the least is 100");
    }
    if failover.failover_timeout == Some(Duration::ZERO) {
        refuse(".failover_timeout", "is 0", "; it must be above that");
    }
    if let Some(percent) = failover.panic_threshold.filter(|percent| *percent > 100) {
        refuse(".panic_threshold", &format!("is {percent}, in percent"), "; the most is 100");
    }
    if let Some(policy @ ("failover" | "priority")) = proxy.policy.as_deref() {
        let advice =
            format!("; take `policy` out, or name one that works within each group, which `{policy}` does not");
        refuse("", &format!("and `policy = \"{policy}\"` exclude each other"), &advice);
    }
}

fn check_backend_tls(document: &Document<'_>, name: &str, proxy: &Proxy) {
    let Some(tls) = &proxy.backend_tls else { return };
    let (there, missing) = match (&tls.cert, &tls.key) {
        (Some(_), None) => ("cert", "key"),
        (None, Some(_)) => ("key", "cert"),
        _ => return,
    };
    let message = format!("`proxy.{name}.backend_tls.{there}` needs a `{missing}`");
    document.refuse_at(&["proxy", name, "backend_tls", there], message, "; they belong together".to_owned());
}

/// HTTP/2 and gRPC have no room for more, and without any of these there would be no calls.
fn check_limits(document: &Document<'_>, name: &str, proxy: &Proxy) {
    let refuse = |path: &[&str], message: String, advice: String| {
        let path = [&["proxy", name], path].concat();
        document.refuse_at(&path, format!("`{}` {message}", path.join(".")), advice);
    };
    if let Some(workers) = proxy.workers.filter(|workers| !(1..=1_024).contains(workers)) {
        refuse(&["workers"], format!("is {workers}"), ": it can be 1 to 1024".to_owned());
    }
    let limits = &proxy.limits;
    let numbers = [
        ("connections", limits.connections.map(u64::from), 1, u64::from(u32::MAX)),
        ("max_concurrent_streams", limits.max_concurrent_streams.map(u64::from), 1, i32::MAX as u64),
        ("max_header_list", limits.max_header_list, 1_024, u64::from(u32::MAX)),
        ("max_header_count", limits.max_header_count.map(u64::from), 8, u64::from(u32::MAX)),
        ("max_message", limits.max_message, 1, i32::MAX as u64),
        ("endpoint_connections", limits.endpoint_connections.map(u64::from), 1, u64::from(u32::MAX)),
    ];
    for (key, number, least, most) in numbers {
        if let Some(number) = number.filter(|number| !(least..=most).contains(number)) {
            refuse(&["limits", key], format!("is {number}"), format!(": it can be {least} to {most}"));
        }
    }
    for (key, time) in [("handshake_timeout", limits.handshake_timeout), ("header_timeout", limits.header_timeout)] {
        if time == Some(Duration::ZERO) {
            refuse(&["limits", key], "is 0".to_owned(), "; it must be above that".to_owned());
        }
    }
}

/// Two services on one port would make each other's replicas fail to start.
fn check_ports_apart(document: &Document<'_>, services: &BTreeMap<String, Service>) {
    let fixed = |(name, service): (&'_ String, &Service)| {
        let first = u64::from(service.port.filter(|port| *port != 0)?);
        let surge = u64::from(service.surges());
        Some((first, first + u64::from(service.slots()) + surge, name.clone()))
    };
    let mut ranges: Vec<_> = services.iter().filter_map(fixed).collect();
    ranges.sort();
    for pair in ranges.windows(2) {
        let [(_, end, before), (first, _, name)] = pair else { continue };
        if first < end {
            let message = format!("`service.{name}.port` is {first}, which a replica of `{before}` has");
            document.refuse_at(&["service", name, "port"], message, format!(": {end} is the next after them"));
        }
    }
}

/// A proxy on the port of another, or of a replica, would keep one of them from starting.
fn check_listeners_apart(document: &Document<'_>, file: &File) {
    let mut taken: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for (name, service) in &file.services {
        for replica in 0..service.slots().min(1_000) {
            let port = service.port.and_then(|port| port.checked_add(u16::try_from(replica).ok()?));
            let address = service.address().map(|address| Service::fill(address, name, replica, port));
            let fixed = address.and_then(|address| address.parse().ok()).filter(|_| service.port != Some(0));
            taken.extend(fixed.map(|address| (address, format!("a replica of `{name}`"))));
        }
    }
    for (name, proxy) in file.proxies.iter().filter(|(_, proxy)| proxy.listen.port() != 0) {
        if let Some(other) = taken.insert(proxy.listen, format!("[proxy.{name}]")) {
            let message = format!("`proxy.{name}.listen` is {}, where {other} takes calls", proxy.listen);
            document.refuse_at(&["proxy", name, "listen"], message, ": give it another port".to_owned());
        }
    }
}

/// Services that wait for each other, the first repeated at the end.
fn cycle(services: &BTreeMap<String, Service>) -> Option<Vec<&str>> {
    let mut done = Vec::new();
    services.keys().find_map(|name| follow(services, name, &mut Vec::new(), &mut done))
}

fn follow<'a>(
    services: &'a BTreeMap<String, Service>,
    name: &'a str,
    path: &mut Vec<&'a str>,
    done: &mut Vec<&'a str>,
) -> Option<Vec<&'a str>> {
    if let Some(start) = path.iter().position(|before| *before == name) {
        return Some([&path[start..], &[name]].concat());
    }
    if done.contains(&name) {
        return None;
    }
    path.push(name);
    let after = services.get(name).map_or(&[][..], |service| &service.after);
    let found = after.iter().find_map(|next| follow(services, next, path, done));
    path.pop();
    done.push(name);
    found
}
