mod parse;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    num::NonZeroU32,
    path::PathBuf,
};

#[cfg(test)]
pub(crate) use self::parse::host_port;
pub use self::parse::{TargetError, TargetProblem};

/// The port of a host that was written without one (gRPC naming).
const DEFAULT_PORT: u16 = 443;

/// What a channel is to reach: a parsed gRPC target.
///
/// | form | resolves |
/// |---|---|
/// | `dns:///host:port`, `dns:host:port` | the name's A and AAAA records, again whenever their TTL ends |
/// | `dns://server/host:port` | the same, asking the DNS server at `server`: an IP address, port 53 unless given |
/// | `host:port` | the same as `dns:///host:port` |
/// | `dns:///_grpc._tcp.name` | the name's SRV records, and the addresses of what they name: see below |
/// | `ipv4:a.b.c.d:port,…` | these addresses, once |
/// | `ipv6:[a::b]:port,…` | these addresses, once |
/// | `host:port,host:port,…` | each: names by DNS, addresses as they are; the endpoints are the union |
/// | `unix:path`, `unix:///absolute/path` | a Unix-domain socket |
/// | `unix-abstract:name` | a socket in Linux's abstract namespace, the name written without its zero byte |
/// | `file:path`, `file:///absolute/path` | the endpoints of a JSON file, again whenever it changes: see [`Resolution::from_json`](crate::Resolution::from_json) |
///
/// Ports default to 443. Schemes are case-insensitive. [`Display`](fmt::Display) writes a target that parses to an
/// equal one.
///
/// **Search lists.** A name that ends in a dot is absolute. Others are looked up in the domains of the search list too,
/// before or after the name itself as `ndots` has it (resolv.conf(5)).
///
/// **SRV records** (RFC 2782) are looked up where a name's first label begins with `_`; such a name takes no port. Each
/// address of each record's target is an endpoint with the record's port and weight, 0 counting as 1. Its
/// [priority](evenkeel_balance::Endpoint::priority) is the record's rank among the priorities present, 0 being the
/// first. grpc-go looks SRV up for its retired `grpclb` only; here the target asks for it.
///
/// **Scopes.** An IPv6 address may have the scope that link-local addresses need: the name or number of a network
/// interface, as `[fe80::1%eth0]:80` or as URIs escape it, `[fe80::1%25eth0]:80`. After `%`, `25` is always the escape
/// unless nothing follows it. A name is looked up again when connections fail.
///
/// **Abstract sockets** may also be written `unix-abstract:///name`; as in grpc-go, that name has a leading slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub(crate) place: Place,
}

/// Where a target points.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// `hosts` is never empty, and holds exactly one host where there is a `server`.
    Hosts { server: Option<SocketAddr>, hosts: Vec<HostPort> },
    /// Never empty.
    Unix(PathBuf),
    /// Never empty.
    UnixAbstract(String),
    /// Never empty.
    File(PathBuf),
}

impl Target {
    /// The `:authority` of calls to this target, unless a user sets another: the host and port as written, of a list
    /// the first; of a service its name without the labels that begin with `_`; `localhost` for a Unix socket or a
    /// file. A scope is left out: it means something to this machine alone (RFC 6874).
    ///
    /// Always one valid authority: servers reset calls that name a whole list or a path.
    ///
    /// ```
    /// # use evenkeel_naming::Target;
    /// let target: Target = "dns://127.0.0.1:5353/db.example:5432".parse()?;
    /// assert_eq!(target.authority(), "db.example:5432");
    /// # Ok::<(), evenkeel_naming::TargetError>(())
    /// ```
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Hosts { hosts, .. } => hosts[0].authority(),
            Place::Unix(_) | Place::UnixAbstract(_) | Place::File(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) if path.is_absolute() => write!(f, "unix://{}", path.display()),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            // After `//` the name begins with its own slash.
            Place::UnixAbstract(name) if name.starts_with('/') => write!(f, "unix-abstract://{name}"),
            Place::UnixAbstract(name) => write!(f, "unix-abstract:{name}"),
            Place::File(path) if path.is_absolute() => write!(f, "file://{}", path.display()),
            Place::File(path) => write!(f, "file:{}", path.display()),
            Place::Hosts { server: Some(server), hosts } => write!(f, "dns://{server}/{}", hosts[0]),
            Place::Hosts { server: None, hosts } => {
                f.write_str(list_prefix(hosts))?;
                for (i, host) in hosts.iter().enumerate() {
                    let separator = if i > 0 { "," } else { "" };
                    write!(f, "{separator}{host}")?;
                }
                Ok(())
            }
        }
    }
}

fn list_prefix(hosts: &[HostPort]) -> &'static str {
    let all = |wanted: fn(&Host) -> bool| hosts.iter().all(|host| wanted(&host.host));
    if all(|host| matches!(host, Host::Ip(IpAddr::V4(_)))) {
        "ipv4:"
    } else if all(|host| matches!(host, Host::Ip(IpAddr::V6(_)) | Host::Scoped(..))) {
        "ipv6:"
    } else if hosts.len() == 1 {
        "dns:///"
    } else {
        ""
    }
}

