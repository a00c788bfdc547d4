//! GOAWAY, both ways.

use std::time::Duration;

use evenkeel_balance::Time;
use evenkeel_relay::{
    connection::{Event, Role},
    fields::Fields,
    frame::{ErrorCode, kind},
};

use crate::{
    pair::{Pair, RESPONSE, Seen, fields, texts},
    raw::{Raw, Verdict, frame, goaway, ping},
};

/// The last stream ids of the GOAWAYs that were sent, and the payload of a PING.
fn goaways(raw: &mut Raw) -> (Vec<u32>, Option<u64>) {
    let frames = raw.hear();
    let of = |wanted| frames.iter().filter(move |(header, _)| header.kind == wanted).map(|(_, payload)| payload);
    let last = of(kind::GOAWAY).map(|payload| u32::from_be_bytes(payload[..4].try_into().unwrap())).collect();
    let ping = of(kind::PING).next().map(|payload| u64::from_be_bytes(payload[..].try_into().unwrap()));
    (last, ping)
}

#[test]
fn a_server_drains_in_two_steps() {
    let mut raw = Raw::server();
    raw.request(1, true);
    let now = raw.side.now;
    raw.side.connection.drain(now);
    raw.side.connection.drain(now);
    let (last, payload) = goaways(&mut raw);
    assert_eq!(last, [(1 << 31) - 1]);
    assert!(raw.side.connection.is_leaving() && !raw.side.connection.is_finished());
    raw.request(3, true);
    assert!(raw.side.seen(3).ended, "it was under way");
    raw.say(&ping(payload.unwrap(), true));
    assert_eq!(goaways(&mut raw).0, [3]);
    assert!(raw.side.pongs.is_empty());
    raw.request(5, true);
    assert_eq!(raw.verdict(), Verdict::Stream(5, ErrorCode::REFUSED_STREAM));
    for id in [1, 3] {
        assert!(!raw.side.connection.is_finished());
        let key = raw.side.key(id);
        raw.side.connection.send_head(key, fields(RESPONSE), true);
    }
    assert!(raw.side.connection.is_finished());
}

#[test]
fn a_drain_does_not_wait_for_ever() {
    let mut raw = Raw::server();
    let now = raw.side.now;
    raw.side.connection.drain(now);
    let payload = goaways(&mut raw).1.unwrap();
    raw.side.wait(Duration::from_millis(999));
    assert!(goaways(&mut raw).0.is_empty());
    raw.side.wait(Duration::from_millis(1));
    assert_eq!(goaways(&mut raw).0, [0]);
    assert!(raw.side.connection.is_finished());
    assert_eq!(raw.side.connection.next_timeout(), None);
    raw.side.connection.ping(1);
    raw.say(&[ping(payload, true), ping(1, true)].concat());
    assert_eq!(raw.side.pongs, [1], "a late answer is not taken for another's");
}

#[test]
fn a_client_follows_a_drain() {
    let mut pair = Pair::new();
    let id = pair.open(true);
    let now = pair.server.now;
    pair.server.connection.drain(now);
    pair.run();
    assert_eq!(pair.client.leaving, [ErrorCode::NO_ERROR; 2]);
    assert_eq!((pair.client.connection.room(), pair.client.connection.is_finished()), (0, false));
    pair.respond(id, true);
    assert_eq!(pair.client.seen(id), Seen { head: Some(texts(RESPONSE)), ended: true, ..Seen::default() });
    assert!(pair.client.connection.is_finished() && pair.server.connection.is_finished());
}

#[test]
fn streams_beyond_the_last_are_left_behind() {
    let mut raw = Raw::client();
    let ids = [1, raw.open(), raw.open(), raw.open()];
    let key = raw.side.key(3);
    raw.side.connection.set_tag(key, 33);
    raw.say(&goaway((1 << 31) - 1, ErrorCode::NO_ERROR));
    assert_eq!(raw.side.connection.open_streams(), 4);
    raw.say(&goaway(3, ErrorCode::NO_ERROR));
    let left = Some((ErrorCode::REFUSED_STREAM, true, false));
    assert_eq!(ids.map(|id| raw.side.seen(id).reset), [None, None, left, left]);
    assert_eq!(raw.side.connection.tag(key), Some(33));
    raw.response(1, true);
    raw.response(3, true);
    assert!(!raw.side.connection.is_finished(), "our halves are open");
    for id in [1, 3] {
        let key = raw.side.key(id);
        raw.side.connection.send_data(key, b"", true);
    }
    assert!(raw.side.connection.is_finished());
}

#[test]
fn a_client_that_drains_opens_no_more() {
    let mut pair = Pair::new();
    let id = pair.open(true);
    let now = pair.client.now;
    pair.client.connection.drain(now);
    assert_eq!((pair.client.connection.room(), pair.client.connection.is_finished()), (0, false));
    pair.respond(id, true);
    assert!(pair.client.connection.is_finished());
}

#[test]
fn a_clients_goaway_is_told_and_ends_nothing() {
    let mut raw = Raw::server();
    raw.request(1, true);
    raw.say(&goaway(0, ErrorCode::ENHANCE_YOUR_CALM));
    assert_eq!(raw.side.leaving, [ErrorCode::ENHANCE_YOUR_CALM]);
    assert_eq!((raw.side.connection.open_streams(), raw.side.connection.is_finished()), (1, false));
}

#[test]
fn closing_says_so_once() {
    for role in [Role::Client, Role::Server] {
        let mut raw = Raw::new(role, evenkeel_relay::connection::Settings::default());
        raw.side.connection.close(ErrorCode::INTERNAL_ERROR);
        raw.side.connection.close(ErrorCode::NO_ERROR);
        assert_eq!(goaways(&mut raw).0.len(), 1);
        assert!(raw.side.connection.is_finished() && raw.side.connection.room() == 0);
    }
}

#[test]
fn it_is_known_whether_a_head_has_left() {
    let mut raw = Raw::client();
    raw.side.connection.ping(1);
    let stream = raw.side.connection.open(0, fields(crate::pair::REQUEST), true).unwrap();
    let (first, now) = (raw.side.key(1), raw.side.now);
    let is_written = |raw: &Raw, key| raw.side.connection.is_written(key);
    raw.side.connection.consume(now, 17);
    assert_eq!((is_written(&raw, first), is_written(&raw, stream)), (true, false));
    raw.side.connection.consume(now, 1);
    assert!(is_written(&raw, stream));
}

#[test]
fn what_a_goaway_says_is_passed_on_within_its_bound_even_if_it_is_no_text() {
    let mut raw = Raw::client();
    let payload = [&[0; 8][..], &[0xff; 2000]].concat();
    let bytes = frame(kind::GOAWAY, 0, 0, &payload);
    let (mut input, mut fields) = (&bytes[..], Fields::new());
    let event = raw.side.connection.receive(Time::ZERO, &mut input, &mut fields);
    let Some(Event::Leaving { debug, .. }) = event else { panic!("{event:?}") };
    assert!((1020..=1024).contains(&debug.len()), "{}", debug.len());
}
