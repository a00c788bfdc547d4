use std::fmt;

use crate::error::reason_name;

/// Finds GOAWAY frames in the bytes a server sends.
///
/// The HTTP/2 library tells a stream *that* there was a GOAWAY, but not whether its own id was above the last one
/// processed. Only then is it safe to send a call again that may not be idempotent, so it is read off the wire.
#[derive(Debug)]
pub(crate) struct GoawayScan {
    header: [u8; HEADER],
    /// Bytes of `header` that are filled.
    filled: usize,
    /// Payload bytes still to come.
    left: usize,
    /// The payload of a GOAWAY as far as it has come and is kept.
    payload: Option<Vec<u8>>,
}

/// A server's good-bye.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Goaway {
    /// The last stream that it has processed or will.
    pub(crate) last: u32,
    /// Its error code.
    pub(crate) code: u32,
    /// What it adds for people to read, as far as it is kept.
    debug: Vec<u8>,
}

const HEADER: usize = 9;
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
/// How much of a payload is kept: a server may send what it likes.
const KEPT: usize = 8 + 128;

impl Goaway {
    fn parse(payload: &[u8]) -> Option<Self> {
        let (last, rest) = payload.split_first_chunk()?;
        let (code, debug) = rest.split_first_chunk()?;
        let last = u32::from_be_bytes(*last) & 0x7FFF_FFFF;
        Some(Self { last, code: u32::from_be_bytes(*code), debug: debug.to_vec() })
    }

    /// Whether the server leaves because of our PINGs (gRFC A8).
    pub(crate) fn is_too_many_pings(&self) -> bool {
        self.code == ENHANCE_YOUR_CALM && self.debug == b"too_many_pings"
    }
}

/// `GOAWAY`, the error code if it is one, and what the server adds.
impl fmt::Display for Goaway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GOAWAY")?;
        if self.code != 0 {
            write!(f, " {}", reason_name(self.code))?;
        }
        if !self.debug.is_empty() {
            write!(f, ": {}", self.debug.escape_ascii())?;
        }
        Ok(())
    }
}

impl GoawayScan {
    pub(crate) fn new() -> Self {
        Self { header: [0; HEADER], filled: 0, left: 0, payload: None }
    }

    /// Takes in the next bytes; returns the last GOAWAY that is complete in them.
    pub(crate) fn scan(&mut self, mut bytes: &[u8]) -> Option<Goaway> {
        let mut found = None;
        while !bytes.is_empty() {
            if self.left == 0 && self.filled < HEADER {
                bytes = self.fill_header(bytes);
                continue;
            }
            let (payload, rest) = bytes.split_at(bytes.len().min(self.left));
            found = self.read_payload(payload).or(found);
            bytes = rest;
        }
        found
    }

    fn fill_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (part, rest) = bytes.split_at(bytes.len().min(HEADER - self.filled));
        self.header[self.filled..self.filled + part.len()].copy_from_slice(part);
        self.filled += part.len();
        if self.filled == HEADER {
            let [a, b, c, kind, ..] = self.header;
            self.left = u32::from_be_bytes([0, a, b, c]) as usize;
            self.payload = (kind == GOAWAY).then(Vec::new);
            if self.left == 0 {
                self.filled = 0;
            }
        }
        rest
    }

    fn read_payload(&mut self, payload: &[u8]) -> Option<Goaway> {
        self.left -= payload.len();
        if let Some(kept) = &mut self.payload {
            kept.extend(payload.iter().take(KEPT - kept.len()));
        }
        if self.left > 0 {
            return None;
        }
        self.filled = 0;
        Goaway::parse(&self.payload.take()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[a, b, c, kind, 0, 0, 0, 0, 0][..], payload].concat()
    }

    #[test]
    fn finds_goaway_among_other_frames_however_the_bytes_are_split() {
        let bytes = [
            frame(4, &[]),
            frame(0, &[7; 300]),
            frame(GOAWAY, &[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]),
            frame(6, &[1; 8]),
            frame(GOAWAY, &[&[0, 0, 1, 5, 0, 0, 0, 11][..], b"too_many_pings"].concat()),
            frame(0, &[GOAWAY; 20]),
        ]
        .concat();
        for step in 1..bytes.len() {
            let mut scan = GoawayScan::new();
            let found: Vec<_> = bytes.chunks(step).filter_map(|chunk| scan.scan(chunk)).collect();
            let last = found.last().unwrap();
            assert!(last.last == 0x105 && last.is_too_many_pings(), "in steps of {step}");
            assert_eq!(last.to_string(), "GOAWAY ENHANCE_YOUR_CALM: too_many_pings");
            assert!(found.len() == 1 || (found[0].last == 0x7FFF_FFFF && found[0].to_string() == "GOAWAY"));
        }
    }

    #[test]
    fn keeps_little_of_what_a_server_adds_and_nothing_of_a_short_one() {
        let mut scan = GoawayScan::new();
        assert_eq!(scan.scan(&frame(GOAWAY, &[0; 7])), None);
        let long = scan.scan(&frame(GOAWAY, &[0; 16_000])).unwrap();
        assert_eq!(long.debug.len(), 128);
        assert_eq!(scan.scan(&frame(GOAWAY, &[0; 8])).unwrap().last, 0, "and goes on after both");
    }
}
