use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use evenkeel_balance::Time;
use evenkeel_relay::driver::{Listener, Settings, Worker};
use socket2::{Domain, Socket, Type};

use crate::{
    running::{Client, Running, pattern},
    toy::{Then, Toy, echo},
};

const LARGE: usize = 8 << 20;

/// Says a lot to whatever it hears.
fn talkative() -> Toy {
    Toy::new(|_, output| {
        output.extend_from_slice(&pattern(LARGE));
        Then::GoOn
    })
}

/// A client whose kernel takes hardly anything that it has not read.
fn small_client(address: SocketAddr) -> Client {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::over(TcpStream::from(socket))
}

#[test]
fn many_connections_are_served_side_by_side() {
    let running = Running::start(echo());
    let mut clients: Vec<_> = (0..200).map(|_| running.client()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.say(format!("{round}:{number:05}"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.hear(7), format!("{round}:{number:05}").as_bytes());
        }
    }
    assert_eq!(running.ask(|toy| (toy.accepted, toy.open())), (200, 200));
    let counters = running.handle.counters();
    assert_eq!((counters.accepted.get(), counters.bytes_in.get(), counters.bytes_out.get()), (200, 4200, 4200));
    drop(clients);
    running.until("all have gone", |toy| toy.open() == 0);
}

#[test]
fn workers_share_a_port() {
    let listeners = Listener::bind("127.0.0.1:0".parse().unwrap(), 3, None).unwrap();
    let address = listeners[0].local_addr();
    assert!(address.port() != 0 && listeners.iter().all(|listener| listener.local_addr() == address));
    let no_dials = |_, _, _: &_| panic!("nobody dials here");
    let workers =
        listeners.into_iter().map(|listener| Running::listening(echo(), Settings::default(), listener, no_dials));
    let workers: Vec<_> = workers.collect();
    let mut clients: Vec<_> = (0..60).map(|_| workers[0].client()).collect();
    for client in &mut clients {
        client.say("hello");
        assert_eq!(client.hear(5), b"hello");
    }
    let accepted: Vec<_> = workers.into_iter().map(|worker| worker.stop().accepted).collect();
    assert_eq!(accepted.iter().sum::<usize>(), 60);
    assert!(accepted.iter().all(|accepted| *accepted > 0), "the kernel deals them out: {accepted:?}");
}

#[test]
fn a_slow_reader_gets_everything_and_holds_up_nobody() {
    let running = Running::start(talkative());
    let mut slow = small_client(running.address);
    slow.say("?");
    running.until("the kernel takes no more", |toy| (1..LARGE).contains(&toy.unwritten()));

    let mut other = running.client();
    other.say("?");
    assert!(other.hear(LARGE) == pattern(LARGE));
    assert!(running.ask(|toy| toy.unwritten()) > 0, "the slow one has not read yet");

    assert!(slow.hear(LARGE) == pattern(LARGE));
    running.until("all is written", |toy| toy.unwritten() == 0);
}

#[test]
fn what_is_said_meanwhile_is_heard_while_output_waits() {
    let mut heard = 0;
    let running = Running::start(Toy::new(move |bytes, output| {
        heard += bytes.len();
        if heard == bytes.len() {
            output.extend_from_slice(&pattern(LARGE));
        }
        output.extend_from_slice(format!("[{heard}]").as_bytes());
        Then::GoOn
    }));
    let mut client = small_client(running.address);
    client.say("a");
    running.until("the kernel takes no more", |toy| (1..LARGE).contains(&toy.unwritten()));
    let waiting = running.ask(|toy| toy.unwritten());
    client.say("b");
    running.until("the second is heard", move |toy| toy.unwritten() == waiting + 3);
    client.hear(LARGE);
    assert_eq!(client.hear(6), b"[1][2]");
}

#[test]
fn a_large_input_is_read_in_shares() {
    let mut settings = Settings::default();
    (settings.read_buffer, settings.read_cap) = (1000, 1500);
    let running = Running::with(echo(), settings, None);
    let client = running.client();
    let mut writer = Client::over(client.stream.try_clone().unwrap());
    let writing = thread::spawn(move || writer.say(pattern(1 << 20)));
    let mut reader = client;
    assert!(reader.hear(1 << 20) == pattern(1 << 20));
    writing.join().unwrap();
}

#[test]
fn an_engine_is_called_when_its_time_has_come() {
    let settings = Settings::default();
    let running = Running::with(echo(), settings.clone(), None);
    running.ask(move |toy| toy.timeout = Some(Time::ZERO + settings.epoch.elapsed() + Duration::from_millis(20)));
    // Nothing but the deadline wakes the worker here.
    let turns = running.handle.counters().turns.get();
    while running.handle.counters().turns.get() < turns + 1 {
        thread::yield_now();
    }
    running.until("it has been called", |toy| toy.timed_out.is_some());
}

#[test]
fn messages_reach_the_engine() {
    let running = Running::start(echo());
    running.handle.refresh();
    running.handle.clone().refresh();
    assert_eq!(running.ask(|toy| toy.refreshed), 2);
}

#[test]
#[should_panic(expected = "reads nothing")]
fn a_worker_without_a_buffer_is_refused() {
    let mut settings = Settings::default();
    settings.read_buffer = 0;
    let _ = Worker::<Toy>::new(Vec::new(), |_, _, _: &_| {}, settings);
}
