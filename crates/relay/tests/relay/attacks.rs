//! What one peer does must not be felt by the calls of another.

use std::time::Duration;

use evenkeel_balance::Input;
use evenkeel_relay::{connection, engine::Engine, relay::Settings};

use crate::{
    faults::{HEDGES, arrivals, status},
    world::{Heard, World, backend},
};

/// A backend that allows so many streams at once.
fn narrow(streams: u32) -> connection::Settings {
    let mut settings = connection::Settings::default();
    settings.max_concurrent_streams = streams;
    settings
}

/// As many connections to an endpoint as this.
fn connections(most: usize) -> Settings {
    let mut settings = Settings::default();
    settings.max_connections = most;
    settings
}

/// Endpoints are connected anew, as backends of the world's present settings.
fn anew(world: &mut World, backends: u16) {
    world.resolve(std::iter::empty());
    world.run();
    world.resolve((0..backends).map(backend));
    world.run();
}

fn message(byte: u8) -> [u8; 6] {
    [0, 0, 0, 0, 1, byte]
}

#[test]
fn a_hedge_in_line_does_not_start_once_the_call_has_its_answer() {
    let mut world = World::with(1, HEDGES, connections(1));
    world.backend_settings = narrow(1);
    anew(&mut world, 1);
    let client = world.client();
    world.run();
    world.call(client, true);
    let [(peer, there)] = arrivals(&mut world)[..] else { panic!("one attempt") };
    world.pass(Duration::from_millis(150));
    assert!(arrivals(&mut world).is_empty(), "the hedge stands in line for a stream");
    world.peer(peer).respond(there, &message(1), "0");
    world.run();
    assert!(arrivals(&mut world).is_empty(), "nobody needs the hedge any more");
    assert_eq!(status(&mut world, client), Some("0".to_owned()));
    world.assert_clean();
}

#[test]
fn a_hedge_in_line_does_not_answer_into_a_response_that_has_begun() {
    let mut world = World::with(2, HEDGES, connections(1));
    world.backend_settings = narrow(1);
    anew(&mut world, 2);
    let (client, other) = (world.client(), world.client());
    world.run();
    // One backend is taken by somebody else's call, the hedge waits for it.
    world.call(other, false);
    let [(taken, stream)] = arrivals(&mut world)[..] else { panic!("one attempt") };
    world.peer(taken).respond_head(stream);
    world.call(client, true);
    let [(first, there)] = arrivals(&mut world)[..] else { panic!("one attempt") };
    world.pass(Duration::from_millis(150));
    arrivals(&mut world);
    world.peer(first).respond_head(there);
    world.run();
    world.peer(taken).connection.send_trailers(stream, std::iter::empty());
    world.run();
    for (peer, there) in arrivals(&mut world) {
        world.peer(peer).respond(there, &message(2), "0");
    }
    world.run();
    world.peer(first).connection.send_data(there, &message(1), false);
    world.run();
    let data: Vec<_> = world.peer(client).heard.iter().filter(|heard| matches!(heard, Heard::Data(..))).collect();
    assert!(matches!(data[..], [Heard::Data(_, data, _)] if data[..] == message(1)), "{data:?}");
}

#[test]
fn attempts_in_two_lines_both_go_out() {
    let mut world = World::with(2, HEDGES, connections(1));
    world.backend_settings = narrow(1);
    anew(&mut world, 2);
    let (client, other) = (world.client(), world.client());
    world.run();
    let blockers = [world.call(other, true), world.call(other, true)];
    let running = arrivals(&mut world);
    assert_eq!(running.len(), 2);
    for (peer, stream) in &running {
        world.peer(*peer).respond_head(*stream);
    }
    world.call(client, true);
    world.pass(Duration::from_millis(250));
    assert!(arrivals(&mut world).is_empty(), "both attempts stand in line");
    for (peer, stream) in running {
        world.peer(peer).connection.send_trailers(stream, std::iter::empty());
    }
    world.run();
    let attempts = arrivals(&mut world);
    assert_eq!(attempts.len(), 2);
    assert_ne!(attempts[0].0, attempts[1].0);
    for (peer, stream) in attempts {
        world.peer(peer).refuse(stream, "14");
    }
    world.run();
    assert_eq!(status(&mut world, client), Some("14".to_owned()), "the call ends with its last attempt");
    world.assert_clean();
    let _ = blockers;
}

#[test]
fn a_request_that_is_sent_on_for_good_is_not_begun_in_the_middle_by_a_hedge() {
    let mut world = World::with(2, HEDGES, connections(1));
    world.backend_settings = narrow(1);
    anew(&mut world, 2);
    let (client, other) = (world.client(), world.client());
    world.run();
    world.call(other, true);
    let [(taken, blocker)] = arrivals(&mut world)[..] else { panic!("one attempt") };
    world.peer(taken).respond_head(blocker);
    let stream = world.call(client, false);
    let [(_, _)] = arrivals(&mut world)[..] else { panic!("one attempt") };
    world.pass(Duration::from_millis(150));
    let long = [&[0, 0, 2, 0, 0][..], &vec![7; 0x2_0000]].concat();
    let mut sent = 0;
    while sent < long.len() {
        let taken = world.peer(client).connection.send_data(stream, &long[sent..], false);
        assert!(taken > 0, "the request flows");
        sent += taken;
        world.run();
    }
    world.peer(taken).connection.send_trailers(blocker, std::iter::empty());
    world.run();
    let begun = world.peer(taken).heard.iter().find_map(|heard| match heard {
        Heard::Data(_, data, _) => Some(data[..5].to_vec()),
        _ => None,
    });
    assert!(begun.is_none_or(|prefix| prefix == long[..5]), "a request starts with its start");
}

