//! A tonic server for tests: echoes, counts, can be stopped, and can be killed.

#![allow(clippy::unwrap_used, reason = "a test's server fails its test")]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_health::Reporter;
use evenkeel_proto::demo::{
    EchoReply, EchoRequest,
    echo_server::{Echo, EchoServer},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

pub(crate) fn request(message: &str) -> EchoRequest {
    EchoRequest { message: message.to_owned(), ..EchoRequest::default() }
}

pub(crate) fn target(servers: &[&Server]) -> String {
    servers.iter().map(|server| server.address.to_string()).collect::<Vec<_>>().join(",")
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) health: Reporter,
    counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    runtime: Option<tokio::runtime::Runtime>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    begun: watch::Sender<u64>,
    running: watch::Sender<u64>,
    most: AtomicU64,
    /// How long every call waits, in milliseconds, beside what it asks for.
    delay: AtomicU64,
    /// The code that every call fails with; 0 for none.
    failure: AtomicU64,
}

impl Counts {
    async fn behave(&self) -> Result<(), Status> {
        tokio::time::sleep(Duration::from_millis(self.delay.load(SeqCst))).await;
        match self.failure.load(SeqCst) {
            0 => Ok(()),
            code => Err(Status::new(i32::try_from(code).unwrap().into(), "as the test wants it")),
        }
    }
}

/// Counts a call as running until it is dropped.
struct Running(Arc<Counts>);

impl Running {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.running.send_modify(|running| {
            *running += 1;
            counts.most.fetch_max(*running, SeqCst);
        });
        // Last: a test that waits for this many calls finds the other counts up to date.
        counts.begun.send_modify(|begun| *begun += 1);
        Self(Arc::clone(counts))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        Self::launch(TcpListener::bind(address).await.unwrap(), |builder| builder)
    }

    pub(crate) async fn start_with(
        tune: impl FnOnce(tonic::transport::Server) -> tonic::transport::Server + Send + 'static,
    ) -> Self {
        Self::launch(TcpListener::bind("127.0.0.1:0").await.unwrap(), tune)
    }

    /// On a runtime of its own, so that killing it takes its sockets with it as the end of a process would.
    fn launch(
        listener: TcpListener,
        tune: impl FnOnce(tonic::transport::Server) -> tonic::transport::Server + Send + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.into_std().unwrap();
        let counts = Arc::new(Counts::default());
        let (reporter, health) = evenkeel_health::service();
        let (stop, mut stopped) = watch::channel(false);
        let echo = EchoServer::new(Service { counts: Arc::clone(&counts), name: address.to_string() })
            .max_decoding_message_size(64 << 20);
        let task = runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            let server = tune(tonic::transport::Server::builder()).add_service(echo).add_service(health);
            let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
            server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        Self { address, health: reporter, counts, stop, runtime: Some(runtime), task }
    }

    /// Stops as a good server does: GOAWAY, and running calls finish.
    pub(crate) async fn stop(mut self) {
        self.health.shutdown();
        self.stop.send_replace(true);
        (&mut self.task).await.unwrap();
    }

    /// Ends at once, as a killed process does.
    pub(crate) fn kill(&mut self) {
        // tonic's connections are tasks of their own: only the runtime's end closes their sockets.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Answers unary and client-streaming calls later from now on.
    pub(crate) fn delays(&self, delay: Duration) {
        self.counts.delay.store(delay.as_millis().try_into().unwrap(), SeqCst);
    }

    /// Fails unary and client-streaming calls from now on.
    pub(crate) fn fails(&self, code: tonic::Code) {
        self.counts.failure.store(i32::from(code).try_into().unwrap(), SeqCst);
    }

    pub(crate) fn calls(&self) -> u64 {
        *self.counts.begun.borrow()
    }

    pub(crate) fn most_at_once(&self) -> u64 {
        self.counts.most.load(SeqCst)
    }

    pub(crate) async fn until_calls(&self, calls: u64) {
        within(self.counts.begun.subscribe().wait_for(|begun| *begun >= calls)).await;
    }

    pub(crate) async fn until_busy(&self) {
        within(self.counts.running.subscribe().wait_for(|running| *running > 0)).await;
    }

    pub(crate) async fn until_idle(&self) {
        within(self.counts.running.subscribe().wait_for(|running| *running == 0)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn within<T, E>(condition: impl Future<Output = Result<T, E>>) {
    let came_true = tokio::time::timeout(Duration::from_secs(20), condition).await;
    assert!(came_true.is_ok_and(|watched| watched.is_ok()), "the server's condition came true in time");
}

struct Service {
    counts: Arc<Counts>,
    name: String,
}

impl Service {
    fn reply(&self, request: EchoRequest) -> EchoReply {
        EchoReply { message: request.message, payload: request.payload, backend: self.name.clone() }
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for Service {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let _running = Running::new(&self.counts);
        let request = request.into_inner();
        self.counts.behave().await?;
        tokio::time::sleep(Duration::from_millis(request.delay_ms.into())).await;
        Ok(Response::new(self.reply(request)))
    }

    async fn client_stream(&self, request: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
        let _running = Running::new(&self.counts);
        let requests = request.into_inner().collect::<Result<Vec<_>, _>>().await?;
        self.counts.behave().await?;
        let message = requests.into_iter().map(|request| request.message).collect();
        Ok(Response::new(self.reply(EchoRequest { message, ..EchoRequest::default() })))
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, request: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        let running = Running::new(&self.counts);
        let request = request.into_inner();
        let (delay, reply) = (Duration::from_millis(request.delay_ms.into()), self.reply(request.clone()));
        let replies = tokio_stream::iter((0..request.repeat).map(move |_| Ok(reply.clone()))).then(move |reply| {
            let _ = &running;
            async move {
                tokio::time::sleep(delay).await;
                reply
            }
        });
        Ok(Response::new(Box::pin(replies)))
    }

    type BidiStreamStream = Replies;

    async fn bidi_stream(&self, request: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
        let running = Running::new(&self.counts);
        let name = self.name.clone();
        let replies = request.into_inner().map(move |request| {
            let _ = &running;
            let request = request?;
            Ok(EchoReply { message: request.message, payload: request.payload, backend: name.clone() })
        });
        Ok(Response::new(Box::pin(replies)))
    }
}
