use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{Host, HostPort, Place, Scope, Target};
use crate::nearest::nearest;

const SCHEMES: [&str; 6] = ["dns", "ipv4", "ipv6", "unix", "unix-abstract", "file"];

/// Schemes that people write out of habit; what they mean is a name.
const HABITS: [&str; 5] = ["http", "https", "grpc", "grpcs", "tcp"];

/// The longest path that the address of a Unix socket holds on Linux, in bytes.
const LONGEST_UNIX_PATH: usize = 107;

/// The longest name of a network interface on Linux, in bytes.
const LONGEST_INTERFACE: usize = 15;

/// The port of a DNS server that was written without one.
const DNS_PORT: u16 = 53;

/// A text that is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "target {target:?}: {problem}; write `host:port[,host:port…]`, `dns:///host:port`, `dns://server/host:port`, \
     `ipv4:a.b.c.d:port[,…]`, `ipv6:[a::b]:port[,…]`, `unix:path`, `unix:///absolute/path`, `unix-abstract:name`, \
     `file:path` or `file:///absolute/path`"
)]
#[non_exhaustive]
pub struct TargetError {
    /// The whole text.
    pub target: String,
    /// Which part of it is wrong, and why.
    pub problem: TargetProblem,
}

/// What is wrong in a text that is no [`Target`]. Strings are the offending part of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetProblem {
    /// No such scheme.
    #[error("unknown scheme `{scheme}`{}", suggestion.map(|s| format!(": did you mean `{s}`?")).unwrap_or_default())]
    UnknownScheme {
        /// What was written.
        scheme: String,
        /// The known scheme that comes nearest, if one is near.
        suggestion: Option<&'static str>,
    },
    /// Neither a DNS name nor an IP address.
    #[error("{host:?} is no host: {reason}")]
    Host {
        /// What was written.
        host: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// Not a port.
    #[error("{port:?} is no port: a port is a number from 1 to 65535")]
    Port {
        /// What was written.
        port: String,
    },
    /// Another kind of host than the scheme says.
    #[error("{item:?} is no {family} address, and `{scheme}:` takes nothing else", family = family_of(scheme))]
    Family {
        /// What was written.
        item: String,
        /// `ipv4` or `ipv6`.
        scheme: &'static str,
    },
    /// The DNS server of `dns://server/host` is not an IP address with an optional port.
    #[error("DNS server {server:?} is no IP address with an optional port, such as `10.0.0.10` or `[::1]:5353`")]
    Server {
        /// What was written.
        server: String,
    },
    /// `dns://x` without a host: the text after `//` is a DNS server.
    #[error("`dns://{server}` names a DNS server to ask and no host: did you mean `dns:///{server}`?")]
    ServerWithoutHost {
        /// What was written where a server belongs.
        server: String,
    },
    /// A path or name that no Unix socket can have, or the path of no file.
    #[error("{path:?} is no {of}: {reason}")]
    Path {
        /// What was written.
        path: String,
        /// What it was to be.
        of: &'static str,
        /// The rule it breaks.
        reason: &'static str,
    },
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        place(text).map(|place| Self { place }).map_err(|problem| TargetError { target: text.to_owned(), problem })
    }
}

fn place(text: &str) -> Result<Place, TargetProblem> {
    let Some((scheme, rest)) = split_scheme(text) else {
        return Ok(Place::Hosts { server: None, hosts: host_list(text)? });
    };
    match scheme.to_ascii_lowercase().as_str() {
        "dns" => dns(rest),
        "ipv4" => addresses(rest, "ipv4", |host| matches!(host, Host::Ip(IpAddr::V4(_)))),
        "ipv6" => addresses(rest, "ipv6", |host| matches!(host, Host::Ip(IpAddr::V6(_)) | Host::Scoped(..))),
        "unix" => Ok(Place::Unix(path(rest, "unix", "path of a socket", LONGEST_UNIX_PATH)?.into())),
        "unix-abstract" => abstract_name(rest).map(|name| Place::UnixAbstract(name.to_owned())),
        "file" => Ok(Place::File(path(rest, "file", "path of a file", usize::MAX)?.into())),
        unknown => {
            let suggestion = HABITS.contains(&unknown).then_some("dns").or_else(|| nearest_scheme(unknown, 2));
            Err(TargetProblem::UnknownScheme { scheme: scheme.to_owned(), suggestion })
        }
    }
}

