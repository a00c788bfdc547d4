//! A whole relay between clients and backends, all of which may do anything at any time, and say anything.

use std::time::Duration;

use evenkeel_relay::{
    connection::StreamKey,
    engine::Engine,
    fields::Field,
    frame::{ErrorCode, FrameHeader},
    relay::Settings,
};

use crate::{
    script::Script,
    world::{Heard, World, backend},
};

/// What a script can do.
pub(crate) mod op {
    pub(crate) const CLIENT: u8 = 0;
    pub(crate) const CALL: u8 = 1;
    pub(crate) const REQUEST: u8 = 2;
    pub(crate) const CANCEL: u8 = 3;
    pub(crate) const ANSWER: u8 = 4;
    pub(crate) const RESPONSE: u8 = 5;
    pub(crate) const TRAILERS: u8 = 6;
    pub(crate) const RESET: u8 = 7;
    pub(crate) const KILL: u8 = 8;
    pub(crate) const HANG: u8 = 9;
    pub(crate) const HOLD: u8 = 10;
    pub(crate) const CUT: u8 = 11;
    pub(crate) const STEP: u8 = 12;
    pub(crate) const RUN: u8 = 13;
    pub(crate) const PASS: u8 = 14;
    pub(crate) const DOWN: u8 = 15;
    pub(crate) const RESOLVE: u8 = 16;
    pub(crate) const LEAVE: u8 = 17;
    pub(crate) const DRAIN: u8 = 18;
    pub(crate) const PART: u8 = 19;
    pub(crate) const RAW: u8 = 20;
    pub(crate) const FRAME: u8 = 21;
    pub(crate) const RELEASE: u8 = 22;
    pub(crate) const COUNT: u8 = 23;
}

/// How far a script has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Attempts that came to a backend.
    pub(crate) arrived: usize,
    /// Calls that ended.
    pub(crate) ended: usize,
}

/// Does what the bytes say, closes everything, and finds nothing left over.
pub(crate) fn run(bytes: &[u8]) -> Reached {
    let mut script = Script(bytes);
    let mut scene = Scene::new(&mut script);
    while !script.is_over() {
        scene.act(&mut script);
        scene.listen();
        scene.check();
    }
    scene.finish()
}

/// Service configs of all kinds.
const CONFIGS: &[&str] = &[
    "{}",
    r#"{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s",
        "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#,
    r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.1s",
        "nonFatalStatusCodes": ["UNAVAILABLE"]}}]}"#,
    r#"{"methodConfig": [{"name": [{}], "timeout": "0.5s", "waitForReady": true, "maxRequestMessageBytes": 2000}]}"#,
];

/// What heads of calls may have beside the usual.
const MORE: &[&[(&str, &str)]] = &[
    &[],
    &[("grpc-timeout", "50m")],
    &[("grpc-timeout", "0n")],
    &[("content-length", "10")],
    &[(":method", "GET")],
    &[("grpc-timeout", "99999999H"), ("x", "y")],
];

/// What backends say of a call.
const STATUSES: &[&str] = &["0", "14", "5", "x", ""];

const CODES: &[ErrorCode] = &[
    ErrorCode::CANCEL,
    ErrorCode::REFUSED_STREAM,
    ErrorCode::NO_ERROR,
    ErrorCode::INTERNAL_ERROR,
    ErrorCode::ENHANCE_YOUR_CALM,
];

/// No peer, backend or address is ever looked for beyond this.
const BACKENDS: u8 = 4;

/// The world, and whom it has.
struct Scene {
    world: World,
    max_held: usize,
    calls: Vec<(u32, StreamKey)>,
    arrived: Vec<(u32, StreamKey)>,
    reached: Reached,
}

impl Scene {
    fn new(script: &mut Script<'_>) -> Self {
        let choice = script.byte();
        let mut settings = Settings::default();
        if choice & 4 != 0 {
            (settings.max_message, settings.max_replay, settings.max_held) = (100_000, 100, 150_000);
            settings.max_connections = 2;
            settings.clients.max_concurrent_streams = 6;
            settings.clients.output_limit = 20_000;
            settings.endpoints.output_limit = 20_000;
        }
        if choice & 8 != 0 {
            settings.clients.stream_window = 50;
            settings.endpoints.stream_window = 50;
        }
        let max_held = settings.max_held;
        let world = World::with(u16::from(choice >> 4 & 3), CONFIGS[usize::from(choice & 3)], settings);
        Self { world, max_held, calls: Vec::new(), arrived: Vec::new(), reached: Reached::default() }
    }

