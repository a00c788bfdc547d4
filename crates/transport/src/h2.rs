//! HTTP/2 by the `h2` crate, driven by one task a connection: no task, queue or worker per call.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use evenkeel_balance::{Address, ConnectionId, Load};
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use crate::{
    Clock, Ends, Line, LineSettings, SocketReport, StreamError, StreamQueue,
    activity::{Activity, Noted},
    streams::Streams,
};

/// The longest piece that goes out without asking the peer's windows first, if it is a request's last: then the
/// library holds it for as long as they are closed. Asking costs as much as sending does.
const UNASKED: usize = 64 * 1024;

/// Cancelled streams whose late frames are ignored without an answer, for the library's second.
const REMEMBERED_RESETS: usize = 1_000;

/// Starts HTTP/2 on `stream`. The [`Line`] must be polled for anything to happen.
pub async fn handshake<S>(
    stream: S,
    ends: Ends,
    clock: Clock,
    settings: LineSettings,
    load: Arc<Load>,
    queue: Arc<StreamQueue>,
) -> Result<(Connection, Line<S>), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Arc::new(Activity::new(clock));
    let windows = settings.windows;
    let (send, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_header_list_size(windows.header_list)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        // What the peer had sent before it heard of a cancellation is no error of its, however often we cancel.
        .max_local_error_reset_streams(None)
        .handshake(Noted::new(stream, Arc::clone(&activity)))
        .await
        .map_err(|error| error.to_string())?;
    let ping_pong = connection.ping_pong().ok_or("the connection has no PING")?;
    let shared = Arc::new(Shared {
        ends,
        streams: Streams::default(),
        activity,
        open: AtomicUsize::new(0),
        limit: AtomicUsize::new(send.current_max_send_streams()),
        queue,
        own: StreamQueue::default(),
        closed: AtomicBool::new(false),
        hang_up: Notify::new(),
        released_at: windows.released_at(),
        given_up: OnceLock::new(),
    });
    let line = Line::new((connection, send.clone()), ping_pong, Arc::clone(&shared), clock, settings, load);
    Ok((Connection { send, shared }, line))
}

/// A connection as calls see it: it opens streams.
#[derive(Debug)]
pub struct Connection {
    send: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

/// What both ends of a connection know.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ends: Ends,
    pub(crate) streams: Streams,
    pub(crate) activity: Arc<Activity>,
    /// Streams open now, kept below `limit`.
    pub(crate) open: AtomicUsize,
    /// How many the peer allows, as last seen.
    pub(crate) limit: AtomicUsize,
    /// The calls that wait for a stream, here or on another connection of the subchannel.
    pub(crate) queue: Arc<StreamQueue>,
    /// The channel's own streams that wait for room here: another connection is of no use to them.
    pub(crate) own: StreamQueue,
    /// Takes no more streams: it broke, or the peer is leaving.
    pub(crate) closed: AtomicBool,
    /// Asks the line to end once its streams have.
    pub(crate) hang_up: Notify,
    /// How much of a stream's window is given back at a time.
    pub(crate) released_at: usize,
    /// Why we gave the peer up, if we did.
    pub(crate) given_up: OnceLock<String>,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A call: its silence counts.
    Call,
    /// A health Watch, which is silent by nature.
    Watch,
}

impl Connection {
    /// Opens a stream of the channel's own. Waits, before all calls, while the peer's `MAX_CONCURRENT_STREAMS` are in use.
    pub async fn open(
        &self,
        head: Request<()>,
        ends: bool,
        purpose: Purpose,
    ) -> Result<(Outgoing, Incoming), StreamError> {
        let place = self.shared.own.arrive(0);
        loop {
            let turn = self.shared.own.wait(place);
            if let Some(permit) = self.try_permit(purpose)? {
                drop(turn);
                return self.start(permit, head, ends);
            }
            turn.await;
        }
    }

    /// Opens the stream that `permit` is for.
    pub fn start(&self, permit: Permit, head: Request<()>, ends: bool) -> Result<(Outgoing, Incoming), StreamError> {
        let mut send = self.send.clone();
        let (response, stream) = match send.send_request(head, ends) {
            Ok(opened) => opened,
            Err(error) => {
                // A fresh handle has nothing pending, so it is ready unless the connection takes no more streams.
                let ready = send.poll_ready(&mut Context::from_waker(Waker::noop()));
                let takes_streams = matches!(ready, Poll::Ready(Ok(())));
                return Err(if takes_streams { StreamError::Invalid(error.to_string()) } else { StreamError::NotSent });
            }
        };
        self.shared.streams.started();
        let outgoing = Outgoing { stream, shared: Arc::clone(&self.shared) };
        let id = response.stream_id();
        let incoming = Incoming { id, response: Some(response), body: None, unreleased: 0, has_ended: false, permit };
        Ok((outgoing, incoming))
    }

