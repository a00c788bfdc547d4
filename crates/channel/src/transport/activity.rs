use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use evenkeel_balance::{Time, Traffic};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::goaway::GoawayScan;
use crate::clock::Clock;

/// What has passed over a connection and when: the facts from which [`Progress`](evenkeel_balance::Progress) judges.
///
/// Times are nanoseconds of the channel's clock; 0 is never.
#[derive(Debug)]
pub(super) struct Activity {
    clock: Clock,
    outstanding: AtomicU32,
    unanswered_since: AtomicU64,
    received_at: AtomicU64,
    replied_at: AtomicU64,
    probing: AtomicBool,
    /// The last stream that the peer will process; all of them until it says otherwise.
    last_processed: AtomicU32,
}

impl Activity {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            outstanding: AtomicU32::new(0),
            unanswered_since: AtomicU64::new(0),
            received_at: AtomicU64::new(0),
            replied_at: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            last_processed: AtomicU32::new(u32::MAX),
        }
    }

    /// A call is being sent.
    pub(super) fn sent(&self) {
        self.outstanding.fetch_add(1, Relaxed);
        // Only the first call since the last byte counts, so a failed exchange is the common case.
        let _ = self.unanswered_since.compare_exchange(0, self.now(), Relaxed, Relaxed);
    }

    /// A call has ended, one way or another.
    pub(super) fn ended(&self) {
        if self.outstanding.fetch_sub(1, Relaxed) == 1 {
            self.unanswered_since.store(0, Relaxed);
        }
    }

    /// Headers or data of a reply have come in.
    pub(super) fn replied(&self) {
        self.replied_at.store(self.now(), Relaxed);
    }

    /// A PING is on its way.
    pub(super) fn probing(&self) {
        self.probing.store(true, Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        let unanswered = self.unanswered_since.load(Relaxed);
        Traffic {
            unanswered_since: (unanswered > 0).then(|| Time::from_nanos(unanswered)),
            received_at: Time::from_nanos(self.received_at.load(Relaxed)),
            replied_at: Time::from_nanos(self.replied_at.load(Relaxed)),
        }
    }

    /// Whether the peer has ever said anything.
    pub(super) fn has_received(&self) -> bool {
        self.received_at.load(Relaxed) > 0
    }

    /// Whether the peer has said that it did not and will not process this stream.
    pub(super) fn is_unprocessed(&self, stream: u32) -> bool {
        stream > self.last_processed.load(Relaxed)
    }

    fn received(&self) {
        let now = self.now();
        self.received_at.store(now, Relaxed);
        // After the answer to a PING, silence is the server taking its time; after anything else it may be a hang.
        let answered = self.probing.swap(false, Relaxed) || self.outstanding.load(Relaxed) == 0;
        self.unanswered_since.store(if answered { 0 } else { now }, Relaxed);
    }

    fn now(&self) -> u64 {
        self.clock.now().as_nanos().max(1)
    }
}

/// A byte stream that notes when bytes come in, and the GOAWAYs among them.
#[derive(Debug)]
pub(super) struct Noted<S> {
    stream: S,
    scan: GoawayScan,
    activity: Arc<Activity>,
}

impl<S> Noted<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, scan: GoawayScan::new(), activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            let last = self.scan.scan(&buf.filled()[before..]);
            if let Some(last) = last {
                self.activity.last_processed.store(last, Relaxed);
            }
            self.activity.received();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
