//! The client half of health checking: a `grpc.health.v1.Health/Watch` over a connection (gRFC A17), or its Check where
//! there is no Watch.

use std::{collections::hash_map::RandomState, hash::BuildHasher, sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel_balance::{
    CallsSeen, Check, CheckFailure, CheckOutcome, CheckReason, CheckSettings, Code, ConnectionId, Entropy, FailureKind,
    HealthSignal, Input, Statement, Status,
};
use evenkeel_checker::codec::{self, CHECK_PATH, ReplyDecoder, WATCH_PATH};
use evenkeel_transport::{Clock, Connection, ServerStream};
use tokio::{
    sync::mpsc::WeakUnboundedSender,
    time::{Instant, sleep_until},
};

use crate::message::Message;

/// Watches `service` until the Watch ends, and tells the driver each thing it says and how it ended.
pub(crate) async fn run(
    id: ConnectionId,
    connection: Arc<Connection>,
    origin: String,
    service: String,
    driver: WeakUnboundedSender<Message>,
) {
    let tell = |signal| {
        if let Some(driver) = driver.upgrade() {
            let _ = driver.send(Message::Input(Input::Health(id, signal)));
        }
    };
    let status = watch(&connection, &origin, &service, &tell).await.unwrap_or_else(|status| status);
    tell(HealthSignal::Ended(status));
}

async fn watch(
    connection: &Connection,
    origin: &str,
    service: &str,
    tell: &impl Fn(HealthSignal),
) -> Result<Status, Status> {
    if connection.stream_limit() < 2 {
        let peer = connection.peer();
        tracing::warn!(target: "evenkeel::channel", endpoint = %peer, "not health-checked: it allows one stream at a time, and calls need that");
        return Ok(Status::new(Code::Unimplemented, "the server allows one stream at a time"));
    }
    let ended = match Replies::of(connection, origin, WATCH_PATH, service).await {
        Ok(replies) => relay(replies, tell).await,
        Err(status) => status,
    };
    if ended.code == Code::Unimplemented {
        return poll(connection, origin, service, tell).await;
    }
    Ok(ended)
}

/// From one signal to the next, at least. A server that changes its mind faster is told by what it says last: each change
/// costs the channel a decision, a picker and a line in its log.
const CALM: Duration = Duration::from_millis(20);

/// Tells each change until the Watch ends, and returns how.
async fn relay(mut replies: Replies<'_>, tell: &impl Fn(HealthSignal)) -> Status {
    let (mut newest, mut told, mut calm_at) = (None, None, Instant::now());
    loop {
        tokio::select! {
            biased;
            () = sleep_until(calm_at), if newest != told => {
                newest.map(signal).into_iter().for_each(tell);
                (told, calm_at) = (newest, Instant::now() + CALM);
            }
            said = replies.next() => match said {
                Ok(statement) => newest = Some(statement),
                Err(status) => return status,
            },
        }
    }
}

/// Where a server does not implement Watch, its Check is asked as active checks would, on the channel's own connection.
/// Where it has neither, that is the end of it (gRFC A17: no health service means healthy).
async fn poll(
    connection: &Connection,
    origin: &str,
    service: &str,
    tell: &impl Fn(HealthSignal),
) -> Result<Status, Status> {
    let (clock, settings) = (Clock::start(), CheckSettings::default());
    let mut entropy = Entropy::new(RandomState::new().hash_one(origin));
    let mut check = Check::new(settings, clock.now(), &mut entropy).expect("the defaults make sense");
    loop {
        if let Some(next) = check.next_timeout() {
            sleep_until(clock.instant(next)).await;
        }
        let Some(deadline) = check.poll(clock.now()) else { continue };
        let answer = tokio::time::timeout_at(clock.instant(deadline), ask(connection, origin, service)).await;
        let outcome = match answer {
            Ok(Ok(statement)) => statement.into(),
            Ok(Err(status)) if status.code == Code::Unimplemented || connection.is_closed() => return Err(status),
            Ok(Err(status)) => CheckOutcome::Failed(CheckFailure::new(FailureKind::Status, status.to_string())),
            Err(_) => {
                let why = format!("no answer within {:?}", settings.timeout);
                CheckOutcome::Failed(CheckFailure::new(FailureKind::TimedOut, why))
            }
        };
        // Calls over the same connection are watched for silence by the connection itself.
        if let Some(transition) = check.handle(clock.now(), outcome, CallsSeen::NONE, &mut entropy) {
            tell(match transition.reason {
                CheckReason::NotServing => HealthSignal::NotServing,
                CheckReason::ServiceUnknown => HealthSignal::ServiceUnknown,
                _ if transition.to.is_healthy() => HealthSignal::Serving,
                why => HealthSignal::Unanswered(why.to_string()),
            });
        }
    }
}

/// One Check.
async fn ask(connection: &Connection, origin: &str, service: &str) -> Result<Statement, Status> {
    let mut replies = Replies::of(connection, origin, CHECK_PATH, service).await?;
    match replies.next().await {
        Err(status) if status.code == Code::NotFound => Ok(Statement::ServiceUnknown),
        answer => answer,
    }
}

/// What a server says of a service: in one reply, or as long as it goes on.
struct Replies<'a> {
    stream: ServerStream,
    decoder: ReplyDecoder,
    chunk: Bytes,
    connection: &'a Connection,
}

impl<'a> Replies<'a> {
    async fn of(connection: &'a Connection, origin: &str, path: &'static str, service: &str) -> Result<Self, Status> {
        let stream = ServerStream::open(connection, origin, path, codec::request(service)).await?;
        Ok(Self { stream, decoder: ReplyDecoder::default(), chunk: Bytes::new(), connection })
    }

    /// The next reply. Nothing is lost where it is dropped before its end.
    ///
    /// # Errors
    /// How the stream ended.
    async fn next(&mut self) -> Result<Statement, Status> {
        let foreign = |error| Status::unavailable(format!("{}: {error}", self.connection.peer()));
        loop {
            if let Some(statement) = self.decoder.decode(&mut self.chunk).map_err(foreign)? {
                return Ok(statement);
            }
            match self.stream.data().await {
                Some(data) => self.chunk = data?,
                None => return Err(self.stream.status().await),
            }
        }
    }
}

fn signal(statement: Statement) -> HealthSignal {
    match statement {
        Statement::Serving => HealthSignal::Serving,
        Statement::ServiceUnknown => HealthSignal::ServiceUnknown,
        Statement::NotServing => HealthSignal::NotServing,
    }
}
