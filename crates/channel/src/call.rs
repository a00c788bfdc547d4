//! A call's life: placed by a picker, tried until an attempt counts, and followed to its last byte.

use std::{fmt, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use evenkeel_balance::{
    Address, Call, Code, Entropy, MethodConfig, Pick, PickArgs, Pushback, Retries, RetryThrottle, Status, Time,
};
use http::{HeaderName, HeaderValue, Request as HttpRequest, Response, request};
use http_body::Body;
use tokio::time::Instant;

use crate::{
    body::ResponseBody,
    cascade, deadline,
    following::{Following, Placed, Sending, explain},
    request::{Request, SendError},
    shared::Core,
    snapshot::Snapshot,
    transport::{Connection, Incoming, Outgoing, Purpose, StreamError},
    wire_status,
};

const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Overrides, for one call, whether it waits out failing endpoints: put it into the request's extensions.
///
/// Without it the service config's `waitForReady` holds, and by default a call fails at once when every endpoint is
/// out. With it the call waits for one to return, for as long as its deadline lets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady(pub bool);

/// Makes a call from its first byte to its response's head. Whatever fails becomes a response with a gRPC status.
pub(crate) async fn run<B>(core: Arc<Core>, request: HttpRequest<B>) -> Response<ResponseBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: fmt::Display,
{
    let (head, body) = request.into_parts();
    let mut attempts = Attempts::new(&core, head, body);
    let deadline = attempts.deadline;
    let result = match deadline {
        None => attempts.run().await,
        Some(at) => match tokio::time::timeout_at(core.clock.instant(at), attempts.run()).await {
            Ok(result) => result,
            Err(_) => Err(attempts.timed_out()),
        },
    };
    result.unwrap_or_else(|status| failed(&status))
}

/// A response that is nothing but a status: "Trailers-Only".
fn failed(status: &Status) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    wire_status::write(status, headers);
    response
}

/// The attempts of one call.
struct Attempts<'a, B> {
    core: &'a Arc<Core>,
    head: request::Parts,
    request: Option<Request<B>>,
    config: MethodConfig,
    wait_for_ready: bool,
    deadline: Option<Time>,
    retries: Retries,
    /// Whether the one transparent retry that a refusal earns has been made.
    was_refused: bool,
    /// Where the last attempt went.
    peer: Option<Address>,
}

/// What an attempt came to.
enum Attempt {
    /// A response that the caller gets.
    Answer(Response<()>, Progressing),
    /// No server has processed it.
    Unprocessed(StreamError),
    /// It failed before anything of it reached the caller.
    Failed(Status, Pushback, Option<Box<(Response<()>, Progressing)>>),
}

/// An attempt under way: its counting in the balancer and its two halves.
struct Progressing {
    placed: Placed,
    incoming: Incoming,
    outgoing: Option<Outgoing>,
}

impl<'a, B> Attempts<'a, B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: fmt::Display,
{
    fn new(core: &'a Arc<Core>, mut head: request::Parts, body: B) -> Self {
        core.complete(&mut head);
        let config = core.snapshot().config.method(head.uri.path()).clone();
        let asked = deadline::timeout(&head.headers);
        let left = cascade::inherited().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = [asked, config.timeout, left].into_iter().flatten().min();
        if timeout != asked {
            head.headers.extend(timeout.map(|timeout| (deadline::GRPC_TIMEOUT, deadline::header(timeout))));
        }
        let wait_for_ready = head.extensions.get::<WaitForReady>().map(|wait| wait.0);
        Self {
            core,
            head,
            request: Some(Request::new(body)),
            wait_for_ready: wait_for_ready.or(config.wait_for_ready).unwrap_or(false),
            config,
            deadline: timeout.map(|timeout| core.clock.now() + timeout),
            retries: Retries::new(),
            was_refused: false,
            peer: None,
        }
    }

