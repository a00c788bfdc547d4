//! A server's side of one connection: bytes in, bytes out.

use std::{collections::VecDeque, net::SocketAddr, rc::Rc};

use rustc_hash::FxHashMap;

use super::{
    head::Heads,
    reply::{Messages, Request, Shape},
};
use crate::frame::{self, Frame};

/// How much is made before it is written, in bytes.
const FULL: usize = 128 << 10;
/// Streams at a time, as we announce it.
const STREAMS: u32 = 1024;
/// The peer's room is refilled after so many bytes.
const REFILL: u32 = 1 << 20;

pub(super) struct Connection {
    output: Vec<u8>,
    heads: Heads,
    messages: Messages,
    /// Streams that are open, from their HEADERS to the end of the reply.
    streams: FxHashMap<u32, Stream>,
    /// Streams with something to send and room in their window, in turn.
    sending: VecDeque<u32>,
    /// Room for DATA, in bytes: of the connection, and of a new stream.
    room: i64,
    stream_room: i64,
    received: u32,
    greeted: bool,
}

struct Stream {
    request: Request,
    reply: Option<Reply>,
    /// Room for DATA, in bytes.
    room: i64,
    /// Whether it is in `sending`.
    queued: bool,
}

struct Reply {
    message: Rc<[u8]>,
    messages_left: u32,
    /// How much of the current message was sent.
    sent: usize,
}

impl Connection {
    pub(super) fn new(address: SocketAddr) -> Self {
        let mut output = Vec::with_capacity(FULL + (64 << 10));
        frame::write_greeting(&mut output, &[(frame::MAX_CONCURRENT_STREAMS, STREAMS)]);
        Self {
            output,
            heads: Heads::default(),
            messages: Messages::of(address),
            streams: FxHashMap::default(),
            sending: VecDeque::new(),
            room: frame::DEFAULT_WINDOW.into(),
            stream_room: frame::DEFAULT_WINDOW.into(),
            received: 0,
            greeted: false,
        }
    }

    /// Takes what has arrived; tells how much of it was used. The rest must be shown again, with more after it.
    pub(super) fn take(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        if !self.greeted {
            if input.len() < frame::PREFACE.len() {
                return 0;
            }
            used = frame::PREFACE.len();
            self.greeted = true;
        }
        while let Some(frame) = Frame::first(&input[used..]) {
            used += frame.size();
            self.frame(frame);
        }
        if self.received > REFILL {
            frame::write(&mut self.output, frame::WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
        used
    }

    /// What is to be written next; the caller empties it.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        while self.output.len() < FULL && self.can_send() {
            self.send_piece();
        }
        &mut self.output
    }

    /// Whether there is more to send at once.
    pub(super) fn can_send(&self) -> bool {
        self.room > 0 && !self.sending.is_empty()
    }

    fn frame(&mut self, frame: Frame<'_>) {
        match frame.kind {
            frame::DATA => self.data(frame),
            frame::HEADERS if frame.has(frame::END_STREAM) => self.refuse(frame.stream),
            frame::HEADERS => self.open(frame.stream),
            frame::RST_STREAM => drop(self.streams.remove(&frame.stream)),
            frame::SETTINGS if !frame.has(frame::ACK) => self.settings(frame.payload),
            frame::PING if !frame.has(frame::ACK) => {
                frame::write(&mut self.output, frame::PING, frame::ACK, 0, frame.payload);
            }
            frame::WINDOW_UPDATE => self.widen(frame.stream, frame::increment(frame.payload)),
            // Header blocks are not decoded, so that it is no matter how they are cut up.
            _ => {}
        }
    }

    fn data(&mut self, frame: Frame<'_>) {
        self.received += u32::try_from(frame.payload.len()).expect("frames are short");
        let body = match frame.payload {
            [padding, padded @ ..] if frame.has(frame::PADDED) => {
                &padded[..padded.len().saturating_sub(usize::from(*padding))]
            }
            body => body,
        };
        // A stream that the peer has reset is not there any longer.
        let Some(stream) = self.streams.get_mut(&frame.stream) else { return };
        stream.request.push(body);
        if frame.has(frame::END_STREAM) {
            let shape = stream.request.shape();
            self.answer(frame.stream, shape);
        }
    }

