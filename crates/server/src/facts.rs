use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::Instant;

/// What is so on a connection: its socket, its calls and its task tell each other.
#[derive(Debug)]
pub(crate) struct Facts {
    handshaken: AtomicBool,
    too_many_pings: AtomicBool,
    pub(crate) running: AtomicUsize,
    /// When the last call ended; before the first one, when the connection was accepted.
    pub(crate) idle_since: Mutex<Instant>,
}

impl Facts {
    pub(crate) fn new(accepted: Instant) -> Self {
        Self {
            handshaken: AtomicBool::new(false),
            too_many_pings: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            idle_since: Mutex::new(accepted),
        }
    }

    /// The client's preface and the header of its first SETTINGS have come.
    pub(crate) fn set_handshaken(&self) {
        self.handshaken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn handshaken(&self) -> bool {
        self.handshaken.load(Ordering::Relaxed)
    }

    pub(crate) fn set_too_many_pings(&self) {
        self.too_many_pings.store(true, Ordering::Relaxed);
    }

    pub(crate) fn too_many_pings(&self) -> bool {
        self.too_many_pings.load(Ordering::Relaxed)
    }

    /// How many calls run.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// Since when no call has run; `None` while one does.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.running() == 0).then(|| *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ended(&self) {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.running.fetch_sub(1, Ordering::Release);
    }
}

/// Spawns each call of a connection as a task, and counts those that run.
#[derive(Clone, Debug)]
pub(crate) struct Calls(pub(crate) Arc<Facts>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.0.running.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(Counted { call, _running: Running(self.0.clone()) });
    }
}

pin_project! {
    struct Counted<F> {
        #[pin]
        call: F,
        _running: Running,
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().call.poll(cx)
    }
}

struct Running(Arc<Facts>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended();
    }
}
