//! Each error that RFC 9113 names, with its code.

use std::time::Duration;

use evenkeel_relay::{
    connection::{Role, Settings},
    frame::{ErrorCode, PREFACE, flag, kind, setting},
};

use crate::{
    pair::REQUEST,
    raw::{Raw, Verdict, data, frame, goaway, ping, reset, settings, window_update},
};

const PROTOCOL: Verdict = Verdict::Connection(ErrorCode::PROTOCOL_ERROR);
const SIZE: Verdict = Verdict::Connection(ErrorCode::FRAME_SIZE_ERROR);
const FLOW: Verdict = Verdict::Connection(ErrorCode::FLOW_CONTROL_ERROR);
const CLOSED: Verdict = Verdict::Connection(ErrorCode::STREAM_CLOSED);

const fn of_stream(code: ErrorCode) -> Verdict {
    Verdict::Stream(1, code)
}

/// What a fresh server's connection makes of frames.
fn server_says(bytes: &[u8]) -> Verdict {
    let mut raw = Raw::server();
    raw.say(bytes);
    raw.verdict()
}

/// What a server's connection makes of frames behind a request that goes on.
fn server_amid_request_says(bytes: &[u8]) -> Verdict {
    let mut raw = Raw::server();
    raw.request(1, false);
    raw.say(bytes);
    raw.verdict()
}

/// What a client's connection makes of frames while its first request is not answered.
fn client_says(bytes: &[u8]) -> Verdict {
    let mut raw = Raw::client();
    raw.say(bytes);
    raw.verdict()
}

#[test]
fn the_preface_comes_first_and_then_settings() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &ping(1, false)] {
        let mut raw = Raw::silent(Role::Server, Settings::default());
        raw.say(bytes);
        assert_eq!(raw.verdict(), PROTOCOL);
    }
    for first in [ping(1, false), frame(kind::SETTINGS, flag::ACK, 0, &[]), data(1, b"", true), frame(99, 0, 0, b"x")] {
        let mut raw = Raw::silent(Role::Server, Settings::default());
        raw.say(PREFACE);
        raw.say(&first);
        assert_eq!(raw.verdict(), PROTOCOL);
        let mut raw = Raw::silent(Role::Client, Settings::default());
        raw.say(&first);
        assert_eq!(raw.verdict(), PROTOCOL);
    }
}

#[test]
fn frames_have_the_sizes_that_they_must() {
    for (bytes, verdict) in [
        (frame(kind::PING, 0, 0, &[0; 7]), SIZE),
        (frame(kind::PING, flag::ACK, 0, &[0; 9]), SIZE),
        (frame(kind::SETTINGS, 0, 0, &[0; 5]), SIZE),
        (frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]), SIZE),
        (frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]), SIZE),
        (frame(kind::WINDOW_UPDATE, 0, 1, &[0; 5]), SIZE),
        (frame(kind::RST_STREAM, 0, 1, &[0; 3]), SIZE),
        (frame(kind::GOAWAY, 0, 0, &[0; 7]), SIZE),
        (frame(kind::PRIORITY, 0, 1, &[0; 4]), of_stream(ErrorCode::FRAME_SIZE_ERROR)),
        (frame(kind::PRIORITY, 0, 3, &[0; 4]), SIZE),
        (frame(kind::DATA, 0, 1, &[0; 16_385]), SIZE),
        (frame(kind::HEADERS, flag::END_HEADERS, 3, &[0; 16_385]), SIZE),
        (frame(99, 0, 0, &[0; 16_385]), SIZE),
        (frame(99, 0, 0, &[0; 16_384]), Verdict::Fine),
        (frame(kind::DATA, flag::PADDED, 1, &[]), SIZE),
        (frame(kind::HEADERS, flag::PADDED | flag::END_HEADERS, 3, &[]), SIZE),
        (frame(kind::HEADERS, flag::PRIORITY | flag::END_HEADERS, 3, &[0; 4]), SIZE),
    ] {
        assert_eq!(server_amid_request_says(&bytes), verdict, "{:?}", &bytes[..9]);
    }
}

