//! A client's and a server's connection, joined in memory, and what each has seen of its streams.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use evenkeel_balance::Time;
use evenkeel_relay::{
    connection::{Connection, Event, Role, Settings, StreamKey},
    fields::{Field, Fields},
    frame::ErrorCode,
};

/// A list of fields in text.
pub(crate) type List = Vec<(String, String)>;

/// What has been seen of one stream by one side.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) head: Option<List>,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Option<List>,
    pub(crate) ended: bool,
    pub(crate) reset: Option<(ErrorCode, bool, bool)>,
}

/// One side, with a log of what it has seen.
pub(crate) struct Side {
    pub(crate) connection: Connection,
    pub(crate) now: Time,
    pub(crate) seen: BTreeMap<u32, Seen>,
    pub(crate) keys: BTreeMap<u32, StreamKey>,
    pub(crate) settled: bool,
    pub(crate) leaving: Vec<ErrorCode>,
    pub(crate) pongs: Vec<u64>,
    pub(crate) broken: Option<ErrorCode>,
    /// Whether payload is released as it comes.
    pub(crate) releases: bool,
}

impl Side {
    pub(crate) fn new(role: Role, settings: Settings) -> Self {
        Self {
            connection: Connection::new(role, &Rc::new(settings), Time::ZERO),
            now: Time::ZERO,
            seen: BTreeMap::new(),
            keys: BTreeMap::new(),
            settled: false,
            leaving: Vec::new(),
            pongs: Vec::new(),
            broken: None,
            releases: true,
        }
    }

    /// Takes in bytes, all at once.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        let (mut input, mut fields) = (bytes, Fields::new());
        while let Some(event) = self.connection.receive(self.now, &mut input, &mut fields) {
            self.note(event, &fields);
        }
        assert!(input.is_empty(), "all input is used up");
    }

    /// Takes all that is to be written.
    pub(crate) fn write(&mut self) -> Vec<u8> {
        let bytes = self.connection.output().to_vec();
        self.connection.consume(self.now, bytes.len());
        bytes
    }

    pub(crate) fn key(&self, id: u32) -> StreamKey {
        self.keys[&id]
    }

    pub(crate) fn seen(&self, id: u32) -> Seen {
        self.seen.get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        if self.connection.next_timeout().is_some_and(|at| at <= self.now)
            && let Some(event) = self.connection.handle_timeout(self.now)
        {
            self.note(event, &Fields::new());
        }
    }

    fn note(&mut self, event: Event<'_>, fields: &Fields) {
        assert_eq!(self.broken, None, "nothing comes after Broken: {event:?}");
        match event {
            Event::Settled => self.settled = true,
            Event::Head { stream, ends, .. } => {
                self.keys.insert(stream.id(), stream);
                let seen = self.seen.entry(stream.id()).or_default();
                assert!(seen.head.replace(list(fields)).is_none() && !seen.ended, "one head");
                seen.ended = ends;
            }
            Event::Data { stream, data, ends } => {
                let seen = self.seen.entry(stream.id()).or_default();
                assert!(!seen.ended && seen.head.is_some(), "DATA between head and end");
                assert!(ends || !data.is_empty());
                seen.data.extend_from_slice(data);
                seen.ended = ends;
                if self.releases {
                    self.connection.release(stream, data.len());
                }
            }
            Event::Trailers { stream, .. } => {
                let seen = self.seen.entry(stream.id()).or_default();
                assert!(!seen.ended && seen.head.is_some());
                seen.trailers = Some(list(fields));
                seen.ended = true;
            }
            Event::Reset { stream, code, by_peer, processed, .. } => {
                let seen = self.seen.entry(stream.id()).or_default();
                assert!(seen.reset.replace((code, by_peer, processed)).is_none(), "one reset");
            }
            Event::Leaving { code, .. } => self.leaving.push(code),
            Event::Pong(payload) => self.pongs.push(payload),
            Event::Broken { code, .. } => self.broken = Some(code),
        }
    }
}

fn list(fields: &Fields) -> List {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|field| (text(field.name), text(field.value))).collect()
}

/// Both sides, and the bytes that went between them.
pub(crate) struct Pair {
    pub(crate) client: Side,
    pub(crate) server: Side,
    /// All that the client has sent.
    pub(crate) up: Vec<u8>,
    /// All that the server has sent.
    pub(crate) down: Vec<u8>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default(), Settings::default())
    }

    pub(crate) fn with(client: Settings, server: Settings) -> Self {
        let client = Side::new(Role::Client, client);
        Self { client, server: Side::new(Role::Server, server), up: Vec::new(), down: Vec::new() }
    }

    /// Moves bytes both ways until neither side has any.
    pub(crate) fn run(&mut self) {
        loop {
            let (up, down) = (self.client.write(), self.server.write());
            if up.is_empty() && down.is_empty() {
                return;
            }
            self.server.receive(&up);
            self.client.receive(&down);
            self.up.extend(up);
            self.down.extend(down);
        }
    }

    /// Opens a stream by a POST, moves it to the server, and returns its id.
    pub(crate) fn open(&mut self, ends: bool) -> u32 {
        let stream = self.client.connection.open(7, fields(REQUEST), ends).expect("there is room");
        self.client.keys.insert(stream.id(), stream);
        self.run();
        stream.id()
    }

    /// Sends a whole body piece by piece, as windows allow.
    pub(crate) fn send(&mut self, by_client: bool, id: u32, mut data: &[u8], ends: bool) {
        loop {
            let side = if by_client { &mut self.client } else { &mut self.server };
            let taken = side.connection.send_data(side.key(id), data, ends);
            data = &data[taken..];
            self.run();
            if data.is_empty() {
                return;
            }
            let side = if by_client { &mut self.client } else { &mut self.server };
            assert_eq!(side.connection.poll_writable().map(StreamKey::id), Some(id), "{} bytes left", data.len());
        }
    }

    pub(crate) fn respond(&mut self, id: u32, ends: bool) {
        let key = self.server.key(id);
        self.server.connection.send_head(key, fields(RESPONSE), ends);
        self.run();
    }

    pub(crate) fn trailers(&mut self, id: u32) {
        let key = self.server.key(id);
        self.server.connection.send_trailers(key, fields(TRAILERS));
        self.run();
    }

    pub(crate) fn assert_no_stream(&self) {
        assert_eq!((self.client.connection.open_streams(), self.server.connection.open_streams()), (0, 0));
    }
}

pub(crate) const REQUEST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo.Echo/Unary"),
    (":authority", "localhost:50051"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];
pub(crate) const RESPONSE: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
pub(crate) const TRAILERS: &[(&str, &str)] = &[("grpc-status", "0"), ("grpc-message", "")];

pub(crate) fn fields<'a>(list: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = Field<'a>> {
    list.iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()))
}

pub(crate) fn texts(list: &[(&str, &str)]) -> List {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
