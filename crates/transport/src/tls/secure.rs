//! Handshakes, each with the newest good files.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{AlertDescription, CertificateError, ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Protocol, Tls, TlsError, material::Material};

/// A channel's TLS, ready for handshakes.
pub struct Secure {
    tls: Tls,
    protocol: Protocol,
    name: ServerName<'static>,
    /// Shared by all that differ in the name alone.
    loaded: Arc<Mutex<Loaded>>,
}

struct Loaded {
    /// What was last read, good or bad: each bad one is logged once.
    material: Material,
    /// What the last good material came to.
    config: Arc<ClientConfig>,
}

impl Secure {
    /// Reads the files for the first time: what is wrong with them shows when the channel is built.
    pub fn new(tls: Tls, authority_host: &str) -> Result<Self, TlsError> {
        Self::speaking(Protocol::Http2, tls, authority_host)
    }

    /// As [`new`](Self::new), with another protocol inside.
    pub fn speaking(protocol: Protocol, tls: Tls, authority_host: &str) -> Result<Self, TlsError> {
        let name = expected_name(&tls, authority_host)?;
        let material = Material::read(&tls)?;
        let config = Arc::new(material.config(&tls, protocol)?);
        Ok(Self { tls, protocol, name, loaded: Arc::new(Mutex::new(Loaded { material, config })) })
    }

    /// The same for another host, with what has been read so far: thousands of hosts cost one set of roots.
    pub fn for_host(&self, authority_host: &str) -> Result<Self, TlsError> {
        let name = expected_name(&self.tls, authority_host)?;
        Ok(Self { tls: self.tls.clone(), protocol: self.protocol, name, loaded: Arc::clone(&self.loaded) })
    }

    /// Shakes hands over `stream`.
    ///
    /// # Errors
    ///
    /// What failed and what to do about it.
    pub async fn handshake<S>(self: &Arc<Self>, stream: S) -> Result<TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.config().await);
        let stream = connector.connect(self.name.clone(), stream).await.map_err(|error| self.explain(&error))?;
        match (self.protocol, stream.get_ref().1.alpn_protocol()) {
            (Protocol::Http2, Some(b"h2")) | (Protocol::Http1 | Protocol::Unnamed, _) => Ok(stream),
            (Protocol::Http2, other) => Err(no_h2(other)),
        }
    }

    /// The configuration of now. Files are read where blocking is allowed.
    async fn config(self: &Arc<Self>) -> Arc<ClientConfig> {
        let secure = Arc::clone(self);
        let reloaded = tokio::task::spawn_blocking(move || secure.reload()).await;
        reloaded.unwrap_or_else(|_| self.last_good())
    }

    fn reload(&self) -> Arc<ClientConfig> {
        let read = Material::read(&self.tls);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = match read {
            Ok(material) if material == loaded.material => return Arc::clone(&loaded.config),
            Ok(material) => {
                let config = material.config(&self.tls, self.protocol);
                loaded.material = material;
                config
            }
            Err(error) => Err(error),
        };
        match renewed {
            Ok(config) => {
                tracing::info!(target: "evenkeel::channel", server_name = %self.name.to_str(), "TLS files have changed; new connections use them");
                loaded.config = Arc::new(config);
            }
            Err(error) => {
                tracing::warn!(target: "evenkeel::channel", server_name = %self.name.to_str(), %error, "TLS files cannot be used; the last good ones stay in force");
            }
        }
        Arc::clone(&loaded.config)
    }

    fn last_good(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner).config)
    }

    fn explain(&self, error: &io::Error) -> String {
        let name = self.name.to_str();
        match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(cause) => format!("TLS: {cause}{}", advice(cause, &name)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "TLS: the server hung up during the handshake; does it speak TLS on this port?".to_owned()
            }
            None => format!("TLS: {error}"),
        }
    }
}

/// Whom certificates must be for.
fn expected_name(tls: &Tls, authority_host: &str) -> Result<ServerName<'static>, TlsError> {
    let host = tls.server_name.clone().unwrap_or_else(|| authority_host.to_owned());
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    ServerName::try_from(bare).map_err(|_| TlsError::ServerName(host))
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").field("tls", &self.tls).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What to do about a failed handshake, where that is known.
fn advice(error: &rustls::Error, name: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "; none of the trusted roots has signed the server's certificate: name its CA by Tls::ca_file".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("; the channel expects {name}: set another name by Tls::server_name"),
        rustls::Error::InvalidMessage(_) => "; the server does not seem to speak TLS on this port".to_owned(),
        rustls::Error::AlertReceived(alert) => alert_advice(*alert).to_owned(),
        _ => String::new(),
    }
}

/// What to do about an alert of the server.
fn alert_advice(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::NoApplicationProtocol => "; the server does not speak HTTP/2 (ALPN h2)",
        AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
            "; the server may want a client's certificate: give one by Tls::identity_files"
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::UnsupportedCertificate => {
            "; the server does not accept the client's certificate: check what Tls::identity_files names"
        }
        _ => "",
    }
}

/// An error of reading, with what to do about it if it is an alert. A TLS 1.3 client's handshake is over before the
/// server has seen its certificate, so that the refusal comes where data is awaited.
pub(crate) fn explain_read(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(cause @ rustls::Error::AlertReceived(alert)) => {
            io::Error::new(error.kind(), format!("TLS: {cause}{}", alert_advice(*alert)))
        }
        _ => error,
    }
}

fn no_h2(negotiated: Option<&[u8]>) -> String {
    let what =
        negotiated.map_or_else(|| "no protocol".to_owned(), |name| format!("{:?}", name.escape_ascii().to_string()));
    format!("TLS: the server chose {what} by ALPN, and gRPC needs \"h2\": is it a gRPC server, and is HTTP/2 on there?")
}
