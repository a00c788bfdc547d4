//! The engine of one core: pairs the streams of clients with those of endpoints.
//!
//! A [`Relay`] owns its connections and its calls and shares nothing. It is driven: bytes and time come in by
//! [`Engine::receive`], what is to be done comes out of [`Engine::poll_action`].
//!
//! In the order of a call: `requests` takes it from its client (and `refusals`
//! answers what is no call), `attempts` places it by the [`Placement`] and sends it,
//! `responses` brings back what the endpoint says, `ending` ends it, however it ends. Beside that, `endpoints` keeps the
//! connections that the newest picker knows, and `watch` tells which of them hang.

mod attempts;
mod call;
mod conns;
mod counters;
mod ending;
mod endpoints;
mod links;
mod placement;
mod refusals;
mod requests;
mod responses;
mod settings;
mod stock;
mod watch;

use std::{collections::VecDeque, rc::Rc, time::Duration};

use evenkeel_balance::{SubchannelId, Time};

pub use counters::Counters;
pub use placement::{AttemptCost, Placement, Repeats};
pub use settings::Settings;

use crate::{
    connection,
    engine::{Action, Closed, ConnKey, DialId, Engine},
    fields::Fields,
    relay::{
        call::{CallIx, CallKey, Calls},
        conns::{ConnIx, Conns, Side},
        endpoints::Endpoints,
    },
};

/// Relays calls between clients and endpoints.
#[derive(Debug)]
pub struct Relay<P: Placement> {
    settings: Settings,
    client_settings: Rc<connection::Settings>,
    endpoint_settings: Rc<connection::Settings>,
    placement: P,
    conns: Conns,
    calls: Calls<P::Method>,
    endpoints: Endpoints,
    /// Calls that wait for a newer picker.
    waiting: VecDeque<CallKey>,
    /// Endpoints where streams have ended while calls wait for some.
    freed: Vec<SubchannelId>,
    /// What was decoded last.
    fields: Fields,
    /// A head of our own.
    own: Fields,
    /// The version of the endpoints.
    version: Option<u64>,
    /// No call is due before this.
    calls_at: Option<Time>,
    /// Calls that are due are not looked for before this.
    look_from: Time,
    /// No connection is due before this.
    conns_at: Option<Time>,
    /// Bytes of payload that calls keep.
    held: usize,
    is_draining: bool,
    counters: Counters,
}

impl<P: Placement> Relay<P> {
    /// A relay without connections. [`refresh`](Engine::refresh) has it connect.
    pub fn new(settings: Settings, placement: P) -> Self {
        Self {
            client_settings: Rc::new(settings.clients.clone()),
            endpoint_settings: Rc::new(settings.endpoints.clone()),
            settings,
            placement,
            conns: Conns::default(),
            calls: Calls::default(),
            endpoints: Endpoints::default(),
            waiting: VecDeque::new(),
            freed: Vec::new(),
            fields: Fields::new(),
            own: Fields::new(),
            version: None,
            calls_at: None,
            look_from: Time::ZERO,
            conns_at: None,
            held: 0,
            is_draining: false,
            counters: Counters::default(),
        }
    }

    /// Calls that run now.
    pub fn running(&self) -> usize {
        self.calls.len()
    }

    /// Connections of clients.
    pub fn clients(&self) -> usize {
        self.conns.clients()
    }

    /// Payload that is kept, in bytes: for sides that are slow to take it, and for further attempts.
    pub fn held(&self) -> usize {
        self.held
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        for conn in self.conns.all().filter_map(|ix| self.conns.get(ix)) {
            counters.add(conn.connection.counters());
        }
        counters
    }
}

impl<P: Placement> Engine for Relay<P> {
    fn accept(&mut self, now: Time) -> ConnKey {
        let ix = self.conns.insert(now, &self.client_settings, Side::Client);
        self.counters.clients_accepted += 1;
        if self.is_draining {
            self.conns.with(ix, |connection| connection.drain(now));
        }
        self.note_timeout(ix);
        self.conns.key(ix)
    }

    fn dialled(&mut self, now: Time, dial: DialId, outcome: Result<(), String>) -> Option<ConnKey> {
        self.take_dialled(now, dial, outcome)
    }

    fn receive(&mut self, now: Time, conn: ConnKey, bytes: &[u8]) {
        let Some(ix) = self.conns.find(conn) else { return };
        if let Some(Side::Endpoint(line)) = self.conns.get_mut(ix).map(|conn| &mut conn.side) {
            line.received(now);
            self.receive_from_endpoint(now, ix, bytes);
        } else {
            self.receive_from_client(now, ix, bytes);
        }
        self.settle(now, ix);
        self.serve_lines(now);
    }

