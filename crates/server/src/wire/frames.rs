//! Where frames begin and end in the bytes of one direction, without a copy of their payloads. Sans-IO.

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    length: usize,
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const HEADER: usize = 9;
const PREFACE: usize = 24;

impl Frame {
    fn parse(header: [u8; HEADER]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { kind, flags, stream: u32::from_be_bytes(stream) & 0x7FFF_FFFF, length }
    }

    pub(super) fn is_ack(self) -> bool {
        self.flags & ACK != 0
    }

    fn leaves_a_block_open(self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION) && self.flags & END_HEADERS == 0
    }
}

/// Walks over the bytes of one direction of a connection, however they are cut.
#[derive(Debug)]
pub(super) struct FrameWalk {
    header: [u8; HEADER],
    /// Bytes of `header` that are filled.
    filled: usize,
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    /// Whether the last header began or continued a block of headers that another frame ends.
    within_block: bool,
}

impl FrameWalk {
    /// The client's direction, which begins with the preface of HTTP/2.
    pub(super) fn inbound() -> Self {
        Self { skip: PREFACE, ..Self::outbound() }
    }

    pub(super) fn outbound() -> Self {
        Self { header: [0; HEADER], filled: 0, skip: 0, within_block: false }
    }

    /// The next frame whose header is complete in `bytes`, which is advanced past that header; `None` when all of
    /// `bytes` is taken.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = take(bytes, self.skip).len();
        self.skip -= skipped;
        let part = take(bytes, HEADER - self.filled);
        self.header[self.filled..self.filled + part.len()].copy_from_slice(part);
        self.filled += part.len();
        if self.filled < HEADER {
            return None;
        }
        let frame = Frame::parse(self.header);
        (self.filled, self.skip, self.within_block) = (0, frame.length, frame.leaves_a_block_open());
        Some(frame)
    }

    /// How many bytes may follow without a look at a new header; 0 where a frame of one's own can be put in.
    pub(super) fn until_boundary(&self) -> usize {
        match (self.skip, self.filled, self.within_block) {
            (0, 0, false) => 0,
            (0, filled, _) => HEADER - filled,
            (skip, ..) => skip,
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = bytes.split_at(bytes.len().min(most));
    *bytes = rest;
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(frame: Frame) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(frame.length).unwrap().to_be_bytes();
        let mut bytes = vec![a, b, c, frame.kind, frame.flags];
        bytes.extend(frame.stream.to_be_bytes());
        bytes.resize(HEADER + frame.length, 0xAB);
        bytes
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let frame = (0..10_u8, any::<u8>(), 0..0x8000_0000_u32, 0..40_usize);
        let frame = frame.prop_map(|(kind, flags, stream, length)| Frame { kind, flags, stream, length });
        prop::collection::vec(frame, 0..12)
    }

    proptest! {
        #[test]
        fn every_frame_is_found_however_the_bytes_are_cut(frames in frames(), cuts in prop::collection::vec(1..50_usize, 1..9)) {
            let mut bytes = vec![b'P'; PREFACE];
            bytes.extend(frames.iter().copied().flat_map(encode));
            let (mut walk, mut found, mut rest) = (FrameWalk::inbound(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let mut chunk = take(&mut rest, *cut);
                while let Some(frame) = walk.next(&mut chunk) {
                    found.push(frame);
                }
                prop_assert!(chunk.is_empty(), "a chunk is taken whole");
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(&found, &frames);
            let open = frames.last().is_some_and(|frame| frame.leaves_a_block_open());
            prop_assert_eq!(walk.until_boundary() == 0, !open);
        }

        #[test]
        fn any_bytes_are_walked_over(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let (mut walk, mut rest) = (FrameWalk::outbound(), &bytes[..]);
            while walk.next(&mut rest).is_some() {}
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_boundary_is_only_where_a_frame_may_be_put_in() {
        let mut walk = FrameWalk::outbound();
        assert_eq!(walk.until_boundary(), 0);
        let headers = encode(Frame { kind: HEADERS, flags: 0, stream: 1, length: 3 });
        assert!(walk.next(&mut &headers[..5]).is_none());
        assert_eq!(walk.until_boundary(), 4);
        assert!(walk.next(&mut &headers[5..9]).is_some());
        assert_eq!(walk.until_boundary(), 3);
        assert!(walk.next(&mut &headers[9..]).is_none());
        assert_eq!(walk.until_boundary(), HEADER, "the block of headers goes on in another frame");
        let end = encode(Frame { kind: CONTINUATION, flags: END_HEADERS, stream: 1, length: 0 });
        assert!(walk.next(&mut &end[..]).is_some());
        assert_eq!(walk.until_boundary(), 0);
    }
}
