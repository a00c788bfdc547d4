//! A server that answers every request with a few bytes, over blocking sockets: what a connection does, seen on the wire.
//!
//! `cargo run -p evenkeel-relay --example answering_server -- 127.0.0.1:50080`, and then for instance
//! `h2spec --strict -p 50080`.

use std::{
    collections::HashMap,
    env,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use evenkeel_balance::Time;
use evenkeel_relay::{
    connection::{Connection, Event, Role, Settings, StreamKey},
    fields::{Field, Fields},
};

const BODY: &[u8] = b"an answer\n";

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50080".to_owned());
    let listener = TcpListener::bind(&address)?;
    for socket in listener.incoming() {
        let socket = socket?;
        thread::spawn(move || serve(socket));
    }
    Ok(())
}

/// Serves one connection until it ends.
fn serve(mut socket: TcpStream) -> io::Result<()> {
    let start = Instant::now();
    let now = || Time::ZERO + start.elapsed();
    let mut connection = Connection::new(Role::Server, &Rc::new(Settings::default()), now());
    let (mut fields, mut buffer) = (Fields::new(), vec![0; 16 << 10]);
    let mut answers = Answers::default();
    loop {
        socket.write_all(connection.output())?;
        connection.consume(now(), connection.output().len());
        if connection.is_finished() {
            return Ok(());
        }
        let wait = connection.next_timeout().map(|at| at.since(now()).max(Duration::from_millis(1)));
        socket.set_read_timeout(wait)?;
        let mut input = match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => &buffer[..length],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                connection.handle_timeout(now());
                continue;
            }
            Err(error) => return Err(error),
        };
        while let Some(event) = connection.receive(now(), &mut input, &mut fields) {
            answers.handle(&mut connection, &event);
        }
        while let Some(stream) = connection.poll_writable() {
            answers.go_on(&mut connection, stream);
        }
    }
}

/// What is left to be sent of each answer.
#[derive(Default)]
struct Answers(HashMap<u32, &'static [u8]>);

impl Answers {
    fn handle(&mut self, connection: &mut Connection, event: &Event<'_>) {
        match *event {
            Event::Head { stream, ends: true, .. } | Event::Trailers { stream, .. } => self.answer(connection, stream),
            Event::Data { stream, data, ends } => {
                connection.release(stream, data.len());
                if ends {
                    self.answer(connection, stream);
                }
            }
            Event::Reset { stream, .. } => {
                self.0.remove(&stream.id());
            }
            _ => {}
        }
    }

    fn answer(&mut self, connection: &mut Connection, stream: StreamKey) {
        let head = [Field::new(b":status", b"200"), Field::new(b"content-type", b"text/plain")];
        connection.send_head(stream, head.into_iter(), false);
        self.0.insert(stream.id(), BODY);
        self.go_on(connection, stream);
    }

    fn go_on(&mut self, connection: &mut Connection, stream: StreamKey) {
        let Some(left) = self.0.get_mut(&stream.id()) else { return };
        *left = &left[connection.send_data(stream, left, true)..];
        if left.is_empty() {
            self.0.remove(&stream.id());
        }
    }
}
