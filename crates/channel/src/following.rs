//! What must happen when a call or an attempt of one ends, however it ends.

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use evenkeel_balance::{Address, Call, Code, Outcome, RetryThrottle, Status, SubchannelId, Time};
use http::HeaderMap;
use http_body::Body;
use tokio::task::AbortHandle;
use tracing::Span;

use evenkeel_transport::{Clock, Outgoing, StreamError, wire_status};

use crate::{
    load_report,
    method::{AttemptCost, Method, Repeats},
    request::{Cursor, SendError, Source},
    shared::Core,
};

/// The status of a call whose stream broke. A server that keeps the deadline too may end the stream a moment before our
/// own timer does: that is the deadline, and not a cancellation.
pub(crate) fn explain(error: &StreamError, peer: &impl fmt::Display, deadline: Option<Time>, now: Time) -> Status {
    let status = error.status(peer);
    if status.code == Code::Cancelled && deadline.is_some_and(|deadline| deadline <= now) {
        return Status::new(Code::DeadlineExceeded, format!("deadline exceeded: {}", status.message));
    }
    status
}

/// A call, from its beginning to its end: then its figures are recorded. Dropped before that, it was cancelled.
pub(crate) struct Record {
    clock: Clock,
    pub(crate) method: Arc<Method>,
    /// Of the thread that began it: there it is counted.
    lane: usize,
    pub(crate) started: Time,
    repeats: Mutex<Repeats>,
    pub(crate) span: Span,
    has_ended: bool,
}

impl Record {
    pub(crate) fn new(clock: Clock, method: Arc<Method>, lane: usize, span: Span) -> Self {
        let started = clock.now();
        method.call_started(lane, started);
        Self { clock, method, lane, started, repeats: Mutex::default(), span, has_ended: false }
    }

    /// Counts what is not a first attempt.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Repeats)) {
        change(&mut self.repeats.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn finish(mut self, code: Code, now: Time) {
        self.end(code, now);
    }

    fn end(&mut self, code: Code, now: Time) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.span.record("status", code.name());
            let repeats = self.repeats.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.method.call_ended(self.lane, code, now.since(self.started), repeats);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(Code::Cancelled, self.clock.now());
        }
    }
}

/// An attempt on an endpoint, counted there until it ends. Dropped before that, it was cancelled, or its deadline has
/// passed.
pub(crate) struct Placed {
    clock: Clock,
    method: Arc<Method>,
    /// Present until the attempt ends.
    call: Option<Call>,
    throttle: Option<Arc<RetryThrottle>>,
    started: Time,
    deadline: Option<Time>,
    span: Span,
    sent: u64,
    received: u64,
}

impl Placed {
    pub(crate) fn new(
        clock: Clock,
        method: Arc<Method>,
        call: Call,
        throttle: Option<Arc<RetryThrottle>>,
        started: Time,
        deadline: Option<Time>,
        span: Span,
    ) -> Self {
        method.attempt_started();
        Self { clock, method, call: Some(call), throttle, started, deadline, span, sent: 0, received: 0 }
    }

    /// Which endpoint it is on; `None` once it has ended.
    pub(crate) fn subchannel(&self) -> Option<SubchannelId> {
        self.call.as_ref().map(Call::subchannel)
    }

    /// So many bytes of messages were sent.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent = bytes;
    }

    /// What the method's calls take to answer is measured by this one.
    pub(crate) fn note_latency(&self) {
        self.method.latency.record(self.clock.now().since(self.started));
    }

    /// No server has seen it: the endpoint's figures forget it.
    pub(crate) fn withdraw(mut self) {
        if let Some(call) = self.call.take() {
            call.withdraw();
            self.record(Code::Unavailable, self.clock.now());
        }
    }

    /// Tells the balancer and the retry throttle how it ended. The server's load report is in `trailers`.
    pub(crate) fn finish(mut self, code: Code, now: Time, trailers: Option<&HeaderMap>) {
        self.end(code, now, trailers);
    }

    fn end(&mut self, code: Code, now: Time, trailers: Option<&HeaderMap>) {
        let Some(call) = self.call.take() else { return };
        if let Some(throttle) = self.throttle.as_ref().filter(|_| code == Code::Ok) {
            throttle.succeeded();
        }
        self.record(code, now);
        let mut outcome = Outcome::new(code).after(now.since(self.started)).at(now);
        if call.wants_report() {
            outcome.report = trailers.and_then(load_report::in_trailers).map(Arc::new);
        }
        call.finish(&outcome);
    }

    fn record(&self, code: Code, now: Time) {
        self.span.record("status", code.name());
        let cost = AttemptCost { duration: now.since(self.started), sent: self.sent, received: self.received };
        self.method.attempt_ended(code, &cost);
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if self.call.is_some() {
            let now = self.clock.now();
            let is_late = self.deadline.is_some_and(|deadline| deadline <= now);
            self.end(if is_late { Code::DeadlineExceeded } else { Code::Cancelled }, now, None);
        }
    }
}

