//! What a request asks for, and the messages that answer it.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

/// gRPC's prefix of a message: a flag and a length, in bytes.
const PREFIX: usize = 5;
/// What of a request says which reply is wanted, its prefix included, in bytes.
const WANTED: usize = PREFIX + 8;
/// More than this in one message is nothing that is measured, in bytes.
const MAX_MESSAGE: u32 = 64 << 20;

/// The start of a request's body, as far as it has come.
#[derive(Default)]
pub(super) struct Request {
    start: [u8; WANTED],
    length: usize,
}

impl Request {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(WANTED - self.length);
        self.start[self.length..self.length + taken].copy_from_slice(&bytes[..taken]);
        self.length += taken;
    }

    /// What is asked for: two numbers of four bytes at the start of the message. None for a body without them, such as
    /// that of a health check.
    pub(super) fn shape(&self) -> Option<Shape> {
        let [messages, bytes] = self.start[..self.length].get(PREFIX..)?.as_chunks::<4>().0 else { return None };
        let shape = Shape { messages: u32::from_be_bytes(*messages), bytes: u32::from_be_bytes(*bytes) };
        (shape.messages > 0 && shape.bytes <= MAX_MESSAGE).then_some(shape)
    }
}

/// How many messages a reply has, and of how many bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) messages: u32,
    bytes: u32,
}

/// The last message that was sent: most calls of a measurement ask for the same.
pub(super) struct Messages {
    shape: Option<Shape>,
    message: Rc<[u8]>,
    backend: [u8; 4],
}

impl Messages {
    /// Messages begin with the address's four bytes, so that the load can tell who answered.
    pub(super) fn of(address: SocketAddr) -> Self {
        let backend = match address.ip() {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(_) => [0; 4],
        };
        Self { shape: None, message: Rc::new([]), backend }
    }

    /// A message of this shape, with its prefix.
    pub(super) fn get(&mut self, shape: Shape) -> &Rc<[u8]> {
        if self.shape != Some(shape) {
            let mut message = vec![0];
            message.extend_from_slice(&shape.bytes.to_be_bytes());
            message.extend_from_slice(&self.backend);
            message.resize(PREFIX + shape.bytes as usize, b'x');
            self.message = message.into();
            self.shape = Some(shape);
        }
        &self.message
    }
}