    async fn run(&mut self) -> Result<Response<ResponseBody>, Status> {
        loop {
            let (snapshot, call, connection) = self.place().await?;
            match self.attempt(&snapshot, call, &connection).await? {
                Attempt::Answer(head, progressing) => return Ok(self.answer(head, progressing)),
                Attempt::Unprocessed(error) => self.retry_unprocessed(&error, snapshot.version).await?,
                Attempt::Failed(status, pushback, answer) => {
                    let throttle = snapshot.throttle.clone();
                    match (self.next_delay(&status, pushback, throttle.as_deref()), answer.map(|answer| *answer)) {
                        (Some(delay), answer) => {
                            tracing::trace!(target: "evenkeel::call", %status, ?delay, "retrying");
                            if let Some((head, progressing)) = answer {
                                progressing.placed.finish(self.core, status.code, Some(head.headers()));
                            }
                            tokio::time::sleep(delay).await;
                        }
                        (None, Some((head, progressing))) => return Ok(self.answer(head, progressing)),
                        (None, None) => return Err(status),
                    }
                }
            }
        }
    }

    /// Waits until the picker places the call on a connection that takes it.
    async fn place(&mut self) -> Result<(Arc<Snapshot>, Call, Arc<Connection>), Status> {
        loop {
            let snapshot = self.core.snapshot();
            let args = PickArgs::new(self.core.clock.now(), self.core.random(), self.head.uri.path());
            let pick = snapshot.update.picker.pick(&args);
            if pick.exits_idle() {
                self.core.exit_idle();
            }
            match pick {
                Pick::Call(call) => match snapshot.connection(call.subchannel()) {
                    Some(connection) => return Ok((snapshot, call, connection)),
                    // It closed a moment ago; the next snapshot knows.
                    None => call.withdraw(),
                },
                Pick::Fail(status) if !self.wait_for_ready => return Err(status.from_control_plane()),
                Pick::Queue | Pick::Idle | Pick::Fail(_) => {}
            }
            self.core.newer_than(snapshot.version).await?;
        }
    }

    async fn attempt(&mut self, snapshot: &Snapshot, call: Call, connection: &Connection) -> Result<Attempt, Status> {
        self.peer = Some(connection.peer().clone());
        let started = self.core.clock.now();
        let placed = Placed { call, started, throttle: snapshot.throttle.clone() };
        let Some(mut request) = self.request.take() else {
            return Err(Status::new(Code::Internal, "the request was handed on already"));
        };
        let opened = connection.open(self.attempt_head(), request.is_empty(), Purpose::Call).await;
        let (mut outgoing, mut incoming) = match opened {
            Ok(halves) => halves,
            Err(error) => {
                placed.call.withdraw();
                self.request = Some(request);
                return Ok(Attempt::Unprocessed(error));
            }
        };
        let (head, sent) = exchange(&mut request, &mut outgoing, &mut incoming).await;
        self.request = Some(request);
        match head {
            Ok(head) => Ok(judge(head, Progressing { placed, incoming, outgoing: (!sent).then_some(outgoing) })),
            Err(Broken::Request(error)) => {
                Err(Status::new(Code::Cancelled, format!("the request's body failed: {error}")))
            }
            Err(Broken::Stream(error @ (StreamError::NotSent | StreamError::LeftBehind | StreamError::Refused))) => {
                placed.call.withdraw();
                Ok(Attempt::Unprocessed(error))
            }
            Err(Broken::Stream(error)) => {
                let status = explain(&error, connection.peer(), self.deadline, self.core.clock.now());
                placed.finish(self.core, status.code, None);
                Ok(Attempt::Failed(status, Pushback::None, None))
            }
        }
    }

    /// Whether and when a failed attempt is followed by another.
    fn next_delay(
        &mut self,
        status: &Status,
        pushback: Pushback,
        throttle: Option<&RetryThrottle>,
    ) -> Option<Duration> {
        let policy = self.config.retry.as_ref()?;
        let mut entropy = Entropy::new(self.core.random());
        let delay = self.retries.after(policy, throttle, status.code, pushback, &mut entropy)?;
        let in_time = self.deadline.is_none_or(|deadline| self.core.clock.now() + delay < deadline);
        (in_time && self.request.as_mut().is_some_and(Request::rewind)).then_some(delay)
    }

