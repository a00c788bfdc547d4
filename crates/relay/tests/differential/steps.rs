//! What the peer may do, sensible or not, and how it looks on the wire.

use std::collections::BTreeMap;

use evenkeel_relay::{
    fields::Field,
    frame::{flag, kind},
    hpack::{DEFAULT_TABLE, Encoder},
};
use proptest::prelude::*;

use crate::{Verdict, raw};

/// Which stream a step is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    /// The next one that was not yet.
    New,
    /// One of the latest that were.
    Latest(usize),
    Id(u32),
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// One of the lists, in pieces of so many bytes.
    Headers {
        of: Of,
        list: usize,
        ends: bool,
        padded: bool,
        piece: usize,
    },
    Data {
        of: Of,
        length: usize,
        ends: bool,
        padded: bool,
    },
    Reset {
        of: Of,
    },
    Update {
        of: Of,
        increment: u32,
    },
    Setting {
        id: u16,
        value: u32,
    },
    Ping {
        is_ack: bool,
    },
    Priority {
        of: Of,
        on: u32,
    },
    /// A frame of any type with a payload of zeros.
    Other {
        kind: u8,
        flags: u8,
        of: Of,
        length: usize,
    },
}

/// Lists that come as a head or as trailers.
type Lists = [&'static [(&'static str, &'static str)]; 13];

/// Those of a client.
const REQUESTS: Lists = [
    &[(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "a.b"), ("te", "trailers")],
    &[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        (":authority", "a.b"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("content-type", "t"),
    ],
    &[("grpc-status", "0"), ("x", "y")],
    &[(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "a.b"), ("content-length", "20")],
    // Malformed ones.
    &[(":method", "POST"), (":path", "/a.B/C")],
    &[(":method", "POST"), (":scheme", "http"), (":path", "")],
    &[(":method", "POST"), (":scheme", "http"), ("x", "y"), (":path", "/a.B/C")],
    &[(":method", "POST"), (":method", "POST"), (":scheme", "http"), (":path", "/a.B/C")],
    &[(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), ("connection", "close")],
    &[(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), ("X-Upper", "close")],
    &[(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), ("te", "gzip")],
    &[(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":status", "200")],
    &[(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), ("x", "a\nb")],
];

/// Those of a server, in the same order.
const RESPONSES: Lists = [
    &[(":status", "200"), ("content-type", "t")],
    &[(":status", "404"), ("x-a", "1"), ("x-a", "2")],
    &[("grpc-status", "0"), ("x", "y")],
    &[(":status", "200"), ("content-length", "20")],
    // Malformed ones.
    &[("x", "y"), ("content-type", "t")],
    &[(":status", "20")],
    &[("x", "y"), (":status", "200")],
    &[(":status", "200"), (":status", "200")],
    &[(":status", "200"), ("connection", "close")],
    &[(":status", "200"), ("X-Upper", "close")],
    &[(":status", "200"), ("transfer-encoding", "chunked")],
    &[(":status", "200"), (":path", "/")],
    &[(":status", "200"), ("x", "a\nb")],
];

/// How many of the lists are valid.
pub(crate) const VALID: usize = 4;
/// The one of the lists that is for trailers.
pub(crate) const TRAILERS: usize = 2;
/// The one that has a pseudo-header field of the other side's.
pub(crate) const FOREIGN: usize = 11;

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let latest = || (0_usize..4).prop_map(Of::Latest);
    let opens = prop_oneof![6 => Just(Of::New), 3 => latest(), 1 => (0_u32..14).prop_map(Of::Id)];
    let goes_on = prop_oneof![1 => Just(Of::New), 24 => latest(), 1 => (0_u32..14).prop_map(Of::Id)].boxed();
    let list = prop_oneof![12 => 0_usize..VALID, 1 => 0..REQUESTS.len()];
    let (ends, padded) = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    prop_oneof![
        8 => (opens, list, ends, padded, prop_oneof![3 => Just(0_usize), 1 => 1_usize..40])
            .prop_map(|(of, list, ends, padded, piece)| Step::Headers { of, list, ends, padded, piece }),
        4 => latest().prop_map(|of| Step::Headers { of, list: TRAILERS, ends: true, padded: false, piece: 0 }),
        12 => (goes_on.clone(), prop_oneof![Just(0_usize), 1_usize..20, Just(20), 21_usize..600], ends, padded)
            .prop_map(|(of, length, ends, padded)| Step::Data { of, length, ends, padded }),
        2 => goes_on.clone().prop_map(|of| Step::Reset { of }),
        2 => (goes_on.clone(), prop_oneof![6 => 1_u32..100_000, 1 => Just(0), 1 => Just((1 << 31) - 1)])
            .prop_map(|(of, increment)| Step::Update { of, increment }),
        2 => (0_u16..9, prop_oneof![0_u32..3, 16_000_u32..17_000, any::<u32>()])
            .prop_map(|(id, value)| Step::Setting { id, value }),
        1 => any::<bool>().prop_map(|is_ack| Step::Ping { is_ack }),
        1 => (goes_on.clone(), 0_u32..10).prop_map(|(of, on)| Step::Priority { of, on }),
        1 => (0_u8..14, any::<u8>(), goes_on, prop_oneof![0_usize..10, Just(16_385)])
            .prop_map(|(kind, flags, of, length)| Step::Other { kind, flags, of, length }),
    ]
}

/// What a stream is to the peer, before a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Known {
    /// It has not been, and may be opened.
    #[default]
    Idle,
    /// A later one was opened before.
    PassedOver,
    /// We have opened it, and its head is still to come.
    Asked,
    Open,
    /// The peer has ended its half.
    HalfClosed,
    /// The peer has reset it.
    Reset,
    /// We have.
    WeReset,
}

