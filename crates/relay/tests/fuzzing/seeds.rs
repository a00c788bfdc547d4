//! Where the fuzz targets begin: scripts that get far, kept in `fuzz/corpus-seeds`.
//!
//! With `EVENKEEL_WRITE_SEEDS` set, the tests here write those files.

use std::path::Path;

use evenkeel_relay::{
    fields::Field,
    hpack::{DEFAULT_TABLE, Encoder},
};

use crate::{
    connection::{self, op},
    relay::{self, op as relay_op},
};

/// A file of the corpus is this script.
fn assert_kept(target: &str, name: &str, script: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus-seeds").join(target);
    if std::env::var_os("EVENKEEL_WRITE_SEEDS").is_some() {
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        std::fs::write(folder.join(name), script).expect("the seed can be written");
    }
    let kept = std::fs::read(folder.join(name)).unwrap_or_default();
    assert_eq!(kept, script, "{target}/{name} is another; EVENKEEL_WRITE_SEEDS=1 writes it anew");
}

/// A server's connection with a whole call: head, payload and end, an answer that is written.
const SERVED: &[&[u8]] = &[
    &[0],
    &[op::HEADERS, 0, 0, 1, 0],
    &[op::DATA, 1, 1, 7, 0, 100],
    &[op::RELEASE, 0, 0, 100],
    &[op::SEND_HEAD, 0, 0],
    &[op::SEND_DATA, 0, 1, 0, 0],
    &[op::SEND_TRAILERS, 0],
    &[op::CONSUME, 255, 255],
    &[op::PING, op::DRAIN, op::WAIT, 8, 0],
];

/// A server's connection whose bytes come one by one, with CONTINUATION, padding, windows and settings.
const PIECES: &[&[u8]] = &[
    &[16, op::CUT, 1],
    &[op::HEADERS, 3, 8, 1, 3],
    &[op::FRAME, 4, 1, 0, 0],
    &[op::FRAME, 0, 8, 1, 6, 3, 9, 9, 0, 0, 0],
    &[op::UPDATE, 1, 10, 0, 0, 0, 0],
    &[op::SETTING, 4, 3, 0, 0, 0, 0],
    &[op::SEND_HEAD, 0, 0],
    &[op::SEND_DATA, 0, 2, 0, 1],
    &[op::WRITABLE, op::CONSUME, 0, 20, op::CONSUME, 255, 255],
    &[op::FRAME, 3, 0, 1, 4, 0, 0, 0, 8],
    &[op::RAW, 4, 0, 0, 9, 1],
    &[op::WAIT, 100, 0],
];

/// A client's connection: two calls, of which the server's GOAWAY leaves one behind.
const CALLED: &[&[u8]] = &[
    &[1, op::OPEN, 1, op::OPEN, 0],
    &[op::CONSUME, 255, 255],
    &[op::HEADERS, 4, 0, 1, 0],
    &[op::HEADERS, 1, 0, 1, 0],
    &[op::DATA, 0, 1, 7, 0, 100],
    &[op::FRAME, 7, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0],
    &[op::HEADERS, 2, 1, 1, 0],
];