/// What a response's body needs to see its call to the end.
pub(crate) struct Following {
    core: Arc<Core>,
    placed: Placed,
    record: Record,
    sending: Option<Sending>,
    deadline: Option<Time>,
}

impl Following {
    pub(crate) fn new(
        core: Arc<Core>,
        placed: Placed,
        record: Record,
        sending: Option<Sending>,
        deadline: Option<Time>,
    ) -> Self {
        Self { core, placed, record, sending, deadline }
    }

    /// So many bytes of messages have come in.
    pub(crate) fn received(&mut self, bytes: u64) {
        self.placed.received = bytes;
    }

    /// The call has ended with `code`. Later calls of this change nothing.
    pub(crate) fn finish(&mut self, code: Code, trailers: Option<&HeaderMap>) {
        if self.record.has_ended {
            return;
        }
        if let Some(sending) = self.sending.take() {
            self.placed.sent(sending.sent());
        }
        let now = self.core.clock.now();
        self.placed.end(code, now, trailers);
        self.record.end(code, now);
    }

    /// The stream broke off: what the caller is told, as trailers.
    pub(crate) fn broke(&mut self, error: &StreamError, peer: &Address) -> HeaderMap {
        self.end(&explain(error, peer, self.deadline, self.core.clock.now()))
    }

    /// The deadline has passed.
    pub(crate) fn timed_out(&mut self, peer: &Address) -> HeaderMap {
        self.end(&Status::new(Code::DeadlineExceeded, format!("deadline exceeded while reading from {peer}")))
    }

    /// The call ends with a status of our own.
    pub(crate) fn end(&mut self, status: &Status) -> HeaderMap {
        self.finish(status.code, None);
        let mut trailers = HeaderMap::new();
        wire_status::write(status, &mut trailers);
        trailers
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.finish(Code::Cancelled, None);
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// A request that is still being sent. Dropped with its call, so that neither outlives the other: a caller's body may
/// stay silent for ever, and the stream is only cancelled once both of its halves are gone.
#[derive(Debug)]
pub(crate) struct Sending {
    task: AbortHandle,
    sent: Arc<AtomicU64>,
}

impl Sending {
    pub(crate) fn start<B>(source: Source<B>, cursor: Cursor, outgoing: Outgoing) -> Self
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: fmt::Display,
    {
        let sent = Arc::new(AtomicU64::new(cursor.sent()));
        let task = tokio::spawn(send_rest(source, cursor, outgoing, Arc::clone(&sent)));
        Self { task: task.abort_handle(), sent }
    }

    /// Bytes of messages so far.
    fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends what is left of a streaming request while its response is already being read.
async fn send_rest<B>(mut source: Source<B>, mut cursor: Cursor, mut outgoing: Outgoing, counted: Arc<AtomicU64>)
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: fmt::Display,
{
    let sent = poll_fn(|cx| {
        let polled = source.poll_send(cx, &mut cursor, &mut outgoing);
        counted.store(cursor.sent(), Relaxed);
        polled
    });
    // A stream that takes no more shows in the response; a request that breaks off must not look complete.
    if let Err(SendError::Body(_) | SendError::TooLong(_)) = sent.await {
        outgoing.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_at_the_deadline_is_the_deadline() {
        let (soon, late) = (Time::from_nanos(5), Time::from_nanos(9));
        let code = |error: StreamError, deadline, now| explain(&error, &"peer", deadline, now).code;
        assert_eq!(code(StreamError::Reset(8), Some(soon), late), Code::DeadlineExceeded);
        assert_eq!(code(StreamError::Reset(8), Some(late), soon), Code::Cancelled);
        assert_eq!(code(StreamError::Reset(8), None, late), Code::Cancelled);
        assert_eq!(code(StreamError::Broken("gone".to_owned()), Some(soon), late), Code::Unavailable);
    }
}
