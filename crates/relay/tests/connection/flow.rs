//! Windows and settings.

use evenkeel_relay::{
    connection::{Role, Settings, StreamKey},
    frame::{ErrorCode, FrameHeader, flag, kind, setting},
};

use crate::{
    pair::{Pair, RESPONSE, fields},
    raw::{Raw, Verdict, data, frame, settings, window_update},
};

/// A server's connection whose peer starts streams with this window, with a response begun on stream 1.
fn responding(window: u32) -> (Raw, StreamKey) {
    let mut raw = Raw::server();
    raw.say(&settings(&[(setting::INITIAL_WINDOW_SIZE, window)]));
    raw.request(1, true);
    let key = raw.side.key(1);
    raw.side.connection.send_head(key, fields(RESPONSE), false);
    raw.hear();
    (raw, key)
}

/// The lengths of the DATA frames that were sent.
fn lengths(raw: &mut Raw) -> Vec<u32> {
    let frames = raw.hear();
    frames
        .iter()
        .map(|(header, _)| header)
        .filter(|header| header.kind == kind::DATA)
        .map(|header| header.length)
        .collect()
}

#[test]
fn a_window_of_nothing_lets_only_an_end_pass() {
    let (mut raw, key) = responding(0);
    assert_eq!(raw.side.connection.send_data(key, b"hello", true), 0);
    assert_eq!(raw.side.connection.poll_writable(), None);
    raw.say(&window_update(1, 2));
    assert_eq!(raw.side.connection.poll_writable(), Some(key));
    assert_eq!(raw.side.connection.send_data(key, b"hello", true), 2);
    assert_eq!(raw.side.connection.poll_writable(), None);
    assert_eq!(lengths(&mut raw), [2]);
    assert_eq!(raw.side.connection.send_data(key, b"", true), 0, "an end needs no window");
    let frames = raw.hear();
    assert_eq!(frames[0].0, FrameHeader { length: 0, kind: kind::DATA, flags: flag::END_STREAM, stream: 1 });
    assert_eq!(raw.side.connection.open_streams(), 0);
}

#[test]
fn trailers_need_no_window() {
    let (mut raw, key) = responding(0);
    raw.side.connection.send_trailers(key, fields(&[("grpc-status", "0")]));
    assert_eq!((raw.hear().len(), raw.side.connection.open_streams()), (1, 0));
}

#[test]
fn the_initial_window_changes_amid_streams_and_below_what_is_outstanding() {
    let (mut raw, key) = responding(100);
    assert_eq!(raw.side.connection.send_data(key, &[0; 150], false), 100);
    raw.say(&settings(&[(setting::INITIAL_WINDOW_SIZE, 30)]));
    raw.say(&window_update(1, 70));
    assert_eq!((raw.side.connection.poll_writable(), raw.side.connection.send_data(key, &[0; 50], false)), (None, 0));
    raw.say(&settings(&[(setting::INITIAL_WINDOW_SIZE, 50)]));
    assert_eq!(raw.side.connection.poll_writable(), Some(key), "settings open windows too");
    assert_eq!(raw.side.connection.send_data(key, &[0; 50], true), 20);
    raw.say(&window_update(1, 30));
    assert_eq!(raw.side.connection.poll_writable(), Some(key));
    assert_eq!(raw.side.connection.send_data(key, &[0; 30], true), 30);
    assert_eq!(lengths(&mut raw), [100, 20, 30]);
    assert_eq!(raw.side.connection.open_streams(), 0);
}

#[test]
fn of_a_setting_that_comes_twice_the_last_counts() {
    let (mut raw, key) = responding(10);
    raw.say(&settings(&[(setting::INITIAL_WINDOW_SIZE, 500), (setting::INITIAL_WINDOW_SIZE, 20)]));
    assert_eq!(raw.side.connection.send_data(key, &[0; 50], false), 20);
}

