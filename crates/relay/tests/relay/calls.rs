//! What becomes of calls while all is well.

use std::time::Duration;

use evenkeel_balance::Code;
use evenkeel_relay::{
    connection::{self, StreamKey},
    engine::Engine,
    frame::ErrorCode,
    relay::Settings,
};

use crate::world::{Heard, World};

/// A message in gRPC's framing.
pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], payload].concat()
}

pub(crate) fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

/// The backend that a call has come to, and its stream there.
pub(crate) fn arrived(world: &mut World) -> (u32, StreamKey, Vec<(String, String)>, bool) {
    world.run();
    let found = world.peers.values_mut().filter(|peer| peer.address.is_some()).find_map(|peer| {
        let at = peer.heard.iter().position(|heard| matches!(heard, Heard::Head(..)))?;
        let Heard::Head(stream, head, ends) = peer.heard.remove(at)? else { return None };
        Some((peer.key.slot(), stream, head, ends))
    });
    found.expect("a call has come to a backend")
}

#[test]
fn a_unary_call_goes_there_and_back() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let stream = world.call_with(client, &[("host", "elsewhere"), ("x-id", "7")], false);
    assert_eq!(world.peer(client).connection.send_data(stream, &message(b"ping"), true), 9);
    let (backend, there, head, ends) = arrived(&mut world);
    assert!(!ends);
    assert_eq!(value(&head, ":path"), Some("/shop.Cart/Get"));
    assert_eq!((value(&head, "host"), value(&head, "x-id")), (None, Some("7")), "the authority wins");
    assert_eq!(world.heard(backend), Some(Heard::Data(there, message(b"ping"), true)));
    world.peer(backend).respond(there, &message(b"pong"), "0");
    let Some(Heard::Head(_, head, false)) = world.heard(client) else { panic!("no head") };
    assert_eq!(value(&head, ":status"), Some("200"));
    assert_eq!(world.heard(client), Some(Heard::Data(stream, message(b"pong"), false)));
    let Some(Heard::Trailers(_, trailers)) = world.heard(client) else { panic!("no trailers") };
    assert_eq!(value(&trailers, "grpc-status"), Some("0"));
    world.assert_clean();
    assert_eq!(world.balance.borrow().attempts, [Code::Ok]);
    assert_eq!(world.balance.borrow().sizes, [(4, 4)], "messages count without their prefixes");
}

#[test]
fn calls_of_one_connection_are_spread_over_the_backends() {
    let mut world = World::new(3, "{}");
    let client = world.client();
    world.run();
    let mut counts = [0; 3];
    for _ in 0..30 {
        world.call(client, true);
        let (backend, there, ..) = arrived(&mut world);
        let at = (0..3).find(|at| world.backends(*at).contains(&backend)).unwrap();
        counts[usize::from(at)] += 1;
        world.peer(backend).refuse(there, "0");
        world.run();
    }
    assert_eq!(counts, [10; 3]);
    world.assert_clean();
}

#[test]
fn everything_arrives_byte_by_byte_too() {
    let mut world = World::new(2, "{}");
    world.chunk = 1;
    let client = world.client();
    world.run();
    for size in [0, 1, 100, 40_000] {
        let payload = message(&vec![b'x'; size]);
        let stream = world.call(client, false);
        let mut sent = 0;
        while sent < payload.len() {
            sent += world.peer(client).connection.send_data(stream, &payload[sent..], true);
            world.run();
        }
        let (backend, there, ..) = arrived(&mut world);
        let mut got = Vec::new();
        while let Some(Heard::Data(_, data, _)) = world.heard(backend) {
            got.extend(data);
        }
        assert_eq!(got.len(), payload.len());
        assert!(got == payload);
        world.peer(backend).respond(there, &message(b"ok"), "0");
        world.run();
        let last = world.peer(client).heard.drain(..).next_back();
        assert!(matches!(last, Some(Heard::Trailers(..))), "{last:?}");
    }
    world.assert_clean();
}

#[test]
fn what_is_no_call_is_answered_with_http() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    for (change, status) in [
        ((":method", "GET"), "405"),
        (("content-type", "text/html"), "415"),
        (("grpc-timeout", "abc"), "400"),
        ((":path", "shop.Cart/Get"), "400"),
    ] {
        world.call_with(client, &[change], true);
        let Some(Heard::Head(_, head, _)) = world.heard(client) else { panic!("no head for {change:?}") };
        assert_eq!(value(&head, ":status"), Some(status));
        world.run();
        world.peer(client).heard.clear();
    }
    assert_eq!(world.relay.counters().refused, 4);
    world.assert_clean();
}

/// The stream of a request that is refused and has not ended, after the client has all of the answer.
fn refused(world: &mut World, client: u32) -> StreamKey {
    let stream = world.call_with(client, &[("content-type", "text/html"), ("content-length", "4")], false);
    world.run();
    let heard: Vec<_> = world.peer(client).heard.drain(..).collect();
    assert!(matches!(&heard[..], [Heard::Head(_, _, false), Heard::Data(_, _, true)]), "{heard:?}");
    stream
}

