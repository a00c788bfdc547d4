//! Floods are ended, and honest heavy use is not.

use std::time::Duration;

use evenkeel_relay::{
    connection::{Floods, Role, Settings},
    frame::{ErrorCode, flag, kind, setting},
};

use crate::{
    pair::{Pair, REQUEST, RESPONSE, fields},
    raw::{Raw, Verdict, data, frame, ping, reset, settings, window_update},
};

const CALM: Option<ErrorCode> = Some(ErrorCode::ENHANCE_YOUR_CALM);

/// Repeats an attack until it is ended. Returns after how many times, and what it counted as.
fn attack(mut raw: Raw, reads: bool, mut strike: impl FnMut(&mut Raw, u32)) -> (u32, Floods) {
    for n in 0..100_000 {
        strike(&mut raw, n);
        if raw.side.broken.is_some() {
            assert_eq!(raw.side.broken, CALM);
            assert!(raw.side.connection.output().len() < (1 << 20) + 2000, "output is bounded");
            return (n, raw.side.connection.counters().floods);
        }
        if reads {
            raw.hear();
        }
    }
    panic!("the attack is let go on");
}

#[test]
fn rapid_reset() {
    let (times, floods) = attack(Raw::server(), true, |raw, n| {
        raw.request(2 * n + 1, true);
        raw.say(&reset(2 * n + 1, ErrorCode::CANCEL));
    });
    assert_eq!((times, floods.rapid_resets), (400, 1));
}

#[test]
fn rapid_reset_after_a_long_rest() {
    let mut raw = Raw::server();
    raw.side.now += Duration::from_secs(3600);
    let (times, _) = attack(raw, true, |raw, n| {
        raw.request(2 * n + 1, true);
        raw.say(&reset(2 * n + 1, ErrorCode::CANCEL));
    });
    assert!(times < 1000, "{times}");
}

#[test]
fn stream_errors_that_make_us_reset() {
    type Strike = fn(&mut Raw, u32);
    let strikes: [Strike; 5] = [
        |raw, id| raw.say(&window_update(id, 0)),
        |raw, id| raw.say(&window_update(id, u32::MAX >> 1)),
        |raw, id| raw.say(&frame(kind::PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[1]].concat())),
        |raw, id| raw.say(&frame(kind::PRIORITY, 0, id, &[0])),
        |raw, id| raw.say(&data(id, b"after the end", true)),
    ];
    for strike in strikes {
        let (times, floods) = attack(Raw::server(), true, |raw, n| {
            let id = 2 * n + 1;
            raw.request(id, true);
            strike(raw, id);
        });
        assert_eq!((times, floods.glitches), (500, 1));
    }
}

#[test]
fn malformed_heads() {
    let (times, floods) = attack(Raw::server(), false, |raw, n| {
        let bytes = raw.headers(2 * n + 1, &[(":method", "POST")], 0);
        raw.say(&bytes);
    });
    assert_eq!((times, floods.glitches), (500, 1));
}

#[test]
fn streams_beyond_what_is_allowed() {
    let mut ours = Settings::default();
    ours.max_concurrent_streams = 1;
    let (times, floods) = attack(Raw::new(Role::Server, ours), true, |raw, n| raw.request(2 * n + 1, false));
    assert_eq!((times, floods.glitches), (501, 1));
}

#[test]
fn continuations() {
    let mut raw = Raw::server();
    raw.say(&frame(kind::HEADERS, 0, 1, &[]));
    let (times, floods) = attack(raw, true, |raw, _| raw.say(&frame(kind::CONTINUATION, 0, 1, &[0x82])));
    assert_eq!((times, floods.continuations), (16, 1));
    let mut raw = Raw::server();
    raw.say(&frame(kind::HEADERS, 0, 1, &[0; 16_384]));
    let (times, floods) = attack(raw, true, |raw, _| raw.say(&frame(kind::CONTINUATION, 0, 1, &[0; 16_384])));
    assert_eq!((times, floods.continuations), (7, 1), "by size");
}

