//! Clients that are as light as can be, so that they take little from the server that is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use evenkeel_checker::codec::{WATCH_PATH, request as watch_request};
use h2::RecvStream;
use http::Request;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::now;

pub(crate) struct Clients {
    /// Those that read.
    live: usize,
    /// When each of them was told.
    told: UnboundedReceiver<Duration>,
    _tasks: JoinSet<()>,
}

/// How many connections are being made at a time.
const AT_ONCE: usize = 64;

impl Clients {
    /// Opens `streams` watches on each connection, and reads `stalled` of the connections no further than that.
    pub(crate) async fn connect(address: SocketAddr, connections: usize, streams: usize, stalled: usize) -> Result<Self> {
        let (tell, told) = unbounded_channel();
        let (permits, mut tasks, mut opening) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new(), JoinSet::new());
        for number in 0..connections {
            let permit = permits.clone().acquire_owned().await?;
            opening.spawn(async move {
                let _permit = permit;
                (number < stalled, open(address, streams).await)
            });
        }
        while let Some(opened) = opening.join_next().await {
            let (stalled, opened) = opened?;
            let (connection, bodies) = opened?;
            if stalled {
                connection.stall.notify_one();
                tasks.spawn(hold(connection, bodies));
                continue;
            }
            for body in bodies {
                tasks.spawn(read(body, tell.clone()));
            }
            tasks.spawn(hold(connection, Vec::new()));
        }
        Ok(Self { live: (connections - stalled) * streams, told, _tasks: tasks })
    }

    /// How long after `since` each client that reads was told.
    pub(crate) async fn all_told(&mut self, since: Duration) -> Result<Vec<Duration>> {
        let mut all = Vec::with_capacity(self.live);
        while all.len() < self.live {
            let one = tokio::time::timeout(Duration::from_secs(10), self.told.recv()).await;
            let at = one.context("not every client was told within 10 s")?.context("no client is left")?;
            all.push(at.saturating_sub(since));
        }
        ensure!(self.told.try_recv().is_err(), "a client was told twice");
        Ok(all)
    }
}

struct Connection {
    stall: Arc<Notify>,
    _requests: h2::client::SendRequest<tonic::codegen::Bytes>,
}

/// A connection, and the bodies of its watches after their first reply.
async fn open(address: SocketAddr, streams: usize) -> Result<(Connection, Vec<RecvStream>)> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (mut requests, connection) = h2::client::handshake(socket).await?;
    let stall = Arc::new(Notify::new());
    let stalled = stall.clone();
    tokio::spawn(async move {
        let mut connection = connection;
        tokio::select! {
            _ = &mut connection => {}
            // Kept open, and never read again.
            () = stalled.notified() => std::future::pending().await,
        }
    });
    let mut bodies = Vec::new();
    for _ in 0..streams {
        let request = Request::post(format!("http://{address}{WATCH_PATH}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        requests = requests.ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        body.send_data(watch_request(""), true)?;
        bodies.push(response);
    }
    let mut watches = Vec::new();
    for response in bodies {
        let mut body = response.await?.into_body();
        let first = body.data().await.context("the first reply")??;
        body.flow_control().release_capacity(first.len())?;
        watches.push(body);
    }
    Ok((Connection { stall, _requests: requests }, watches))
}

async fn hold(_connection: Connection, _bodies: Vec<RecvStream>) {
    std::future::pending::<()>().await;
}

/// Tells of each reply that comes.
async fn read(mut body: RecvStream, tell: UnboundedSender<Duration>) {
    while let Some(Ok(reply)) = body.data().await {
        if body.flow_control().release_capacity(reply.len()).is_err() || tell.send(now()).is_err() {
            return;
        }
    }
}
