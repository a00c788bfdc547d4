use std::{fmt, io, net::SocketAddr, thread::JoinHandle, time::Duration};

use evenkeel_channel::{Channel, balance::Address};
use evenkeel_relay::{
    driver::{Listener, Worker},
    engine::DialId,
    relay::Relay,
};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::{JoinError, JoinSet},
};

use crate::{
    Monitor, Settings,
    control::{self, Dial, WorkerHandle},
    metrics,
    placement::Placing,
};

/// A proxy that listens.
pub struct Proxy {
    workers: Vec<Prepared>,
    address: SocketAddr,
    channel: Channel,
    settings: Settings,
}

/// A worker that has not started.
struct Prepared {
    worker: Worker<Relay<Placing>>,
    handle: WorkerHandle,
    dials: UnboundedReceiver<Dial>,
}

impl Proxy {
    /// Listens on `address`, port 0 for any free one, and will place the calls that come in on `channel`.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on: in use, not this machine's, or not permitted. Where there are no file
    /// descriptors left for the workers.
    pub fn bind(address: SocketAddr, channel: Channel, settings: Settings) -> io::Result<Self> {
        // Workers share the address among themselves, and so might another proxy by mistake: it is to be told.
        drop(std::net::TcpListener::bind(address)?);
        let listeners = Listener::bind(address, settings.workers, settings.tls.as_ref().map(|tls| tls.config()))?;
        let address = listeners.first().map_or(address, Listener::local_addr);
        let driver = settings.driver(channel.placer().epoch());
        let workers = listeners.into_iter().map(|listener| Prepared::new(listener, driver.clone()));
        let workers = workers.collect::<io::Result<_>>()?;
        // The first call should not have to wait for the first connection.
        channel.connect();
        Ok(Self { workers, address, channel, settings })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Tells what its workers do.
    pub fn monitor(&self) -> Monitor {
        Monitor { workers: self.workers.iter().map(|prepared| prepared.handle.clone()).collect() }
    }

    /// Serves until `shutdown` is done, then drains: no new connections, GOAWAY on those there are, and running calls
    /// may end within [`Settings::drain_timeout`]. Returns whether all of them did. Where a worker fails it drains as well,
    /// at once, and returns false.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> bool {
        let monitor = self.monitor();
        let _stop = StopOnDrop(monitor.clone());
        let (mut threads, mut controls) = (Ends::new(), JoinSet::new());
        for (number, prepared) in self.workers.into_iter().enumerate() {
            controls.spawn(control::serve(self.channel.clone(), prepared.handle.clone(), prepared.dials));
            match start(number, prepared.worker, &self.channel, &self.settings) {
                Ok(thread) => drop(threads.spawn_blocking(move || thread.join())),
                Err(error) => {
                    tracing::error!(target: "evenkeel::proxy", %error, "a worker cannot be started");
                    return false;
                }
            }
        }
        drop(self.channel);
        if let Some(tls) = self.settings.tls.clone() {
            controls.spawn(control::follow_files(tls));
        }
        controls.spawn(metrics::keep(monitor.clone(), self.address));
        let all_well = tokio::select! {
            () = shutdown => true,
            Some(end) = threads.join_next() => {
                // Some cores would not be used from here on, or none: whoever runs the proxy has to know.
                is_well(end);
                tracing::error!(target: "evenkeel::proxy", "a worker has ended before its time; the proxy shuts down");
                false
            }
        };
        drain(&monitor, threads, self.settings.drain_timeout).await && all_well
    }
}

impl Prepared {
    fn new(listener: Listener, settings: evenkeel_relay::driver::Settings) -> io::Result<Self> {
        let (mut ask, dials) = control::dials();
        let host = move |id: DialId, _, address: &Address| ask(id, address);
        let (worker, handle) = Worker::new(vec![listener], host, settings)?;
        Ok(Self { worker, handle, dials })
    }
}

/// Threads do not end by themselves where nobody waits for them any more.
struct StopOnDrop(Monitor);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.workers.iter().for_each(WorkerHandle::stop);
    }
}

type Thread = JoinHandle<io::Result<()>>;

/// The ends of the workers' threads.
type Ends = JoinSet<std::thread::Result<io::Result<()>>>;

fn start(number: usize, worker: Worker<Relay<Placing>>, channel: &Channel, settings: &Settings) -> io::Result<Thread> {
    let channel = channel.clone();
    let settings = settings.relay(channel.placer().scheme() == "https");
    // The placer is made there, so that it has that thread's lane.
    worker.spawn(number, move || Relay::new(settings, Placing(channel.placer())))
}

/// Has the workers take no more calls, and waits for the end of those that run, at most for `timeout`.
async fn drain(monitor: &Monitor, mut ends: Ends, timeout: Duration) -> bool {
    let connections = monitor.figures().await.clients;
    tracing::info!(target: "evenkeel::proxy", connections, ?timeout, "draining");
    monitor.workers.iter().for_each(WorkerHandle::drain);
    let mut all_well = true;
    let ended = tokio::time::timeout(timeout, wait(&mut ends, &mut all_well)).await.is_ok();
    if !ended {
        let left = monitor.figures().await.clients;
        tracing::warn!(target: "evenkeel::proxy", connections = left, "calls were cut off at the drain time-out");
        monitor.workers.iter().for_each(WorkerHandle::stop);
        wait(&mut ends, &mut all_well).await;
    }
    ended && all_well
}

async fn wait(ends: &mut Ends, all_well: &mut bool) {
    while let Some(end) = ends.join_next().await {
        *all_well &= is_well(end);
    }
}

/// Whether a worker has ended as it should.
fn is_well(end: Result<std::thread::Result<io::Result<()>>, JoinError>) -> bool {
    match end {
        Ok(Ok(Ok(()))) => return true,
        Ok(Ok(Err(error))) => tracing::error!(target: "evenkeel::proxy", %error, "a worker has failed"),
        _ => tracing::error!(target: "evenkeel::proxy", "a worker has panicked"),
    }
    false
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_served_no_longer_holds_up_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is a runtime");
        runtime.block_on(async {
            let channel = Channel::builder("ipv4:127.0.0.1:1").build().expect("the target is good");
            let address = "127.0.0.1:0".parse().expect("it is an address");
            let proxy = Proxy::bind(address, channel, Settings::default()).expect("any port is free");
            let monitor = proxy.monitor();
            let mut serving = std::pin::pin!(proxy.serve(std::future::pending()));
            tokio::select! {
                biased;
                _ = &mut serving => panic!("it serves without end"),
                figures = monitor.figures() => assert!(figures.workers > 0, "its workers have started"),
            }
        });
        // A runtime waits for threads that are being joined.
        drop(runtime);
    }

    #[tokio::test]
    async fn a_worker_that_panics_ends_the_proxy() {
        let channel = Channel::builder("ipv4:127.0.0.1:1").build().expect("the target is good");
        let address = "127.0.0.1:0".parse().expect("it is an address");
        let settings = Settings::default().with_workers(2);
        let proxy = Proxy::bind(address, channel, settings).expect("any port is free");
        proxy.workers[1].handle.inspect(|_| panic!("on purpose"));
        assert!(!proxy.serve(std::future::pending()).await, "it does not wait for a signal");
    }
}
