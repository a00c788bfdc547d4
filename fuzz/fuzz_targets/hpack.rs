//! Header blocks come from peers: any sequence of them is decoded within the limits, and what comes of it survives
//! being encoded and decoded again.
#![no_main]

use evenkeel_relay::fields::{Field, Fields};
use evenkeel_relay::hpack::{DEFAULT_TABLE, Decoder, Encoder, Error, ListLimits, Listing};
use libfuzzer_sys::fuzz_target;

/// More than any block of a fuzzer's size can hold, tables included.
const NO_LIMITS: ListLimits = ListLimits { size: usize::MAX, count: usize::MAX };

/// Splits off a block, whose length is the first byte.
fn block<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&length, rest) = data.split_first()?;
    let (block, rest) = rest.split_at(rest.len().min(length.into()));
    *data = rest;
    Some(block)
}

fn equal<'a>(one: impl ExactSizeIterator<Item = Field<'a>>, other: &'a Fields) -> bool {
    one.len() == other.len() && one.eq(other.iter())
}

fuzz_target!(|data: &[u8]| {
    let Some(([size, count, table], mut rest)) = data.split_first_chunk::<3>() else { return };
    let limits = ListLimits { size: usize::from(*size) * 8, count: usize::from(*count) };
    let max_table = usize::from(*table) * 64;
    let [mut limited, mut free] = [0; 2].map(|_| Decoder::new(max_table));
    let (mut encoder, mut again) = (Encoder::new(DEFAULT_TABLE), Decoder::new(DEFAULT_TABLE));
    let [mut kept, mut whole, mut back] = [const { Fields::new() }; 3];
    while let Some(block) = block(&mut rest) {
        let listing = limited.decode(block, &limits, &mut kept);
        let unlimited = free.decode(block, &NO_LIMITS, &mut whole);
        match listing {
            Ok(listing) => {
                assert_eq!(unlimited, Ok(Listing::Whole));
                assert!(kept.size() <= limits.size && kept.len() <= limits.count);
                assert!(equal(whole.iter().take(kept.len()), &kept));
                assert_eq!(listing == Listing::Whole, kept.len() == whole.len());
            }
            Err(Error::Bomb) => return,
            Err(malformed) => return assert_eq!(unlimited, Err(malformed)),
        }
        if let Some(limit) = block.first() {
            encoder.set_peer_limit(u32::from(*limit) * 16);
        }
        let mut encoded = Vec::new();
        encoder.encode(whole.iter(), &mut encoded);
        assert_eq!(again.decode(&encoded, &NO_LIMITS, &mut back), Ok(Listing::Whole));
        assert!(equal(whole.iter(), &back));
    }
});
