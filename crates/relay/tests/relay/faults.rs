//! What becomes of calls when backends and clients fail.

use std::time::Duration;

use evenkeel_balance::{Code, Input};
use evenkeel_relay::{connection::StreamKey, engine::Engine, frame::ErrorCode};

use crate::world::{Heard, World, backend};

const RETRIES: &str = r#"{"methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#;

pub(crate) const HEDGES: &str = r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {
    "maxAttempts": 2, "hedgingDelay": "0.1s", "nonFatalStatusCodes": ["UNAVAILABLE"]}}]}"#;

/// The calls that have come to backends: where, and on which stream.
pub(crate) fn arrivals(world: &mut World) -> Vec<(u32, StreamKey)> {
    world.run();
    let mut found = Vec::new();
    for peer in world.peers.values_mut().filter(|peer| peer.address.is_some()) {
        let key = peer.key.slot();
        peer.heard.retain(|heard| match heard {
            Heard::Head(stream, ..) => {
                found.push((key, *stream));
                false
            }
            _ => true,
        });
    }
    found
}

pub(crate) fn status(world: &mut World, client: u32) -> Option<String> {
    world.run();
    let heard: Vec<_> = world.peer(client).heard.drain(..).collect();
    heard.iter().rev().find_map(|heard| {
        let (Heard::Head(_, fields, true) | Heard::Trailers(_, fields)) = heard else { return None };
        fields.iter().find(|(name, _)| name == "grpc-status").map(|(_, value)| value.clone())
    })
}

#[test]
fn a_killed_backend_fails_what_it_may_have_processed_and_nothing_else() {
    let mut world = World::new(2, "{}");
    let client = world.client();
    world.run();
    for _ in 0..10 {
        world.call(client, true);
    }
    let running = arrivals(&mut world);
    assert_eq!(running.len(), 10);
    let victim = world.backends(0)[0];
    world.balance.borrow_mut().down.insert(backend(0));
    world.down.insert(backend(0));
    world.kill(victim);
    // Later ones go to the other, whatever the balancer knows yet.
    for _ in 0..10 {
        world.call(client, true);
    }
    for (peer, stream) in arrivals(&mut world).into_iter().chain(running) {
        if peer != victim {
            world.peer(peer).refuse(stream, "0");
        }
    }
    world.run();
    let heard: Vec<_> = world.peer(client).heard.drain(..).collect();
    let count = |status: &str| {
        let has = |heard: &&Heard| matches!(heard, Heard::Head(_, fields, true) if fields.contains(&("grpc-status".to_owned(), status.to_owned())));
        heard.iter().filter(has).count()
    };
    assert_eq!((count("14"), count("0")), (5, 15));
    world.assert_clean();
    assert!(world.balance.borrow().told.iter().any(|input| matches!(input, Input::Disconnected(..) | Input::Lost(..))));
}

#[test]
fn calls_that_a_goaway_leaves_behind_go_elsewhere_without_a_trace() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let first = world.backends(0)[0];
    world.call(client, true);
    let (_, old) = arrivals(&mut world)[0];
    // It leaves before it has seen what is on its way now.
    let now = world.now;
    world.peer(first).connection.drain(now);
    world.peer(first).connection.close(ErrorCode::NO_ERROR);
    world.call(client, true);
    let again = arrivals(&mut world);
    assert_eq!(again.len(), 1, "on a connection that was made anew");
    assert_ne!(again[0].0, first);
    world.peer(again[0].0).refuse(again[0].1, "0");
    world.run();
    assert_eq!(status(&mut world, client), Some("0".to_owned()));
    let _ = old;
}

#[test]
fn a_refused_stream_is_tried_once_more_and_then_passed_on() {
    let mut world = World::new(2, "{}");
    let client = world.client();
    world.run();
    let stream = world.call(client, true);
    let [(first, there)] = arrivals(&mut world)[..] else { panic!("one call") };
    world.peer(first).connection.reset(there, ErrorCode::REFUSED_STREAM);
    let [(second, there)] = arrivals(&mut world)[..] else { panic!("it is tried again") };
    assert_ne!(first, second, "on another backend");
    world.peer(second).connection.reset(there, ErrorCode::REFUSED_STREAM);
    assert_eq!(world.heard(client), Some(Heard::Reset(stream, ErrorCode::REFUSED_STREAM)));
    world.assert_clean();
    assert_eq!(world.balance.borrow().ended[0].1.transparent, 1);
}

