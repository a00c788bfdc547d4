//! HTTP/2 frames (RFC 9113), as far as a measuring device needs them.

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;

/// Of SETTINGS and PING.
pub(crate) const ACK: u8 = 1;
/// Of DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// What both sides start with, in bytes.
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;
/// The largest payload that every peer must take, in bytes.
pub(crate) const MAX_PAYLOAD: usize = 16_384;

/// The length of a frame's head, in bytes.
const HEAD: usize = 9;

/// A whole frame in a buffer.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first frame, once it is there as a whole.
    pub(crate) fn first(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Self { kind: head[3], flags: head[4], stream, payload: rest.get(..length)? })
    }

    pub(crate) fn size(&self) -> usize {
        HEAD + self.payload.len()
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.payload.len()).expect("frames are short");
        out.extend_from_slice(&length.to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(self.payload);
    }
}

pub(crate) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    Frame { kind, flags, stream, payload }.write(out);
}

/// A SETTINGS frame, and a `WINDOW_UPDATE` of the connection so large that it seldom needs another.
pub(crate) fn write_greeting(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::new();
    for (id, value) in settings {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    write(out, SETTINGS, 0, 0, &payload);
    write(out, WINDOW_UPDATE, 0, 0, &(1_u32 << 24).to_be_bytes());
}

/// The settings in a SETTINGS frame's payload.
pub(crate) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload
        .as_chunks::<6>()
        .0
        .iter()
        .map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])))
}

/// What a `WINDOW_UPDATE` adds.
pub(crate) fn increment(payload: &[u8]) -> i64 {
    payload.first_chunk().map_or(0, |bytes| i64::from(u32::from_be_bytes(*bytes) & 0x7fff_ffff))
}
