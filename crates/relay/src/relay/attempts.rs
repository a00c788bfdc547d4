//! To the endpoint: placing calls, sending them, and trying again.

use std::{collections::VecDeque, time::Duration};

use evenkeel_balance::{Call as Ticket, Code, Entropy, Failure, Hedges, Pick, Pushback, Status, SubchannelId, Time};

use crate::{
    fields::Field,
    frame::ErrorCode,
    message::{Lengths, write_timeout},
    relay::{
        AttemptCost, Placement, Relay,
        call::{Attempt, CallIx, CallKey, Calls},
        conns::{ConnIx, Side},
        endpoints::Endpoint,
        responses::display,
    },
};

/// How often a picker is asked again, for an endpoint that has not failed this call yet and has room for it.
const OTHER_PICKS: usize = 4;

/// Where a call goes.
enum Choice {
    /// On this connection.
    Conn(Ticket, ConnIx),
    /// To this endpoint, once it has a stream for it.
    Line(Ticket),
    /// Nowhere, until there is a newer picker.
    Wait,
    Fail(Status),
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) status: Status,
    pub(super) how: How,
}

/// How far a failed attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// No endpoint was found for it.
    NotPlaced,
    /// Nothing of it was written, or the server has said that it left it behind.
    Unprocessed { was_written: bool },
    /// The server has refused the stream, unprocessed.
    Refused,
    /// The server has reset the stream.
    Reset(ErrorCode),
    /// The connection broke, and the server may have processed it.
    Lost,
}

impl<P: Placement> Relay<P> {
    /// Finds an endpoint for a call, now or later.
    pub(super) fn place(&mut self, now: Time, ix: CallIx) {
        if !self.calls[ix].wants_attempt() {
            return;
        }
        match self.choose(now, ix) {
            Choice::Conn(ticket, conn) => self.start(now, ix, ticket, conn),
            Choice::Line(ticket) => self.stand_in_line(now, ix, ticket),
            Choice::Wait => self.wait(ix),
            Choice::Fail(status) => {
                let failed = Failed { status: status.from_control_plane(), how: How::NotPlaced };
                self.after_failure(now, ix, None, &failed, Pushback::None);
            }
        }
    }

    fn wait(&mut self, ix: CallIx) {
        let (key, calls) = (self.calls.key(ix), &self.calls);
        queue(&mut self.waiting, key, calls);
    }

    fn choose(&mut self, now: Time, ix: CallIx) -> Choice {
        let call = &self.calls[ix];
        let path = call.path();
        for others in (0..=OTHER_PICKS).rev() {
            let ticket = match self.placement.pick(now, path, &call.head) {
                Pick::Call(ticket) => ticket,
                Pick::Fail(status) if !call.wait_for_ready => return Choice::Fail(status),
                Pick::Queue | Pick::Idle | Pick::Fail(_) => return Choice::Wait,
            };
            let id = ticket.subchannel();
            if others > 0 && call.avoided.contains(&id) {
                ticket.withdraw();
                continue;
            }
            let endpoint = self.endpoints.get(id);
            match endpoint.and_then(|endpoint| self.conn_with_room(endpoint)) {
                Some(conn) => return Choice::Conn(ticket, conn),
                None if others > 0 || endpoint.is_none() => ticket.withdraw(),
                None => return Choice::Line(ticket),
            }
        }
        // The picker is ahead of what is known of its endpoints; they are the next thing to hear of.
        Choice::Wait
    }

    /// The oldest connection that takes another stream, unless others are in line for it.
    fn conn_with_room(&self, endpoint: &Endpoint) -> Option<ConnIx> {
        if !endpoint.line.is_empty() {
            return None;
        }
        endpoint.conns.iter().copied().find(|ix| self.has_room(*ix))
    }

    pub(super) fn has_room(&self, ix: ConnIx) -> bool {
        let conn = self.conns.get(ix).filter(|conn| !conn.is_closing);
        conn.is_some_and(|conn| conn.connection.is_settled() && conn.connection.room() > 0)
    }