#[test]
fn the_connections_window_is_shared_and_streams_take_turns() {
    let mut raw = Raw::server();
    let keys = [1, 3, 5].map(|id| {
        raw.request(id, true);
        let key = raw.side.key(id);
        raw.side.connection.send_head(key, fields(RESPONSE), false);
        key
    });
    assert_eq!(raw.side.connection.send_data(keys[0], &[0; 65_000], false), 65_000);
    assert_eq!(raw.side.connection.send_data(keys[1], &[0; 1000], false), 535);
    assert_eq!(raw.side.connection.send_data(keys[2], &[0; 1000], false), 0);
    assert_eq!(raw.side.connection.send_data(keys[0], &[0; 500], false), 0);
    raw.hear();
    assert_eq!(raw.side.connection.poll_writable(), None);
    raw.say(&window_update(0, 1_000_000));
    let order: Vec<_> = std::iter::from_fn(|| raw.side.connection.poll_writable()).collect();
    assert_eq!(order, [keys[1], keys[2], keys[0]]);
}

#[test]
fn data_stops_at_the_outputs_limit_and_goes_on_below_half_of_it() {
    let mut ours = Settings::default();
    ours.output_limit = 10_000;
    let mut raw = Raw::new(Role::Server, ours);
    raw.request(1, true);
    let key = raw.side.key(1);
    raw.side.connection.send_head(key, fields(RESPONSE), false);
    let taken = raw.side.connection.send_data(key, &[0; 30_000], true);
    assert!((9_000..=10_000).contains(&taken), "{taken}");
    let now = raw.side.now;
    raw.side.connection.consume(now, 4000);
    assert_eq!(raw.side.connection.poll_writable(), None);
    raw.side.connection.consume(now, 2000);
    assert_eq!(raw.side.connection.poll_writable(), Some(key));
}

#[test]
fn data_is_cut_to_the_peers_frame_size() {
    let (mut raw, key) = responding(1 << 20);
    raw.say(&window_update(0, 1 << 20));
    raw.side.connection.send_data(key, &[0; 40_000], false);
    assert_eq!(lengths(&mut raw), [16_384, 16_384, 7_232]);
    raw.say(&settings(&[(setting::MAX_FRAME_SIZE, 32_768)]));
    raw.side.connection.send_data(key, &[0; 40_000], false);
    assert_eq!(lengths(&mut raw), [32_768, 7_232]);
}

#[test]
fn large_heads_are_split_and_put_together() {
    let mut pair = Pair::new();
    let value = "v".repeat(50_000);
    let list = [crate::pair::REQUEST, &[("x-large", &value)]].concat();
    let stream = pair.client.connection.open(0, fields(&list), true).unwrap();
    pair.run();
    assert_eq!(pair.server.seen(stream.id()).head, Some(crate::pair::texts(&list)));
}

#[test]
fn what_is_released_comes_back_by_halves_and_windows_grow() {
    let mut raw = Raw::server();
    raw.side.releases = false;
    raw.request(1, false);
    let key = raw.side.key(1);
    raw.say(&data(1, &[0; 16_000], false));
    raw.say(&data(1, &[0; 16_000], false));
    raw.say(&data(1, &[0; 16_000], false));
    raw.side.connection.release(key, 32_000);
    assert!(raw.hear().is_empty());
    raw.side.connection.release(key, 10_000);
    let increment = |raw: &mut Raw| {
        let frames = raw.hear();
        let updates = frames.iter().filter(|(header, _)| header.kind == kind::WINDOW_UPDATE && header.stream == 1);
        updates.map(|(_, payload)| u32::from_be_bytes(payload.as_slice().try_into().unwrap())).sum::<u32>()
    };
    assert_eq!(increment(&mut raw), 42_000, "6000 bytes are held back");
    raw.side.connection.release(key, 6_000);
    raw.say(&data(1, &[0; 16_000], false));
    raw.say(&data(1, &[0; 16_000], false));
    raw.side.connection.release(key, 32_000);
    assert_eq!(increment(&mut raw), 38_000 + 65_535, "the window has doubled");
}

#[test]
fn the_connections_window_comes_back_by_itself() {
    let mut ours = Settings::default();
    ours.connection_window = 65_535;
    let mut raw = Raw::new(Role::Server, ours);
    raw.side.releases = false;
    for id in (1..100).step_by(2) {
        raw.request(id, false);
        raw.say(&data(id, &[0; 16_000], false));
        raw.say(&data(id, &[0; 16_000], true));
    }
    assert_eq!(raw.side.broken, None);
}