#[test]
fn frames_are_on_streams_or_on_none_as_they_must() {
    for bytes in [
        frame(kind::DATA, 0, 0, b"x"),
        frame(kind::HEADERS, flag::END_HEADERS, 0, &[]),
        frame(kind::PRIORITY, 0, 0, &[0; 5]),
        frame(kind::RST_STREAM, 0, 0, &[0; 4]),
        frame(kind::SETTINGS, 0, 1, &[]),
        frame(kind::PING, 0, 1, &[0; 8]),
        frame(kind::GOAWAY, 0, 1, &[0; 8]),
        frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0, 0, 0, 2]),
    ] {
        assert_eq!(server_amid_request_says(&bytes), PROTOCOL, "{bytes:?}");
        assert_eq!(client_says(&bytes), PROTOCOL, "{bytes:?}");
    }
}

#[test]
fn idle_streams_get_no_frames_but_heads() {
    for bytes in [data(5, b"x", false), reset(5, ErrorCode::CANCEL), window_update(5, 1), data(2, b"x", false)] {
        assert_eq!(server_amid_request_says(&bytes), PROTOCOL);
        assert_eq!(client_says(&bytes), PROTOCOL);
    }
    let priority = frame(kind::PRIORITY, 0, 5, &[0, 0, 0, 1, 9]);
    assert_eq!(server_says(&priority), Verdict::Fine);
    let mut raw = Raw::client();
    raw.response(3, true);
    assert_eq!(raw.verdict(), PROTOCOL, "a response to no request");
    let mut raw = Raw::server();
    raw.request(2, true);
    assert_eq!(raw.verdict(), PROTOCOL, "an even id");
    let mut raw = Raw::server();
    raw.request(5, true);
    raw.request(3, true);
    assert_eq!(raw.verdict(), PROTOCOL, "a lower id");
}

#[test]
fn padding_does_not_exceed_the_payload() {
    assert_eq!(server_amid_request_says(&frame(kind::DATA, flag::PADDED, 1, &[3, 0, 0])), PROTOCOL);
    assert_eq!(server_amid_request_says(&frame(kind::DATA, flag::PADDED, 1, &[2, 0, 0])), Verdict::Fine);
    let headers = frame(kind::HEADERS, flag::PADDED | flag::END_HEADERS, 3, &[3, 0, 0]);
    assert_eq!(server_says(&headers), PROTOCOL);
}

#[test]
fn settings_have_values_that_they_may_have() {
    for (id, value, verdict) in [
        (setting::ENABLE_PUSH, 2, PROTOCOL),
        (setting::INITIAL_WINDOW_SIZE, 1 << 31, FLOW),
        (setting::MAX_FRAME_SIZE, 16_383, PROTOCOL),
        (setting::MAX_FRAME_SIZE, 1 << 24, PROTOCOL),
        (setting::MAX_FRAME_SIZE, (1 << 24) - 1, Verdict::Fine),
        (setting::HEADER_TABLE_SIZE, u32::MAX, Verdict::Fine),
        (0x77, 1, Verdict::Fine),
    ] {
        assert_eq!(server_says(&settings(&[(id, value)])), verdict, "{id}: {value}");
        assert_eq!(client_says(&settings(&[(id, value)])), verdict, "{id}: {value}");
    }
    let push = settings(&[(setting::ENABLE_PUSH, 1)]);
    assert_eq!((server_says(&push), client_says(&push)), (Verdict::Fine, PROTOCOL));
}

#[test]
fn windows_grow_by_something_and_not_too_far() {
    for (bytes, verdict) in [
        (window_update(0, 0), PROTOCOL),
        (window_update(1, 0), of_stream(ErrorCode::PROTOCOL_ERROR)),
        (window_update(0, (1 << 31) - 65_535), FLOW),
        (window_update(0, (1 << 31) - 65_536), Verdict::Fine),
        (window_update(1, (1 << 31) - 65_535), of_stream(ErrorCode::FLOW_CONTROL_ERROR)),
    ] {
        assert_eq!(server_amid_request_says(&bytes), verdict);
    }
    let beyond = [window_update(1, (1 << 31) - 65_536), settings(&[(setting::INITIAL_WINDOW_SIZE, 65_536)])];
    assert_eq!(server_amid_request_says(&beyond.concat()), FLOW, "SETTINGS make it too large");
}

