//! gRPC's framing of messages: a byte that says whether a message is compressed, four with its length, the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Flag and length.
const PREFIX: usize = 5;

/// `message`, framed and not compressed.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("our own requests are short");
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(message);
    framed.freeze()
}

/// Puts messages together from the pieces that a stream brings. It holds one incomplete message at most.
#[derive(Debug)]
pub(crate) struct Messages {
    limit: usize,
    partial: BytesMut,
}

/// What is wrong with a stream of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("a message has compression flag {0}, but no compression was offered")]
    Compressed(u8),
    #[error("a message of {length} bytes, more than the {limit} allowed")]
    TooLong { length: u32, limit: usize },
}

impl Messages {
    /// Messages longer than `limit` bytes are refused.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, partial: BytesMut::new() }
    }

    /// The next whole message in `data`, which is advanced past it; `None` once all of `data` is taken.
    pub(crate) fn next(&mut self, data: &mut Bytes) -> Result<Option<Bytes>, FramingError> {
        if !self.take_until(PREFIX, data) {
            return Ok(None);
        }
        let end = PREFIX + self.length()?;
        if !self.take_until(end, data) {
            return Ok(None);
        }
        let mut message = self.partial.split().freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }

    fn take_until(&mut self, wanted: usize, data: &mut Bytes) -> bool {
        let missing = wanted.saturating_sub(self.partial.len()).min(data.len());
        self.partial.put(data.take(missing));
        self.partial.len() >= wanted
    }

    fn length(&self) -> Result<usize, FramingError> {
        let mut prefix = &self.partial[..PREFIX];
        match (prefix.get_u8(), prefix.get_u32()) {
            (0, length) => match usize::try_from(length) {
                Ok(bytes) if bytes <= self.limit => Ok(bytes),
                _ => Err(FramingError::TooLong { length, limit: self.limit }),
            },
            (flag, _) => Err(FramingError::Compressed(flag)),
        }
    }
}

/// Follows the messages of one direction of a call as they pass: how many bytes they have, and whether one has too
/// many. It keeps none.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    limit: Option<u64>,
    bytes: u64,
    /// Of the message that is passing.
    left: u64,
    prefix: [u8; PREFIX],
    filled: usize,
}

/// A message is longer than its method allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {length} bytes is longer than the {limit} that the service config allows")]
pub(crate) struct TooLong {
    length: u64,
    limit: u64,
}

impl Meter {
    /// Messages longer than `limit` bytes are refused.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, bytes: 0, left: 0, prefix: [0; PREFIX], filled: 0 }
    }

    /// Bytes of messages so far, without their framing.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes in the next bytes of the stream.
    pub(crate) fn pass(&mut self, mut data: &[u8]) -> Result<(), TooLong> {
        while !data.is_empty() {
            if self.left == 0 {
                let (part, rest) = data.split_at(data.len().min(PREFIX - self.filled));
                self.prefix[self.filled..self.filled + part.len()].copy_from_slice(part);
                self.filled += part.len();
                data = rest;
                if self.filled == PREFIX {
                    self.begin()?;
                }
                continue;
            }
            let part = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= part as u64;
            self.bytes += part as u64;
            data = &data[part..];
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), TooLong> {
        let [_, a, b, c, d] = self.prefix;
        let length = u64::from(u32::from_be_bytes([a, b, c, d]));
        (self.filled, self.left) = (0, length);
        match self.limit {
            Some(limit) if length > limit => Err(TooLong { length, limit }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_put_together_however_they_are_cut() {
        let whole = [&frame(b"one")[..], &frame(b""), &frame(&[7; 300])].concat();
        for step in 1..whole.len() {
            let mut messages = Messages::new(300);
            let mut found = Vec::new();
            for piece in whole.chunks(step) {
                let mut piece = Bytes::copy_from_slice(piece);
                while let Some(message) = messages.next(&mut piece).unwrap() {
                    found.push(message);
                }
                assert!(piece.is_empty());
            }
            assert_eq!(found, [&b"one"[..], b"", &[7; 300]], "in steps of {step}");
        }
    }

    #[test]
    fn a_meter_counts_messages_and_sees_the_first_that_is_too_long() {
        let whole = [&frame(b"one")[..], &frame(b""), &frame(&[7; 300])].concat();
        for step in 1..whole.len() {
            let mut meter = Meter::new(Some(300));
            assert!(whole.chunks(step).all(|piece| meter.pass(piece).is_ok()));
            assert_eq!(meter.bytes(), 303, "in steps of {step}");
            let mut strict = Meter::new(Some(299));
            let refused = whole.chunks(step).find_map(|piece| strict.pass(piece).err());
            assert_eq!(refused, Some(TooLong { length: 300, limit: 299 }));
        }
    }

    #[test]
    fn what_is_too_long_or_compressed_is_refused_by_its_prefix() {
        let next = |bytes: &'static [u8]| Messages::new(4).next(&mut Bytes::from_static(bytes));
        assert_eq!(next(&[0, 0, 0, 0, 5]), Err(FramingError::TooLong { length: 5, limit: 4 }));
        assert_eq!(next(&[1, 0, 0, 0, 1]), Err(FramingError::Compressed(1)));
    }
}
