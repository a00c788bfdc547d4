use std::{net::SocketAddr, ops::RangeInclusive};

use bytes::Bytes;
use evenkeel_balance::Address;
use evenkeel_transport::{Clock, ConnectProxy, ConnectProxyError, Dialer};
#[cfg(feature = "tls")]
use evenkeel_transport::{Protocol, Secure, Tls, TlsError};
use http::{HeaderName, HeaderValue, Method, Request, header, uri::Authority};

use crate::{
    Prober,
    codec::{self, CHECK_PATH},
    route::Route,
};

/// What a server is asked, and how.
///
/// A probe is a description: [`at`](Self::at) binds it to a server's address.
///
/// ```
/// # use evenkeel_checker::{Probe, ProbeError};
/// let probe = Probe::grpc("shop.v1.Cart").authority("cart.internal").header("x-probe-of", "eu-1");
/// let prober = probe.at("127.0.0.1:50051".parse::<std::net::SocketAddr>().unwrap())?;
/// # Ok::<(), ProbeError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a description does nothing until it is bound to an address"]
pub struct Probe {
    question: Question,
    authority: Option<String>,
    port: Option<u16>,
    headers: Vec<(String, String)>,
    user_agent: String,
    connect_proxy: ConnectProxy,
    #[cfg(feature = "tls")]
    tls: Option<std::sync::Arc<Secure>>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// `Health/Check`, with its request.
    Check(Bytes),
    /// `Health/Watch`, with its request.
    Watch(Bytes),
    /// GET of a path.
    Get { path: String, version: HttpVersion, passes: RangeInclusive<u16> },
    /// A connection, and no more.
    Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Http1,
    Http2,
}

