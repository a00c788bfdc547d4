//! Calls of all shapes.

use evenkeel_relay::frame::ErrorCode;

use crate::pair::{Pair, REQUEST, RESPONSE, Seen, TRAILERS, texts};

fn response(data: &[u8]) -> Seen {
    Seen { head: Some(texts(RESPONSE)), data: data.to_vec(), trailers: Some(texts(TRAILERS)), ended: true, reset: None }
}

fn request(data: &[u8]) -> Seen {
    Seen { head: Some(texts(REQUEST)), data: data.to_vec(), ended: true, ..Seen::default() }
}

#[test]
fn unary() {
    let mut pair = Pair::new();
    for _ in 0..3 {
        let id = pair.open(false);
        pair.send(true, id, b"hello", true);
        assert_eq!(pair.server.seen(id), request(b"hello"));
        pair.respond(id, false);
        pair.send(false, id, b"world", false);
        pair.trailers(id);
        assert_eq!(pair.client.seen(id), response(b"world"));
        pair.assert_no_stream();
    }
    assert!(pair.client.settled && pair.server.settled);
}

#[test]
fn trailers_only() {
    let mut pair = Pair::new();
    let id = pair.open(true);
    pair.respond(id, true);
    assert_eq!(pair.client.seen(id), Seen { head: Some(texts(RESPONSE)), ended: true, ..Seen::default() });
    pair.assert_no_stream();
}

#[test]
fn streams_of_many_messages_either_way() {
    let mut pair = Pair::new();
    let id = pair.open(false);
    pair.respond(id, false);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for n in 0..300_usize {
        let message = vec![n as u8; n * 7];
        pair.send(true, id, &message, false);
        pair.send(false, id, &message[..n], false);
        up.extend(&message);
        down.extend(&message[..n]);
    }
    pair.send(true, id, b"", true);
    assert_eq!(pair.server.seen(id), request(&up));
    pair.trailers(id);
    assert_eq!(pair.client.seen(id), response(&down));
    pair.assert_no_stream();
}

#[test]
fn a_response_may_end_before_its_request() {
    let mut pair = Pair::new();
    let id = pair.open(false);
    pair.respond(id, true);
    assert!(pair.client.seen(id).ended);
    let key = pair.server.key(id);
    pair.server.connection.reset(key, ErrorCode::NO_ERROR);
    pair.run();
    assert_eq!(pair.client.seen(id).reset, Some((ErrorCode::NO_ERROR, true, true)));
    pair.assert_no_stream();
}

#[test]
fn a_cancelled_call_is_over_on_both_sides() {
    let mut pair = Pair::new();
    let id = pair.open(false);
    let key = pair.client.key(id);
    pair.client.connection.reset(key, ErrorCode::CANCEL);
    pair.run();
    assert_eq!(pair.server.seen(id).reset, Some((ErrorCode::CANCEL, true, true)));
    pair.assert_no_stream();
}

#[test]
fn pings_are_answered() {
    let mut pair = Pair::new();
    pair.client.connection.ping(1);
    pair.server.connection.ping(2);
    pair.run();
    assert_eq!((pair.client.pongs.clone(), pair.server.pongs.clone()), (vec![1], vec![2]));
}

#[test]
fn a_large_body_passes_through_small_windows() {
    let mut pair = Pair::new();
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    let id = pair.open(false);
    pair.send(true, id, &body, true);
    assert_eq!(pair.server.seen(id), request(&body));
    pair.respond(id, false);
    pair.send(false, id, &body, false);
    pair.trailers(id);
    assert_eq!(pair.client.seen(id), response(&body));
    pair.assert_no_stream();
}