    fn stand_in_line(&mut self, now: Time, ix: CallIx, ticket: Ticket) {
        let (key, id) = (self.calls.key(ix), ticket.subchannel());
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            queue(&mut endpoint.line, key, &self.calls);
            self.calls[ix].in_line.push(ticket);
            self.dial_if_short(now, id);
        }
    }

    /// Gives streams to calls that wait for some.
    pub(super) fn serve_lines(&mut self, now: Time) {
        while let Some(id) = self.freed.pop() {
            self.serve_line(now, id);
        }
    }

    pub(super) fn serve_line(&mut self, now: Time, id: SubchannelId) {
        while let Some(endpoint) = self.endpoints.get_mut(id).filter(|endpoint| !endpoint.line.is_empty()) {
            let conns = endpoint.conns.clone();
            let Some(conn) = conns.into_iter().find(|ix| self.has_room(*ix)) else {
                return self.dial_if_short(now, id);
            };
            let next = self.endpoints.get_mut(id).and_then(|endpoint| endpoint.line.pop_front());
            let Some(ix) = next.and_then(|key| self.calls.find(key)) else { continue };
            match self.calls[ix].leave_line(id) {
                Some(ticket) if self.calls[ix].wants_attempt() => self.start(now, ix, ticket, conn),
                ticket => ticket.into_iter().for_each(Ticket::withdraw),
            }
        }
    }

    /// Sends a call on a connection that has room for it.
    fn start(&mut self, now: Time, ix: CallIx, ticket: Ticket, conn: ConnIx) {
        let id = ticket.subchannel();
        self.write_head(now, ix);
        let most = self.conns.get(conn).map_or(u32::MAX, |conn| conn.connection.peer_max_header_list());
        if self.own.size() > most as usize {
            ticket.withdraw();
            return self.head_too_large(now, ix, conn, most);
        }
        let call = &self.calls[ix];
        let ends = call.request_ended && call.request.end() == 0;
        let (own, opened) = (&self.own, self.conns.get(conn).map_or(0, |conn| conn.connection.open_streams()));
        let stream = self.conns.with(conn, |connection| connection.open(ix, own.iter(), ends)).flatten();
        let Some(stream) = stream else {
            // It had room a moment ago, so this is a connection that has just ended.
            return self.stand_in_line(now, ix, ticket);
        };
        if let Some(Side::Endpoint(line)) = self.conns.get_mut(conn).map(|conn| &mut conn.side) {
            line.sent(now, opened);
        }
        let call = &mut self.calls[ix];
        if let Some(method) = &call.method {
            self.placement.attempt_started(method);
        }
        if call.hedges.is_some() {
            call.avoided.push(id);
        }
        call.attempts.push(Attempt {
            ticket,
            conn,
            stream,
            started: now,
            sent: 0,
            lengths: Lengths::default(),
            is_sent: ends,
            head_code: None,
        });
        let attempt = call.attempts.len() - 1;
        self.watch_from(now);
        self.send_request(ix, attempt);
    }

    /// The server does not take the head that is in `own`. It is not asked: some take such a head for an attack, and end the
    /// connection with the calls of others.
    fn head_too_large(&mut self, now: Time, ix: CallIx, conn: ConnIx, most: u32) {
        let (size, peer) = (self.own.size(), self.peer(conn));
        let why = format!("{} takes {most} bytes of metadata; these are {size}", display(peer.as_ref()));
        let failed = Failed { status: Status::new(Code::ResourceExhausted, why), how: How::NotPlaced };
        self.after_failure(now, ix, None, &failed, Pushback::None);
    }

    /// The head as the endpoint gets it, into `own`.
    fn write_head(&mut self, now: Time, ix: CallIx) {
        let call = &self.calls[ix];
        let own = &mut self.own;
        own.clear();
        let has_authority = call.head.iter().any(|field| field.name == b":authority");
        for field in call.head.iter() {
            match field.name {
                b":scheme" => {
                    own.push(Field::new(b":scheme", if self.settings.is_secure { b"https" } else { b"http" }));
                }
                // The authority is what counts, and the only one that goes on (gRFC A41).
                b"host" if has_authority => {}
                b"grpc-timeout" if now > call.started => {
                    let left = call.deadline.map_or(Duration::MAX, |deadline| deadline.since(now));
                    let mut value = Vec::new();
                    write_timeout(left, &mut value);
                    own.push(Field::new(b"grpc-timeout", &value));
                }
                _ => own.push(field),
            }
        }
        let previous = call.previous();
        if previous > 0 {
            own.push(Field::new(b"grpc-previous-rpc-attempts", previous.to_string().as_bytes()));
        }
    }

    /// Sends an attempt as much of its request as there is and its endpoint takes.
    pub(super) fn send_request(&mut self, ix: CallIx, attempt: usize) {
        let call = &mut self.calls[ix];
        let ends = call.request_ended;
        let Some(to) = call.attempts.get_mut(attempt).filter(|to| !to.is_sent) else { return };
        let data = call.request.from(to.sent);
        if data.is_empty() && !ends {
            return;
        }
        let (stream, len) = (to.stream, data.len());
        let taken = self.conns.with(to.conn, |connection| connection.send_data(stream, data, ends)).unwrap_or(0);
        to.sent(&data[..taken]);
        to.is_sent = ends && taken == len;
        let sent = to.sent;
        let passed = call.request.pass(sent);
        if !call.can_replay {
            let sent = call.attempts.iter().map(|attempt| attempt.sent).min().unwrap_or(sent);
            self.held -= call.request.trim(sent);
        }
        if passed > 0 {
            let (client, stream) = (call.client, call.stream);
            self.conns.with(client, |connection| connection.release(stream, passed));
        }
    }

    /// The attempt counts: the others are off.
    pub(super) fn commit(&mut self, now: Time, ix: CallIx, attempt: usize) {
        if self.calls[ix].committed {
            return;
        }
        let call = &mut self.calls[ix];
        call.committed = true;
        if call.hedges.is_some()
            && let (Some(method), Some(chosen)) = (&call.method, call.attempts.get(attempt))
        {
            self.placement.note_latency(method, now.since(chosen.started));
        }
        self.keep_one_attempt(now, ix, attempt);
        self.commit_request(ix);
    }

    /// Ends all attempts but one, those in line among them. The one is the first after that.
    pub(super) fn keep_one_attempt(&mut self, now: Time, ix: CallIx, attempt: usize) {
        let call = &mut self.calls[ix];
        call.in_line.drain(..).for_each(Ticket::withdraw);
        call.attempts.swap(0, attempt);
        while self.calls[ix].attempts.len() > 1 {
            self.abandon(now, ix, 1, Code::Cancelled);
        }
    }

    /// Ends an attempt that nobody needs any more, here and at its endpoint.
    pub(super) fn abandon(&mut self, now: Time, ix: CallIx, attempt: usize, code: Code) {
        let Attempt { conn, stream, .. } = self.calls[ix].attempts[attempt];
        self.conns.with(conn, |connection| connection.reset(stream, ErrorCode::CANCEL));
        self.end_attempt(now, ix, attempt, code, false);
    }

    /// An attempt has ended: the balancer and the figures hear of it. What is in `fields` may be its trailers.
    pub(super) fn end_attempt(&mut self, now: Time, ix: CallIx, attempt: usize, code: Code, has_trailers: bool) {
        let call = &mut self.calls[ix];
        let ended = call.attempts.swap_remove(attempt);
        self.free(ended.ticket.subchannel());
        let duration = now.since(ended.started);
        if code == Code::Ok
            && let Some(throttle) = self.placement.throttle()
        {
            throttle.succeeded();
        }
        let call = &self.calls[ix];
        if let Some(method) = &call.method {
            // Payload comes after the head that makes the attempt the only one.
            let received = call.response_lengths.payload();
            let cost = AttemptCost { duration, sent: ended.lengths.payload(), received };
            self.placement.attempt_ended(method, code, &cost);
        }
        let mut outcome = evenkeel_balance::Outcome::new(code).after(duration).at(now);
        if has_trailers && ended.ticket.wants_report() {
            outcome.report = self.placement.load_report(&self.fields);
        }
        ended.ticket.finish(&outcome);
    }

    /// A stream of this endpoint has ended.
    fn free(&mut self, id: SubchannelId) {
        if self.endpoints.get(id).is_some_and(|endpoint| !endpoint.line.is_empty()) {
            self.freed.push(id);
        }
    }

    /// An attempt has failed, before or after its response began.
    pub(super) fn attempt_failed(&mut self, now: Time, ix: CallIx, attempt: usize, failed: &Failed) {
        let id = self.calls[ix].attempts[attempt].ticket.subchannel();
        if failed.how == (How::Unprocessed { was_written: false }) {
            self.withdraw(now, ix, attempt);
        } else {
            self.end_attempt(now, ix, attempt, failed.status.code, false);
        }
        if self.calls[ix].committed {
            return self.break_off(now, ix, failed);
        }
        self.after_failure(now, ix, Some(id), failed, Pushback::None);
    }

    /// No server has seen the attempt: the endpoint's figures forget it.
    fn withdraw(&mut self, now: Time, ix: CallIx, attempt: usize) {
        let call = &mut self.calls[ix];
        let ended = call.attempts.swap_remove(attempt);
        self.free(ended.ticket.subchannel());
        ended.ticket.withdraw();
        if let Some(method) = &self.calls[ix].method {
            let cost = AttemptCost { duration: now.since(ended.started), sent: ended.lengths.payload(), received: 0 };
            self.placement.attempt_ended(method, Code::Unavailable, &cost);
        }
    }

    /// What becomes of a call whose attempt has failed before anything of it reached the client: it goes out again without
    /// a trace where no server has processed it, is retried as the service config says, or fails.
    fn after_failure(&mut self, now: Time, ix: CallIx, on: Option<SubchannelId>, failed: &Failed, pushback: Pushback) {
        let call = &mut self.calls[ix];
        if let Some(id) = on {
            call.avoided.push(id);
        }
        let goes_again = match failed.how {
            How::Unprocessed { .. } => true,
            How::Refused => !std::mem::replace(&mut call.was_refused, true),
            How::NotPlaced | How::Reset(_) | How::Lost => false,
        };
        if goes_again && call.can_replay {
            call.repeats.transparent += 1;
            return self.place(now, ix);
        }
        if self.tries_again(now, ix, failed.status.code, pushback) {
            return;
        }
        self.fail(now, ix, failed);
    }

    /// Whether a call whose attempt ended with this code is tried again by the service config, or goes on beside it.
    pub(super) fn tries_again(&mut self, now: Time, ix: CallIx, code: Code, pushback: Pushback) -> bool {
        let call = &mut self.calls[ix];
        let Some(method) = &call.method else { return false };
        let config = self.placement.config(method);
        if let (Some(policy), Some(hedges)) = (&config.hedging, &mut call.hedges) {
            let throttle = self.placement.throttle().map(AsRef::as_ref);
            if hedges.failed(now, policy, throttle, code, pushback) == Failure::IsFinal {
                return false;
            }
            call.wake_at = call.hedges.as_ref().and_then(Hedges::next_at);
            self.wake_at(ix);
            return true;
        }
        let Some(policy) = &config.retry else { return false };
        let policy = policy.clone();
        let mut entropy = Entropy::new(self.placement.entropy());
        let throttle = self.placement.throttle().map(AsRef::as_ref);
        let Some(delay) = call.retries.after(&policy, throttle, code, pushback, &mut entropy) else { return false };
        if !call.can_replay || call.deadline.is_some_and(|deadline| deadline <= now + delay) {
            return false;
        }
        call.repeats.retries += 1;
        call.repeats.delay += delay;
        call.wake_at = Some(now + delay);
        self.wake_at(ix);
        true
    }

    /// The call's first attempt is about to go out; others will follow it.
    pub(super) fn begin_hedging(&mut self, now: Time, ix: CallIx) {
        let call = &mut self.calls[ix];
        let Some(method) = &call.method else { return };
        let Some(policy) = self.placement.config(method).hedging.clone() else { return };
        let delay = self.placement.hedging_delay(method, &policy);
        let hedges = Hedges::new(&policy, delay, now);
        call.wake_at = hedges.next_at();
        call.hedges = Some(hedges);
        self.wake_at(ix);
    }

    /// Something is due of a call: its deadline, its retry, or a hedge.
    pub(super) fn wake(&mut self, now: Time, ix: CallIx) {
        let call = &mut self.calls[ix];
        if call.deadline.is_some_and(|deadline| deadline <= now) {
            return self.expire(now, ix);
        }
        if call.wake_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        if call.hedges.is_some() {
            return self.hedge(now, ix);
        }
        self.place(now, ix);
    }

    fn hedge(&mut self, now: Time, ix: CallIx) {
        let call = &mut self.calls[ix];
        let (Some(method), Some(hedges)) = (&call.method, &mut call.hedges) else { return };
        let Some(policy) = self.placement.config(method).hedging.clone() else { return };
        let allowed = call.can_replay && self.placement.throttle().is_none_or(|throttle| throttle.allows());
        let placement = &mut self.placement;
        let starts = hedges.poll_start(now, || allowed && placement.spend_hedge(method, &policy));
        call.wake_at = hedges.next_at();
        if starts {
            call.repeats.hedges += 1;
            self.place(now, ix);
        }
        self.wake_at(ix);
    }
}

/// Puts a call at the end of a queue, which does not grow with calls that have gone.
fn queue<M>(queue: &mut VecDeque<CallKey>, key: CallKey, calls: &Calls<M>) {
    if queue.len() > 2 * calls.len() {
        queue.retain(|key| calls.find(*key).is_some());
    }
    queue.push_back(key);
}
