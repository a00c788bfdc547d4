use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use evenkeel_channel::Channel;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    Settings,
    server::{self, Draining},
};

/// How long to wait after a failed accept, say for want of file descriptors: long enough to keep the processor idle.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    address: SocketAddr,
    channel: Channel,
    settings: Settings,
}

impl Proxy {
    /// Listens on `address`, port 0 for any free one, and will place the calls that come in on `channel`.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on: in use, not this machine's, or not permitted.
    pub async fn bind(address: SocketAddr, channel: Channel, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        // The first call should not have to wait for the first connection.
        channel.connect();
        Ok(Self { listener, address, channel, settings })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, then drains: no new connections, GOAWAY on those there are, and running calls
    /// may end within [`Settings::drain_timeout`]. Returns whether all of them did.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> bool {
        let (drain, draining) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.accept(&mut connections, stream, peer, &draining),
                    Err(error) => {
                        tracing::warn!(target: "evenkeel::proxy", %error, "accepting a connection failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        let timeout = self.settings.drain_timeout;
        drop(self.listener);
        drain.send_replace(true);
        finish(connections, timeout).await
    }

    fn accept(
        &self,
        connections: &mut JoinSet<()>,
        stream: TcpStream,
        peer: SocketAddr,
        draining: &watch::Receiver<bool>,
    ) {
        tracing::debug!(target: "evenkeel::proxy", %peer, "connection accepted");
        let (channel, settings) = (self.channel.clone(), self.settings.clone());
        let draining = Draining::new(draining.clone());
        connections.spawn(async move {
            let why = server::serve(stream, channel, settings, draining).await;
            tracing::debug!(target: "evenkeel::proxy", %peer, reason = why.as_deref().unwrap_or("closed"), "connection ended");
        });
    }
}

/// Waits for the connections to end, at most for `timeout`.
async fn finish(mut connections: JoinSet<()>, timeout: Duration) -> bool {
    let (count, began) = (connections.len(), Instant::now());
    tracing::info!(target: "evenkeel::proxy", connections = count, ?timeout, "draining");
    let ended = tokio::time::timeout(timeout, async { while connections.join_next().await.is_some() {} }).await.is_ok();
    let left = connections.len();
    if ended {
        tracing::info!(target: "evenkeel::proxy", took = ?began.elapsed(), "drained");
    } else {
        tracing::warn!(target: "evenkeel::proxy", connections = left, ?timeout, "drain time-out: closing what is left");
    }
    ended
}
