//! What is to be written: a buffer that frames are appended to and bytes are consumed from.

#![allow(clippy::cast_possible_truncation, reason = "payloads are cut to the peer's frame size, of 24 bits")]

use crate::frame::{ErrorCode, FrameHeader, HEADER, flag, kind};

/// Frames on their way to the peer.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// How many of `bytes` are written.
    start: usize,
    /// How many bytes were written before those in `bytes`.
    base: u64,
    replies: Replies,
}

/// How many replies to the peer's own frames lie in the buffer, give or take those of a buffer's length.
#[derive(Debug, Default)]
struct Replies {
    before_mark: u32,
    after_mark: u32,
    mark: u64,
}

/// The memory that an empty buffer keeps, in bytes: enough for a call, little for an idle connection.
const KEPT: usize = 1024;

/// From here on, written bytes are moved out of the way before the buffer is empty.
const COMPACTED: usize = 32 << 10;

impl Output {
    /// The bytes to write.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes are to be written.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The position of the next byte to be appended, of all that ever were.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Whether the byte at `position` is written.
    #[inline]
    pub(super) fn is_written(&self, position: u64) -> bool {
        position < self.base + self.start as u64
    }

    /// `count` bytes are written, or all if there are fewer.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        if self.start == self.bytes.len() {
            self.base += self.bytes.len() as u64;
            self.start = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.replies = Replies::default();
        } else {
            if self.start >= COMPACTED && self.start >= self.bytes.len() / 2 {
                self.bytes.drain(..self.start);
                self.base += self.start as u64;
                self.start = 0;
            }
            self.replies.written(self.base + self.start as u64, self.base + self.bytes.len() as u64);
        }
    }

    /// How many replies wait to be read by the peer.
    #[inline]
    pub(super) fn replies(&self) -> u32 {
        self.replies.before_mark + self.replies.after_mark
    }

    /// What is appended next answers a frame of the peer's. Returns the buffer.
    pub(super) fn reply(&mut self) -> &mut Vec<u8> {
        self.replies.after_mark += 1;
        &mut self.bytes
    }

    /// The buffer, to append whole frames to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// HEADERS, and CONTINUATION where the block that `encode` appends is larger than a frame of the peer's.
    #[inline]
    pub(super) fn headers(&mut self, stream: u32, ends: bool, max_frame: u32, encode: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        encode(&mut self.bytes);
        let length = self.bytes.len() - at - HEADER;
        let flags = if ends { flag::END_STREAM } else { 0 };
        if length > max_frame as usize {
            return self.split_block(at, stream, flags, max_frame as usize);
        }
        let header =
            FrameHeader { length: length as u32, kind: kind::HEADERS, flags: flags | flag::END_HEADERS, stream };
        self.bytes[at..at + HEADER].copy_from_slice(&header.encoded());
    }

    #[cold]
    fn split_block(&mut self, at: usize, stream: u32, flags: u8, max_frame: usize) {
        let block = self.bytes.split_off(at + HEADER);
        self.bytes.truncate(at);
        let (mut kind, mut flags) = (kind::HEADERS, flags);
        let mut pieces = block.chunks(max_frame).peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            FrameHeader { length: piece.len() as u32, kind, flags, stream }.write(&mut self.bytes);
            self.bytes.extend_from_slice(piece);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }

    /// DATA frames of at most `max_frame` bytes; one without payload if there is none.
    #[inline]
    pub(super) fn data(&mut self, stream: u32, mut data: &[u8], ends: bool, max_frame: u32) {
        let frames = data.len() / max_frame as usize + 1;
        self.bytes.reserve(data.len() + frames * HEADER);
        loop {
            let (piece, rest) = data.split_at(data.len().min(max_frame as usize));
            let flags = if ends && rest.is_empty() { flag::END_STREAM } else { 0 };
            FrameHeader { length: piece.len() as u32, kind: kind::DATA, flags, stream }.write(&mut self.bytes);
            self.bytes.extend_from_slice(piece);
            data = rest;
            if data.is_empty() {
                return;
            }
        }
    }
}

impl Replies {
    /// All up to `written` is written, and the buffer goes up to `end`.
    fn written(&mut self, written: u64, end: u64) {
        if written >= self.mark {
            *self = Self { before_mark: self.after_mark, after_mark: 0, mark: end };
        }
    }
}

pub(super) fn write_reset(stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
    FrameHeader { length: 4, kind: kind::RST_STREAM, flags: 0, stream }.write(out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

pub(super) fn write_window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    FrameHeader { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream }.write(out);
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(super) fn write_ping(payload: u64, is_ack: bool, out: &mut Vec<u8>) {
    let flags = if is_ack { flag::ACK } else { 0 };
    FrameHeader { length: 8, kind: kind::PING, flags, stream: 0 }.write(out);
    out.extend_from_slice(&payload.to_be_bytes());
}

pub(super) fn write_goaway(last_stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
    FrameHeader { length: 8, kind: kind::GOAWAY, flags: 0, stream: 0 }.write(out);
    out.extend_from_slice(&last_stream.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_go_on_over_what_is_written() {
        let mut output = Output::default();
        output.buffer().extend_from_slice(&[1; 100]);
        let position = output.position();
        output.buffer().extend_from_slice(&vec![2; 100_000]);
        output.consume(100);
        assert!(!output.is_written(position));
        output.consume(90_000);
        assert!(output.is_written(position));
        assert_eq!((output.len(), output.position()), (10_000, 100_100));
        output.consume(10_000);
        assert_eq!((output.bytes(), output.position()), (&[][..], 100_100));
        assert!(output.bytes.capacity() <= KEPT, "an empty buffer gives its memory back");
    }

    #[test]
    fn replies_are_forgotten_as_the_peer_reads_even_if_the_buffer_never_empties() {
        let mut output = Output::default();
        for _ in 0..100 {
            write_ping(1, true, output.reply());
            output.buffer().extend_from_slice(&[0; 100]);
            if output.len() > 1000 {
                output.consume(500);
            }
        }
        assert!(output.replies() < 30, "{}", output.replies());
        (0..100).for_each(|_| write_ping(1, true, output.reply()));
        assert!(output.replies() >= 100);
    }

    #[test]
    fn a_block_beyond_the_frame_size_is_split() {
        let mut output = Output::default();
        output.headers(3, true, 10, |out| out.extend_from_slice(&[7; 25]));
        let header = |at: usize| FrameHeader::parse(output.bytes()[at..at + HEADER].try_into().unwrap());
        assert_eq!(header(0), FrameHeader { length: 10, kind: kind::HEADERS, flags: flag::END_STREAM, stream: 3 });
        assert_eq!(header(19), FrameHeader { length: 10, kind: kind::CONTINUATION, flags: 0, stream: 3 });
        assert_eq!(
            header(38),
            FrameHeader { length: 5, kind: kind::CONTINUATION, flags: flag::END_HEADERS, stream: 3 }
        );
        assert_eq!(output.len(), 25 + 3 * HEADER);
    }
}
