//! Connections for whoever speaks HTTP/2 and TLS by itself: dialled as the channel's own are, and then handed over.

use std::{io, net, os::unix, sync::Arc, time::Duration};

use evenkeel_balance::Address;
use evenkeel_transport::{DialError, Dialer, Socket};

/// How endpoints are reached.
pub(crate) struct Dialling {
    pub(crate) dialer: Arc<Dialer>,
    /// An attempt that takes longer has failed.
    pub(crate) timeout: Duration,
}

/// A connection of the caller's own to an endpoint, on which nothing has been sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct Dialled {
    /// The socket, non-blocking.
    pub socket: DataSocket,
    /// What TLS is to be spoken by, with the files as they are now; `None` where the channel speaks none.
    #[cfg(feature = "tls")]
    pub tls: Option<evenkeel_transport::Handshake>,
}

/// A socket of the standard library.
#[derive(Debug)]
pub enum DataSocket {
    /// Over TCP, with `TCP_NODELAY`, and the time-out for unacknowledged data where the channel has
    /// [keepalive](crate::Builder::keepalive). Where the channel goes through an HTTP proxy, the tunnel stands.
    Tcp(net::TcpStream),
    /// Over a Unix socket.
    Unix(unix::net::UnixStream),
}

/// Why an endpoint could not be dialled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDialError {
    /// It, or the HTTP proxy on the way, refused or cannot be reached.
    #[error(transparent)]
    Failed(#[from] DialError),
    /// It took longer than the channel's own attempts may take.
    #[error("not connected within {0:?}")]
    TimedOut(Duration),
    /// The socket cannot be taken out of the runtime.
    #[error("the new socket is unusable: {0}")]
    Socket(#[from] io::Error),
}

impl Dialling {
    pub(crate) async fn dial(&self, address: &Address) -> Result<Dialled, DataDialError> {
        let dialled = tokio::time::timeout(self.timeout, self.dialer.dial_plain(address)).await;
        let socket = match dialled.map_err(|_| DataDialError::TimedOut(self.timeout))?? {
            Socket::Tcp(stream) => DataSocket::Tcp(stream.into_std()?),
            Socket::Unix(stream) => DataSocket::Unix(stream.into_std()?),
        };
        Ok(Dialled {
            socket,
            #[cfg(feature = "tls")]
            tls: match &self.dialer.tls {
                Some(secure) => Some(secure.next_handshake().await),
                None => None,
            },
        })
    }
}