#[test]
fn no_more_comes_than_windows_allow() {
    let mut raw = Raw::server();
    raw.side.releases = false;
    raw.request(1, false);
    for _ in 0..3 {
        raw.say(&data(1, &[0; 16_384], false));
    }
    raw.say(&data(1, &[0; 16_383], false));
    assert_eq!(raw.verdict(), Verdict::Fine);
    raw.say(&data(1, b"x", false));
    assert_eq!(raw.verdict(), of_stream(ErrorCode::FLOW_CONTROL_ERROR));
    assert_eq!(raw.side.seen(1).reset, Some((ErrorCode::FLOW_CONTROL_ERROR, false, true)));
}

#[test]
fn header_blocks_are_not_interrupted() {
    let mut raw = Raw::server();
    let block = raw.block(REQUEST);
    let start = frame(kind::HEADERS, 0, 1, &block[..3]);
    for bytes in [
        ping(1, false),
        data(1, b"", false),
        frame(99, 0, 0, b""),
        frame(kind::CONTINUATION, 0, 3, &block[3..]),
        frame(kind::HEADERS, 0, 1, &block[3..]),
    ] {
        let mut raw = Raw::server();
        raw.say(&start);
        raw.say(&bytes);
        assert_eq!(raw.verdict(), PROTOCOL);
    }
    let rest = frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block[3..]);
    assert_eq!(server_says(&[start, rest.clone()].concat()), Verdict::Fine);
    assert_eq!(server_amid_request_says(&rest), PROTOCOL, "a CONTINUATION of nothing");
}

#[test]
fn header_blocks_are_hpack() {
    let bytes = frame(kind::HEADERS, flag::END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(server_says(&bytes), Verdict::Connection(ErrorCode::COMPRESSION_ERROR));
}

#[test]
fn malformed_requests_are_reset_and_never_heard_of() {
    let mut raw = Raw::server();
    let bytes = raw.headers(1, &[(":method", "POST"), (":path", "/a/b")], flag::END_STREAM);
    raw.say(&bytes);
    assert_eq!(raw.verdict(), of_stream(ErrorCode::PROTOCOL_ERROR));
    assert!(raw.side.seen.is_empty());
    assert_eq!((raw.side.connection.counters().malformed, raw.side.connection.open_streams()), (1, 0));
    raw.request(3, true);
    assert!(raw.side.seen(3).ended, "the connection goes on");
}

#[test]
fn malformed_trailers_and_responses_reset_the_stream() {
    let mut raw = Raw::server();
    raw.request(1, false);
    let bytes = raw.headers(1, &[(":path", "/")], flag::END_STREAM);
    raw.say(&bytes);
    assert_eq!(raw.verdict(), of_stream(ErrorCode::PROTOCOL_ERROR));
    assert_eq!(raw.side.seen(1).reset, Some((ErrorCode::PROTOCOL_ERROR, false, true)));
    let mut raw = Raw::server();
    raw.request(1, false);
    let bytes = raw.headers(1, &[("a", "b")], 0);
    raw.say(&bytes);
    assert_eq!(raw.verdict(), of_stream(ErrorCode::PROTOCOL_ERROR), "trailers that end nothing");
    for list in [&[("a", "b")][..], &[(":status", "101")]] {
        let mut raw = Raw::client();
        let bytes = raw.headers(1, list, 0);
        raw.say(&bytes);
        assert_eq!(raw.verdict(), of_stream(ErrorCode::PROTOCOL_ERROR));
    }
    assert_eq!(client_says(&data(1, b"x", false)), of_stream(ErrorCode::PROTOCOL_ERROR), "DATA before a head");
    let mut raw = Raw::client();
    let bytes = raw.headers(1, &[(":status", "100")], flag::END_STREAM);
    raw.say(&bytes);
    assert_eq!(raw.verdict(), of_stream(ErrorCode::PROTOCOL_ERROR), "an interim response that ends");
}

#[test]
fn content_length_is_kept_to() {
    let with_length = |ends: u8, length: &'static str, more: &[u8]| {
        let mut raw = Raw::server();
        let list = [REQUEST, &[("content-length", length)]].concat();
        let bytes = raw.headers(1, &list, ends);
        raw.say(&bytes);
        raw.say(more);
        raw.verdict()
    };
    let broken = of_stream(ErrorCode::PROTOCOL_ERROR);
    assert_eq!(with_length(1, "1", &[]), broken);
    assert_eq!(with_length(1, "0", &[]), Verdict::Fine);
    assert_eq!(with_length(0, "3", &data(1, b"1234", false)), broken);
    assert_eq!(with_length(0, "3", &data(1, b"12", true)), broken);
    assert_eq!(with_length(0, "3", &[data(1, b"12", false), data(1, b"3", true)].concat()), Verdict::Fine);
    let mut raw = Raw::server();
    let list = [REQUEST, &[("content-length", "3")]].concat();
    let bytes = raw.headers(1, &list, 0);
    raw.say(&bytes);
    let trailers = raw.headers(1, &[("a", "b")], flag::END_STREAM);
    raw.say(&trailers);
    assert_eq!(raw.verdict(), broken, "trailers before all has come");
}