#[test]
fn a_refused_request_may_end_as_it_will_but_not_go_on() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let ended = refused(&mut world, client);
    world.peer(client).connection.send_data(ended, b"body", true);
    assert_eq!(world.heard(client), None);
    let wrong = refused(&mut world, client);
    world.peer(client).connection.send_data(wrong, b"too long", false);
    assert_eq!(world.heard(client), Some(Heard::Reset(wrong, ErrorCode::PROTOCOL_ERROR)));
    let endless = world.call_with(client, &[("content-type", "text/html")], false);
    world.run();
    world.peer(client).heard.clear();
    world.peer(client).connection.send_data(endless, &[0; 16 * 1024], false);
    assert_eq!(world.heard(client), None, "it may have been under way");
    world.peer(client).connection.send_data(endless, b"b", false);
    assert_eq!(world.heard(client), Some(Heard::Reset(endless, ErrorCode::NO_ERROR)));
    let given_up = refused(&mut world, client);
    world.peer(client).connection.reset(given_up, ErrorCode::CANCEL);
    world.assert_clean();
}

#[test]
fn a_refused_request_holds_up_no_drain() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let before = refused(&mut world, client);
    let now = world.now;
    world.relay.drain(now);
    world.run();
    let heard: Vec<_> = world.peer(client).heard.drain(..).collect();
    assert!(heard.contains(&Heard::Reset(before, ErrorCode::NO_ERROR)), "{heard:?}");
    assert_eq!(world.relay.clients(), 0);
}

#[test]
fn an_answer_to_what_is_no_call_waits_for_its_window() {
    let mut world = World::new(1, "{}");
    let mut narrow = connection::Settings::default();
    (narrow.stream_window, narrow.most_stream_window) = (10, 10);
    let client = world.client_with(&narrow);
    world.peer(client).releases = false;
    world.run();
    let stream = world.call_with(client, &[(":method", "GET")], true);
    world.run();
    let mut answer = Vec::new();
    while let Some(heard) = world.heard(client) {
        let Heard::Data(_, data, ends) = heard else { continue };
        assert!(data.len() <= 10, "no more than the window");
        world.peer(client).connection.release(stream, data.len());
        answer.extend(data);
        assert_eq!(ends, answer == b"gRPC calls are POST requests");
    }
    assert_eq!(answer, b"gRPC calls are POST requests");
    world.assert_clean();
}

#[test]
fn a_deadline_ends_a_call_here_and_at_its_backend() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    world.call_with(client, &[("grpc-timeout", "50m")], true);
    let (backend, there, head, _) = arrived(&mut world);
    assert_eq!(value(&head, "grpc-timeout"), Some("50m"));
    world.pass(Duration::from_millis(49));
    assert_eq!(world.heard(client), None);
    world.pass(Duration::from_millis(2));
    let Some(Heard::Head(_, head, true)) = world.heard(client) else { panic!("no status") };
    assert_eq!(value(&head, "grpc-status"), Some("4"));
    assert_eq!(world.heard(backend), Some(Heard::Reset(there, ErrorCode::CANCEL)));
    world.assert_clean();
    assert_eq!(world.balance.borrow().attempts, [Code::DeadlineExceeded]);
}

#[test]
fn a_deadline_of_nothing_has_passed_already() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    world.call_with(client, &[("grpc-timeout", "0n")], true);
    let Some(Heard::Head(_, head, true)) = world.heard(client) else { panic!("no status") };
    assert_eq!(value(&head, "grpc-status"), Some("4"));
    assert!(world.balance.borrow().attempts.is_empty(), "no backend is asked");
    world.assert_clean();
}

#[test]
fn a_client_that_cancels_cancels_at_the_backend_within_the_turn() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let stream = world.call(client, false);
    let (backend, there, ..) = arrived(&mut world);
    world.peer(client).connection.reset(stream, ErrorCode::CANCEL);
    assert_eq!(world.heard(backend), Some(Heard::Reset(there, ErrorCode::CANCEL)));
    world.assert_clean();
    assert_eq!(world.balance.borrow().ended[0].0, Code::Cancelled);
}

#[test]
fn a_backends_reset_reaches_the_client_with_its_code() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    for code in [ErrorCode::INTERNAL_ERROR, ErrorCode::ENHANCE_YOUR_CALM, ErrorCode::CANCEL, ErrorCode(77)] {
        for begun in [false, true] {
            let stream = world.call(client, true);
            let (backend, there, ..) = arrived(&mut world);
            if begun {
                world.peer(backend).respond_head(there);
                world.run();
                world.peer(client).heard.clear();
            }
            world.peer(backend).connection.reset(there, code);
            assert_eq!(world.heard(client), Some(Heard::Reset(stream, code)));
        }
    }
    world.assert_clean();
}

