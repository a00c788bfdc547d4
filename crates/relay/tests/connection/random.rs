//! Random operations on both sides of a pair: whatever they do, nothing is lost, made up, or left over.

use std::collections::BTreeMap;

use evenkeel_relay::{
    connection::{Settings, StreamKey},
    frame::ErrorCode,
};
use proptest::prelude::*;

use crate::pair::{Pair, REQUEST, RESPONSE, Side, TRAILERS, fields};

#[derive(Clone, Debug)]
enum Operation {
    Open { ends: bool },
    Head { nth: usize, ends: bool },
    Data { by_client: bool, nth: usize, length: usize, ends: bool },
    Trailers { nth: usize },
    Reset { by_client: bool, nth: usize },
    Release { by_client: bool, nth: usize, length: usize },
    Move { to_server: bool, length: usize },
    Ping { by_client: bool },
}

fn operation() -> impl Strategy<Value = Operation> {
    let (nth, side) = (0_usize..6, any::<bool>());
    prop_oneof![
        2 => any::<bool>().prop_map(|ends| Operation::Open { ends }),
        2 => (nth.clone(), prop::bool::weighted(0.2)).prop_map(|(nth, ends)| Operation::Head { nth, ends }),
        6 => (side, nth.clone(), 0_usize..40_000, prop::bool::weighted(0.2))
            .prop_map(|(by_client, nth, length, ends)| Operation::Data { by_client, nth, length, ends }),
        1 => nth.clone().prop_map(|nth| Operation::Trailers { nth }),
        1 => (side, nth.clone()).prop_map(|(by_client, nth)| Operation::Reset { by_client, nth }),
        4 => (side, nth, 0_usize..60_000)
            .prop_map(|(by_client, nth, length)| Operation::Release { by_client, nth, length }),
        6 => (side, 0_usize..50_000).prop_map(|(to_server, length)| Operation::Move { to_server, length }),
        1 => side.prop_map(|by_client| Operation::Ping { by_client }),
    ]
}

/// A pair whose bytes move in pieces, and what each side has sent.
struct World {
    pair: Pair,
    ids: Vec<u32>,
    sent: BTreeMap<(bool, u32), Vec<u8>>,
}

impl World {
    fn new(window: u32) -> Self {
        let mut settings = Settings::default();
        settings.stream_window = window;
        settings.connection_window = 100_000;
        settings.output_limit = 60_000;
        let mut pair = Pair::with(settings.clone(), settings);
        (pair.client.releases, pair.server.releases) = (false, false);
        Self { pair, ids: Vec::new(), sent: BTreeMap::new() }
    }

    fn side(&mut self, client: bool) -> &mut Side {
        if client { &mut self.pair.client } else { &mut self.pair.server }
    }

