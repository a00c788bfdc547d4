/// Follows the messages in a stream's payload, each behind a prefix of a flag and its length, without keeping any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths {
    prefix: [u8; PREFIX],
    /// How much of the prefix has come.
    have: u8,
    /// What is still to come of the message.
    left: u32,
    payload: u64,
}

const PREFIX: usize = 5;

/// A message that is longer than is allowed, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {length} bytes; at most {limit} are let through")]
pub struct TooLong {
    /// What its prefix says.
    pub length: u32,
    /// What is allowed.
    pub limit: u32,
}

impl Lengths {
    /// Follows `data`, of whose messages none may be longer than `limit` bytes.
    pub fn follow(&mut self, mut data: &[u8], limit: u32) -> Result<(), TooLong> {
        while !data.is_empty() {
            if self.left > 0 {
                let taken = data.len().min(self.left as usize);
                // Fits: it is at most `left`.
                self.left -= u32::try_from(taken).unwrap_or(self.left);
                self.payload += taken as u64;
                data = &data[taken..];
                continue;
            }
            let have = usize::from(self.have);
            let taken = data.len().min(PREFIX - have);
            self.prefix[have..have + taken].copy_from_slice(&data[..taken]);
            self.have += u8::try_from(taken).unwrap_or(0);
            data = &data[taken..];
            if usize::from(self.have) == PREFIX {
                self.begin(limit)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, limit: u32) -> Result<(), TooLong> {
        let [_, length @ ..] = self.prefix;
        let length = u32::from_be_bytes(length);
        if length > limit {
            return Err(TooLong { length, limit });
        }
        (self.have, self.left) = (0, length);
        Ok(())
    }

    /// Whether what has come ends with a message.
    pub fn is_whole(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// Bytes of messages that have come, without their prefixes.
    pub fn payload(&self) -> u64 {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let stream = [&[0, 0, 0, 0, 3][..], b"abc", &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1], b"x"].concat();
        for size in 1..=stream.len() {
            let mut lengths = Lengths::default();
            for part in stream.chunks(size) {
                assert_eq!(lengths.follow(part, 3), Ok(()));
            }
            assert!(lengths.is_whole());
            assert_eq!(lengths.payload(), 4, "in pieces of {size}");
        }
    }

    #[test]
    fn a_message_beyond_the_limit_is_seen_by_its_prefix() {
        let mut lengths = Lengths::default();
        let too_long = TooLong { length: u32::MAX, limit: 1_000 };
        assert_eq!(lengths.follow(&[0, 0xFF, 0xFF, 0xFF, 0xFF], 1_000), Err(too_long));
    }
}
