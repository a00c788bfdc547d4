//! A server that says whether it can take calls, and drains before it exits: stop it with Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run -p evenkeel --example server -- 127.0.0.1:50051
//! ```

#![allow(clippy::print_stdout, reason = "an example speaks to its terminal")]

use std::{net::SocketAddr, pin::Pin};

use evenkeel::health::Drain;
use evenkeel_proto::demo::{
    EchoReply, EchoRequest,
    echo_server::{Echo, EchoServer},
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, transport::Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50051".to_owned()).parse()?;
    println!("serving on {address}");

    let (reporter, health) = evenkeel::health::service();
    reporter.set_serving::<EchoServer<Named>>();
    let server = Server::builder().add_service(health).add_service(EchoServer::new(Named(address)));
    reporter.drain_on_signal(Drain::default())?.run(|drained| server.serve_with_shutdown(address, drained)).await?;
    Ok(())
}

/// Echoes, and says which server did.
struct Named(SocketAddr);

impl Named {
    fn reply(&self, request: EchoRequest) -> EchoReply {
        EchoReply { message: request.message, payload: request.payload, backend: self.0.to_string() }
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for Named {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        Ok(Response::new(self.reply(request.into_inner())))
    }

    async fn client_stream(&self, request: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
        let mut requests = request.into_inner();
        let mut message = String::new();
        while let Some(request) = requests.message().await? {
            message.push_str(&request.message);
        }
        Ok(Response::new(self.reply(EchoRequest { message, ..Default::default() })))
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, request: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        let request = request.into_inner();
        let reply = self.reply(request.clone());
        Ok(Response::new(Box::pin(tokio_stream::iter((0..request.repeat).map(move |_| Ok(reply.clone()))))))
    }

    type BidiStreamStream = Replies;

    async fn bidi_stream(&self, request: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
        let name = Self(self.0);
        Ok(Response::new(Box::pin(request.into_inner().map(move |request| Ok(name.reply(request?))))))
    }
}
