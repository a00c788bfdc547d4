//! Requests that are no calls: the relay answers them by itself, with an HTTP status and a sentence.

use evenkeel_balance::{Code, Status};

use crate::{
    connection::StreamKey,
    fields::{Field, Fields},
    frame::ErrorCode,
    message::{Refusal, write_status},
    relay::{Placement, Relay, conns::ConnIx},
};

/// A request that was refused and whose stream is not over: its client has not ended it, or does not take the answer.
///
/// The stream stays as HTTP/2 has it, so that what is wrong with the rest of the request is still told, and only where the
/// client sends on and on is it told to stop.
#[derive(Debug)]
pub(crate) struct Refused {
    stream: StreamKey,
    /// What is left of the answer.
    rest: &'static [u8],
    /// Bytes that came after the answer and were dropped.
    dropped: usize,
}

/// A client may send so many bytes after the answer before it is told to stop.
const MOST_DROPPED: usize = 16 * 1024;

impl<P: Placement> Relay<P> {
    /// Answers what is no call; `ends` if the client has sent all of it.
    pub(super) fn refuse(&mut self, ix: ConnIx, stream: StreamKey, ends: bool, refusal: Refusal) {
        self.counters.refused += 1;
        let own = &mut self.own;
        own.clear();
        own.push(Field::new(b":status", refusal.status.as_bytes()));
        own.push(Field::new(b"content-type", b"text/plain"));
        if refusal.with_status {
            write_status(&Status::new(Code::Internal, refusal.why), own);
        }
        let own: &Fields = own;
        self.conns.with(ix, |connection| connection.send_head(stream, own.iter(), false));
        let rest = self.send_refusal(ix, stream, refusal.why.as_bytes());
        if ends && rest.is_empty() {
            return;
        }
        if self.is_draining {
            return self.stop_refused(ix, stream);
        }
        if let Some(conn) = self.conns.get_mut(ix) {
            conn.refused.push(Refused { stream, rest, dropped: 0 });
        }
    }

    /// Sends of an answer what the client takes of it now, and returns the rest.
    fn send_refusal(&mut self, ix: ConnIx, stream: StreamKey, answer: &'static [u8]) -> &'static [u8] {
        let taken = self.conns.with(ix, |connection| connection.send_data(stream, answer, true));
        answer.get(taken.unwrap_or(answer.len())..).unwrap_or_default()
    }

    /// So many bytes more have come of a request that was refused.
    pub(super) fn take_refused(&mut self, ix: ConnIx, stream: StreamKey, bytes: usize, ends: bool) {
        if ends {
            return self.forget_refused(ix);
        }
        let Some(refused) = self.refused(ix, stream) else { return };
        refused.dropped += bytes;
        if refused.dropped > MOST_DROPPED {
            return self.stop_refused(ix, stream);
        }
        self.conns.with(ix, |connection| connection.release(stream, bytes));
    }

    /// The client takes more of the answer to a request that was refused.
    pub(super) fn resume_refusal(&mut self, ix: ConnIx, stream: StreamKey) {
        let Some(refused) = self.refused(ix, stream) else { return };
        let rest = refused.rest;
        let rest = self.send_refusal(ix, stream, rest);
        if let Some(refused) = self.refused(ix, stream) {
            refused.rest = rest;
        }
        self.forget_refused(ix);
    }

    /// Tells the client to stop; it keeps the answer, if it has it (RFC 9113, 8.1).
    fn stop_refused(&mut self, ix: ConnIx, stream: StreamKey) {
        self.conns.with(ix, |connection| connection.reset(stream, ErrorCode::NO_ERROR));
        self.forget_refused(ix);
    }

    /// Ends all that was refused on a connection: only calls may hold up a drain.
    pub(super) fn stop_all_refused(&mut self, ix: ConnIx) {
        let Some(conn) = self.conns.get_mut(ix) else { return };
        for refused in std::mem::take(&mut conn.refused) {
            self.conns.with(ix, |connection| connection.reset(refused.stream, ErrorCode::NO_ERROR));
        }
    }

    fn refused(&mut self, ix: ConnIx, stream: StreamKey) -> Option<&mut Refused> {
        self.conns.get_mut(ix)?.refused.iter_mut().find(|refused| refused.stream == stream)
    }

    /// Forgets those whose streams are over.
    pub(super) fn forget_refused(&mut self, ix: ConnIx) {
        if let Some(conn) = self.conns.get_mut(ix) {
            conn.refused.retain(|refused| conn.connection.is_open(refused.stream));
        }
    }
}
