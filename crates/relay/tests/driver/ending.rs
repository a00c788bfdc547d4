use std::{
    io::ErrorKind,
    mem,
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use evenkeel_relay::{driver::Settings, engine::Closed};

use crate::{
    running::{Client, Running, pattern},
    toy::{PATIENCE, Then, Toy, deadline, echo},
};

/// Says `length` bytes and closes as soon as it hears anything.
fn curt(length: usize) -> Toy {
    let mut has_spoken = false;
    Toy::new(move |_, output| {
        if mem::replace(&mut has_spoken, true) {
            return Then::GoOn;
        }
        output.extend_from_slice(&pattern(length));
        Then::Close
    })
}

#[test]
fn a_client_that_says_no_more_still_hears_the_answer() {
    let running = Running::start(echo());
    let mut client = running.client();
    client.say("the last words");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.hear_all(), b"the last words");
    assert_eq!(running.stop().ended, [Closed::Eof]);
}

#[test]
fn the_end_comes_after_all_that_was_sent_before_it() {
    let running = Running::start(Toy::new(|bytes, output| {
        // All bytes so far, as a number of fixed length in place of the last one.
        let before = output.get(..8).map_or(0, |number| u64::from_be_bytes(number.try_into().unwrap()));
        *output = (before + bytes.len() as u64).to_be_bytes().to_vec();
        Then::GoOn
    }));
    let mut quiet = running.client();
    quiet.say(pattern(3 << 20));
    quiet.stream.shutdown(Shutdown::Write).unwrap();
    running.until("the client has gone", |toy| toy.open() == 0);
    assert_eq!(running.handle.counters().bytes_in.get(), 3 << 20);
}

#[test]
fn a_reset_is_told_as_one() {
    let running = Running::start(echo());
    let mut client = running.client();
    client.say("x");
    client.hear(1);
    client.reset();
    running.until("it is noticed", |toy| toy.open() == 0);
    let ended = running.stop().ended;
    assert_eq!(ended, [Closed::Reset]);
}

#[test]
fn last_words_are_heard_although_nothing_can_be_said_any_more() {
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let ears = Arc::clone(&heard);
    let running = Running::start(Toy::new(move |bytes, _| {
        ears.lock().unwrap().extend_from_slice(bytes);
        Then::GoOn
    }));
    let mut client = running.client();
    running.until("it is there", |toy| toy.open() == 1);
    // The worker sees to this look at its engine before it learns what has become of the client meanwhile.
    running.ask(move |toy| {
        client.say("the last words");
        client.reset();
        let key = toy.keys()[0];
        toy.say(key, b"anybody there?");
    });
    running.until("it is noticed", |toy| toy.open() == 0);
    assert_eq!(*heard.lock().unwrap(), b"the last words");
    assert_eq!(running.stop().ended, [Closed::Reset]);
}

#[test]
fn a_closed_connection_gets_its_rest_at_the_readers_pace() {
    const LENGTH: usize = 8 << 20;
    let running = Running::start(curt(LENGTH));
    let mut client = running.client();
    client.say("?");
    running.until("the engine is done with it", |toy| toy.ended == [Closed::Done]);
    assert!(client.hear_all() == pattern(LENGTH));
}

#[test]
fn last_words_are_read_although_the_client_goes_on_talking() {
    let running = Running::start(curt(1000));
    let mut client = running.client();
    client.say(pattern(1 << 20));
    client.say(pattern(1 << 20));
    // Closing a socket with bytes that nobody has read would have made this fail by a reset.
    assert!(client.hear_all() == pattern(1000));
}

#[test]
fn a_client_that_never_reads_its_rest_is_dropped() {
    let mut settings = Settings::default();
    settings.flush_timeout = Duration::from_millis(30);
    let running = Running::with(curt(24 << 20), settings, None);
    let mut client = running.client();
    client.say("?");
    running.until("the engine is done with it", |toy| toy.ended.len() == 1);
    running.handle.drain();
    running.join();
}

#[test]
fn a_client_that_never_closes_is_dropped() {
    let mut settings = Settings::default();
    settings.linger = Duration::from_millis(30);
    let running = Running::with(curt(10), settings, None);
    let mut client = running.client();
    client.say("?");
    assert_eq!(client.hear_all().len(), 10);
    // It is there, and so it counts, until it has lingered long enough.
    running.handle.drain();
    running.join();
    drop(client);
}

#[test]
fn too_many_clients_are_closed_at_once() {
    let mut settings = Settings::default();
    settings.max_connections = 2;
    let running = Running::with(echo(), settings, None);
    let mut kept = [running.client(), running.client()];
    for client in &mut kept {
        client.say("x");
        client.hear(1);
    }
    assert!(running.client().hear_all().is_empty());
    let counters = running.handle.counters();
    assert_eq!((counters.accepted.get(), counters.refused.get()), (2, 1));

    drop(kept);
    running.until("there is room again", |toy| toy.open() == 0);
    let mut client = running.client();
    client.say("y");
    assert_eq!(client.hear(1), b"y");
}

#[test]
fn a_drain_says_goodbye_and_waits_for_the_last_client() {
    let running = Running::start(echo());
    let mut client = running.client();
    client.say("x");
    client.hear(1);
    running.handle.drain();
    assert_eq!(client.hear(7), b"goodbye");
    client.say("still here");
    assert_eq!(client.hear(10), b"still here");

    let address = running.address;
    let refused = TcpStream::connect(address).expect_err("it listens no more");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    drop(client);
    assert_eq!(running.join().ended, [Closed::Eof]);
}

#[test]
fn who_was_connecting_when_the_drain_began_is_sent_away_in_good_order() {
    let running = Running::start(echo());
    // While this look at the engine lasts, a client connects and the drain is asked for.
    let (address, handle) = (running.address, running.handle.clone());
    let mut client = running.ask(move |_| {
        let client = TcpStream::connect(address).unwrap();
        handle.drain();
        Client::over(client)
    });
    assert_eq!(client.hear(7), b"goodbye");
    drop(client);
    assert_eq!(running.join().accepted, 1);
}

#[test]
fn a_stop_ends_the_worker_whoever_is_connected() {
    let running = Running::start(echo());
    let mut client = running.client();
    client.say("x");
    client.hear(1);
    running.handle.stop();
    running.handle.drain();
    let handle = running.handle.clone();
    assert_eq!(running.join().open(), 1);
    assert!(client.hear_all().is_empty());
    // Nobody hears this.
    handle.refresh();
}

#[test]
fn an_idle_worker_takes_no_turns() {
    let running = Running::start(echo());
    let clients: Vec<_> = (0..10).map(|_| running.client()).collect();
    running.until("all are in", |toy| toy.open() == 10);
    let (turns, deadline) = (running.handle.counters().turns.get(), deadline());
    // A look a turn, and no turn without one: whoever spins would have taken thousands meanwhile.
    for _ in 0..100 {
        running.ask(|_| ());
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
    }
    assert!(running.handle.counters().turns.get() <= turns + 101);
    drop(clients);
}
