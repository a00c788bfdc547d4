use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use super::{Host, HostPort, Place, Target};

const SCHEMES: [&str; 4] = ["dns", "ipv4", "ipv6", "unix"];

/// Schemes that people write out of habit; what they mean is a name.
const HABITS: [&str; 5] = ["http", "https", "grpc", "grpcs", "tcp"];

/// The longest path that the address of a Unix socket holds on Linux, in bytes.
const LONGEST_UNIX_PATH: usize = 107;

/// The port of a DNS server that was written without one.
const DNS_PORT: u16 = 53;

/// A text that is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "target {target:?}: {problem}; write `host:port[,host:port…]`, `dns:///host:port`, `dns://server/host:port`, \
     `ipv4:a.b.c.d:port[,…]`, `ipv6:[a::b]:port[,…]`, `unix:path` or `unix:///absolute/path`"
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
    /// A path that no Unix socket can have.
    #[error("{path:?} is no path of a socket: {reason}")]
    Path {
        /// What was written.
        path: String,
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
        "ipv6" => addresses(rest, "ipv6", |host| matches!(host, Host::Ip(IpAddr::V6(_)))),
        "unix" => unix(rest),
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
        .filter(|server| server.port() != 0)
        .ok_or_else(|| TargetProblem::Server { server: text.to_owned() })
}

fn addresses(rest: &str, scheme: &'static str, fits: fn(&Host) -> bool) -> Result<Place, TargetProblem> {
    let hosts = host_list(rest)?;
    match hosts.iter().find(|host| !fits(&host.host)) {
        Some(stranger) => Err(TargetProblem::Family { item: stranger.to_string(), scheme }),
        None => Ok(Place::Hosts { server: None, hosts }),
    }
}

fn unix(rest: &str) -> Result<Place, TargetProblem> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let problem = |reason| Err(TargetProblem::Path { path: path.to_owned(), reason });
    if path.is_empty() {
        problem("it is empty")
    } else if rest.starts_with("//") && !path.starts_with('/') {
        problem("after `unix://` comes an absolute path; a relative one is written `unix:path`")
    } else if path.contains('\0') {
        problem("it contains a zero byte")
    } else if path.len() > LONGEST_UNIX_PATH {
        problem("it is longer than 107 bytes")
    } else {
        Ok(Place::Unix(PathBuf::from(path)))
    }
}

fn host_list(text: &str) -> Result<Vec<HostPort>, TargetProblem> {
    text.split(',').map(host_port).collect()
}

fn host_port(text: &str) -> Result<HostPort, TargetProblem> {
    if let Some(rest) = text.strip_prefix('[') {
        return bracketed(text, rest);
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Ok(HostPort { host: Host::Ip(ip.into()), port: None });
    }
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    Ok(HostPort { host: self::host(host)?, port: port.map(self::port).transpose()? })
}

fn bracketed(text: &str, rest: &str) -> Result<HostPort, TargetProblem> {
    let problem = |reason| TargetProblem::Host { host: text.to_owned(), reason };
    let (ip, after) = rest.split_once(']').ok_or_else(|| problem("its `[` is not closed"))?;
    let ip: Ipv6Addr = ip.parse().map_err(|_| problem("brackets enclose an IPv6 address, without a zone"))?;
    let port = match after.strip_prefix(':') {
        Some(port) => Some(self::port(port)?),
        None if after.is_empty() => None,
        None => return Err(problem("after `]` comes `:port` or nothing")),
    };
    Ok(HostPort { host: Host::Ip(ip.into()), port })
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
    SCHEMES
        .into_iter()
        .map(|scheme| (edits(word, scheme), scheme))
        .filter(|(edits, _)| *edits <= at_most)
        .min()
        .map(|(_, scheme)| scheme)
}

/// How many insertions, deletions, replacements and swaps of neighbours turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
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
            ("[fe80::1%eth0]:1", "without a zone"),
            ("[::1]1", "after `]` comes `:port`"),
            ("bücher.example:1", "`xn--` form"),
            ("a..b:1", "a part between two dots is empty"),
            ("unix:", "it is empty"),
            ("unix://a/b", "a relative one is written `unix:path`"),
            ("unix:a\0b", "zero byte"),
        ] {
            let message = error(text);
            assert!(message.contains(expected), "{text:?}: {message}");
            assert!(message.contains("write `host:port[,host:port…]`, `dns:///host:port`"), "{message}");
        }
        assert!(error(&format!("unix:{}", "x".repeat(108))).contains("longer than 107 bytes"));
        assert!(error(&format!("{}:1", "x".repeat(64))).contains("at most 63 characters"));
        assert!(error(&"x.".repeat(130)).contains("at most 253 characters"));
    }

    #[test]
    fn a_swap_is_one_edit() {
        assert_eq!(edits("dsn", "dns"), 1);
        assert_eq!(edits("", "dns"), 3);
        assert_eq!(edits("dns", "dns"), 0);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
