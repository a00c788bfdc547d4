//! Peers for tests that decide on every frame: by the HTTP/2 library, or byte by byte.

#![allow(clippy::unwrap_used, reason = "a test's peer fails its test")]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{future::poll_fn, net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// A peer whose calls a test answers itself.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    calls: mpsc::UnboundedReceiver<Stream>,
}

/// A call as the peer has it.
pub(crate) struct Stream {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
    /// Which of the peer's connections it came on, counted from 0.
    pub(crate) connection: usize,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (send, calls) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for connection in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                let send = send.clone();
                tokio::spawn(async move {
                    let mut http = h2::server::handshake(socket).await.unwrap();
                    while let Some(Ok((request, respond))) = http.accept().await {
                        let _ = send.send(Stream { request, respond, connection });
                    }
                });
            }
        });
        Self { address, calls }
    }

    pub(crate) async fn next(&mut self) -> Option<Stream> {
        self.calls.recv().await
    }

    pub(crate) async fn call(&mut self) -> Stream {
        within(self.next()).await.expect("a call")
    }
}

pub(crate) async fn until_reset(sending: &mut SendStream<Bytes>) -> h2::Reason {
    within(poll_fn(|cx| sending.poll_reset(cx))).await.unwrap()
}

pub(crate) fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

pub(crate) fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers
}

/// One connection, frame by frame.
pub(crate) struct Raw {
    socket: TcpStream,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Whether it asks for a sign of life.
    pub(crate) fn is_ping(&self) -> bool {
        self.kind == PING && self.flags != ACK
    }
}

impl Raw {
    /// Listens; each connection comes out once its preface has come in.
    pub(crate) async fn listen() -> (SocketAddr, mpsc::UnboundedReceiver<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (send, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut preface = [0; 24];
                if socket.read_exact(&mut preface).await.is_ok() && send.send(Self { socket }).is_err() {
                    return;
                }
            }
        });
        (address, connections)
    }

    pub(crate) async fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        self.write(SETTINGS, 0, 0, &payload).await;
    }

    pub(crate) async fn settings_acknowledged(&mut self) {
        self.until(|frame| frame.kind == SETTINGS && frame.flags == ACK).await;
    }

    /// Sends a PING and waits for its answer.
    pub(crate) async fn ping(&mut self) {
        self.write(PING, 0, 0, b"are you?").await;
        self.until(|frame| frame.kind == PING && frame.flags == ACK).await;
    }

    pub(crate) async fn go_away(&mut self, last: u32) {
        self.go_away_with(last, 0).await;
    }

    pub(crate) async fn go_away_with(&mut self, last: u32, code: u32) {
        self.go_away_saying(last, code, "").await;
    }

    pub(crate) async fn go_away_saying(&mut self, last: u32, code: u32, debug: &str) {
        let payload = [&last.to_be_bytes()[..], &code.to_be_bytes(), debug.as_bytes()].concat();
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    /// The frames until the connection ends or `wanted` says so of one, however long it takes.
    pub(crate) async fn frames(&mut self, wanted: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.read().await {
            let is_last = wanted(&frame);
            frames.push(frame);
            if is_last {
                break;
            }
        }
        frames
    }

    /// The stream of the next call.
    pub(crate) async fn until_headers(&mut self) -> u32 {
        self.until(|frame| frame.kind == HEADERS).await.stream
    }

    /// The stream of the next call, and how many PINGs have come since then.
    pub(crate) async fn headers_and_pings(&mut self) -> (u32, usize) {
        let stream = self.until_headers().await;
        let mut pings = 0;
        self.write(PING, 0, 0, b"finished").await;
        self.until(|frame| {
            pings += usize::from(frame.kind == PING && frame.flags != ACK);
            frame.kind == PING && frame.flags == ACK
        })
        .await;
        (stream, pings)
    }

    /// Answers with a head that is the whole response.
    pub(crate) async fn trailers_only(&mut self, stream: u32, code: &str) {
        let block =
            [&[0x88, 0, 11][..], b"grpc-status", &[u8::try_from(code.len()).unwrap()], code.as_bytes()].concat();
        self.write(HEADERS, 0x5, stream, &block).await;
    }

    /// The same, with the stream's reset right behind it.
    pub(crate) async fn trailers_only_and_reset(&mut self, stream: u32, code: &str, reason: u32) {
        let block =
            [&[0x88, 0, 11][..], b"grpc-status", &[u8::try_from(code.len()).unwrap()], code.as_bytes()].concat();
        let head = frame(HEADERS, 0x5, stream, &block);
        self.socket.write_all(&[head, frame(RST_STREAM, 0, stream, &reason.to_be_bytes())].concat()).await.unwrap();
    }

    pub(crate) async fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    pub(crate) async fn until(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        loop {
            let frame = within(self.read()).await.expect("the connection is open");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// The next frame; `None` once the connection has ended.
    pub(crate) async fn read(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        self.socket.read_exact(&mut header).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.socket.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.socket.write_all(&frame(kind, flags, stream, payload)).await.unwrap();
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}
