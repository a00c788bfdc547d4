//! The event loop of a relay: sockets, TLS and time around an [`Engine`](crate::engine::Engine).
//!
//! There is one [`Worker`] a core, on a thread of its own, with its own listeners (the kernel deals new connections out
//! among them, `SO_REUSEPORT`), its own engine and its own connections to servers. On a call's path nothing is shared
//! between workers. Other threads reach a worker by its [`Handle`].
//!
//! # A turn
//!
//! 1. Wait until a socket is ready, a message has come, or it is time for something. Then read the clock, once.
//! 2. Read each socket that has something, into one buffer that all share, and pass the bytes to the engine at once. So an
//!    idle connection holds no buffer. A socket that has more than its share waits for the next turn, which comes at once.
//! 3. Accept new connections, take in messages, see to what is due.
//! 4. Do what the engine wants done. Whatever a turn has brought for a socket is written by one system call at its end;
//!    what the kernel does not take is left with the engine until the socket is writable again.
//!
//! # A socket
//!
//! ```text
//!  TLS           HANDSHAKING ──── failed, or too slow ────┐
//!                     │ done; the engine hears of it       │
//!                     ▼                                    ▼
//!  plaintext ──►    OPEN ──── either side closes ───► FLUSHING ──── all is written; FIN ───► LINGERING ───► gone
//!                     │                                    │ failed, or too slow                 │ peer's FIN, or
//!                     └──── the socket failed ──► gone ◄───┘                                     │ long enough
//! ```
//!
//! The engine knows a socket while it is OPEN, and no longer: a flood of handshakes costs it nothing, and it need not
//! care for what a slow peer still has to read. A socket lingers since closing one with unread bytes makes the kernel
//! send a RST, on which the peer forgets what it has not read yet, a GOAWAY say.

mod clock;
mod counters;
mod deadlines;
mod ending;
mod inbox;
mod listener;
mod settings;
mod socket;
mod sockets;
mod tls;
mod traffic;
mod worker;

use evenkeel_balance::{Address, ConnectionId};

pub use counters::{Counter, Counters};
pub use inbox::Handle;
pub use listener::Listener;
pub use settings::Settings;
pub use socket::Dialled;
pub use worker::Worker;

use crate::engine::DialId;

/// What a worker leaves to others.
pub trait Host: Send {
    /// Open a socket to `address` on another thread, and answer with [`Handle::dialled`]. Must not block: the worker's
    /// connections wait meanwhile.
    fn dial(&mut self, dial: DialId, connection: ConnectionId, address: &Address);
}

impl<F: FnMut(DialId, ConnectionId, &Address) + Send> Host for F {
    fn dial(&mut self, dial: DialId, connection: ConnectionId, address: &Address) {
        self(dial, connection, address);
    }
}
