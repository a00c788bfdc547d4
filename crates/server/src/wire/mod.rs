//! A connection's socket, read along: HTTP/2's library tells neither when a client's first frame came nor how often it
//! PINGs, and cannot send the GOAWAY that makes gRPC clients PING less.

mod frames;
mod pings;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use self::frames::{DATA, Frame, FrameWalk, HEADERS, PING, SETTINGS};
pub use self::pings::PermittedPings;
use self::pings::PingStrikes;
use crate::facts::Facts;

/// A socket that keeps `facts` true and enforces what PINGs are permitted.
///
/// After one PING too many it takes no more of what the server writes, but for the rest of a frame that has begun. It
/// sends GOAWAY, then reads and drops what comes until the client has closed the connection: a close with bytes unread
/// would be a reset, which can destroy the GOAWAY on its way. How long it waits for that is the connection's to bound.
#[derive(Debug)]
pub(crate) struct Wire<IO> {
    io: IO,
    facts: Arc<Facts>,
    inbound: FrameWalk,
    outbound: FrameWalk,
    strikes: PingStrikes,
    /// The highest stream that the client has opened.
    last_stream: u32,
    /// Whether it has opened one since its last PING.
    opened: bool,
    leaving: Option<Leaving>,
}

#[derive(Debug)]
enum Leaving {
    /// The GOAWAY, and how much of it is written.
    Goaway([u8; GOAWAY], usize),
    Shutdown,
    Lingering,
}

/// Header, last stream, error code, and [`TOO_MANY_PINGS`].
const GOAWAY: usize = 9 + 8 + TOO_MANY_PINGS.len();

/// What gRPC clients look for to make their keepalive slower (gRFC A8).
const TOO_MANY_PINGS: &[u8; 14] = b"too_many_pings";

fn goaway(last_stream: u32) -> [u8; GOAWAY] {
    const KIND: u8 = 7;
    const ENHANCE_YOUR_CALM: u8 = 11;
    let mut frame = [0; GOAWAY];
    frame[2] = 8 + 14;
    frame[3] = KIND;
    frame[9..13].copy_from_slice(&last_stream.to_be_bytes());
    frame[16] = ENHANCE_YOUR_CALM;
    frame[17..].copy_from_slice(TOO_MANY_PINGS);
    frame
}

impl<IO> Wire<IO> {
    pub(crate) fn new(io: IO, permitted: PermittedPings, facts: Arc<Facts>) -> Self {
        Self {
            io,
            facts,
            inbound: FrameWalk::inbound(),
            outbound: FrameWalk::outbound(),
            strikes: PingStrikes::new(permitted),
            last_stream: 0,
            opened: false,
            leaving: None,
        }
    }

    fn received(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.inbound.next(&mut bytes) {
            match frame.kind {
                SETTINGS => self.facts.set_handshaken(),
                HEADERS if frame.stream > self.last_stream => {
                    self.last_stream = frame.stream;
                    self.opened = true;
                }
                PING if !frame.is_ack() => self.pinged(),
                _ => {}
            }
        }
    }

    fn pinged(&mut self) {
        // A call that came with the same bytes is not counted as running yet.
        let has_calls = std::mem::take(&mut self.opened) || self.facts.running() > 0;
        if self.strikes.ping(Instant::now(), has_calls) && self.leaving.is_none() {
            self.facts.set_too_many_pings();
            self.leaving = Some(Leaving::Goaway(goaway(self.last_stream), 0));
        }
    }

    fn sent(&mut self, mut bytes: &[u8]) {
        while let Some(Frame { kind, .. }) = self.outbound.next(&mut bytes) {
            if matches!(kind, DATA | HEADERS) {
                self.strikes.pardon();
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    /// Takes the client's leave; ends with an error when that is done.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let step = match &mut self.leaving {
                // What writes the rest of the frame wakes the connection, which then comes back.
                Some(Leaving::Goaway(_, 0)) if self.outbound.until_boundary() > 0 => return Poll::Pending,
                Some(Leaving::Goaway(frame, written)) if *written < GOAWAY => {
                    ready!(Pin::new(&mut self.io).poll_write(cx, &frame[*written..])).map(|more| *written += more)
                }
                Some(Leaving::Goaway(..)) => {
                    self.leaving = Some(Leaving::Shutdown);
                    Ok(())
                }
                Some(Leaving::Shutdown) => {
                    let shut = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
                    self.leaving = Some(Leaving::Lingering);
                    shut
                }
                Some(Leaving::Lingering) | None => ready!(self.poll_drop(cx)),
            };
            if let Err(error) = step {
                return Poll::Ready(error);
            }
        }
    }

    /// Reads some bytes and drops them; an error at the end of what the client sends.
    fn poll_drop(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; 1024];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let ended = || io::Error::new(io::ErrorKind::ConnectionAborted, "the client sent too many PINGs");
        Poll::Ready(if buffer.filled().is_empty() { Err(ended()) } else { Ok(()) })
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.leaving.is_some() {
            return self.poll_leave(cx).map(Err);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.received(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let most = match self.leaving {
            None => bytes.len(),
            Some(Leaving::Goaway(_, 0)) if self.outbound.until_boundary() > 0 => self.outbound.until_boundary(),
            Some(_) => return Poll::Ready(Ok(bytes.len())),
        };
        let bytes = &bytes[..bytes.len().min(most)];
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.sent(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.leaving.is_some() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(cx, first);
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            self.sent(part);
            left -= part.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