/// The scheme and the text after its colon. `host:port` has none; what looks like neither is taken for a scheme if it
/// is spelled nearly like one.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let lower = scheme.to_ascii_lowercase();
    if SCHEMES.contains(&lower.as_str()) {
        return Some((scheme, rest));
    }
    let mut letters = scheme.bytes();
    let spelled_so = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
        && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !spelled_so || text.parse::<Ipv6Addr>().is_ok() {
        return None;
    }
    let has_port = rest.split(',').next().is_some_and(|port| !port.is_empty() && is_number(port));
    let looks_so = rest.starts_with('/') || (!has_port && nearest_scheme(&lower, 1).is_some());
    looks_so.then_some((scheme, rest))
}

fn dns(rest: &str) -> Result<Place, TargetProblem> {
    let (server, host) = match rest.strip_prefix("//") {
        None => (None, rest.strip_prefix('/').unwrap_or(rest)),
        Some(after) => match after.split_once('/') {
            None => return Err(TargetProblem::ServerWithoutHost { server: after.to_owned() }),
            Some(("", host)) => (None, host),
            Some((server, host)) => (Some(dns_server(server)?), host),
        },
    };
    Ok(Place::Hosts { server, hosts: vec![host_port(host)?] })
}

fn dns_server(text: &str) -> Result<SocketAddr, TargetProblem> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let without_port = || bracketed.unwrap_or(text).parse().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT));
    text.parse()
        .or_else(|_| without_port())
        .ok()
        .filter(|server: &SocketAddr| server.port() != 0 && !server.to_string().contains('%'))
        .ok_or_else(|| TargetProblem::Server { server: text.to_owned() })
}

fn addresses(rest: &str, scheme: &'static str, fits: fn(&Host) -> bool) -> Result<Place, TargetProblem> {
    let hosts = host_list(rest)?;
    match hosts.iter().find(|host| !fits(&host.host)) {
        Some(stranger) => Err(TargetProblem::Family { item: stranger.to_string(), scheme }),
        None => Ok(Place::Hosts { server: None, hosts }),
    }
}

/// `path`, `/path` or `///path`.
fn path<'a>(rest: &'a str, scheme: &'static str, of: &'static str, longest: usize) -> Result<&'a str, TargetProblem> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if rest.starts_with("//") && !path.starts_with('/') {
        let reason = match scheme {
            "unix" => "after `unix://` comes an absolute path; a relative one is written `unix:path`",
            _ => "after `file://` comes an absolute path; a relative one is written `file:path`",
        };
        return Err(TargetProblem::Path { path: path.to_owned(), of, reason });
    }
    bounded(path, of, longest)
}

/// `name`, or `///name` of which the last slash belongs to the name, as grpc-go has it.
fn abstract_name(rest: &str) -> Result<&str, TargetProblem> {
    let of = "name of an abstract socket";
    let name = rest.strip_prefix("//").unwrap_or(rest);
    if rest.starts_with("//") && !name.starts_with('/') {
        let reason = "`unix-abstract://` takes no authority; write `unix-abstract:name`";
        return Err(TargetProblem::Path { path: name.to_owned(), of, reason });
    }
    bounded(name, of, LONGEST_UNIX_PATH)
}

fn bounded<'a>(path: &'a str, of: &'static str, longest: usize) -> Result<&'a str, TargetProblem> {
    let rules = [
        (path.is_empty(), "it is empty"),
        (path.contains('\0'), "it contains a zero byte"),
        (path.len() > longest, "it is longer than 107 bytes"),
    ];
    match rules.into_iter().find_map(|(broken, reason)| broken.then_some(reason)) {
        Some(reason) => Err(TargetProblem::Path { path: path.to_owned(), of, reason }),
        None => Ok(path),
    }
}

fn host_list(text: &str) -> Result<Vec<HostPort>, TargetProblem> {
    text.split(',').map(host_port).collect()
}

