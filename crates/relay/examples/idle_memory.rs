//! What the event loop keeps for a connection that does nothing, in the clear and by TLS: growth of the resident set over
//! 1000 connections, without what an engine keeps for them.
//!
//! `cargo run --release -p evenkeel-relay --example idle_memory`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that measures and prints")]

#[path = "../tests/driver/certificates.rs"]
mod certificates;
#[path = "../tests/driver/toy.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod toy;

use std::{
    io::{Read, Write},
    mem,
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use certificates::{Pair, localhost, pair};
use evenkeel_relay::driver::{Listener, Settings, Worker};
use rustls::{ClientConnection, StreamOwned};

const CONNECTIONS: usize = 1000;

fn main() {
    let pair = pair(&["h2"], &["h2"]);
    let (clear, secure) = (serve(None), serve(Some(&pair)));
    println!("echoed before  in the clear  by TLS  (bytes a connection)");
    for echoed in [100, 32 * 1024] {
        let in_clear = growth(|| connect(clear, echoed));
        let by_tls = growth(|| connect_by_tls(secure, &pair, echoed));
        println!("{echoed:>13}  {in_clear:>12}  {by_tls:>6}");
    }
}

/// What each of many connections adds to the resident set.
fn growth(connect: impl Fn() -> TcpStream) -> usize {
    // What the first one needs is not counted. None is closed, so that no memory is used a second time.
    mem::forget(connect());
    let before = resident();
    (0..CONNECTIONS).map(|_| connect()).for_each(mem::forget);
    (resident() - before) / CONNECTIONS
}

fn serve(pair: Option<&Pair>) -> SocketAddr {
    let tls = pair.map(|pair| &pair.server);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 1, tls).unwrap().remove(0);
    let address = listener.local_addr();
    let (worker, _) = Worker::new(vec![listener], |_, _, _: &_| {}, Settings::default()).unwrap();
    worker.spawn(0, toy::echo).unwrap();
    address
}

fn connect(address: SocketAddr, echoed: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    play(&mut stream, echoed);
    stream
}

/// A connection whose near end's TLS is forgotten, so that what remains is the worker's.
fn connect_by_tls(address: SocketAddr, pair: &Pair, echoed: usize) -> TcpStream {
    let connection = ClientConnection::new(Arc::clone(&pair.client), localhost()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    play(&mut stream, echoed);
    stream.sock
}

/// One message there and back.
fn play(stream: &mut (impl Read + Write), length: usize) {
    let mut message = vec![7; length];
    stream.write_all(&message).unwrap();
    stream.read_exact(&mut message).unwrap();
}

/// Bytes of this process that are in memory, as Linux counts them.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}
