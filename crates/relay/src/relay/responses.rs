//! From the endpoint: heads, payload, trailers, resets, and on to the client.

use evenkeel_balance::{Address, Code, Pushback, Status, Time};

use crate::{
    connection::{Event, StreamKey},
    fields::Fields,
    frame::ErrorCode,
    hpack::Listing,
    message::HeadStatus,
    relay::{
        Placement, Relay,
        attempts::{Failed, How},
        call::{CallIx, ResponseEnd},
        conns::{ConnIx, Side},
        requests::limit,
    },
};

impl<P: Placement> Relay<P> {
    pub(super) fn receive_from_endpoint(&mut self, now: Time, ix: ConnIx, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(event) = self.conns.receive(ix, now, &mut input, &mut self.fields) {
            match event {
                Event::Settled => self.settled(now, ix),
                Event::Head { stream, ends, listing } => self.take_head(now, ix, stream, ends, listing),
                Event::Data { stream, data, ends } => self.take_response(now, ix, stream, data, ends),
                Event::Trailers { stream, listing } => self.take_trailers(now, ix, stream, listing),
                Event::Reset { stream, tag, code, by_peer, processed } if tag != u32::MAX => {
                    self.endpoint_reset(now, (ix, stream), tag, code, by_peer, processed);
                }
                Event::Leaving { code, debug } => self.endpoint_leaves(now, ix, code, &debug),
                Event::Broken { code, why } => {
                    let why = format!("the server broke HTTP/2: {why} ({code})");
                    self.break_endpoint(now, ix, &why);
                }
                Event::Reset { .. } | Event::Pong(_) => {}
            }
        }
    }

    /// The call and its attempt on a stream.
    fn on(&mut self, ix: ConnIx, stream: StreamKey) -> Option<(CallIx, usize)> {
        if let Some(Side::Endpoint(line)) = self.conns.get_mut(ix).map(|conn| &mut conn.side) {
            line.replied();
        }
        let call = self.conns.tag(ix, stream)?;
        Some((call, self.calls[call].attempt(ix, stream)?))
    }

    fn take_head(&mut self, now: Time, ix: ConnIx, stream: StreamKey, ends: bool, listing: Listing) {
        let Some((call, attempt)) = self.on(ix, stream) else { return };
        if listing == Listing::TooLarge {
            return self.too_much_metadata(now, call, ix);
        }
        let status = HeadStatus::read(&self.fields).code;
        self.calls[call].attempts[attempt].head_code = status;
        if ends {
            let code = status.unwrap_or(Code::Unknown);
            if code != Code::Ok && self.fails_well(now, call, attempt, code) {
                return;
            }
            self.commit(now, call, attempt);
            self.forward_head(call, true);
            return self.finish(now, call, code);
        }
        self.commit(now, call, attempt);
        self.forward_head(call, false);
    }

    fn forward_head(&mut self, call: CallIx, ends: bool) {
        let (client, stream) = (self.calls[call].client, self.calls[call].stream);
        let fields = &self.fields;
        self.conns.with(client, |connection| connection.send_head(stream, fields.iter(), ends));
    }

    /// Whether a call that got nothing but this status is better tried again: then it is going to be.
    fn fails_well(&mut self, now: Time, call: CallIx, attempt: usize, code: Code) -> bool {
        let Some(method) = &self.calls[call].method else { return false };
        let config = self.placement.config(method);
        if self.calls[call].committed || (config.retry.is_none() && config.hedging.is_none()) {
            return false;
        }
        let pushback = Pushback::parse(self.fields.value(b"grpc-retry-pushback-ms"));
        if !self.tries_again(now, call, code, pushback) {
            return false;
        }
        let id = self.calls[call].attempts[attempt].ticket.subchannel();
        self.calls[call].avoided.push(id);
        self.leave(call, attempt);
        self.end_attempt(now, call, attempt, code, true);
        let is_due = self.calls[call].wake_at.is_some_and(|at| at <= now);
        if is_due {
            self.wake(now, call);
        }
        true
    }

    /// The response has ended; if its endpoint still waits for more of the request, it is told that there will be none.
    pub(super) fn leave(&mut self, call: CallIx, attempt: usize) {
        let left = &self.calls[call].attempts[attempt];
        if !left.is_sent {
            let stream = left.stream;
            self.conns.with(left.conn, |connection| connection.reset(stream, ErrorCode::NO_ERROR));
        }
    }

    fn take_response(&mut self, now: Time, ix: ConnIx, stream: StreamKey, data: &[u8], ends: bool) {
        let Some((call, attempt)) = self.on(ix, stream) else { return };
        let this = &mut self.calls[call];
        let Some(method) = &this.method else { return };
        let limit = limit(self.settings.max_message, self.placement.config(method).max_response_bytes);
        if let Err(too_long) = this.response_lengths.follow(data, limit) {
            self.counters.too_long += 1;
            return self.give_up(now, call, &Status::new(Code::ResourceExhausted, format!("response: {too_long}")));
        }
        let (client, to) = (this.client, this.stream);
        let mut taken = 0;
        if this.response.is_empty() {
            taken = self.conns.with(client, |connection| connection.send_data(to, data, ends)).unwrap_or(0);
        }
        if taken < data.len() {
            self.held += data.len() - taken;
            this.response.push(&data[taken..]);
        }
        if taken > 0 && !ends {
            self.conns.with(ix, |connection| connection.release(stream, taken));
        }
        if ends {
            let code = self.calls[call].attempts[attempt].head_code.unwrap_or(Code::Unknown);
            if !self.calls[call].response.is_empty() {
                self.calls[call].response_end = Some(ResponseEnd::Plain);
            }
            return self.finish(now, call, code);
        }
        self.check_held(now);
    }

