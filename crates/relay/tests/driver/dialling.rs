use std::{
    net::TcpListener,
    os::unix::net::UnixStream,
    sync::{Arc, OnceLock},
    thread,
};

use evenkeel_balance::{
    Action as Errand, Balancer, ConnectionId, ConnectionSettings, Endpoint, Input, LbConfig, Policies, Time,
};
use evenkeel_relay::{
    driver::{Dialled, Handle, Listener, Settings},
    engine::{Action, Closed, DialId},
};

use crate::{
    running::{Client, Running},
    toy::{Toy, echo},
};

const DIAL: DialId = DialId(7);

/// A connection as the balancer names it: there is no other way to come by one.
fn a_connection() -> ConnectionId {
    let config = LbConfig::of("round_robin");
    let mut balancer = Balancer::new(Policies::standard(), &config, ConnectionSettings::default(), 1).unwrap();
    let endpoint = Endpoint::new("127.0.0.1:1".parse::<std::net::SocketAddr>().unwrap());
    balancer.handle(Time::ZERO, Input::Resolved([endpoint].into()));
    loop {
        if let Some(Errand::Connect { connection, .. }) = balancer.poll_action(Time::ZERO) {
            return connection;
        }
    }
}

#[test]
fn the_host_dials_and_hands_the_socket_over() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let reach: Arc<OnceLock<Handle<Toy>>> = Arc::default();
    let host = {
        let reach = Arc::clone(&reach);
        move |dial, _, address: &evenkeel_balance::Address| {
            let evenkeel_balance::Address::Tcp(address) = *address else { panic!("not by TCP: {address}") };
            let handle = reach.get().unwrap().clone();
            thread::spawn(move || {
                let outcome = std::net::TcpStream::connect(address).map(Dialled::tcp);
                handle.dialled(dial, outcome.map_err(|error| error.to_string()));
            });
        }
    };
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 1, None).unwrap().remove(0);
    let running = Running::listening(echo(), Settings::default(), listener, host);
    reach.set(running.handle.clone()).unwrap();

    let action = Action::Dial { dial: DIAL, connection: a_connection(), address: address.into() };
    running.ask(move |toy| toy.actions.push_back(action));
    let mut peer = Client::over(server.accept().unwrap().0);
    peer.say("from the server");
    assert_eq!(peer.hear(15), b"from the server");
    assert!(matches!(running.ask(|toy| toy.dialled.clone())[..], [(DIAL, Ok(_))]));
    running.stop();
}

#[test]
fn sockets_of_either_kind_are_taken_over() {
    let running = Running::start(echo());
    let (ours, theirs) = UnixStream::pair().unwrap();
    running.handle.dialled(DIAL, Ok(Dialled::unix(theirs)));
    let key = running.ask(|toy| toy.dialled[0].1.clone().unwrap());
    running.ask(move |toy| toy.say(key, b"hello"));
    let mut heard = [0; 5];
    std::io::Read::read_exact(&mut &ours, &mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    drop(ours);
    running.until("it has ended", |toy| toy.ended == [Closed::Eof]);
}

#[test]
fn a_failed_dial_is_told() {
    let running = Running::start(echo());
    running.handle.dialled(DIAL, Err("nobody is there".to_owned()));
    assert_eq!(running.ask(|toy| toy.dialled.clone()), [(DIAL, Err("nobody is there".to_owned()))]);
}

#[test]
fn a_socket_that_nobody_wants_any_longer_is_closed() {
    let running = Running::start(echo());
    running.ask(|toy| toy.unwanted.push(DIAL));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
    running.handle.dialled(DIAL, Ok(Dialled::tcp(ours)));
    assert!(Client::over(server.accept().unwrap().0).hear_all().is_empty());
    assert_eq!(running.stop().open(), 0);
}

#[test]
fn connections_to_servers_do_not_hold_up_a_drain() {
    let running = Running::start(echo());
    let (ours, theirs) = UnixStream::pair().unwrap();
    running.handle.dialled(DIAL, Ok(Dialled::unix(theirs)));
    running.until("it is there", |toy| toy.open() == 1);
    running.handle.drain();
    running.join();
    drop(ours);
}
