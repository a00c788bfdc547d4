//! The client's half of grpc.health.v1 as plain bytes, for who speaks HTTP/2 itself.
//!
//! No IO: the caller opens the stream, sends [`request`] and gives what arrives to a [`ReplyDecoder`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use evenkeel_balance::Statement;
use evenkeel_proto::health::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use prost::Message;

/// The `:path` of `Check`.
pub const CHECK_PATH: &str = "/grpc.health.v1.Health/Check";

/// The `:path` of `Watch`.
pub const WATCH_PATH: &str = "/grpc.health.v1.Health/Watch";

/// The longest reply, in bytes, that a [`ReplyDecoder`] takes. A reply of the protocol has 2; the rest is room for
/// fields that a later version may add.
pub const MAX_REPLY: usize = 1024;

/// The one message of a `Check` or a `Watch`, in gRPC's framing.
///
/// # Panics
/// When the name has 4 GiB, which gRPC cannot send.
pub fn request(service: &str) -> Bytes {
    let request = HealthCheckRequest { service: service.to_owned() };
    let length = u32::try_from(request.encoded_len()).expect("a service's name has less than 4 GiB");
    let mut framed = BytesMut::with_capacity(PREFIX + request.encoded_len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(&request.encode_to_vec());
    framed.freeze()
}

/// The flag for compression and the length.
const PREFIX: usize = 5;

/// Finds the replies in the body of a `Watch` or a `Check`, however it is cut into chunks.
///
/// It holds one incomplete reply at most, so at most [`MAX_REPLY`] bytes and a prefix.
///
/// ```
/// # use bytes::Bytes;
/// # use evenkeel_balance::Statement;
/// # use evenkeel_checker::codec::{DecodeError, ReplyDecoder};
/// # fn main() -> Result<(), DecodeError> {
/// let mut decoder = ReplyDecoder::default();
/// for mut chunk in [Bytes::from_static(&[0, 0, 0, 0]), Bytes::from_static(&[2, 8, 1])] {
///     while let Some(status) = decoder.decode(&mut chunk)? {
///         assert_eq!(status, Statement::Serving);
///     }
/// }
/// decoder.finish()
/// # }
/// ```
#[derive(Debug, Default)]
pub struct ReplyDecoder {
    /// The beginning of a reply, prefix included.
    partial: BytesMut,
}

/// What is wrong with the body. The stream is of no more use: reset it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The flag for compression is not 0.
    #[error("health reply has compression flag {0}, but no compression was offered: turn it off for health replies")]
    Compressed(u8),
    /// The reply is longer than [`MAX_REPLY`].
    #[error("health reply of {0} bytes, at most {MAX_REPLY} are taken: the peer does not speak grpc.health.v1")]
    TooLong(u32),
    /// The reply is no protobuf message of the right type.
    #[error("health reply cannot be decoded: the peer does not speak grpc.health.v1")]
    Malformed(#[source] prost::DecodeError),
    /// The body ended within a reply.
    #[error("health reply ended after {0} bytes of prefix and message: the connection or the peer failed")]
    Truncated(usize),
}

impl ReplyDecoder {
    /// The next status in `chunk`, which is advanced past it; `None` when all of `chunk` is taken.
    ///
    /// UNKNOWN, and a status that the protocol does not define, are [`Statement::NotServing`]: only SERVING serves.
    ///
    /// # Errors
    /// Any but [`DecodeError::Truncated`]; every later call fails the same.
    pub fn decode(&mut self, chunk: &mut Bytes) -> Result<Option<Statement>, DecodeError> {
        if !self.take_until(PREFIX, chunk) {
            return Ok(None);
        }
        let end = PREFIX + self.length()?;
        if !self.take_until(end, chunk) {
            return Ok(None);
        }
        let reply = HealthCheckResponse::decode(&self.partial[PREFIX..]).map_err(DecodeError::Malformed)?;
        self.partial.clear();
        Ok(Some(statement(reply.status)))
    }

    /// To be called at the end of the body.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when a reply is incomplete.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.partial.is_empty() { Ok(()) } else { Err(DecodeError::Truncated(self.partial.len())) }
    }

    /// Moves bytes over until `partial` has `wanted`; whether it has them.
    fn take_until(&mut self, wanted: usize, chunk: &mut Bytes) -> bool {
        let missing = wanted.saturating_sub(self.partial.len()).min(chunk.len());
        self.partial.put(chunk.take(missing));
        self.partial.len() >= wanted
    }

    /// The message's length, from a complete prefix.
    fn length(&self) -> Result<usize, DecodeError> {
        let mut prefix = &self.partial[..PREFIX];
        match (prefix.get_u8(), prefix.get_u32()) {
            (0, length) => match usize::try_from(length) {
                Ok(bytes) if bytes <= MAX_REPLY => Ok(bytes),
                _ => Err(DecodeError::TooLong(length)),
            },
            (flag, _) => Err(DecodeError::Compressed(flag)),
        }
    }
}

