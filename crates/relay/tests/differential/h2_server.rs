//! A server of the `h2` crate that takes everything and answers nothing.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, poll_fn},
    rc::Rc,
    task::Poll,
};

use evenkeel_relay::frame::{FrameHeader, HEADER};
use h2::{RecvStream, server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::{LocalSet, yield_now},
};

use crate::{Seen, WINDOW};

/// The wire, and what the server has seen.
pub(crate) struct H2Server {
    wire: DuplexStream,
    tasks: LocalSet,
    seen: Rc<RefCell<BTreeMap<u32, Seen>>>,
    unread: Vec<u8>,
}

/// How often everything is let run after each frame. Nothing there waits for time, so what is to happen happens.
const TURNS: usize = 12;

impl H2Server {
    pub(crate) async fn start() -> Self {
        let (wire, far) = tokio::io::duplex(1 << 20);
        let seen = Rc::new(RefCell::new(BTreeMap::new()));
        let tasks = LocalSet::new();
        tasks.spawn_local(serve(far, Rc::clone(&seen)));
        let mut server = Self { wire, tasks, seen, unread: Vec::new() };
        server.run().await;
        server
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

async fn serve(wire: DuplexStream, seen: Rc<RefCell<BTreeMap<u32, Seen>>>) {
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

/// Reads a request's body to its end, and keeps it open.
async fn read(mut body: RecvStream, id: u32, seen: Rc<RefCell<BTreeMap<u32, Seen>>>) {
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