    fn closed(&mut self, now: Time, conn: ConnKey, why: Closed) {
        let Some(ix) = self.conns.find(conn) else { return };
        // What we closed ourselves has been seen to.
        if why != Closed::Done {
            match self.conns.get(ix).map(|conn| &conn.side) {
                Some(Side::Client) => self.lose_client(now, ix),
                Some(Side::Endpoint(_)) => self.lose_endpoint(now, ix, why),
                None => {}
            }
        }
        if let Some(gone) = self.conns.remove(ix) {
            self.counters.add(gone.connection.counters());
        }
        self.serve_lines(now);
    }

    fn output(&self, conn: ConnKey) -> &[u8] {
        let ix = self.conns.find(conn);
        ix.and_then(|ix| self.conns.get(ix)).map_or(&[], |conn| conn.connection.output())
    }

    fn wrote(&mut self, now: Time, conn: ConnKey, bytes: usize) {
        let Some(ix) = self.conns.find(conn) else { return };
        let Some(conn) = self.conns.get_mut(ix) else { return };
        conn.connection.consume(now, bytes);
        self.settle(now, ix);
        self.serve_lines(now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.conns.poll_action()
    }

    fn next_timeout(&self) -> Option<Time> {
        self.calls_at.into_iter().chain(self.conns_at).min()
    }

    fn handle_timeout(&mut self, now: Time) {
        if self.calls_at.is_some_and(|at| at <= now) {
            self.wake_calls(now);
        }
        if self.conns_at.is_some_and(|at| at <= now) {
            self.watch(now);
        }
        self.serve_lines(now);
    }

    fn refresh(&mut self, now: Time) {
        self.follow_version(now);
        self.serve_lines(now);
    }

    /// Says good-bye to every client: calls that run may finish, and new ones go elsewhere.
    fn drain(&mut self, now: Time) {
        self.is_draining = true;
        for ix in self.conns.all() {
            if matches!(self.conns.get(ix).map(|conn| &conn.side), Some(Side::Client)) {
                self.conns.with(ix, |connection| connection.drain(now));
                self.stop_all_refused(ix);
                self.note_timeout(ix);
                self.settle(now, ix);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.conns.clients() == 0
    }
}

impl<P: Placement> Relay<P> {
    /// Lets streams of this connection go on that were held up, and sees whether it has to go.
    fn settle(&mut self, now: Time, ix: ConnIx) {
        while let Some((stream, is_client)) = self.next_writable(ix) {
            let Some(call) = self.conns.tag(ix, stream) else {
                self.resume_refusal(ix, stream);
                continue;
            };
            if is_client {
                self.resume_response(now, call);
            } else if let Some(attempt) = self.calls[call].attempt(ix, stream) {
                self.send_request(call, attempt);
            }
        }
        self.conns.touch(ix);
        self.note_room(ix);
        if self.conns.get(ix).is_some_and(|conn| conn.connection.is_finished()) {
            self.conns.close(ix);
        }
    }

    fn next_writable(&mut self, ix: ConnIx) -> Option<(connection::StreamKey, bool)> {
        let conn = self.conns.get_mut(ix).filter(|conn| !conn.is_closing)?;
        let stream = conn.connection.poll_writable()?;
        Some((stream, matches!(conn.side, Side::Client)))
    }

    /// The call has something due at this time.
    fn wake_at(&mut self, call: CallIx) {
        if let Some(at) = self.calls[call].next_timeout() {
            let at = at.max(self.look_from);
            self.calls_at = Some(self.calls_at.map_or(at, |before| before.min(at)));
        }
    }

    /// Does what is due of calls. It looks at all of them, which is rare: only when the earliest moment has come that any
    /// call had when it was last looked at, and most calls are over before theirs.
    fn wake_calls(&mut self, now: Time) {
        let due = |call: &call::Call<P::Method>| call.next_timeout().is_some_and(|at| at <= now);
        let woken: Vec<_> = self.calls.iter().filter(|(_, call)| due(call)).map(|(ix, _)| self.calls.key(ix)).collect();
        for key in woken {
            if let Some(call) = self.calls.find(key) {
                self.wake(now, call);
            }
        }
        let next = self.calls.iter().filter_map(|(_, call)| call.next_timeout()).min();
        let running = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        self.look_from = now + LOOK_EVERY.max(LOOK_AT_ONE * running);
        self.calls_at = next.map(|at| at.max(self.look_from));
    }
}

/// Calls that are due are looked for at most this often.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// With many calls, so much time for each goes by between two looks at all of them: some ten times what a look takes, so
/// that deadlines which follow close upon each other, be it on purpose, do not take the time that calls need.
const LOOK_AT_ONE: Duration = Duration::from_nanos(200);