/// Writes steps as a peer that remembers the streams.
pub(crate) struct Writer {
    encoder: Encoder,
    lists: Lists,
    streams: BTreeMap<u32, Known>,
}

impl Writer {
    /// A client.
    pub(crate) fn client() -> Self {
        Self { encoder: Encoder::new(DEFAULT_TABLE), lists: REQUESTS, streams: BTreeMap::new() }
    }

    /// A server that has been asked so many things.
    pub(crate) fn server(requests: usize) -> Self {
        let streams = (0..requests).map(|nth| (2 * nth as u32 + 1, Known::Asked)).collect();
        Self { encoder: Encoder::new(DEFAULT_TABLE), lists: RESPONSES, streams }
    }

    /// The id of the step's stream.
    fn id(&self, step: &Step) -> u32 {
        match of(step) {
            Of::New => self.streams.last_key_value().map_or(1, |(last, _)| (last | 1) + 2),
            Of::Latest(nth) => self.streams.keys().rev().nth(nth).copied().unwrap_or(1),
            Of::Id(id) => id,
        }
    }

    /// What the step's stream is.
    pub(crate) fn known(&self, step: &Step) -> Known {
        let id = self.id(step);
        let is_passed = self.streams.last_key_value().is_some_and(|(last, _)| *last > id);
        let new = if is_passed { Known::PassedOver } else { Known::Idle };
        self.streams.get(&id).copied().unwrap_or(new)
    }

    /// A step was taken, and this was said of it.
    pub(crate) fn note(&mut self, step: &Step, verdict: &Verdict) {
        let known = self.known(step);
        let id = self.id(step);
        let next = match step {
            _ if verdict.resets.iter().any(|(reset, _)| *reset == id) => Known::WeReset,
            Step::Headers { ends: false, .. } if matches!(known, Known::Idle | Known::Asked) => Known::Open,
            Step::Headers { ends: true, .. } | Step::Data { ends: true, .. }
                if matches!(known, Known::Idle | Known::Asked | Known::Open) =>
            {
                Known::HalfClosed
            }
            Step::Reset { .. } if matches!(known, Known::Asked | Known::Open | Known::HalfClosed) => Known::Reset,
            _ => return,
        };
        if id != 0 {
            self.streams.insert(id, next);
        }
    }

    pub(crate) fn bytes(&mut self, step: &Step) -> Vec<u8> {
        let stream = self.id(step);
        match *step {
            Step::Headers { list, ends, padded, piece, .. } => {
                self.headers(stream, self.lists[list], ends, padded, piece)
            }
            Step::Data { length, ends, padded, .. } => {
                let payload: Vec<_> = (0..length).map(|n| n as u8).collect();
                if padded {
                    let padded = [&[3][..], &payload, &[0; 3]].concat();
                    return raw::frame(kind::DATA, flag::PADDED | u8::from(ends), stream, &padded);
                }
                raw::data(stream, &payload, ends)
            }
            Step::Reset { .. } => raw::reset(stream, evenkeel_relay::frame::ErrorCode::CANCEL),
            Step::Update { increment, .. } => raw::window_update(stream, increment),
            Step::Setting { id, value } => raw::settings(&[(id, value)]),
            Step::Ping { is_ack } => raw::ping(3, is_ack),
            Step::Priority { on, .. } => {
                raw::frame(kind::PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[16]].concat())
            }
            Step::Other { kind, flags, length, .. } => raw::frame(kind, flags, stream, &vec![0; length]),
        }
    }

    fn headers(&mut self, stream: u32, list: &[(&str, &str)], ends: bool, padded: bool, piece: usize) -> Vec<u8> {
        let mut block = Vec::new();
        let fields = list.iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()));
        self.encoder.encode(fields, &mut block);
        let (first, mut rest) = block.split_at(if piece == 0 { block.len() } else { piece.min(block.len()) });
        let mut flags = u8::from(ends) | if rest.is_empty() { flag::END_HEADERS } else { 0 };
        let mut payload = first.to_vec();
        if padded {
            flags |= flag::PADDED;
            payload = [&[3], first, &[0; 3]].concat();
        }
        let mut bytes = raw::frame(kind::HEADERS, flags, stream, &payload);
        while !rest.is_empty() {
            let (next, after) = rest.split_at(piece.max(rest.len().div_ceil(8)).min(rest.len()));
            rest = after;
            let flags = if rest.is_empty() { flag::END_HEADERS } else { 0 };
            bytes.extend(raw::frame(kind::CONTINUATION, flags, stream, next));
        }
        bytes
    }
}

/// Which stream a step is about; zero is the connection.
fn of(step: &Step) -> Of {
    match *step {
        Step::Headers { of, .. }
        | Step::Data { of, .. }
        | Step::Reset { of }
        | Step::Update { of, .. }
        | Step::Priority { of, .. }
        | Step::Other { of, .. } => of,
        Step::Setting { .. } | Step::Ping { .. } => Of::Id(0),
    }
}