#[test]
fn an_early_answer_stops_the_request_and_stands() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let stream = world.call(client, false);
    let (backend, there, ..) = arrived(&mut world);
    world.peer(backend).respond(there, &message(b"enough"), "0");
    world.run();
    let heard: Vec<_> = world.peer(client).heard.drain(..).collect();
    let [Heard::Head(..), Heard::Data(..), Heard::Trailers(..), Heard::Reset(reset, ErrorCode::NO_ERROR)] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!(*reset, stream);
    assert_eq!(world.heard(backend), Some(Heard::Reset(there, ErrorCode::NO_ERROR)));
    world.assert_clean();
}

#[test]
fn a_slow_reader_holds_up_its_own_backend_stream_and_nobody_else() {
    let mut world = World::new(1, "{}");
    let (slow, quick) = (world.client(), world.client());
    world.run();
    world.peer(slow).releases = false;
    world.call(slow, true);
    let (backend, there, ..) = arrived(&mut world);
    world.peer(backend).respond_head(there);
    let payload = message(&vec![1; 8 << 20]);
    let mut sent = 0;
    loop {
        let taken = world.peer(backend).connection.send_data(there, &payload[sent..], false);
        sent += taken;
        world.run();
        if taken == 0 {
            break;
        }
    }
    assert!(sent < 1 << 20, "{sent} bytes were taken from the backend");
    assert!(world.relay.held() <= sent);
    for _ in 0..100 {
        world.call(quick, true);
        let (backend, there, ..) = arrived(&mut world);
        world.peer(backend).respond(there, &message(&vec![2; 10_000]), "0");
        world.run();
        let last = world.peer(quick).heard.drain(..).next_back();
        assert!(matches!(last, Some(Heard::Trailers(..))), "{last:?}");
    }
    // It reads on: everything comes.
    let mut got = 0;
    loop {
        let heard: Vec<_> = world.peer(slow).heard.drain(..).collect();
        let before = (got, sent);
        for heard in heard {
            if let Heard::Data(stream, data, _) = heard {
                got += data.len();
                world.peer(slow).connection.release(stream, data.len());
            }
        }
        sent += world.peer(backend).connection.send_data(there, &payload[sent..], true);
        world.run();
        if (got, sent) == before && world.peer(slow).heard.is_empty() {
            break;
        }
    }
    assert_eq!(got, payload.len());
    world.assert_clean();
}

#[test]
fn a_message_beyond_the_limit_ends_its_call_before_it_is_kept() {
    let mut settings = Settings::default();
    settings.max_message = 1_000;
    let mut world = World::with(1, "{}", settings);
    let client = world.client();
    world.run();
    let stream = world.call(client, false);
    let (backend, there, ..) = arrived(&mut world);
    world.peer(client).connection.send_data(stream, &[0, 0xFF, 0xFF, 0xFF, 0xFF], false);
    let Some(Heard::Head(_, head, true)) = world.heard(client) else { panic!("no status") };
    assert_eq!(value(&head, "grpc-status"), Some("8"));
    assert_eq!(world.heard(backend), Some(Heard::Reset(there, ErrorCode::CANCEL)));
    world.assert_clean();
}

#[test]
fn calls_wait_where_nothing_is_connected_yet_and_are_placed_then() {
    let mut world = World::new(0, "{}");
    let client = world.client();
    world.run();
    let stream = world.call_with(client, &[("grpc-timeout", "10S")], false);
    world.peer(client).connection.send_data(stream, &message(b"early"), true);
    world.run();
    // An empty list fails calls; one that is still to come does not.
    world.peer(client).heard.clear();
    world.resolve([crate::world::backend(0)].into_iter());
    world.call(client, true);
    let (backend, there, ..) = arrived(&mut world);
    world.peer(backend).refuse(there, "0");
    world.run();
    world.assert_clean();
}

#[test]
fn a_long_request_goes_through_whole() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let payload = message(&vec![7; 8 << 20]);
    let stream = world.call(client, false);
    world.chunk = 5_000;
    let (mut sent, mut got) = (0, Vec::new());
    let mut to = None;
    for _ in 0..10_000 {
        if sent < payload.len() {
            sent += world.peer(client).connection.send_data(stream, &payload[sent..], true);
        }
        world.run();
        let (backend, there) = *to.get_or_insert_with(|| {
            let (backend, there, ..) = arrived(&mut world);
            world.peer(backend).releases = false;
            (backend, there)
        });
        let heard: Vec<_> = world.peer(backend).heard.drain(..).collect();
        let mut ended = false;
        for heard in heard {
            if let Heard::Data(_, data, ends) = heard {
                // It gives the window back late, and in parts: the relay has to keep some meanwhile.
                world.peer(backend).connection.release(there, data.len());
                got.extend(data);
                ended |= ends;
            }
        }
        if ended {
            assert!(got == payload);
            world.peer(backend).respond(there, &message(b"ok"), "0");
            return world.assert_clean();
        }
    }
    panic!("{sent} bytes were sent and {} came", got.len());
}