/// A host as written, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    pub(crate) host: Host,
    port: Option<u16>,
}

/// What is asked to be reached: an address, or a name to look up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Ip(IpAddr),
    Scoped(Ipv6Addr, Scope),
    Name(String),
    /// A name with SRV records; its first label begins with `_`. It has no port of its own.
    Service(String),
}

/// The network interface that a link-local address is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Number(NonZeroU32),
    Interface(String),
}

impl HostPort {
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }

    /// `None` where something is to be looked up: a name, or the number of an interface.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Ip(ip) => Some(SocketAddr::new(*ip, self.port())),
            Host::Scoped(ip, Scope::Number(number)) => {
                Some(SocketAddrV6::new(*ip, self.port(), 0, number.get()).into())
            }
            Host::Scoped(_, Scope::Interface(_)) | Host::Name(_) | Host::Service(_) => None,
        }
    }

    /// As written, without the port.
    pub(crate) fn name(&self) -> String {
        Self { host: self.host.clone(), port: None }.to_string()
    }

    fn authority(&self) -> String {
        match &self.host {
            Host::Scoped(ip, _) => Self { host: Host::Ip((*ip).into()), port: self.port }.to_string(),
            Host::Service(name) => domain_of_service(name).to_owned(),
            Host::Ip(_) | Host::Name(_) => self.to_string(),
        }
    }
}

