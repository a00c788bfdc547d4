//! One connection: arbitrary bytes from its peer, cut anywhere, and arbitrary acts of its owner in between.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use evenkeel_balance::Time;
use evenkeel_relay::{
    connection::{Connection, Event, Role, Settings, StreamKey},
    fields::{Field, Fields},
    frame::{ErrorCode, FrameHeader, HEADER, PREFACE, flag, kind},
    hpack::Encoder,
};

use crate::script::Script;

/// What a script can do.
pub(crate) mod op {
    pub(crate) const RAW: u8 = 0;
    pub(crate) const FRAME: u8 = 1;
    pub(crate) const HEADERS: u8 = 2;
    pub(crate) const DATA: u8 = 3;
    pub(crate) const UPDATE: u8 = 4;
    pub(crate) const SETTING: u8 = 5;
    pub(crate) const OPEN: u8 = 6;
    pub(crate) const SEND_HEAD: u8 = 7;
    pub(crate) const SEND_DATA: u8 = 8;
    pub(crate) const SEND_TRAILERS: u8 = 9;
    pub(crate) const RESET: u8 = 10;
    pub(crate) const RELEASE: u8 = 11;
    pub(crate) const CONSUME: u8 = 12;
    pub(crate) const PING: u8 = 13;
    pub(crate) const DRAIN: u8 = 14;
    pub(crate) const CLOSE: u8 = 15;
    pub(crate) const WAIT: u8 = 16;
    pub(crate) const WRITABLE: u8 = 17;
    pub(crate) const CUT: u8 = 18;
    pub(crate) const COUNT: u8 = 19;
}

/// How far a script has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) heads: usize,
    pub(crate) data: usize,
    pub(crate) trailers: usize,
    pub(crate) resets: usize,
    pub(crate) broken: bool,
}

/// Does what the bytes say.
pub(crate) fn run(bytes: &[u8]) -> Reached {
    let mut script = Script(bytes);
    let mut subject = Subject::new(&mut script);
    while !script.is_over() {
        subject.act(&mut script);
        subject.check();
    }
    subject.reached
}

type List = &'static [(&'static [u8], &'static [u8])];

/// Header lists that a peer may send, good and bad.
const LISTS: &[List] = &[
    &[(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b"te", b"trailers")],
    &[(b":status", b"200"), (b"content-type", b"application/grpc")],
    &[(b"grpc-status", b"0")],
    &[(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b"content-length", b"5")],
    &[(b":status", b"100")],
    &[(b":status", b"200"), (b"content-length", b"300")],
    &[(b"connection", b"close")],
    &[],
];

/// A half of a stream, as it looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Fresh,
    Open,
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    key: StreamKey,
    receiving: Half,
    sending: Half,
    /// Payload that was received and not released.
    unreleased: usize,
}

/// A connection, and a model of what its owner knows.
struct Subject {
    connection: Connection,
    role: Role,
    settings: Rc<Settings>,
    now: Time,
    encoder: Encoder,
    streams: BTreeMap<u32, Stream>,
    /// Keys of all streams that ever were, dead ones too.
    keys: Vec<StreamKey>,
    /// How its bytes are cut; whole if zero.
    cut: usize,
    /// What the owner's own acts may have put into the output since it was last empty, at most.
    own_output: usize,
    sent: Sent,
    /// The connection is over, by an error or by its owner.
    is_over: bool,
    reached: Reached,
}

impl Subject {
    fn new(script: &mut Script<'_>) -> Self {
        let choice = script.byte();
        let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
        let settings = Rc::new(settings(choice));
        let now = Time::from_nanos(1_000_000_000);
        let mut subject = Self {
            connection: Connection::new(role, &settings, now),
            role,
            settings,
            now,
            encoder: Encoder::new(4096),
            streams: BTreeMap::new(),
            keys: Vec::new(),
            cut: 0,
            own_output: 0,
            sent: Sent::new(role),
            is_over: false,
            reached: Reached::default(),
        };
        if choice & 2 == 0 {
            if role == Role::Server {
                subject.hear(PREFACE);
            }
            subject.hear_frame(kind::SETTINGS, 0, 0, &[]);
        }
        subject
    }