    /// The line for its streams.
    pub fn queue(&self) -> &StreamQueue {
        &self.shared.queue
    }

    /// Whether there is room for a stream at this moment.
    pub fn has_room(&self) -> bool {
        self.shared.open.load(Ordering::Acquire) < self.stream_limit()
    }

    /// The right to open a stream, if there is room for one.
    pub fn try_permit(&self, purpose: Purpose) -> Result<Option<Permit>, StreamError> {
        if self.is_closed() {
            return Err(StreamError::NotSent);
        }
        let limit = self.stream_limit();
        let more = |open: usize| (open < limit).then_some(open + 1);
        // Who gets in line and then looks here, and who ends a stream and then looks at the line (both SeqCst): one of the
        // two sees the other. `loom/` shows that less will not do.
        if self.shared.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err() {
            return Ok(None);
        }
        if purpose == Purpose::Call {
            self.shared.activity.sent();
        }
        Ok(Some(Permit { shared: Arc::clone(&self.shared), purpose }))
    }

    /// How many streams the peer allows at a time.
    pub fn stream_limit(&self) -> usize {
        self.shared.limit.load(Ordering::Acquire)
    }

    /// Where it leads.
    pub fn peer(&self) -> &Address {
        &self.shared.ends.remote
    }

    /// What an operator is told of it.
    pub fn report(&self, id: ConnectionId) -> SocketReport {
        let Ends { remote, local, is_secure } = self.shared.ends.clone();
        SocketReport { id, remote, local, is_secure, streams: self.shared.streams.counts() }
    }

    /// Whether the connection takes no more streams.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Takes no more streams; the connection closes when the running ones have ended.
    pub fn close(&self) {
        self.shared.close();
        self.shared.hang_up.notify_one();
    }
}

impl Shared {
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.call_all();
    }

    pub(crate) fn call_all(&self) {
        self.own.call_all();
        self.queue.call_all();
    }
}

/// The right to one open stream.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    purpose: Purpose,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.purpose == Purpose::Call {
            self.shared.activity.ended();
        }
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
        // Both: if the channel's own stream takes the place, the call looks in vain and keeps its own in line.
        self.shared.own.call_next();
        self.shared.queue.call_next();
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct Outgoing {
    stream: h2::SendStream<Bytes>,
    shared: Arc<Shared>,
}

impl Outgoing {
    /// Sends as much of `data` as the peer's windows let pass, until all of it has gone or is short and the last.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes, ends: bool) -> Poll<Result<(), StreamError>> {
        loop {
            // What ends the stream is followed by nothing that could pile up behind it.
            if data.is_empty() || (ends && data.len() <= UNASKED) {
                return Poll::Ready(if ends { self.send(std::mem::take(data), true) } else { Ok(()) });
            }
            self.stream.reserve_capacity(data.len());
            let granted = match ready!(self.stream.poll_capacity(cx)) {
                None => return Poll::Ready(Err(StreamError::NotSent)),
                Some(granted) => granted.map_err(|error| self.error(&error))?,
            };
            if granted >= data.len() {
                return Poll::Ready(self.send(std::mem::take(data), ends));
            }
            let part = data.split_to(granted);
            self.send(part, false)?;
        }
    }

    /// Ends the stream.
    pub fn end(&mut self) -> Result<(), StreamError> {
        self.send(Bytes::new(), true)
    }

    /// Ends the stream with trailers.
    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), StreamError> {
        self.stream.send_trailers(trailers).map_err(|error| self.error(&error))
    }

    /// Tells the server that the call is off.
    pub fn cancel(&mut self) {
        self.stream.send_reset(h2::Reason::CANCEL);
    }

    fn send(&mut self, data: Bytes, ends: bool) -> Result<(), StreamError> {
        self.stream.send_data(data, ends).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &h2::Error) -> StreamError {
        self.shared.stream_error(self.stream.stream_id(), error)
    }
}

