//! Measures what a unary call costs in two connections, one of either role, without sockets: `cargo run --release -p
//! evenkeel-relay --example connection`.
//!
//! A call is a request of a head and one DATA frame, and a response of a head, one DATA frame and trailers; each is
//! encoded by one connection and decoded by the other. The line without HPACK is the whole less what the same header
//! blocks cost alone.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "it is a measurement, read by a person")]

use std::{hint::black_box, rc::Rc, time::Instant};

use evenkeel_balance::Time;
use evenkeel_relay::{
    connection::{Connection, Event, Role, Settings, StreamKey},
    fields::{Field, Fields},
    hpack::{Decoder, Encoder, ListLimits},
};

const REQUEST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/helloworld.Greeter/SayHello"),
    (":authority", "localhost:50051"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.66.0"),
    ("te", "trailers"),
    ("grpc-timeout", "1S"),
];
const RESPONSE: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
const TRAILERS: &[(&str, &str)] = &[("grpc-status", "0"), ("grpc-message", "")];
const MESSAGE: [u8; 60] = [7; 60];
const ROUNDS: u32 = 20_000;

fn main() {
    let blocks = measure_hpack();
    println!("the blocks alone: {blocks:.0} ns a call");
    for streams in [1, 100] {
        let nanos = measure_calls(streams);
        println!("{streams} streams at once: {nanos:.0} ns a call, {:.0} ns without HPACK", nanos - blocks);
    }
    println!("a connection is {} bytes", size_of::<Connection>());
}

fn fields(list: &[(&'static str, &'static str)]) -> impl Iterator<Item = Field<'static>> {
    list.iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()))
}

fn measure_hpack() -> f64 {
    let mut tables = [(); 2].map(|()| (Encoder::new(4096), Decoder::new(4096)));
    let (mut block, mut list) = (Vec::new(), Fields::new());
    let mut pass = |way: usize, fields_: &[(&'static str, &'static str)]| {
        block.clear();
        tables[way].0.encode(fields(fields_), &mut block);
        let limits = ListLimits { size: 65_536, count: 256 };
        tables[way].1.decode(black_box(&block), &limits, &mut list).expect("it is what was encoded");
        black_box(&list);
    };
    let start = Instant::now();
    for _ in 0..ROUNDS * 50 {
        pass(0, REQUEST);
        pass(1, RESPONSE);
        pass(1, TRAILERS);
    }
    start.elapsed().as_nanos() as f64 / f64::from(ROUNDS * 50)
}

/// Nanoseconds a call where this many are under way at once.
fn measure_calls(streams: u32) -> f64 {
    let settings = Rc::new(Settings::default());
    let mut client = Connection::new(Role::Client, &settings, Time::ZERO);
    let mut server = Connection::new(Role::Server, &settings, Time::ZERO);
    let mut list = Fields::new();
    let rounds = ROUNDS * 50 / streams;
    let start = Instant::now();
    for _ in 0..rounds {
        for tag in 0..streams {
            let stream = client.open(tag, fields(REQUEST), false).expect("there is room");
            client.send_data(stream, &MESSAGE, true);
        }
        pass(&mut client, &mut server, &mut list, answer);
        pass(&mut server, &mut client, &mut list, |_, _| {});
    }
    let nanos = start.elapsed().as_nanos() as f64;
    assert_eq!((client.open_streams(), client.counters().streams), (0, u64::from(rounds * streams)));
    nanos / f64::from(rounds * streams)
}

fn answer(server: &mut Connection, stream: StreamKey) {
    server.send_head(stream, fields(RESPONSE), false);
    server.send_data(stream, &MESSAGE, false);
    server.send_trailers(stream, fields(TRAILERS));
}

/// Moves what `from` has to `to`, and has `done` told of each stream that has ended.
fn pass(from: &mut Connection, to: &mut Connection, list: &mut Fields, done: fn(&mut Connection, StreamKey)) {
    let mut input = from.output();
    while let Some(event) = to.receive(Time::ZERO, &mut input, list) {
        match event {
            Event::Data { stream, data, ends } => {
                to.release(stream, data.len());
                if ends {
                    done(to, stream);
                }
            }
            Event::Trailers { stream, .. } => done(to, stream),
            Event::Broken { why, .. } => panic!("{why}"),
            _ => {}
        }
    }
    from.consume(Time::ZERO, from.output().len());
}
