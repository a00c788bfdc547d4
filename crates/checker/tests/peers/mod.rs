//! Peers that do with a connection what a test wants.

#![allow(clippy::unwrap_used, reason = "a test's peer fails its test")]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use evenkeel_checker::{
    Probe, Prober,
    balance::{CheckFailure, CheckOutcome, FailureKind},
};
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Peer {
    /// Does `each` with every connection, which it gets with its number.
    pub(crate) async fn start<F>(each: impl Fn(usize, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(each(counter.fetch_add(1, SeqCst), stream));
            }
        });
        Self { address, connections }
    }

    /// Reads a little, then writes this and closes.
    pub(crate) async fn saying(words: &'static [u8]) -> Self {
        Self::start(move |_, mut stream| async move {
            let _ = stream.read(&mut [0; 256]).await;
            let _ = stream.write_all(words).await;
            // Reads on, so that its close is no reset.
            let _ = stream.shutdown().await;
            while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {}
        })
        .await
    }

    /// An HTTP/2 server whose every answer is made by `answer`.
    pub(crate) async fn http2(answer: impl Fn(Request<()>) -> Answer + Clone + Send + 'static) -> Self {
        Self::start(move |_, stream| {
            let answer = answer.clone();
            async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let request = request.map(drop);
                    match answer(request) {
                        Answer::Whole(head, body, trailers) => {
                            let mut stream = respond.send_response(head, false).unwrap();
                            stream.send_data(Bytes::from_static(body), false).unwrap();
                            stream.send_trailers(trailers.headers().clone()).unwrap();
                        }
                        Answer::Head(head) => drop(respond.send_response(head, true).unwrap()),
                        Answer::Reset(reason) => respond.send_reset(reason),
                        Answer::Never => std::mem::forget(respond),
                    }
                }
            }
        })
        .await
    }
}

/// What an HTTP/2 peer does with a request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Head, body, and the trailers as the headers of a response.
    Whole(Response<()>, &'static [u8], Response<()>),
    Head(Response<()>),
    Reset(h2::Reason),
    Never,
}

/// A gRPC answer with this body and status.
pub(crate) fn grpc(body: &'static [u8], status: u16) -> Answer {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let trailers = Response::builder().header("grpc-status", status.to_string()).body(()).unwrap();
    Answer::Whole(head, body, trailers)
}

pub(crate) const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// Half a minute is as good as for ever, and yet fails a test that waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[allow(clippy::needless_pass_by_value, reason = "tests describe a probe where they use it")]
pub(crate) fn at(probe: Probe, address: SocketAddr) -> Prober {
    probe.at(address).unwrap()
}

pub(crate) async fn ask(prober: &mut Prober) -> CheckOutcome {
    prober.probe(Instant::now() + PATIENCE).await
}

/// The failure of a probe that must fail.
pub(crate) async fn failure(prober: &mut Prober) -> (FailureKind, String) {
    match ask(prober).await {
        CheckOutcome::Failed(CheckFailure { kind, detail }) => (kind, detail),
        other => panic!("{other:?}"),
    }
}
