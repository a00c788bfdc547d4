//! XXH64, the hash by which gRPC places endpoints and calls on a ring (gRFC A42), as its published specification has
//! it. Not for secrets: who can choose keys can make them collide.

const PRIMES: [u64; 5] =
    [0x9E37_79B1_85EB_CA87, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x85EB_CA77_C2B2_AE63, 0x27D4_EB2F_1656_67C5];

/// How many bytes are taken in at once: eight for each lane.
const STRIPE: usize = 32;

/// The hash of `bytes`.
pub(crate) fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let mut hasher = Xxh64::new(seed);
    hasher.write(bytes);
    hasher.finish()
}

/// The hash of bytes that come in pieces: how they are cut makes no difference.
#[derive(Clone, Debug)]
pub(crate) struct Xxh64 {
    seed: u64,
    lanes: [u64; 4],
    length: u64,
    /// Bytes that do not fill a stripe yet.
    rest: [u8; STRIPE],
    rest_len: usize,
}

impl Xxh64 {
    pub(crate) fn new(seed: u64) -> Self {
        let [one, two, ..] = PRIMES;
        let lanes = [seed.wrapping_add(one).wrapping_add(two), seed.wrapping_add(two), seed, seed.wrapping_sub(one)];
        Self { seed, lanes, length: 0, rest: [0; STRIPE], rest_len: 0 }
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.rest_len > 0 {
            let (head, tail) = bytes.split_at(bytes.len().min(STRIPE - self.rest_len));
            self.keep(head);
            bytes = tail;
            if self.rest_len < STRIPE {
                return;
            }
            let stripe = self.rest;
            self.take_in(&stripe);
            self.rest_len = 0;
        }
        let (stripes, tail) = bytes.as_chunks();
        for stripe in stripes {
            self.take_in(stripe);
        }
        self.keep(tail);
    }

    /// Whether nothing has been written.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.rest[self.rest_len..][..bytes.len()].copy_from_slice(bytes);
        self.rest_len += bytes.len();
    }

    fn take_in(&mut self, stripe: &[u8; STRIPE]) {
        let (words, _) = stripe.as_chunks();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }

    pub(crate) fn finish(&self) -> u64 {
        let [one, two, three, four, five] = PRIMES;
        let mut hash = if self.length < STRIPE as u64 { self.seed.wrapping_add(five) } else { self.merged() };
        hash = hash.wrapping_add(self.length);
        let (words, rest) = self.rest[..self.rest_len].as_chunks();
        for word in words {
            hash ^= round(0, u64::from_le_bytes(*word));
            hash = hash.rotate_left(27).wrapping_mul(one).wrapping_add(four);
        }
        let (halves, rest) = rest.as_chunks();
        for half in halves {
            hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(one);
            hash = hash.rotate_left(23).wrapping_mul(two).wrapping_add(three);
        }
        for &byte in rest {
            hash ^= u64::from(byte).wrapping_mul(five);
            hash = hash.rotate_left(11).wrapping_mul(one);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(two);
        hash = (hash ^ (hash >> 29)).wrapping_mul(three);
        hash ^ (hash >> 32)
    }

    /// The four lanes in one.
    fn merged(&self) -> u64 {
        let rotated = self.lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
        let sum = rotated.fold(0, u64::wrapping_add);
        self.lanes
            .iter()
            .fold(sum, |hash, &lane| (hash ^ round(0, lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]))
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// The bytes over which the reference implementation checks itself.
    fn sanity_bytes(n: usize) -> Vec<u8> {
        let states = std::iter::successors(Some(2_654_435_761_u64), |state| {
            Some(state.wrapping_mul(11_400_714_785_074_694_797))
        });
        states.take(n).map(|state| state.to_be_bytes()[0]).collect()
    }

    #[test]
    fn agrees_with_the_reference_implementations_sanity_checks() {
        let seed = 2_654_435_761;
        let vectors = [
            (0, 0, 0xEF46_DB37_51D8_E999),
            (0, seed, 0xAC75_FDA2_929B_17EF),
            (1, 0, 0xE934_A84A_DB05_2768),
            (1, seed, 0x5014_6076_43A9_B4C3),
            (4, 0, 0x9136_A0DC_A574_57EE),
            (14, 0, 0x8282_DCC4_994E_35C8),
            (14, seed, 0xC3BD_6BF6_3DEB_6DF0),
            (222, 0, 0xB641_AE8C_B691_C174),
            (222, seed, 0x20CB_8AB7_AE10_C14A),
        ];
        for (length, seed, hash) in vectors {
            assert_eq!(xxh64(&sanity_bytes(length), seed), hash, "{length} bytes, seed {seed}");
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(pieces in vec(vec(any::<u8>(), 0..80), 0..6), seed: u64) {
            let mut hasher = Xxh64::new(seed);
            for piece in &pieces {
                hasher.write(piece);
            }
            prop_assert_eq!(hasher.finish(), xxh64(&pieces.concat(), seed));
        }
    }
}