/// Why a probe cannot be bound to an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// A part of the request is not what HTTP allows.
    #[error("the probe's {what} {value:?} cannot be sent: {problem}")]
    Request {
        /// Which part.
        what: &'static str,
        /// As it was given.
        value: String,
        /// What is the matter.
        problem: String,
    },
    /// A port was given for something that has none.
    #[error("the probe has port {port} of its own, but {address} has no ports: leave it out")]
    NoPorts {
        /// The probe's.
        port: u16,
        /// A Unix socket.
        address: Address,
    },
    /// The HTTP proxy's description is wrong.
    #[error(transparent)]
    ConnectProxy(#[from] ConnectProxyError),
    /// TLS cannot be spoken as described.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Probe {
    /// A unary `grpc.health.v1.Health/Check` of `service`; `""` is the whole server.
    ///
    /// SERVING passes. `NOT_FOUND` is `SERVICE_UNKNOWN`. A server without a health service (`UNIMPLEMENTED`) fails.
    pub fn grpc(service: &str) -> Self {
        Self::new(Question::Check(codec::request(service)))
    }

    /// A `grpc.health.v1.Health/Watch` of `service`: the server tells a change when it happens.
    ///
    /// A silent Watch may be a hung server's, so each probe is a unary Check beside it, on the same connection. (A PING
    /// would prove that the HTTP/2 library is well, not the server, and servers hang up on too many.) Where the server
    /// does not implement Watch, or allows one stream at a time, the Checks are all there is, until the next connection.
    /// A Watch that ends otherwise is tried again at a probe after gRPC's backoff, 1 s × 1.6 up to 120 s.
    pub fn watch(service: &str) -> Self {
        Self::new(Question::Watch(codec::request(service)))
    }

    /// GET `path` by HTTP/1.1. Status 200 to 399 passes, as with Kubernetes, unless [`passes`](Self::passes) says
    /// otherwise; a redirect is not followed. Up to 64 KiB of the body are read, so that the connection can be kept.
    pub fn http(path: impl Into<String>) -> Self {
        Self::get(path.into(), HttpVersion::Http1)
    }

    /// As [`http`](Self::http), by HTTP/2 (without TLS: with prior knowledge).
    pub fn http2(path: impl Into<String>) -> Self {
        Self::get(path.into(), HttpVersion::Http2)
    }

    /// A TCP connection, with a TLS handshake where there is [`tls`](Self::tls); it is closed at once. It proves little:
    /// the kernel of a process that hangs still accepts.
    pub fn tcp() -> Self {
        Self::new(Question::Connect)
    }

    /// The statuses of HTTP that pass. Without effect on other probes.
    pub fn passes(mut self, statuses: RangeInclusive<u16>) -> Self {
        if let Question::Get { passes, .. } = &mut self.question {
            *passes = statuses;
        }
        self
    }

    /// The `:authority` or `Host` that is sent, and the name that a certificate must be for. Default: the address, or
    /// `localhost` for Unix sockets.
    pub fn authority(self, authority: impl Into<String>) -> Self {
        Self { authority: Some(authority.into()), ..self }
    }

    /// Asks on this port, whatever the address's own is.
    pub fn port(self, port: u16) -> Self {
        Self { port: Some(port), ..self }
    }

    /// Sends this header (gRPC: metadata) too; it may be given more than once.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The `User-Agent`. Default `evenkeel-checker/` and the version.
    pub fn user_agent(self, user_agent: impl Into<String>) -> Self {
        Self { user_agent: user_agent.into(), ..self }
    }

    /// Reaches servers through this HTTP proxy. Default: none, whatever the environment says, since the proxy's failures
    /// would count as the servers'.
    pub fn connect_proxy(self, proxy: ConnectProxy) -> Self {
        Self { connect_proxy: proxy, ..self }
    }

    /// Speaks TLS. Files are read now, and again for each new connection.
    ///
    /// # Errors
    /// Files or roots that cannot be used.
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: Tls) -> Result<Self, TlsError> {
        // The host is each server's own.
        let secure = Secure::speaking(self.question.protocol(), tls, "localhost")?;
        Ok(Self { tls: Some(std::sync::Arc::new(secure)), ..self })
    }

    /// Binds the probe to a server.
    ///
    /// # Errors
    /// What cannot be asked or spoken as described.
    pub fn at(&self, address: impl Into<Address>) -> Result<Prober, ProbeError> {
        let address = self.address(address.into())?;
        let authority = self.authority.clone().unwrap_or_else(|| default_authority(&address));
        let parsed: Authority = parse("authority", &authority)?;
        let dialer = Dialer { tunnel: self.connect_proxy.clone().tunnel(parsed.host())?, ..Dialer::default() };
        let head = self.head(&parsed)?;
        #[cfg(feature = "tls")]
        let secure = self.tls.as_ref().map(|tls| tls.for_host(parsed.host()).map(std::sync::Arc::new)).transpose()?;
        let route = Route {
            address,
            dialer,
            #[cfg(feature = "tls")]
            secure,
            clock: Clock::start(),
        };
        Ok(Prober::new(self.question.clone(), head, route))
    }

    fn new(question: Question) -> Self {
        Self {
            question,
            authority: None,
            port: None,
            headers: Vec::new(),
            user_agent: concat!("evenkeel-checker/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_proxy: ConnectProxy::none(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    fn get(path: String, version: HttpVersion) -> Self {
        Self::new(Question::Get { path, version, passes: 200..=399 })
    }

    fn address(&self, address: Address) -> Result<Address, ProbeError> {
        match (self.port, address) {
            (None, address) => Ok(address),
            (Some(port), Address::Tcp(own)) => Ok(Address::Tcp(SocketAddr::new(own.ip(), port))),
            (Some(port), address) => Err(ProbeError::NoPorts { port, address }),
        }
    }

    /// The request's head; for HTTP/1.1 with a bare path and a `Host`.
    fn head(&self, authority: &Authority) -> Result<Request<()>, ProbeError> {
        let path = self.question.path();
        if !path.starts_with('/') {
            let problem = "it does not begin with /".to_owned();
            return Err(ProbeError::Request { what: "path", value: path.to_owned(), problem });
        }
        let is_http1 = matches!(self.question, Question::Get { version: HttpVersion::Http1, .. });
        let uri = if is_http1 { path.to_owned() } else { format!("{}://{authority}{path}", self.scheme()) };
        let mut head = Request::new(());
        *head.uri_mut() = parse("path", &uri)?;
        let headers = head.headers_mut();
        for (name, value) in &self.headers {
            headers.append(parse::<HeaderName>("header", name)?, parse::<HeaderValue>("header value", value)?);
        }
        headers.insert(header::USER_AGENT, parse("user agent", &self.user_agent)?);
        if is_http1 && !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, parse("authority", authority.as_str())?);
        }
        if self.question.is_grpc() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            *head.method_mut() = Method::POST;
        }
        Ok(head)
    }

    #[cfg_attr(not(feature = "tls"), allow(clippy::unused_self, reason = "without TLS there is one scheme"))]
    fn scheme(&self) -> &'static str {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return "https";
        }
        "http"
    }
}

