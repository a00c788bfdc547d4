//! Frames as they come, but for those that carry messages.

use evenkeel_balance::Time;

use super::{
    Connection, Event, Role,
    fault::Fault,
    guard::Flood,
    input::{Input, Stage, Taken},
    output, settings,
    streams::{Half, StreamKey},
    windows::Overflow,
};
use crate::{
    fields::Fields,
    frame::{DEFAULT_WINDOW, ErrorCode, FrameHeader, MIN_MAX_FRAME, flag, kind},
};

/// What a frame comes to: an event or none, or a fault.
pub(super) type Outcome<'i> = Result<Option<Event<'i>>, Fault>;

/// Whether there may be more in the input.
pub(super) enum Step<'i> {
    Event(Event<'i>),
    More,
    UsedUp,
}

impl<'i> Step<'i> {
    pub(super) fn of(event: Option<Event<'i>>) -> Self {
        event.map_or(Self::More, Self::Event)
    }
}

/// What an id that a frame names stands for.
pub(super) enum Place {
    Live(StreamKey),
    /// No stream has had it.
    Idle,
    /// A stream that we have reset, or may have: what still comes is ignored.
    Reset,
    /// A stream that is over by the peer's doing or with its consent.
    Closed,
    /// The peer passed over it.
    Skipped,
}