/// One address or name, with or without a port.
pub(crate) fn host_port(text: &str) -> Result<HostPort, TargetProblem> {
    if let Some(rest) = text.strip_prefix('[') {
        return bracketed(text, rest);
    }
    if let Some(host) = ipv6(text).transpose()? {
        return Ok(HostPort { host, port: None });
    }
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let host = self::host(host)?;
    if matches!(host, Host::Service(_)) && port.is_some() {
        let reason = "a name that begins with `_` is looked up as a service, whose SRV records have the ports";
        return Err(TargetProblem::Host { host: text.to_owned(), reason });
    }
    Ok(HostPort { host, port: port.map(self::port).transpose()? })
}

fn bracketed(text: &str, rest: &str) -> Result<HostPort, TargetProblem> {
    let problem = |reason| TargetProblem::Host { host: text.to_owned(), reason };
    let (ip, after) = rest.split_once(']').ok_or_else(|| problem("its `[` is not closed"))?;
    let host = ipv6(ip).transpose()?.ok_or_else(|| problem("brackets enclose an IPv6 address"))?;
    let port = match after.strip_prefix(':') {
        Some(port) => Some(self::port(port)?),
        None if after.is_empty() => None,
        None => return Err(problem("after `]` comes `:port` or nothing")),
    };
    Ok(HostPort { host, port })
}

/// An IPv6 address with or without a scope; `None` where the text is neither.
fn ipv6(text: &str) -> Option<Result<Host, TargetProblem>> {
    let (ip, scope) = text.split_once('%').map_or((text, None), |(ip, scope)| (ip, Some(scope)));
    let ip: Ipv6Addr = ip.parse().ok()?;
    Some(
        match scope.map(|scope| self::scope(scope.strip_prefix("25").filter(|rest| !rest.is_empty()).unwrap_or(scope)))
        {
            None => Ok(Host::Ip(ip.into())),
            Some(Ok(scope)) => Ok(Host::Scoped(ip, scope)),
            Some(Err(reason)) => Err(TargetProblem::Host { host: text.to_owned(), reason }),
        },
    )
}

/// The scope of an IPv6 address (RFC 4007): the number of a network interface, or its name as Linux allows it.
fn scope(text: &str) -> Result<Scope, &'static str> {
    if is_number(text) {
        let number = text.parse().ok().map(Scope::Number);
        return number.ok_or("the number of a network interface is from 1 to 4294967295");
    }
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if text.len() <= LONGEST_INTERFACE && text.bytes().all(is_of_a_name) {
        Ok(Scope::Interface(text.to_owned()))
    } else {
        Err("after `%` comes the name or number of a network interface")
    }
}

fn port(text: &str) -> Result<u16, TargetProblem> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| TargetProblem::Port { port: text.to_owned() })
}

fn host(text: &str) -> Result<Host, TargetProblem> {
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    match broken_name_rule(text) {
        Some(reason) => Err(TargetProblem::Host { host: text.to_owned(), reason }),
        None if text.starts_with('_') => Ok(Host::Service(text.to_owned())),
        None => Ok(Host::Name(text.to_owned())),
    }
}

/// The first rule of DNS names (RFC 1035, with the underscore that container networks use) that `text` breaks.
fn broken_name_rule(text: &str) -> Option<&'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels = || name.split('.');
    let rules = [
        (text.is_empty(), "it is empty"),
        (text.contains(','), "`dns:` takes one host; a list is written without a scheme"),
        (text.contains(':'), "an IPv6 address with a port is written `[a::b]:port`"),
        (!text.is_ascii(), "a name that is not ASCII is written in its `xn--` form"),
        (name.len() > 253, "a name has at most 253 characters"),
        (labels().any(str::is_empty), "a part between two dots is empty"),
        (labels().any(|label| label.len() > 63), "a part between two dots has at most 63 characters"),
        (!name.bytes().all(is_of_a_name), "a name consists of letters, digits, `-`, `_` and `.`"),
        (labels().next_back().is_some_and(is_number), "it is no IPv4 address, and a name does not end in a number"),
    ];
    rules.into_iter().find_map(|(broken, reason)| broken.then_some(reason))
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

