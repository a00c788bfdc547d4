//! A proxy's URL, and the environment variables that hold one: no socket, and the environment is an argument.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Uri, uri::Authority};
use percent_encoding::percent_decode_str;

use super::{ConnectProxyError, exempt::Exempt};

/// What the environment says of proxies.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) upstream: Upstream,
    pub(super) exempt: Exempt,
}

impl Settings {
    /// Reads the environment by `get`. `None` where it names no proxy; a variable that is empty is not set.
    pub(super) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ConnectProxyError> {
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, get(name).filter(|value| !value.is_empty())?)))
        };
        let Some((name, url)) = first(["HTTPS_PROXY", "https_proxy"]) else { return Ok(None) };
        let mut exempt = Exempt::loopback();
        if let Some((_, list)) = first(["NO_PROXY", "no_proxy"]) {
            exempt.add(&list);
        }
        Ok(Some(Self { upstream: Upstream::parse(&url, name)?, exempt }))
    }
}

/// Where a proxy listens, and who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

const DEFAULT_PORT: u16 = 80;

impl Upstream {
    /// Parses a URL that comes from `origin`.
    pub(super) fn parse(url: &str, origin: &str) -> Result<Self, ConnectProxyError> {
        let wrong = |problem: String| ConnectProxyError::Url { origin: origin.to_owned(), problem };
        let whole = if url.contains("://") { url.trim().to_owned() } else { format!("http://{}", url.trim()) };
        // The path is of no use, and a lone authority needs none.
        let uri: Uri = whole.parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        if scheme != "http" {
            return Err(ConnectProxyError::Scheme { origin: origin.to_owned(), scheme: scheme.to_owned() });
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| wrong("it names no host".to_owned()))?;
        let port = port(authority).ok_or_else(|| wrong("its port is no number from 1 to 65535".to_owned()))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, authorization: authorization(authority) })
    }
}

/// Credentials are not shown.
impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

fn port(authority: &Authority) -> Option<u16> {
    let after_user = authority.as_str().rsplit('@').next()?;
    match after_user.strip_prefix(authority.host())? {
        "" | ":" => Some(DEFAULT_PORT),
        port => port.strip_prefix(':')?.parse().ok().filter(|&port| port > 0),
    }
}

/// `Basic` credentials (RFC 7617) of the user information in a URL.
fn authorization(authority: &Authority) -> Option<String> {
    let (information, _) = authority.as_str().rsplit_once('@')?;
    let (user, password) = information.split_once(':').unwrap_or((information, ""));
    let mut pair: Vec<u8> = percent_decode_str(user).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &str) -> (String, Option<String>) {
        let upstream = Upstream::parse(url, "the test").unwrap();
        (upstream.to_string(), upstream.authorization)
    }

    fn environment(variables: &[(&str, &str)]) -> Result<Option<Settings>, ConnectProxyError> {
        Settings::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn urls_name_a_host_a_port_and_credentials() {
        assert_eq!(upstream("http://proxy.internal:3128"), ("proxy.internal:3128".to_owned(), None));
        assert_eq!(upstream("http://proxy/").0, "proxy:80");
        assert_eq!(upstream("proxy:8080").0, "proxy:8080");
        assert_eq!(upstream("http://[::1]:3128").0, "[::1]:3128");
        // As RFC 7617 has it in section 2.
        let basic = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_owned();
        assert_eq!(upstream("http://Aladdin:open%20sesame@p:1"), ("p:1".to_owned(), Some(basic)));
        assert_eq!(upstream("http://user@p:1").1, Some("Basic dXNlcjo=".to_owned()));
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_showing_a_password() {
        for (url, reason) in [
            ("socks5://u:secret@p:1", "the scheme \"socks5\" is not supported"),
            ("https://u:secret@p", "the scheme \"https\" is not supported"),
            ("http://u:secret@p:0", "its port"),
            ("http://u:secret@p:70000", ""),
            ("http://u:secret@", ""),
            ("http://u:secret@a b", ""),
            ("http://", ""),
        ] {
            let error = Upstream::parse(url, "HTTPS_PROXY").unwrap_err().to_string();
            assert!(error.starts_with("HTTPS_PROXY: ") && error.contains(reason), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!(format!("{:?}", Upstream::parse("http://u:secret@p:1", "").unwrap()), "p:1");
    }

    #[test]
    fn the_environment_is_read_in_capitals_first_and_empty_is_not_set() {
        assert!(environment(&[("HTTP_PROXY", "http://p:1")]).unwrap().is_none());
        assert!(environment(&[("HTTPS_PROXY", "")]).unwrap().is_none());
        let both = environment(&[("HTTPS_PROXY", "http://big:1"), ("https_proxy", "http://small:1")]);
        assert_eq!(both.unwrap().unwrap().upstream.host, "big");
        let small = environment(&[("HTTPS_PROXY", ""), ("https_proxy", "http://small:1"), ("no_proxy", "10.0.0.0/8")]);
        let small = small.unwrap().unwrap();
        assert_eq!(small.upstream.host, "small");
        let spares = |address: &str| small.exempt.spares("a.test", address.parse().unwrap());
        assert!(spares("10.1.1.1:1") && spares("127.0.0.1:1") && !spares("11.1.1.1:1"));
        assert!(environment(&[("HTTPS_PROXY", "ftp://p")]).is_err());
    }
}
