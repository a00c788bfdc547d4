use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use evenkeel_relay::{
    driver::{Dialled, Settings},
    engine::{Closed, DialId},
};
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::{
    certificates::{Pair, localhost, pair},
    running::{Client, Running, pattern},
    toy::{PATIENCE, Then, Toy, echo},
};

const DIAL: DialId = DialId(9);

fn secured(toy: Toy, pair: &Pair) -> Running {
    Running::with(toy, Settings::default(), Some(&pair.server))
}

/// A client's end, by rustls' own blocking stream.
fn secure_client(running: &Running, pair: &Pair) -> StreamOwned<ClientConnection, TcpStream> {
    let connection = ClientConnection::new(Arc::clone(&pair.client), localhost()).unwrap();
    StreamOwned::new(connection, running.client().stream)
}

#[test]
fn clients_are_served_by_tls() {
    let pair = pair(&["h2"], &["h2"]);
    let running = secured(echo(), &pair);
    let mut client = secure_client(&running, &pair);
    client.write_all(b"in secret").unwrap();
    let mut heard = [0; 9];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"in secret");

    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut rest = Vec::new();
    // Fails, were there no close_notify from the other side too.
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    assert_eq!(running.stop().ended, [Closed::Eof]);
}

#[test]
fn large_transfers_go_through_tls_both_ways() {
    const LENGTH: usize = 4 << 20;
    let pair = pair(&["h2"], &["h2"]);
    let mut heard = 0;
    let running = secured(
        Toy::new(move |bytes, output| {
            heard += bytes.len();
            if heard < LENGTH {
                return Then::GoOn;
            }
            output.extend_from_slice(&pattern(LENGTH));
            Then::Close
        }),
        &pair,
    );
    let mut client = secure_client(&running, &pair);
    client.write_all(&pattern(LENGTH)).unwrap();
    running.until("the engine is done with it", |toy| toy.ended == [Closed::Done]);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert!(heard == pattern(LENGTH));
}

#[test]
fn a_slow_reader_leaves_its_output_with_the_engine() {
    const LENGTH: usize = 8 << 20;
    let pair = pair(&["h2"], &["h2"]);
    let running = secured(
        Toy::new(|_, output| {
            output.extend_from_slice(&pattern(LENGTH));
            Then::GoOn
        }),
        &pair,
    );
    let mut client = secure_client(&running, &pair);
    client.write_all(b"?").unwrap();
    running.until("the kernel takes no more", |toy| (1..LENGTH).contains(&toy.unwritten()));
    let mut heard = vec![0; LENGTH];
    client.read_exact(&mut heard).unwrap();
    assert!(heard == pattern(LENGTH));
    running.until("all is written", |toy| toy.unwritten() == 0);
}

#[test]
fn a_client_without_alpn_is_refused() {
    let pair = pair(&["h2"], &[]);
    let running = secured(echo(), &pair);
    let mut client = secure_client(&running, &pair);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty());
    assert_eq!(running.handle.counters().tls_failures.get(), 1);
    assert_eq!(running.stop().accepted, 0);
}

#[test]
fn a_client_that_offers_only_other_protocols_hears_why() {
    let pair = pair(&["h2"], &["http/1.1"]);
    let running = secured(echo(), &pair);
    let mut client = secure_client(&running, &pair);
    let error = client.write_all(b"x").expect_err("refused");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    assert_eq!(running.handle.counters().tls_failures.get(), 1);
    assert_eq!(running.stop().accepted, 0);
}

#[test]
fn a_client_that_speaks_no_tls_is_told_so() {
    let pair = pair(&["h2"], &["h2"]);
    let running = secured(echo(), &pair);
    let mut client = running.client();
    client.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let heard = client.hear_all();
    assert_eq!(heard.first(), Some(&21), "an alert: {heard:?}");
    assert_eq!(running.stop().accepted, 0);
}

#[test]
fn a_client_that_goes_away_in_the_handshake_costs_the_engine_nothing() {
    let pair = pair(&["h2"], &["h2"]);
    let running = secured(echo(), &pair);
    let mut client = running.client();
    client.say([22, 3, 1]);
    drop(client);
    running.client().reset();
    running.handle.drain();
    let failures = running.handle.clone();
    assert_eq!(running.join().accepted, 0);
    assert_eq!(failures.counters().tls_failures.get(), 2);
}

