//! From the client: heads, payload, resets.

use evenkeel_balance::{Code, Status, Time};

use crate::{
    connection::{Event, StreamKey},
    frame::ErrorCode,
    hpack::Listing,
    message::{Refusal, Request},
    relay::{Placement, Relay, call::CallIx, conns::ConnIx},
};

/// So many bytes of a message are sent on before the rest has come.
const WORTH_SENDING: u64 = 1024;

impl<P: Placement> Relay<P> {
    pub(super) fn receive_from_client(&mut self, now: Time, ix: ConnIx, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(event) = self.conns.receive(ix, now, &mut input, &mut self.fields) {
            match event {
                Event::Head { stream, ends, listing } => self.begin(now, ix, stream, ends, listing),
                Event::Data { stream, data, ends } => match self.conns.tag(ix, stream) {
                    Some(call) => self.take_request(now, call, data, ends),
                    None => self.take_refused(ix, stream, data.len(), ends),
                },
                // gRPC has no trailers in requests: what they say is lost, that they end it is not.
                Event::Trailers { stream, .. } => match self.conns.tag(ix, stream) {
                    Some(call) => self.take_request(now, call, &[], true),
                    None => self.take_refused(ix, stream, 0, true),
                },
                Event::Reset { tag, code, .. } if tag != u32::MAX => self.cancel(now, tag, code),
                Event::Broken { code, why } => {
                    tracing::debug!(target: "evenkeel::relay", %code, why, "client connection broken");
                    self.lose_client(now, ix);
                    self.conns.touch(ix);
                    self.conns.close(ix);
                }
                Event::Reset { .. } => self.forget_refused(ix),
                Event::Settled | Event::Leaving { .. } | Event::Pong(_) => {}
            }
        }
        self.note_timeout(ix);
    }

    fn begin(&mut self, now: Time, ix: ConnIx, stream: StreamKey, ends: bool, listing: Listing) {
        let request = match listing {
            Listing::Whole => Request::read(&self.fields),
            Listing::TooLarge => Err(Refusal::TOO_LARGE),
        };
        let request = match request {
            Ok(request) => request,
            Err(refusal) => return self.refuse(ix, stream, ends, refusal),
        };
        self.counters.calls += 1;
        let path = self.fields.value(b":path").and_then(|path| std::str::from_utf8(path).ok()).unwrap_or_default();
        let method = self.placement.begin(now, path);
        let config = self.placement.config(&method);
        let timeout = [request.timeout, config.timeout].into_iter().flatten().min();
        let wait_for_ready = config.wait_for_ready.unwrap_or(false);
        let is_hedged = config.hedging.is_some();
        let call = self.calls.begin(now, ix, stream, &mut self.fields, method);
        self.conns.with(ix, |connection| connection.set_tag(stream, call));
        let begun = &mut self.calls[call];
        begun.request_ended = ends;
        begun.wait_for_ready = wait_for_ready;
        begun.deadline = timeout.map(|timeout| now + timeout);
        if begun.deadline.is_some_and(|deadline| deadline <= now) {
            return self.expire(now, call);
        }
        self.wake_at(call);
        if is_hedged {
            self.begin_hedging(now, call);
        }
        self.place(now, call);
    }

    /// Payload of a request has come.
    fn take_request(&mut self, now: Time, ix: CallIx, data: &[u8], ends: bool) {
        let call = &mut self.calls[ix];
        call.request_ended |= ends;
        let Some(method) = &call.method else {
            // The response's end has come already; nobody needs this.
            let (client, stream) = (call.client, call.stream);
            self.conns.with(client, |connection| connection.release(stream, data.len()));
            return;
        };
        let limit = limit(self.settings.max_message, self.placement.config(method).max_request_bytes);
        if let Err(too_long) = call.request_lengths.follow(data, limit) {
            self.counters.too_long += 1;
            return self.give_up(now, ix, &Status::new(Code::ResourceExhausted, format!("request: {too_long}")));
        }
        let is_worth_it = self.is_worth_sending(ix, data.len());
        let rest = if is_worth_it { self.send_straight(ix, data) } else { None };
        self.keep_request(now, ix, data, rest);
        if is_worth_it && rest.is_none() {
            for attempt in 0..self.calls[ix].attempts.len() {
                self.send_request(ix, attempt);
            }
        }
    }

    /// Whether what there is of the request, with so many bytes more, should go on to its endpoint: a server can do nothing
    /// with a part of a message, and one that gets many small ones takes it for an attack, on a connection that others use.
    fn is_worth_sending(&self, ix: CallIx, more: usize) -> bool {
        let call = &self.calls[ix];
        let sent = call.attempts.first().map_or(0, |attempt| attempt.sent);
        call.request_ended
            || call.request_lengths.is_whole()
            || call.request.end() - sent + more as u64 >= WORTH_SENDING
    }

