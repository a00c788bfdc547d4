//! The connections of a relay, by key, and which of them have something to write.

use std::{collections::VecDeque, rc::Rc};

use evenkeel_balance::Time;

use crate::{
    connection::{self, Connection, Event, Role, StreamKey},
    engine::{Action, ConnKey},
    fields::Fields,
    relay::{refusals::Refused, watch::Line},
};

/// Where a connection is in the table.
pub(crate) type ConnIx = u32;

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) connection: Connection,
    pub(crate) side: Side,
    /// Requests of the client's that were no calls and are not over.
    pub(crate) refused: Vec<Refused>,
    /// The driver has been told to write.
    is_dirty: bool,
    /// The driver has been told to close it. Nothing that it says counts any more.
    pub(crate) is_closing: bool,
}

/// Whom a connection leads to.
#[derive(Debug)]
pub(crate) enum Side {
    Client,
    Endpoint(Box<Line>),
}

#[derive(Debug, Default)]
pub(crate) struct Conns {
    slots: Vec<Slot>,
    vacant: Vec<ConnIx>,
    pub(crate) actions: VecDeque<Action>,
    clients: usize,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

impl Conns {
    pub(crate) fn insert(&mut self, now: Time, settings: &Rc<connection::Settings>, side: Side) -> ConnIx {
        let ix = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            ConnIx::try_from(self.slots.len() - 1).expect("fewer connections than 4 billion")
        });
        let role = if matches!(side, Side::Client) { Role::Server } else { Role::Client };
        self.clients += usize::from(role == Role::Server);
        let connection = Connection::new(role, settings, now);
        let conn = Conn { connection, side, refused: Vec::new(), is_dirty: false, is_closing: false };
        self.slots[ix as usize].conn = Some(conn);
        self.touch(ix);
        ix
    }

    pub(crate) fn key(&self, ix: ConnIx) -> ConnKey {
        ConnKey::new(ix, self.slots[ix as usize].generation)
    }

    pub(crate) fn find(&self, key: ConnKey) -> Option<ConnIx> {
        let slot = self.slots.get(key.slot() as usize)?;
        (slot.generation == key.generation() && slot.conn.is_some()).then_some(key.slot())
    }

    pub(crate) fn get(&self, ix: ConnIx) -> Option<&Conn> {
        self.slots[ix as usize].conn.as_ref()
    }

    pub(crate) fn get_mut(&mut self, ix: ConnIx) -> Option<&mut Conn> {
        self.slots[ix as usize].conn.as_mut()
    }

    /// What the connection at `ix` makes of more input.
    pub(crate) fn receive<'i>(
        &mut self,
        ix: ConnIx,
        now: Time,
        input: &mut &'i [u8],
        fields: &mut Fields,
    ) -> Option<Event<'i>> {
        let conn = self.get_mut(ix).filter(|conn| !conn.is_closing)?;
        conn.connection.receive(now, input, fields)
    }

    /// Does something with the connection at `ix`, if it still counts, and has what that wrote sent.
    pub(crate) fn with<T>(&mut self, ix: ConnIx, act: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let conn = self.get_mut(ix).filter(|conn| !conn.is_closing)?;
        let result = act(&mut conn.connection);
        self.touch(ix);
        Some(result)
    }

    /// What the call's stream on the connection at `ix` belongs to.
    pub(crate) fn tag(&self, ix: ConnIx, stream: StreamKey) -> Option<u32> {
        self.get(ix)?.connection.tag(stream).filter(|tag| *tag != u32::MAX)
    }

    /// Tells the driver that there is something to write, once.
    pub(crate) fn touch(&mut self, ix: ConnIx) {
        let slot = &mut self.slots[ix as usize];
        let Some(conn) = &mut slot.conn else { return };
        if !conn.is_dirty && !conn.connection.output().is_empty() {
            conn.is_dirty = true;
            self.actions.push_back(Action::Write(ConnKey::new(ix, slot.generation)));
        }
    }

    /// Has the driver write what there is and close.
    pub(crate) fn close(&mut self, ix: ConnIx) {
        let key = self.key(ix);
        if let Some(conn) = self.get_mut(ix).filter(|conn| !conn.is_closing) {
            conn.is_closing = true;
            self.actions.push_back(Action::Close(key));
        }
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front()?;
        if let Action::Write(key) = &action
            && let Some(ix) = self.find(*key)
            && let Some(conn) = self.get_mut(ix)
        {
            conn.is_dirty = false;
        }
        Some(action)
    }

    /// The connection is gone: its socket was closed, or there is nothing left to write before that.
    pub(crate) fn remove(&mut self, ix: ConnIx) -> Option<Conn> {
        let slot = &mut self.slots[ix as usize];
        let conn = slot.conn.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.vacant.push(ix);
        self.clients -= usize::from(matches!(conn.side, Side::Client));
        Some(conn)
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients
    }

    /// Where connections are, or may be.
    pub(crate) fn all(&self) -> std::ops::Range<ConnIx> {
        // Fits: `insert` has seen to it.
        0..ConnIx::try_from(self.slots.len()).unwrap_or(ConnIx::MAX)
    }
}
