//! The connections to endpoints: made, lost, left, and watched.

use std::{sync::Arc, time::Duration};

use evenkeel_balance::{Code, ConnectionId, Input, Loss, Status, SubchannelId, Time};

use crate::{
    connection::Event,
    engine::{Action, Closed, ConnKey, DialId},
    frame::ErrorCode,
    relay::{
        Placement, Relay,
        attempts::{Failed, How},
        call::CallIx,
        conns::{ConnIx, Side},
        endpoints::Endpoint,
        responses::display,
        watch::{Line, Watched},
    },
};

/// How often connections that carry calls are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(25);

/// How long making a connection may take, to the endpoint's first frame. The balancer has one there already.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that ended sooner than this, without having carried a call, counts as a failed attempt: the balancer then
/// waits before the next.
const SHORT_LIVED: Duration = Duration::from_secs(1);

impl<P: Placement> Relay<P> {
    /// There is a newer picker: connections follow its endpoints, and calls that waited for it are placed.
    pub(super) fn follow_version(&mut self, now: Time) {
        let version = self.placement.version();
        if self.version == Some(version) {
            return;
        }
        self.version = Some(version);
        self.endpoints.begin_version();
        let (mut left, mut fresh) = (Vec::new(), Vec::new());
        let endpoints = &mut self.endpoints;
        self.placement.connections(&mut |id, address, load| {
            let (before, is_new) = endpoints.see(id, address, load);
            left.extend(before);
            if is_new {
                fresh.push(id.subchannel);
            }
        });
        left.extend(self.endpoints.take_gone());
        for endpoint in left {
            self.leave_endpoint(now, endpoint);
        }
        for id in fresh {
            self.dial(now, id);
        }
        self.place_waiting(now);
    }

    /// Asks the newest picker again for those calls that it might place now.
    fn place_waiting(&mut self, now: Time) {
        for _ in 0..self.waiting.len() {
            let Some(key) = self.waiting.pop_front() else { return };
            if let Some(call) = self.calls.find(key) {
                self.place(now, call);
            }
        }
    }

    /// The balancer's connection to the endpoint is over or another: ours takes no more calls, those in line go elsewhere.
    fn leave_endpoint(&mut self, now: Time, endpoint: Endpoint) {
        for ix in endpoint.conns {
            self.leave_line(ix);
            self.conns.with(ix, |connection| connection.drain(now));
            self.settle(now, ix);
        }
        for key in endpoint.line {
            let Some(call) = self.calls.find(key) else { continue };
            self.leave_queue(call, endpoint.connection.subchannel);
            self.waiting.push_back(key);
        }
    }

    fn leave_queue(&mut self, call: CallIx, id: SubchannelId) {
        if let Some(ticket) = self.calls[call].leave_line(id) {
            ticket.withdraw();
        }
    }

    fn dial(&mut self, now: Time, id: SubchannelId) {
        let dial = self.endpoints.next_dial();
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        endpoint.dialling.push((dial, now + CONNECT_TIMEOUT));
        let (connection, address) = (endpoint.connection, endpoint.address.clone());
        self.conns.actions.push_back(Action::Dial { dial, connection, address });
        self.watch_from(now);
    }