    fn answer(&mut self, id: u32, shape: Option<Shape>) {
        let Some(shape) = shape else { return self.refuse(id) };
        let Some(stream) = self.streams.get_mut(&id) else { return };
        frame::write(&mut self.output, frame::HEADERS, frame::END_HEADERS, id, self.heads.start());
        let message = self.messages.get(shape);
        let length = i64::try_from(message.len()).expect("messages are short");
        if shape.messages == 1 && message.len() <= frame::MAX_PAYLOAD && length <= self.room.min(stream.room) {
            // The usual small reply needs no turn.
            self.room -= length;
            frame::write(&mut self.output, frame::DATA, 0, id, message);
            return self.finish(id);
        }
        stream.reply = Some(Reply { message: message.clone(), messages_left: shape.messages, sent: 0 });
        self.enqueue(id);
    }

    /// Sends the next DATA frame of the stream whose turn it is.
    fn send_piece(&mut self) {
        let Some(id) = self.sending.pop_front() else { return };
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.queued = false;
        if stream.room <= 0 {
            return;
        }
        let Some(reply) = &mut stream.reply else { return };
        let room = usize::try_from(self.room.min(stream.room)).unwrap_or(0);
        let length = (reply.message.len() - reply.sent).min(frame::MAX_PAYLOAD).min(room);
        let piece = &reply.message[reply.sent..reply.sent + length];
        frame::write(&mut self.output, frame::DATA, 0, id, piece);
        let spent = i64::try_from(length).expect("frames are short");
        self.room -= spent;
        stream.room -= spent;
        reply.sent += length;
        if reply.sent == reply.message.len() {
            reply.sent = 0;
            reply.messages_left -= 1;
        }
        if reply.messages_left == 0 {
            self.finish(id);
        } else {
            self.enqueue(id);
        }
    }

    fn finish(&mut self, stream: u32) {
        let flags = frame::END_HEADERS | frame::END_STREAM;
        frame::write(&mut self.output, frame::HEADERS, flags, stream, self.heads.end());
        self.streams.remove(&stream);
    }

    fn refuse(&mut self, stream: u32) {
        let flags = frame::END_HEADERS | frame::END_STREAM;
        frame::write(&mut self.output, frame::HEADERS, flags, stream, self.heads.unimplemented());
        self.streams.remove(&stream);
    }

    fn open(&mut self, id: u32) {
        let stream = Stream { request: Request::default(), reply: None, room: self.stream_room, queued: false };
        self.streams.insert(id, stream);
    }

    /// Gives a stream its turn, if it has something to send and may.
    fn enqueue(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.reply.is_some()
            && stream.room > 0
            && !stream.queued
        {
            stream.queued = true;
            self.sending.push_back(id);
        }
    }

    fn settings(&mut self, payload: &[u8]) {
        for (id, value) in frame::settings(payload) {
            match id {
                frame::HEADER_TABLE_SIZE => self.heads.table_size(value),
                frame::INITIAL_WINDOW_SIZE => self.resize_streams(value.into()),
                _ => {}
            }
        }
        frame::write(&mut self.output, frame::SETTINGS, frame::ACK, 0, &[]);
    }

    /// RFC 9113, 6.9.2: streams that are open change by the difference.
    fn resize_streams(&mut self, room: i64) {
        let more = room - std::mem::replace(&mut self.stream_room, room);
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            self.widen(id, more);
        }
    }

    fn widen(&mut self, stream: u32, more: i64) {
        if stream == 0 {
            self.room += more;
        } else if let Some(open) = self.streams.get_mut(&stream) {
            open.room += more;
            self.enqueue(stream);
        }
    }
}