    fn act(&mut self, script: &mut Script<'_>) {
        match script.byte() % op::COUNT {
            op::CLIENT => _ = self.world.client(),
            op::CALL => self.call(script),
            op::REQUEST => self.send(script, true),
            op::CANCEL => self.reset(script, true),
            op::ANSWER => self.answer(script),
            op::RESPONSE => self.send(script, false),
            op::TRAILERS => self.trailers(script),
            op::RESET => self.reset(script, false),
            op::RELEASE => self.release(script),
            op::STEP => (0..script.byte() % 8).for_each(|_| _ = self.world.step()),
            op::RUN => self.world.run(),
            op::CUT => self.world.chunk = [usize::MAX, 1, 10, 1_000][usize::from(script.byte() % 4)],
            op::PASS => self.world.pass(Duration::from_millis(1 << (script.byte() % 15))),
            op::RESOLVE => {
                let count = u16::from(script.byte() % BACKENDS);
                self.world.resolve((0..count).map(backend));
            }
            op::DOWN => self.turn(backend((script.byte() % BACKENDS).into())),
            op::DRAIN => {
                let now = self.world.now;
                self.world.relay.drain(now);
            }
            other => self.harass(other, script),
        }
    }

    /// What happens to a peer as a whole.
    fn harass(&mut self, op: u8, script: &mut Script<'_>) {
        let Some(at) = self.peer(script.byte()) else { return };
        let now = self.world.now;
        let peer = self.world.peer(at);
        match op {
            op::KILL => self.world.kill(at),
            op::HANG => peer.hangs = !peer.hangs,
            op::HOLD => peer.releases = !peer.releases,
            op::LEAVE if script.flag() => peer.connection.close(ErrorCode::NO_ERROR),
            op::LEAVE => peer.connection.drain(now),
            op::PART => self.part(at, script.short().into()),
            op::RAW => {
                let length = script.byte().into();
                self.say(at, script.bytes(length));
            }
            op::FRAME => {
                let (kind, flags, stream) = (script.byte() % 12, script.byte(), script.byte().into());
                let length = script.byte().into();
                let payload = script.bytes(length);
                let length = u32::try_from(payload.len()).expect("payloads are small");
                let header = FrameHeader { length, kind, flags, stream }.encoded();
                self.say(at, &[&header, payload].concat());
            }
            _ => {}
        }
    }

    /// Bytes come that are not of the peer's own connection.
    fn say(&mut self, at: u32, bytes: &[u8]) {
        let (now, key) = (self.world.now, self.world.peer(at).key);
        self.world.relay.receive(now, key, bytes);
    }

    /// A peer gets some of what there is for it.
    fn part(&mut self, at: u32, length: usize) {
        let (now, key) = (self.world.now, self.world.peer(at).key);
        let output = self.world.relay.output(key);
        let part = output[..output.len().min(length)].to_vec();
        self.world.peer(at).hear(now, &part);
        self.world.relay.wrote(now, key, part.len());
    }

