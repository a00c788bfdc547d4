//! How calls end.

use evenkeel_balance::{Code, Status, Time};

use crate::{
    fields::Field,
    frame::ErrorCode,
    message::write_status,
    relay::{
        Placement, Relay,
        attempts::{Failed, How},
        call::{CallIx, ResponseEnd},
    },
};

impl<P: Placement> Relay<P> {
    /// The endpoint has ended the response of the one attempt that counts, with this code. What is in `fields` was its last
    /// word.
    pub(super) fn finish(&mut self, now: Time, ix: CallIx, code: Code) {
        self.leave(ix, 0);
        self.end_attempt(now, ix, 0, code, true);
        self.record(now, ix, code);
        if self.calls[ix].response.is_empty() {
            self.remove(now, ix);
        }
    }

    /// The call is over as far as figures go.
    fn record(&mut self, now: Time, ix: CallIx, code: Code) {
        let call = &mut self.calls[ix];
        if let Some(method) = call.method.take() {
            self.placement.ended(method, code, now.since(call.started), &call.repeats);
        }
    }

    /// The client has got all it gets. If its request has not ended, it is told to stop; it keeps the response (RFC 9113,
    /// 8.1).
    pub(super) fn remove(&mut self, now: Time, ix: CallIx) {
        let call = &self.calls[ix];
        let (client, stream, has_ended) = (call.client, call.stream, call.request_ended);
        if !has_ended {
            self.conns.with(client, |connection| connection.reset(stream, ErrorCode::NO_ERROR));
        }
        self.record(now, ix, Code::Cancelled);
        self.held -= self.calls.remove(ix);
    }

    /// A call is given up before any of its attempts counted.
    pub(super) fn fail(&mut self, now: Time, ix: CallIx, failed: &Failed) {
        while !self.calls[ix].attempts.is_empty() {
            self.abandon(now, ix, 0, Code::Cancelled);
        }
        match failed.how {
            How::Reset(code) => self.pass_reset(now, ix, failed, code),
            How::Refused => self.pass_reset(now, ix, failed, ErrorCode::REFUSED_STREAM),
            _ => self.answer(now, ix, &failed.status),
        }
    }

    /// The attempt that counted has failed after its response had begun.
    pub(super) fn break_off(&mut self, now: Time, ix: CallIx, failed: &Failed) {
        match failed.how {
            How::Reset(code) => self.pass_reset(now, ix, failed, code),
            How::Refused => self.pass_reset(now, ix, failed, ErrorCode::REFUSED_STREAM),
            _ => self.answer(now, ix, &failed.status),
        }
    }

    /// The endpoint's reset goes on to the client as it is.
    fn pass_reset(&mut self, now: Time, ix: CallIx, failed: &Failed, code: ErrorCode) {
        let (client, stream) = (self.calls[ix].client, self.calls[ix].stream);
        self.conns.with(client, |connection| connection.reset(stream, code));
        self.record(now, ix, failed.status.code);
        self.held -= self.calls.remove(ix);
    }

    /// Ends a call with a status of our own, whatever runs of it.
    pub(super) fn give_up(&mut self, now: Time, ix: CallIx, status: &Status) {
        while !self.calls[ix].attempts.is_empty() {
            self.abandon(now, ix, 0, status.code);
        }
        // What the client has not taken yet would only hold up the bad news.
        let call = &mut self.calls[ix];
        let end = call.response.end();
        self.held -= call.response.trim(end);
        self.answer(now, ix, status);
    }

    /// The deadline has passed.
    pub(super) fn expire(&mut self, now: Time, ix: CallIx) {
        self.counters.timed_out += 1;
        let waited = now.since(self.calls[ix].started);
        let on = self.calls[ix].attempts.first().map(|attempt| attempt.conn);
        let why = match on.and_then(|conn| self.peer(conn)) {
            Some(peer) => format!("deadline exceeded after {waited:?}, waiting for {peer}"),
            None => format!("deadline exceeded after {waited:?}, before an endpoint was found"),
        };
        self.give_up(now, ix, &Status::new(Code::DeadlineExceeded, why));
    }

    /// Tells the client a status of our own: behind what it is still to get, or alone.
    fn answer(&mut self, now: Time, ix: CallIx, status: &Status) {
        let (committed, client, stream) = (self.calls[ix].committed, self.calls[ix].client, self.calls[ix].stream);
        let own = self.own();
        if !committed {
            own.push(Field::new(b":status", b"200"));
            own.push(Field::new(b"content-type", b"application/grpc"));
        }
        write_status(status, own);
        self.record(now, ix, status.code);
        if !self.calls[ix].response.is_empty() {
            self.calls[ix].response_end = Some(ResponseEnd::Trailers(Box::new(self.own.clone())));
            return;
        }
        let own = &self.own;
        self.conns.with(client, |connection| {
            if committed {
                connection.send_trailers(stream, own.iter());
            } else {
                connection.send_head(stream, own.iter(), true);
            }
        });
        self.remove(now, ix);
    }

    /// The client is gone, or has reset the stream.
    pub(super) fn drop_call(&mut self, now: Time, ix: CallIx) {
        let is_late = self.calls[ix].deadline.is_some_and(|deadline| deadline <= now);
        let code = if is_late { Code::DeadlineExceeded } else { Code::Cancelled };
        while !self.calls[ix].attempts.is_empty() {
            self.abandon(now, ix, 0, code);
        }
        self.record(now, ix, code);
        self.held -= self.calls.remove(ix);
    }
}
