//! A tonic server with our health service, on a thread of its own: it can hang and can be killed, as a process can.

#![allow(clippy::unwrap_used, reason = "a test's server fails its test")]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
};

use evenkeel_health::Reporter;
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
    sync::oneshot,
};
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) health: Reporter,
    pub(crate) connections: Arc<AtomicUsize>,
    handle: Handle,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A server that hangs goes on once this is dropped.
pub(crate) struct Frozen(mpsc::Sender<()>);

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let (kill, killed) = oneshot::channel::<()>();
        let (started, start) = mpsc::channel();
        let (reporter, health) = evenkeel_health::service();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let thread = std::thread::spawn(move || {
            let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind(address).await.unwrap();
                started.send((listener.local_addr().unwrap(), Handle::current())).unwrap();
                let incoming = TcpListenerStream::new(listener).map(move |stream| {
                    counter.fetch_add(1, SeqCst);
                    stream
                });
                let serving = tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming);
                tokio::select! {
                    served = serving => served.unwrap(),
                    _ = killed => {}
                }
            });
            runtime.shutdown_background();
        });
        let (address, handle) = start.recv().unwrap();
        Self { address, health: reporter, connections, handle, kill: Some(kill), thread: Some(thread) }
    }

    /// Hangs: the kernel still accepts connections, and nobody answers.
    pub(crate) fn freeze(&self) -> Frozen {
        let (thaw, thawed) = mpsc::channel::<()>();
        let (hangs, hung) = mpsc::channel();
        self.handle.spawn(async move {
            hangs.send(()).unwrap();
            // Blocks the only thread there is.
            let _ = thawed.recv();
        });
        hung.recv().unwrap();
        Frozen(thaw)
    }

    /// Ends at once, with its sockets.
    pub(crate) fn kill(&mut self) {
        self.kill.take();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
