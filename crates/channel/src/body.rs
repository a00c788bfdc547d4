use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use evenkeel_balance::{Address, Code, Status};
use http::{HeaderMap, response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use evenkeel_transport::{Incoming, wire_status};

use crate::{
    following::Following,
    framing::{Meter, TooLong},
};

/// The body of a response. It never fails: whatever breaks the stream ends it with trailers that hold a gRPC status.
///
/// Dropped before its end, it cancels the call at the server.
pub struct ResponseBody {
    /// Until the call ends.
    stream: Option<Stream>,
    /// The status in the response's head, which is the call's where no trailers follow.
    head_code: Option<Code>,
    meter: Meter,
}

struct Stream {
    incoming: Incoming,
    following: Following,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether there is no more data, and trailers come next.
    data_is_over: bool,
}

impl ResponseBody {
    pub(crate) fn new(
        mut incoming: Incoming,
        mut following: Following,
        head: &response::Parts,
        limit: Option<u64>,
        deadline: Option<Instant>,
    ) -> Self {
        let head_code = wire_status::of_head(head.status, &head.headers);
        if incoming.is_end() {
            following.finish(head_code.unwrap_or(Code::Unknown), Some(&head.headers));
            return Self { stream: None, head_code, meter: Meter::new(None) };
        }
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let stream = Stream { incoming, following, deadline, data_is_over: false };
        Self { stream: Some(stream), head_code, meter: Meter::new(limit) }
    }

    pub(crate) fn empty() -> Self {
        Self { stream: None, head_code: None, meter: Meter::new(None) }
    }

    /// Ends the body with trailers of our own making, and the stream with it.
    fn cut(
        &mut self,
        end: impl FnOnce(&mut Following, &Address) -> HeaderMap,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        stream.following.received(self.meter.bytes());
        let trailers = end(&mut stream.following, stream.incoming.peer());
        self.stream = None;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Option<Result<Frame<Bytes>, Infallible>> {
        let code = trailers.as_ref().and_then(wire_status::code).or(self.head_code).unwrap_or(Code::Unknown);
        if let Some(stream) = &mut self.stream {
            stream.following.received(self.meter.bytes());
            stream.following.finish(code, trailers.as_ref());
        }
        self.stream = None;
        trailers.map(|trailers| Ok(Frame::trailers(trailers)))
    }
}

impl Stream {
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// A body with nothing in it: what tonic's interceptors answer with where they refuse a call.
impl Default for ResponseBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        // Before the data: a stream that always has some would run on for ever.
        if stream.poll_deadline(cx).is_ready() {
            return this.cut(Following::timed_out);
        }
        if !stream.data_is_over {
            match stream.incoming.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => match this.meter.pass(&data) {
                    Ok(()) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(error) => return this.cut(|following, _| following.end(&too_long(error))),
                },
                Poll::Ready(Some(Err(error))) => return this.cut(|following, peer| following.broke(&error, peer)),
                Poll::Ready(None) => stream.data_is_over = true,
                Poll::Pending => return Poll::Pending,
            }
        }
        match stream.incoming.poll_trailers(cx) {
            Poll::Ready(Ok(trailers)) => Poll::Ready(this.end(trailers)),
            Poll::Ready(Err(error)) => this.cut(|following, peer| following.broke(&error, peer)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

fn too_long(error: TooLong) -> Status {
    Status::new(Code::ResourceExhausted, format!("response: {error}"))
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("ended", &self.is_end_stream()).finish_non_exhaustive()
    }
}