    fn take_trailers(&mut self, now: Time, ix: ConnIx, stream: StreamKey, listing: Listing) {
        let Some((call, _)) = self.on(ix, stream) else { return };
        if listing == Listing::TooLarge {
            return self.too_much_metadata(now, call, ix);
        }
        let code = HeadStatus::read(&self.fields).code.unwrap_or(Code::Unknown);
        let this = &mut self.calls[call];
        if this.response.is_empty() {
            let (client, to) = (this.client, this.stream);
            let fields = &self.fields;
            self.conns.with(client, |connection| connection.send_trailers(to, fields.iter()));
        } else {
            this.response_end = Some(ResponseEnd::Trailers(Box::new(self.fields.clone())));
        }
        self.finish(now, call, code);
    }

    fn too_much_metadata(&mut self, now: Time, call: CallIx, ix: ConnIx) {
        let peer = self.peer(ix);
        let why = format!("{} sends more metadata than is let through", display(peer.as_ref()));
        self.give_up(now, call, &Status::new(Code::ResourceExhausted, why));
    }

    /// The client takes more of a response that was held up.
    pub(super) fn resume_response(&mut self, now: Time, ix: CallIx) {
        let call = &mut self.calls[ix];
        let (client, stream) = (call.client, call.stream);
        let place = call.response.end() - call.response.len() as u64;
        let is_plain = matches!(call.response_end, Some(ResponseEnd::Plain));
        let data = call.response.from(place);
        let taken = self.conns.with(client, |connection| connection.send_data(stream, data, is_plain)).unwrap_or(0);
        self.held -= call.response.trim(place + taken as u64);
        if let Some(attempt) = call.attempts.first() {
            let from = attempt.stream;
            self.conns.with(attempt.conn, |connection| connection.release(from, taken));
        }
        if self.calls[ix].response.is_empty() {
            self.end_response(now, ix);
        }
    }

    /// All of the response is with the client but its trailers.
    fn end_response(&mut self, now: Time, ix: CallIx) {
        let call = &mut self.calls[ix];
        let Some(end) = call.response_end.take() else { return };
        let (client, stream) = (call.client, call.stream);
        if let ResponseEnd::Trailers(trailers) = end {
            self.conns.with(client, |connection| connection.send_trailers(stream, trailers.iter()));
        }
        self.remove(now, ix);
    }

    fn endpoint_reset(
        &mut self,
        now: Time,
        (ix, stream): (ConnIx, StreamKey),
        call: CallIx,
        code: ErrorCode,
        by_peer: bool,
        processed: bool,
    ) {
        let Some(attempt) = self.calls[call].attempt(ix, stream) else { return };
        let peer = self.peer(ix);
        let peer = display(peer.as_ref());
        let is_late = self.calls[call].deadline.is_some_and(|deadline| deadline <= now);
        let how = match code {
            _ if !processed && !by_peer => How::Unprocessed { was_written: true },
            ErrorCode::REFUSED_STREAM => How::Refused,
            _ if by_peer => How::Reset(code),
            _ => How::Lost,
        };
        let status = match code {
            // A server that keeps the deadline too may end the stream a moment before we do.
            ErrorCode::CANCEL if is_late => Status::new(Code::DeadlineExceeded, "deadline exceeded"),
            ErrorCode::CANCEL => Status::new(Code::Cancelled, format!("{peer} has reset the stream: CANCEL")),
            ErrorCode::REFUSED_STREAM => Status::unavailable(format!("{peer} has refused the stream")),
            ErrorCode::ENHANCE_YOUR_CALM => {
                Status::new(Code::ResourceExhausted, format!("{peer} has reset the stream: {code}"))
            }
            ErrorCode::INADEQUATE_SECURITY => {
                Status::new(Code::PermissionDenied, format!("{peer} has reset the stream: {code}"))
            }
            _ if by_peer => Status::new(Code::Internal, format!("{peer} has reset the stream: {code}")),
            _ => Status::new(Code::Internal, format!("{peer} sent what HTTP/2 forbids: {code}")),
        };
        self.attempt_failed(now, call, attempt, &Failed { status, how });
    }

    /// Where a connection leads.
    pub(super) fn peer(&self, ix: ConnIx) -> Option<Address> {
        let Side::Endpoint(line) = &self.conns.get(ix)?.side else { return None };
        Some(self.endpoints.get(line.id.subchannel)?.address.clone())
    }

    /// What was decoded last.
    pub(super) fn own(&mut self) -> &mut Fields {
        self.own.clear();
        &mut self.own
    }
}

/// An address for a person.
pub(super) fn display(peer: Option<&Address>) -> String {
    peer.map_or_else(|| "the endpoint".to_owned(), ToString::to_string)
}