/// The receiving half of a stream. Dropped before its end, it cancels the call at the server.
#[derive(Debug)]
pub struct Incoming {
    id: h2::StreamId,
    response: Option<ResponseFuture>,
    body: Option<h2::RecvStream>,
    /// Bytes read that the peer may not send again yet.
    unreleased: usize,
    /// Whether the peer is known to have ended the stream in good order.
    has_ended: bool,
    permit: Permit,
}

impl Incoming {
    /// Where it comes from.
    pub fn peer(&self) -> &Address {
        &self.permit.shared.ends.remote
    }

    /// The response's head. Informational responses are passed over.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, StreamError>> {
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(StreamError::Broken("the response's head was read already".to_owned())));
        };
        let result = ready!(Pin::new(response).poll(cx));
        self.response = None;
        let (head, body) = result.map_err(|error| self.error(&error))?.into_parts();
        self.permit.shared.activity.replied();
        self.body = Some(body);
        Poll::Ready(Ok(Response::from_parts(head, ())))
    }

    /// Whether nothing follows what has been read.
    pub fn is_end(&mut self) -> bool {
        let is_end = self.body.as_ref().is_none_or(h2::RecvStream::is_end_stream);
        self.has_ended |= is_end;
        is_end
    }

    /// The next data. Reading it lets the peer send as much again, a good part of its window at a time.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let data = match ready!(body.poll_data(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(data)) => data,
            Some(Err(error)) => return Poll::Ready(Some(Err(self.error(&error)))),
        };
        self.permit.shared.activity.replied();
        self.unreleased += data.len();
        if self.unreleased >= self.permit.shared.released_at {
            let released = std::mem::take(&mut self.unreleased);
            self.permit.shared.activity.streams(released);
            // Fails only where the stream is gone, which the next read tells.
            let _ = body.flow_control().release_capacity(released);
        }
        Poll::Ready(Some(Ok(data)))
    }

    /// The trailers, after the last data.
    pub fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, StreamError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(None)) };
        let trailers = ready!(body.poll_trailers(cx)).map_err(|error| self.error(&error))?;
        self.has_ended = true;
        self.permit.shared.activity.replied();
        Poll::Ready(Ok(trailers))
    }

    fn error(&self, error: &h2::Error) -> StreamError {
        self.permit.shared.stream_error(self.id, error)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.permit.shared.streams.over(self.has_ended);
    }
}

impl Shared {
    /// What an error of the library means for the stream of this id.
    fn stream_error(&self, stream: h2::StreamId, error: &h2::Error) -> StreamError {
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) if error.is_reset() => StreamError::Refused,
            Some(reason) if error.is_reset() => StreamError::Reset(reason.into()),
            _ if !self.activity.has_left(stream.as_u32()) => StreamError::NotSent,
            _ if self.activity.is_unprocessed(stream.as_u32()) => StreamError::LeftBehind,
            _ => StreamError::Broken(self.given_up.get().cloned().unwrap_or_else(|| root_cause(error))),
        }
    }
}

pub(crate) fn root_cause(error: &h2::Error) -> String {
    error.get_io().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::News;

    #[tokio::test]
    async fn a_call_whose_headers_had_not_left_when_the_peer_died_was_not_sent() {
        const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let (near, mut far) = tokio::io::duplex(1_024);
        let ends = Ends { remote: Address::Unix("/peer".into()), local: None, is_secure: false };
        let (connection, mut line) =
            handshake(near, ends, Clock::start(), LineSettings::default(), Arc::default(), Arc::default())
                .await
                .unwrap();
        far.write_all(&EMPTY_SETTINGS).await.unwrap();
        assert_eq!(line.next().await, News::Spoke);

        let large = Request::post("http://a/s/m").header("x", "y".repeat(4_096)).body(()).unwrap();
        let small = Request::post("http://a/s/m").body(()).unwrap();
        let (_out, mut first) = connection.open(large, true, Purpose::Call).await.unwrap();
        let (_out, mut second) = connection.open(small, true, Purpose::Call).await.unwrap();
        // The peer reads enough for the first call's frame to have begun, and far too little for the second's.
        let mut read = vec![0; 1_500];
        tokio::select! {
            news = line.next() => panic!("{news:?}"),
            read = far.read_exact(&mut read) => drop(read.unwrap()),
        }
        drop(far);
        assert!(matches!(line.next().await, News::Closed(..)));
        let first = poll_fn(|cx| first.poll_head(cx)).await.unwrap_err();
        assert!(matches!(first, StreamError::Broken(_)), "{first:?}");
        assert_eq!(poll_fn(|cx| second.poll_head(cx)).await.unwrap_err(), StreamError::NotSent);
    }
}
