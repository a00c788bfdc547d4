//! What becomes of calls however bytes are cut, links are lost, and windows and settings change below them.

use evenkeel_balance::Code;
use evenkeel_relay::{
    connection::StreamKey,
    engine::Engine,
    frame::{ErrorCode, FrameHeader, HEADER, kind, setting},
};

use crate::{
    calls::{arrived, message, value},
    world::{Heard, World},
};

/// A frame that a peer's connection would not send by itself. It goes between whole frames of that connection.
fn say(world: &mut World, peer: u32, kind: u8, stream: u32, payload: &[u8]) {
    world.run();
    let length = u32::try_from(payload.len()).unwrap();
    let frame = [&FrameHeader { length, kind, flags: 0, stream }.encoded()[..], payload].concat();
    let (now, key) = (world.now, world.peer(peer).key);
    world.relay.receive(now, key, &frame);
    world.run();
}

/// A peer changes one of its settings.
fn set(world: &mut World, peer: u32, id: u16, value: u32) {
    say(world, peer, kind::SETTINGS, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
}

fn enlarge(world: &mut World, peer: u32, stream: StreamKey, by: u32) {
    say(world, peer, kind::WINDOW_UPDATE, stream.id(), &by.to_be_bytes());
}

/// The payload that a peer has heard since it was last asked, and whether that was all.
fn payload(world: &mut World, peer: u32) -> (usize, bool) {
    world.run();
    let heard: Vec<_> = world.peer(peer).heard.drain(..).collect();
    heard.iter().fold((0, false), |(sum, ended), heard| match heard {
        Heard::Data(_, data, ends) => (sum + data.len(), ended || *ends),
        Heard::Trailers(..) => (sum, true),
        _ => (sum, ended),
    })
}

fn status(world: &mut World, client: u32) -> Option<String> {
    world.run();
    let heard: Vec<_> = world.peer(client).heard.drain(..).collect();
    heard.iter().find_map(|heard| match heard {
        Heard::Head(_, fields, true) | Heard::Trailers(_, fields) => value(fields, "grpc-status").map(str::to_owned),
        _ => None,
    })
}

/// Nothing is longer that is sent at once in an exchange, in bytes; the longest is the client's preface, settings and call.
const LONGEST: usize = 400;

/// All that both sides of a call hear when no piece of bytes, in any direction, is longer than `chunk`.
fn exchange(chunk: usize) -> (Vec<Heard>, Vec<Heard>) {
    let mut world = World::new(1, "{}");
    world.chunk = chunk;
    let client = world.client();
    let stream = world.call_with(client, &[("x-bin", "AAEC"), ("grpc-timeout", "10S")], false);
    world.peer(client).connection.send_data(stream, &message(b"to and"), true);
    assert!(world.peer(client).connection.output().len() < LONGEST);
    let (backend, there, head, ends) = arrived(&mut world);
    let mut up = vec![Heard::Head(there, head, ends)];
    up.extend(world.peer(backend).heard.drain(..));
    world.peer(backend).respond(there, &message(b"fro"), "0");
    world.run();
    let down = world.peer(client).heard.drain(..).collect();
    world.assert_clean();
    assert_eq!(world.balance.borrow().attempts, [Code::Ok]);
    (joined(up), joined(down))
}

/// Pieces of payload that follow each other, as one.
fn joined(heard: Vec<Heard>) -> Vec<Heard> {
    heard.into_iter().fold(Vec::new(), |mut all, next| {
        match (all.last_mut(), next) {
            (Some(Heard::Data(_, before, ended)), Heard::Data(_, data, ends)) => {
                before.extend(data);
                *ended |= ends;
            }
            (_, next) => all.push(next),
        }
        all
    })
}

#[test]
fn a_call_is_the_same_however_its_bytes_are_cut() {
    let whole = exchange(usize::MAX);
    assert_eq!((whole.0.len(), whole.1.len()), (2, 3));
    for chunk in 1..LONGEST {
        assert_eq!(exchange(chunk), whole, "at most {chunk} bytes at once");
    }
}

/// The bytes that a peer has to say, taken from its connection.
fn take(world: &mut World, peer: u32) -> Vec<u8> {
    let now = world.now;
    let connection = &mut world.peer(peer).connection;
    let bytes = connection.output().to_vec();
    connection.consume(now, bytes.len());
    bytes
}

#[test]
fn a_client_that_is_lost_anywhere_in_its_frames_leaves_nothing_behind() {
    let mut cut = 0;
    loop {
        let mut world = World::new(1, "{}");
        let client = world.client();
        world.run();
        let stream = world.call(client, false);
        world.peer(client).connection.send_data(stream, &message(b"payload"), false);
        let bytes = take(&mut world, client);
        let (now, key) = (world.now, world.peer(client).key);
        world.relay.receive(now, key, &bytes[..cut]);
        world.run();
        let was_running = world.relay.running();
        world.kill(client);
        world.assert_clean();
        let ended: Vec<_> = world.balance.borrow().ended.iter().map(|(code, _)| *code).collect();
        assert_eq!(ended, vec![Code::Cancelled; was_running], "lost after {cut} bytes");
        if cut == bytes.len() {
            assert_eq!(was_running, 1);
            return;
        }
        cut += 1;
    }
}

#[test]
fn a_backend_that_is_lost_anywhere_in_its_frames_fails_the_call_and_tells_the_client() {
    let mut cut = 0;
    loop {
        let mut world = World::new(1, "{}");
        let client = world.client();
        world.run();
        world.call(client, true);
        let (backend, there, ..) = arrived(&mut world);
        world.peer(backend).respond(there, &message(b"payload"), "0");
        let bytes = take(&mut world, backend);
        let (now, key) = (world.now, world.peer(backend).key);
        world.relay.receive(now, key, &bytes[..cut]);
        world.kill(backend);
        if cut == bytes.len() {
            assert_eq!(status(&mut world, client).as_deref(), Some("0"));
            world.assert_clean();
            return;
        }
        world.run();
        let heard: Vec<_> = world.peer(client).heard.drain(..).collect();
        // A response that has begun cannot have a status of ours, so it is reset.
        match heard.last() {
            Some(Heard::Head(_, fields, true)) => assert_eq!(value(fields, "grpc-status"), Some("14")),
            Some(Heard::Reset(..) | Heard::Trailers(..)) => assert!(heard.len() > 1),
            other => panic!("{other:?} after {cut} bytes"),
        }
        assert_ne!(world.balance.borrow().ended[0].0, Code::Ok);
        world.assert_clean();
        cut += 1;
    }
}

#[test]
fn a_peer_that_is_lost_while_it_reads_a_frame_takes_only_its_own_calls_along() {
    for cut in 1..HEADER + 20 {
        let mut world = World::new(1, "{}");
        let (lost, other) = (world.client(), world.client());
        world.run();
        for client in [lost, other] {
            world.call(client, true);
            let (backend, there, ..) = arrived(&mut world);
            world.peer(backend).respond_head(there);
            world.peer(backend).connection.send_data(there, &message(&[7; 100]), false);
            if client == lost {
                // It gets a part of what is there for it, and is gone.
                world.peer(client).hangs = true;
                world.run();
                let (now, key) = (world.now, world.peer(client).key);
                world.relay.wrote(now, key, cut);
                world.kill(client);
                world.run();
                let cancelled = Heard::Reset(there, ErrorCode::CANCEL);
                assert_eq!(world.peer(backend).heard.pop_back(), Some(cancelled), "{cut}");
            } else {
                assert_eq!(payload(&mut world, other), (105, false));
                world.peer(backend).connection.send_trailers(there, std::iter::empty());
                assert!(payload(&mut world, other).1);
            }
        }
        world.assert_clean();
    }
}

#[test]
fn a_client_whose_windows_are_at_zero_gets_the_head_and_then_what_it_makes_room_for() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    set(&mut world, client, setting::INITIAL_WINDOW_SIZE, 0);
    let stream = world.call(client, true);
    let (backend, there, ..) = arrived(&mut world);
    world.peer(backend).respond(there, &message(&[1; 95]), "0");
    assert!(matches!(world.heard(client), Some(Heard::Head(_, _, false))));
    assert_eq!((payload(&mut world, client), world.relay.held()), ((0, false), 100));
    enlarge(&mut world, client, stream, 1);
    assert_eq!(payload(&mut world, client), (1, false));
    enlarge(&mut world, client, stream, 98);
    assert_eq!((payload(&mut world, client), world.relay.held()), ((98, false), 1));
    enlarge(&mut world, client, stream, 1);
    assert_eq!(payload(&mut world, client), (1, true), "trailers follow the last byte");
    world.assert_clean();
}

