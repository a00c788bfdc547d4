//! A connection of the `h2` crate: a server that takes everything and answers nothing, or a client that waits for answers.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, poll_fn},
    rc::Rc,
    task::Poll,
};

use evenkeel_relay::frame::{FrameHeader, HEADER, PREFACE};
use h2::{RecvStream, client, server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::{LocalSet, yield_now},
};

use crate::{Seen, WINDOW};

/// What was seen of each stream.
type Seens = Rc<RefCell<BTreeMap<u32, Seen>>>;

/// The wire, and what it has seen.
pub(crate) struct H2Peer {
    wire: DuplexStream,
    tasks: LocalSet,
    seen: Seens,
    unread: Vec<u8>,
}

/// How often everything is let run after each frame. Nothing there waits for time, so what is to happen happens.
const TURNS: usize = 12;

impl H2Peer {
    pub(crate) async fn server() -> Self {
        Self::start(serve).await
    }

    /// A client that has sent the heads of as many requests.
    pub(crate) async fn client(requests: usize) -> Self {
        Self::start(|wire, seen| call(wire, requests, seen)).await
    }

    async fn start<F: Future<Output = ()> + 'static>(run: impl FnOnce(DuplexStream, Seens) -> F) -> Self {
        let (wire, far) = tokio::io::duplex(1 << 20);
        let seen = Seens::default();
        let tasks = LocalSet::new();
        tasks.spawn_local(run(far, Rc::clone(&seen)));
        let mut peer = Self { wire, tasks, seen, unread: Vec::new() };
        peer.run().await;
        peer
    }

    async fn run(&mut self) {
        self.tasks
            .run_until(async {
                for _ in 0..TURNS {
                    yield_now().await;
                }
            })
            .await;
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        // It may have closed the connection already.
        _ = self.wire.write_all(bytes).await;
        self.run().await;
    }

    /// The frames that it has sent since.
    pub(crate) async fn hear(&mut self) -> Vec<(FrameHeader, Vec<u8>)> {
        let mut buffer = vec![0; 64 * 1024];
        while let Some(Ok(count @ 1..)) = now_or_never(self.wire.read(&mut buffer)).await {
            self.unread.extend_from_slice(&buffer[..count]);
        }
        if self.unread.starts_with(PREFACE) {
            self.unread.drain(..PREFACE.len());
        }
        let mut frames = Vec::new();
        while let Some(header) = self.unread.first_chunk::<HEADER>().map(FrameHeader::parse) {
            let end = HEADER + header.length as usize;
            let Some(payload) = self.unread.get(HEADER..end) else { break };
            frames.push((header, payload.to_vec()));
            self.unread.drain(..end);
        }
        frames
    }

    pub(crate) fn seen(&self) -> BTreeMap<u32, Seen> {
        self.seen.borrow().clone()
    }
}

/// What comes of a future right now.
async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn serve(wire: DuplexStream, seen: Seens) {
    let mut builder = server::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(16 << 20).max_concurrent_streams(1000);
    let Ok(mut connection) = builder.handshake::<_, &[u8]>(wire).await else { return };
    // A stream whose answer is dropped is reset.
    let mut answers = Vec::new();
    while let Some(Ok((request, answer))) = connection.accept().await {
        answers.push(answer);
        let (head, body) = request.into_parts();
        let id = body.stream_id().as_u32();
        let uri = head.uri.into_parts();
        let mut list = vec![(":method".to_owned(), head.method.to_string())];
        list.extend(uri.scheme.map(|scheme| (":scheme".to_owned(), scheme.to_string())));
        list.extend(uri.authority.map(|authority| (":authority".to_owned(), authority.to_string())));
        list.extend(uri.path_and_query.map(|path| (":path".to_owned(), path.to_string())));
        list.extend(head.headers.iter().map(|(name, value)| text(name.as_str(), value.as_bytes())));
        list.sort();
        seen.borrow_mut().insert(id, Seen { head: list, ..Seen::default() });
        tokio::task::spawn_local(read(body, id, Rc::clone(&seen)));
    }
    // Streams that have begun may still be written to by whoever holds them; nobody does.
    drop(answers);
}

async fn call(wire: DuplexStream, requests: usize, seen: Seens) {
    let mut builder = client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(16 << 20).enable_push(false);
    let Ok((mut requester, connection)) = builder.handshake::<_, &[u8]>(wire).await else { return };
    let mut bodies = Vec::new();
    for _ in 0..requests {
        let request = http::Request::post("http://a.b/a.B/C").body(()).expect("a request");
        let Ok((response, body)) = requester.send_request(request, false) else { return };
        bodies.push(body);
        tokio::task::spawn_local(hear(response, Rc::clone(&seen)));
    }
    // A client without requesters and requests says good-bye, and a request whose body is dropped is reset.
    _ = connection.await;
    drop((requester, bodies));
}

async fn hear(response: client::ResponseFuture, seen: Seens) {
    let id = response.stream_id().as_u32();
    let Ok(response) = response.await else { return };
    let (head, body) = response.into_parts();
    let mut list = vec![text(":status", head.status.as_str().as_bytes())];
    list.extend(head.headers.iter().map(|(name, value)| text(name.as_str(), value.as_bytes())));
    list.sort();
    seen.borrow_mut().insert(id, Seen { head: list, ..Seen::default() });
    read(body, id, seen).await;
}

/// Reads a body to its end, and keeps it open.
async fn read(mut body: RecvStream, id: u32, seen: Seens) {
    let with = |change: &dyn Fn(&mut Seen)| seen.borrow_mut().get_mut(&id).into_iter().for_each(change);
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return };
        with(&|seen| seen.data.extend_from_slice(&data));
    }
    let Ok(trailers) = body.trailers().await else { return };
    let trailers = trailers.map(|trailers| {
        let mut list: Vec<_> = trailers.iter().map(|(name, value)| text(name.as_str(), value.as_bytes())).collect();
        list.sort();
        list
    });
    with(&|seen| (seen.trailers, seen.ended) = (trailers.clone(), true));
    std::future::pending::<()>().await;
}

fn text(name: &str, value: &[u8]) -> (String, String) {
    (name.to_owned(), String::from_utf8_lossy(value).into_owned())
}
