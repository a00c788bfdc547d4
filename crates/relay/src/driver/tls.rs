//! TLS of one connection, by rustls' buffered interface.
//!
//! An idle connection keeps 8 KB: rustls' state, and a receive buffer of 4 KiB (`examples/idle_memory.rs` measures it). What
//! is sent and not written yet is bounded by [`UNWRITTEN`].

use std::{
    io::{self, BufRead, ErrorKind, Read, Write},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, pki_types::ServerName};

/// Bytes of a connection that are encrypted and not written yet, at most: a slow peer has no more of them.
const UNWRITTEN: usize = 64 * 1024;

/// What rustls reads at once; its receive buffer is this large unless a longer record is in it.
const RECORD_PIECE: usize = 4096;

/// The protocol that has to be agreed on.
const H2: &[u8] = b"h2";

/// One side of a TLS connection.
#[derive(Debug)]
pub(super) struct Tls {
    connection: Connection,
    has_failed: bool,
}

/// How far a handshake has got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handshake {
    Running,
    Done,
    /// It is over, and HTTP/2 was not agreed on.
    WithoutHttp2(String),
}

impl Tls {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self::new(ServerConnection::new(config)?.into()))
    }

    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        Ok(Self::new(ClientConnection::new(config, name)?.into()))
    }

    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(UNWRITTEN));
        Self { connection, has_failed: false }
    }

    /// How far the handshake has got.
    pub(super) fn handshake(&self) -> Handshake {
        if self.connection.is_handshaking() {
            return Handshake::Running;
        }
        match self.connection.alpn_protocol() {
            Some(H2) => Handshake::Done,
            other => {
                let other =
                    other.map_or("no protocol".to_owned(), |name| format!("{:?}", name.escape_ascii().to_string()));
                Handshake::WithoutHttp2(format!("TLS: {other} was agreed on by ALPN, and gRPC needs \"h2\""))
            }
        }
    }

    /// Takes in a piece of what the peer has sent. Returns whether the peer has said that nothing follows.
    pub(super) fn receive(&mut self, input: &mut &[u8]) -> Result<bool, rustls::Error> {
        if let Err(error) = self.connection.read_tls(input) {
            return Err(self.fail(rustls::Error::General(error.to_string())));
        }
        match self.connection.process_new_packets() {
            Ok(state) => Ok(state.peer_has_closed()),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Passes to `each` what has been decrypted.
    pub(super) fn pass_on(&mut self, mut each: impl FnMut(&[u8])) {
        let mut reader = self.connection.reader();
        // Errors only say that there is nothing, now or ever.
        while let Ok(bytes) = reader.fill_buf() {
            let length = bytes.len();
            if length == 0 {
                return;
            }
            each(bytes);
            reader.consume(length);
        }
    }

    /// Makes the receive buffer small again after long records.
    pub(super) fn shrink(&mut self) {
        // rustls fits its buffer to what is in it before it reads; there is nothing to read.
        let _ = self.connection.read_tls(&mut NothingYet);
    }

    /// Encrypts as much of `output` as there is room for, and returns how much that was.
    pub(super) fn send(&mut self, output: &[u8]) -> usize {
        if self.has_failed || output.is_empty() {
            return 0;
        }
        // Writing into memory does not fail.
        self.connection.writer().write(output).unwrap_or(0)
    }

    /// Encrypts all of `rest`, and says that nothing follows.
    pub(super) fn finish(&mut self, rest: &[u8]) {
        if self.has_failed || self.connection.is_handshaking() {
            return;
        }
        self.connection.set_buffer_limit(None);
        self.send(rest);
        self.connection.send_close_notify();
    }

    pub(super) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes what is encrypted, and returns how much of it the socket took before it would have blocked.
    pub(super) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        let mut written = 0;
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn fail(&mut self, error: rustls::Error) -> rustls::Error {
        self.has_failed = true;
        error
    }
}

/// Whether a read of so many bytes may have made a receive buffer large.
pub(super) fn may_have_grown(read: usize) -> bool {
    read > RECORD_PIECE
}

struct NothingYet;

impl Read for NothingYet {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}
