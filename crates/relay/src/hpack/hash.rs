//! The hash by which fields are looked up.

/// An odd number whose bits are mixed well.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of `bytes` that follow upon what `seed` is the hash of; its upper bits are the good ones.
///
/// Anyone can make fields that collide: that may cost compression, and must cost nothing else.
#[inline]
pub(super) const fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = mix(seed, bytes.len() as u64);
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        state = mix(state, u64::from_le_bytes(*word));
        rest = after;
    }
    if rest.is_empty() {
        return state;
    }
    // Words may overlap: the length is in the hash already.
    let last = match (bytes.last_chunk::<8>(), rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(word), ..) => u64::from_le_bytes(*word),
        (None, Some(first), Some(last)) => (u32::from_le_bytes(*first) as u64) << 32 | u32::from_le_bytes(*last) as u64,
        _ => (rest[0] as u64) << 16 | (rest[rest.len() / 2] as u64) << 8 | rest[rest.len() - 1] as u64,
    };
    mix(state, last)
}

const fn mix(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(FACTOR)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let mut seen = HashSet::new();
        for length in 0..40 {
            assert!(seen.insert(hash(0, &vec![0; length])));
            for at in 0..length {
                let mut bytes = vec![0; length];
                bytes[at] = 1;
                assert!(seen.insert(hash(0, &bytes)), "byte {at} of {length}");
            }
        }
        assert_ne!(hash(hash(0, b"ab"), b"c"), hash(hash(0, b"a"), b"bc"));
    }
}