    /// A call that no server has processed goes out again at once: once where it was refused, and always where its
    /// connection is over, since the next one is another (connections that carry nothing back off, so this ends).
    async fn retry_unprocessed(&mut self, error: &StreamError, version: u64) -> Result<(), Status> {
        let may_retry = match error {
            StreamError::NotSent | StreamError::LeftBehind => true,
            StreamError::Refused => !std::mem::replace(&mut self.was_refused, true),
            _ => false,
        };
        if !may_retry || !self.request.as_mut().is_some_and(Request::rewind) {
            return Err(error.status(&self.peer_name()));
        }
        match error {
            // The connection is closing: placing the call by the same snapshot could find it again.
            StreamError::NotSent | StreamError::LeftBehind => self.core.newer_than(version).await,
            _ => Ok(()),
        }
    }

    fn answer(&mut self, head: Response<()>, progressing: Progressing) -> Response<ResponseBody> {
        let Progressing { placed, incoming, outgoing } = progressing;
        let sending = match (outgoing, self.request.take()) {
            (Some(outgoing), Some(mut request)) => {
                request.commit();
                Some(Sending::start(request, outgoing))
            }
            _ => None,
        };
        let deadline = self.deadline.map(|at| self.core.clock.instant(at));
        let following = Following::new(Arc::clone(self.core), placed, sending, self.peer.clone(), self.deadline);
        let (head, ()) = head.into_parts();
        let body = ResponseBody::new(incoming, following, &head.headers, deadline);
        Response::from_parts(head, body)
    }

    /// The request's head for the connection, with what only this attempt knows.
    fn attempt_head(&self) -> HttpRequest<()> {
        let mut head = HttpRequest::new(());
        *head.method_mut() = self.head.method.clone();
        *head.uri_mut() = self.head.uri.clone();
        *head.headers_mut() = self.head.headers.clone();
        let previous = self.retries.previous();
        if previous > 0 {
            head.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(previous));
            if let Some(deadline) = self.deadline {
                let left = deadline.since(self.core.clock.now());
                head.headers_mut().insert(deadline::GRPC_TIMEOUT, deadline::header(left));
            }
        }
        head
    }

    fn timed_out(&self) -> Status {
        let where_ = self.peer.as_ref().map_or_else(
            || format!("waiting for an endpoint of {}", self.core.target),
            |peer| format!("waiting for {peer}"),
        );
        Status::new(Code::DeadlineExceeded, format!("deadline exceeded while {where_}"))
    }

    fn peer_name(&self) -> String {
        self.peer.as_ref().map_or_else(|| self.core.target.clone(), ToString::to_string)
    }
}

/// Why an attempt has no response.
enum Broken {
    /// The caller's own body failed.
    Request(String),
    Stream(StreamError),
}

/// Sends the request until the response's head is there; says too whether all of it was sent by then.
async fn exchange<B>(
    request: &mut Request<B>,
    outgoing: &mut Outgoing,
    incoming: &mut Incoming,
) -> (Result<Response<()>, Broken>, bool)
where
    B: Body<Data = Bytes>,
    B::Error: fmt::Display,
{
    let mut sent = request.is_empty();
    let head = poll_fn(|cx| {
        if !sent && let Poll::Ready(end) = request.poll_send(cx, outgoing) {
            sent = true;
            // A stream that takes no more shows in the response.
            if let Err(SendError::Body(error)) = end {
                return Poll::Ready(Err(Broken::Request(error)));
            }
        }
        incoming.poll_head(cx).map_err(Broken::Stream)
    });
    let head = head.await;
    (head, sent)
}

/// A response's head commits the call, unless it is the whole response and a failure that may be retried.
fn judge(head: Response<()>, progressing: Progressing) -> Attempt {
    let code = wire_status::code(head.headers()).filter(|_| progressing.incoming.is_end());
    match code {
        Some(code) if code != Code::Ok => {
            let pushback = Pushback::parse(head.headers().get(&PUSHBACK).map(HeaderValue::as_bytes));
            let status = Status::new(code, "");
            Attempt::Failed(status, pushback, Some(Box::new((head, progressing))))
        }
        _ => Attempt::Answer(head, progressing),
    }
}