#[test]
fn retries_follow_the_service_config() {
    let mut world = World::new(3, RETRIES);
    let client = world.client();
    world.run();
    let stream = world.call(client, false);
    world.peer(client).connection.send_data(stream, &[0, 0, 0, 0, 1, 9], true);
    for attempt in 0..3 {
        let [(peer, there)] = arrivals(&mut world)[..] else { panic!("attempt {attempt}") };
        assert_eq!(world.heard(peer), Some(Heard::Data(there, vec![0, 0, 0, 0, 1, 9], true)), "the request goes along");
        world.peer(peer).refuse(there, "14");
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(status(&mut world, client), Some("14".to_owned()), "the last answer is the client's");
    world.assert_clean();
    let balance = world.balance.borrow();
    assert_eq!(balance.attempts, [Code::Unavailable; 3]);
    assert_eq!(balance.ended[0].1.retries, 2);
}

#[test]
fn a_response_that_has_begun_is_not_tried_again() {
    let mut world = World::new(2, RETRIES);
    let client = world.client();
    world.run();
    world.call(client, true);
    let [(peer, there)] = arrivals(&mut world)[..] else { panic!("one call") };
    world.peer(peer).respond_head(there);
    world.run();
    world.kill(peer);
    assert_eq!(status(&mut world, client), Some("14".to_owned()));
    world.pass(Duration::from_secs(1));
    assert!(arrivals(&mut world).is_empty());
    world.assert_clean();
}

#[test]
fn the_first_good_answer_of_hedges_counts() {
    let mut world = World::new(2, HEDGES);
    let client = world.client();
    world.run();
    let stream = world.call(client, false);
    world.peer(client).connection.send_data(stream, &[0, 0, 0, 0, 1, 9], false);
    let [(first, slow)] = arrivals(&mut world)[..] else { panic!("one attempt") };
    world.pass(Duration::from_millis(150));
    let [(second, quick)] = arrivals(&mut world)[..] else { panic!("a hedge") };
    assert_ne!(first, second);
    world.peer(client).connection.send_data(stream, &[], true);
    world.run();
    for peer in [first, second] {
        let data: Vec<_> = world.peer(peer).heard.drain(..).collect();
        assert!(matches!(data.last(), Some(Heard::Data(_, _, true))), "each gets the whole request: {data:?}");
    }
    world.peer(second).respond(quick, &[0, 0, 0, 0, 0], "0");
    assert_eq!(world.heard(first), Some(Heard::Reset(slow, ErrorCode::CANCEL)));
    assert_eq!(status(&mut world, client), Some("0".to_owned()));
    world.assert_clean();
    assert_eq!(world.balance.borrow().ended[0].1.hedges, 1);
}

#[test]
fn a_backend_that_hangs_is_found_out_and_heard_again() {
    let mut world = World::new(2, "{}");
    let client = world.client();
    world.run();
    let hung = world.backends(0)[0];
    world.peer(hung).hangs = true;
    for _ in 0..4 {
        world.call(client, true);
    }
    world.pass(Duration::from_millis(400));
    let stalled = |input: &Input| matches!(input, Input::Stalled(..));
    assert_eq!(world.balance.borrow().told.iter().filter(|input| stalled(input)).count(), 1);
    arrivals(&mut world);
    for _ in 0..4 {
        world.call(client, true);
    }
    let later = arrivals(&mut world);
    assert!(later.len() == 4 && later.iter().all(|(peer, _)| *peer != hung), "calls go to the other");
    assert_eq!(world.suspects(), 0, "a new connection has taken its place");
    world.peer(hung).hangs = false;
    let output = {
        let key = world.peer(hung).key;
        world.relay.output(key).len()
    };
    assert!(output > 0, "what was sent meanwhile is still there");
}

#[test]
fn a_slow_backend_is_suspect_until_it_answers_a_ping() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    let slow = world.backends(0)[0];
    world.call(client, true);
    let (_, there) = arrivals(&mut world)[0];
    world.peer(slow).hangs = true;
    world.pass(Duration::from_millis(150));
    assert_eq!(world.suspects(), 1);
    world.wake(slow);
    world.pass(Duration::from_millis(50));
    assert_eq!(world.suspects(), 0);
    world.peer(slow).refuse(there, "0");
    world.assert_clean();
}

#[test]
fn a_client_that_goes_takes_its_calls_with_it() {
    let mut world = World::new(2, "{}");
    let (client, other) = (world.client(), world.client());
    world.run();
    for _ in 0..6 {
        world.call(client, false);
    }
    world.call(other, true);
    let running = arrivals(&mut world);
    assert_eq!(running.len(), 7);
    world.kill(client);
    world.run();
    let resets: usize = world
        .peers
        .values()
        .map(|peer| peer.heard.iter().filter(|heard| matches!(heard, Heard::Reset(_, ErrorCode::CANCEL))).count())
        .sum();
    assert_eq!((resets, world.relay.running()), (6, 1));
}

#[test]
fn a_drain_lets_calls_finish() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    world.call(client, true);
    let [(peer, there)] = arrivals(&mut world)[..] else { panic!("one call") };
    let now = world.now;
    world.relay.drain(now);
    world.run();
    assert!(!world.relay.is_idle());
    world.peer(peer).refuse(there, "0");
    world.run();
    assert_eq!(status(&mut world, client), Some("0".to_owned()));
    world.pass(Duration::from_secs(2));
    assert!(world.relay.is_idle());
}

#[test]
fn retries_stop_where_the_throttle_says_so() {
    let throttled = RETRIES.replacen('{', r#"{"retryThrottling": {"maxTokens": 2, "tokenRatio": 0.1},"#, 1);
    let mut world = World::new(2, &throttled);
    let client = world.client();
    world.run();
    world.call(client, true);
    let [(peer, there)] = arrivals(&mut world)[..] else { panic!("one call") };
    world.peer(peer).refuse(there, "14");
    assert_eq!(status(&mut world, client), Some("14".to_owned()), "one failure has spent half of the tokens");
    world.assert_clean();
}
