//! What is dialled directly although there is a proxy: the rules of `NO_PROXY`.

use std::net::{IpAddr, SocketAddr};

/// The endpoints that are dialled directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exempt {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Everything,
    /// Loopback addresses, and the name `localhost`.
    Loopback,
    Network {
        address: IpAddr,
        prefix: u32,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    Name {
        name: String,
        includes_itself: bool,
        port: Option<u16>,
    },
}

impl Exempt {
    /// What never leaves this machine.
    pub(super) fn loopback() -> Self {
        Self { rules: vec![Rule::Loopback] }
    }

    /// Takes in a list in the form of `NO_PROXY`.
    pub(super) fn add(&mut self, list: &str) {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        self.rules.extend(entries.filter_map(|entry| Rule::parse(&entry.to_ascii_lowercase())));
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.rules.extend(other.rules);
    }

    /// Whether `address`, an endpoint of a channel whose authority has the host `name`, is dialled directly.
    pub(super) fn spares(&self, name: &str, address: SocketAddr) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.rules.iter().any(|rule| rule.matches(&name, address.ip().to_canonical(), address.port()))
    }
}

impl Rule {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some(network) = parse_network(entry) {
            return Some(network);
        }
        let (host, port) = split_port(entry);
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Self::Address { address: address.to_canonical(), port });
        }
        let below = host.strip_prefix('*').unwrap_or(host);
        let name = below.trim_start_matches('.').trim_end_matches('.');
        let includes_itself = !below.starts_with('.');
        (!name.is_empty()).then(|| Self::Name { name: name.to_owned(), includes_itself, port })
    }

    fn matches(&self, name: &str, ip: IpAddr, to: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Loopback => ip.is_loopback() || name == "localhost",
            Self::Network { address, prefix } => leading_bits(*address, *prefix) == leading_bits(ip, *prefix),
            Self::Address { address, port } => *address == ip && port.is_none_or(|port| port == to),
            Self::Name { name: wanted, includes_itself, port } => {
                let above = name.strip_suffix(wanted.as_str());
                let is_below =
                    above.is_some_and(|above| above.ends_with('.') || (above.is_empty() && *includes_itself));
                is_below && port.is_none_or(|port| port == to)
            }
        }
    }
}

fn parse_network(entry: &str) -> Option<Rule> {
    let (address, prefix) = entry.split_once('/')?;
    let (address, prefix): (IpAddr, u32) = (address.parse().ok()?, prefix.parse().ok()?);
    let widest = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= widest).then_some(Rule::Network { address, prefix })
}

/// The host of an entry, and its port if it has one.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        // More colons are of an IPv6 address, unless that stands in brackets.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

/// The first bits of an address, and which family they are of.
fn leading_bits(ip: IpAddr, prefix: u32) -> (bool, u128) {
    match ip {
        IpAddr::V4(ip) => (true, u128::from(ip.to_bits().checked_shr(32_u32.saturating_sub(prefix)).unwrap_or(0))),
        IpAddr::V6(ip) => (false, ip.to_bits().checked_shr(128_u32.saturating_sub(prefix)).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spares(list: &str, name: &str, address: &str) -> bool {
        let mut exempt = Exempt::default();
        exempt.add(list);
        exempt.spares(name, address.parse().unwrap())
    }

    #[test]
    fn names_exempt_themselves_and_what_is_below_them() {
        for (list, name, expected) in [
            ("example.com", "example.com", true),
            ("example.com", "a.example.com", true),
            ("Example.COM", "A.EXAMPLE.com.", true),
            ("example.com", "badexample.com", false),
            ("example.com", "example.com.evil", false),
            (".example.com", "a.example.com", true),
            (".example.com", "example.com", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("example.com:443", "example.com", true),
            ("example.com:80", "example.com", false),
            (" a.test , example.com ", "example.com", true),
            ("*", "anything", true),
            ("", "anything", false),
            (",,.,", "anything", false),
        ] {
            assert_eq!(spares(list, name, "192.0.2.1:443"), expected, "{list:?} for {name}");
        }
    }

    #[test]
    fn addresses_are_exempt_alone_by_port_or_by_network() {
        for (list, address, expected) in [
            ("192.0.2.1", "192.0.2.1:443", true),
            ("192.0.2.1:443", "192.0.2.1:443", true),
            ("192.0.2.1:80", "192.0.2.1:443", false),
            ("192.0.2.1", "[::ffff:192.0.2.1]:443", true),
            ("2001:db8::1", "[2001:db8::1]:443", true),
            ("[2001:db8::1]:443", "[2001:db8::1]:443", true),
            ("[2001:db8::1]:80", "[2001:db8::1]:443", false),
            ("10.0.0.0/8", "10.255.0.1:443", true),
            ("10.0.0.0/8", "11.0.0.1:443", false),
            ("0.0.0.0/0", "192.0.2.1:443", true),
            ("0.0.0.0/0", "[2001:db8::1]:443", false),
            ("::/0", "[2001:db8::1]:443", true),
            ("2001:db8::/32", "[2001:db8:1::1]:443", true),
            ("2001:db8::/32", "[2001:db9::1]:443", false),
            ("10.0.0.1/32", "10.0.0.2:443", false),
            ("10.0.0.0/33", "10.0.0.0:443", false),
        ] {
            assert_eq!(spares(list, "a.test", address), expected, "{list:?} for {address}");
        }
    }

    #[test]
    fn what_never_leaves_the_machine_is_exempt_by_address_or_name() {
        let loopback = |name, address: &str| Exempt::loopback().spares(name, address.parse().unwrap());
        assert!(loopback("a.test", "127.9.9.9:1") && loopback("a.test", "[::1]:1"));
        assert!(loopback("localhost", "192.0.2.1:1") && !loopback("a.test", "192.0.2.1:1"));
    }
}
