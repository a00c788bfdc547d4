//! Frames that carry messages: HEADERS and CONTINUATION, and DATA.

#![allow(clippy::cast_possible_truncation, reason = "pieces are no longer than the frame they are of")]

use evenkeel_balance::Time;

use super::{
    Connection, Event, Role,
    fault::Fault,
    guard::Flood,
    heads::{self, Head, Kind},
    input::{BlockHead, DataFrame, OpenBlock, Stage},
    output,
    receive::{Outcome, Place, Step},
    streams::{Half, StreamKey, WrongLength},
    windows::Exceeded,
};
use crate::{
    fields::Fields,
    frame::{ErrorCode, FrameHeader, flag},
    hpack::Listing,
};

impl Connection {
    pub(super) fn on_headers(
        &mut self,
        now: Time,
        header: FrameHeader,
        payload: &[u8],
        fields: &mut Fields,
    ) -> Outcome<'static> {
        if header.stream == 0 {
            return Err(Fault::protocol("a HEADERS frame on no stream"));
        }
        let (depends_on_itself, block) = strip(header, payload)?;
        let head = BlockHead { stream: header.stream, ends: header.has(flag::END_STREAM), depends_on_itself };
        if header.has(flag::END_HEADERS) {
            return self.on_block(now, head, block, fields);
        }
        self.input.block = Some(Box::new(OpenBlock { head, bytes: block.to_vec(), continuations: 0 }));
        Ok(None)
    }

    pub(super) fn on_continuation(
        &mut self,
        now: Time,
        header: FrameHeader,
        payload: &[u8],
        fields: &mut Fields,
    ) -> Outcome<'static> {
        let Some(mut block) = self.input.block.take() else { return Ok(None) };
        block.continuations += 1;
        let most = 2 * self.settings.max_header_list as usize;
        if block.continuations > self.settings.flood.continuations || block.bytes.len() + payload.len() > most {
            return Err(Flood::Continuations.into());
        }
        block.bytes.extend_from_slice(payload);
        if header.has(flag::END_HEADERS) {
            return self.on_block(now, block.head, &block.bytes, fields);
        }
        self.input.block = Some(block);
        Ok(None)
    }

    /// Every block is decoded, whatever it is for: the next ones depend on it.
    fn on_block(&mut self, now: Time, head: BlockHead, block: &[u8], fields: &mut Fields) -> Outcome<'static> {
        let listing = self.decoder.decode(block, &self.settings.list_limits(), fields)?;
        if listing == Listing::TooLarge {
            self.counters.header_lists_too_large += 1;
        }
        match self.place(head.stream)? {
            Place::Live(stream) => self.on_more_fields(now, stream, head, listing, fields),
            Place::Idle if self.role == Role::Server => self.on_request(now, head, listing, fields),
            Place::Idle => Err(Fault::protocol("a HEADERS frame for an idle stream")),
            Place::Reset if self.role == Role::Client => Ok(None),
            Place::Reset => {
                self.guard.glitch(now, &self.settings.flood, &mut self.counters)?;
                Ok(None)
            }
            Place::Skipped => Err(Fault::protocol("a new stream with a lower id than those before")),
            Place::Closed => Err(self.closed(head.stream, "a HEADERS frame for a stream that is over")),
        }
    }

    /// A frame for a stream that is certainly over: an error of the whole connection (RFC 9113, 5.1), but one stream's
    /// mistake of a server is not made that of all our streams.
    fn closed(&self, id: u32, why: &'static str) -> Fault {
        match self.role {
            Role::Server => Fault::Connection(ErrorCode::STREAM_CLOSED, why),
            Role::Client => Fault::Stream(id, ErrorCode::STREAM_CLOSED),
        }
    }

    /// A new stream of the client's.
    fn on_request(&mut self, now: Time, head: BlockHead, listing: Listing, fields: &Fields) -> Outcome<'static> {
        let id = head.stream;
        if id > self.last_id_seen + 2 {
            self.skipped = self.last_id_seen + 1..id;
        }
        self.last_id_seen = id;
        if self.goodbye.refuses(id) {
            self.refuse(id);
            return Ok(None);
        }
        self.last_peer_id = id;
        if head.depends_on_itself {
            return Err(Fault::Stream(id, ErrorCode::PROTOCOL_ERROR));
        }
        if self.streams.len() >= self.settings.max_concurrent_streams as usize {
            // Before it has acknowledged our settings the peer may not know better.
            if self.is_acknowledged {
                self.guard.glitch(now, &self.settings.flood, &mut self.counters)?;
            }
            self.refuse(id);
            return Ok(None);
        }
        let message = self.judge(id, Kind::Request, listing, fields)?;
        if head.ends && message.content_length.is_some_and(|length| length > 0) {
            self.counters.malformed += 1;
            return Err(Fault::Stream(id, ErrorCode::PROTOCOL_ERROR));
        }
        let stream = self.streams.insert(id, self.peer.initial_window, self.stream_window, now);
        self.counters.streams += 1;
        self.guard.worked(0);
        if let Some(state) = self.streams.get_mut(stream) {
            state.expect(message.content_length);
            state.receiving = if head.ends { Half::Ended } else { Half::Open };
        }
        Ok(Some(Event::Head { stream, ends: head.ends, listing }))
    }

    fn refuse(&mut self, id: u32) {
        self.counters.refused += 1;
        self.counters.resets_sent += 1;
        output::write_reset(id, ErrorCode::REFUSED_STREAM, self.output.reply());
        self.resets.remember(id);
    }

    /// Whether a list is a valid message. Of one that is too large some is missing, so it is not asked.
    fn judge(&mut self, id: u32, kind: Kind, listing: Listing, fields: &Fields) -> Result<Head, Fault> {
        if listing == Listing::TooLarge {
            return Ok(Head::default());
        }
        heads::check(kind, fields).map_err(|_| {
            self.counters.malformed += 1;
            Fault::Stream(id, ErrorCode::PROTOCOL_ERROR)
        })
    }

    /// A response's head, or trailers.
    fn on_more_fields(
        &mut self,
        now: Time,
        stream: StreamKey,
        head: BlockHead,
        listing: Listing,
        fields: &Fields,
    ) -> Outcome<'static> {
        if head.depends_on_itself {
            return Err(Fault::Stream(head.stream, ErrorCode::PROTOCOL_ERROR));
        }
        let receiving = self.streams.get(stream).map_or(Half::Ended, |state| state.receiving);
        match receiving {
            Half::Fresh => self.on_response(now, stream, head, listing, fields),
            Half::Open if !head.ends => Err(Fault::Stream(head.stream, ErrorCode::PROTOCOL_ERROR)),
            Half::Open => {
                self.judge(head.stream, Kind::Trailers, listing, fields)?;
                self.end_receiving(stream)?;
                self.guard.worked(0);
                Ok(Some(Event::Trailers { stream, listing }))
            }
            Half::Ended => Err(Fault::Stream(head.stream, ErrorCode::STREAM_CLOSED)),
        }
    }

    fn on_response(
        &mut self,
        now: Time,
        stream: StreamKey,
        head: BlockHead,
        listing: Listing,
        fields: &Fields,
    ) -> Outcome<'static> {
        let message = self.judge(head.stream, Kind::Response, listing, fields)?;
        if message.is_interim {
            self.guard.update(now, &self.settings.flood, &mut self.counters)?;
            // Nothing can end with it, as the response proper has not come.
            return if head.ends { Err(Fault::Stream(head.stream, ErrorCode::PROTOCOL_ERROR)) } else { Ok(None) };
        }
        self.guard.worked(0);
        if let Some(state) = self.streams.get_mut(stream) {
            state.receiving = Half::Open;
            state.expect(message.content_length);
        }
        if head.ends {
            self.end_receiving(stream)?;
        }
        Ok(Some(Event::Head { stream, ends: head.ends, listing }))
    }

    /// The peer has ended its half.
    #[inline]
    fn end_receiving(&mut self, stream: StreamKey) -> Result<(), Fault> {
        if self.streams.get(stream).is_some_and(|state| !state.is_complete()) {
            return Err(Fault::Stream(stream.id(), ErrorCode::PROTOCOL_ERROR));
        }
        self.streams.end_receiving(stream);
        Ok(())
    }

    /// A DATA frame begins. Its payload counts at once and whole, whether somebody wants it or not.
    #[inline]
    pub(super) fn on_data_header(&mut self, now: Time, header: FrameHeader) -> Result<(), Fault> {
        let FrameHeader { length, stream, .. } = header;
        if stream == 0 {
            return Err(Fault::protocol("a DATA frame on no stream"));
        }
        let is_padded = header.has(flag::PADDED);
        if is_padded && length == 0 {
            return Err(Fault::size("a DATA frame with no room for the length of its padding"));
        }
        self.receive_window.receive(length).map_err(|Exceeded| {
            Fault::Connection(ErrorCode::FLOW_CONTROL_ERROR, "more DATA than the connection's window allows")
        })?;
        if let Some(grant) = self.receive_window.release(length as usize, 0) {
            output::write_window_update(0, grant, self.output.buffer());
        }
        let ends = header.has(flag::END_STREAM);
        if !is_padded && !ends {
            self.guard.data(now, length, &self.settings.flood, &mut self.counters)?;
        }
        let wanted = self.wanted(stream, length);
        let padding = if is_padded { None } else { Some(0) };
        let frame = DataFrame { stream: wanted.unwrap_or(None), left: length, padding, ends };
        self.input.stage = Stage::Data(frame);
        wanted.map(|_| ())
    }

    /// The stream that a DATA frame of this length is for, if it wants it.
    #[inline]
    fn wanted(&mut self, id: u32, length: u32) -> Result<Option<StreamKey>, Fault> {
        let stream = match self.place(id)? {
            Place::Live(stream) => stream,
            Place::Reset => return Ok(None),
            Place::Idle | Place::Skipped => return Err(Fault::protocol("a DATA frame for an idle stream")),
            Place::Closed => return Err(self.closed(id, "a DATA frame for a stream that is over")),
        };
        let Some(state) = self.streams.get_mut(stream) else { return Ok(None) };
        match state.receiving {
            Half::Fresh => return Err(Fault::Stream(id, ErrorCode::PROTOCOL_ERROR)),
            Half::Ended => return Err(Fault::Stream(id, ErrorCode::STREAM_CLOSED)),
            Half::Open => {}
        }
        state.receive_window.receive(length).map_err(|Exceeded| Fault::Stream(id, ErrorCode::FLOW_CONTROL_ERROR))?;
        Ok(Some(stream))
    }

    /// Passes on what has come of a DATA frame's payload.
    #[inline]
    pub(super) fn step_data<'i>(
        &mut self,
        now: Time,
        mut frame: DataFrame,
        input: &mut &'i [u8],
    ) -> Result<Step<'i>, Fault> {
        let Some(padding) = frame.padding else { return self.step_padding(now, frame, input) };
        let wanted = frame.left.saturating_sub(padding);
        let (data, rest) = input.split_at(input.len().min(wanted as usize));
        frame.left -= data.len() as u32;
        // Padding that has come with the data is skipped with it, so that the end need not be told by itself.
        let skipped = if data.len() == wanted as usize { rest.len().min(frame.left as usize) } else { 0 };
        frame.left -= skipped as u32;
        *input = &rest[skipped..];
        let is_whole = frame.left == 0;
        self.input.stage = if is_whole { Stage::Frame } else { Stage::Data(frame) };
        if let Some(stream) = frame.stream
            && let Some(event) = self.on_payload(stream, data, is_whole && frame.ends)?
        {
            return Ok(Step::Event(event));
        }
        Ok(if is_whole { Step::More } else { Step::UsedUp })
    }

    /// Reads how long the padding is, and gives its place in the stream's window back.
    #[cold]
    fn step_padding<'i>(&mut self, now: Time, mut frame: DataFrame, input: &mut &[u8]) -> Result<Step<'i>, Fault> {
        let Some((&padding, rest)) = input.split_first() else { return Ok(Step::UsedUp) };
        *input = rest;
        let padding = u32::from(padding);
        frame.left -= 1;
        if padding > frame.left {
            return Err(Fault::protocol("a DATA frame with more padding than payload"));
        }
        frame.padding = Some(padding);
        self.input.stage = Stage::Data(frame);
        if let Some(stream) = frame.stream {
            self.release(stream, 1 + padding as usize);
        }
        if !frame.ends {
            self.guard.data(now, frame.left - padding, &self.settings.flood, &mut self.counters)?;
        }
        Ok(Step::More)
    }

    #[inline]
    fn on_payload<'i>(&mut self, stream: StreamKey, data: &'i [u8], ends: bool) -> Outcome<'i> {
        let Some(state) = self.streams.get_mut(stream) else { return Ok(None) };
        state.count(data.len()).map_err(|WrongLength| Fault::Stream(stream.id(), ErrorCode::PROTOCOL_ERROR))?;
        if ends {
            self.end_receiving(stream)?;
        }
        Ok((ends || !data.is_empty()).then_some(Event::Data { stream, data, ends }))
    }
}

/// A HEADERS frame's block without padding and priority, and whether the stream depends on itself.
fn strip(header: FrameHeader, payload: &[u8]) -> Result<(bool, &[u8]), Fault> {
    const SHORT: Fault = Fault::size("a HEADERS frame that is too short for its flags");
    let (mut rest, mut padding, mut depends_on_itself) = (payload, 0, false);
    if header.has(flag::PADDED) {
        let (&length, after) = rest.split_first().ok_or(SHORT)?;
        (padding, rest) = (usize::from(length), after);
    }
    if header.has(flag::PRIORITY) {
        let (priority, after) = rest.split_first_chunk::<5>().ok_or(SHORT)?;
        let [d0, d1, d2, d3, _] = *priority;
        depends_on_itself = u32::from_be_bytes([d0, d1, d2, d3]) & 0x7fff_ffff == header.stream;
        rest = after;
    }
    let length = rest.len().checked_sub(padding).ok_or(Fault::protocol("HEADERS with more padding than payload"))?;
    Ok((depends_on_itself, &rest[..length]))
}
