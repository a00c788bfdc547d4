//! A call's life: placed by a picker, tried until an attempt counts, and handed to its caller with the response's head.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use evenkeel_balance::{
    Call, Code, Entropy, Failure, Hedges, HedgingPolicy, MethodConfig, Pick, PickArgs, Pushback, Retries,
    RetryThrottle, Status, SubchannelId, Time,
};
use http::{HeaderName, HeaderValue, Request as HttpRequest, Response, StatusCode, request};
use http_body::Body;
use tokio::time::Instant;
use tracing::Span;

use evenkeel_transport::{Connection, Incoming, Outgoing, Permit, Purpose, StreamError, wire_status};

use crate::{
    body::ResponseBody,
    cascade, deadline,
    following::{Following, Placed, Record, Sending, explain},
    overrides::{CallMetadata, Overrides},
    request::{Cursor, SendError, Source},
    shared::Core,
    snapshot::Snapshot,
};

const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// How often a picker is asked again for an endpoint that has not failed this call yet.
const OTHER_PICKS: usize = 4;
const NOTHING_SET: &MethodConfig = &MethodConfig::NOTHING;

/// Makes a call from its first byte to its response's head. Whatever fails becomes a response with a gRPC status.
pub(crate) fn run<B>(core: Arc<Core>, request: HttpRequest<B>) -> impl Future<Output = CallResult> + Send
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: fmt::Display,
{
    let (head, body) = request.into_parts();
    let attempts = Attempts::new(core, head, body);
    // The future holds no more than this: it is moved into its place in memory once a call.
    async move {
        let result = match attempts.deadline {
            None => attempts.run().await,
            Some(at) => {
                let in_time = tokio::time::timeout_at(attempts.core.clock.instant(at), pin!(attempts.run())).await;
                in_time.unwrap_or_else(|_| Err(attempts.timed_out()))
            }
        };
        Ok(match result {
            Ok(answer) => attempts.accept(answer),
            Err(status) => attempts.fail(&status),
        })
    }
}

type CallResult = Result<Response<ResponseBody>, Infallible>;

/// The attempts of one call, and what they share. Several may run at a time.
struct Attempts<B> {
    core: Arc<Core>,
    head: request::Parts,
    source: Mutex<Source<B>>,
    /// Nothing where the service config says nothing of the method.
    config: Option<Arc<MethodConfig>>,
    wait_for_ready: bool,
    deadline: Option<Time>,
    record: Record,
    /// Where the last attempt went.
    last: Mutex<Option<Arc<Connection>>>,
}

/// A picker's answer, and what is to be done about it.
enum Picked {
    Place(Place),
    /// There is none until a newer snapshot has one.
    Wait {
        newer_than: u64,
    },
}

/// Where an attempt goes.
struct Place {
    call: Call,
    connection: Arc<Connection>,
    throttle: Option<Arc<RetryThrottle>>,
    /// When it was found.
    at: Time,
    /// Of the snapshot that it comes from.
    version: u64,
}

/// What an attempt came to.
#[allow(clippy::large_enum_variant, reason = "boxing the common case would cost each call an allocation")]
enum Attempt {
    /// A response that the caller gets.
    Answer(Answer),
    /// It failed before anything of it reached the caller.
    Failed(Failed),
}

/// A response whose head is there.
struct Answer {
    head: Response<()>,
    placed: Placed,
    incoming: Incoming,
    /// How far the request has been sent, if not to its end, which is rare with one message.
    unsent: Option<Box<(Cursor, Outgoing)>>,
}

/// An attempt that another one may make good.
struct Failed {
    status: Status,
    pushback: Pushback,
    /// Which endpoint failed it.
    subchannel: Option<SubchannelId>,
    /// The response that says so, if that is how it failed.
    answer: Option<Box<Answer>>,
}

/// What came of sending the call on one connection.
#[allow(clippy::large_enum_variant, reason = "as for `Attempt`")]
enum Tried {
    Attempt(Attempt),
    /// No server has processed it.
    Unprocessed(StreamError),
}