#[test]
fn a_handshake_that_does_not_go_on_is_given_up() {
    let pair = pair(&["h2"], &["h2"]);
    let mut settings = Settings::default();
    settings.handshake_timeout = Duration::from_millis(20);
    let running = Running::with(echo(), settings, Some(&pair.server));
    let mut silent = running.client();
    assert!(silent.hear_all().is_empty());
    assert_eq!(running.handle.counters().tls_failures.get(), 1);

    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(peer.local_addr().unwrap()).unwrap();
    running.handle.dialled(DIAL, Ok(Dialled::tcp(socket).with_tls(Arc::clone(&pair.client), localhost())));
    running.until(
        "it is told",
        |toy| matches!(&toy.dialled[..], [(DIAL, Err(why))] if why.contains("no handshake within 20ms")),
    );
}

#[test]
fn a_finished_handshake_is_not_timed_any_more() {
    let pair = pair(&["h2"], &["h2"]);
    let mut settings = Settings::default();
    settings.handshake_timeout = Duration::from_secs(1);
    let running = Running::with(echo(), settings, Some(&pair.server));
    let mut client = secure_client(&running, &pair);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let silent = running.client();
    // Its time is up after that of the first.
    Client::over(silent.stream).hear_all();
    client.write_all(b"y").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_server_is_spoken_to_by_tls() {
    let pair = pair(&["h2"], &["h2"]);
    let running = Running::start(echo());
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    running.handle.dialled(DIAL, Ok(Dialled::tcp(socket).with_tls(Arc::clone(&pair.client), localhost())));

    let mut peer = accept(&server, &pair);
    peer.write_all(b"from the server").unwrap();
    let mut heard = [0; 15];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"from the server");
    assert!(matches!(running.ask(|toy| toy.dialled.clone())[..], [(DIAL, Ok(_))]));
}

#[test]
fn a_server_that_cannot_be_trusted_or_speaks_no_http2_is_told_with_the_reason() {
    let (known, stranger, old) = (pair(&["h2"], &["h2"]), pair(&["h2"], &["h2"]), pair(&[], &["h2"]));
    for (theirs, ours, why) in [(&stranger, &known, "certificate"), (&old, &old, "no protocol was agreed on by ALPN")] {
        let running = Running::start(echo());
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        running.handle.dialled(DIAL, Ok(Dialled::tcp(socket).with_tls(Arc::clone(&ours.client), localhost())));
        let config = Arc::clone(&theirs.server);
        let peer = thread::spawn(move || {
            let connection = ServerConnection::new(config).unwrap();
            let mut peer = StreamOwned::new(connection, Client::over(server.accept().unwrap().0).stream);
            peer.read(&mut [0]).map_err(|error| error.kind())
        });
        running.until("it is told", move |toy| matches!(&toy.dialled[..], [(DIAL, Err(told))] if told.contains(why)));
        // An alert, or the end.
        assert!(matches!(peer.join().unwrap(), Ok(0) | Err(ErrorKind::InvalidData)));
    }
}

#[test]
fn a_damaged_record_ends_the_connection() {
    let pair = pair(&["h2"], &["h2"]);
    let running = secured(echo(), &pair);
    let mut client = secure_client(&running, &pair);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    client.sock.write_all(&[23, 3, 3, 0, 20]).unwrap();
    client.sock.write_all(&[0; 20]).unwrap();
    running.until("it is noticed", |toy| matches!(&toy.ended[..], [Closed::Failed(why)] if why.starts_with("TLS: ")));
    let error = client.read_to_end(&mut Vec::new()).expect_err("an alert");
    assert!(error.to_string().contains("alert"), "{error}");
}

fn accept(server: &TcpListener, pair: &Pair) -> StreamOwned<ServerConnection, TcpStream> {
    let stream = server.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(ServerConnection::new(Arc::clone(&pair.server)).unwrap(), stream)
}