impl Connection {
    /// Works through the input until something happens, or it is used up.
    ///
    /// Frames that are not whole are kept, but for the payload of DATA, which is passed on as it comes. `fields` has the
    /// list that a head or trailers came with, until the next call. To be called until it returns None.
    pub fn receive<'i>(&mut self, now: Time, input: &mut &'i [u8], fields: &mut Fields) -> Option<Event<'i>> {
        if !input.is_empty() {
            self.received_at = now;
        }
        loop {
            if let Some(event) = self.next_left_behind() {
                return Some(event);
            }
            match self.step(now, input, fields) {
                Ok(Step::Event(event)) => return Some(event),
                Ok(Step::More) => {}
                Ok(Step::UsedUp) => {
                    self.input.rest(now);
                    return None;
                }
                Err(fault) => {
                    if let Some(event) = self.suffer(now, fault) {
                        return Some(event);
                    }
                }
            }
        }
    }

    #[inline]
    fn step<'i>(&mut self, now: Time, input: &mut &'i [u8], fields: &mut Fields) -> Result<Step<'i>, Fault> {
        match self.input.stage {
            Stage::Frame => self.step_frame(now, input, fields),
            Stage::Data(frame) => self.step_data(now, frame, input),
            Stage::Preface(seen) => match self.input.take_preface(input, seen) {
                Some(()) if input.is_empty() => Ok(Step::UsedUp),
                Some(()) => Ok(Step::More),
                None => Err(Fault::protocol("the peer does not speak HTTP/2: its preface is another")),
            },
            Stage::Over => {
                *input = &[];
                Ok(Step::UsedUp)
            }
        }
    }

    #[inline]
    fn step_frame<'i>(&mut self, now: Time, input: &mut &'i [u8], fields: &mut Fields) -> Result<Step<'i>, Fault> {
        if self.output.replies() > self.settings.flood.unread_replies
            || self.output.len() > self.settings.output_limit.saturating_mul(4)
        {
            return Err(Flood::Unread.into());
        }
        let is_settled = self.is_settled;
        match self.input.take_frame(input, |input, header| admit(input, header, is_settled))? {
            Taken::Nothing => Ok(Step::UsedUp),
            Taken::Data(header) => self.on_data_header(now, header).map(|()| Step::More),
            Taken::Frame(header, payload) => {
                let outcome = self.on_frame(now, header, payload, fields);
                self.input.finished();
                outcome.map(Step::of)
            }
            Taken::Kept(header, memory) => {
                let outcome = self.on_frame(now, header, &memory[crate::frame::HEADER..], fields);
                self.input.put_back(memory);
                self.input.finished();
                outcome.map(Step::of)
            }
        }
    }

    fn on_frame(&mut self, now: Time, header: FrameHeader, payload: &[u8], fields: &mut Fields) -> Outcome<'static> {
        match header.kind {
            kind::HEADERS => self.on_headers(now, header, payload, fields),
            kind::CONTINUATION => self.on_continuation(now, header, payload, fields),
            kind::WINDOW_UPDATE => self.on_window_update(now, header, payload),
            kind::RST_STREAM => self.on_reset(now, header, payload),
            kind::SETTINGS => self.on_settings(now, header, payload),
            kind::PING => self.on_ping(now, header, payload),
            kind::PRIORITY => self.on_priority(now, header, payload),
            kind::GOAWAY => {
                self.guard.ping(now, &self.settings.flood)?;
                self.on_goaway(header.stream, payload)
            }
            kind::PUSH_PROMISE => Err(Fault::protocol("a PUSH_PROMISE, which is not allowed here")),
            _ => {
                self.guard.update(now, &self.settings.flood, &mut self.counters)?;
                Ok(None)
            }
        }
    }

    /// What stands behind an id. Ids of the server are never in use, as nothing is pushed.
    pub(super) fn place(&self, id: u32) -> Result<Place, Fault> {
        if id.is_multiple_of(2) {
            return Err(Fault::protocol("a frame for a stream that only a server could have opened"));
        }
        if let Some(stream) = self.streams.find(id) {
            return Ok(Place::Live(stream));
        }
        let is_idle = match self.role {
            Role::Client => id >= self.next_id,
            Role::Server => id > self.last_id_seen,
        };
        Ok(if is_idle {
            Place::Idle
        } else if self.resets.may_contain(id) {
            Place::Reset
        } else if self.skipped.contains(&id) {
            Place::Skipped
        } else {
            Place::Closed
        })
    }

    fn on_window_update(&mut self, now: Time, header: FrameHeader, payload: &[u8]) -> Outcome<'static> {
        self.guard.update(now, &self.settings.flood, &mut self.counters)?;
        let Ok(increment) = <[u8; 4]>::try_from(payload) else {
            return Err(Fault::size("a WINDOW_UPDATE frame that is not 4 bytes long"));
        };
        let increment = u32::from_be_bytes(increment) & 0x7fff_ffff;
        if header.stream == 0 {
            return self.enlarge_connection(increment).map(|()| None);
        }
        match self.place(header.stream)? {
            Place::Live(stream) => self.enlarge_stream(stream, increment).map(|()| None),
            Place::Idle => Err(Fault::protocol("a WINDOW_UPDATE for an idle stream")),
            Place::Reset | Place::Closed | Place::Skipped => Ok(None),
        }
    }

    fn enlarge_connection(&mut self, increment: u32) -> Result<(), Fault> {
        if increment == 0 {
            return Err(Fault::protocol("a WINDOW_UPDATE by nothing"));
        }
        self.send_window.shift(increment.into()).map_err(|Overflow| {
            Fault::Connection(ErrorCode::FLOW_CONTROL_ERROR, "the connection's window exceeds 2^31-1")
        })
    }

    fn enlarge_stream(&mut self, stream: StreamKey, increment: u32) -> Result<(), Fault> {
        if increment == 0 {
            return Err(Fault::Stream(stream.id(), ErrorCode::PROTOCOL_ERROR));
        }
        let Some(state) = self.streams.get_mut(stream) else { return Ok(()) };
        state
            .send_window
            .shift(increment.into())
            .map_err(|Overflow| Fault::Stream(stream.id(), ErrorCode::FLOW_CONTROL_ERROR))?;
        self.streams.queue(stream);
        Ok(())
    }

    fn on_reset(&mut self, now: Time, header: FrameHeader, payload: &[u8]) -> Outcome<'static> {
        let Ok(code) = <[u8; 4]>::try_from(payload) else {
            return Err(Fault::size("an RST_STREAM frame that is not 4 bytes long"));
        };
        let code = ErrorCode(u32::from_be_bytes(code));
        match self.place(header.stream)? {
            Place::Live(stream) => self.on_live_reset(now, stream, code),
            Place::Idle => Err(Fault::protocol("an RST_STREAM for an idle stream")),
            // It has crossed ours, or the end of the stream.
            Place::Reset | Place::Closed | Place::Skipped => {
                self.guard.update(now, &self.settings.flood, &mut self.counters)?;
                Ok(None)
            }
        }
    }

    fn on_live_reset(&mut self, now: Time, stream: StreamKey, code: ErrorCode) -> Outcome<'static> {
        let Some(state) = self.streams.get(stream) else { return Ok(None) };
        let is_rapid = self.role == Role::Server
            && state.sending == Half::Fresh
            && now.since(state.opened) < self.settings.flood.rapid_reset_age;
        self.counters.resets_received += 1;
        if is_rapid {
            self.guard.rapid_reset(now, &self.settings.flood, &mut self.counters)?;
        }
        let Some(tag) = self.streams.remove(stream) else { return Ok(None) };
        let processed = code != ErrorCode::REFUSED_STREAM;
        Ok(Some(Event::Reset { stream, tag, code, by_peer: true, processed }))
    }

    fn on_settings(&mut self, now: Time, header: FrameHeader, payload: &[u8]) -> Outcome<'static> {
        if header.stream != 0 {
            return Err(Fault::protocol("a SETTINGS frame on a stream"));
        }
        self.guard.ping(now, &self.settings.flood)?;
        if header.has(flag::ACK) {
            return self.on_settings_ack(payload).map(|()| None);
        }
        self.counters.settings += 1;
        let peer =
            self.peer.apply(payload, self.role == Role::Client).map_err(|(code, why)| Fault::Connection(code, why))?;
        if let Some(size) = peer.header_table {
            self.encoder.set_peer_limit(size);
        }
        let delta = i64::from(peer.initial_window) - i64::from(self.peer.initial_window);
        if delta != 0 {
            self.streams.shift_send_windows(delta).map_err(|Overflow| {
                Fault::Connection(ErrorCode::FLOW_CONTROL_ERROR, "SETTINGS makes a stream's window exceed 2^31-1")
            })?;
        }
        self.peer = settings::PeerSettings { header_table: None, ..peer };
        settings::write_ack(self.output.reply());
        Ok((!std::mem::replace(&mut self.is_settled, true)).then_some(Event::Settled))
    }

    /// From here on the peer goes by our settings: a smaller window than the one it started from takes effect.
    fn on_settings_ack(&mut self, payload: &[u8]) -> Result<(), Fault> {
        if !payload.is_empty() {
            return Err(Fault::size("an acknowledgement of SETTINGS with a payload"));
        }
        let told = self.settings.stream_window();
        if self.stream_window > told {
            self.streams.shrink_receive_windows(DEFAULT_WINDOW - told);
            self.stream_window = told;
        }
        self.is_acknowledged = true;
        Ok(())
    }

    fn on_ping(&mut self, now: Time, header: FrameHeader, payload: &[u8]) -> Outcome<'static> {
        if header.stream != 0 {
            return Err(Fault::protocol("a PING frame on a stream"));
        }
        let Ok(payload) = <[u8; 8]>::try_from(payload) else {
            return Err(Fault::size("a PING frame that is not 8 bytes long"));
        };
        let payload = u64::from_be_bytes(payload);
        if header.has(flag::ACK) {
            return self.on_pong(now, payload);
        }
        self.counters.pings += 1;
        self.guard.ping(now, &self.settings.flood)?;
        output::write_ping(payload, true, self.output.reply());
        Ok(None)
    }

    fn on_pong(&mut self, now: Time, payload: u64) -> Outcome<'static> {
        if self.on_drain_pong(payload) {
            return Ok(None);
        }
        match self.pings_sent.checked_sub(1) {
            Some(left) => {
                self.pings_sent = left;
                Ok(Some(Event::Pong(payload)))
            }
            // Nobody has asked.
            None => self.guard.ping(now, &self.settings.flood).map(|()| None).map_err(Fault::from),
        }
    }

    /// Priorities are not heeded, but one that is nonsense is an error (RFC 9113, 5.3.2 keeps RFC 7540's format).
    fn on_priority(&mut self, now: Time, header: FrameHeader, payload: &[u8]) -> Outcome<'static> {
        self.guard.update(now, &self.settings.flood, &mut self.counters)?;
        let id = header.stream;
        if id == 0 {
            return Err(Fault::protocol("a PRIORITY frame on no stream"));
        }
        // It may name any stream, open or not (6.3); where it is not, there is none to reset.
        let is_live = self.streams.find(id).is_some();
        let fault = |code, why| if is_live { Fault::Stream(id, code) } else { Fault::Connection(code, why) };
        let Some((dependency, [_])) = payload.split_first_chunk::<4>() else {
            return Err(fault(ErrorCode::FRAME_SIZE_ERROR, "a PRIORITY frame that is not 5 bytes long"));
        };
        if u32::from_be_bytes(*dependency) & 0x7fff_ffff == id {
            return Err(fault(ErrorCode::PROTOCOL_ERROR, "a stream that depends on itself"));
        }
        Ok(None)
    }
}

/// Judges a frame by its header alone.
#[inline]
fn admit(input: &Input, header: FrameHeader, is_settled: bool) -> Result<(), Fault> {
    if header.length > MIN_MAX_FRAME {
        return Err(Fault::size("a frame that is larger than we allow"));
    }
    if !is_settled && (header.kind != kind::SETTINGS || header.has(flag::ACK)) {
        return Err(Fault::protocol("the first frame is no SETTINGS"));
    }
    match &input.block {
        Some(block) if header.kind != kind::CONTINUATION || header.stream != block.head.stream => {
            Err(Fault::protocol("another frame within a header block"))
        }
        None if header.kind == kind::CONTINUATION => Err(Fault::protocol("a CONTINUATION of nothing")),
        _ => Ok(()),
    }
}
