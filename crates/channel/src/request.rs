//! A call's request on its way out: read from the caller once, sent as often as there are attempts.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

use crate::transport::{Outgoing, StreamError};

/// How much of a request is kept for another attempt. A longer one is sent once.
const REPLAY_LIMIT: usize = 256 * 1024;

/// The request's body, what has been read of it, and how far the present attempt has sent it.
pub(crate) struct Request<B> {
    body: Pin<Box<B>>,
    is_empty: bool,
    /// What has been read and another attempt, or the present one, may still need.
    read: Vec<Bytes>,
    read_bytes: usize,
    read_end: Option<End>,
    /// Whether `read` is all that was read, so that another attempt can be made.
    replayable: bool,
    /// How many pieces of `read` the present attempt has taken.
    taken: usize,
    /// What goes out now, and what comes after it if that is known.
    current: Option<Bytes>,
    following: Option<Piece>,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    End(End),
}

/// How a request ends: nearly always without trailers.
#[derive(Clone)]
struct End(Option<HeaderMap>);

/// Why a request was not sent to its end.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The stream takes no more; the response says why.
    Stream,
    /// The caller's own body failed.
    Body(String),
}

impl From<StreamError> for SendError {
    fn from(_: StreamError) -> Self {
        Self::Stream
    }
}

impl<B> Request<B>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    pub(crate) fn new(body: B) -> Self {
        let is_empty = body.is_end_stream();
        Self {
            body: Box::pin(body),
            is_empty,
            read: Vec::new(),
            read_bytes: 0,
            read_end: is_empty.then_some(End(None)),
            replayable: true,
            taken: 0,
            current: None,
            following: None,
        }
    }

    /// Whether there is no body at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Starts over for another attempt. Returns whether that is possible.
    pub(crate) fn rewind(&mut self) -> bool {
        if self.replayable {
            self.current = None;
            self.following = None;
            self.taken = 0;
        }
        self.replayable
    }

    /// There will be no other attempt: nothing more is kept.
    pub(crate) fn commit(&mut self) {
        self.replayable = false;
        self.forget_taken();
    }

    fn forget_taken(&mut self) {
        if !self.replayable && self.taken == self.read.len() {
            self.read = Vec::new();
            self.taken = 0;
        }
    }

    /// Sends until all is sent or the stream takes no more.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, outgoing: &mut Outgoing) -> Poll<Result<(), SendError>> {
        loop {
            if self.current.is_none() {
                match ready!(self.poll_piece(cx))? {
                    Piece::Data(data) => self.current = Some(data),
                    Piece::End(end) => return Poll::Ready(finish(outgoing, end)),
                }
            }
            let ends = self.last_piece(cx)?;
            if let Some(data) = &mut self.current {
                ready!(outgoing.poll_send(cx, data, ends))?;
            }
            self.current = None;
            if ends {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether the current piece is known to be the last, so that its frame can end the stream.
    fn last_piece(&mut self, cx: &mut Context<'_>) -> Result<bool, SendError> {
        if self.following.is_none()
            && let Poll::Ready(piece) = self.poll_piece(cx)
        {
            self.following = Some(piece?);
        }
        Ok(matches!(self.following, Some(Piece::End(End(None)))))
    }

    /// The next piece of this attempt: first what earlier ones have read, then from the caller.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, SendError>> {
        if let Some(piece) = self.following.take() {
            return Poll::Ready(Ok(piece));
        }
        if let Some(data) = self.read.get(self.taken).cloned() {
            self.taken += 1;
            self.forget_taken();
            return Poll::Ready(Ok(Piece::Data(data)));
        }
        if let Some(end) = &self.read_end {
            return Poll::Ready(Ok(Piece::End(end.clone())));
        }
        let piece = ready!(self.poll_body(cx))?;
        self.keep(&piece);
        Poll::Ready(Ok(piece))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, SendError>> {
        loop {
            let Some(frame) = ready!(self.body.as_mut().poll_frame(cx)) else {
                return Poll::Ready(Ok(Piece::End(End(None))));
            };
            let frame = frame.map_err(|error| SendError::Body(error.to_string()))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Ok(Piece::Data(data))),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(Ok(Piece::End(End(Some(trailers)))));
                    }
                }
            }
        }
    }

    fn keep(&mut self, piece: &Piece) {
        match piece {
            Piece::Data(data) if self.replayable => {
                self.read.push(data.clone());
                self.taken = self.read.len();
                self.read_bytes += data.len();
                if self.read_bytes > REPLAY_LIMIT {
                    self.commit();
                }
            }
            Piece::Data(_) => {}
            Piece::End(end) => self.read_end = Some(end.clone()),
        }
    }
}

fn finish(outgoing: &mut Outgoing, End(trailers): End) -> Result<(), SendError> {
    match trailers {
        Some(trailers) => outgoing.send_trailers(trailers)?,
        None => outgoing.end()?,
    }
    Ok(())
}
