//! An engine that answers each piece of bytes by a closure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use evenkeel_balance::Time;
use evenkeel_relay::engine::{Action, Closed, ConnKey, DialId, Engine};

/// Appends to the output what is to be said to the bytes that came, and whether to close after that.
pub(crate) type Answer = Box<dyn FnMut(&[u8], &mut Vec<u8>) -> Then + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    Close,
}

pub(crate) struct Toy {
    answer: Answer,
    connections: Vec<Option<Connection>>,
    generations: u32,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) accepted: usize,
    /// How connections have ended, in order.
    pub(crate) ended: Vec<Closed>,
    pub(crate) dialled: Vec<(DialId, Result<ConnKey, String>)>,
    /// Dials that nobody wants any longer.
    pub(crate) unwanted: Vec<DialId>,
    pub(crate) refreshed: usize,
    pub(crate) timeout: Option<Time>,
    pub(crate) timed_out: Option<Time>,
    is_draining: bool,
}

struct Connection {
    key: ConnKey,
    output: Vec<u8>,
    /// How much of the output is written.
    written: usize,
    is_client: bool,
}

impl Connection {
    fn unwritten(&self) -> &[u8] {
        &self.output[self.written..]
    }
}

/// An engine that sends back what it gets.
pub(crate) fn echo() -> Toy {
    Toy::new(|bytes, output| {
        output.extend_from_slice(bytes);
        Then::GoOn
    })
}

impl Toy {
    pub(crate) fn new(answer: impl FnMut(&[u8], &mut Vec<u8>) -> Then + Send + 'static) -> Self {
        Self {
            answer: Box::new(answer),
            connections: Vec::new(),
            generations: 0,
            actions: VecDeque::new(),
            accepted: 0,
            ended: Vec::new(),
            dialled: Vec::new(),
            unwanted: Vec::new(),
            refreshed: 0,
            timeout: None,
            timed_out: None,
            is_draining: false,
        }
    }

    pub(crate) fn open(&self) -> usize {
        self.connections.iter().flatten().count()
    }

    pub(crate) fn keys(&self) -> Vec<ConnKey> {
        self.connections.iter().flatten().map(|connection| connection.key).collect()
    }

    /// Bytes that wait to be written, of all connections.
    pub(crate) fn unwritten(&self) -> usize {
        self.connections.iter().flatten().map(|connection| connection.unwritten().len()).sum()
    }

    pub(crate) fn say(&mut self, key: ConnKey, bytes: &[u8]) {
        let Some(connection) = self.get(key) else { return };
        let had_none = connection.output.is_empty();
        connection.output.extend_from_slice(bytes);
        if had_none && !bytes.is_empty() {
            self.actions.push_back(Action::Write(key));
        }
    }

    fn add(&mut self, is_client: bool) -> ConnKey {
        let free = self.connections.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.generations += 1;
        let key = ConnKey::new(u32::try_from(index).expect("few connections"), self.generations);
        self.connections[index] = Some(Connection { key, output: Vec::new(), written: 0, is_client });
        key
    }

    fn get(&mut self, key: ConnKey) -> Option<&mut Connection> {
        self.connections.get_mut(key.slot() as usize)?.as_mut().filter(|connection| connection.key == key)
    }
}

impl Engine for Toy {
    fn accept(&mut self, _: Time) -> ConnKey {
        self.accepted += 1;
        let key = self.add(true);
        if self.is_draining {
            self.actions.push_back(Action::Close(key));
        }
        key
    }

    fn dialled(&mut self, _: Time, dial: DialId, outcome: Result<(), String>) -> Option<ConnKey> {
        if self.unwanted.contains(&dial) {
            return None;
        }
        let outcome = outcome.map(|()| self.add(false));
        let key = outcome.clone().ok();
        self.dialled.push((dial, outcome));
        key
    }

    fn receive(&mut self, _: Time, conn: ConnKey, bytes: &[u8]) {
        let connection = self.connections[conn.slot() as usize].as_mut().expect("bytes come on open connections");
        assert_eq!(connection.key, conn, "bytes come on open connections");
        let had_none = connection.output.is_empty();
        let then = (self.answer)(bytes, &mut connection.output);
        if had_none && !connection.output.is_empty() {
            self.actions.push_back(Action::Write(conn));
        }
        if then == Then::Close {
            self.actions.push_back(Action::Close(conn));
        }
    }

    fn closed(&mut self, _: Time, conn: ConnKey, why: Closed) {
        assert!(self.get(conn).is_some(), "a connection ends once");
        self.connections[conn.slot() as usize] = None;
        self.ended.push(why);
    }

    fn output(&self, conn: ConnKey) -> &[u8] {
        let connection = self.connections[conn.slot() as usize].as_ref().expect("output is asked of open connections");
        connection.unwritten()
    }

    fn wrote(&mut self, _: Time, conn: ConnKey, bytes: usize) {
        let connection = self.get(conn).expect("open connections are written to");
        connection.written += bytes;
        if connection.unwritten().is_empty() {
            connection.output.clear();
            connection.output.shrink_to(1024);
            connection.written = 0;
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn next_timeout(&self) -> Option<Time> {
        self.timeout
    }

    fn handle_timeout(&mut self, now: Time) {
        self.timed_out = self.timeout.take().map(|_| now);
    }

    fn refresh(&mut self, _: Time) {
        self.refreshed += 1;
    }

    fn drain(&mut self, _: Time) {
        self.is_draining = true;
        let clients = self.connections.iter().flatten().filter(|connection| connection.is_client);
        let goodbyes: Vec<_> = clients.map(|connection| connection.key).collect();
        for key in goodbyes {
            self.say(key, b"goodbye");
        }
    }

    fn is_idle(&self) -> bool {
        !self.connections.iter().flatten().any(|connection| connection.is_client)
    }
}

/// How long a test waits before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// When a test that begins to wait now gives up.
pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}