#[test]
fn header_bombs() {
    let mut raw = Raw::server();
    let value = "x".repeat(3000);
    let block = [raw.block(REQUEST), [&[0x40, 1, b'a', 0x7f, 0xb9, 0x16][..], value.as_bytes()].concat()].concat();
    raw.say(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block));
    assert!(raw.side.seen(1).ended, "{:?}", raw.verdict());
    // One byte refers to the entry of 3 KB.
    raw.say(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 3, &[0xbe; 8000]));
    assert_eq!(raw.side.broken, CALM);
    assert_eq!(raw.side.connection.counters().floods.header_bombs, 1);
}

#[test]
fn lists_of_too_many_fields_wait_for_an_answer() {
    let mut raw = Raw::server();
    let list = [REQUEST, &[("cookie", "a"); 300]].concat();
    let bytes = raw.headers(1, &list, flag::END_STREAM);
    raw.say(&bytes);
    assert_eq!(raw.side.seen(1).head.unwrap().len(), 256);
    assert_eq!(raw.side.connection.counters().header_lists_too_large, 1);
    let key = raw.side.key(1);
    raw.side.connection.send_head(key, fields(&[(":status", "431")]), true);
    assert_eq!((raw.verdict(), raw.side.connection.open_streams()), (Verdict::Fine, 0));
}

#[test]
fn data_with_next_to_nothing_in_it() {
    for bytes in [
        data(1, b"", false),
        data(1, b"x", false),
        frame(kind::DATA, flag::PADDED, 1, &[200; 201]),
        frame(kind::DATA, flag::PADDED, 1, &[1, b'x', 0]),
    ] {
        let mut raw = Raw::server();
        raw.request(1, false);
        let (times, floods) = attack(raw, true, |raw, _| raw.say(&bytes));
        assert_eq!((times, floods.empty_data), (1000, 1), "{bytes:?}");
    }
}

#[test]
fn pings_and_settings() {
    for bytes in [ping(1, false), settings(&[]), settings(&[(setting::INITIAL_WINDOW_SIZE, 9); 100]), ping(1, true)] {
        for reads in [true, false] {
            let (times, floods) = attack(Raw::server(), reads, |raw, _| raw.say(&bytes));
            assert!((990..=1001).contains(&times) && floods.pings + floods.unread == 1, "{times} {floods:?}");
        }
    }
}

#[test]
fn replies_that_are_never_read() {
    // Work that gives pings back.
    let mut raw = Raw::server();
    raw.request(1, false);
    let (times, floods) = attack(raw, false, |raw, _| {
        raw.say(&data(1, b"12345", false));
        raw.say(&ping(1, false));
    });
    assert_eq!((times, floods.unread), (1000, 1));
}

#[test]
fn heads_that_are_never_read() {
    let (_, floods) = attack(Raw::server(), false, |raw, n| {
        raw.request(2 * n + 1, true);
        if raw.side.broken.is_some() {
            return;
        }
        let key = raw.side.key(2 * n + 1);
        raw.side.connection.send_head(
            key,
            fields(&[(":status", "415"), ("x", &"x".repeat(900 + n as usize % 99))]),
            true,
        );
    });
    assert_eq!(floods.unread, 1);
}

#[test]
fn priorities_window_updates_and_unknown_frames() {
    for bytes in
        [frame(kind::PRIORITY, 0, 9, &[0, 0, 0, 1, 1]), window_update(0, 1), frame(77, 0, 0, b""), window_update(1, 1)]
    {
        let mut raw = Raw::server();
        raw.request(1, true);
        let (times, floods) = attack(raw, true, |raw, _| raw.say(&bytes));
        assert_eq!((times, floods.updates), (4000, 1));
    }
}

