use std::future::pending;

use bytes::Bytes;
use evenkeel_balance::{Address, Backoff, CheckOutcome, Entropy, Statement, Time};
use evenkeel_transport::Clock;
use http::{Request, Uri, uri::PathAndQuery};
use tokio::time::{Instant, timeout_at};

use crate::{
    codec::WATCH_PATH,
    failure::{Step, timed_out},
    grpc::End,
    http1::Http1,
    http2::Http2,
    metrics,
    probe::{HttpVersion, Question},
    route::Route,
};

/// Asks one server, again and again.
///
/// A connection is kept from one probe to the next. After a failure the next probe connects anew: a connection that a
/// firewall has forgotten looks like a server that hangs. Answers are read up to 64 KiB, heads up to 16 KiB.
#[derive(Debug)]
pub struct Prober {
    question: Question,
    head: Request<()>,
    route: Route,
    http1: Option<Http1>,
    http2: Option<Box<Http2>>,
    retry: WatchRetry,
    /// Whether a probe is on its way; one that was dropped is for ever.
    is_asking: bool,
}

/// What happens between probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The server's Watch says so.
    Said(Statement),
    /// The Watch ended, or the connection without a good-bye: a probe will tell what it means.
    Lost,
}

impl Prober {
    pub(crate) fn new(question: Question, head: Request<()>, route: Route) -> Self {
        metrics::describe();
        let retry = WatchRetry { failures: 0, at: Time::ZERO, entropy: Entropy::new(rand::random()) };
        Self { question, head, route, http1: None, http2: None, retry, is_asking: false }
    }

    /// The server's address.
    pub fn address(&self) -> &Address {
        &self.route.address
    }

    /// The kind of probe: `grpc`, `grpc_watch`, `http`, `http2` or `tcp`.
    pub fn kind(&self) -> &'static str {
        self.question.kind()
    }

    /// Asks once. It has ended by the deadline, connecting included. Dropped before, it is as if it had failed.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO and time.
    pub async fn probe(&mut self, deadline: Instant) -> CheckOutcome {
        let (mut step, started) = (Step::Connecting, Instant::now());
        if std::mem::replace(&mut self.is_asking, true) {
            self.disconnect();
        }
        let outcome = match timeout_at(deadline, self.ask(&mut step)).await {
            Ok(Ok(outcome) | Err(outcome)) => outcome,
            Err(_) => timed_out(step, self.http2.as_ref().is_some_and(|http2| http2.has_spoken())),
        };
        self.is_asking = false;
        if matches!(outcome, CheckOutcome::Failed(_) | CheckOutcome::Drained) {
            self.disconnect();
        }
        metrics::probed(self.kind(), &outcome, started.elapsed());
        outcome
    }

    /// Waits for what happens between probes; for ever where nothing can. It may be dropped at any time.
    ///
    /// A server that closes a connection in good order makes no news: the next probe has another one. But the end of a
    /// Watch is always news.
    pub async fn news(&mut self) -> News {
        if let Some(http1) = &mut self.http1 {
            http1.lost().await;
            self.http1 = None;
        }
        let Some(http2) = &mut self.http2 else { return pending().await };
        let is_watched = http2.is_watched();
        match http2.heard().await {
            Ok(statement) => News::Said(statement),
            Err(End::Broken(_)) => {
                let is_drained = http2.is_drained();
                self.http2 = None;
                if is_drained && !is_watched { pending().await } else { News::Lost }
            }
            Err(_) => {
                self.retry.failed(self.route.clock);
                News::Lost
            }
        }
    }

    fn disconnect(&mut self) {
        (self.http1, self.http2) = (None, None);
    }

    /// The outcome, be there a connection for it or not.
    async fn ask(&mut self, step: &mut Step) -> Result<CheckOutcome, CheckOutcome> {
        let Self { question, head, route, http1, http2, retry, .. } = self;
        let head = head.clone();
        Ok(match question {
            Question::Connect => route.open(step).await.map(|_| CheckOutcome::Serving)?,
            Question::Get { version: HttpVersion::Http1, passes, .. } => {
                route.http1(http1, step).await?.get(head, passes).await
            }
            Question::Get { version: HttpVersion::Http2, passes, .. } => {
                route.http2(http2, step).await?.get(head, passes).await
            }
            Question::Check(request) => route.http2(http2, step).await?.check(head, request.clone()).await,
            Question::Watch(request) => {
                let http2 = route.http2(http2, step).await?;
                watched(http2, head, request, route.clock, retry).await
            }
        })
    }
}

/// Opens the Watch if there is none and it is time; otherwise asks beside it.
async fn watched(
    http2: &mut Http2,
    head: Request<()>,
    request: &Bytes,
    clock: Clock,
    retry: &mut WatchRetry,
) -> CheckOutcome {
    if http2.may_watch() && retry.is_due(clock) {
        match http2.open_watch(watch_head(&head), request.clone()).await {
            Ok(statement) => {
                retry.failures = 0;
                return statement.into();
            }
            Err(End::Broken(error)) => return http2.broken(&error),
            Err(_) => retry.failed(clock),
        }
    }
    if let Ok(outcome) = http2.check_beside_watch(head.clone(), request.clone()).await {
        return outcome;
    }
    retry.failed(clock);
    http2.check(head, request.clone()).await
}

/// The same request to the other method.
fn watch_head(check: &Request<()>) -> Request<()> {
    let mut head = check.clone();
    let mut uri = check.uri().clone().into_parts();
    uri.path_and_query = Some(PathAndQuery::from_static(WATCH_PATH));
    *head.uri_mut() = Uri::from_parts(uri).expect("only the path differs from what was a URI");
    head
}

/// When a Watch that ended is tried again.
#[derive(Debug)]
struct WatchRetry {
    failures: u32,
    at: Time,
    entropy: Entropy,
}

impl WatchRetry {
    fn is_due(&self, clock: Clock) -> bool {
        self.at <= clock.now()
    }

    fn failed(&mut self, clock: Clock) {
        self.failures = self.failures.saturating_add(1);
        self.at = clock.now() + Backoff::default().delay(self.failures, &mut self.entropy);
    }
}
