//! What goes in and out by a worker's sockets.

use std::{
    io::{self, ErrorKind},
    mem,
};

use super::{
    socket::{Inbound, Socket, State},
    tls::{self, Handshake},
    worker::Worker,
};
use crate::engine::{ConnKey, Engine};

/// How often a socket that cannot be written to is read at most: enough for all that the kernel keeps of a dead peer's.
const LAST_READS: usize = 128;

impl<E: Engine> Worker<E> {
    /// Reads a socket until it has nothing more at present, or has had its share of the turn.
    pub(super) fn read(&mut self, engine: &mut E, slot: u32) {
        let mut budget = self.settings.read_cap;
        if let Some(socket) = self.sockets.get(slot) {
            socket.is_readable = false;
        }
        loop {
            let Some(socket) = self.sockets.get(slot) else { return };
            match socket.read(&mut self.buffer) {
                Ok(0) => return self.read_to_end(engine, slot),
                Ok(read) => {
                    let is_all = read < self.buffer.len() && socket.inbound == Inbound::Open;
                    self.take_in(engine, slot, read);
                    budget = budget.saturating_sub(read);
                    if is_all {
                        return;
                    }
                    if budget == 0 {
                        return self.sockets.mark_readable(slot);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return self.failed(engine, slot, &error),
            }
        }
    }

    /// Passes on the first `read` bytes of the buffer, but for what comes to a connection that is closed here.
    fn take_in(&mut self, engine: &mut E, slot: u32, read: usize) {
        self.counters.bytes_in.add_bytes(read);
        let buffer = mem::take(&mut self.buffer);
        match self.sockets.get(slot) {
            Some(Socket { state: State::Open(key), tls: None, .. }) => engine.receive(self.now, *key, &buffer[..read]),
            Some(Socket { tls: Some(_), .. }) => self.decrypt(engine, slot, &buffer[..read]),
            _ => {}
        }
        self.buffer = buffer;
    }

    fn decrypt(&mut self, engine: &mut E, slot: u32, mut input: &[u8]) {
        let may_have_grown = tls::may_have_grown(input.len());
        while !input.is_empty() {
            let Some(socket @ Socket { state: State::Handshaking | State::Open(_), .. }) = self.sockets.get(slot)
            else {
                return;
            };
            let Some(tls) = &mut socket.tls else { return };
            let is_last = match tls.receive(&mut input) {
                Ok(is_last) => is_last,
                Err(error) => return self.tls_failed(engine, slot, &error),
            };
            if socket.state == State::Handshaking {
                self.shake_hands(engine, slot);
            }
            self.pass_on(engine, slot);
            if is_last {
                return self.ended(engine, slot);
            }
        }
        let Some(Socket { tls: Some(tls), .. }) = self.sockets.get(slot) else { return };
        if may_have_grown {
            tls.shrink();
        }
        if tls.wants_write() {
            self.sockets.mark_dirty(slot);
        }
    }

    /// Tells the engine once the handshake is done.
    fn shake_hands(&mut self, engine: &mut E, slot: u32) {
        let Some(Socket { tls: Some(tls), origin, .. }) = self.sockets.get(slot) else { return };
        let origin = *origin;
        match tls.handshake() {
            Handshake::Running => {}
            Handshake::Done => self.introduce(engine, slot, origin),
            Handshake::WithoutHttp2(why) => self.refuse(engine, slot, why),
        }
    }

    fn pass_on(&mut self, engine: &mut E, slot: u32) {
        let now = self.now;
        if let Some(Socket { state: State::Open(key), tls: Some(tls), .. }) = self.sockets.get(slot) {
            tls.pass_on(|bytes| engine.receive(now, *key, bytes));
        }
    }

    /// Writes to a socket what there is for it, as far as it has room.
    pub(super) fn write(&mut self, engine: &mut E, slot: u32) {
        let Some(socket) = self.sockets.get(slot) else { return };
        socket.is_dirty = false;
        let written = match socket.state {
            State::Open(key) => self.write_output(engine, slot, key),
            State::Handshaking => socket.flush(&self.counters).map(drop),
            State::Flushing => match socket.flush(&self.counters) {
                Ok(true) => return self.flushed(slot),
                outcome => outcome.map(drop),
            },
            State::Lingering => return,
        };
        if let Err(error) = written {
            self.write_failed(engine, slot, &error);
        }
    }

    fn write_output(&mut self, engine: &mut E, slot: u32, key: ConnKey) -> io::Result<()> {
        let Some(socket) = self.sockets.get(slot) else { return Ok(()) };
        let taken = socket.write(engine.output(key), &self.counters)?;
        let is_blocked = socket.is_blocked;
        engine.wrote(self.now, key, taken);
        // What the write has made room for, or TLS had no room for, has its turn after the other sockets.
        if !is_blocked && !engine.output(key).is_empty() {
            self.sockets.mark_dirty(slot);
        }
        Ok(())
    }

    /// A peer that takes nothing more may still have said something before: the last responses, or a GOAWAY.
    fn write_failed(&mut self, engine: &mut E, slot: u32, error: &io::Error) {
        for _ in 0..LAST_READS {
            let Some(socket @ Socket { state: State::Open(_), .. }) = self.sockets.get(slot) else { break };
            match socket.read(&mut self.buffer) {
                Ok(read) if read > 0 => self.take_in(engine, slot, read),
                _ => break,
            }
        }
        self.failed(engine, slot, error);
    }
}
