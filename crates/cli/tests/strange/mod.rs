//! Peers that are no ordinary health servers.

#![allow(clippy::unwrap_used, reason = "a test's peer fails its test")]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{net::SocketAddr, pin::Pin};

use evenkeel_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_server::{Health, HealthServer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Code, Request, Response, Status, codec::CompressionEncoding};

/// A health server whose Check does what the service's name says: `hangs`, `denied`, `status 9`, or `metadata`, which
/// tells the metadata that came, in the words of a failure. It has no List, and a Watch for `hangs` alone, which is SERVING.
pub(crate) async fn obedient() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = HealthServer::new(Obedient)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let server = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

struct Obedient;

#[tonic::async_trait]
impl Health for Obedient {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.get_ref().service.as_str();
        if let Some(number) = service.strip_prefix("status ") {
            return Ok(Response::new(HealthCheckResponse { status: number.parse().unwrap() }));
        }
        match service {
            "hangs" => std::future::pending().await,
            "denied" => Err(Status::permission_denied("not you")),
            "metadata" => Err(Status::new(Code::Aborted, format!("{:?}", request.metadata()))),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if request.get_ref().service != "hangs" {
            return Err(Status::unimplemented("no Watch"));
        }
        let serving = tokio_stream::once(Ok(HealthCheckResponse { status: 1 }));
        Ok(Response::new(Box::pin(serving.chain(tokio_stream::pending()))))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("no List"))
    }
}

/// A server without a health service.
pub(crate) async fn healthless() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::default());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// Accepts, reads what comes, says `words` and hangs up.
pub(crate) async fn says(words: &'static [u8]) -> SocketAddr {
    accepting(move |mut socket| async move {
        let _ = socket.read(&mut [0; 1_024]).await;
        let _ = socket.write_all(words).await;
        let _ = socket.shutdown().await;
        // Unread bytes would turn the end into a reset, which overtakes the words.
        while socket.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {}
    })
    .await
}

/// Accepts, and says nothing.
pub(crate) async fn silent() -> SocketAddr {
    accepting(|socket| async move {
        std::future::pending::<()>().await;
        drop(socket);
    })
    .await
}

async fn accepting<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    address
}

/// An address at which nobody listens, nor begins to: it is bound.
pub(crate) struct Nobody {
    pub(crate) address: SocketAddr,
    _bound: TcpSocket,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { address: bound.local_addr().unwrap(), _bound: bound }
    }
}

/// An address at which nobody listens yet.
pub(crate) async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
