//! What an event loop and the engine that it drives say to each other.

use evenkeel_balance::{Address, ConnectionId};

/// Names a connection of an engine, also after it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey {
    slot: u32,
    generation: u32,
}

impl ConnKey {
    /// The connection in this slot of the engine's table, of this generation.
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    /// Its place in a table: below the largest number of connections that were ever there at once.
    pub const fn slot(self) -> u32 {
        self.slot
    }

    /// Tells connections of one slot apart.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// Names an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DialId(pub u64);

/// How a connection's socket came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer has closed it in good order.
    Eof,
    /// The peer has reset it.
    Reset,
    /// It failed in another way, in the system's words.
    Failed(String),
    /// It was closed as [`Action::Close`] asked.
    Done,
}

/// What an engine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The connection has output. Told once a turn.
    Write(ConnKey),
    /// Write what there is, then close the socket and say so ([`Closed::Done`]).
    Close(ConnKey),
    /// Open a socket to this address.
    Dial {
        /// The name of the attempt.
        dial: DialId,
        /// The connection by which the balancer knows the endpoint.
        connection: ConnectionId,
        /// Where to.
        address: Address,
    },
}
