//! One connection against raw frames.

use evenkeel_relay::{
    connection::{Role, Settings},
    frame::{ErrorCode, FrameHeader, HEADER, PREFACE, flag, kind},
    hpack::Encoder,
};

use crate::pair::{REQUEST, RESPONSE, Side, fields};

/// A frame in bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameHeader { length: payload.len() as u32, kind, flags, stream }.write(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in entries {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

pub(crate) fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(crate) fn data(stream: u32, payload: &[u8], ends: bool) -> Vec<u8> {
    frame(kind::DATA, if ends { flag::END_STREAM } else { 0 }, stream, payload)
}

pub(crate) fn ping(payload: u64, is_ack: bool) -> Vec<u8> {
    frame(kind::PING, u8::from(is_ack), 0, &payload.to_be_bytes())
}

pub(crate) fn goaway(last: u32, code: ErrorCode) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), code.0.to_be_bytes()].concat())
}

/// What the other end of the connection under test says and hears.
pub(crate) struct Raw {
    pub(crate) side: Side,
    encoder: Encoder,
}

impl Raw {
    /// A connection of this role whose peer has greeted it and acknowledged its settings.
    pub(crate) fn new(role: Role, ours: Settings) -> Self {
        let mut raw = Self::silent(role, ours);
        if role == Role::Server {
            raw.say(PREFACE);
        }
        raw.say(&settings(&[]));
        raw.say(&frame(kind::SETTINGS, flag::ACK, 0, &[]));
        raw.hear();
        raw
    }

    /// A connection whose peer has said nothing.
    pub(crate) fn silent(role: Role, ours: Settings) -> Self {
        Self { side: Side::new(role, ours), encoder: Encoder::new(4096) }
    }

    pub(crate) fn server() -> Self {
        Self::new(Role::Server, Settings::default())
    }

    /// A client's connection with one open stream, whose id is 1.
    pub(crate) fn client() -> Self {
        let mut raw = Self::new(Role::Client, Settings::default());
        raw.open();
        raw
    }

    pub(crate) fn open(&mut self) -> u32 {
        let stream = self.side.connection.open(7, fields(REQUEST), false).expect("there is room");
        self.side.keys.insert(stream.id(), stream);
        self.hear();
        stream.id()
    }

    pub(crate) fn block(&mut self, list: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        self.encoder.encode(fields(list), &mut block);
        block
    }

    pub(crate) fn headers(&mut self, stream: u32, list: &[(&str, &str)], flags: u8) -> Vec<u8> {
        frame(kind::HEADERS, flags | flag::END_HEADERS, stream, &self.block(list))
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.side.receive(bytes);
    }

    pub(crate) fn request(&mut self, stream: u32, ends: bool) {
        let bytes = self.headers(stream, REQUEST, u8::from(ends));
        self.say(&bytes);
    }

    pub(crate) fn response(&mut self, stream: u32, ends: bool) {
        let bytes = self.headers(stream, RESPONSE, u8::from(ends));
        self.say(&bytes);
    }

    /// The frames that have been sent, header and payload.
    pub(crate) fn hear(&mut self) -> Vec<(FrameHeader, Vec<u8>)> {
        let bytes = self.side.write();
        let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(&bytes);
        let mut frames = Vec::new();
        while let Some((header, after)) = rest.split_first_chunk::<HEADER>() {
            let header = FrameHeader::parse(header);
            let (payload, after) = after.split_at(header.length as usize);
            frames.push((header, payload.to_vec()));
            rest = after;
        }
        frames
    }

    /// What has been made of what was said: the first error that has been sent.
    pub(crate) fn verdict(&mut self) -> Verdict {
        let code = |bytes: &[u8]| ErrorCode(u32::from_be_bytes(bytes.try_into().unwrap()));
        let verdict = self.hear().iter().find_map(|(header, payload)| match header.kind {
            kind::RST_STREAM => Some(Verdict::Stream(header.stream, code(payload))),
            kind::GOAWAY => Some(Verdict::Connection(code(&payload[4..8]))),
            _ => None,
        });
        if let Some(Verdict::Connection(code)) = verdict {
            assert_eq!(self.side.broken, Some(code));
            assert!(self.side.connection.is_finished());
        }
        verdict.unwrap_or(Verdict::Fine)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    Stream(u32, ErrorCode),
    Connection(ErrorCode),
}
