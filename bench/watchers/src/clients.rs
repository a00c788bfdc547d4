//! Clients that speak just enough HTTP/2 to watch: what they cost is taken from the processors that the server needs.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use evenkeel_checker::codec::{WATCH_PATH, request as watch_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::now;

pub(crate) struct Clients {
    /// Streams that are read.
    live: usize,
    /// When replies came, and how many.
    told: UnboundedReceiver<(Duration, usize)>,
    _readers: JoinSet<()>,
    _stalled: Vec<TcpStream>,
}

/// How many connections are being made at a time.
const AT_ONCE: usize = 64;

impl Clients {
    /// Opens `streams` watches on each connection, and reads `stalled` of the connections no further than that.
    pub(crate) async fn connect(
        address: SocketAddr,
        connections: usize,
        streams: usize,
        stalled: usize,
    ) -> Result<Self> {
        let (permits, mut opening) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        for _ in 0..connections {
            let permit = permits.clone().acquire_owned().await?;
            opening.spawn(async move {
                let _permit = permit;
                Watching::open(address, streams).await
            });
        }
        let (tell, told) = unbounded_channel();
        let (mut readers, mut left_alone) = (JoinSet::new(), Vec::new());
        while let Some(opened) = opening.join_next().await {
            let watching = opened??;
            if left_alone.len() < stalled {
                left_alone.push(watching.socket);
            } else {
                readers.spawn(watching.read(tell.clone()));
            }
        }
        Ok(Self { live: (connections - stalled) * streams, told, _readers: readers, _stalled: left_alone })
    }

    /// How long after `since` each client that reads was told.
    pub(crate) async fn all_told(&mut self, since: Duration) -> Result<Vec<Duration>> {
        let mut all = Vec::with_capacity(self.live);
        while all.len() < self.live {
            let some = tokio::time::timeout(Duration::from_secs(10), self.told.recv()).await;
            let (at, replies) = some.context("not every client was told within 10 s")?.context("no client is left")?;
            all.extend(std::iter::repeat_n(at.saturating_sub(since), replies));
        }
        ensure!(all.len() == self.live && self.told.try_recv().is_err(), "a client was told twice");
        Ok(all)
    }
}

/// A connection with its watches.
struct Watching {
    socket: TcpStream,
    /// What has come of a frame that is not complete.
    partial: VecDeque<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

impl Watching {
    /// Returns when each watch has had its first reply.
    async fn open(address: SocketAddr, streams: usize) -> io::Result<Self> {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        hello.extend(frame(SETTINGS, 1, 0, &[]));
        for stream in (1..).step_by(2).take(streams) {
            hello.extend(frame(HEADERS, 4, stream, &headers(address)));
            hello.extend(frame(DATA, 1, stream, &watch_request("")));
        }
        socket.write_all(&hello).await?;
        let (mut watching, mut replies) = (Self { socket, partial: VecDeque::new() }, 0);
        while replies < streams {
            replies += watching.replies().await?;
        }
        Ok(watching)
    }

    async fn read(mut self, tell: UnboundedSender<(Duration, usize)>) {
        while let Ok(replies) = self.replies().await {
            if replies > 0 && tell.send((now(), replies)).is_err() {
                return;
            }
        }
    }

    /// Reads what is there, and counts the replies in it: a health reply is one DATA frame.
    async fn replies(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let read = self.socket.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.partial.extend(&buffer[..read]);
        let mut replies = 0;
        while let [a, b, c, kind, ..] = *self.partial.make_contiguous() {
            let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.partial.len() < end {
                break;
            } else if kind == GOAWAY {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            self.partial.drain(..end);
            replies += usize::from(kind == DATA);
        }
        if self.partial.is_empty() {
            self.partial = VecDeque::new();
        }
        Ok(replies)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A call's headers in HPACK, with names of its static table where it has them.
fn headers(address: SocketAddr) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap_or(0)], text.as_bytes()].concat();
    let method_and_scheme = vec![0x83, 0x86];
    let path = [vec![4], text(WATCH_PATH)].concat();
    let authority = [vec![1], text(&address.to_string())].concat();
    let content_type = [vec![0x0F, 0x10], text("application/grpc")].concat();
    let te = [vec![0], text("te"), text("trailers")].concat();
    [method_and_scheme, path, authority, content_type, te].concat()
}