fn is_number(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
}

fn family_of(scheme: &str) -> &'static str {
    if scheme == "ipv4" { "IPv4" } else { "IPv6" }
}

fn nearest_scheme(word: &str, at_most: usize) -> Option<&'static str> {
    nearest(word, &SCHEMES, at_most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Target>().expect_err(text).to_string()
    }

    #[test]
    fn errors_say_what_is_wrong_and_how_to_write_it() {
        for (text, expected) in [
            ("", "\"\" is no host: it is empty"),
            ("dsn:///a:1", "unknown scheme `dsn`: did you mean `dns`?"),
            ("dsn:a:1", "unknown scheme `dsn`: did you mean `dns`?"),
            ("ip4:10.0.0.1:1", "did you mean `ipv4`?"),
            ("uxin:///a", "did you mean `unix`?"),
            ("http://a:80", "unknown scheme `http`: did you mean `dns`?"),
            ("zookeeper://a/b", "unknown scheme `zookeeper`;"),
            ("db:http", "\"http\" is no port"),
            ("a:0", "\"0\" is no port"),
            ("a:65536", "\"65536\" is no port"),
            ("a:+1", "\"+1\" is no port"),
            ("a:1,,b:1", "\"\" is no host: it is empty"),
            ("a:1, b:1", "\" b\" is no host: a name consists of"),
            ("dns:///a:1,b:1", "a list is written without a scheme"),
            ("dns://a:1", "did you mean `dns:///a:1`?"),
            ("dns://ns.example/a:1", "DNS server \"ns.example\" is no IP address"),
            ("dns://10.0.0.1:0/a:1", "DNS server \"10.0.0.1:0\""),
            ("dns:///", "\"\" is no host: it is empty"),
            ("ipv4:[::1]:1", "\"[::1]:1\" is no IPv4 address"),
            ("ipv6:[::1]:1,a:1", "\"a:1\" is no IPv6 address"),
            ("10.0.0.1.2:1", "it is no IPv4 address"),
            ("fe80::1:x", "written `[a::b]:port`"),
            ("[::1:1", "its `[` is not closed"),
            ("[fe80::1%]:1", "\"fe80::1%\" is no host: the number of a network interface is from 1"),
            ("[fe80::1%0]:1", "the number of a network interface is from 1 to 4294967295"),
            ("ipv6:fe80::1%a/b", "after `%` comes the name or number of a network interface"),
            ("[fe80::1%abcdefghijklmnop]", "after `%` comes the name or number"),
            ("[10.0.0.1%lo]:1", "brackets enclose an IPv6 address"),
            ("dns://[fe80::1%2]:53/a", "DNS server \"[fe80::1%2]:53\" is no IP address"),
            ("_grpc._tcp.a.example:50051", "a name that begins with `_` is looked up as a service"),
            ("[::1]1", "after `]` comes `:port`"),
            ("bücher.example:1", "`xn--` form"),
            ("a..b:1", "a part between two dots is empty"),
            ("unix:", "it is empty"),
            ("unix://a/b", "a relative one is written `unix:path`"),
            ("unix:a\0b", "zero byte"),
            ("unix-abstract:", "\"\" is no name of an abstract socket: it is empty"),
            ("unix-abstract://host/a", "takes no authority; write `unix-abstract:name`"),
            ("unix-abstrakt:a", "did you mean `unix-abstract`?"),
            ("unix_abstract:///a", "\"///a\" is no port"),
            ("file:", "\"\" is no path of a file: it is empty"),
            ("file://host/a.json", "a relative one is written `file:path`"),
        ] {
            let message = error(text);
            assert!(message.contains(expected), "{text:?}: {message}");
            assert!(message.contains("write `host:port[,host:port…]`, `dns:///host:port`"), "{message}");
        }
        assert!(error(&format!("unix:{}", "x".repeat(108))).contains("longer than 107 bytes"));
        assert!(error(&format!("{}:1", "x".repeat(64))).contains("at most 63 characters"));
        assert!(error(&"x.".repeat(130)).contains("at most 253 characters"));
    }
}
