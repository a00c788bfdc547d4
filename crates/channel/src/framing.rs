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
    fn what_is_too_long_or_compressed_is_refused_by_its_prefix() {
        let next = |bytes: &'static [u8]| Messages::new(4).next(&mut Bytes::from_static(bytes));
        assert_eq!(next(&[0, 0, 0, 0, 5]), Err(FramingError::TooLong { length: 5, limit: 4 }));
        assert_eq!(next(&[1, 0, 0, 0, 1]), Err(FramingError::Compressed(1)));
    }
}
