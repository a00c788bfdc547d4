//! An HTTP/2 connection (RFC 9113) of either role, sans-IO: bytes and time come in, bytes and events go out.
//!
//! A [`Connection`] frames and unframes, keeps the streams, their windows and both HPACK tables, answers SETTINGS and
//! PING, and ends connections that break the protocol or waste our time. It knows nothing of gRPC: its owner judges
//! requests, pairs streams, and decides how long they last.
//!
//! # A stream
//!
//! Each direction is a half of its own, and a stream is over when both halves have ended or when it is reset:
//!
//! ```text
//!            head                     END_STREAM, trailers
//!   Fresh ───────────────► Open ───────────────────────────► Ended
//!     │                                                        ▲
//!     └────────────────────────────────────────────────────────┘
//!            head with END_STREAM
//! ```
//!
//! In the words of RFC 9113, 5.1: both `Open` is *open*, sending `Ended` is *half-closed (local)*, receiving `Ended` is
//! *half-closed (remote)*. Idle and closed streams have no state: the ids tell them apart, with a memory of the resets
//! that we have sent lately (`ids.rs`).
//!
//! # Where things are
//!
//! Frames come in through `input.rs` (bytes to frames), `receive.rs` (frames of the connection) and `messages.rs`
//! (HEADERS and DATA); what can be wrong with them is in `fault.rs`, and what is too much in `guard.rs`. The owner sends by
//! `send.rs` into `output.rs`. `goodbye.rs` has GOAWAY, both ways.
//!
//! # Limits
//!
//! Memory is bounded by [`Settings`]: header lists by size and count, payload by the windows of streams (it is never
//! kept here), output by its limit. What is cheap to send and dear to serve has an allowance each
//! ([`FloodLimits`]), which useful work gives back.

mod counters;
mod fault;
mod goodbye;
mod guard;
mod heads;
mod ids;
mod input;
mod messages;
mod output;
mod receive;
mod send;
mod settings;
mod streams;
mod windows;

use std::{fmt, ops::Range, rc::Rc};

use evenkeel_balance::Time;

pub use counters::{Counters, Floods};
pub use settings::{Allowance, FloodLimits, Settings};
pub use streams::StreamKey;

use self::{
    fault::Fault,
    goodbye::Goodbye,
    guard::Guard,
    ids::Resets,
    input::Input,
    output::Output,
    settings::PeerSettings,
    streams::Streams,
    windows::{ReceiveWindow, SendWindow},
};
use crate::{
    frame::{DEFAULT_WINDOW, ErrorCode, PREFACE},
    hpack::{Decoder, Encoder, Listing},
};

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We open streams.
    Client,
    /// We accept streams.
    Server,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'i> {
    /// The peer's first SETTINGS has come: it is alive, and speaks HTTP/2.
    Settled,
    /// A request's head (server role) or a response's (client role); interim responses are passed over. Its fields are
    /// in what [`Connection::receive`] was given.
    ///
    /// With [`Listing::TooLarge`] the fields are the first ones only and not validated; the stream waits for an answer
    /// all the same.
    Head {
        /// The stream.
        stream: StreamKey,
        /// Whether nothing follows.
        ends: bool,
        /// Whether all its fields are there.
        listing: Listing,
    },
    /// Trailers, which end the stream's receiving half.
    Trailers {
        /// The stream.
        stream: StreamKey,
        /// Whether all their fields are there.
        listing: Listing,
    },
    /// A piece of payload, as it arrived. Padding is taken off. Empty only if it ends the stream's receiving half.
    Data {
        /// The stream.
        stream: StreamKey,
        /// The payload; to be [released](Connection::release) as it is passed on.
        data: &'i [u8],
        /// Whether nothing follows.
        ends: bool,
    },
    /// The stream is over before its end: reset by the peer, or by us for an error of the peer's, or left behind by its
    /// GOAWAY.
    Reset {
        /// The stream; its key means nothing any more.
        stream: StreamKey,
        /// Whose it was.
        tag: u32,
        /// Why.
        code: ErrorCode,
        /// Whether it was the peer that ended it. If not, `RST_STREAM` is on its way.
        by_peer: bool,
        /// Whether the peer may have done anything for it; if not, it can be tried elsewhere without harm.
        processed: bool,
    },
    /// The peer's GOAWAY: it takes no more streams. Those it leaves behind follow as [`Event::Reset`].
    Leaving {
        /// Why.
        code: ErrorCode,
        /// What the peer says of it, at most 1 KiB.
        debug: String,
    },
    /// The answer to our [`ping`](Connection::ping).
    Pong(u64),
    /// The peer has broken the protocol, or its time or our patience is over. GOAWAY with `code` is in the output: it is
    /// to be written, and the connection closed. Streams get no events of their own, and nothing more comes.
    Broken {
        /// What the peer is told.
        code: ErrorCode,
        /// In words, for a log.
        why: &'static str,
    },
}

