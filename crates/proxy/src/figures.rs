use std::{fmt, sync::Arc};

use evenkeel_relay::relay::Counters;
use tokio::sync::oneshot;

use crate::control::WorkerHandle;

/// Tells what a proxy's workers do, also while it serves.
#[derive(Clone)]
pub struct Monitor {
    pub(crate) workers: Arc<[WorkerHandle]>,
}

/// What the workers of a proxy do now and have done so far, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Workers that have answered: all of them, while the proxy serves.
    pub workers: usize,
    /// Client connections now.
    pub clients: usize,
    /// Calls that run now.
    pub running: usize,
    /// Bytes of payload that are kept now: for sides that are slow to take them, and for further attempts.
    pub held: usize,
    /// Client connections that were closed at once, since there were too many.
    pub refused_connections: u64,
    /// Times that accepting a connection failed, for want of file descriptors say.
    pub accept_errors: u64,
    /// TLS handshakes that failed or took too long, with clients or endpoints.
    pub tls_failures: u64,
    /// Bytes that were read from sockets.
    pub bytes_in: u64,
    /// Bytes that were written to sockets.
    pub bytes_out: u64,
    /// What the engines have counted: calls, refusals, floods.
    pub counters: Counters,
}

impl Monitor {
    /// Asks every worker. One that has ended has nothing to say.
    pub async fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for worker in &*self.workers {
            let (sender, answer) = oneshot::channel();
            worker.inspect(move |relay| {
                // Who asked may have stopped waiting.
                let _ = sender.send((relay.clients(), relay.running(), relay.held(), relay.counters()));
            });
            let Ok((clients, running, held, counters)) = answer.await else { continue };
            figures.workers += 1;
            figures.clients += clients;
            figures.running += running;
            figures.held += held;
            figures.counters.join(&counters);
            let sockets = worker.counters();
            figures.refused_connections += sockets.refused.get();
            figures.accept_errors += sockets.accept_errors.get();
            figures.tls_failures += sockets.tls_failures.get();
            figures.bytes_in += sockets.bytes_in.get();
            figures.bytes_out += sockets.bytes_out.get();
        }
        figures
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("workers", &self.workers.len()).finish()
    }
}
