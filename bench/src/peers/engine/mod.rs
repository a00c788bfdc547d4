//! Our relay engine as a client: the work that the `h2` peer does, by [`Connection`](evenkeel_relay::connection::Connection)s.

mod driver;
mod line;

use std::{
    cell::RefCell,
    future::poll_fn,
    task::{Context, Poll},
};

use anyhow::ensure;
use tokio::{
    net::TcpStream,
    runtime::{Handle, RuntimeFlavor},
};

use self::line::{CallKey, Line};
use super::Peer;

/// A handle of this thread's lines. Calls are made on the thread that made it.
#[derive(Clone)]
pub(super) struct Engine;

/// The connections of a thread, which take turns.
struct Lines {
    lines: Vec<Line>,
    next: usize,
}

// A `Connection` stays on its thread. Kept here rather than in the peer, it leaves the peer's futures free to be spawned
// as all others are.
thread_local! {
    static LINES: RefCell<Lines> = const { RefCell::new(Lines { lines: Vec::new(), next: 0 }) };
}

pub(super) async fn peer(backends: &[String]) -> anyhow::Result<Engine> {
    let flavor = Handle::current().runtime_flavor();
    ensure!(flavor == RuntimeFlavor::CurrentThread, "the engine's connections stay on one thread");
    ensure!(!backends.is_empty(), "no backend");
    for backend in backends {
        let stream = TcpStream::connect(backend).await?;
        stream.set_nodelay(true)?;
        let line = with_lines(|lines| {
            lines.lines.push(Line::new(backend.clone()));
            lines.lines.len() - 1
        });
        tokio::spawn(driver::drive(line, stream));
    }
    Ok(Engine)
}

impl Peer for Engine {
    async fn call(&self) -> anyhow::Result<()> {
        let line = with_lines(Lines::turn);
        let call = OpenCall { line, key: poll_fn(|cx| with_line(line, |line| line.poll_open(cx))).await? };
        poll_fn(|cx| call.poll(cx, Line::poll_head)).await?;
        poll_fn(|cx| call.poll(cx, Line::poll_reply)).await?;
        Ok(())
    }
}

impl Lines {
    fn turn(&mut self) -> usize {
        self.next = (self.next + 1) % self.lines.len();
        self.next
    }
}

/// A call under way. Dropped before its end, it is cancelled.
struct OpenCall {
    line: usize,
    key: CallKey,
}

impl OpenCall {
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut Line, CallKey, &mut Context<'_>) -> Poll<anyhow::Result<T>>,
    ) -> Poll<anyhow::Result<T>> {
        with_line(self.line, |line| step(line, self.key, cx))
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        with_line(self.line, |line| line.close(self.key));
    }
}

fn with_lines<T>(act: impl FnOnce(&mut Lines) -> T) -> T {
    LINES.with_borrow_mut(act)
}

fn with_line<T>(line: usize, act: impl FnOnce(&mut Line) -> T) -> T {
    with_lines(|lines| act(&mut lines.lines[line]))
}
