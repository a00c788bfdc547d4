//! Deadlines that cascade: a handler's calls end when the call that it answers must.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_channel::{Channel, DeadlineLayer};
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use http::{Request, Response};
use servers::Server;
use tonic::Code;
use tower_layer::Layer;
use tower_service::Service;

/// Answers a call with the status of a call of its own, which takes a minute.
#[derive(Clone)]
struct Handler {
    backend: Channel,
    /// Whether the call is made by another task.
    spawned: bool,
}

impl Service<Request<()>> for Handler {
    type Response = Response<Code>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Code>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let (mut client, spawned) = (EchoClient::new(self.backend.clone()), self.spawned);
        Box::pin(async move {
            let slow = async move { client.unary(EchoRequest { delay_ms: 60_000, ..servers::request("slow") }).await };
            let status = if spawned {
                tokio::spawn(DeadlineLayer::carry(slow)).await.unwrap().unwrap_err()
            } else {
                slow.await.unwrap_err()
            };
            Ok(Response::new(status.code()))
        })
    }
}

async fn answered(spawned: bool) -> Code {
    let backend = Server::start().await;
    let channel = Channel::builder(servers::target(&[&backend])).build().unwrap();
    let mut handler = DeadlineLayer::new().layer(Handler { backend: channel, spawned });
    let request = Request::builder().header("grpc-timeout", "50m").body(()).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), handler.call(request)).await;
    backend.until_idle().await;
    answer.expect("long before the minute is over").unwrap().into_body().into_inner()
}

#[tokio::test]
async fn a_handlers_calls_inherit_its_deadline() {
    assert_eq!(answered(false).await, Code::DeadlineExceeded);
}

#[tokio::test]
async fn work_that_is_handed_to_another_task_can_carry_the_deadline() {
    assert_eq!(answered(true).await, Code::DeadlineExceeded);
}
