use std::mem;

use evenkeel_balance::Time;
use mio::event::Event;

use super::{
    deadlines::Deadlines,
    socket::{Inbound, Origin, Socket, State},
};
use crate::engine::ConnKey;

/// No socket.
const NONE: u32 = u32::MAX;

/// A worker's sockets by slot, and what is to be done for which.
///
/// A socket's flags say whether it is in a list, so that none is listed twice; who works off a list unsets them.
/// The lists may name a slot whose socket has gone, or another's: looking at a socket in vain does no harm.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    slots: Vec<Option<Socket>>,
    free: Vec<u32>,
    /// The slots of the engine's connections.
    by_key: Vec<u32>,
    clients: usize,
    /// Those with something to read.
    readable: Vec<u32>,
    /// Those with something to write, and room for it.
    dirty: Vec<u32>,
    deadlines: Deadlines,
}

impl Sockets {
    /// The slot that [`insert`](Self::insert) will use next.
    pub(super) fn next_slot(&self) -> u32 {
        self.free.last().copied().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(NONE))
    }

    pub(super) fn insert(&mut self, socket: Socket) {
        if socket.origin == Origin::Accepted {
            self.clients += 1;
        }
        match self.free.pop() {
            Some(slot) => self.slots[slot as usize] = Some(socket),
            None => self.slots.push(Some(socket)),
        }
    }

    pub(super) fn get(&mut self, slot: u32) -> Option<&mut Socket> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Socket> {
        let socket = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        if socket.origin == Origin::Accepted {
            self.clients -= 1;
        }
        Some(socket)
    }

    /// How many sockets of clients there are.
    pub(super) fn clients(&self) -> usize {
        self.clients
    }

    /// Remembers whose socket is in `slot`.
    pub(super) fn open(&mut self, slot: u32, key: ConnKey) {
        let index = key.slot() as usize;
        if self.by_key.len() <= index {
            self.by_key.resize(index + 1, NONE);
        }
        self.by_key[index] = slot;
        self.enter(slot, State::Open(key), None);
    }

    /// Where the socket of a connection is, while the engine knows it.
    pub(super) fn slot_of(&mut self, key: ConnKey) -> Option<u32> {
        let slot = *self.by_key.get(key.slot() as usize)?;
        (self.get(slot)?.state == State::Open(key)).then_some(slot)
    }

    /// The socket's next state, which ends at `deadline` at the latest.
    pub(super) fn enter(&mut self, slot: u32, state: State, deadline: Option<Time>) {
        let Some(socket) = self.get(slot) else { return };
        socket.state = state;
        socket.deadline = deadline;
        if let Some(at) = deadline {
            self.deadlines.push(at, slot);
        }
    }

    /// When the next deadline passes.
    pub(super) fn next_deadline(&mut self) -> Option<Time> {
        let slots = &self.slots;
        self.deadlines.next(|at, slot| holds(slots, at, slot))
    }

    /// The next socket whose deadline has passed.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<u32> {
        while let Some((at, slot)) = self.deadlines.pop_due(now) {
            if holds(&self.slots, at, slot) {
                return Some(slot);
            }
        }
        None
    }

    /// Takes in what the kernel says of a socket.
    pub(super) fn notice(&mut self, slot: u32, event: &Event) {
        let Some(socket) = self.get(slot) else { return };
        let is_closing = event.is_read_closed() || event.is_error();
        if is_closing && socket.inbound == Inbound::Open {
            socket.inbound = Inbound::Closing;
        }
        let is_unblocked = event.is_writable() && socket.is_blocked;
        if event.is_readable() || is_closing {
            self.mark_readable(slot);
        }
        if is_unblocked {
            self.unblock(slot);
        }
    }

    pub(super) fn mark_readable(&mut self, slot: u32) {
        let Some(socket) = self.get(slot) else { return };
        if !mem::replace(&mut socket.is_readable, true) {
            self.readable.push(slot);
        }
    }

    /// There is something to write. While the kernel takes no more, that waits.
    pub(super) fn mark_dirty(&mut self, slot: u32) {
        let Some(socket) = self.get(slot) else { return };
        if !socket.is_blocked && !mem::replace(&mut socket.is_dirty, true) {
            self.dirty.push(slot);
        }
    }

    fn unblock(&mut self, slot: u32) {
        if let Some(socket) = self.get(slot) {
            socket.is_blocked = false;
        }
        self.mark_dirty(slot);
    }

    pub(super) fn has_readable(&self) -> bool {
        !self.readable.is_empty()
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes the list of those to read, in exchange for an empty one.
    pub(super) fn take_readable(&mut self, list: Vec<u32>) -> Vec<u32> {
        mem::replace(&mut self.readable, list)
    }

    /// Takes the list of those to write to, in exchange for an empty one.
    pub(super) fn take_dirty(&mut self, list: Vec<u32>) -> Vec<u32> {
        mem::replace(&mut self.dirty, list)
    }
}

fn holds(slots: &[Option<Socket>], at: Time, slot: u32) -> bool {
    slots.get(slot as usize).and_then(Option::as_ref).is_some_and(|socket| socket.deadline == Some(at))
}
