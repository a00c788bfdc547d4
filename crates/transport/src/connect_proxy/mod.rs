//! HTTP proxies on the way to endpoints, asked for a tunnel by CONNECT.
//!
//! [`ConnectProxy`] is the description. `settings` reads it from the environment and from URLs, `exempt` knows what is
//! dialled directly all the same, `tunnel` asks a proxy, and `reply` reads its answer.

mod exempt;
mod reply;
mod settings;
mod tunnel;

use exempt::Exempt;
use settings::{Settings, Upstream};

pub use tunnel::Tunnel;
pub(crate) use tunnel::TunnelError;

/// The HTTP proxy through which endpoints are reached: a channel's builder takes it.
///
/// The proxy is asked for a tunnel to an endpoint (`CONNECT`, RFC 9110 section 9.3.6), and the connection is made inside
/// of it as it would be without: in plain text or by TLS, so that the proxy sees nothing of what TLS protects. A user
/// and a password in the proxy's URL are sent as `Basic` credentials. The time for all of it is that of any attempt to
/// connect (20 s).
///
/// Unlike grpc-go, which leaves the resolution of names to the proxy, the channel resolves them itself and asks for
/// tunnels to addresses, since it balances over those. The names must resolve where the channel is, and the proxy must
/// allow addresses.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use evenkeel_transport::ConnectProxy;
///
/// let proxy = ConnectProxy::new("http://user:password@proxy.internal:3128")?.except("10.0.0.0/8, .internal");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a description does nothing until a builder has it"]
pub struct ConnectProxy {
    source: Source,
    exempt: Exempt,
}

#[derive(Clone, Debug)]
enum Source {
    None,
    Environment,
    Given(Upstream),
}

impl ConnectProxy {
    /// No proxy, whatever the environment says.
    pub fn none() -> Self {
        Self { source: Source::None, exempt: Exempt::default() }
    }

    /// The proxy that the environment names when the channel is built: the default.
    ///
    /// As in grpc-go that is `HTTPS_PROXY` or `https_proxy`, whether or not the channel speaks TLS. `NO_PROXY` or
    /// `no_proxy` lists what is dialled directly ([`except`](Self::except) has the form); the names in it are compared
    /// with the channel's authority. Loopback addresses, the name `localhost` and Unix sockets are always dialled
    /// directly.
    pub fn from_env() -> Self {
        Self { source: Source::Environment, exempt: Exempt::default() }
    }

    /// The proxy at `url`: `http://[user:password@]host[:port]`, port 80 unless given. The scheme may be left out. User
    /// and password are percent-decoded.
    ///
    /// It serves every address that [`except`](Self::except) does not list, loopback ones too; Unix sockets are dialled
    /// directly.
    ///
    /// # Errors
    ///
    /// [`ConnectProxyError`] where `url` is no such URL.
    pub fn new(url: &str) -> Result<Self, ConnectProxyError> {
        let upstream = Upstream::parse(url, "the proxy's URL")?;
        Ok(Self { source: Source::Given(upstream), exempt: Exempt::default() })
    }

    /// Dials directly what `list` names, too. It has the form of `NO_PROXY`, entries separated by commas:
    ///
    /// | entry | exempts |
    /// |---|---|
    /// | `*` | everything |
    /// | `10.0.0.0/8`, `fd00::/8` | the addresses of a network |
    /// | `10.0.0.1`, `[fd00::1]:443` | an address, on every port or on one |
    /// | `example.com`, `example.com:443` | a channel whose authority has this name or a name below it |
    /// | `.example.com`, `*.example.com` | a channel whose authority has a name below this one |
    ///
    /// Anything else is taken for a name: other programs read the same variable.
    pub fn except(mut self, list: &str) -> Self {
        self.exempt.add(list);
        self
    }

    /// The tunnel's entrance for a channel with this authority, if there is a proxy.
    pub fn tunnel(self, authority_host: &str) -> Result<Option<Tunnel>, ConnectProxyError> {
        let (upstream, mut exempt) = match self.source {
            Source::None => return Ok(None),
            Source::Given(upstream) => (upstream, Exempt::default()),
            Source::Environment => match Settings::read(|name| std::env::var(name).ok())? {
                Some(found) => (found.upstream, found.exempt),
                None => return Ok(None),
            },
        };
        exempt.extend(self.exempt);
        Ok(Some(Tunnel::new(upstream, exempt, authority_host)))
    }
}

impl Default for ConnectProxy {
    fn default() -> Self {
        Self::from_env()
    }
}

/// Why there is no using a proxy as described. The URL is not shown: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectProxyError {
    /// What should be a URL is none.
    #[error("{origin}: {problem}; it must be http://[user:password@]host[:port]")]
    Url {
        /// The environment variable, or what the URL was given as.
        origin: String,
        /// What is the matter.
        problem: String,
    },
    /// The proxy speaks another protocol than HTTP.
    #[error(
        "{origin}: the scheme {scheme:?} is not supported, only http; Builder::connect_proxy sets another proxy or none"
    )]
    Scheme {
        /// The environment variable, or what the URL was given as.
        origin: String,
        /// What the URL begins with.
        scheme: String,
    },
}