#[test]
fn the_encoders_table_is_capped() {
    let mut raw = Raw::server();
    raw.say(&settings(&[(setting::HEADER_TABLE_SIZE, u32::MAX)]));
    raw.hear();
    for n in 0..1000 {
        let id = 2 * n + 1;
        raw.request(id, true);
        let key = raw.side.key(id);
        let value = format!("{n:0>200}");
        raw.side.connection.send_head(key, fields(&[(":status", "200"), ("x", &value)]), true);
        let (header, block) = raw.hear().remove(0);
        assert_eq!(header.stream, id);
        assert!(block[0] >> 5 != 1, "no larger table is announced");
    }
}

#[test]
fn honest_many_window_updates() {
    let mut raw = Raw::server();
    for id in (1..200).step_by(2) {
        raw.request(id, false);
        raw.say(&window_update(id, 4 << 20));
        let key = raw.side.key(id);
        raw.side.connection.send_head(key, fields(RESPONSE), false);
    }
    for n in 0..20_000_u32 {
        let id = n % 100 * 2 + 1;
        let key = raw.side.key(id);
        assert_eq!(raw.side.connection.send_data(key, &[0; 1000], false), 1000);
        raw.say(
            &[window_update(id, 500), window_update(id, 500), window_update(0, 500), window_update(0, 500)].concat(),
        );
        raw.hear();
    }
    assert_eq!(raw.side.broken, None);
}

#[test]
fn honest_streams_of_tiny_messages() {
    let mut raw = Raw::server();
    raw.request(1, false);
    let key = raw.side.key(1);
    raw.side.connection.send_head(key, fields(RESPONSE), false);
    for n in 0..200_000_u64 {
        raw.say(&data(1, &[0; 5], false));
        if n % 2 == 0 {
            raw.say(&data(1, &[0], false));
        }
        assert_eq!(raw.side.connection.send_data(key, &[0; 5], false), 5);
        if n % 3 == 0 {
            raw.say(&ping(n, false));
        }
        if n % 1000 == 0 {
            raw.say(&[window_update(0, 5000), window_update(1, 5000)].concat());
        }
        raw.hear();
    }
    assert_eq!((raw.side.broken, raw.side.seen(1).data.len()), (None, 1_100_000));
}

#[test]
fn honest_keepalive() {
    let mut raw = Raw::server();
    for n in 0..100_000 {
        raw.side.now += Duration::from_secs(1);
        raw.say(&ping(n, false));
        raw.hear();
    }
    assert_eq!(raw.side.broken, None);
}

#[test]
fn honest_cancellations_of_every_second_call() {
    let mut pair = Pair::new();
    for n in 0..10_000 {
        let id = pair.open(true);
        if n % 2 == 0 {
            let key = pair.client.key(id);
            pair.client.connection.reset(key, ErrorCode::CANCEL);
            pair.run();
        } else {
            pair.respond(id, true);
        }
    }
    pair.assert_no_stream();
    assert_eq!((pair.server.broken, pair.client.broken), (None, None));
}

#[test]
fn honest_deadlines_while_nothing_answers() {
    let mut raw = Raw::server();
    for round in 0..200_u32 {
        let ids = || (0..100).map(|n| (round * 100 + n) * 2 + 1);
        ids().for_each(|id| raw.request(id, true));
        raw.side.now += Duration::from_millis(100);
        ids().for_each(|id| raw.say(&reset(id, ErrorCode::CANCEL)));
    }
    assert_eq!((raw.side.broken, raw.side.connection.open_streams()), (None, 0));
}

#[test]
fn honest_cancellations_that_cross_the_answer() {
    // As a proxy's client it is we who cancel, and the answers that were under way do not count against the server.
    let mut raw = Raw::client();
    for n in 0..10_000 {
        let id = 2 * n + 1;
        let key = raw.side.key(id);
        raw.side.connection.reset(key, ErrorCode::CANCEL);
        raw.response(id, false);
        raw.say(&data(id, b"12345", true));
        raw.say(&reset(id, ErrorCode::NO_ERROR));
        assert_eq!(raw.open(), id + 2);
    }
    assert_eq!((raw.side.broken, raw.side.connection.counters().glitches), (None, 0));
}