/// `echo.example` of `_grpc._tcp.echo.example`; the whole name if each of its labels is of that kind.
fn domain_of_service(name: &str) -> &str {
    let mut domain = name;
    while let Some(("", _)) = domain.split_once('_') {
        match domain.split_once('.') {
            Some((_, rest)) if !rest.is_empty() => domain = rest,
            _ => return name,
        }
    }
    domain
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}")?,
            Host::Scoped(ip, scope) => write!(f, "[{ip}%25{scope}]")?,
            Host::Name(name) | Host::Service(name) => f.write_str(name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Target {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn equal_forms_are_equal_and_display_is_canonical() {
        for (text, display, authority) in [
            ("dns:///db.example:5432", "dns:///db.example:5432", "db.example:5432"),
            ("dns:db.example:5432", "dns:///db.example:5432", "db.example:5432"),
            ("DNS:/db.example", "dns:///db.example", "db.example"),
            ("localhost:80", "dns:///localhost:80", "localhost:80"),
            ("db.example.", "dns:///db.example.", "db.example."),
            ("dns:///my_svc:1", "dns:///my_svc:1", "my_svc:1"),
            ("dns://10.0.0.1/a:1", "dns://10.0.0.1:53/a:1", "a:1"),
            ("dns://[::1]:5353/a", "dns://[::1]:5353/a", "a"),
            ("ipv4:10.0.0.1:80,10.0.0.2", "ipv4:10.0.0.1:80,10.0.0.2", "10.0.0.1:80"),
            ("10.0.0.1:80", "ipv4:10.0.0.1:80", "10.0.0.1:80"),
            ("dns:///10.0.0.1:80", "ipv4:10.0.0.1:80", "10.0.0.1:80"),
            ("ipv6:[0:0::1]:80", "ipv6:[::1]:80", "[::1]:80"),
            ("ipv6:2001:db8::1", "ipv6:[2001:db8::1]", "[2001:db8::1]"),
            ("::1", "ipv6:[::1]", "[::1]"),
            ("[::1]:80,10.0.0.1:80", "[::1]:80,10.0.0.1:80", "[::1]:80"),
            ("a:1,10.0.0.1:2,b", "a:1,10.0.0.1:2,b", "a:1"),
            ("dns:///_grpc._tcp.a.example", "dns:///_grpc._tcp.a.example", "a.example"),
            ("_grpc._tcp.a.example.", "dns:///_grpc._tcp.a.example.", "a.example."),
            ("_grpc._tcp", "dns:///_grpc._tcp", "_grpc._tcp"),
            ("_grpc._tcp.a,b:1", "_grpc._tcp.a,b:1", "a"),
            ("dns:///[fe80::1%eth0]:80", "ipv6:[fe80::1%25eth0]:80", "[fe80::1]:80"),
            ("ipv6:[fe80::1%25lo]:80", "ipv6:[fe80::1%25lo]:80", "[fe80::1]:80"),
            ("ipv6:fe80::1%2", "ipv6:[fe80::1%252]", "[fe80::1]"),
            ("[fe80::1%25]:80", "ipv6:[fe80::1%2525]:80", "[fe80::1]:80"),
            ("fe80::1%25251", "ipv6:[fe80::1%25251]", "[fe80::1]"),
            ("unix-abstract:a b", "unix-abstract:a b", "localhost"),
            ("UNIX-abstract:/a", "unix-abstract:///a", "localhost"),
            ("unix-abstract:///a", "unix-abstract:///a", "localhost"),
            ("unix-abstract:////a", "unix-abstract:////a", "localhost"),
            ("file:run/a.json", "file:run/a.json", "localhost"),
            ("file:/run/a.json", "file:///run/a.json", "localhost"),
            ("file:///run/a.json", "file:///run/a.json", "localhost"),
            ("unix:run/a.sock", "unix:run/a.sock", "localhost"),
            ("unix:/run/a.sock", "unix:///run/a.sock", "localhost"),
            ("unix:///run/a.sock", "unix:///run/a.sock", "localhost"),
        ] {
            let target = parse(text);
            assert_eq!(target.to_string(), display, "{text}");
            assert_eq!(parse(display), target, "{text}");
            assert_eq!(target.authority(), authority, "{text}");
        }
    }

    async fn resolve(text: &str) -> Vec<String> {
        let resolution = crate::start(parse(text).resolver(&crate::Options::default())).next().await.unwrap().unwrap();
        resolution.endpoints.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn addresses_and_sockets_resolve_as_written_without_duplicates() {
        assert_eq!(resolve("ipv4:10.0.0.2:80,10.0.0.1,10.0.0.2:80").await, ["10.0.0.2:80", "10.0.0.1:443"]);
        assert_eq!(resolve("[::1]:80,10.0.0.1:80").await, ["[::1]:80", "10.0.0.1:80"]);
        assert_eq!(resolve("dns://127.0.0.1:1/10.0.0.1:80").await, ["10.0.0.1:80"]);
        assert_eq!(resolve("unix:/run/a.sock").await, ["unix:/run/a.sock"]);
        assert_eq!(resolve("unix-abstract:a").await, ["unix-abstract:a"]);
        assert_eq!(resolve("[fe80::1%7]:80").await, ["[fe80::1%7]:80"]);
    }

    fn name() -> impl Strategy<Value = String> {
        "[a-zA-Z][a-zA-Z0-9_-]{0,9}(\\.[a-zA-Z][a-z0-9-]{0,5}){0,3}\\.?"
    }

    fn host() -> impl Strategy<Value = Host> {
        prop_oneof![
            name().prop_map(Host::Name),
            any::<IpAddr>().prop_map(Host::Ip),
            (any::<Ipv6Addr>(), scope()).prop_map(|(ip, scope)| Host::Scoped(ip, scope)),
        ]
    }

    fn scope() -> impl Strategy<Value = Scope> {
        prop_oneof![
            any::<NonZeroU32>().prop_map(Scope::Number),
            "[a-z@._-][a-z0-9@._-]{0,14}".prop_map(Scope::Interface)
        ]
    }

    fn host_port() -> impl Strategy<Value = HostPort> {
        prop_oneof![
            (host(), proptest::option::of(1..=u16::MAX)).prop_map(|(host, port)| HostPort { host, port }),
            "_[a-z]{1,4}\\._(tcp|udp)(\\.[a-z]{1,5}){0,3}\\.?"
                .prop_map(|name| HostPort { host: Host::Service(name), port: None }),
        ]
    }

    fn server() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), 1..=u16::MAX).prop_map(SocketAddr::from)
    }

    fn place() -> impl Strategy<Value = Place> {
        prop_oneof![
            (server(), host_port()).prop_map(|(server, host)| Place::Hosts { server: Some(server), hosts: vec![host] }),
            proptest::collection::vec(host_port(), 1..5).prop_map(|hosts| Place::Hosts { server: None, hosts }),
            "[^\0/][^\0]{0,20}".prop_map(|path| Place::Unix(path.into())),
            "/[^\0]{0,20}".prop_map(|path| Place::Unix(path.into())),
            "[^\0]{1,20}".prop_map(Place::UnixAbstract),
            "[^\0/][^\0]{0,20}".prop_map(|path| Place::File(path.into())),
            "/[^\0]{0,20}".prop_map(|path| Place::File(path.into())),
        ]
    }

    /// Whether no text parses to it: a list whose first item reads as a scheme.
    fn is_unspeakable(place: &Place) -> bool {
        let Place::Hosts { server: None, hosts } = place else { return false };
        let Host::Name(first) = &hosts[0].host else { return false };
        ["dns", "ipv4", "ipv6", "unix", "unix-abstract", "file"].contains(&first.to_lowercase().as_str())
    }

    proptest! {
        #[test]
        fn display_round_trips(place in place().prop_filter("has a text", |place| !is_unspeakable(place))) {
            let target = Target { place };
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
        }

        #[test]
        fn authority_is_always_one_valid_authority(place in place()) {
            let authority = Target { place }.authority();
            let parsed: http::uri::Authority = authority.parse().expect("valid");
            prop_assert!(!parsed.host().is_empty() && !authority.contains(','));
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = text.parse::<Target>().map_err(|error| error.to_string());
        }

        #[test]
        fn almost_targets_never_panic_and_what_parses_round_trips(
            text in "(dns|ipv4|ipv6|unix|unix-abstract|file|x|dsn)?:?/{0,4}[\\[\\]:.,%_a0-9é/-]{0,12}"
        ) {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }
    }
}
