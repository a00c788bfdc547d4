//! A call from its response's head to its last byte: what must happen when it ends, however it ends.

use std::{fmt, future::poll_fn, pin::pin, sync::Arc};

use bytes::Bytes;
use evenkeel_balance::{Address, Call, Code, Outcome, RetryThrottle, Status, Time};
use http::HeaderMap;
use http_body::Body;
use tokio::task::AbortHandle;

use crate::{
    load_report,
    request::{Request, SendError},
    shared::{Core, Shared},
    transport::{Outgoing, StreamError},
    wire_status,
};

/// A call on an endpoint.
pub(crate) struct Placed {
    pub(crate) call: Call,
    pub(crate) started: Time,
    pub(crate) throttle: Option<Arc<RetryThrottle>>,
}

/// The status of a call whose stream broke. A server that keeps the deadline too may end the stream a moment before our
/// own timer does: that is the deadline, and not a cancellation.
pub(crate) fn explain(error: &StreamError, peer: &impl fmt::Display, deadline: Option<Time>, now: Time) -> Status {
    let status = error.status(peer);
    if status.code == Code::Cancelled && deadline.is_some_and(|deadline| deadline <= now) {
        return Status::new(Code::DeadlineExceeded, format!("deadline exceeded: {}", status.message));
    }
    status
}

impl Placed {
    /// Tells the balancer, and the retry throttle, how the call ended. The server's load report is in `trailers`.
    pub(crate) fn finish(self, shared: &Shared, code: Code, trailers: Option<&HeaderMap>) {
        if let Some(throttle) = self.throttle.filter(|_| code == Code::Ok) {
            throttle.succeeded();
        }
        let now = shared.clock.now();
        let mut outcome = Outcome::new(code).after(now.since(self.started)).at(now);
        if self.call.wants_report() {
            outcome.report = trailers.and_then(load_report::in_trailers).map(Arc::new);
        }
        self.call.finish(&outcome);
    }
}

/// What a response's body needs to see its call to the end.
pub(crate) struct Following {
    core: Arc<Core>,
    placed: Option<Placed>,
    sending: Option<Sending>,
    peer: Option<Address>,
    deadline: Option<Time>,
}

impl Following {
    pub(crate) fn new(
        core: Arc<Core>,
        placed: Placed,
        sending: Option<Sending>,
        peer: Option<Address>,
        deadline: Option<Time>,
    ) -> Self {
        Self { core, placed: Some(placed), sending, peer, deadline }
    }

    /// The call has ended with `code`. Later calls of this change nothing.
    pub(crate) fn finish(&mut self, code: Code, trailers: Option<&HeaderMap>) {
        self.sending = None;
        if let Some(placed) = self.placed.take() {
            placed.finish(&self.core, code, trailers);
        }
    }

    /// The stream broke off: what the caller is told, as trailers.
    pub(crate) fn broke(&mut self, error: &StreamError) -> HeaderMap {
        let status = explain(error, &self.peer_name(), self.deadline, self.core.clock.now());
        self.end(&status)
    }

    /// The deadline has passed.
    pub(crate) fn timed_out(&mut self) -> HeaderMap {
        let peer = self.peer_name();
        self.end(&Status::new(Code::DeadlineExceeded, format!("deadline exceeded while reading from {peer}")))
    }

    fn end(&mut self, status: &Status) -> HeaderMap {
        self.finish(status.code, None);
        let mut trailers = HeaderMap::new();
        wire_status::write(status, &mut trailers);
        trailers
    }

    fn peer_name(&self) -> String {
        self.peer.as_ref().map_or_else(|| self.core.target.clone(), ToString::to_string)
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A request that is still being sent. Dropped with its call, so that neither outlives the other: a caller's body may
/// stay silent for ever, and the stream is only cancelled once both of its halves are gone.
#[derive(Debug)]
pub(crate) struct Sending(AbortHandle);

impl Sending {
    pub(crate) fn start<B>(request: Request<B>, outgoing: Outgoing) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: fmt::Display,
    {
        Self(tokio::spawn(send_rest(request, outgoing)).abort_handle())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends what is left of a streaming request while its response is already being read.
async fn send_rest<B>(request: Request<B>, mut outgoing: Outgoing)
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: fmt::Display,
{
    let mut request = pin!(request);
    let sent = poll_fn(|cx| request.as_mut().get_mut().poll_send(cx, &mut outgoing)).await;
    // A stream that takes no more shows in the response; a request that breaks off must not look complete.
    if let Err(SendError::Body(_)) = sent {
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
