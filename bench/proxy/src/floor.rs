//! A floor, and no proxy: it relays HTTP/2 frames between sockets and rewrites stream ids. Header blocks pass as they
//! are, which is right only while neither side uses a dynamic table. There is no flow control, no limit, and no error
//! handling: a connection that ends takes its calls with it. One thread, one epoll loop, one write a socket and turn.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result};
use mio::{
    Events, Interest, Poll, Registry, Token,
    net::{TcpListener, TcpStream},
};

use crate::frame::{self, Frame};

const LISTENER: Token = Token(usize::MAX);
/// Streams of a connection that can be told apart at a time.
const SLOTS: usize = 4096;
/// A sender's room is refilled after so many bytes.
const REFILL: u32 = 1 << 20;

pub(crate) fn run(listen: SocketAddr, backends: &[SocketAddr]) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen).with_context(|| format!("cannot listen at {listen}"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut relay = Relay::connect(backends, poll.registry())?;
    let mut events = Events::with_capacity(256);
    loop {
        relay.write();
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                relay.accept(&listener, poll.registry())?;
                continue;
            }
            let index = event.token().0;
            if event.is_writable() {
                relay.touch(index);
            }
            if event.is_readable() {
                relay.read(index);
            }
        }
    }
}

struct Relay {
    /// The backends' first.
    connections: Vec<Option<Connection>>,
    backends: usize,
    /// The backend that took the last call.
    turn: usize,
    /// Connections with something to write.
    touched: Vec<usize>,
    buffer: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    touched: bool,
    /// Of the peer's preface, in bytes.
    preface_left: usize,
    received: u32,
    next_stream: u32,
    /// By slot of a stream: the connection and the stream on the other side.
    peers: Vec<(usize, u32)>,
}

impl Relay {
    fn connect(backends: &[SocketAddr], registry: &Registry) -> Result<Self> {
        let mut relay = Self {
            connections: Vec::new(),
            backends: backends.len(),
            turn: 0,
            touched: Vec::new(),
            buffer: vec![0; 64 << 10],
        };
        for backend in backends {
            let socket = std::net::TcpStream::connect(backend).with_context(|| format!("cannot reach {backend}"))?;
            socket.set_nonblocking(true)?;
            relay.add(TcpStream::from_std(socket), frame::PREFACE, 0, registry)?;
        }
        Ok(relay)
    }

    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> Result<()> {
        while let Ok((socket, _)) = listener.accept() {
            self.add(socket, &[], frame::PREFACE.len(), registry)?;
        }
        Ok(())
    }

    fn add(&mut self, mut socket: TcpStream, greeting: &[u8], preface_left: usize, registry: &Registry) -> Result<()> {
        let index = self.connections.len();
        socket.set_nodelay(true)?;
        registry.register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let mut output = greeting.to_vec();
        let settings = [(frame::HEADER_TABLE_SIZE, 0), (frame::MAX_CONCURRENT_STREAMS, 1024)];
        frame::write_greeting(&mut output, &settings);
        self.connections.push(Some(Connection {
            socket,
            input: Vec::with_capacity(64 << 10),
            output,
            touched: false,
            preface_left,
            received: 0,
            next_stream: 1,
            peers: vec![(0, 0); SLOTS],
        }));
        self.touch(index);
        Ok(())
    }

    /// Lets a connection write at the end of this turn.
    fn touch(&mut self, index: usize) {
        if let Some(connection) = &mut self.connections[index]
            && !connection.touched
            && !connection.output.is_empty()
        {
            connection.touched = true;
            self.touched.push(index);
        }
    }

    fn write(&mut self) {
        for index in self.touched.drain(..) {
            let Some(connection) = &mut self.connections[index] else { continue };
            connection.touched = false;
            if let Ok(written) = connection.socket.write(&connection.output) {
                connection.output.drain(..written);
            }
        }
    }

    /// Reads all that a connection has, and relays it. It is taken out meanwhile, so that others can be written to.
    fn read(&mut self, index: usize) {
        let Some(mut connection) = self.connections[index].take() else { return };
        let open = connection.fill(&mut self.buffer);
        let mut used = 0;
        if connection.preface_left > 0 && connection.input.len() >= connection.preface_left {
            used = std::mem::take(&mut connection.preface_left);
        }
        let input = std::mem::take(&mut connection.input);
        while connection.preface_left == 0
            && let Some(frame) = Frame::first(&input[used..])
        {
            used += frame.size();
            self.relay(index, &mut connection, frame);
        }
        connection.input = input;
        connection.input.drain(..used);
        if connection.received > REFILL {
            frame::write(&mut connection.output, frame::WINDOW_UPDATE, 0, 0, &connection.received.to_be_bytes());
            connection.received = 0;
        }
        if open {
            self.connections[index] = Some(connection);
            self.touch(index);
        }
    }

    fn relay(&mut self, index: usize, from: &mut Connection, frame: Frame<'_>) {
        match frame.kind {
            frame::SETTINGS | frame::PING if !frame.has(frame::ACK) => {
                let payload = if frame.kind == frame::PING { frame.payload } else { &[] };
                return frame::write(&mut from.output, frame.kind, frame::ACK, 0, payload);
            }
            frame::HEADERS if index >= self.backends => self.place(index, from, frame.stream),
            frame::DATA => from.received += u32::try_from(frame.payload.len()).expect("frames are short"),
            frame::HEADERS | frame::RST_STREAM => {}
            _ => return,
        }
        let (to, stream) = from.peers[slot(frame.stream)];
        if let Some(peer) = self.connections.get_mut(to).and_then(Option::as_mut) {
            Frame { stream, ..frame }.write(&mut peer.output);
            self.touch(to);
        }
    }

    /// A call goes to the next backend.
    fn place(&mut self, index: usize, from: &mut Connection, stream: u32) {
        self.turn = (self.turn + 1) % self.backends;
        let Some(backend) = &mut self.connections[self.turn] else { return };
        let onward = backend.next_stream;
        backend.next_stream += 2;
        backend.peers[slot(onward)] = (index, stream);
        from.peers[slot(stream)] = (self.turn, onward);
    }
}

impl Connection {
    /// Reads until there is no more; false once the peer is gone.
    fn fill(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    self.input.extend_from_slice(&buffer[..length]);
                    if length < buffer.len() {
                        return true;
                    }
                }
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

fn slot(stream: u32) -> usize {
    (stream >> 1) as usize % SLOTS
}
