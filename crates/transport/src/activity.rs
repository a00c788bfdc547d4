use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use evenkeel_balance::{Time, Traffic};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Clock,
    goaway::{Goaway, GoawayScan},
    opened::OpenedScan,
};

/// What has passed over a connection and when: the facts from which [`Progress`](evenkeel_balance::Progress) judges.
///
/// Times are nanoseconds of the channel's clock; 0 is never.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Clock,
    outstanding: AtomicU32,
    unanswered_since: AtomicU64,
    received_at: AtomicU64,
    replied_at: AtomicU64,
    streamed: AtomicU64,
    probing: AtomicBool,
    /// The last stream that the peer will process; all of them until it says otherwise.
    last_processed: AtomicU32,
    /// The peer's first good-bye.
    goaway: OnceLock<Goaway>,
    /// The last stream whose HEADERS have begun to leave.
    last_opened: AtomicU32,
}

impl Activity {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            outstanding: AtomicU32::new(0),
            unanswered_since: AtomicU64::new(0),
            received_at: AtomicU64::new(0),
            replied_at: AtomicU64::new(0),
            streamed: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            last_processed: AtomicU32::new(u32::MAX),
            goaway: OnceLock::new(),
            last_opened: AtomicU32::new(0),
        }
    }

    /// A call is being sent.
    pub(crate) fn sent(&self) {
        if self.outstanding.fetch_add(1, Relaxed) == 0 {
            self.unanswered_since.store(self.now(), Relaxed);
        } else if self.unanswered_since.load(Relaxed) == 0 {
            // Only the first call since the last byte counts; where it fails, another was the first.
            let _ = self.unanswered_since.compare_exchange(0, self.now(), Relaxed, Relaxed);
        }
    }

    /// A call has ended, one way or another.
    pub(crate) fn ended(&self) {
        self.outstanding.fetch_sub(1, Relaxed);
    }

    /// What came in last was headers or data of a reply.
    pub(crate) fn replied(&self) {
        self.replied_at.store(self.received_at.load(Relaxed), Relaxed);
    }

    /// So many bytes of a longer response have been read.
    pub(crate) fn streams(&self, bytes: usize) {
        self.streamed.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes of longer responses that have been read, all together.
    pub(crate) fn streamed(&self) -> u64 {
        self.streamed.load(Relaxed)
    }

    /// A PING is on its way.
    pub(crate) fn probing(&self) {
        self.probing.store(true, Relaxed);
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let unanswered = self.unanswered_since.load(Relaxed);
        let is_awaited = unanswered > 0 && self.outstanding.load(Relaxed) > 0;
        Traffic {
            unanswered_since: is_awaited.then(|| Time::from_nanos(unanswered)),
            received_at: Time::from_nanos(self.received_at.load(Relaxed)),
            replied_at: Time::from_nanos(self.replied_at.load(Relaxed)),
        }
    }

    /// Whether the peer has ever said anything.
    pub(crate) fn has_received(&self) -> bool {
        self.received_at.load(Relaxed) > 0
    }

    /// Whether the peer has said that it did not and will not process this stream.
    pub(crate) fn is_unprocessed(&self, stream: u32) -> bool {
        stream > self.last_processed.load(Relaxed)
    }

    /// The good-bye with which the peer first said that it is leaving, if it has.
    pub(crate) fn goaway(&self) -> Option<&Goaway> {
        self.goaway.get()
    }

    fn leaving(&self, goaway: Goaway) {
        self.last_processed.store(goaway.last, Relaxed);
        // Only the first one says why (gRFC A94); for a later one this fails.
        let _ = self.goaway.set(goaway);
    }

    /// Whether anything of this stream has been written.
    pub(crate) fn has_left(&self, stream: u32) -> bool {
        stream <= self.last_opened.load(Relaxed)
    }

    fn received(&self) {
        let (now, before) = (self.now(), self.unanswered_since.load(Relaxed));
        self.received_at.store(now, Relaxed);
        // After the answer to a PING, silence is the server taking its time; after anything else it may be a hang.
        let answered = self.probing.swap(false, Relaxed);
        // Fails where a call has just been sent, which is the more to be watched.
        let _ = self.unanswered_since.compare_exchange(before, if answered { 0 } else { now }, Relaxed, Relaxed);
    }

    fn now(&self) -> u64 {
        self.clock.now().as_nanos().max(1)
    }
}

/// A byte stream that notes when bytes come in, the GOAWAYs among them, and the streams that go out.
///
/// A write that fails does not fail the connection. A peer that has closed its end may have answered before: its last
/// responses and its GOAWAY are still to be read, and reading comes to the same end a moment later.
#[derive(Debug)]
pub(crate) struct Noted<S> {
    stream: S,
    scan: GoawayScan,
    opened: OpenedScan,
    /// Nobody takes what is written any more.
    deaf: bool,
    activity: Arc<Activity>,
}

impl<S> Noted<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, scan: GoawayScan::new(), opened: OpenedScan::new(), deaf: false, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            let goaway = self.scan.scan(&buf.filled()[before..]);
            if let Some(goaway) = goaway {
                self.activity.leaving(goaway);
            }
            self.activity.received();
        }
        #[cfg(feature = "tls")]
        let result = result.map_err(crate::tls::explain_read);
        result
    }
}

impl<S> Noted<S> {
    /// Notes the streams opened by the first `written` bytes of `bufs`.
    fn wrote(&mut self, bufs: &[io::IoSlice<'_>], written: usize) {
        let mut left = written;
        for buf in bufs {
            let part = &buf[..buf.len().min(left)];
            left -= part.len();
            if let Some(stream) = self.opened.scan(part) {
                self.activity.last_opened.store(stream, Relaxed);
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let whole = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(whole));
        }
        let Ok(written) = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)) else {
            self.deaf = true;
            return Poll::Ready(Ok(whole));
        };
        self.wrote(bufs, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.deaf && ready!(Pin::new(&mut self.stream).poll_flush(cx)).is_err() {
            self.deaf = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
