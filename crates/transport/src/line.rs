//! The working end of a connection: reads and writes its socket, and watches whether the peer is alive.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use evenkeel_balance::{
    Keepalive, KeepaliveSettings, KeepaliveVerdict, Load, Loss, Progress, Suspicion, Time, Traffic, Verdict,
};
use h2::client::SendRequest;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Sleep,
};

use crate::{
    Clock, LineSettings,
    activity::Noted,
    goaway::Goaway,
    h2::{Shared, root_cause},
    window::AdaptiveWindow,
};

/// The working end of a connection, to be driven by a task.
pub struct Line<S> {
    connection: h2::client::Connection<Noted<S>, Bytes>,
    ping_pong: h2::PingPong,
    ping_under_way: bool,
    window: AdaptiveWindow,
    /// Tells whether the peer still takes streams; gone once it does not, so that the connection can end.
    send: Option<SendRequest<Bytes>>,
    shared: Arc<Shared>,
    clock: Clock,
    progress: Progress,
    keepalive: Keepalive,
    suspicion: Suspicion,
    timer: Option<Pin<Box<Sleep>>>,
    has_spoken: bool,
}

/// What happens to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The peer has sent its first frame: it is alive and its settings are known.
    Spoke,
    /// The peer takes no more calls (GOAWAY, as a rule), in its words; running ones go on.
    Leaving(String, Loss),
    /// Calls are outstanding and the peer is silent.
    Stalled(String),
    /// A silent peer has spoken.
    Recovered,
    /// It is over, and why.
    Closed(String, Loss),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Works the connection until there is news. After [`News::Closed`] there is none.
    pub async fn next(&mut self) -> News {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            news = poll_fn(|cx| self.poll_news(cx)) => news,
            () = shared.hang_up.notified() => {
                self.send = None;
                poll_fn(|cx| self.poll_news(cx)).await
            }
        }
    }

    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        if let Poll::Ready(result) = Pin::new(&mut self.connection).poll(cx) {
            self.shared.close();
            let loss = self.loss(result.as_ref().err());
            let why =
                result.err().map_or_else(|| "the peer closed the connection".to_owned(), |error| root_cause(&error));
            return Poll::Ready(News::Closed(why, loss));
        }
        self.note_limit();
        if !self.has_spoken && self.shared.activity.has_received() {
            self.has_spoken = true;
            return Poll::Ready(News::Spoke);
        }
        if self.is_leaving(cx) {
            self.send = None;
            self.shared.close();
            let goaway = self.goaway().map_or_else(|| "GOAWAY".to_owned(), Goaway::to_string);
            return Poll::Ready(News::Leaving(format!("the server is going away ({goaway})"), self.loss(None)));
        }
        if self.ping_under_way && self.ping_pong.poll_pong(cx).is_ready() {
            self.ping_under_way = false;
            self.fit_window();
        }
        self.measure_path();
        self.poll_watch(cx)
    }

    /// How the connection was lost that ended so: its first reason counts (gRFC A94).
    fn loss(&self, error: Option<&h2::Error>) -> Loss {
        if let Some(goaway) = self.goaway() {
            return Loss::GoAway(goaway.code);
        }
        match error.and_then(h2::Error::get_io).map(io::Error::kind) {
            None => Loss::Unknown,
            Some(io::ErrorKind::ConnectionReset) => Loss::Reset,
            Some(io::ErrorKind::TimedOut) => Loss::TimedOut,
            Some(io::ErrorKind::ConnectionAborted) => Loss::Aborted,
            Some(_) => Loss::Socket,
        }
    }

    /// Calls that wait for a stream to end would otherwise not hear that the peer now allows more of them.
    fn note_limit(&mut self) {
        let Some(send) = &self.send else { return };
        let limit = send.current_max_send_streams();
        if limit > self.shared.limit.swap(limit, Ordering::AcqRel) {
            self.shared.call_all();
        }
    }

    /// A GOAWAY shows as the refusal of new streams.
    fn is_leaving(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(send) = &mut self.send else { return false };
        matches!(send.poll_ready(cx), Poll::Ready(Err(_)))
    }

    /// Watches the peer by both its watchers, with one timer and at most one PING under way.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        loop {
            let (now, traffic) = (self.clock.now(), self.shared.activity.traffic());
            let quiet = self.judge_quiet(now, traffic.received_at);
            if let Some(news) = quiet.or_else(|| self.judge_progress(now, &traffic)) {
                return Poll::Ready(news);
            }
            let quiet = self.keepalive.next_timeout(traffic.received_at, self.is_in_use()).filter(|_| self.has_spoken);
            let Some(at) = self.progress.next_timeout(&traffic).into_iter().chain(quiet).min() else {
                return Poll::Pending;
            };
            let at = self.clock.instant(at);
            let armed = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            // One that fires early costs a look; one that was armed for a stall that is over would fire too late.
            if armed.deadline() > at {
                armed.as_mut().reset(at);
            }
            ready!(armed.as_mut().poll(cx));
            self.timer = None;
        }
    }

    fn judge_progress(&mut self, now: Time, traffic: &Traffic) -> Option<News> {
        let verdict = self.progress.judge(now, traffic);
        // Without `send` it gets no calls in any case.
        self.suspicion.set(self.send.is_some() && self.progress.is_suspect());
        match verdict {
            Verdict::Well => None,
            Verdict::Probe => {
                self.probe();
                None
            }
            Verdict::Stalled => {
                let since = traffic.unanswered_since.unwrap_or(traffic.received_at);
                let silence = now.since(since).as_millis();
                Some(News::Stalled(format!("calls outstanding and no byte for {silence} ms")))
            }
            Verdict::Recovered => Some(News::Recovered),
            Verdict::Dead => Some(self.give_up("no byte came while calls were outstanding".to_owned())),
        }
    }

    /// Before the peer's first frame there is nothing to keep alive: the attempt has a time limit of its own.
    fn judge_quiet(&mut self, now: Time, received_at: Time) -> Option<News> {
        if !self.has_spoken {
            return None;
        }
        match self.keepalive.judge(now, received_at, self.is_in_use()) {
            KeepaliveVerdict::Well => None,
            KeepaliveVerdict::Ping => {
                self.probe();
                None
            }
            KeepaliveVerdict::Dead => {
                let waited = self.keepalive.settings().timeout;
                Some(self.give_up(format!("keepalive: no answer to a PING for {waited:?}")))
            }
        }
    }

    /// Whether a stream is open, be it a health Watch.
    fn is_in_use(&self) -> bool {
        self.shared.open.load(Ordering::Acquire) > 0
    }

    fn give_up(&mut self, why: String) -> News {
        self.shared.close();
        self.send = None;
        let why = self.shared.given_up.get_or_init(|| why);
        News::Closed(why.clone(), Loss::TimedOut)
    }

    /// Asks how long the path is, where windows are to fit it.
    fn measure_path(&mut self) {
        let received = self.shared.activity.streamed();
        if !self.ping_under_way && self.window.wants_ping(received) {
            self.ping_under_way = self.ping_pong.send_ping(h2::Ping::opaque()).is_ok();
            if self.ping_under_way {
                self.window.asked(received);
            }
        }
    }

    fn fit_window(&mut self) {
        if let Some(size) = self.window.answered(self.shared.activity.streamed()) {
            // Refused only while the peer has yet to acknowledge the size before, which then serves.
            let _ = self.connection.set_initial_window_size(size);
        }
    }

    fn probe(&mut self) {
        // One at a time: an unanswered PING is as good a question as a second one.
        if !self.ping_under_way {
            self.ping_under_way = self.ping_pong.send_ping(h2::Ping::opaque()).is_ok();
        }
        self.shared.activity.probing();
    }
}

impl<S> fmt::Debug for Line<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl<S> Line<S> {
    pub(crate) fn new(
        (connection, send): (h2::client::Connection<Noted<S>, Bytes>, SendRequest<Bytes>),
        ping_pong: h2::PingPong,
        shared: Arc<Shared>,
        clock: Clock,
        settings: LineSettings,
        load: Arc<Load>,
    ) -> Self {
        let LineSettings { progress, keepalive, windows } = settings;
        Self {
            connection,
            ping_pong,
            ping_under_way: false,
            window: AdaptiveWindow::new(windows.stream, windows.most),
            send: Some(send),
            shared,
            clock,
            progress: Progress::new(progress),
            keepalive: Keepalive::new(keepalive),
            suspicion: Suspicion::new(load),
            timer: None,
            has_spoken: false,
        }
    }

    /// The peer's first good-bye, if it has said one.
    fn goaway(&self) -> Option<&Goaway> {
        self.shared.activity.goaway()
    }

    /// What the connection went by, if its peer leaves because of too many PINGs.
    pub fn overdone_keepalive(&self) -> Option<KeepaliveSettings> {
        self.goaway().filter(|goaway| goaway.is_too_many_pings()).map(|_| *self.keepalive.settings())
    }
}
