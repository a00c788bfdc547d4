//! The way to a server: its name, a socket, TLS, HTTP/2, each with an end of its own to report.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_balance::Address;
use evenkeel_naming::{FailureKind, Target};
use evenkeel_transport::{Clock, ConnectProxy, Connection, DialError, Dialer, Ends, Line, LineSettings, News, Stream};
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio_rustls::TlsConnector;

use super::{
    certificate::Certificate,
    credentials::Credentials,
    diagnosis,
    failure::{Cause, Failure},
    overheard::{Overheard, Overhearing},
};

/// How servers are reached.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) timeout: Duration,
    /// Plain text without.
    pub(super) credentials: Option<Credentials>,
    /// In place of the target's host: the name that the certificate must be for, and the `:authority`.
    pub(super) server_name: Option<String>,
    pub(super) proxy: ConnectProxy,
    /// Whether a peer that hangs up without a word is asked once more, to tell why.
    pub(super) looks_again: bool,
}

/// A connection on which the server has spoken.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) connection: Connection,
    /// What precedes the path in a call's URI.
    pub(super) origin: String,
    pub(super) facts: Facts,
}

/// What is known of a connection, for people and programs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Facts {
    pub(super) address: String,
    pub(super) tls: Option<TlsFacts>,
}

/// What was agreed on by TLS.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TlsFacts {
    pub(super) version: Option<&'static str>,
    pub(super) cipher_suite: Option<&'static str>,
    pub(super) alpn: Option<String>,
    pub(super) certificate: Option<Certificate>,
}

/// How long something may take, and when it is over.
#[derive(Clone, Copy)]
struct Limit {
    whole: Duration,
    at: Instant,
}

/// Long enough for a peer that is there, short enough not to be noticed.
const SECOND_LOOK: Duration = Duration::from_millis(500);

impl Way {
    /// Connects to the first address of `target` that lets itself be connected to. Where there are several, each gets
    /// an equal part of the time that is left.
    pub(super) async fn connect(&self, target: &Target) -> Result<Server, Failure> {
        let limit = Limit::of(self.timeout);
        let route = Route::new(self, target)?;
        let addresses = limit.keep("look up the name", resolve(target)).await?;
        let mut failures = Vec::new();
        for (i, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
            match route.try_address(address, self.credentials.as_ref(), limit.part(left)).await {
                Ok(server) => return Ok(server),
                Err(failure) => failures.push(self.look_again(&route, address, failure).await),
            }
        }
        Err(together(failures, &addresses))
    }

    /// A peer that hung up without a word may have expected TLS, or plain text: it is asked the other way.
    async fn look_again(&self, route: &Route<'_>, address: &Address, failure: Failure) -> Failure {
        if failure.cause != Cause::Closed || !self.looks_again {
            return failure;
        }
        let blind = Credentials::blind();
        let other = if self.credentials.is_some() { None } else { Some(&blind) };
        let outcome = route.try_address(address, other, Limit::of(SECOND_LOOK)).await;
        match (outcome, other) {
            (Ok(_), None) => diagnosis::plaintext_server("it answers HTTP/2 without it"),
            (Ok(_), Some(_)) => diagnosis::tls_server("it shook hands when asked by TLS"),
            (Err(second), Some(_)) if second.cause == Cause::NoAlpn => {
                diagnosis::tls_server("and it does not offer HTTP/2 (ALPN h2) there")
            }
            _ => failure,
        }
    }
}

/// Where a target's connections lead, and by which names.
struct Route<'a> {
    way: &'a Way,
    dialer: Dialer,
    authority: String,
    host: String,
}

impl<'a> Route<'a> {
    fn new(way: &'a Way, target: &Target) -> Result<Self, Failure> {
        let wrong = |error: String| Failure::new(Cause::Arguments, error);
        let authority = way.server_name.clone().unwrap_or_else(|| target.authority());
        let parsed: http::uri::Authority =
            authority.parse().map_err(|error| wrong(format!("{authority:?} is no authority: {error}")))?;
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tunnel = way.proxy.clone().tunnel(&host).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { way, dialer: Dialer { tunnel, user_timeout: None, tls: None }, authority, host })
    }

    async fn try_address(
        &self,
        address: &Address,
        credentials: Option<&Credentials>,
        limit: Limit,
    ) -> Result<Server, Failure> {
        let dialled = async { self.dialer.dial(address).await.map_err(|error| undialled(address, &error)) };
        let (stream, ends) = limit.keep("connect", dialled).await?;
        let wire = Overheard::default();
        let stream: Stream = Box::new(Overhearing::new(stream, wire.clone()));
        let Some(credentials) = credentials else {
            let spoken = begin_http2(stream, ends, &wire, self.way.credentials.is_some());
            let connection = limit.keep("speak HTTP/2", spoken).await?;
            return Ok(self.server("http", connection, None));
        };
        let (stream, tls) = limit.keep("shake hands by TLS", self.secure(stream, &wire, credentials)).await?;
        let inside = Overheard::default();
        let stream: Stream = Box::new(Overhearing::new(stream, inside.clone()));
        let spoken = begin_http2(stream, Ends { is_secure: true, ..ends }, &inside, credentials.has_identity());
        let connection = limit.keep("speak HTTP/2", spoken).await?;
        Ok(self.server("https", connection, Some(tls)))
    }

    fn server(&self, scheme: &str, connection: Connection, tls: Option<TlsFacts>) -> Server {
        let facts = Facts { address: connection.peer().to_string(), tls };
        Server { connection, origin: format!("{scheme}://{}", self.authority), facts }
    }

    async fn secure(
        &self,
        stream: Stream,
        wire: &Overheard,
        credentials: &Credentials,
    ) -> Result<(Stream, TlsFacts), Failure> {
        let name = ServerName::try_from(self.host.clone()).map_err(|_| {
            Failure::new(Cause::Arguments, format!("{:?} is no name that a certificate can be for", self.host))
                .advise("set one by --tls-server-name")
        })?;
        let (config, witness) = credentials.handshake();
        let certificate = || witness.certificate().and_then(|der| Certificate::parse(&der));
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
            diagnosis::of_handshake(&error, &self.host, certificate().as_ref(), wire, credentials.has_identity())
        })?;
        let session = stream.get_ref().1;
        let facts = TlsFacts {
            version: session.protocol_version().and_then(|version| version.as_str()),
            cipher_suite: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()),
            alpn: session.alpn_protocol().map(|name| name.escape_ascii().to_string()),
            certificate: certificate(),
        };
        match facts.alpn.as_deref() {
            Some("h2") => Ok((Box::new(stream), facts)),
            other => Err(diagnosis::no_alpn(other)),
        }
    }
}

