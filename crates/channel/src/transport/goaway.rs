/// Finds GOAWAY frames in the bytes a server sends, and what they say.
///
/// The HTTP/2 library tells a stream *that* there was a GOAWAY, but not whether its own id was above the last one
/// processed. Only then is it safe to send a call again that may not be idempotent, so it is read off the wire.
#[derive(Debug)]
pub(super) struct GoawayScan {
    header: [u8; HEADER],
    /// Bytes of `header` that are filled.
    filled: usize,
    /// Payload bytes still to come.
    left: usize,
    /// The first eight payload bytes of a GOAWAY, as far as they have come.
    said: Option<(u64, u8)>,
}

/// What a GOAWAY says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Goaway {
    /// The last stream that the peer will process.
    pub(super) last: u32,
    /// Its error code.
    pub(super) code: u32,
}

const HEADER: usize = 9;
const GOAWAY: u8 = 7;

impl GoawayScan {
    pub(super) fn new() -> Self {
        Self { header: [0; HEADER], filled: 0, left: 0, said: None }
    }

    /// Takes in the next bytes; returns the last GOAWAY that is complete in them.
    pub(super) fn scan(&mut self, mut bytes: &[u8]) -> Option<Goaway> {
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
            self.said = (kind == GOAWAY).then_some((0, 0));
            if self.left == 0 {
                self.filled = 0;
            }
        }
        rest
    }

    fn read_payload(&mut self, payload: &[u8]) -> Option<Goaway> {
        self.left -= payload.len();
        if self.left == 0 {
            self.filled = 0;
        }
        let (said, seen) = self.said.as_mut()?;
        for &byte in payload.iter().take(usize::from(8 - *seen)) {
            *said = *said << 8 | u64::from(byte);
            *seen += 1;
        }
        if *seen < 8 {
            return None;
        }
        let [a, b, c, d, code @ ..] = said.to_be_bytes();
        self.said = None;
        Some(Goaway { last: u32::from_be_bytes([a, b, c, d]) & 0x7FFF_FFFF, code: u32::from_be_bytes(code) })
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
            frame(GOAWAY, &[0, 0, 1, 5, 0, 0, 0, 11, b'b', b'y', b'e']),
            frame(0, &[GOAWAY; 20]),
        ]
        .concat();
        for step in 1..bytes.len() {
            let mut scan = GoawayScan::new();
            let found: Vec<_> = bytes.chunks(step).filter_map(|chunk| scan.scan(chunk)).collect();
            assert_eq!(found.last(), Some(&Goaway { last: 0x105, code: 11 }), "in steps of {step}");
            assert!(found.len() == 1 || found[0] == Goaway { last: 0x7FFF_FFFF, code: 0 });
        }
    }
}