fn statement(number: i32) -> Statement {
    match ServingStatus::try_from(number) {
        Ok(ServingStatus::Serving) => Statement::Serving,
        Ok(ServingStatus::ServiceUnknown) => Statement::ServiceUnknown,
        Ok(ServingStatus::NotServing | ServingStatus::Unknown) | Err(_) => Statement::NotServing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Statement::{NotServing, ServiceUnknown, Serving};

    fn decode_all(chunks: &[&[u8]]) -> Result<Vec<Statement>, DecodeError> {
        let mut decoder = ReplyDecoder::default();
        let mut statuses = Vec::new();
        for chunk in chunks {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(status) = decoder.decode(&mut chunk)? {
                statuses.push(status);
            }
            assert!(chunk.is_empty(), "a chunk is taken whole");
        }
        decoder.finish().map(|()| statuses)
    }

    /// SERVING, UNKNOWN (an empty message), `NOT_SERVING`, `SERVICE_UNKNOWN`, the undefined 9, SERVING with a new field 2.
    const BODY: &[u8] = &[
        0, 0, 0, 0, 2, 8, 1, //
        0, 0, 0, 0, 0, //
        0, 0, 0, 0, 2, 8, 2, //
        0, 0, 0, 0, 2, 8, 3, //
        0, 0, 0, 0, 2, 8, 9, //
        0, 0, 0, 0, 4, 8, 1, 16, 5,
    ];
    const STATUSES: [Statement; 6] = [Serving, NotServing, NotServing, ServiceUnknown, NotServing, Serving];

    #[test]
    fn replies_are_found_however_the_body_is_cut() {
        for first in 0..=BODY.len() {
            for second in first..=BODY.len() {
                let chunks = [&BODY[..first], &BODY[first..second], &BODY[second..]];
                assert_eq!(decode_all(&chunks).unwrap(), STATUSES, "cut at {first} and {second}");
            }
        }
        let bytes: Vec<_> = BODY.chunks(1).collect();
        assert_eq!(decode_all(&bytes).unwrap(), STATUSES);
    }

    #[test]
    fn a_body_that_ends_within_a_reply_is_an_error() {
        for end in 1..7 {
            assert_eq!(decode_all(&[&BODY[..end]]), Err(DecodeError::Truncated(end)));
        }
    }

    #[test]
    fn hostile_lengths_are_refused_before_anything_is_buffered() {
        for length in [u32::MAX, 1 << 31, 1025] {
            let mut decoder = ReplyDecoder::default();
            let mut prefix = vec![0];
            prefix.extend(length.to_be_bytes());
            prefix.extend([0; 4096]);
            let error = decoder.decode(&mut prefix.into()).unwrap_err();
            assert_eq!(error, DecodeError::TooLong(length));
            assert_eq!(decoder.partial.len(), PREFIX);
            assert_eq!(decoder.decode(&mut Bytes::from_static(BODY)), Err(error), "errors stay");
        }
        // The longest that is taken: one unknown field of 1021 bytes.
        let mut longest = vec![0, 0, 0, 4, 0, 0x12, 0xFD, 0x07];
        longest.resize(PREFIX + MAX_REPLY, 0);
        assert_eq!(decode_all(&[&longest]).unwrap(), [NotServing]);
    }

    #[test]
    fn compressed_and_malformed_replies_are_errors() {
        assert_eq!(decode_all(&[&[1, 0, 0, 0, 0]]), Err(DecodeError::Compressed(1)));
        assert!(matches!(decode_all(&[&[0, 0, 0, 0, 1, 8]]), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn a_request_is_a_prefix_and_the_name() {
        assert_eq!(request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B")[..], [0, 0, 0, 0, 5, 10, 3, b'a', b'.', b'B']);
    }
}
