//! What a frame can be wrong by, and what follows.

use evenkeel_balance::Time;

use super::{Connection, Event, guard::Flood, output};
use crate::{frame::ErrorCode, hpack};

/// An error of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ends the connection.
    Connection(ErrorCode, &'static str),
    /// It ends the connection as it is too much of something.
    Flood(Flood),
    /// It ends the connection as the peer takes too long.
    Late(&'static str),
    /// It ends a stream.
    Stream(u32, ErrorCode),
}

impl Fault {
    pub(super) const fn protocol(why: &'static str) -> Self {
        Self::Connection(ErrorCode::PROTOCOL_ERROR, why)
    }

    pub(super) const fn size(why: &'static str) -> Self {
        Self::Connection(ErrorCode::FRAME_SIZE_ERROR, why)
    }
}

impl From<Flood> for Fault {
    fn from(flood: Flood) -> Self {
        Self::Flood(flood)
    }
}

impl From<hpack::Error> for Fault {
    fn from(error: hpack::Error) -> Self {
        match error {
            hpack::Error::Malformed(why) => Self::Connection(ErrorCode::COMPRESSION_ERROR, why),
            hpack::Error::Bomb => Self::Flood(Flood::HeaderBomb),
        }
    }
}

impl Connection {
    /// Does what follows from a fault, and tells the owner what it has to know.
    #[cold]
    pub(super) fn suffer(&mut self, now: Time, fault: Fault) -> Option<Event<'static>> {
        match fault {
            Fault::Connection(code, why) => {
                self.counters.connection_errors += 1;
                Some(self.break_off(code, why))
            }
            Fault::Flood(flood) => {
                flood.count(&mut self.counters.floods);
                Some(self.break_off(ErrorCode::ENHANCE_YOUR_CALM, flood.why()))
            }
            Fault::Late(why) => {
                self.counters.timeouts += 1;
                Some(self.break_off(ErrorCode::ENHANCE_YOUR_CALM, why))
            }
            Fault::Stream(id, code) => self.stream_error(now, id, code),
        }
    }

    /// Resets a stream because of an error of the peer's. The owner hears of it if it knows the stream.
    fn stream_error(&mut self, now: Time, id: u32, code: ErrorCode) -> Option<Event<'static>> {
        if let Err(flood) = self.guard.glitch(now, &self.settings.flood, &mut self.counters) {
            return self.suffer(now, flood.into());
        }
        output::write_reset(id, code, self.output.reply());
        self.counters.resets_sent += 1;
        self.resets.remember(id);
        let stream = self.streams.find(id)?;
        let tag = self.streams.remove(stream)?;
        Some(Event::Reset { stream, tag, code, by_peer: false, processed: true })
    }

    fn break_off(&mut self, code: ErrorCode, why: &'static str) -> Event<'static> {
        self.close(code);
        Event::Broken { code, why }
    }
}