#[test]
fn a_backend_whose_windows_are_at_zero_holds_up_the_request_alone() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let backend = world.backends(0)[0];
    set(&mut world, backend, setting::INITIAL_WINDOW_SIZE, 0);
    let stream = world.call(client, false);
    let data = message(&[1; 95]);
    assert_eq!(world.peer(client).connection.send_data(stream, &data, true), 100);
    let (_, there, ..) = arrived(&mut world);
    assert_eq!(payload(&mut world, backend), (0, false));
    assert!(world.relay.held() >= 100);
    // Calls without payload pass by.
    world.call(client, true);
    let (_, other, ..) = arrived(&mut world);
    world.peer(backend).refuse(other, "0");
    assert_eq!(status(&mut world, client).as_deref(), Some("0"));
    enlarge(&mut world, backend, there, 60);
    assert_eq!(payload(&mut world, backend), (60, false));
    enlarge(&mut world, backend, there, 40);
    assert_eq!(payload(&mut world, backend), (40, true));
    world.peer(backend).refuse(there, "0");
    world.assert_clean();
}

#[test]
fn a_window_that_settings_change_amid_a_stream_counts_for_what_is_under_way() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    set(&mut world, client, setting::INITIAL_WINDOW_SIZE, 50);
    world.call(client, true);
    let (backend, there, ..) = arrived(&mut world);
    world.peer(backend).respond(there, &message(&[1; 195]), "0");
    assert_eq!(payload(&mut world, client), (50, false));
    // Below zero: 50 are under way, and only 20 would be allowed.
    set(&mut world, client, setting::INITIAL_WINDOW_SIZE, 20);
    assert_eq!(payload(&mut world, client), (0, false));
    set(&mut world, client, setting::INITIAL_WINDOW_SIZE, 60);
    assert_eq!(payload(&mut world, client), (10, false));
    set(&mut world, client, setting::INITIAL_WINDOW_SIZE, 1_000);
    assert_eq!(payload(&mut world, client), (140, true));
    world.assert_clean();
}

