//! Byte streams to peers: TCP and Unix sockets, through a proxy and with TLS where the channel has them.

use std::{io, net::SocketAddr, time::Duration};

use evenkeel_balance::Address;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::connect_proxy::{Tunnel, TunnelError};

/// A byte stream to a peer.
pub type Stream = Box<dyn ByteStream>;

/// What HTTP/2 needs of a byte stream.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// How peers are dialled.
#[derive(Debug, Default)]
pub struct Dialer {
    /// The way through an HTTP proxy, where there is one.
    pub tunnel: Option<Tunnel>,
    /// How long the kernel waits for what it has sent to be acknowledged before it gives the peer up (gRFC A18).
    pub user_timeout: Option<Duration>,
    /// TLS, where it is spoken.
    #[cfg(feature = "tls")]
    pub tls: Option<std::sync::Arc<crate::tls::Secure>>,
}

/// A connection with nothing on it yet but what an HTTP proxy was asked: no TLS, no HTTP/2.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP; small frames are sent at once (`TCP_NODELAY`).
    Tcp(TcpStream),
    /// Over a Unix socket, of a path or abstract.
    Unix(UnixStream),
}

impl Socket {
    /// Its address on this side.
    fn local(&self) -> Option<Address> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(Address::Tcp),
            Self::Unix(_) => None,
        }
    }

    fn into_stream(self) -> Stream {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            Self::Unix(stream) => Box::new(stream),
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The peer's.
    pub remote: Address,
    /// Ours; `None` for Unix sockets, whose near end has no name.
    pub local: Option<Address>,
    /// Whether TLS is between them.
    pub is_secure: bool,
}

/// Why a peer could not be dialled.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DialError {
    message: String,
    /// The machine answers and nobody listens there.
    pub refused: bool,
}

impl Dialer {
    /// Connects to `address`, and shakes hands where there is TLS.
    pub async fn dial(&self, address: &Address) -> Result<(Stream, Ends), DialError> {
        let socket = self.dial_plain(address).await?;
        let (local, stream) = (socket.local(), socket.into_stream());
        let ends = |is_secure| Ends { remote: address.clone(), local, is_secure };
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let stream = tls.handshake(stream).await.map_err(|message| DialError { message, refused: false })?;
            return Ok((Box::new(stream), ends(true)));
        }
        Ok((stream, ends(false)))
    }

    /// As [`dial`](Self::dial), and leaves TLS to the caller, by what `Secure::next_handshake` says.
    ///
    /// # Errors
    ///
    /// [`DialError`] where the peer, or the HTTP proxy on the way, cannot be reached or refuses. It takes as long as they
    /// do: the caller sets the limit.
    pub async fn dial_plain(&self, address: &Address) -> Result<Socket, DialError> {
        match address {
            Address::Tcp(address) => Ok(Socket::Tcp(self.connect_tcp(*address).await?)),
            Address::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
            #[cfg(target_os = "linux")]
            Address::UnixAbstract(name) => Ok(Socket::Unix(connect_abstract(name)?)),
            other => {
                Err(io::Error::new(io::ErrorKind::Unsupported, format!("no transport for {other} on this system"))
                    .into())
            }
        }
    }

    /// Small frames are sent at once (`TCP_NODELAY`): a call is a few of them.
    async fn connect_tcp(&self, address: SocketAddr) -> Result<TcpStream, DialError> {
        let stream = match self.tunnel.as_ref().filter(|tunnel| tunnel.leads_to(address)) {
            Some(tunnel) => tunnel.open(address).await?,
            None => TcpStream::connect(address).await?,
        };
        stream.set_nodelay(true)?;
        if let Some(timeout) = self.user_timeout {
            limit_patience(&stream, timeout)?;
        }
        Ok(stream)
    }
}

/// Without it, data that is never acknowledged keeps a connection for a quarter of an hour, and a PING behind it.
#[cfg(target_os = "linux")]
fn limit_patience(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout))
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "as on Linux, where there is something to do")]
fn limit_patience(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

/// A connection to a socket on this machine is made, or refused, at once.
#[cfg(target_os = "linux")]
fn connect_abstract(name: &[u8]) -> io::Result<UnixStream> {
    use std::os::{linux::net::SocketAddrExt, unix::net};

    let stream = net::UnixStream::connect_addr(&net::SocketAddr::from_abstract_name(name)?)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        // A Unix socket that is not there has nobody behind it either.
        let refused = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
        Self { message: error.to_string(), refused }
    }
}

impl From<TunnelError> for DialError {
    fn from(error: TunnelError) -> Self {
        Self { message: error.to_string(), refused: error.is_refused() }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_as_impatient_as_it_is_told_to_be_and_patient_otherwise() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for user_timeout in [None, Some(Duration::from_secs(20))] {
            let dialer = Dialer {
                tunnel: None,
                user_timeout,
                #[cfg(feature = "tls")]
                tls: None,
            };
            let stream = dialer.connect_tcp(listener.local_addr().unwrap()).await.unwrap();
            assert_eq!(socket2::SockRef::from(&stream).tcp_user_timeout().unwrap(), user_timeout);
        }
    }
}
