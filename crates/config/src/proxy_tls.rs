use std::path::PathBuf;

use serde::Deserialize;

/// TLS towards a proxy's backends (`backend_tls`). An empty table is TLS by the system's roots. Files are PEM, relative to
/// where the command runs, and read again for each new connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BackendTls {
    /// The certificates that sign those of backends, in place of the system's roots.
    pub ca: Option<PathBuf>,
    /// The name that backends' certificates must be for. Default: the host of the target, or the service's name.
    pub name: Option<String>,
    /// The certificate chain that backends are shown (mTLS), the proxy's own first. With a `key`.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// TLS towards a proxy's clients (`tls`). Files are PEM, relative to where the command runs; those that are replaced count
/// for later connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClientTls {
    /// The certificate chain that clients are shown, the proxy's own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificates that sign those of clients, which then have to show one (mTLS). Default: none is asked for.
    pub client_ca: Option<PathBuf>,
}
