//! What the event loop costs a message, beside tokio's current-thread runtime: both send back 100 bytes.
//!
//! `cargo run --release -p evenkeel-relay --example loop_cost`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that measures and prints")]

#[path = "../tests/driver/toy.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod toy;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
};

use evenkeel_relay::driver::{Listener, Settings, Worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MESSAGE: usize = 100;
const MESSAGES: usize = 200_000;
const RUNS: usize = 3;

fn main() {
    println!("connections  loop          µs of CPU a message, of {RUNS} runs");
    for connections in [1, 100] {
        for (name, serve) in [("evenkeel", serve_evenkeel as fn() -> Server), ("tokio", serve_tokio)] {
            let figures: Vec<_> = (0..RUNS).map(|_| format!("{:.2}", measure(&serve(), connections))).collect();
            println!("{connections:>11}  {name:<12}  {}", figures.join("  "));
        }
    }
}

/// A server that sends back what it gets, and a way to ask for the time that its thread has had on a processor.
struct Server {
    address: SocketAddr,
    cpu_nanos: Box<dyn Fn() -> u64>,
}

fn measure(server: &Server, connections: usize) -> f64 {
    let mut clients: Vec<_> = (0..connections).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let rounds = MESSAGES / connections;
    play(&mut clients, rounds / 10);
    let before = (server.cpu_nanos)();
    play(&mut clients, rounds);
    #[allow(clippy::cast_precision_loss, reason = "figures to look at")]
    let micros = ((server.cpu_nanos)() - before) as f64 / 1e3 / (rounds * connections) as f64;
    micros
}

/// Each connection has one message on its way at a time.
fn play(clients: &mut [TcpStream], rounds: usize) {
    let mut message = [7; MESSAGE];
    for _ in 0..rounds {
        for client in clients.iter_mut() {
            client.write_all(&message).unwrap();
        }
        for client in clients.iter_mut() {
            client.read_exact(&mut message).unwrap();
        }
    }
}

fn serve_evenkeel() -> Server {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 1, None).unwrap().remove(0);
    let address = listener.local_addr();
    let (worker, handle) = Worker::new(vec![listener], |_, _, _: &_| {}, Settings::default()).unwrap();
    worker.spawn(0, toy::echo).unwrap();
    let cpu_nanos = move || {
        let (sender, answer) = mpsc::channel();
        handle.inspect(move |_| sender.send(own_cpu_nanos()).unwrap());
        answer.recv().unwrap()
    };
    Server { address, cpu_nanos: Box::new(cpu_nanos) }
}

fn serve_tokio() -> Server {
    let (sender, started) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel::<mpsc::Sender<u64>>();
            sender.send((listener.local_addr().unwrap(), ask)).unwrap();
            tokio::spawn(async move {
                while let Some(answer) = asked.recv().await {
                    answer.send(own_cpu_nanos()).unwrap();
                }
            });
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(echo(stream));
            }
        });
    });
    let (address, ask) = started.recv().unwrap();
    let cpu_nanos = move || {
        let (sender, answer) = mpsc::channel();
        ask.send(sender).unwrap();
        answer.recv().unwrap()
    };
    Server { address, cpu_nanos: Box::new(cpu_nanos) }
}

async fn echo(mut stream: tokio::net::TcpStream) {
    let mut buffer = vec![0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        stream.write_all(&buffer[..length]).await.unwrap();
    }
}

/// The time that this thread has had on a processor, as Linux counts it.
fn own_cpu_nanos() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split_whitespace().next().unwrap().parse().unwrap()
}
