//! However bytes are cut, the same comes of them.

use std::collections::BTreeMap;

use evenkeel_relay::{
    connection::{Counters, Role, Settings},
    frame::{ErrorCode, FrameHeader, HEADER, PREFACE, flag, kind},
};

use crate::{
    pair::{REQUEST, RESPONSE, Seen, Side, TRAILERS, fields},
    raw::{Raw, data, frame, goaway, ping, reset, settings, window_update},
};

/// What a connection has come to know.
#[derive(Debug, PartialEq)]
struct Known {
    seen: BTreeMap<u32, Seen>,
    pongs: Vec<u64>,
    leaving: Vec<ErrorCode>,
    broken: Option<ErrorCode>,
    counters: Counters,
}

fn known(side: &Side) -> Known {
    Known {
        seen: side.seen.clone(),
        pongs: side.pongs.clone(),
        leaving: side.leaving.clone(),
        broken: side.broken,
        counters: *side.connection.counters(),
    }
}

/// What comes of these pieces.
fn after<'a>(role: Role, pieces: impl Iterator<Item = &'a [u8]>) -> Known {
    let mut side = Side::new(role, Settings::default());
    if role == Role::Client {
        (0..5).for_each(|tag| assert!(side.connection.open(tag, fields(REQUEST), tag == 0).is_some()));
        side.connection.ping(9);
    }
    pieces.for_each(|piece| side.receive(piece));
    known(&side)
}

fn assert_cuts_do_not_matter(role: Role, bytes: &[u8]) -> Known {
    let whole = after(role, std::iter::once(bytes));
    assert_eq!(after(role, bytes.chunks(1)), whole, "byte by byte");
    for cut in 1..bytes.len() {
        let (start, rest) = bytes.split_at(cut);
        assert_eq!(after(role, [start, rest].into_iter()), whole, "cut at {cut}");
    }
    whole
}

/// Frames of all kinds for streams 1, 3, …, of which the first has a HEADERS frame with all there is.
fn conversation(raw: &mut Raw, head: &[(&str, &str)]) -> Vec<u8> {
    let block = raw.block(head);
    let padded = [&[3, 0x80, 0, 0, 9, 7][..], &block, &[0; 3]].concat();
    let flags = flag::PADDED | flag::PRIORITY | flag::END_HEADERS;
    [
        settings(&[(4, 70_000), (0x99, 1)]),
        frame(kind::SETTINGS, flag::ACK, 0, &[]),
        frame(kind::HEADERS, flags, 1, &padded),
        data(1, b"some payload", false),
        frame(kind::DATA, flag::PADDED, 1, b"\x04more\0\0\0\0"),
        frame(kind::DATA, flag::PADDED, 1, b"\x02\0\0"),
        window_update(1, 100),
        window_update(0, 100),
        frame(0xee, 0xff, 1, b"unknown"),
        frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
        ping(4, false),
        ping(9, true),
        raw.headers(1, TRAILERS, flag::END_STREAM),
        raw.headers(3, head, 0),
        frame(kind::DATA, flag::PADDED | flag::END_STREAM, 3, b"\x03end\0\0\0"),
        {
            let block = raw.block(head);
            let (first, rest) = block.split_at(1);
            let (second, third) = rest.split_at(1);
            [
                frame(kind::HEADERS, flag::END_STREAM, 5, first),
                frame(kind::CONTINUATION, 0, 5, second),
                frame(kind::CONTINUATION, 0, 5, &[]),
                frame(kind::CONTINUATION, flag::END_HEADERS, 5, third),
            ]
            .concat()
        },
        raw.headers(7, head, 0),
        data(7, b"x", false),
        reset(7, ErrorCode::CANCEL),
        raw.headers(9, &[("malformed", " ")], 0),
        goaway(7, ErrorCode::NO_ERROR),
    ]
    .concat()
}

#[test]
fn of_a_clients_bytes() {
    let mut raw = Raw::server();
    let bytes = [PREFACE.to_vec(), conversation(&mut raw, REQUEST)].concat();
    let known = assert_cuts_do_not_matter(Role::Server, &bytes);
    assert_eq!((known.broken, known.seen.len(), known.counters.malformed), (None, 4, 1));
    assert_eq!(known.seen[&1].data, b"some payloadmore");
    assert!(known.seen[&3].ended && known.seen[&5].ended && known.seen[&7].reset.is_some());
}

#[test]
fn of_a_servers_bytes() {
    let mut raw = Raw::server();
    let bytes = conversation(&mut raw, RESPONSE);
    let known = assert_cuts_do_not_matter(Role::Client, &bytes);
    assert_eq!((known.broken, known.pongs, known.counters.malformed), (None, vec![9], 1));
    assert_eq!(known.seen[&3].data, b"end");
    assert_eq!(known.seen[&9].reset, Some((ErrorCode::PROTOCOL_ERROR, false, true)));
}

#[test]
fn of_bytes_that_end_in_an_error() {
    let mut raw = Raw::server();
    let request = raw.headers(1, REQUEST, 0);
    for last in [
        frame(kind::DATA, flag::PADDED, 1, b"\x09abc"),
        frame(kind::DATA, 0, 1, &[0; 16_385]),
        window_update(0, 0),
        frame(kind::GOAWAY, 0, 0, b"short"),
        frame(kind::PUSH_PROMISE, 0, 1, b""),
    ] {
        let end = last.len().min(30);
        let bytes = [PREFACE.to_vec(), settings(&[]), request.clone(), last[..end].to_vec(), ping(1, false)].concat();
        let known = assert_cuts_do_not_matter(Role::Server, &bytes);
        assert!(known.broken.is_some());
    }
}

#[test]
fn a_peer_that_is_lost_amid_a_frame_leaves_streams_open() {
    let mut raw = Raw::server();
    raw.request(1, false);
    let bytes = data(1, b"payload", true);
    raw.say(&bytes[..HEADER + 3]);
    assert_eq!(FrameHeader::parse(bytes.first_chunk().unwrap()).length, 7);
    assert_eq!((raw.side.seen(1).data, raw.side.connection.open_streams()), (b"pay".to_vec(), 1));
    let key = raw.side.key(1);
    raw.side.connection.reset(key, ErrorCode::CANCEL);
    raw.say(&bytes[HEADER + 3..]);
    raw.request(3, true);
    assert!(raw.side.seen(3).ended, "the rest of a frame that nobody wants is passed over");
    assert_eq!(raw.side.seen(1).data, b"pay");
}