#[test]
fn streams_do_not_depend_on_themselves() {
    let itself = [0, 0, 0, 1, 9];
    assert_eq!(server_amid_request_says(&frame(kind::PRIORITY, 0, 1, &itself)), of_stream(ErrorCode::PROTOCOL_ERROR));
    assert_eq!(server_says(&frame(kind::PRIORITY, 0, 1, &itself)), PROTOCOL);
    let mut raw = Raw::server();
    let block = raw.block(REQUEST);
    raw.say(&frame(kind::HEADERS, flag::END_HEADERS | flag::PRIORITY, 1, &[&itself[..], &block].concat()));
    assert_eq!(raw.verdict(), of_stream(ErrorCode::PROTOCOL_ERROR));
    raw.request(3, true);
    assert!(raw.side.seen(3).ended, "the block was decoded all the same");
}

#[test]
fn an_ended_half_stays_ended() {
    for bytes in [data(1, b"x", false), data(1, b"", true)] {
        let mut raw = Raw::server();
        raw.request(1, true);
        raw.say(&bytes);
        assert_eq!(raw.verdict(), of_stream(ErrorCode::STREAM_CLOSED));
    }
    let mut raw = Raw::server();
    raw.request(1, true);
    raw.request(1, true);
    assert_eq!(raw.verdict(), of_stream(ErrorCode::STREAM_CLOSED));
    for bytes in [window_update(1, 1), frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), reset(1, ErrorCode::CANCEL)] {
        let mut raw = Raw::server();
        raw.request(1, true);
        raw.say(&bytes);
        assert_eq!(raw.verdict(), Verdict::Fine);
    }
}

#[test]
fn streams_that_are_over_stay_over() {
    let over_by_reset = || {
        let mut raw = Raw::server();
        raw.request(1, false);
        raw.say(&reset(1, ErrorCode::CANCEL));
        raw
    };
    for bytes in [window_update(1, 1), reset(1, ErrorCode::CANCEL), frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 1])] {
        let mut raw = over_by_reset();
        raw.say(&bytes);
        assert_eq!(raw.verdict(), Verdict::Fine);
    }
    let mut raw = over_by_reset();
    raw.say(&data(1, b"x", false));
    assert_eq!(raw.verdict(), CLOSED);
    let mut raw = over_by_reset();
    raw.request(1, true);
    assert_eq!(raw.verdict(), CLOSED);
    let mut raw = Raw::client();
    raw.response(1, false);
    raw.say(&reset(1, ErrorCode::INTERNAL_ERROR));
    raw.say(&data(1, b"x", false));
    assert_eq!(raw.verdict(), of_stream(ErrorCode::STREAM_CLOSED), "a server's mistake costs no other stream");
}