/// One HTTP/2 connection. See the [module](self).
pub struct Connection {
    role: Role,
    settings: Rc<Settings>,
    peer: PeerSettings,
    input: Input,
    output: Output,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    resets: Resets,
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    /// What the peer may send on a new stream, as far as it knows.
    stream_window: u32,
    /// The id of the next stream that we open.
    next_id: u32,
    /// The highest id that the peer has used, and the highest of those that were not refused for a GOAWAY of ours.
    last_id_seen: u32,
    last_peer_id: u32,
    /// The ids that the peer passed over most lately.
    skipped: Range<u32>,
    guard: Guard,
    goodbye: Goodbye,
    is_settled: bool,
    /// Whether the peer has acknowledged our settings.
    is_acknowledged: bool,
    /// PINGs of ours that are not answered.
    pings_sent: u32,
    began_at: Time,
    received_at: Time,
    written_at: Time,
    counters: Counters,
}

impl Connection {
    /// A fresh connection. What has to be said first is in its [output](Self::output).
    pub fn new(role: Role, settings: &Rc<Settings>, now: Time) -> Self {
        let mut connection = Self {
            role,
            settings: Rc::clone(settings),
            peer: PeerSettings::assumed(),
            input: Input::new(role == Role::Server),
            output: Output::default(),
            decoder: Decoder::new(settings.header_table as usize),
            encoder: Encoder::new(settings.header_table as usize),
            streams: Streams::default(),
            resets: Resets::default(),
            send_window: SendWindow::new(DEFAULT_WINDOW),
            receive_window: ReceiveWindow::new(settings.connection_window()),
            stream_window: settings.stream_window().max(DEFAULT_WINDOW),
            next_id: 1,
            last_id_seen: 0,
            last_peer_id: 0,
            skipped: 0..0,
            guard: Guard::new(now),
            goodbye: Goodbye::default(),
            is_settled: false,
            is_acknowledged: false,
            pings_sent: 0,
            began_at: now,
            received_at: now,
            written_at: now,
            counters: Counters::default(),
        };
        connection.greet();
        connection
    }

    fn greet(&mut self) {
        let is_client = self.role == Role::Client;
        let out = self.output.buffer();
        if is_client {
            out.extend_from_slice(PREFACE);
        }
        self.settings.write(is_client, out);
        let more = self.settings.connection_window() - DEFAULT_WINDOW;
        if more > 0 {
            output::write_window_update(0, more, out);
        }
    }

    /// The tag of a stream; `u32::MAX` before it is [set](Self::set_tag). A stream that has just ended keeps it until the
    /// next stream is opened or output is written.
    #[inline]
    pub fn tag(&self, stream: StreamKey) -> Option<u32> {
        self.streams.tag(stream)
    }

    /// Marks a stream with something of its owner's.
    #[inline]
    pub fn set_tag(&mut self, stream: StreamKey, tag: u32) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.tag = tag;
        }
    }

    /// The tags of the streams that are not over.
    pub fn tags(&self) -> impl Iterator<Item = u32> {
        self.streams.tags()
    }

    /// Whether this stream is not over.
    pub fn is_open(&self, stream: StreamKey) -> bool {
        self.streams.get(stream).is_some()
    }

    /// How many streams are not over.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether the peer's first SETTINGS has come.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// When bytes last came; at first, when the connection began.
    pub fn received_at(&self) -> Time {
        self.received_at
    }

    /// When output was last written; at first, when the connection began.
    pub fn written_at(&self) -> Time {
        self.written_at
    }

    /// What has happened so far, in figures.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, if nothing happens before.
    pub fn next_timeout(&self) -> Option<Time> {
        let deadlines = [self.handshake_deadline(), self.header_deadline(), self.drain_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) -> Option<Event<'static>> {
        let is_over = |deadline: Option<Time>| deadline.is_some_and(|at| at <= now);
        if is_over(self.handshake_deadline()) {
            return self.suffer(now, Fault::Late("the peer's SETTINGS have not come in time"));
        }
        if is_over(self.header_deadline()) {
            return self.suffer(now, Fault::Late("a frame or a header block was not finished in time"));
        }
        self.on_drain_timeout(now);
        None
    }

    fn handshake_deadline(&self) -> Option<Time> {
        let waits = !self.is_settled && !self.goodbye.is_closed();
        waits.then(|| self.began_at + self.settings.handshake_timeout)
    }

    fn header_deadline(&self) -> Option<Time> {
        self.input.waits_since().map(|since| since + self.settings.header_timeout)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("role", &self.role)
            .field("streams", &self.streams.len())
            .field("output", &self.output.len())
            .field("goodbye", &self.goodbye)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 1024, "{}", size_of::<Connection>());
    }
}
