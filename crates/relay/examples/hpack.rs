//! What a header block of a unary gRPC call costs to decode and to encode, once a connection is warm.
//!
//! `cargo run --release -p evenkeel-relay --example hpack` prints nanoseconds a block, the best of several rounds.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::hint::black_box;
use std::time::Instant;

use evenkeel_relay::fields::{Field, Fields};
use evenkeel_relay::hpack::{DEFAULT_TABLE, Decoder, Encoder, ListLimits};

const LIMITS: ListLimits = ListLimits { size: 16_384, count: 100 };
const BLOCKS: usize = 1000;
const ROUNDS: usize = 500;

fn main() {
    let timeouts = (0..BLOCKS).map(|n| format!("{}u", 999_999 - n * 7)).collect::<Vec<_>>();
    let traces = (0..BLOCKS as u64).map(trace).collect::<Vec<_>>();
    measure("request", |n| request(&timeouts[n]));
    measure("request, traced", |n| [request(&timeouts[n]), vec![field("traceparent", &traces[n])]].concat());
    measure("response", |_| response());
    measure("trailers", |_| vec![field("grpc-status", "0"), field("grpc-message", "")]);
}

fn request(timeout: &str) -> Vec<Field<'_>> {
    vec![
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/evenkeel.demo.v1.Echo/Unary"),
        field(":authority", "127.0.0.1:15000"),
        field("te", "trailers"),
        field("content-type", "application/grpc"),
        field("user-agent", "grpc-go/1.76.0"),
        field("grpc-accept-encoding", "identity,deflate,gzip"),
        field("grpc-timeout", timeout),
    ]
}

fn response() -> Vec<Field<'static>> {
    vec![
        field(":status", "200"),
        field("content-type", "application/grpc"),
        field("grpc-accept-encoding", "identity,deflate,gzip"),
    ]
}

fn trace(n: u64) -> String {
    let [a, b, c] = [1, 2, 3].map(|k| (n * 3 + k).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    format!("00-{a:016x}{b:016x}-{c:016x}-01")
}

fn field<'a>(name: &'a str, value: &'a str) -> Field<'a> {
    Field::new(name.as_bytes(), value.as_bytes())
}

/// Prints what blocks of these lists cost; the lists are built before.
fn measure<'a>(name: &str, list: impl Fn(usize) -> Vec<Field<'a>>) {
    let lists = (0..BLOCKS).map(list).collect::<Vec<_>>();
    let mut encoder = Encoder::new(DEFAULT_TABLE);
    let mut block = Vec::new();
    let encoding = best(|n| {
        block.clear();
        encoder.encode(lists[n].iter().copied(), &mut block);
        black_box(&block);
    });
    // After as many rounds the blocks insert nothing more, so a decoder that saw what comes before can repeat them.
    let (mut decoder, mut fields) = (Decoder::new(DEFAULT_TABLE), Fields::new());
    let mut encoder = Encoder::new(DEFAULT_TABLE);
    let mut blocks = Vec::new();
    for n in (0..BLOCKS).chain(0..BLOCKS) {
        let mut block = Vec::new();
        encoder.encode(lists[n].iter().copied(), &mut block);
        decoder.decode(&block, &LIMITS, &mut fields).expect("our own blocks are well formed");
        blocks.push(block);
    }
    let blocks = blocks.split_off(BLOCKS);
    let decoding = best(|n| {
        decoder.decode(&blocks[n], &LIMITS, &mut fields).expect("our own blocks are well formed");
        black_box(&fields);
    });
    assert!(fields.iter().eq(lists[BLOCKS - 1].iter().copied()), "{name} came out otherwise");
    let bytes = blocks.iter().map(Vec::len).sum::<usize>() / BLOCKS;
    println!("{name:16} {bytes:4} bytes   decode {decoding:6.1} ns   encode {encoding:6.1} ns");
}

/// The nanoseconds a block takes in the best round.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn best(mut one: impl FnMut(usize)) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..BLOCKS).for_each(&mut one);
        start.elapsed().as_nanos() as f64 / BLOCKS as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}
