use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use evenkeel_balance::Time;
use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream},
};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};

use super::Counters;

/// Connections that may wait to be accepted. The kernel has a limit of its own (`net.core.somaxconn`, 4096).
pub(super) const BACKLOG: i32 = 4096;

/// How long to wait after a failed accept: long enough to keep the processor idle while file descriptors are short.
const PAUSE: Duration = Duration::from_millis(50);

/// How often failed accepts are logged at most.
const COMPLAINT_EVERY: Duration = Duration::from_secs(1);

/// One worker's share of an address that is listened on.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
}

impl Listener {
    /// Listens on `address` for each of `workers` workers; port 0 is one free port for all of them. With `tls`, clients
    /// have to speak it, and to choose `h2` by ALPN, which the configuration has to offer.
    ///
    /// Another process of the same user that listens with `SO_REUSEPORT` may share the address; the kernel then deals
    /// connections out to both.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on: in use, not this machine's, or not permitted.
    pub fn bind(mut address: SocketAddr, workers: usize, tls: Option<&Arc<ServerConfig>>) -> io::Result<Vec<Self>> {
        let mut listeners = Vec::with_capacity(workers);
        for _ in 0..workers {
            let socket = listen(address)?;
            address = socket.local_addr()?;
            listeners.push(Self { socket, address, tls: tls.map(Arc::clone) });
        }
        Ok(listeners)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// All that one worker listens on.
#[derive(Debug)]
pub(super) struct Acceptor {
    listeners: Vec<(Listener, IsReady)>,
    /// When accepting goes on after it has failed.
    paused_until: Option<Time>,
    complained_at: Option<Time>,
}

/// Whether a listener may have connections waiting.
type IsReady = bool;

/// A client, and the TLS that it has to speak.
pub(super) type Accepted = (TcpStream, Option<Arc<ServerConfig>>);

impl Acceptor {
    /// Registers the listeners by the tokens that `token` gives their numbers.
    pub(super) fn new(
        listeners: Vec<Listener>,
        registry: &Registry,
        token: impl Fn(usize) -> Token,
    ) -> io::Result<Self> {
        let mut listeners: Vec<_> = listeners.into_iter().map(|listener| (listener, false)).collect();
        for (number, (listener, _)) in listeners.iter_mut().enumerate() {
            registry.register(&mut listener.socket, token(number), Interest::READABLE)?;
        }
        Ok(Self { listeners, paused_until: None, complained_at: None })
    }

    pub(super) fn set_ready(&mut self, number: usize) {
        if let Some((_, is_ready)) = self.listeners.get_mut(number) {
            *is_ready = true;
        }
    }

    /// Connections may have come that were not told of yet.
    pub(super) fn set_all_ready(&mut self) {
        self.listeners.iter_mut().for_each(|(_, is_ready)| *is_ready = true);
    }

    /// Whether there may be connections to accept now.
    pub(super) fn is_ready(&self) -> bool {
        self.paused_until.is_none() && self.listeners.iter().any(|(_, is_ready)| *is_ready)
    }

    /// When accepting goes on after it has failed.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.paused_until
    }

    /// The next client, if one waits.
    pub(super) fn accept(&mut self, now: Time, counters: &Counters) -> Option<Accepted> {
        if self.paused_until.is_some_and(|until| until > now) {
            return None;
        }
        self.paused_until = None;
        while let Some((listener, is_ready)) = self.listeners.iter_mut().find(|(_, is_ready)| *is_ready) {
            match listener.socket.accept() {
                Ok((stream, _)) => return Some((stream, listener.tls.clone())),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => *is_ready = false,
                    // The client has gone again; others may wait behind it.
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted => {}
                    _ => {
                        counters.accept_errors.add(1);
                        self.pause(now, &error);
                        return None;
                    }
                },
            }
        }
        None
    }

    /// Listens no more.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.paused_until = None;
    }

    fn pause(&mut self, now: Time, error: &io::Error) {
        self.paused_until = Some(now + PAUSE);
        if self.complained_at.is_none_or(|at| now.since(at) >= COMPLAINT_EVERY) {
            self.complained_at = Some(now);
            tracing::warn!(
                target: "evenkeel::relay",
                %error,
                "accepting a connection failed; it is tried again every {PAUSE:?}. Are there enough file descriptors (ulimit -n)?"
            );
        }
    }
}
