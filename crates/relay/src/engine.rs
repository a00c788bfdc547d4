//! What an event loop and the engine that it drives say to each other.

use evenkeel_balance::{Address, ConnectionId, Time};

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
    /// The connection has output. Told once, however much follows: whoever writes goes on until
    /// [`Engine::output`] is empty.
    Write(ConnKey),
    /// Take over what output there is, say so at once ([`Closed::Done`]), then write it out and close the socket.
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

/// A protocol without sockets: bytes and time come in, bytes and actions go out. One thread owns it.
///
/// After anything was passed in, [`poll_action`](Self::poll_action) is asked until it has nothing more to say.
pub trait Engine {
    /// A client is connected and its first bytes may come. An engine that drains sends it away again.
    fn accept(&mut self, now: Time) -> ConnKey;

    /// The answer to [`Action::Dial`]: a connection, or why there is none. `None` where it failed or nobody wants it any
    /// longer.
    fn dialled(&mut self, now: Time, dial: DialId, outcome: Result<(), String>) -> Option<ConnKey>;

    /// The next bytes from the peer. They are gone when this returns.
    fn receive(&mut self, now: Time, conn: ConnKey, bytes: &[u8]);

    /// The connection has ended, and everything received on it was passed in before. Its key is dead, and its output is
    /// no longer asked for.
    fn closed(&mut self, now: Time, conn: ConnKey, why: Closed);

    /// What is to be written to the peer, in one piece.
    fn output(&self, conn: ConnKey) -> &[u8];

    /// The first `bytes` of the output were written.
    fn wrote(&mut self, now: Time, conn: ConnKey, bytes: usize);

    /// The next thing that wants doing.
    fn poll_action(&mut self) -> Option<Action>;

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, unless something else comes before.
    fn next_timeout(&self) -> Option<Time>;

    /// The time has come.
    fn handle_timeout(&mut self, now: Time);

    /// What the engine goes by has a newer version.
    fn refresh(&mut self, now: Time);

    /// Take no more calls, and let clients go as theirs end.
    fn drain(&mut self, now: Time);

    /// Whether no client is connected any more.
    fn is_idle(&self) -> bool;
}