#[test]
fn what_was_under_way_when_we_reset_a_stream_is_ignored() {
    for mut raw in [Raw::server(), Raw::client()] {
        if raw.side.seen.is_empty() && raw.side.keys.is_empty() {
            raw.request(1, false);
        }
        let key = raw.side.key(1);
        raw.side.connection.reset(key, ErrorCode::CANCEL);
        assert_eq!(raw.verdict(), of_stream(ErrorCode::CANCEL));
        let head = raw.headers(1, &[(":status", "200"), ("x-new", "to the table")], 0);
        raw.say(&head);
        raw.say(&data(1, &[0; 1000], false));
        raw.say(&frame(kind::DATA, flag::PADDED, 1, &[2, 0, 0]));
        raw.say(&window_update(1, 0));
        let trailers = raw.headers(1, &[("x-new", "to the table")], flag::END_STREAM);
        raw.say(&trailers);
        raw.say(&reset(1, ErrorCode::CANCEL));
        assert_eq!(raw.verdict(), Verdict::Fine);
    }
}

#[test]
fn a_later_goaway_names_no_later_stream() {
    let twice = |first, second| {
        client_says(&[goaway(first, ErrorCode::NO_ERROR), goaway(second, ErrorCode::NO_ERROR)].concat())
    };
    assert_eq!(twice(1, 3), PROTOCOL);
    assert_eq!(twice(u32::MAX >> 1, 1), Verdict::Fine);
    assert_eq!(twice(1, 1), Verdict::Fine);
}

#[test]
fn slow_peers_are_let_go() {
    let mut raw = Raw::silent(Role::Server, Settings::default());
    raw.say(&PREFACE[..10]);
    raw.side.wait(Duration::from_millis(9_999));
    assert_eq!(raw.verdict(), Verdict::Fine);
    raw.side.wait(Duration::from_millis(1));
    assert_eq!(raw.verdict(), Verdict::Connection(ErrorCode::ENHANCE_YOUR_CALM));

    for start in [&ping(1, false)[..12], &frame(kind::HEADERS, 0, 1, &[0x82]), &[0, 0]] {
        let mut raw = Raw::server();
        assert_eq!(raw.side.connection.next_timeout(), None);
        raw.say(start);
        raw.side.wait(Duration::from_secs(5));
        if start.len() > 2 {
            raw.say(&frame(kind::CONTINUATION, 0, 1, &[])[..3]);
        }
        raw.side.wait(Duration::from_secs(5));
        assert_eq!(raw.verdict(), Verdict::Connection(ErrorCode::ENHANCE_YOUR_CALM));
        assert_eq!(raw.side.connection.counters().timeouts, 1);
    }
}

#[test]
fn a_slow_body_is_the_owners_matter() {
    let mut raw = Raw::server();
    raw.request(1, false);
    raw.say(&data(1, b"hello", true)[..11]);
    assert_eq!(raw.side.connection.next_timeout(), None);
    assert_eq!(raw.side.seen(1).data, b"he");
}

#[test]
fn after_the_end_nothing_counts() {
    let mut raw = Raw::server();
    raw.request(1, false);
    raw.say(&window_update(0, 0));
    assert_eq!(raw.verdict(), PROTOCOL);
    raw.say(&ping(1, false));
    let key = raw.side.key(1);
    raw.side.connection.reset(key, ErrorCode::CANCEL);
    raw.side.connection.ping(1);
    assert_eq!(raw.side.connection.send_data(key, b"x", true), 0);
    raw.side.connection.close(ErrorCode::NO_ERROR);
    assert!(raw.hear().is_empty());
    assert_eq!(raw.side.connection.next_timeout(), None);
}