    fn act(&mut self, script: &mut Script<'_>) {
        match script.byte() % op::COUNT {
            op::RAW..=op::SETTING if self.is_over => {}
            op::RAW => {
                let length = script.byte().into();
                self.hear(script.bytes(length));
            }
            op::FRAME => {
                let (kind, flags, stream) = (script.byte() % 12, script.byte(), script.byte().into());
                let length = script.byte().into();
                self.hear_frame(kind, flags, stream, script.bytes(length));
            }
            op::HEADERS => self.hear_headers(script),
            op::DATA => {
                let (flags, stream) = (script.byte(), script.byte().into());
                let payload = vec![script.byte(); script.short().into()];
                self.hear_frame(kind::DATA, flags, stream, &payload);
            }
            op::UPDATE => {
                let stream = script.byte().into();
                self.hear_frame(kind::WINDOW_UPDATE, 0, stream, &script.number().to_be_bytes());
            }
            op::SETTING => {
                let id = u16::from(script.byte() % 8).to_be_bytes();
                self.hear_frame(kind::SETTINGS, 0, 0, &[&id[..], &script.number().to_be_bytes()].concat());
            }
            op::CUT => self.cut = script.byte().into(),
            other => self.own(other, script),
        }
    }

    fn own(&mut self, op: u8, script: &mut Script<'_>) {
        match op {
            op::OPEN => self.open(script.flag()),
            op::SEND_HEAD => self.send_head(script.byte(), script.flag()),
            op::SEND_DATA => self.send_data(script.byte(), script.short().into(), script.flag()),
            op::SEND_TRAILERS => self.send_trailers(script.byte()),
            op::RESET => self.reset(script.byte()),
            op::RELEASE => self.release(script.byte(), script.short().into()),
            op::CONSUME => self.consume(script.short().into()),
            op::PING => self.connection.ping(7),
            op::DRAIN => self.connection.drain(self.now),
            op::CLOSE if script.byte() > 200 => {
                self.connection.close(ErrorCode::NO_ERROR);
                self.is_over = true;
            }
            op::WAIT => self.wait(Duration::from_millis(script.short().into())),
            op::WRITABLE => while self.connection.poll_writable().is_some() {},
            _ => {}
        }
        // A frame of the owner's is no longer than this: its heads are small.
        self.own_output += 256;
    }