    /// Makes another connection, where calls wait for streams and there may be one more.
    pub(super) fn dial_if_short(&mut self, now: Time, id: SubchannelId) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        let unsettled = endpoint.conns.iter().any(|ix| !self.is_settled(*ix));
        if endpoint.dialling.is_empty() && !unsettled && endpoint.conns.len() < self.settings.max_connections {
            self.dial(now, id);
        }
    }

    fn is_settled(&self, ix: ConnIx) -> bool {
        self.conns.get(ix).is_some_and(|conn| conn.connection.is_settled())
    }

    /// An attempt to connect has ended. `None` where nobody needs the socket any more, or there is none.
    pub(super) fn take_dialled(&mut self, now: Time, dial: DialId, outcome: Result<(), String>) -> Option<ConnKey> {
        let id = self.take_dial(dial)?;
        match outcome {
            Ok(()) => {
                let load = Arc::clone(&self.endpoints.of(id)?.load);
                let line = Line::new(now, id, load, self.placement.line());
                let ix = self.conns.insert(now, &self.endpoint_settings, Side::Endpoint(Box::new(line)));
                self.endpoints.of(id)?.conns.push(ix);
                self.counters.connected += 1;
                self.watch_from(now);
                Some(self.conns.key(ix))
            }
            Err(why) => {
                self.cannot_connect(now, id, &why);
                None
            }
        }
    }

    /// Whose attempt this is, if it still counts.
    fn take_dial(&mut self, dial: DialId) -> Option<ConnectionId> {
        let is_its = |endpoint: &&Endpoint| endpoint.dialling.iter().any(|(id, _)| *id == dial);
        let id = self.endpoints.iter().find(is_its)?.connection;
        self.endpoints.of(id)?.dialling.retain(|(id, _)| *id != dial);
        Some(id)
    }

    /// An endpoint cannot be connected to: the balancer takes it out, unless there is another connection to it.
    fn cannot_connect(&mut self, now: Time, id: ConnectionId, why: &str) {
        let Some(endpoint) = self.endpoints.of(id) else { return };
        tracing::debug!(target: "evenkeel::relay", endpoint = %endpoint.address, why, "connecting failed");
        if !endpoint.conns.is_empty() {
            return;
        }
        let status = Status::unavailable(format!("{}: {why}", endpoint.address));
        let line = std::mem::take(&mut endpoint.line);
        self.placement.tell(Input::Disconnected(id, status));
        for key in line {
            let Some(call) = self.calls.find(key) else { continue };
            self.leave_queue(call, id.subchannel);
            // Another endpoint may take it; this one will be gone from the next picker.
            self.calls[call].avoided.push(id.subchannel);
            self.place(now, call);
        }
    }

    /// The endpoint's first frame has come: it is there.
    pub(super) fn settled(&mut self, now: Time, ix: ConnIx) {
        if let Some(id) = self.id(ix) {
            self.serve_line(now, id.subchannel);
        }
    }

    /// Room for streams may have come about without one ending: the server allows more, or has read what waited for it.
    pub(super) fn note_room(&mut self, ix: ConnIx) {
        let Some(Side::Endpoint(line)) = self.conns.get(ix).map(|conn| &conn.side) else { return };
        let id = line.id.subchannel;
        if self.endpoints.get(id).is_some_and(|endpoint| !endpoint.line.is_empty()) && self.has_room(ix) {
            self.freed.push(id);
        }
    }

    fn id(&self, ix: ConnIx) -> Option<ConnectionId> {
        match &self.conns.get(ix)?.side {
            Side::Endpoint(line) => Some(line.id),
            Side::Client => None,
        }
    }

    /// The endpoint takes no more calls on this connection (GOAWAY): a new one takes its place, running calls finish.
    pub(super) fn endpoint_leaves(&mut self, now: Time, ix: ConnIx, code: ErrorCode, said: &str) {
        let Some(id) = self.id(ix) else { return };
        tracing::debug!(target: "evenkeel::relay", connection = %id, %code, said, "the server is going away");
        let why = format!("the server is going away ({code})");
        self.replace(now, ix, id, &why, Loss::GoAway(code.0));
    }

    /// The connection is over for new calls; another one takes its place, or the balancer hears of it.
    fn replace(&mut self, now: Time, ix: ConnIx, id: ConnectionId, why: &str, loss: Loss) {
        let Some(conn) = self.conns.get(ix) else { return };
        let Side::Endpoint(line) = &conn.side else { return };
        let was_of_use = conn.connection.is_settled() && (line.has_carried || now.since(line.since) >= SHORT_LIVED);
        let Some(endpoint) = self.endpoints.of(id) else { return };
        endpoint.conns.retain(|other| *other != ix);
        if endpoint.conns.is_empty() && endpoint.dialling.is_empty() {
            if was_of_use {
                self.dial(now, id.subchannel);
            } else {
                let status = Status::unavailable(why);
                self.placement.tell(Input::Lost(id, status, loss));
            }
        }
    }

    /// The socket of a connection to an endpoint has come to its end.
    pub(super) fn lose_endpoint(&mut self, now: Time, ix: ConnIx, how: Closed) {
        let (why, loss) = match how {
            Closed::Eof => ("the server closed the connection".to_owned(), Loss::Unknown),
            Closed::Reset => ("the connection was reset".to_owned(), Loss::Reset),
            Closed::Failed(why) => (why, Loss::Socket),
            Closed::Done => ("the connection was closed".to_owned(), Loss::Aborted),
        };
        self.break_off_endpoint(now, ix, &why, loss);
    }

    /// We give up a connection to an endpoint.
    pub(super) fn break_endpoint(&mut self, now: Time, ix: ConnIx, why: &str) {
        self.break_off_endpoint(now, ix, why, Loss::Aborted);
        self.conns.touch(ix);
        self.conns.close(ix);
    }

    fn break_off_endpoint(&mut self, now: Time, ix: ConnIx, why: &str, loss: Loss) {
        let Some(id) = self.id(ix) else { return };
        let peer = display(self.peer(ix).as_ref());
        // What is written of each has to be known before the connection is replaced.
        let running = self.tags(ix);
        self.leave_line(ix);
        self.replace(now, ix, id, why, loss);
        let status = Status::new(Code::Unavailable, format!("{peer}: {why}"));
        for call in running {
            let Some(attempt) = self.calls[call].attempts.iter().position(|attempt| attempt.conn == ix) else {
                continue;
            };
            let stream = self.calls[call].attempts[attempt].stream;
            let was_written = self.conns.get(ix).is_some_and(|conn| conn.connection.is_written(stream));
            let how = if was_written { How::Lost } else { How::Unprocessed { was_written } };
            self.conns.with(ix, |connection| connection.reset(stream, ErrorCode::CANCEL));
            self.attempt_failed(now, call, attempt, &Failed { status: status.clone(), how });
        }
    }

    /// The connection is looked at again soon.
    pub(super) fn watch_from(&mut self, now: Time) {
        let at = now + WATCH_EVERY;
        self.conns_at = Some(self.conns_at.map_or(at, |before| before.min(at)));
    }

    /// A connection may have set itself a time.
    pub(super) fn note_timeout(&mut self, ix: ConnIx) {
        if let Some(at) = self.conns.get(ix).and_then(|conn| conn.connection.next_timeout()) {
            self.conns_at = Some(self.conns_at.map_or(at, |before| before.min(at)));
        }
    }

    /// Looks at every connection: for what is due of it, and for endpoints that hang.
    pub(super) fn watch(&mut self, now: Time) {
        self.conns_at = None;
        for ix in self.conns.all() {
            self.handle_conn_timeout(now, ix);
            self.judge(now, ix);
            self.note_timeout(ix);
        }
        self.give_up_dials(now);
    }

    fn handle_conn_timeout(&mut self, now: Time, ix: ConnIx) {
        let Some(conn) = self.conns.get_mut(ix).filter(|conn| !conn.is_closing) else { return };
        if conn.connection.next_timeout().is_none_or(|at| at > now) {
            return;
        }
        let broken = conn.connection.handle_timeout(now);
        let is_client = matches!(conn.side, Side::Client);
        if let Some(Event::Broken { code, why }) = broken {
            tracing::debug!(target: "evenkeel::relay", %code, why, is_client, "connection given up");
            if is_client {
                self.lose_client(now, ix);
                self.conns.touch(ix);
                self.conns.close(ix);
            } else {
                self.break_endpoint(now, ix, why);
            }
        }
        self.settle(now, ix);
    }

    fn judge(&mut self, now: Time, ix: ConnIx) {
        let Some(conn) = self.conns.get_mut(ix).filter(|conn| !conn.is_closing) else { return };
        let Side::Endpoint(line) = &mut conn.side else { return };
        let (id, streams) = (line.id, conn.connection.open_streams());
        if !conn.connection.is_settled() {
            if now.since(line.since) >= CONNECT_TIMEOUT {
                self.break_endpoint(now, ix, "no HTTP/2 SETTINGS came");
            }
            return self.watch_from(now);
        }
        let watched = line.judge(now, streams);
        let is_suspect = line.is_suspect();
        if streams > 0 || is_suspect || self.placement.line().1.time.is_some() {
            self.watch_from(now);
        }
        match watched {
            Watched::Well => {}
            Watched::Ping => {
                self.conns.with(ix, |connection| connection.ping(now.as_nanos()));
            }
            Watched::Stalled { silent_since } => {
                let silence = now.since(silent_since).as_millis();
                let why = format!("calls outstanding and no byte for {silence} ms");
                self.placement.tell(Input::Stalled(id, why));
            }
            Watched::Recovered => self.placement.tell(Input::Recovered(id)),
            Watched::Dead(why) => self.break_endpoint(now, ix, why),
        }
    }

    /// No more calls go to this connection. What it owed, the next one does not.
    fn leave_line(&mut self, ix: ConnIx) {
        if let Some(Side::Endpoint(line)) = self.conns.get_mut(ix).map(|conn| &mut conn.side) {
            line.leave();
        }
    }

    fn give_up_dials(&mut self, now: Time) {
        let mut late = Vec::new();
        for endpoint in self.endpoints.iter().filter(|endpoint| !endpoint.dialling.is_empty()) {
            let overdue = endpoint.dialling.iter().filter(|(_, at)| *at <= now);
            late.extend(overdue.map(|(dial, _)| *dial));
        }
        for dial in late {
            self.take_dialled(now, dial, Err(format!("no connection within {CONNECT_TIMEOUT:?}")));
        }
        if self.endpoints.iter().any(|endpoint| !endpoint.dialling.is_empty()) {
            self.watch_from(now);
        }
    }
}
