//! Handshakes, each with the newest good files.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Handshake, Protocol, Tls, TlsError, material::Material};

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
        let handshake = self.next_handshake().await;
        let connector = TlsConnector::from(Arc::clone(&handshake.config));
        let connected = connector.connect(handshake.server_name.clone(), stream).await;
        let stream = connected.map_err(|error| handshake.explain(&error))?;
        handshake.agreed(stream.get_ref().1.alpn_protocol())?;
        Ok(stream)
    }

    /// What the next handshake goes by, for whoever speaks TLS by itself. The files are read for it.
    pub async fn next_handshake(self: &Arc<Self>) -> Handshake {
        Handshake { config: self.config().await, server_name: self.name.clone(), protocol: self.protocol }
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
