//! Three servers in one process, on one core: a unary echo and `grpc.health.v1`.

use std::{io, io::Write, net::Ipv4Addr, pin::Pin};

use evenkeel_proto::demo::{
    EchoReply, EchoRequest,
    echo_server::{Echo, EchoServer},
};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_stream::Stream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use crate::core;

/// How many servers there are.
const SERVERS: usize = 3;

/// Serves until standard input ends. Prints the ports, one a line.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run() -> anyhow::Result<()> {
    core::pin(core::BACKENDS)?;
    for _ in 0..SERVERS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let (_, health) = evenkeel_health::service();
        let server = Server::builder().add_service(health).add_service(EchoServer::new(Echoing));
        tokio::spawn(server.serve_with_incoming(incoming));
    }
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

struct Echoing;

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for Echoing {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let EchoRequest { message, payload, .. } = request.into_inner();
        Ok(Response::new(EchoReply { message, payload, backend: String::new() }))
    }

    async fn client_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
        Err(only_unary())
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, _: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        Err(only_unary())
    }

    type BidiStreamStream = Replies;

    async fn bidi_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
        Err(only_unary())
    }
}

fn only_unary() -> Status {
    Status::unimplemented("only Unary is measured")
}