#[test]
fn padding_is_given_back_at_once() {
    let mut raw = Raw::server();
    raw.side.releases = false;
    raw.request(1, false);
    for _ in 0..2000 {
        raw.say(&frame(kind::DATA, flag::PADDED, 1, &[&[200, b'x', b'y'][..], &[0; 200]].concat()));
    }
    assert_eq!((raw.verdict(), raw.side.seen(1).data.len()), (Verdict::Fine, 4000));
}

#[test]
fn a_smaller_window_of_ours_holds_once_it_is_acknowledged() {
    let mut ours = Settings::default();
    ours.stream_window = 1000;
    let mut raw = Raw::silent(Role::Client, ours);
    raw.open();
    raw.say(&settings(&[]));
    raw.response(1, false);
    raw.side.releases = false;
    raw.say(&data(1, &[0; 500], false));
    raw.say(&frame(kind::SETTINGS, flag::ACK, 0, &[]));
    raw.say(&data(1, &[0; 500], false));
    assert_eq!(raw.verdict(), Verdict::Fine);
    raw.say(&data(1, &[0; 2], false));
    assert_eq!(raw.verdict(), Verdict::Stream(1, ErrorCode::FLOW_CONTROL_ERROR));
}

#[test]
fn a_client_keeps_to_what_the_server_allows_at_once() {
    let mut raw = Raw::silent(Role::Client, Settings::default());
    assert_eq!(raw.side.connection.room(), 100);
    raw.say(&settings(&[(setting::MAX_CONCURRENT_STREAMS, 2)]));
    let keys = [raw.open(), raw.open()].map(|id| raw.side.key(id));
    assert_eq!((raw.side.connection.room(), raw.side.connection.open(0, fields(RESPONSE), true)), (0, None));
    raw.say(&settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]));
    raw.side.connection.reset(keys[0], ErrorCode::CANCEL);
    assert_eq!(raw.side.connection.room(), 0, "lowered below what is open");
    raw.say(&settings(&[(setting::MAX_CONCURRENT_STREAMS, u32::MAX)]));
    assert!(raw.side.connection.room() > 1_000_000);
}

#[test]
fn a_server_refuses_streams_beyond_what_it_allows() {
    let mut ours = Settings::default();
    ours.max_concurrent_streams = 1;
    let mut raw = Raw::new(Role::Server, ours);
    raw.request(1, true);
    raw.request(3, false);
    assert_eq!(raw.verdict(), Verdict::Stream(3, ErrorCode::REFUSED_STREAM));
    raw.say(&data(3, b"under way", true));
    let key = raw.side.key(1);
    raw.side.connection.send_head(key, fields(RESPONSE), true);
    raw.request(5, true);
    assert!(raw.side.seen(5).ended, "the refused block was decoded");
    assert_eq!((raw.verdict(), raw.side.connection.counters().refused), (Verdict::Fine, 1));
}

#[test]
fn a_client_hears_that_it_was_refused() {
    let mut ours = Settings::default();
    ours.max_concurrent_streams = 1;
    let mut pair = Pair::with(Settings::default(), ours);
    let list = crate::pair::REQUEST;
    let ids = [0, 1].map(|tag| pair.client.connection.open(tag, fields(list), true).unwrap().id());
    pair.run();
    assert_eq!(pair.client.seen(ids[0]).reset, None);
    assert_eq!(pair.client.seen(ids[1]).reset, Some((ErrorCode::REFUSED_STREAM, true, false)));
}

#[test]
fn header_tables_of_any_size_stay_in_step() {
    for (client, server) in [(0, 4096), (4096, 0), (100, 200), (65_536, 300)] {
        let with = |size| {
            let mut settings = Settings::default();
            settings.header_table = size;
            settings
        };
        let mut pair = Pair::with(with(client), with(server));
        for _ in 0..5 {
            let id = pair.open(true);
            pair.respond(id, false);
            pair.trailers(id);
            assert!(pair.client.seen(id).ended);
        }
        assert_eq!((pair.client.broken, pair.server.broken), (None, None));
    }
}

#[test]
fn interim_responses_are_passed_over() {
    let mut raw = Raw::client();
    for status in ["100", "103"] {
        let bytes = raw.headers(1, &[(":status", status)], 0);
        raw.say(&bytes);
    }
    raw.response(1, true);
    assert_eq!(raw.side.seen(1).head, Some(crate::pair::texts(RESPONSE)));
}
