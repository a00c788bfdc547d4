//! A call's request on its way out: read from the caller once, sent as often as there are attempts.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use smallvec::SmallVec;

use evenkeel_transport::{Outgoing, StreamError};

use crate::framing::{Meter, TooLong};

/// What is read of a call's body, kept for as long as another attempt may need it.
pub(crate) struct Source<B> {
    body: B,
    is_empty: bool,
    /// Nearly always one piece.
    read: SmallVec<[Bytes; 1]>,
    end: Option<End>,
    /// How much of the channel's memory for replays this call has.
    kept: Kept,
    replay: Replay,
}

/// Whether attempts other than the present one can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// All that was read is still there.
    Possible,
    /// The attempt that has sent the most is the last one: what it has sent is forgotten.
    Over,
}

/// How far one attempt has sent the request.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// How many pieces of `Source::read` it has taken.
    taken: usize,
    /// What goes out now, and what comes after it if that is known.
    current: Option<Bytes>,
    following: Option<Piece>,
    meter: Meter,
}

#[derive(Clone, Debug)]
enum Piece {
    Data(Bytes),
    End(End),
}

/// How a request ends: nearly always without trailers.
#[derive(Clone, Debug)]
struct End(Option<Box<HeaderMap>>);

/// Why a request was not sent to its end.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The stream takes no more; the response says why.
    Stream,
    /// The caller's own body failed.
    Body(String),
    /// A message is longer than its method allows.
    TooLong(TooLong),
}

impl From<StreamError> for SendError {
    fn from(_: StreamError) -> Self {
        Self::Stream
    }
}

impl<B> Source<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    pub(crate) fn new(body: B, memory: &Arc<ReplayMemory>) -> Self {
        let is_empty = body.is_end_stream();
        Self {
            body,
            is_empty,
            read: SmallVec::new(),
            end: is_empty.then_some(End(None)),
            kept: Kept { memory: Arc::clone(memory), bytes: 0, reserved: 0 },
            replay: Replay::Possible,
        }
    }

    /// Whether there is no body at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Whether another attempt can be made.
    pub(crate) fn can_replay(&self) -> bool {
        self.replay == Replay::Possible
    }

    /// There will be no attempt but that of `cursor`: what it has sent is forgotten.
    pub(crate) fn commit(&mut self, cursor: &mut Cursor) {
        self.replay = Replay::Over;
        self.read.drain(..cursor.taken.min(self.read.len()));
        cursor.taken = 0;
        self.kept.release();
    }

    /// Sends until all is sent or the stream takes no more.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        cursor: &mut Cursor,
        outgoing: &mut Outgoing,
    ) -> Poll<Result<(), SendError>> {
        loop {
            if cursor.current.is_none() {
                match ready!(self.poll_piece(cx, cursor))? {
                    Piece::Data(data) => cursor.current = Some(data),
                    Piece::End(end) => return Poll::Ready(finish(outgoing, end)),
                }
            }
            let ends = self.last_piece(cx, cursor)?;
            if let Some(data) = &mut cursor.current {
                ready!(outgoing.poll_send(cx, data, ends))?;
            }
            cursor.current = None;
            if ends {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether the current piece is known to be the last, so that its frame can end the stream.
    fn last_piece(&mut self, cx: &mut Context<'_>, cursor: &mut Cursor) -> Result<bool, SendError> {
        if cursor.following.is_none()
            && let Poll::Ready(piece) = self.poll_piece(cx, cursor)
        {
            cursor.following = Some(piece?);
        }
        Ok(matches!(cursor.following, Some(Piece::End(End(None)))))
    }

    /// The next piece of this attempt: first what others have read, then from the caller.
    fn poll_piece(&mut self, cx: &mut Context<'_>, cursor: &mut Cursor) -> Poll<Result<Piece, SendError>> {
        if let Some(piece) = cursor.following.take() {
            return Poll::Ready(Ok(piece));
        }
        let piece = match (self.read.get(cursor.taken), &self.end) {
            (Some(data), _) => {
                let piece = Piece::Data(data.clone());
                cursor.taken += 1;
                piece
            }
            (None, Some(end)) => Piece::End(end.clone()),
            (None, None) => {
                let piece = ready!(self.poll_body(cx))?;
                self.keep(&piece, cursor);
                piece
            }
        };
        if let Piece::Data(data) = &piece {
            cursor.meter.pass(data).map_err(SendError::TooLong)?;
        }
        if self.replay == Replay::Over && cursor.taken == self.read.len() {
            self.read = SmallVec::new();
            cursor.taken = 0;
        }
        Poll::Ready(Ok(piece))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, SendError>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(Ok(Piece::End(End(None))));
            };
            let frame = frame.map_err(|error| SendError::Body(error.to_string()))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Ok(Piece::Data(data))),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(Ok(Piece::End(End(Some(Box::new(trailers))))));
                    }
                }
            }
        }
    }

    fn keep(&mut self, piece: &Piece, cursor: &mut Cursor) {
        match piece {
            Piece::Data(data) if self.replay == Replay::Possible => {
                self.read.push(data.clone());
                cursor.taken = self.read.len();
                if !self.kept.more(data.len()) {
                    self.commit(cursor);
                }
            }
            Piece::Data(_) => {}
            Piece::End(end) => self.end = Some(end.clone()),
        }
    }
}