    /// The key of one of the latest streams, dead or alive, as this side knows it.
    fn key(&mut self, client: bool, nth: usize) -> Option<StreamKey> {
        let id = *self.ids.iter().rev().nth(nth)?;
        self.side(client).keys.get(&id).copied()
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Open { ends } => self.open(ends),
            Operation::Head { nth, ends } => {
                if let Some(key) = self.key(false, nth) {
                    self.pair.server.connection.send_head(key, fields(RESPONSE), ends);
                }
            }
            Operation::Trailers { nth } => {
                if let Some(key) = self.key(false, nth) {
                    self.pair.server.connection.send_trailers(key, fields(TRAILERS));
                }
            }
            Operation::Data { by_client, nth, length, ends } => self.send(by_client, nth, length, ends),
            Operation::Reset { by_client, nth } => {
                if let Some(key) = self.key(by_client, nth) {
                    self.side(by_client).connection.reset(key, ErrorCode::CANCEL);
                }
            }
            Operation::Release { by_client, nth, length } => {
                if let Some(key) = self.key(by_client, nth) {
                    self.side(by_client).connection.release(key, length);
                }
            }
            Operation::Move { to_server, length } => self.carry(to_server, length),
            Operation::Ping { by_client } => self.side(by_client).connection.ping(1),
        }
    }

    fn open(&mut self, ends: bool) {
        if let Some(key) = self.pair.client.connection.open(1, fields(REQUEST), ends) {
            self.pair.client.keys.insert(key.id(), key);
            self.ids.push(key.id());
        }
    }

    fn send(&mut self, by_client: bool, nth: usize, length: usize, ends: bool) {
        let Some(key) = self.key(by_client, nth) else { return };
        let sent = self.sent.entry((by_client, key.id())).or_default();
        let data: Vec<u8> = (0..length).map(|n| ((sent.len() + n) % 251) as u8).collect();
        let taken = self.side(by_client).connection.send_data(key, &data, ends);
        self.sent.entry((by_client, key.id())).or_default().extend(&data[..taken]);
    }

    fn carry(&mut self, to_server: bool, length: usize) {
        let from = self.side(to_server);
        let bytes = from.connection.output();
        let bytes = bytes[..length.min(bytes.len())].to_vec();
        let now = from.now;
        from.connection.consume(now, bytes.len());
        self.side(!to_server).receive(&bytes);
    }

    fn check(&self) {
        assert_eq!((self.pair.client.broken, self.pair.server.broken), (None, None));
        for ((by_client, id), sent) in &self.sent {
            let receiver = if *by_client { &self.pair.server } else { &self.pair.client };
            let seen = receiver.seen(*id);
            assert!(sent.starts_with(&seen.data), "stream {id}: what comes is what was sent");
            assert!(!seen.ended || seen.reset.is_some() || seen.data.len() == sent.len(), "stream {id} is whole");
        }
    }

    /// Ends all that is open, and makes a large call of either direction.
    fn finish(&mut self) {
        self.pair.run();
        for key in self.pair.client.keys.clone().values() {
            self.pair.client.connection.reset(*key, ErrorCode::CANCEL);
        }
        self.pair.run();
        self.pair.assert_no_stream();
        assert!(self.pair.client.connection.poll_writable().is_none());
        assert!(self.pair.server.connection.poll_writable().is_none());
        (self.pair.client.releases, self.pair.server.releases) = (true, true);
        let body = vec![1; 300_000];
        let id = self.pair.open(false);
        self.pair.send(true, id, &body, true);
        self.pair.respond(id, false);
        self.pair.send(false, id, &body, true);
        assert_eq!((self.pair.server.seen(id).data.len(), self.pair.client.seen(id).data.len()), (300_000, 300_000));
        self.pair.assert_no_stream();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_left_over(
        window in prop_oneof![Just(65_535_u32), 1_u32..2_000, 100_000_u32..200_000],
        operations in prop::collection::vec(operation(), 0..120),
    ) {
        let mut world = World::new(window);
        for operation in &operations {
            world.apply(operation);
            world.check();
        }
        world.finish();
        world.check();
    }

    #[test]
    fn noise_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cut in 0_usize..300,
    ) {
        let mut raw = crate::raw::Raw::server();
        raw.request(1, false);
        let (start, rest) = bytes.split_at(cut.min(bytes.len()));
        raw.say(start);
        raw.say(rest);
        raw.hear();
    }

    /// Frames with plausible headers get deeper than noise.
    #[test]
    fn random_frames_never_panic(
        frames in prop::collection::vec(
            (0_u8..11, any::<u8>(), 0_u32..8, prop::collection::vec(any::<u8>(), 0..12)), 0..40),
        is_server in any::<bool>(),
    ) {
        let mut raw = if is_server { crate::raw::Raw::server() } else { crate::raw::Raw::client() };
        if is_server {
            raw.request(1, false);
        }
        for (kind, flags, stream, payload) in frames {
            raw.say(&crate::raw::frame(kind, flags, stream, &payload));
            while raw.side.connection.poll_writable().is_some() {}
        }
        raw.hear();
    }
}
