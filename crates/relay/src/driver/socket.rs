use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::{self, Shutdown},
    os::unix,
    sync::Arc,
};

use evenkeel_balance::Time;
use mio::{
    Interest, Registry, Token,
    net::{TcpStream, UnixStream},
};
use rustls::{ClientConfig, pki_types::ServerName};

use super::{Counters, tls::Tls};
use crate::engine::{ConnKey, DialId};

/// A connected socket that another thread hands over to a worker.
#[derive(Debug)]
pub struct Dialled {
    stream: DialledStream,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

#[derive(Debug)]
enum DialledStream {
    Tcp(net::TcpStream),
    Unix(unix::net::UnixStream),
}

impl Dialled {
    /// A TCP connection. The worker makes it non-blocking, and sends small writes at once (`TCP_NODELAY`).
    pub fn tcp(stream: net::TcpStream) -> Self {
        Self { stream: DialledStream::Tcp(stream), tls: None }
    }

    /// A connection by a Unix socket.
    pub fn unix(stream: unix::net::UnixStream) -> Self {
        Self { stream: DialledStream::Unix(stream), tls: None }
    }

    /// The worker shakes hands by TLS first, and expects a certificate for `name`. The configuration has to offer `h2` by
    /// ALPN.
    #[must_use]
    pub fn with_tls(self, config: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        Self { tls: Some((config, name)), ..self }
    }
}

/// How a socket came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Accepted,
    Dialled(DialId),
}

/// Where a socket is in its life; the module's documentation has the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Handshaking,
    Open(ConnKey),
    Flushing,
    Lingering,
}

/// How far the peer's half of a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    Open,
    /// The kernel has said that the peer has closed it. As it will not say so again, the socket is read to its end.
    Closing,
    /// It has been read to its end.
    Ended,
}

/// A socket of a worker.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    pub(super) tls: Option<Box<Tls>>,
    pub(super) origin: Origin,
    pub(super) state: State,
    /// When it is to be seen to, in the states that do not last.
    pub(super) deadline: Option<Time>,
    /// What is left to write when the engine knows it no more. With TLS, that is kept there.
    rest: Box<[u8]>,
    rest_written: usize,
    /// The kernel takes no more at present; it will say when it does.
    pub(super) is_blocked: bool,
    /// How far the peer's half has got.
    pub(super) inbound: Inbound,
    /// It is in the list of those to read.
    pub(super) is_readable: bool,
    /// It is in the list of those to write to.
    pub(super) is_dirty: bool,
}

impl Socket {
    pub(super) fn accepted(stream: TcpStream, tls: Option<Tls>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::new(Stream::Tcp(stream), tls, Origin::Accepted))
    }

    /// # Errors
    ///
    /// What went wrong, in words for the engine.
    pub(super) fn dialled(dial: DialId, dialled: Dialled) -> Result<Self, String> {
        let stream = Stream::from_dialled(dialled.stream).map_err(|error| error.to_string())?;
        let tls = dialled.tls.map(|(config, name)| Tls::client(config, name)).transpose();
        let tls = tls.map_err(|error| format!("TLS: {error}"))?;
        Ok(Self::new(stream, tls, Origin::Dialled(dial)))
    }

    fn new(stream: Stream, tls: Option<Tls>, origin: Origin) -> Self {
        Self {
            stream,
            tls: tls.map(Box::new),
            origin,
            state: State::Handshaking,
            deadline: None,
            rest: Box::default(),
            rest_written: 0,
            is_blocked: false,
            inbound: Inbound::Open,
            is_readable: false,
            is_dirty: false,
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match &mut self.stream {
            Stream::Tcp(stream) => registry.register(stream, token, interest),
            Stream::Unix(stream) => registry.register(stream, token, interest),
        }
    }

    /// Reads what has come, as it is on the wire.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes as much of `output` as there is room for now, and returns how much was taken. With TLS, part of that may
    /// still be here, encrypted.
    pub(super) fn write(&mut self, output: &[u8], counters: &Counters) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let taken = write_some(&mut self.stream, output)?;
            counters.bytes_out.add_bytes(taken);
            self.is_blocked = taken < output.len();
            return Ok(taken);
        };
        let taken = tls.send(output);
        counters.bytes_out.add_bytes(tls.write_to(&mut self.stream)?);
        self.is_blocked = tls.wants_write();
        Ok(taken)
    }

    /// Takes over what the engine has left to say: nothing follows.
    pub(super) fn finish(&mut self, rest: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.finish(rest),
            None => self.rest = rest.into(),
        }
    }

    /// Writes what was taken over, as far as there is room. Returns whether all of it is written.
    pub(super) fn flush(&mut self, counters: &Counters) -> io::Result<bool> {
        if self.tls.is_some() {
            self.write(&[], counters)?;
            return Ok(!self.is_blocked);
        }
        let written = write_some(&mut self.stream, &self.rest[self.rest_written..])?;
        counters.bytes_out.add_bytes(written);
        self.rest_written += written;
        self.is_blocked = self.rest_written < self.rest.len();
        Ok(!self.is_blocked)
    }

    /// Tells the peer that nothing follows.
    pub(super) fn shut_down(&mut self) -> io::Result<()> {
        self.rest = Box::default();
        self.rest_written = 0;
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

/// How much the kernel took at once: all, or until it would have blocked.
fn write_some(stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn from_dialled(stream: DialledStream) -> io::Result<Self> {
        match stream {
            DialledStream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(TcpStream::from_std(stream)))
            }
            DialledStream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Ok(Self::Unix(UnixStream::from_std(stream)))
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    /// TLS records are written together.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(pieces),
            Self::Unix(stream) => stream.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