/// A server's connection with tight limits, flooded.
const FLOODED: &[&[u8]] = &[
    &[4],
    &[op::HEADERS, 0, 1, 1, 0, op::HEADERS, 0, 1, 3, 0, op::HEADERS, 6, 1, 5, 0],
    &[op::RESET, 0, op::FRAME, 6, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
    &[op::FRAME, 6, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, op::FRAME, 2, 0, 1, 5, 0, 0, 0, 0, 1],
    &[op::HEADERS, 0, 0, 7, 1],
];

/// One call there and back, in both directions with payload.
const ANSWERED: &[&[u8]] = &[
    &[0x10, relay_op::CLIENT, relay_op::RUN],
    &[relay_op::CALL, 0, 0, 0, relay_op::REQUEST, 0, 0, 20, 1, relay_op::RUN],
    &[relay_op::ANSWER, 0, 0, 0, relay_op::RESPONSE, 0, 0, 20, 0, relay_op::TRAILERS, 0, 0, relay_op::RUN],
    &[relay_op::CALL, 0, 1, 1, relay_op::STEP, 7, relay_op::PASS, 9],
    &[relay_op::CALL, 0, 0, 0, relay_op::RUN, relay_op::CANCEL, 0, 0, relay_op::RUN],
];

/// Retries: a refusal, a reset, and a backend that is killed amid a call; byte by byte.
const RETRIED: &[&[u8]] = &[
    &[0x21, relay_op::CLIENT, relay_op::CUT, 2, relay_op::RUN],
    &[relay_op::CALL, 0, 0, 1, relay_op::RUN, relay_op::ANSWER, 0, 1, 1, relay_op::RUN, relay_op::PASS, 10],
    &[relay_op::RESET, 0, 1, relay_op::RUN, relay_op::KILL, 1, relay_op::RUN],
    &[relay_op::CALL, 0, 3, 0, relay_op::DOWN, 0, relay_op::RUN, relay_op::LEAVE, 2, 1, relay_op::RUN],
    &[relay_op::RESOLVE, 3, relay_op::RUN, relay_op::DRAIN, relay_op::PASS, 14],
];

/// Slow readers on both sides with small windows, hedges, and noise from either.
const HELD: &[&[u8]] = &[
    &[0x3e, relay_op::CLIENT, relay_op::RUN, relay_op::HOLD, 0],
    &[relay_op::CALL, 0, 0, 0, relay_op::REQUEST, 0, 4, 0, 2, relay_op::RUN, relay_op::PASS, 9],
    &[relay_op::ANSWER, 0, 0, 0, relay_op::RESPONSE, 0, 4, 0, 2, relay_op::RUN],
    &[relay_op::RELEASE, 1, 0, 4, 0, relay_op::RUN, relay_op::PART, 0, 0, 5],
    &[relay_op::FRAME, 1, 8, 0, 0, 4, 0, 0, 0, 9, relay_op::RAW, 0, 5, 0, 0, 9, 9, 9, relay_op::HANG, 1],
];

#[test]
fn of_connections() {
    let named = [("served", SERVED), ("pieces", PIECES), ("called", CALLED), ("flooded", FLOODED)];
    let [served, pieces, called, flooded] = named.map(|(name, script)| {
        assert_kept("connection", name, &script.concat());
        connection::run(&script.concat())
    });
    assert_eq!((served.heads, served.data, served.broken), (1, 100, false));
    assert_eq!((pieces.heads, pieces.data, pieces.resets, pieces.broken), (1, 2, 1, true));
    assert_eq!((called.heads, called.data, called.trailers, called.resets), (1, 100, 1, 1));
    assert!(flooded.broken && flooded.heads == 2, "{flooded:?}");
}

#[test]
fn of_relays() {
    let named = [("answered", ANSWERED), ("retried", RETRIED), ("held", HELD)];
    let reached = named.map(|(name, script)| {
        assert_kept("relay", name, &script.concat());
        relay::run(&script.concat())
    });
    assert!(reached.iter().all(|reached| reached.arrived > 0 && reached.ended > 0), "{reached:?}");
}

/// The target `hpack` reads limits and then blocks, each behind its length.
#[test]
fn of_hpack() {
    let list = [(":path", "/a.B/C"), ("te", "trailers"), ("x-id", "12345"), ("x-id", "12345")];
    let mut encoder = Encoder::new(DEFAULT_TABLE);
    let mut script = vec![255, 255, 64];
    for count in [1, 2, 4, 4] {
        let mut block = Vec::new();
        encoder.encode(
            list[..count].iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes())),
            &mut block,
        );
        script.push(u8::try_from(block.len()).unwrap());
        script.extend(block);
    }
    assert_kept("hpack", "blocks", &script);
}