impl<B> Attempts<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: fmt::Display,
{
    fn new(core: Arc<Core>, mut head: request::Parts, body: B) -> Self {
        core.complete(&mut head);
        let path = head.uri.path();
        let config = core.snapshot().config.configured(path).map(Arc::clone);
        let set = config.as_deref().unwrap_or(NOTHING_SET);
        let span = tracing::debug_span!(
            target: "evenkeel::call", "call", method = path, target = core.target, status = tracing::field::Empty
        );
        let record = Record::new(core.clock, core.methods.get(path), core.lanes.mine(), span);
        let asked = deadline::timeout(&head.headers);
        let left = cascade::inherited().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = [asked, set.timeout, left].into_iter().flatten().min();
        Self {
            source: Mutex::new(Source::new(body, &core.replays)),
            wait_for_ready: Overrides(&head.extensions).wait_for_ready().or(set.wait_for_ready).unwrap_or(false),
            deadline: timeout.map(|timeout| record.started + timeout),
            record,
            last: Mutex::new(None),
            core,
            head,
            config,
        }
    }

    async fn run(&self) -> Result<Answer, Status> {
        let making = async {
            match &self.config().hedging {
                Some(policy) => self.hedged(policy).await,
                None => self.retried().await,
            }
        };
        inside(&self.record.span, pin!(making)).await
    }

    /// One attempt after the other (gRFC A6).
    async fn retried(&self) -> Result<Answer, Status> {
        let mut retries = Retries::new();
        let mut failed_on = None;
        loop {
            match self.attempt(retries.previous(), failed_on.as_slice(), |_| {}).await? {
                Attempt::Answer(answer) => return Ok(answer),
                Attempt::Failed(failed) => match self.next_delay(&mut retries, &failed) {
                    Some(delay) => {
                        tracing::trace!(target: "evenkeel::call", status = %failed.status, ?delay, "retrying");
                        failed_on = failed.subchannel;
                        failed.discard(self.core.clock.now());
                        self.record.count(|repeats| {
                            repeats.retries += 1;
                            repeats.delay += delay;
                        });
                        tokio::time::sleep(delay).await;
                    }
                    None => return failed.into_result(),
                },
            }
        }
    }

    /// Whether and when a failed attempt is followed by another.
    fn next_delay(&self, retries: &mut Retries, failed: &Failed) -> Option<Duration> {
        let policy = self.config().retry.as_ref()?;
        let snapshot = self.core.snapshot();
        let throttle = snapshot.throttle.as_deref();
        let mut entropy = Entropy::new(self.core.random());
        let delay = retries.after(policy, throttle, failed.status.code, failed.pushback, &mut entropy)?;
        let in_time = self.deadline.is_none_or(|deadline| self.core.clock.now() + delay < deadline);
        (in_time && self.source().can_replay()).then_some(delay)
    }

    /// Several attempts at a time, of which the first good answer counts (gRFC A6).
    async fn hedged(&self, policy: &HedgingPolicy) -> Result<Answer, Status> {
        let mut hedges = Hedges::new(policy, self.record.method.hedging_delay(policy), self.core.clock.now());
        let tried = Mutex::new(Vec::new());
        let mut running = vec![self.hedge(0, &tried)];
        loop {
            let ended = self.next_end(&mut running, &mut hedges).await;
            let now = self.core.clock.now();
            let Some((index, result)) = ended else {
                if hedges.poll_start(now, || self.may_hedge(policy)) {
                    self.record.count(|repeats| repeats.hedges += 1);
                    running.push(self.hedge(hedges.previous(), &tried));
                }
                continue;
            };
            drop(running.swap_remove(index));
            match result? {
                Attempt::Answer(answer) => return Ok(answer),
                Attempt::Failed(failed) => {
                    let throttle = self.core.snapshot().throttle.clone();
                    let (code, pushback) = (failed.status.code, failed.pushback);
                    match hedges.failed(now, policy, throttle.as_deref(), code, pushback) {
                        Failure::IsFinal => return failed.into_result(),
                        Failure::GoesOn => failed.discard(now),
                    }
                }
            }
        }
    }

