//! Calls over real connections, placed by a policy of one's own.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::{net::SocketAddr, pin::Pin};

use evenkeel_proto::demo::{
    EchoReply, EchoRequest,
    echo_client::EchoClient,
    echo_server::{Echo, EchoServer},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// A server whose replies wait until its gate is open.
struct Server {
    address: SocketAddr,
    gate: watch::Sender<bool>,
    begun: watch::Receiver<u32>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (gate, opened) = watch::channel(true);
        let (begins, begun) = watch::channel(0);
        let echo = EchoServer::new(Gated { address, opened, begins });
        let server = tonic::transport::Server::builder().add_service(echo);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, gate, begun }
    }
}

struct Gated {
    address: SocketAddr,
    opened: watch::Receiver<bool>,
    begins: watch::Sender<u32>,
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for Gated {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        self.begins.send_modify(|begun| *begun += 1);
        self.opened.clone().wait_for(|open| *open).await.map_err(|_| Status::cancelled("the test is over"))?;
        let EchoRequest { message, payload, .. } = request.into_inner();
        Ok(Response::new(EchoReply { message, payload, backend: self.address.to_string() }))
    }

    async fn client_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, _: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    type BidiStreamStream = Replies;

    async fn bidi_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

fn client(target: String, policy: &str) -> EchoClient<evenkeel::Channel> {
    let config = format!(r#"{{"loadBalancingConfig":[{{"{policy}":{{}}}}]}}"#);
    let builder = evenkeel::Channel::builder(target).policies(evenkeel_example_policy::policies());
    EchoClient::new(builder.service_config(&config).unwrap().build().unwrap())
}

/// Makes a call, and says which server took it.
async fn call(client: &mut EchoClient<evenkeel::Channel>) -> String {
    client.unary(EchoRequest::default()).await.unwrap().into_inner().backend
}

#[tokio::test]
async fn calls_go_to_the_server_that_has_been_the_fastest() {
    let (slow, fast) = (Server::start().await, Server::start().await);
    slow.gate.send_replace(false);
    let mut client_of_both = client(format!("{},{}", slow.address, fast.address), "example.fastest");
    let mut client_of_fast = client(fast.address.to_string(), "round_robin");

    // Nothing is known of the slow server, so it is tried as soon as it is connected. It then answers when the fast one
    // has answered two hundred calls of another client.
    let mut begun = slow.begun.clone();
    let mut another = client_of_both.clone();
    let tries = tokio::spawn(async move { while call(&mut another).await != slow.address.to_string() {} });
    begun.wait_for(|&begun| begun > 0).await.unwrap();
    for _ in 0..200 {
        call(&mut client_of_fast).await;
    }
    slow.gate.send_replace(true);
    tries.await.unwrap();

    let mut to_fast = 0;
    for _ in 0..20 {
        to_fast += u32::from(call(&mut client_of_both).await == fast.address.to_string());
    }
    assert!(to_fast >= 15, "{to_fast} of 20");
}
