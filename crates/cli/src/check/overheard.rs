//! A byte stream that remembers how it began, to tell what is spoken at its other end.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a peer has said first. Clones know the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Overheard(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    first: Vec<u8>,
    alert: Option<AlertDescription>,
}

/// As much as tells protocols apart, with a sentence for people.
const KEPT: usize = 512;

impl Overheard {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing has come.
    pub(super) fn is_silent(&self) -> bool {
        self.heard().first.is_empty()
    }

    pub(super) fn is_http1(&self) -> bool {
        self.heard().first.starts_with(b"HTTP/")
    }

    /// A record of type 21 (RFC 8446 section 5.1).
    pub(super) fn is_tls_alert(&self) -> bool {
        self.heard().first.starts_with(&[21, 3])
    }

    /// A SETTINGS frame on stream 0, with which a server must begin (RFC 9113 section 3.4).
    pub(super) fn begins_http2(&self) -> bool {
        const SETTINGS: u8 = 4;
        self.heard().first.get(..9).is_some_and(|head| head[3] == SETTINGS && head[5..] == [0; 4])
    }

    /// Nothing tells that it is not HTTP/2.
    pub(super) fn is_http2_so_far(&self) -> bool {
        self.heard().first.first() == Some(&0)
    }

    pub(super) fn mentions(&self, word: &str) -> bool {
        self.heard().first.windows(word.len()).any(|window| window == word.as_bytes())
    }

    /// The beginning up to the end of the line, 60 characters at most, with what does not print escaped.
    pub(super) fn first_line(&self) -> String {
        let heard = self.heard();
        let line = heard.first.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.escape_ascii().map(char::from).take(60).collect()
    }

    /// The alert with which TLS ended below.
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        self.heard().alert
    }
}

/// The stream.
pub(super) struct Overhearing<S> {
    stream: S,
    overheard: Overheard,
}

impl<S> Overhearing<S> {
    pub(super) fn new(stream: S, overheard: Overheard) -> Self {
        Self { stream, overheard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Overhearing<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let mut heard = self.overheard.heard();
        let room = KEPT.saturating_sub(heard.first.len());
        heard.first.extend(buf.filled()[before..].iter().take(room));
        let cause = result.as_ref().err().and_then(io::Error::get_ref).and_then(|cause| cause.downcast_ref());
        if let Some(rustls::Error::AlertReceived(alert)) = cause {
            heard.alert = Some(*alert);
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overhearing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overheard(bytes: &[u8]) -> Overheard {
        Overheard(Arc::new(Mutex::new(Heard { first: bytes.to_vec(), alert: None })))
    }

    #[test]
    fn protocols_are_told_apart_by_their_first_bytes() {
        let settings = overheard(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]);
        assert!(settings.begins_http2() && settings.is_http2_so_far() && !settings.is_http1());
        assert!(overheard(&[0, 0]).is_http2_so_far() && !overheard(&[0, 0]).begins_http2());
        let http1 = overheard(b"HTTP/1.1 400 Bad Request\r\n\r\nThis is an HTTPS port");
        assert!(http1.is_http1() && http1.mentions("HTTPS") && !http1.is_http2_so_far());
        assert_eq!(http1.first_line(), "HTTP/1.1 400 Bad Request");
        assert!(overheard(&[21, 3, 3, 0, 2, 2, 22]).is_tls_alert());
        assert!(overheard(b"").is_silent() && !overheard(b"").is_http2_so_far());
        assert_eq!(overheard(b"SSH-2.0-x\x01\r\n").first_line(), "SSH-2.0-x\\x01");
    }
}
