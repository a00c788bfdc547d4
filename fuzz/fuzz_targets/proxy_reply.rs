//! The answer to CONNECT comes from a proxy: read whole or byte by byte, it is the same, and no more than a head of it.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser is private to its crate, and needs nothing of it.
#[path = "../../crates/transport/src/connect_proxy/reply.rs"]
mod reply;

/// How many bytes were the head's, and what came of them.
fn read(data: &[u8], step: usize) -> (usize, Option<Result<reply::Reply, reply::ReplyError>>) {
    let (mut head, mut taken) = (reply::ReplyHead::default(), 0);
    for chunk in data.chunks(step) {
        match head.take(chunk) {
            Ok((part, None)) => taken += part,
            Ok((part, Some(reply))) => return (taken + part, Some(Ok(reply))),
            Err(error) => return (0, Some(Err(error))),
        }
    }
    (taken, None)
}

fuzz_target!(|data: &[u8]| {
    let whole = read(data, data.len().max(1));
    assert_eq!(whole, read(data, 1));
    assert!(whole.0 <= reply::MAX_HEAD.min(data.len()));
    if let (taken, Some(Ok(reply))) = whole {
        assert!((100..1000).contains(&reply.code) && reply.line.is_ascii());
        assert!(data[..taken].ends_with(b"\n"));
    }
});