impl Question {
    /// The name of the kind, for logs and figures.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Check(_) => "grpc",
            Self::Watch(_) => "grpc_watch",
            Self::Get { version: HttpVersion::Http1, .. } => "http",
            Self::Get { version: HttpVersion::Http2, .. } => "http2",
            Self::Connect => "tcp",
        }
    }

    fn is_grpc(&self) -> bool {
        matches!(self, Self::Check(_) | Self::Watch(_))
    }

    fn path(&self) -> &str {
        match self {
            Self::Check(_) | Self::Watch(_) => CHECK_PATH,
            Self::Get { path, .. } => path,
            Self::Connect => "/",
        }
    }

    #[cfg(feature = "tls")]
    fn protocol(&self) -> Protocol {
        match self {
            Self::Check(_) | Self::Watch(_) | Self::Get { version: HttpVersion::Http2, .. } => Protocol::Http2,
            Self::Get { version: HttpVersion::Http1, .. } => Protocol::Http1,
            Self::Connect => Protocol::Unnamed,
        }
    }
}

fn default_authority(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        _ => "localhost".to_owned(),
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(what: &'static str, value: &str) -> Result<T, ProbeError> {
    let wrong = |problem: T::Err| ProbeError::Request { what, value: value.to_owned(), problem: problem.to_string() };
    value.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 80).into()
    }

    fn authority() -> Authority {
        Authority::from_static("a:80")
    }

    #[test]
    fn a_grpc_request_has_what_grpc_asks_for_and_what_was_given() {
        let head = Probe::grpc("s").header("x-tag", "1").header("x-tag", "2").head(&authority()).unwrap();
        assert_eq!(head.uri(), "http://a:80/grpc.health.v1.Health/Check");
        assert_eq!((head.method(), &head.headers()["te"]), (&Method::POST, &HeaderValue::from_static("trailers")));
        assert_eq!(head.headers().get_all("x-tag").iter().count(), 2);
        assert!(head.headers()["user-agent"].to_str().unwrap().starts_with("evenkeel-checker/"));
    }

    #[test]
    fn http_1_has_a_bare_path_and_a_host_that_may_be_another() {
        let head = Probe::http("/ready?x=1").head(&authority()).unwrap();
        assert_eq!(
            (head.uri().to_string(), &head.headers()["host"]),
            ("/ready?x=1".into(), &HeaderValue::from_static("a:80"))
        );
        let head = Probe::http("/").header("host", "other").head(&authority()).unwrap();
        assert_eq!(head.headers().get_all("host").iter().collect::<Vec<_>>(), ["other"]);
        assert_eq!(Probe::http2("/ready").head(&authority()).unwrap().uri(), "http://a:80/ready");
    }

    #[test]
    fn a_port_of_its_own_replaces_the_addresss_and_none_can_be_had_on_unix_sockets() {
        let prober = Probe::tcp().port(9_000).at(address()).unwrap();
        assert_eq!(prober.address().to_string(), "127.0.0.1:9000");
        let error = Probe::tcp().port(9_000).at(Address::Unix("/run/a".into())).unwrap_err();
        assert_eq!(error.to_string(), "the probe has port 9000 of its own, but unix:/run/a has no ports: leave it out");
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        let error = |probe: Probe| probe.at(address()).unwrap_err().to_string();
        assert!(error(Probe::http("ready")).contains("path \"ready\" cannot be sent: it does not begin with /"));
        assert!(error(Probe::http("/a b")).contains("path \"/a b\""));
        assert!(error(Probe::grpc("").header("x y", "1")).contains("header \"x y\""));
        assert!(error(Probe::grpc("").header("x", "1\n")).contains("header value \"1\\n\""));
        assert!(error(Probe::grpc("").authority("a b")).contains("authority \"a b\""));
        assert!(error(Probe::grpc("").user_agent("\0")).contains("user agent"));
    }
}
