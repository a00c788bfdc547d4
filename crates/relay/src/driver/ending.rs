//! How a worker's sockets come to their end.

use std::io::{self, ErrorKind};

use super::{
    socket::{Inbound, Origin, Socket, State},
    worker::Worker,
};
use crate::engine::{Closed, ConnKey, Engine};

impl<E: Engine> Worker<E> {
    /// The engine wants the connection closed.
    pub(super) fn close(&mut self, engine: &mut E, key: ConnKey) {
        if let Some(slot) = self.sockets.slot_of(key) {
            self.let_go(engine, slot, Closed::Done);
        }
    }

    /// There is nothing more to read from a socket, ever.
    pub(super) fn read_to_end(&mut self, engine: &mut E, slot: u32) {
        let Some(socket) = self.sockets.get(slot) else { return };
        socket.inbound = Inbound::Ended;
        if socket.state == State::Lingering {
            self.sockets.remove(slot);
        } else {
            self.ended(engine, slot);
        }
    }

    /// The peer says nothing more. It may still read what was there for it by then.
    pub(super) fn ended(&mut self, engine: &mut E, slot: u32) {
        match self.sockets.get(slot).map(|socket| socket.state) {
            Some(State::Handshaking) => {
                self.refuse(
                    engine,
                    slot,
                    "TLS: the peer hung up during the handshake; does it speak TLS on this port?".into(),
                );
            }
            Some(State::Open(_)) => self.let_go(engine, slot, Closed::Eof),
            _ => {}
        }
    }

    /// A socket does not work any more.
    pub(super) fn failed(&mut self, engine: &mut E, slot: u32, error: &io::Error) {
        let Some(socket) = self.sockets.remove(slot) else { return };
        match socket.state {
            State::Handshaking => self.handshake_failed(engine, socket.origin, format!("TLS: {error}")),
            State::Open(key) => engine.closed(self.now, key, how_it_ended(error)),
            State::Flushing | State::Lingering => {}
        }
    }

    /// What the peer sent is no TLS, or none that can be accepted. It is told by an alert.
    pub(super) fn tls_failed(&mut self, engine: &mut E, slot: u32, error: &rustls::Error) {
        match self.sockets.get(slot).map(|socket| socket.state) {
            Some(State::Handshaking) => self.refuse(engine, slot, format!("TLS: {error}")),
            Some(State::Open(_)) => {
                self.let_go(engine, slot, Closed::Failed(format!("TLS: {error}")));
            }
            _ => {}
        }
    }

    /// A handshake has come to no good end.
    pub(super) fn refuse(&mut self, engine: &mut E, slot: u32, why: String) {
        let Some(socket) = self.sockets.get(slot) else { return };
        let origin = socket.origin;
        self.finish(slot, &[]);
        self.handshake_failed(engine, origin, why);
    }

    fn handshake_failed(&mut self, engine: &mut E, origin: Origin, why: String) {
        self.counters.tls_failures.add(1);
        match origin {
            Origin::Accepted => tracing::debug!(target: "evenkeel::relay", %why, "a client's handshake failed"),
            Origin::Dialled(dial) => drop(engine.dialled(self.now, dial, Err(why))),
        }
    }

    /// A socket has taken too long for its state.
    pub(super) fn too_slow(&mut self, engine: &mut E, slot: u32) {
        let Some(socket) = self.sockets.remove(slot) else { return };
        if socket.state == State::Handshaking {
            let why = format!("TLS: no handshake within {:?}", self.settings.handshake_timeout);
            self.handshake_failed(engine, socket.origin, why);
        }
    }

    /// The engine knows the connection no more; what it has left to say is written still.
    fn let_go(&mut self, engine: &mut E, slot: u32, why: Closed) {
        let Some(Socket { state: State::Open(key), .. }) = self.sockets.get(slot) else { return };
        let key = *key;
        self.finish(slot, engine.output(key));
        engine.closed(self.now, key, why);
    }

    /// Writes `rest`, then closes.
    pub(super) fn finish(&mut self, slot: u32, rest: &[u8]) {
        let Some(socket) = self.sockets.get(slot) else { return };
        socket.finish(rest);
        self.sockets.enter(slot, State::Flushing, Some(self.now + self.settings.flush_timeout));
        self.sockets.mark_dirty(slot);
    }

    /// All is written: waits until the peer has read it.
    pub(super) fn flushed(&mut self, slot: u32) {
        let Some(socket) = self.sockets.get(slot) else { return };
        if socket.inbound == Inbound::Ended || socket.shut_down().is_err() {
            self.sockets.remove(slot);
            return;
        }
        self.sockets.enter(slot, State::Lingering, Some(self.now + self.settings.linger));
    }
}

fn how_it_ended(error: &io::Error) -> Closed {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Closed::Reset,
        _ => Closed::Failed(error.to_string()),
    }
}