    fn hear_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        let length = u32::try_from(payload.len()).expect("payloads are small");
        FrameHeader { length, kind, flags, stream }.write(&mut bytes);
        bytes.extend_from_slice(payload);
        self.hear(&bytes);
    }

    /// A list in a HEADERS frame, and in CONTINUATION frames behind it.
    fn hear_headers(&mut self, script: &mut Script<'_>) {
        let list = LISTS[usize::from(script.byte()) % LISTS.len()];
        let (flags, stream, piece) = (script.byte(), script.byte().into(), usize::from(script.byte()));
        let mut block = Vec::new();
        self.encoder.encode(list.iter().map(|(name, value)| Field::new(name, value)), &mut block);
        let (first, mut rest) = block.split_at(if piece == 0 { block.len() } else { piece.min(block.len()) });
        let first = if flags & flag::PADDED == 0 { first.to_vec() } else { [&[3], first, &[0; 3]].concat() };
        let ends = if rest.is_empty() { flag::END_HEADERS } else { 0 };
        self.hear_frame(kind::HEADERS, flags & (flag::PADDED | flag::END_STREAM) | ends, stream, &first);
        while !rest.is_empty() {
            let (next, after) = rest.split_at(piece.min(rest.len()));
            rest = after;
            self.hear_frame(kind::CONTINUATION, if rest.is_empty() { flag::END_HEADERS } else { 0 }, stream, next);
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let cut = if self.cut == 0 { bytes.len().max(1) } else { self.cut };
        for piece in bytes.chunks(cut) {
            let (mut input, mut fields) = (piece, Fields::new());
            while let Some(event) = self.connection.receive(self.now, &mut input, &mut fields) {
                self.note(&event, &fields);
            }
            assert!(input.is_empty(), "all input is used up");
        }
    }

    fn note(&mut self, event: &Event<'_>, fields: &Fields) {
        assert!(!self.is_over, "nothing comes of a connection that is over: {event:?}");
        match *event {
            Event::Head { stream, ends, .. } => self.note_head(stream, ends, fields),
            Event::Data { stream, data, ends } => {
                self.reached.data += data.len();
                assert!(ends || !data.is_empty(), "payload that is none");
                let most = self.most_unreleased();
                let known = self.known(stream);
                assert_eq!(known.receiving, Half::Open, "DATA between a head and an end");
                known.unreleased += data.len();
                assert!(known.unreleased <= most, "{} bytes are beyond any window", known.unreleased);
                self.end_receiving(stream, ends);
            }
            Event::Trailers { stream, .. } => {
                self.reached.trailers += 1;
                assert_eq!(self.known(stream).receiving, Half::Open, "trailers between a head and an end");
                self.end_receiving(stream, true);
            }
            Event::Reset { stream, .. } => {
                self.reached.resets += 1;
                self.known(stream);
                self.streams.remove(&stream.id());
            }
            Event::Broken { .. } => {
                (self.is_over, self.reached.broken) = (true, true);
                assert!(self.connection.is_finished());
            }
            Event::Leaving { ref debug, .. } => assert!(debug.len() <= 1024),
            Event::Settled => assert!(self.connection.is_settled()),
            Event::Pong(_) => {}
        }
    }

    fn note_head(&mut self, key: StreamKey, ends: bool, fields: &Fields) {
        self.reached.heads += 1;
        assert!(fields.size() <= self.settings.max_header_list as usize);
        assert!(fields.len() <= self.settings.max_header_count as usize);
        if self.role == Role::Server {
            let stream = Stream { key, receiving: Half::Open, sending: Half::Fresh, unreleased: 0 };
            assert!(self.streams.insert(key.id(), stream).is_none(), "an id comes once");
            self.keys.push(key);
        } else {
            let known = self.known(key);
            assert_eq!(known.receiving, Half::Fresh, "one head a stream");
            known.receiving = Half::Open;
        }
        self.end_receiving(key, ends);
    }

    /// Received and released nowhere: the window that a stream starts from, or the largest one it grows to.
    fn most_unreleased(&self) -> usize {
        self.settings.stream_window.max(self.settings.most_stream_window).max(65_535) as usize
    }

    fn known(&mut self, key: StreamKey) -> &mut Stream {
        let known = self.streams.get_mut(&key.id()).expect("events are of streams that are open");
        assert_eq!(known.key, key);
        known
    }

    fn end_receiving(&mut self, key: StreamKey, ends: bool) {
        if ends {
            self.known(key).receiving = Half::Ended;
            self.forget_if_over(key);
        }
    }

    fn end_sending(&mut self, key: StreamKey, ends: bool) {
        if ends {
            self.known(key).sending = Half::Ended;
            self.forget_if_over(key);
        }
    }

    fn forget_if_over(&mut self, key: StreamKey) {
        let stream = *self.known(key);
        if (stream.receiving, stream.sending) == (Half::Ended, Half::Ended) {
            self.streams.remove(&key.id());
        }
    }

    /// One of the latest streams, whether it is over or not.
    fn key(&self, nth: u8) -> Option<StreamKey> {
        self.keys.iter().rev().nth(usize::from(nth) % 16).copied()
    }

    fn is_sending(&self, key: StreamKey, half: Half) -> bool {
        !self.is_over && self.streams.get(&key.id()).is_some_and(|stream| stream.sending == half)
    }

    fn open(&mut self, ends: bool) {
        let room = self.connection.room();
        let opened = self.connection.open(3, LISTS[0].iter().map(|(name, value)| Field::new(name, value)), ends);
        assert_eq!(opened.is_some(), room > 0);
        let Some(key) = opened else { return };
        let sending = if ends { Half::Ended } else { Half::Open };
        self.streams.insert(key.id(), Stream { key, receiving: Half::Fresh, sending, unreleased: 0 });
        self.keys.push(key);
    }

    fn send_head(&mut self, nth: u8, ends: bool) {
        let Some(key) = self.key(nth) else { return };
        let counts = self.is_sending(key, Half::Fresh);
        self.connection.send_head(key, LISTS[1].iter().map(|(name, value)| Field::new(name, value)), ends);
        if counts {
            self.known(key).sending = Half::Open;
            self.end_sending(key, ends);
        }
    }

    fn send_data(&mut self, nth: u8, length: usize, ends: bool) {
        let Some(key) = self.key(nth) else { return };
        let counts = self.is_sending(key, Half::Open);
        let before = self.connection.output().len();
        let taken = self.connection.send_data(key, &vec![0; length], ends);
        assert!(taken <= length && (counts || taken == 0));
        assert!(taken == 0 || before + taken <= self.settings.output_limit, "DATA heeds the limit of output");
        if counts {
            self.own_output += taken;
            self.end_sending(key, ends && taken == length);
        }
    }

    fn send_trailers(&mut self, nth: u8) {
        let Some(key) = self.key(nth) else { return };
        let counts = self.is_sending(key, Half::Open);
        self.connection.send_trailers(key, LISTS[2].iter().map(|(name, value)| Field::new(name, value)));
        if counts {
            self.end_sending(key, true);
        }
    }

    fn reset(&mut self, nth: u8) {
        let Some(key) = self.key(nth) else { return };
        self.connection.reset(key, ErrorCode::CANCEL);
        if !self.is_over {
            self.streams.remove(&key.id());
        }
    }

    fn release(&mut self, nth: u8, length: usize) {
        let Some(key) = self.key(nth) else { return };
        self.connection.release(key, length);
        if let Some(stream) = self.streams.get_mut(&key.id()) {
            stream.unreleased = stream.unreleased.saturating_sub(length);
        }
    }

    fn consume(&mut self, length: usize) {
        let output = self.connection.output();
        let written = output.len().min(length);
        self.sent.take(&output[..written]);
        self.connection.consume(self.now, length);
        if self.connection.output().is_empty() {
            self.own_output = 0;
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        if self.connection.next_timeout().is_some_and(|at| at <= self.now) {
            if let Some(event) = self.connection.handle_timeout(self.now) {
                self.note(&event, &Fields::new());
            }
            assert!(self.connection.next_timeout().is_none_or(|at| at > self.now), "what was due is done");
        }
    }

    fn check(&self) {
        let most = 4 * self.settings.output_limit + self.own_output + 1024;
        let waiting = self.connection.output().len();
        assert!(waiting <= most, "{waiting} bytes of output, of which {} are the owner's", self.own_output);
        if self.is_over {
            assert!(self.connection.is_finished());
            assert_eq!((self.connection.room(), self.connection.next_timeout()), (0, None));
            return;
        }
        assert_eq!(self.connection.open_streams(), self.streams.len());
        assert_eq!(self.connection.tags().count(), self.streams.len());
        if self.role == Role::Server {
            assert!(self.streams.len() <= self.settings.max_concurrent_streams as usize);
        }
    }
}

/// The choices that lie in one byte: tight limits, small or large windows.
fn settings(choice: u8) -> Settings {
    let mut settings = Settings::default();
    if choice & 4 != 0 {
        (settings.max_concurrent_streams, settings.output_limit) = (4, 2_000);
        (settings.max_header_list, settings.max_header_count) = (200, 3);
        settings.flood.glitches.burst = 5;
        settings.flood.pings.burst = 8;
        settings.flood.updates.burst = 8;
        settings.flood.continuations = 2;
        settings.flood.unread_replies = 10;
    }
    (settings.stream_window, settings.most_stream_window) = match choice >> 3 & 3 {
        0 => (65_535, 1 << 20),
        1 => (0, 1 << 20),
        2 => (100, 400),
        _ => (1 << 20, u32::MAX),
    };
    settings.header_table = if choice & 32 == 0 { 4096 } else { 64 };
    settings
}

/// What was sent, looked at as the peer would: whole frames, of which none belongs to a stream that has ended.
struct Sent {
    bytes: Vec<u8>,
    preface: usize,
    /// Streams that we have ended; true by `RST_STREAM`.
    ended: BTreeMap<u32, bool>,
}

impl Sent {
    fn new(role: Role) -> Self {
        let preface = if role == Role::Client { PREFACE.len() } else { 0 };
        Self { bytes: Vec::new(), preface, ended: BTreeMap::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.preface > 0 && self.bytes.len() >= self.preface {
            assert_eq!(self.bytes.drain(..self.preface).as_slice(), PREFACE);
            self.preface = 0;
        }
        while self.preface == 0
            && let Some(header) = self.bytes.first_chunk::<HEADER>().map(FrameHeader::parse)
            && let Some(payload) = self.bytes.get(HEADER..HEADER + header.length as usize)
        {
            self.frame(header, payload.len());
            self.bytes.drain(..HEADER + header.length as usize);
        }
    }

    fn frame(&mut self, header: FrameHeader, length: usize) {
        assert!(
            header.kind <= kind::CONTINUATION && header.kind != kind::PUSH_PROMISE && header.kind != kind::PRIORITY
        );
        assert!(length <= 1 << 24);
        let ended = self.ended.get(&header.stream).copied();
        match header.kind {
            kind::HEADERS | kind::DATA => {
                assert_eq!(ended, None, "{header:?} behind the end of its stream");
                if header.has(flag::END_STREAM) {
                    self.ended.insert(header.stream, false);
                }
            }
            kind::WINDOW_UPDATE => assert_ne!(ended, Some(true), "{header:?} behind its reset"),
            kind::RST_STREAM => _ = self.ended.insert(header.stream, true),
            _ => {}
        }
    }
}
