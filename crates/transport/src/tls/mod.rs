//! TLS: what a channel trusts, who it is, and whom it expects.
//!
//! [`Tls`] is the description. `secure` runs handshakes with it, and takes in files that have been replaced; `handshake` is
//! what one of them goes by, and says what to do if it fails; `server` is the listening side; `material` reads PEM and makes a client's configuration of it.

mod handshake;
mod material;
mod secure;
mod server;

use std::{fmt, path::PathBuf};

pub use handshake::Handshake;
pub(crate) use handshake::explain_read;
pub use secure::Secure;
pub use server::ServerTls;

/// How TLS is spoken with servers: a channel's builder takes it.
///
/// Versions are 1.2 and 1.3, and the protocol inside is HTTP/2 (ALPN `h2`), as gRPC requires. A server's certificate is
/// checked against the system's roots unless others are given, and for the host of the channel's authority unless
/// another name is given.
///
/// **Rotation.** Files are read again for each new connection. Where they have changed, that connection and later ones
/// use them; connections that are open stay open, and no call notices. Files that cannot be used (half written, or a
/// certificate whose key has not followed yet) are logged as a warning, and the last good ones stay in force.
///
/// ```no_run
/// use evenkeel_transport::Tls;
///
/// let tls = Tls::new().ca_file("/etc/tls/ca.pem").identity_files("/etc/tls/tls.crt", "/etc/tls/tls.key");
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a description does nothing until a builder has it"]
pub struct Tls {
    ca: Option<Pem>,
    identity: Option<Identity>,
    server_name: Option<String>,
}

/// A certificate chain and its private key.
#[derive(Clone, Debug)]
struct Identity {
    chain: Pem,
    key: Pem,
}

/// Where PEM comes from.
#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Text(Vec<u8>),
}

/// Text is not shown: it may be a private key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Text(_) => f.write_str("(given as text)"),
        }
    }
}

impl Tls {
    /// TLS that trusts the system's roots and shows no certificate of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts only the certificates in this PEM file, in place of the system's roots.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { ca: Some(Pem::File(path.into())), ..self }
    }

    /// Trusts only these certificates, in PEM, in place of the system's roots.
    pub fn ca_pem(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { ca: Some(Pem::Text(pem.into())), ..self }
    }

    /// Shows servers this certificate (mTLS): PEM files of the chain, its own certificate first, and of the key.
    pub fn identity_files(self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { identity: Some(Identity { chain: Pem::File(chain.into()), key: Pem::File(key.into()) }), ..self }
    }

    /// As [`identity_files`](Self::identity_files), of PEM in memory.
    pub fn identity_pem(self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { identity: Some(Identity { chain: Pem::Text(chain.into()), key: Pem::Text(key.into()) }), ..self }
    }

    /// The name (or IP address) that servers' certificates must be for, and that they are sent (SNI). Default: the
    /// host of the channel's authority.
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { server_name: Some(name.into()), ..self }
    }
}

/// What is spoken inside of TLS, agreed by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, as gRPC requires: the server must choose it.
    Http2,
    /// HTTP/1.1: the server may leave it unsaid.
    Http1,
    /// Nothing is agreed.
    Unnamed,
}

impl Protocol {
    fn name(self) -> Option<&'static [u8]> {
        match self {
            Self::Http2 => Some(b"h2"),
            Self::Http1 => Some(b"http/1.1"),
            Self::Unnamed => None,
        }
    }
}

/// Why a channel cannot speak TLS as described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// What should be PEM is not, or holds no certificate or key.
    #[error("{origin}: {problem}; it must be PEM with a {expected}")]
    Pem {
        /// The file, or what the text was given as.
        origin: String,
        /// What should be in it.
        expected: &'static str,
        /// What is the matter.
        problem: String,
    },
    /// The certificate and the key cannot be used together.
    #[error("{origin}: {problem}; the certificate chain and the key must belong together")]
    Identity {
        /// The chain's file, or what the text was given as.
        origin: String,
        /// What is the matter.
        problem: String,
    },
    /// The system has no usable root certificates.
    #[error(
        "no root certificates on this system ({0}); install them (ca-certificates), or name your own by Tls::ca_file"
    )]
    SystemRoots(String),
    /// The name to check certificates for is none.
    #[error("{0:?} is no DNS name or IP address that a certificate can be for; set one with Tls::server_name")]
    ServerName(String),
}