#[test]
fn calls_in_line_go_out_as_soon_as_the_server_allows_more_streams() {
    let mut world = World::with(1, "{}", connections(1));
    let client = world.client();
    world.run();
    let peer = world.backends(0)[0];
    let (key, now) = (world.peer(peer).key, world.now);
    // SETTINGS_MAX_CONCURRENT_STREAMS
    let settings = |streams: u8| [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, streams];
    world.relay.receive(now, key, &settings(0));
    for _ in 0..3 {
        world.call(client, true);
    }
    assert!(arrivals(&mut world).is_empty());
    world.relay.receive(now, key, &settings(2));
    assert_eq!(arrivals(&mut world).len(), 2);
}

#[test]
fn calls_in_line_get_as_many_connections_as_they_need() {
    let mut world = World::with(1, "{}", connections(16));
    world.backend_settings = narrow(2);
    anew(&mut world, 1);
    let client = world.client();
    world.run();
    // They all come before another connection can be there.
    for _ in 0..10 {
        world.call(client, true);
    }
    assert_eq!(arrivals(&mut world).len(), 10, "none waits for a stream to end");
    assert_eq!(world.backends(0).len(), 5);
}

#[test]
fn calls_in_line_go_out_once_the_endpoint_reads_again() {
    let mut world = World::with(1, "{}", connections(1));
    anew(&mut world, 1);
    let client = world.client();
    world.run();
    let peer = world.backends(0)[0];
    world.peer(peer).hangs = true;
    let large = "x".repeat(8000);
    for _ in 0..60 {
        world.call_with(client, &[("large", &large)], true);
        world.run();
    }
    world.peer(peer).hangs = false;
    let key = world.peer(peer).key;
    let (now, output) = (world.now, world.relay.output(key).to_vec());
    assert!(output.len() >= 200_000);
    world.hear(peer, &output);
    world.relay.wrote(now, key, output.len());
    assert_eq!(arrivals(&mut world).len(), 60);
}

#[test]
fn an_endpoint_that_never_speaks_http2_is_told_to_the_balancer() {
    let mut world = World::new(1, "{}");
    let peer = world.backends(0)[0];
    world.kill(peer);
    world.mute = true;
    world.balance.borrow_mut().told.clear();
    anew(&mut world, 1);
    world.pass(Duration::from_secs(6));
    let lost = |input: &Input| matches!(input, Input::Disconnected(..) | Input::Lost(..));
    assert!(world.balance.borrow().told.iter().any(lost), "the balancer has to look for itself");
}

#[test]
fn whoever_makes_the_relay_keep_most_pays_for_it() {
    let mut settings = Settings::default();
    // No more than what sixteen calls keep.
    let most = 16 * (0xFFFF - 1000) + 3;
    settings.max_held = most;
    let mut world = World::with(1, "{}", settings);
    let mut small_window = connection::Settings::default();
    small_window.stream_window = 1000;
    let (greedy, modest) = (world.client_with(&small_window), world.client());
    world.run();
    world.peer(greedy).releases = false;
    for _ in 0..16 {
        world.call(greedy, true);
    }
    let piece = [&[0, 0, 1, 0, 0][..], &vec![7; 0x1_0000 - 6]].concat();
    for (peer, stream) in arrivals(&mut world) {
        world.peer(peer).respond_head(stream);
        world.peer(peer).connection.send_data(stream, &piece, false);
        world.run();
    }
    for _ in 0..5 {
        let stream = world.call(modest, false);
        world.peer(modest).connection.send_data(stream, &message(1), true);
        world.run();
        world.peer(modest).heard.clear();
        let [(peer, there)] = arrivals(&mut world)[..] else { panic!("the modest one's call gets through") };
        world.peer(peer).respond(there, &message(2), "0");
        assert_eq!(status(&mut world, modest), Some("0".to_owned()));
    }
    assert!(world.relay.held() <= most);
    assert_eq!(world.relay.counters().held_too_much, 1);
}

#[test]
fn deadlines_that_follow_close_upon_each_other_are_looked_for_together() {
    let mut world = World::new(1, "{}");
    let client = world.client();
    world.run();
    for _ in 0..500 {
        world.call(client, false);
    }
    world.run();
    let (mut looks, start) = (0, world.now);
    for n in 0..400 {
        world.call_with(client, &[("grpc-timeout", "100u")], true);
        world.run();
        world.now = start + Duration::from_micros(20 * n);
        if world.relay.next_timeout().is_some_and(|at| at <= world.now) {
            looks += 1;
            let now = world.now;
            world.relay.handle_timeout(now);
        }
    }
    assert!((1..=20).contains(&looks), "{looks}");
    assert!(world.relay.counters().timed_out > 300);
}

#[test]
fn a_head_that_its_backend_does_not_take_is_not_sent() {
    let mut world = World::new(1, "{}");
    world.backend_settings.max_header_list = 4000;
    anew(&mut world, 1);
    let client = world.client();
    world.run();
    let large = "x".repeat(4000);
    for (value, expected) in [(&large[..], "8"), ("small", "0")] {
        world.call_with(client, &[("large", value)], true);
        for (peer, stream) in arrivals(&mut world) {
            world.peer(peer).refuse(stream, "0");
        }
        assert_eq!(status(&mut world, client), Some(expected.to_owned()));
    }
    assert_eq!(world.backends(0).len(), 1);
    world.assert_clean();
}
