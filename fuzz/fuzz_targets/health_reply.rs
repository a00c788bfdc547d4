//! A health Watch's replies come from a peer: decoded whole or byte by byte, they are the same.
#![no_main]

use bytes::Bytes;
use evenkeel_checker::codec::ReplyDecoder;
use libfuzzer_sys::fuzz_target;

fn decode(data: &[u8], step: usize) -> (Vec<i32>, bool) {
    let (mut decoder, mut statuses) = (ReplyDecoder::default(), Vec::new());
    for chunk in data.chunks(step) {
        let mut chunk = Bytes::copy_from_slice(chunk);
        loop {
            match decoder.decode(&mut chunk) {
                Ok(Some(status)) => statuses.push(status as i32),
                Ok(None) => break,
                Err(_) => return (statuses, false),
            }
        }
    }
    (statuses, true)
}

fuzz_target!(|data: &[u8]| {
    assert_eq!(decode(data, data.len().max(1)), decode(data, 1));
});