    /// Sends `data` to the one attempt there is, if nothing has to go before it. Returns how much of it that leaves.
    fn send_straight(&mut self, ix: CallIx, data: &[u8]) -> Option<usize> {
        let call = &mut self.calls[ix];
        let (end, ends) = (call.request.end(), call.request_ended);
        let [attempt] = call.attempts.as_mut_slice() else { return None };
        if attempt.sent != end {
            return None;
        }
        let stream = attempt.stream;
        let taken = self.conns.with(attempt.conn, |connection| connection.send_data(stream, data, ends)).unwrap_or(0);
        attempt.sent(&data[..taken]);
        attempt.is_sent = ends && taken == data.len();
        Some(data.len() - taken)
    }

    /// Keeps of `data` what another attempt may need, or the last `rest` bytes, which have not gone anywhere; all of it did
    /// not where something else has to go first.
    fn keep_request(&mut self, now: Time, ix: CallIx, data: &[u8], rest: Option<usize>) {
        let call = &mut self.calls[ix];
        let went_straight = rest.is_some();
        let rest = rest.unwrap_or(data.len());
        let taken = data.len() - rest;
        if call.can_replay && call.request.len() + data.len() > self.settings.max_replay {
            self.keep_furthest_attempt(now, ix);
            self.commit_request(ix);
        }
        let call = &mut self.calls[ix];
        let (client, stream) = (call.client, call.stream);
        if call.can_replay || rest > 0 {
            let kept = if call.can_replay { data } else { &data[taken..] };
            if !call.can_replay && call.request.is_empty() {
                call.request.skip(taken);
            }
            call.request.push(kept);
            self.held += kept.len();
            if went_straight {
                let place = call.request.end() - rest as u64;
                call.request.pass(place);
            }
        } else if call.request.is_empty() {
            call.request.skip(taken);
        }
        if taken > 0 {
            self.conns.with(client, |connection| connection.release(stream, taken));
        }
        self.check_held(now);
    }

    /// The request is too long to be kept for more than one attempt (gRFC A6): the one goes on that has most of it.
    fn keep_furthest_attempt(&mut self, now: Time, ix: CallIx) {
        let attempts = self.calls[ix].attempts.iter().enumerate();
        if let Some((furthest, _)) = attempts.max_by_key(|(_, attempt)| attempt.sent) {
            self.keep_one_attempt(now, ix, furthest);
        }
    }

    /// No other attempt can be made: what has gone out is let go.
    pub(super) fn commit_request(&mut self, ix: CallIx) {
        let call = &mut self.calls[ix];
        call.can_replay = false;
        call.hedges.iter_mut().for_each(evenkeel_balance::Hedges::commit);
        let sent = call.attempts.iter().map(|attempt| attempt.sent).min();
        if let Some(sent) = sent {
            self.held -= call.request.trim(sent);
        }
    }

    /// Where too much is kept, ends the call that keeps most: its peers are the slow ones, and others are not to pay for it.
    pub(super) fn check_held(&mut self, now: Time) {
        while self.held > self.settings.max_held {
            let greedy = self.calls.iter().filter(|(_, call)| call.held() > 0);
            let Some((greediest, call)) = greedy.max_by_key(|(_, call)| call.held()) else { return };
            self.counters.held_too_much += 1;
            if call.method.is_some() {
                let why = "the proxy keeps too much payload for slow peers";
                self.give_up(now, greediest, &Status::new(Code::ResourceExhausted, why));
            } else {
                // All that is left of it is what its client does not take.
                let (client, stream) = (call.client, call.stream);
                self.conns.with(client, |connection| connection.reset(stream, ErrorCode::ENHANCE_YOUR_CALM));
                self.held -= self.calls.remove(greediest);
            }
        }
    }

    /// The client has reset the call's stream.
    fn cancel(&mut self, now: Time, ix: CallIx, code: ErrorCode) {
        self.counters.cancelled += 1;
        tracing::trace!(target: "evenkeel::relay", %code, "call cancelled by its client");
        self.drop_call(now, ix);
    }

    /// A client is gone: its calls are cancelled.
    pub(super) fn lose_client(&mut self, now: Time, ix: ConnIx) {
        for call in self.tags(ix) {
            self.drop_call(now, call);
        }
    }

    /// The calls that have a stream on this connection.
    pub(super) fn tags(&self, ix: ConnIx) -> Vec<CallIx> {
        let conn = self.conns.get(ix).filter(|conn| !conn.is_closing);
        let tags = conn.into_iter().flat_map(|conn| conn.connection.tags());
        tags.filter(|tag| *tag != u32::MAX).collect()
    }
}

/// The smaller of two limits of a message's length.
pub(super) fn limit(own: u32, configured: Option<u64>) -> u32 {
    configured.map_or(own, |configured| u32::try_from(configured).unwrap_or(u32::MAX).min(own))
}