#[test]
fn a_backend_that_lowers_its_limit_of_streams_keeps_those_that_run() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let first = world.backends(0)[0];
    world.call(client, true);
    world.call(client, true);
    let running = [arrived(&mut world), arrived(&mut world)];
    assert!(running.iter().all(|(backend, ..)| *backend == first));
    set(&mut world, first, setting::MAX_CONCURRENT_STREAMS, 1);
    world.call(client, true);
    let (second, third, ..) = arrived(&mut world);
    assert_ne!(second, first, "on a further connection");
    world.peer(second).refuse(third, "0");
    for (backend, there, ..) in running {
        world.peer(backend).refuse(there, "0");
        assert_eq!(status(&mut world, client).as_deref(), Some("0"));
    }
    world.assert_clean();
}

#[test]
fn a_header_table_that_shrinks_and_grows_amid_a_connection_loses_no_field() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let backend = world.backends(0)[0];
    for size in [4096, 0, 64, 4096, 100, 0, 4096] {
        set(&mut world, backend, setting::HEADER_TABLE_SIZE, size);
        set(&mut world, client, setting::HEADER_TABLE_SIZE, size);
        for _ in 0..3 {
            world.call_with(client, &[("x-id", "7"), ("x-id", "8")], true);
            let (_, there, head, _) = arrived(&mut world);
            let ids: Vec<_> = head.iter().filter(|(name, _)| name == "x-id").map(|(_, id)| id.as_str()).collect();
            assert_eq!((ids, value(&head, ":path")), (vec!["7", "8"], Some("/shop.Cart/Get")));
            world.peer(backend).refuse(there, "5");
            assert_eq!(status(&mut world, client).as_deref(), Some("5"));
        }
    }
    world.assert_clean();
}