    fn call(&mut self, script: &mut Script<'_>) {
        let (nth, more, ends) = (script.byte(), script.byte(), script.flag());
        let clients: Vec<_> = self.peers(|is_backend| !is_backend);
        let Some(&client) = pick(&clients, nth) else { return };
        if self.world.peer(client).connection.room() > 0 {
            let more = MORE[usize::from(more) % MORE.len()];
            let stream = self.world.call_with(client, more, ends);
            self.calls.push((client, stream));
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        let Some((at, stream)) = self.latest(script.byte(), false) else { return };
        let status = STATUSES[usize::from(script.byte()) % STATUSES.len()];
        match self.world.peers.get_mut(&at) {
            Some(peer) if script.flag() => peer.refuse(stream, status),
            Some(peer) => peer.respond_head(stream),
            None => {}
        }
    }

    fn trailers(&mut self, script: &mut Script<'_>) {
        let Some((at, stream)) = self.latest(script.byte(), false) else { return };
        let status = STATUSES[usize::from(script.byte()) % STATUSES.len()].as_bytes();
        if let Some(peer) = self.world.peers.get_mut(&at) {
            peer.connection.send_trailers(stream, [Field::new(b"grpc-status", status)].into_iter());
        }
    }

    /// A piece of a message, or a whole one.
    fn send(&mut self, script: &mut Script<'_>, by_client: bool) {
        let Some((at, stream)) = self.latest(script.byte(), by_client) else { return };
        let (length, how) = (script.short(), script.byte());
        let mut data = vec![0; length.into()];
        if how & 2 == 0 {
            data.splice(..0, [&[0][..], &u32::from(length).to_be_bytes()].concat());
        }
        if let Some(peer) = self.world.peers.get_mut(&at) {
            peer.connection.send_data(stream, &data, how & 1 == 1);
        }
    }

    fn reset(&mut self, script: &mut Script<'_>, by_client: bool) {
        let Some((at, stream)) = self.latest(script.byte(), by_client) else { return };
        let code = CODES[usize::from(script.byte()) % CODES.len()];
        if let Some(peer) = self.world.peers.get_mut(&at) {
            peer.connection.reset(stream, code);
        }
    }

    /// A peer that holds what it reads lets go of some.
    fn release(&mut self, script: &mut Script<'_>) {
        let (by_client, nth, length) = (script.flag(), script.byte(), script.short());
        let Some((at, stream)) = self.latest(nth, by_client) else { return };
        if let Some(peer) = self.world.peers.get_mut(&at) {
            peer.connection.release(stream, length.into());
        }
    }

    /// A backend goes down or comes up.
    fn turn(&mut self, address: evenkeel_balance::Address) {
        let mut balance = self.world.balance.borrow_mut();
        if self.world.down.remove(&address) {
            balance.down.remove(&address);
        } else {
            self.world.down.insert(address.clone());
            balance.down.insert(address);
        }
    }

    /// One of the latest streams, of a client or at a backend.
    fn latest(&self, nth: u8, by_client: bool) -> Option<(u32, StreamKey)> {
        let streams = if by_client { &self.calls } else { &self.arrived };
        streams.iter().rev().nth(usize::from(nth) % 8).copied()
    }

    fn peer(&self, nth: u8) -> Option<u32> {
        pick(&self.peers(|_| true), nth).copied()
    }

    fn peers(&self, which: impl Fn(bool) -> bool) -> Vec<u32> {
        self.world.peers.iter().filter(|(_, peer)| which(peer.address.is_some())).map(|(at, _)| *at).collect()
    }

    /// Takes note of calls that have come to backends.
    fn listen(&mut self) {
        for (at, peer) in &mut self.world.peers {
            for heard in peer.heard.drain(..) {
                if let (Heard::Head(stream, ..), Some(_)) = (heard, &peer.address) {
                    self.reached.arrived += 1;
                    self.arrived.push((*at, stream));
                }
            }
        }
    }

    fn check(&self) {
        // A piece of payload is taken before it is too much.
        assert!(self.world.relay.held() <= self.max_held + 100_000, "{} bytes are held", self.world.relay.held());
        for peer in self.world.peers.values() {
            let waiting = self.world.relay.output(peer.key).len();
            assert!(waiting <= 2 << 20, "{waiting} bytes of output");
        }
    }

    /// Once its clients are gone, a relay has no call; once its backends are gone too, it has nothing.
    fn finish(mut self) -> Reached {
        self.world.chunk = usize::MAX;
        for client in self.peers(|is_backend| !is_backend) {
            self.world.kill(client);
        }
        assert!(self.world.relay.is_idle());
        assert_eq!((self.world.relay.running(), self.world.relay.held()), (0, 0));
        for backend in self.peers(|is_backend| is_backend) {
            self.world.kill(backend);
        }
        self.world.assert_clean();
        self.world.pass(Duration::from_secs(1));
        self.world.assert_clean();
        self.reached.ended = self.world.balance.borrow().ended.len();
        self.reached
    }
}

fn pick<T>(of: &[T], nth: u8) -> Option<&T> {
    (!of.is_empty()).then(|| &of[usize::from(nth) % of.len()])
}