fn undialled(address: &Address, error: &DialError) -> Failure {
    let failure = |cause| Failure::new(cause, format!("cannot connect: {error}"));
    match address {
        // Its errors say what to do.
        Address::Tcp(_) if error.to_string().starts_with("the proxy ") => failure(Cause::Proxy),
        Address::Tcp(_) if error.refused => {
            failure(Cause::Refused).advise("nobody listens there: is the server up, and is this its port?")
        }
        Address::Tcp(_) => failure(Cause::Unreachable).advise("is the address right, and is there a route to it?"),
        _ if error.refused => {
            failure(Cause::Refused).advise("no server has this socket open: is it up, and is this its path?")
        }
        _ => failure(Cause::Unreachable).advise("may this user open the socket?"),
    }
}

/// Begins HTTP/2, and waits for the server's first frame: the kernel of a stopped process still accepts connections.
async fn begin_http2(stream: Stream, ends: Ends, heard: &Overheard, has_identity: bool) -> Result<Connection, Failure> {
    let settings = LineSettings::default();
    let begun =
        evenkeel_transport::handshake(stream, ends, Clock::start(), settings, Arc::default(), Arc::default()).await;
    let (connection, mut line) = begun.map_err(|why| diagnosis::of_http2(&why, heard, has_identity))?;
    loop {
        match line.next().await {
            News::Spoke if heard.is_http2_so_far() => {
                tokio::spawn(work(line));
                return Ok(connection);
            }
            News::Spoke => return Err(diagnosis::of_http2("it speaks another protocol", heard, has_identity)),
            News::Leaving(why, _) | News::Closed(why, _) => return Err(diagnosis::of_http2(&why, heard, has_identity)),
            News::Stalled(_) | News::Recovered => {}
        }
    }
}

/// Works a connection to its end.
async fn work(mut line: Line<Stream>) {
    while !matches!(line.next().await, News::Closed(..)) {}
}

async fn resolve(target: &Target) -> Result<Vec<Address>, Failure> {
    let mut resolving = evenkeel_naming::start(target.resolver(&evenkeel_naming::Options::default()));
    match resolving.next().await {
        Some(Ok(resolution)) => {
            let addresses: Vec<_> =
                resolution.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect();
            if addresses.is_empty() {
                return Err(Failure::new(Cause::NameNotFound, "the target has no addresses"));
            }
            Ok(addresses)
        }
        Some(Err(error)) => {
            let (cause, advice) = match error.kind {
                FailureKind::NotFound | FailureKind::NoAddresses => (Cause::NameNotFound, "is the name spelled right?"),
                _ => (Cause::NameLookupFailed, "does this machine's DNS work?"),
            };
            Err(Failure::new(cause, error.message).advise(advice))
        }
        None => Err(Failure::new(Cause::NameLookupFailed, "the resolver ended without an answer")),
    }
}

/// The last failure; where several addresses failed, with what each said.
fn together(mut failures: Vec<Failure>, addresses: &[Address]) -> Failure {
    let said: Vec<_> =
        addresses.iter().zip(&failures).map(|(address, failure)| format!("{address}: {}", failure.message)).collect();
    match failures.pop() {
        Some(last) if failures.is_empty() => last,
        Some(last) => Failure { message: said.join("; "), ..last },
        None => Failure::new(Cause::NameNotFound, "the target has no addresses"),
    }
}

impl Limit {
    fn of(whole: Duration) -> Self {
        Self { whole, at: Instant::now() + whole }
    }

    /// An equal part of what is left.
    fn part(self, of: u32) -> Self {
        Self { at: Instant::now() + self.at.saturating_duration_since(Instant::now()) / of, ..self }
    }

    /// Lets `future` take until then; `step` is what it did.
    async fn keep<T>(self, step: &str, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match tokio::time::timeout_at(self.at.into(), future).await {
            Ok(outcome) => outcome,
            Err(_) => Err(diagnosis::too_slow(step, self.whole)),
        }
    }
}