    fn hedge<'a>(&'a self, previous: u32, tried: &'a Mutex<Vec<SubchannelId>>) -> Hedge<'a> {
        Box::pin(async move {
            let avoided = lock(tried).clone();
            let attempt = self.attempt(previous, &avoided, |subchannel| lock(tried).push(subchannel)).await;
            if let Ok(Attempt::Answer(answer)) = &attempt {
                answer.placed.note_latency();
            }
            attempt
        })
    }

    /// The next attempt that ends, by its place in `running`; `None` when another one is due.
    async fn next_end(&self, running: &mut Vec<Hedge<'_>>, hedges: &mut Hedges) -> Option<(usize, AttemptResult)> {
        let next_at = hedges.next_at();
        let due = async {
            match next_at {
                Some(at) => tokio::time::sleep_until(self.core.clock.instant(at)).await,
                None => std::future::pending().await,
            }
        };
        let mut due = pin!(due);
        let mut only = false;
        let next = poll_fn(|cx| {
            let mut index = 0;
            while index < running.len() {
                let polled = running[index].as_mut().poll(cx);
                // It has sent more than can be kept for the others.
                if running.len() > 1 && !self.source().can_replay() {
                    let last = running.swap_remove(index);
                    *running = vec![last];
                    (index, only) = (0, true);
                }
                if let Poll::Ready(result) = polled {
                    return Poll::Ready(Some((index, result)));
                }
                index += 1;
            }
            due.as_mut().poll(cx).map(|()| None)
        });
        let next = next.await;
        if only {
            hedges.commit();
        }
        next
    }

    fn may_hedge(&self, policy: &HedgingPolicy) -> bool {
        self.source().can_replay()
            && self.core.snapshot().throttle.as_ref().is_none_or(|throttle| throttle.allows())
            && self.record.method.spend_hedge(policy)
    }

    /// One attempt, on another endpoint than `avoided` if there is one. It goes out again as long as no server has
    /// processed it: once where it was refused, and always where its connection is over, since the next one is another
    /// (connections that carry nothing back off, so this ends). `note` hears of each endpoint that it goes to.
    async fn attempt(
        &self,
        previous: u32,
        avoided: &[SubchannelId],
        note: impl Fn(SubchannelId) + Send,
    ) -> AttemptResult {
        let mut was_refused = false;
        loop {
            let place = match self.place(avoided).await {
                Ok(place) => place,
                Err(status) => return Ok(Attempt::Failed(Failed::before_any_answer(status, None))),
            };
            let subchannel = place.call.subchannel();
            note(subchannel);
            let version = place.version;
            let error = match self.try_on(place, previous).await? {
                Tried::Attempt(attempt) => return Ok(attempt),
                Tried::Unprocessed(error) => error,
            };
            let may_retry = match error {
                StreamError::NotSent | StreamError::LeftBehind => true,
                StreamError::Refused => !std::mem::replace(&mut was_refused, true),
                _ => false,
            };
            if !may_retry || !self.source().can_replay() {
                let status = error.status(&self.peer_name());
                return Ok(Attempt::Failed(Failed::before_any_answer(status, Some(subchannel))));
            }
            self.record.count(|repeats| repeats.transparent += 1);
            if error != StreamError::Refused {
                // The connection is closing: placing the call by the same snapshot could find it again.
                self.core.newer_than(version).await?;
            }
        }
    }

    /// Waits until the picker places the call on a connection that takes it.
    async fn place(&self, avoided: &[SubchannelId]) -> Result<Place, Status> {
        loop {
            match self.look(avoided)? {
                Picked::Place(place) => return Ok(place),
                Picked::Wait { newer_than } => self.core.newer_than(newer_than).await?,
            }
        }
    }

