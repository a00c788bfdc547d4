//! How a connection ends: GOAWAY, sent and received (RFC 9113, 6.8).
//!
//! ```text
//!              drain                  PING answered, or patience over
//!   Open ──────────────► Announced ──────────────────────────────────► Told
//!     │  (server role)       │                                          │
//!     │                      │       close, or an error                 │
//!     └──────────────────────┴──────────────────┬───────────────────────┘
//!                                               ▼
//!                                             Closed
//! ```
//!
//! A client's drain needs no frame: it opens no more streams (`Told`).

use evenkeel_balance::Time;

use super::{Connection, Event, Role, fault::Fault, output};
use crate::frame::ErrorCode;

/// How far both sides are in ending the connection.
#[derive(Debug, Default)]
pub(super) struct Goodbye {
    pub(super) sent: Sent,
    /// The last stream that the peer's GOAWAY names.
    received: Option<u32>,
    /// From which slot on streams are still to be looked for that the peer's GOAWAY leaves behind.
    sweep: Option<usize>,
}

/// What we have said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sent {
    #[default]
    Open,
    /// A GOAWAY that names no stream, and a PING after it; waits for its answer until then.
    Announced(Time),
    /// No stream above this one is taken any more.
    Told(u32),
    /// Nothing is.
    Closed,
}

/// The id that leaves no stream behind.
const NO_STREAM: u32 = (1 << 31) - 1;

/// The payload of the PING that follows the first GOAWAY.
const DRAIN_PING: u64 = 0x676f_6f64_2062_7965;

impl Goodbye {
    /// Whether the peer may not open this stream any more.
    pub(super) fn refuses(&self, id: u32) -> bool {
        matches!(self.sent, Sent::Told(last) if id > last)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sent == Sent::Closed
    }
}

impl Connection {
    /// Begins an orderly end: streams that are open go on, and the peer opens no new ones, or we do not.
    ///
    /// In the server role the peer is told so at once, and after a PING which stream is the last
    /// ([`drain_patience`](super::Settings::drain_patience) long at most): streams it opened meanwhile are served. Later
    /// ones are refused.
    pub fn drain(&mut self, now: Time) {
        if self.goodbye.sent != Sent::Open {
            return;
        }
        if self.role == Role::Client {
            self.goodbye.sent = Sent::Told(0);
            return;
        }
        output::write_goaway(NO_STREAM, ErrorCode::NO_ERROR, self.output.buffer());
        output::write_ping(DRAIN_PING, false, self.output.buffer());
        self.goodbye.sent = Sent::Announced(now + self.settings.drain_patience);
    }

    /// Ends the connection: GOAWAY with `code`, and nothing more. Streams are left to the owner to forget.
    pub fn close(&mut self, code: ErrorCode) {
        if self.goodbye.is_closed() {
            return;
        }
        let last = match self.goodbye.sent {
            Sent::Told(last) => last,
            _ => self.last_peer_id,
        };
        output::write_goaway(last, code, self.output.buffer());
        self.goodbye = Goodbye { sent: Sent::Closed, ..Goodbye::default() };
        self.input.end();
    }

    /// Whether all is done: the connection is closed or broken, or no new streams come and none is open. It is to be
    /// closed once the output is written.
    pub fn is_finished(&self) -> bool {
        match (self.role, self.goodbye.sent) {
            (_, Sent::Closed) => true,
            (_, Sent::Told(_)) => self.streams.is_empty(),
            (Role::Client, _) => self.goodbye.received.is_some() && self.streams.is_empty(),
            (Role::Server, _) => false,
        }
    }

    /// Whether new streams are no longer wanted, by either side.
    pub fn is_leaving(&self) -> bool {
        self.goodbye.sent != Sent::Open || self.goodbye.received.is_some()
    }

    /// The second GOAWAY: names the last stream that was taken.
    fn tell_last(&mut self) {
        self.goodbye.sent = Sent::Told(self.last_peer_id);
        output::write_goaway(self.last_peer_id, ErrorCode::NO_ERROR, self.output.buffer());
    }

    /// Until when the answer to the drain's PING is waited for.
    pub(super) fn drain_deadline(&self) -> Option<Time> {
        match self.goodbye.sent {
            Sent::Announced(until) => Some(until),
            _ => None,
        }
    }

    pub(super) fn on_drain_timeout(&mut self, now: Time) {
        if self.drain_deadline().is_some_and(|until| until <= now) {
            self.tell_last();
        }
    }

    /// Whether this answers the PING of a drain, be it too late: then it is nobody else's.
    pub(super) fn on_drain_pong(&mut self, payload: u64) -> bool {
        if payload == DRAIN_PING && self.drain_deadline().is_some() {
            self.tell_last();
        }
        payload == DRAIN_PING && self.goodbye.sent != Sent::Open
    }

    pub(super) fn on_goaway(&mut self, stream: u32, payload: &[u8]) -> Result<Option<Event<'static>>, Fault> {
        if stream != 0 {
            return Err(Fault::protocol("a GOAWAY frame on a stream"));
        }
        let Some(([l0, l1, l2, l3, c0, c1, c2, c3], debug)) = payload.split_first_chunk::<8>() else {
            return Err(Fault::size("a GOAWAY frame of less than 8 bytes"));
        };
        let last = u32::from_be_bytes([*l0, *l1, *l2, *l3]) & NO_STREAM;
        if self.goodbye.received.is_some_and(|before| last > before) {
            return Err(Fault::protocol("a GOAWAY that names a later stream than the one before"));
        }
        self.goodbye.received = Some(last);
        if self.role == Role::Client {
            self.goodbye.sweep = Some(0);
        }
        let code = ErrorCode(u32::from_be_bytes([*c0, *c1, *c2, *c3]));
        let mut debug = String::from_utf8_lossy(&debug[..debug.len().min(MAX_DEBUG)]).into_owned();
        // What stands for a byte that is no text is longer than the byte.
        let end = (0..=debug.len().min(MAX_DEBUG)).rfind(|at| debug.is_char_boundary(*at));
        debug.truncate(end.unwrap_or_default());
        Ok(Some(Event::Leaving { code, debug }))
    }

    /// The next stream that the peer's GOAWAY leaves behind.
    #[inline]
    pub(super) fn next_left_behind(&mut self) -> Option<Event<'static>> {
        let slot = self.goodbye.sweep?;
        self.leave_behind(slot)
    }

    #[cold]
    fn leave_behind(&mut self, slot: usize) -> Option<Event<'static>> {
        let last = self.goodbye.received?;
        let Some(stream) = self.streams.next_above(last, slot) else {
            self.goodbye.sweep = None;
            return None;
        };
        self.goodbye.sweep = Some(stream.slot());
        self.resets.remember(stream.id());
        let tag = self.streams.remove(stream)?;
        Some(Event::Reset { stream, tag, code: ErrorCode::REFUSED_STREAM, by_peer: true, processed: false })
    }
}

/// How much of a GOAWAY's text is passed on, in bytes.
const MAX_DEBUG: usize = 1024;