impl Cursor {
    /// At the beginning. Messages longer than `limit` bytes are not sent.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { taken: 0, current: None, following: None, meter: Meter::new(limit) }
    }

    /// Bytes of messages taken so far.
    pub(crate) fn sent(&self) -> u64 {
        self.meter.bytes()
    }
}

fn finish(outgoing: &mut Outgoing, End(trailers): End) -> Result<(), SendError> {
    match trailers {
        Some(trailers) => outgoing.send_trailers(*trailers)?,
        None => outgoing.end()?,
    }
    Ok(())
}

/// How much of requests is kept for further attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayLimits {
    /// For one call, in bytes; a longer request is sent once. Default 256 KiB.
    pub per_call: usize,
    /// For all calls of the channel, in bytes; the first 4 KiB of each call do not count. Default 16 MiB.
    pub per_channel: usize,
}

impl ReplayLimits {
    /// Limits for a call and for the channel, in bytes.
    pub const fn new(per_call: usize, per_channel: usize) -> Self {
        Self { per_call, per_channel }
    }
}

impl Default for ReplayLimits {
    fn default() -> Self {
        Self::new(256 * 1024, 16 * 1024 * 1024)
    }
}

/// Short requests are not accounted for: their number is bounded by that of the calls, and counting them would have
/// every call of a channel write one cache line.
const UNCOUNTED: usize = 4 * 1024;

/// What a channel's calls keep for further attempts, all together.
#[derive(Debug)]
pub(crate) struct ReplayMemory {
    limits: ReplayLimits,
    reserved: AtomicUsize,
}

impl ReplayMemory {
    pub(crate) fn new(limits: ReplayLimits) -> Self {
        Self { limits, reserved: AtomicUsize::new(0) }
    }

    fn reserve(&self, bytes: usize) -> bool {
        let within = |reserved: usize| reserved.checked_add(bytes).filter(|sum| *sum <= self.limits.per_channel);
        self.reserved.fetch_update(Relaxed, Relaxed, within).is_ok()
    }
}

/// What one call keeps.
#[derive(Debug)]
struct Kept {
    memory: Arc<ReplayMemory>,
    bytes: usize,
    reserved: usize,
}

impl Kept {
    /// Whether so many more bytes may be kept.
    fn more(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        if self.bytes > self.memory.limits.per_call {
            return false;
        }
        let counted = self.bytes.saturating_sub(UNCOUNTED);
        let missing = counted - self.reserved;
        if missing > 0 && !self.memory.reserve(missing) {
            return false;
        }
        self.reserved = counted;
        true
    }

    fn release(&mut self) {
        if self.reserved > 0 {
            self.memory.reserved.fetch_sub(self.reserved, Relaxed);
            self.reserved = 0;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_share_the_channels_memory_and_give_it_back() {
        let memory = Arc::new(ReplayMemory::new(ReplayLimits::new(100 * 1024, 150 * 1024)));
        let kept = || Kept { memory: Arc::clone(&memory), bytes: 0, reserved: 0 };
        let (mut short, mut one, mut other) = (kept(), kept(), kept());
        assert!(short.more(UNCOUNTED) && memory.reserved.load(Relaxed) == 0);
        assert!(one.more(100 * 1024));
        assert!(!one.more(1), "above its own limit");
        assert!(!other.more(60 * 1024), "above the channel's limit");
        drop(one);
        assert!(kept().more(60 * 1024));
        assert_eq!(memory.reserved.load(Relaxed), 0);
    }
}