    /// One look into the present snapshot.
    fn look(&self, avoided: &[SubchannelId]) -> Result<Picked, Status> {
        let (snapshot, now) = (self.core.snapshot(), self.core.clock.now());
        let pick = match self.overrides().pinned() {
            Some(pinned) => snapshot.pinned(pinned),
            None => self.pick(&snapshot, now, avoided),
        };
        if pick.exits_idle() {
            self.core.exit_idle();
        }
        let version = snapshot.version;
        match pick {
            Pick::Call(call) => match snapshot.connection(call.subchannel()) {
                Some(connection) => {
                    let throttle = snapshot.throttle.clone();
                    return Ok(Picked::Place(Place { call, connection, throttle, at: now, version }));
                }
                // It closed a moment ago; the next snapshot knows.
                None => call.withdraw(),
            },
            Pick::Fail(status) if !self.wait_for_ready => return Err(status.from_control_plane()),
            Pick::Queue | Pick::Idle | Pick::Fail(_) => {}
        }
        Ok(Picked::Wait { newer_than: version })
    }

    fn pick(&self, snapshot: &Snapshot, now: Time, avoided: &[SubchannelId]) -> Pick {
        let metadata = CallMetadata(&self.head.headers);
        let lane = self.core.lanes.mine();
        let args = PickArgs::new(now, self.core.lanes.random(lane), self.head.uri.path());
        let mut args = args.on_lane(lane).with_metadata(&metadata);
        args.hash_key = self.overrides().hash_key();
        let mut pick = snapshot.update.picker.pick(&args);
        for _ in 0..OTHER_PICKS {
            match pick {
                Pick::Call(call) if avoided.contains(&call.subchannel()) => call.withdraw(),
                other => return other,
            }
            args.entropy = self.core.lanes.random(lane);
            pick = snapshot.update.picker.pick(&args);
        }
        pick
    }

    /// The right to open a stream on one of a subchannel's connections. Waits in line while the server's
    /// `MAX_CONCURRENT_STREAMS` are in use.
    async fn permit(&self, mut connection: Arc<Connection>, id: SubchannelId) -> Result<Permitted, StreamError> {
        if connection.queue().is_empty()
            && let Some(permit) = connection.try_permit(Purpose::Call)?
        {
            return Ok((connection, permit));
        }
        let line = Arc::clone(&connection);
        let place = line.queue().arrive(self.overrides().priority());
        loop {
            if self.core.snapshot().config.max_connections.is_some_and(|most| most > 1) {
                self.core.saturated(id);
            }
            let turn = line.queue().wait(place);
            // One may have ended while there was nobody in line, on whichever connection. Whose turn comes in order is as
            // good as another's.
            if line.queue().is_first(place) {
                connection = self.core.snapshot().connection(id).ok_or(StreamError::NotSent)?;
                if let Some(permit) = connection.try_permit(Purpose::Call)? {
                    return Ok((connection, permit));
                }
            }
            turn.await;
            connection = self.core.snapshot().connection(id).ok_or(StreamError::NotSent)?;
            if let Some(permit) = connection.try_permit(Purpose::Call)? {
                return Ok((connection, permit));
            }
        }
    }

    async fn try_on(&self, place: Place, previous: u32) -> Result<Tried, Status> {
        let Place { call, connection, throttle, at, .. } = place;
        let id = call.subchannel();
        *lock(&self.last) = Some(Arc::clone(&connection));
        let span = tracing::debug_span!(
            target: "evenkeel::call", "attempt", endpoint = %connection.peer(), previous, status = tracing::field::Empty
        );
        let method = Arc::clone(&self.record.method);
        let placed = Placed::new(self.core.clock, method, call, throttle, at, self.deadline, span.clone());
        inside(&span, pin!(self.send(placed, id, connection, previous))).await
    }

