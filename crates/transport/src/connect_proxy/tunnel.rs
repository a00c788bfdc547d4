//! Tunnels through a proxy.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    exempt::Exempt,
    reply::{Reply, ReplyError, ReplyHead},
    settings::Upstream,
};

/// The way to a channel's endpoints through a proxy.
#[derive(Debug)]
pub struct Tunnel {
    proxy: Upstream,
    exempt: Exempt,
    /// The host of the channel's authority.
    name: String,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error("the proxy {proxy} cannot be reached: {error}")]
    Unreachable { proxy: String, error: io::Error },
    #[error("the proxy {proxy} hung up before it had answered: {error}")]
    HungUp { proxy: String, error: io::Error },
    #[error("the proxy {proxy} is not understood: {error}")]
    NotUnderstood { proxy: String, error: String },
    #[error("the proxy {proxy} gives no tunnel: \"{line}\"{advice}")]
    Refused { proxy: String, line: String, advice: &'static str },
}

impl TunnelError {
    /// Nobody listens where the proxy should be.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Unreachable { error, .. } if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl Tunnel {
    pub(super) fn new(proxy: Upstream, exempt: Exempt, authority_host: &str) -> Self {
        Self { proxy, exempt, name: authority_host.to_owned() }
    }

    /// Whether the way to `address` is through the proxy.
    pub(crate) fn leads_to(&self, address: SocketAddr) -> bool {
        !self.exempt.spares(&self.name, address)
    }

    /// A byte stream to `address`. It takes as long as the proxy does: the caller sets the limit.
    pub(crate) async fn open(&self, address: SocketAddr) -> Result<TcpStream, TunnelError> {
        let proxy = self.proxy.to_string();
        let mut stream = match TcpStream::connect((self.proxy.host.as_str(), self.proxy.port)).await {
            Ok(stream) => stream,
            Err(error) => return Err(TunnelError::Unreachable { proxy, error }),
        };
        match self.ask(&mut stream, address).await {
            Ok(reply) if (200..300).contains(&reply.code) => Ok(stream),
            Ok(reply) => Err(TunnelError::Refused { proxy, line: reply.line, advice: advice(reply.code) }),
            Err(Interruption::Io(error)) => Err(TunnelError::HungUp { proxy, error }),
            Err(Interruption::Reply(error)) => Err(TunnelError::NotUnderstood { proxy, error: error.to_string() }),
        }
    }

    async fn ask(&self, stream: &mut TcpStream, address: SocketAddr) -> Result<Reply, Interruption> {
        stream.write_all(self.request(address).as_bytes()).await?;
        read_reply(stream).await
    }

    fn request(&self, address: SocketAddr) -> String {
        let agent = concat!("evenkeel/", env!("CARGO_PKG_VERSION"));
        let authorization = self.proxy.authorization.as_ref();
        let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
        format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {agent}\r\n{authorization}\r\n")
    }
}

/// Why a reply was not read to its end.
enum Interruption {
    Io(io::Error),
    Reply(ReplyError),
}

impl From<io::Error> for Interruption {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ReplyError> for Interruption {
    fn from(error: ReplyError) -> Self {
        Self::Reply(error)
    }
}

/// Reads the head of the reply and nothing beyond: the endpoint may speak right behind it.
async fn read_reply(stream: &mut TcpStream) -> Result<Reply, Interruption> {
    let (mut head, mut bytes) = (ReplyHead::default(), [0; 1024]);
    loop {
        let seen = stream.peek(&mut bytes).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let (taken, reply) = head.take(&bytes[..seen])?;
        stream.read_exact(&mut bytes[..taken]).await?;
        if let Some(reply) = reply {
            return Ok(reply);
        }
    }
}

fn advice(code: u16) -> &'static str {
    match code {
        407 => "; it wants credentials, or others: put them into its URL, as http://user:password@host:port",
        403 | 405 => "; does it allow CONNECT to this address and port?",
        502..=504 => "; it cannot reach the endpoint",
        _ => "",
    }
}
