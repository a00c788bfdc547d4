//! A kept HTTP/2 connection: asked by gRPC and by GET, and watched while nobody asks.

use std::{
    future::{poll_fn, ready},
    ops::RangeInclusive,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use evenkeel_balance::{CheckFailure, CheckOutcome, Code, FailureKind, Loss, Statement};
use evenkeel_transport::{
    Clock, Connection, Ends, Line, LineSettings, News, Purpose, Stream, StreamError, Windows, handshake,
};
use http::Request;
use tokio::time::{Instant, sleep_until};

use crate::{
    failure::{MAX_BODY, failed, of_status},
    grpc::{self, Call, End},
};

/// The connection, and the Watch on it.
#[derive(Debug)]
pub(crate) struct Http2 {
    connection: Connection,
    wire: Wire,
    watch: Option<Watch>,
    /// Whether the server has said that it does not implement Watch.
    is_unwatchable: bool,
    /// Whether a probe on it has been answered.
    is_kept: bool,
}

/// A Watch under way.
#[derive(Debug)]
pub(crate) struct Watch {
    call: Call,
    /// What it has said last.
    newest: Statement,
    /// What of that has been told.
    told: Statement,
    /// When the next thing may be told.
    calm_at: Instant,
}

/// From one thing that a Watch is told to say to the next. A server that changes its mind faster is told by what it says
/// last: each change costs its listener a decision and a line in its log.
const CALM: Duration = Duration::from_millis(20);

impl Watch {
    fn new(call: Call, first: Statement) -> Self {
        Self { call, newest: first, told: first, calm_at: Instant::now() + CALM }
    }

    /// The newest statement, as one that is told now.
    fn tell(&mut self) -> Statement {
        (self.told, self.calm_at) = (self.newest, Instant::now() + CALM);
        self.newest
    }
}

/// The working end, and what it has told so far.
#[derive(Debug)]
struct Wire {
    line: Line<Stream>,
    has_spoken: bool,
    /// Why it takes no more streams.
    lost: Option<(String, Loss)>,
    is_closed: bool,
}

/// What a server may send ahead: a probe's answer is short.
const WINDOWS: Windows = Windows { stream: 65_535, most: 0, connection: 65_535, header_list: 16 * 1024 };

impl Http2 {
    pub(crate) async fn open(stream: Stream, ends: Ends, clock: Clock) -> Result<Self, CheckOutcome> {
        let settings = LineSettings { windows: WINDOWS, ..LineSettings::default() };
        let made = handshake(stream, ends, clock, settings, Arc::default(), Arc::default()).await;
        let (connection, line) = made.map_err(|why| failed(FailureKind::Closed, why))?;
        let wire = Wire { line, has_spoken: false, lost: None, is_closed: false };
        Ok(Self { connection, wire, watch: None, is_unwatchable: false, is_kept: false })
    }

    /// Itself, if another probe can be sent on it. What came while nobody looked is taken in first.
    pub(crate) async fn if_kept(mut self: Box<Self>) -> Option<Box<Self>> {
        tokio::select! {
            biased;
            () = self.wire.lost() => None,
            () = ready(()) => Some(self),
        }
    }

    /// Whether the peer has sent anything at all.
    pub(crate) fn has_spoken(&self) -> bool {
        self.wire.has_spoken
    }

    /// Whether the peer has said good-bye (GOAWAY).
    pub(crate) fn is_drained(&self) -> bool {
        self.wire.is_drained()
    }

    /// Whether there is a Watch.
    pub(crate) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether there could be one.
    pub(crate) fn may_watch(&self) -> bool {
        self.watch.is_none() && !self.is_unwatchable
    }

    /// A unary Check.
    pub(crate) async fn check(&mut self, head: Request<()>, request: Bytes) -> CheckOutcome {
        let Self { connection, wire, .. } = self;
        let answer = wire.drive(grpc::check(connection, head, request)).await;
        self.outcome(answer)
    }

    /// Opens a Watch, up to its first reply.
    pub(crate) async fn open_watch(&mut self, head: Request<()>, request: Bytes) -> Result<Statement, End> {
        let Self { connection, wire, .. } = self;
        let opening = async {
            let mut call = Call::open(connection, head, request).await?;
            let first = call.next().await?;
            Ok(Watch::new(call, first))
        };
        let opened = wire.drive(opening).await;
        self.is_kept |= !matches!(opened, Err(End::Broken(_)));
        self.is_unwatchable = matches!(opened, Err(End::Status(Code::Unimplemented, _)));
        let first = self.watch.insert(opened?).newest;
        if self.connection.stream_limit() < 2 {
            // It would leave no room for a Check beside it.
            (self.watch, self.is_unwatchable) = (None, true);
        }
        Ok(first)
    }

    /// A unary Check beside the Watch, if there is one; what that says first counts as well.
    ///
    /// # Errors
    /// The Watch ended first, and there is no outcome yet.
    pub(crate) async fn check_beside_watch(&mut self, head: Request<()>, request: Bytes) -> Result<CheckOutcome, End> {
        let Self { connection, wire, watch: Some(watch), .. } = self else {
            return Ok(self.check(head, request).await);
        };
        let asking = async {
            tokio::select! {
                biased;
                said = watch.call.next() => Err(said),
                answer = grpc::check(connection, head, request) => Ok(answer),
            }
        };
        match wire.drive(asking).await {
            Err(Ok(statement)) => {
                watch.newest = statement;
                Ok(watch.tell().into())
            }
            Err(Err(end)) => {
                self.watch = None;
                Err(end)
            }
            // It answers, and its Watch tells what a Check does not.
            Ok(Err(End::Status(Code::Unimplemented, _))) => Ok(watch.newest.into()),
            Ok(answer) => Ok(self.outcome(answer)),
        }
    }

    /// What the Watch says next that it has not said before; of what it says within [`CALM`], the last.
    ///
    /// # Errors
    /// How it ended; as broken, where the connection did.
    pub(crate) async fn heard(&mut self) -> Result<Statement, End> {
        let Self { wire, watch, .. } = self;
        let Some(open) = watch else {
            wire.lost().await;
            return Err(End::Broken(StreamError::NotSent));
        };
        let end = loop {
            tokio::select! {
                biased;
                () = sleep_until(open.calm_at), if open.newest != open.told => return Ok(open.tell()),
                said = open.call.next() => match said {
                    Ok(statement) => open.newest = statement,
                    Err(end) => break end,
                },
                () = wire.lost() => break End::Broken(StreamError::NotSent),
            }
        };
        *watch = None;
        Err(end)
    }

    /// GET.
    pub(crate) async fn get(&mut self, head: Request<()>, passes: &RangeInclusive<u16>) -> CheckOutcome {
        let Self { connection, wire, .. } = self;
        match wire.drive(get(connection, head)).await {
            Ok(status) => {
                self.is_kept = true;
                of_status(status, passes)
            }
            Err(error) => self.broken(&error),
        }
    }

    /// What a Check's end means.
    fn outcome(&mut self, answer: Result<Statement, End>) -> CheckOutcome {
        self.is_kept |= !matches!(answer, Err(End::Broken(_)));
        match answer {
            Ok(statement) => statement.into(),
            Err(End::Status(Code::NotFound, _)) => CheckOutcome::ServiceUnknown,
            Err(End::Status(Code::Unimplemented, _)) => {
                let advice = "the server does not implement grpc.health.v1 (UNIMPLEMENTED): serve it there, or probe by HTTP or TCP";
                failed(FailureKind::Status, advice)
            }
            Err(End::Status(code, message)) if message.is_empty() => {
                failed(FailureKind::Status, format!("the Check ended with {code}"))
            }
            Err(End::Status(code, message)) => {
                failed(FailureKind::Status, format!("the Check ended with {code}: {message}"))
            }
            Err(End::Foreign(what) | End::Reset(what)) => failed(FailureKind::Protocol, what),
            Err(End::Broken(error)) => self.broken(&error),
        }
    }

    /// A connection that was kept and is lost before an answer says nothing: the peer may have closed it while idle.
    pub(crate) fn broken(&self, error: &StreamError) -> CheckOutcome {
        match error {
            StreamError::Refused | StreamError::Reset(_) | StreamError::Invalid(_) => {
                failed(FailureKind::Protocol, error.to_string())
            }
            StreamError::NotSent | StreamError::LeftBehind | StreamError::Broken(_) => {
                if self.is_kept || self.wire.is_drained() {
                    return CheckOutcome::Drained;
                }
                CheckOutcome::Failed(self.wire.failure(error))
            }
        }
    }
}

impl Wire {
    /// Works the line while `work` runs.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        while !self.is_closed {
            tokio::select! {
                biased;
                done = &mut work => return done,
                news = self.line.next() => self.note(news),
            }
        }
        work.await
    }

    async fn lost(&mut self) {
        while self.lost.is_none() {
            let news = self.line.next().await;
            self.note(news);
        }
    }

    fn note(&mut self, news: News) {
        match news {
            News::Spoke => self.has_spoken = true,
            News::Leaving(why, loss) => self.lost = self.lost.take().or(Some((why, loss))),
            News::Closed(why, loss) => {
                self.is_closed = true;
                self.lost = self.lost.take().or(Some((why, loss)));
            }
            News::Stalled(_) | News::Recovered => {}
        }
    }

    fn is_drained(&self) -> bool {
        matches!(self.lost, Some((_, Loss::GoAway(_))))
    }

    /// Why a fresh connection gave no answer.
    fn failure(&self, error: &StreamError) -> CheckFailure {
        let why = self.lost.as_ref().map_or_else(|| error.to_string(), |(why, _)| why.clone());
        if why.starts_with("TLS: ") {
            return CheckFailure::new(FailureKind::Tls, why);
        }
        match self.lost {
            // The library's words for what the peer did wrong; it tells that in no other way.
            Some((_, Loss::Unknown)) if why.contains("connection error detected") => {
                CheckFailure::new(FailureKind::Protocol, format!("{why}; does it speak HTTP/2 on this port?"))
            }
            _ => CheckFailure::new(FailureKind::Closed, format!("the connection ended before the answer: {why}")),
        }
    }
}

/// The status of a GET; a short body is read, so that the stream ends in good order.
async fn get(connection: &Connection, head: Request<()>) -> Result<u16, StreamError> {
    let (_outgoing, mut incoming) = connection.open(head, true, Purpose::Watch).await?;
    let status = poll_fn(|cx| incoming.poll_head(cx)).await?.status().as_u16();
    let mut read = 0;
    while read <= MAX_BODY {
        match poll_fn(|cx| incoming.poll_data(cx)).await {
            Some(data) => read += data?.len(),
            None => break,
        }
    }
    Ok(status)
}