    /// Sends the request until the response's head is there.
    async fn send(
        &self,
        mut placed: Placed,
        id: SubchannelId,
        connection: Arc<Connection>,
        previous: u32,
    ) -> Result<Tried, Status> {
        let is_empty = self.source().is_empty();
        let (connection, permit) = match self.permit(connection, id).await {
            Ok(permitted) => permitted,
            Err(error) => {
                placed.withdraw();
                return Ok(Tried::Unprocessed(error));
            }
        };
        let (mut outgoing, mut incoming) = match connection.start(permit, self.attempt_head(previous), is_empty) {
            Ok(halves) => halves,
            Err(error) => {
                placed.withdraw();
                return Ok(Tried::Unprocessed(error));
            }
        };
        let mut cursor = Cursor::new(self.config().max_request_bytes);
        let (head, is_sent) = self.exchange(&mut cursor, &mut outgoing, &mut incoming, is_empty).await;
        placed.sent(cursor.sent());
        match head {
            // A server that keeps the deadline too may give up a moment before our own timer does.
            Ok(head) if wire_status::code(head.headers()) == Some(Code::Cancelled) && self.is_past_deadline() => {
                let status = self.timed_out();
                placed.finish(status.code, self.core.clock.now(), Some(head.headers()));
                Err(status)
            }
            Ok(head) => {
                let unsent = (!is_sent).then(|| Box::new((cursor, outgoing)));
                Ok(Tried::Attempt(judge(Answer { head, placed, incoming, unsent })))
            }
            Err(Broken::Request(status)) => {
                placed.finish(status.code, self.core.clock.now(), None);
                Err(status)
            }
            Err(Broken::Stream(error @ (StreamError::NotSent | StreamError::LeftBehind | StreamError::Refused))) => {
                placed.withdraw();
                Ok(Tried::Unprocessed(error))
            }
            Err(Broken::Stream(error)) => {
                let now = self.core.clock.now();
                let status = explain(&error, connection.peer(), self.deadline, now);
                let subchannel = placed.subchannel();
                placed.finish(status.code, now, None);
                Ok(Tried::Attempt(Attempt::Failed(Failed::before_any_answer(status, subchannel))))
            }
        }
    }

    /// Sends the request until the response's head is there; says too whether all of it was sent by then.
    async fn exchange(
        &self,
        cursor: &mut Cursor,
        outgoing: &mut Outgoing,
        incoming: &mut Incoming,
        is_empty: bool,
    ) -> (Result<Response<()>, Broken>, bool) {
        let mut is_sent = is_empty;
        let head = poll_fn(|cx| {
            if !is_sent && let Poll::Ready(end) = self.source().poll_send(cx, cursor, outgoing) {
                is_sent = true;
                if let Err(status) = request_status(end) {
                    return Poll::Ready(Err(Broken::Request(status)));
                }
            }
            incoming.poll_head(cx).map_err(Broken::Stream)
        });
        let head = head.await;
        (head, is_sent)
    }

    /// The request's head for the connection, with what only this attempt knows.
    fn attempt_head(&self, previous: u32) -> HttpRequest<()> {
        let mut head = HttpRequest::new(());
        *head.method_mut() = self.head.method.clone();
        *head.uri_mut() = self.head.uri.clone();
        *head.headers_mut() = self.head.headers.clone();
        if previous > 0 {
            head.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(previous));
        }
        if let Some(deadline) = self.deadline {
            // What is left, not what there was: the call may have waited for its endpoint.
            let left = deadline.since(self.core.clock.now());
            head.headers_mut().insert(deadline::GRPC_TIMEOUT, deadline::header(left));
        }
        head
    }

    /// Hands the response to the caller; the call goes on in its body.
    fn accept(self, answer: Answer) -> Response<ResponseBody> {
        let limit = self.config().max_response_bytes;
        let Answer { head, placed, incoming, unsent } = answer;
        let mut source = into_inner(self.source);
        let sending = unsent.map(|unsent| {
            let (mut cursor, outgoing) = *unsent;
            source.commit(&mut cursor);
            Sending::start(source, cursor, outgoing)
        });
        let deadline = self.deadline.map(|at| self.core.clock.instant(at));
        let following = Following::new(self.core, placed, self.record, sending, self.deadline);
        let (head, ()) = head.into_parts();
        let body = ResponseBody::new(incoming, following, &head, limit, deadline);
        Response::from_parts(head, body)
    }

    /// A response that is nothing but a status: "Trailers-Only".
    fn fail(self, status: &Status) -> Response<ResponseBody> {
        self.record.finish(status.code, self.core.clock.now());
        let mut response = Response::new(ResponseBody::empty());
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        wire_status::write(status, headers);
        response
    }

    fn is_past_deadline(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= self.core.clock.now())
    }

    fn timed_out(&self) -> Status {
        let where_ = lock(&self.last).as_ref().map_or_else(
            || format!("waiting for an endpoint of {}", self.core.target),
            |last| format!("waiting for {}", last.peer()),
        );
        Status::new(Code::DeadlineExceeded, format!("deadline exceeded while {where_}"))
    }

    fn peer_name(&self) -> String {
        lock(&self.last).as_ref().map_or_else(|| self.core.target.clone(), |last| last.peer().to_string())
    }

    fn config(&self) -> &MethodConfig {
        self.config.as_deref().unwrap_or(NOTHING_SET)
    }

    fn source(&self) -> MutexGuard<'_, Source<B>> {
        lock(&self.source)
    }

    fn overrides(&self) -> Overrides<'_> {
        Overrides(&self.head.extensions)
    }
}

