//! The handshake of TLS, before HTTP/2.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::identity::ConnectionId;
use crate::lifetime::Reason;
use crate::listener::Socket;
use crate::metrics;
use crate::settings::Settings;

/// HTTP/2 by ALPN, without which gRPC clients hang up, unless the protocols are chosen already.
pub(crate) fn offering_http2(mut config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if config.alpn_protocols.is_empty() {
        Arc::make_mut(&mut config).alpn_protocols.push(b"h2".to_vec());
    }
    config
}

/// The connection after its handshake, where the server speaks TLS; `None` if that failed.
pub(crate) async fn secured(
    socket: Socket,
    settings: &Settings,
    id: ConnectionId,
    mut down: watch::Receiver<bool>,
) -> Option<Socket> {
    let (config, stream) = match (&settings.tls, socket) {
        (Some(config), Socket::Tcp(stream)) => (config.clone(), stream),
        (_, socket) => return Some(socket),
    };
    let handshake = timeout(settings.handshake_timeout, TlsAcceptor::from(config).accept(stream));
    tokio::select! {
        secured = handshake => match secured {
            Ok(Ok(stream)) => return Some(Socket::Tls(Box::new(stream))),
            Ok(Err(error)) => tracing::debug!(connection = %id, %error, "TLS handshake failed"),
            Err(_) => metrics::cut_off(Reason::Handshake),
        },
        _ = down.wait_for(|down| *down) => metrics::cut_off(Reason::Shutdown),
    }
    None
}