type Permitted = (Arc<Connection>, Permit);
type AttemptResult = Result<Attempt, Status>;
type Hedge<'a> = Pin<Box<dyn Future<Output = AttemptResult> + Send + 'a>>;

impl Failed {
    /// It failed for a reason of our own, or nobody took it: what the server might have said is not there.
    fn before_any_answer(status: Status, subchannel: Option<SubchannelId>) -> Self {
        Self { status, pushback: Pushback::None, subchannel, answer: None }
    }

    /// Another attempt takes its place.
    fn discard(self, now: Time) {
        if let Some(answer) = self.answer {
            answer.placed.finish(self.status.code, now, Some(answer.head.headers()));
        }
    }

    /// It is what the caller gets.
    fn into_result(self) -> Result<Answer, Status> {
        self.answer.map_or(Err(self.status), |answer| Ok(*answer))
    }
}

/// Runs `future` in `span`, where it is: tracing's own way to do so moves it, and it is large.
async fn inside<F: Future>(span: &Span, mut future: Pin<&mut F>) -> F::Output {
    let inside = poll_fn(|cx| {
        let _entered = span.enter();
        future.as_mut().poll(cx)
    });
    inside.await
}

/// Why an attempt has no response.
enum Broken {
    /// The request itself cannot be sent.
    Request(Status),
    Stream(StreamError),
}

fn request_status(end: Result<(), SendError>) -> Result<(), Status> {
    match end {
        // A stream that takes no more shows in the response.
        Ok(()) | Err(SendError::Stream) => Ok(()),
        Err(SendError::Body(error)) => Err(Status::new(Code::Cancelled, format!("the request's body failed: {error}"))),
        Err(SendError::TooLong(error)) => Err(Status::new(Code::ResourceExhausted, format!("request: {error}"))),
    }
}

/// A response's head commits the call, unless it is the whole response and a failure that may be retried. Of a response
/// that is none of gRPC's, nothing but the head counts.
fn judge(mut answer: Answer) -> Attempt {
    let is_all = answer.incoming.is_end() || answer.head.status() != StatusCode::OK;
    let code = if is_all { wire_status::of_head(answer.head.status(), answer.head.headers()) } else { None };
    match code {
        Some(code) if code != Code::Ok => {
            let pushback = Pushback::parse(answer.head.headers().get(&PUSHBACK).map(HeaderValue::as_bytes));
            let subchannel = answer.placed.subchannel();
            let status = Status::new(code, "");
            Attempt::Failed(Failed { status, pushback, subchannel, answer: Some(Box::new(answer)) })
        }
        _ => Attempt::Answer(answer),
    }
}

/// A panic elsewhere leaves nothing half-done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
