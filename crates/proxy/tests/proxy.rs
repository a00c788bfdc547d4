//! The proxy between generated clients and servers of tonic, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../channel/tests/servers/mod.rs"]
mod servers;

use std::{net::SocketAddr, time::Duration};

use evenkeel_channel::{Channel, balance::Connectivity};
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use evenkeel_proxy::{Proxy, Settings};
use servers::{Server, request};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_stream::StreamExt;
use tonic::{Code, Request, metadata::MetadataValue, transport::Endpoint};

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<bool>,
}

/// A proxy over `servers`, once it is connected to all of them.
async fn proxy(servers: &[&Server], settings: Settings) -> Running {
    let channel = Channel::builder(servers::target(servers)).policy("round_robin").build().unwrap();
    let mut reports = channel.reports();
    let proxy = Proxy::bind("127.0.0.1:0".parse().unwrap(), channel, settings).unwrap();
    let all_ready = |report: &std::sync::Arc<evenkeel_channel::Report>| {
        report.endpoints.iter().filter(|endpoint| endpoint.state.service == Connectivity::Ready).count()
            == servers.len()
    };
    tokio::time::timeout(Duration::from_secs(10), reports.wait_for(all_ready)).await.unwrap().unwrap();
    let address = proxy.local_addr();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(proxy.serve(async move { drop(stopped.await) }));
    Running { address, stop, served }
}

async fn client(proxy: &Running) -> EchoClient<tonic::transport::Channel> {
    let channel = Endpoint::from_shared(format!("http://{}", proxy.address)).unwrap().connect().await.unwrap();
    EchoClient::new(channel).max_decoding_message_size(64 << 20)
}

#[tokio::test]
async fn calls_of_one_connection_are_balanced_one_by_one() {
    let servers = [Server::start().await, Server::start().await, Server::start().await];
    let proxy = proxy(&servers.each_ref(), Settings::default()).await;
    let mut client = client(&proxy).await;
    for _ in 0..300 {
        client.unary(request("x")).await.unwrap();
    }
    assert_eq!(servers.each_ref().map(Server::calls), [100, 100, 100]);
}

#[tokio::test]
async fn all_four_kinds_of_call_and_large_messages_pass() {
    let server = Server::start().await;
    let proxy = proxy(&[&server], Settings::default()).await;
    let mut client = client(&proxy).await;
    let many = tokio_stream::iter((0..10).map(|i| request(&i.to_string())));
    assert_eq!(client.client_stream(many).await.unwrap().into_inner().message, "0123456789");
    let replies = client.server_stream(EchoRequest { repeat: 50, ..request("again") }).await.unwrap().into_inner();
    assert_eq!(replies.collect::<Vec<_>>().await.len(), 50);
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let mut replies =
        client.bidi_stream(tokio_stream::wrappers::ReceiverStream::new(receive)).await.unwrap().into_inner();
    for i in 0..20 {
        send.send(request(&i.to_string())).await.unwrap();
        assert_eq!(replies.message().await.unwrap().unwrap().message, i.to_string());
    }
    drop(send);
    assert!(replies.message().await.unwrap().is_none());
    let payload = vec![3; 32 << 20];
    let reply = client.unary(EchoRequest { payload: payload.clone().into(), ..request("big") }).await.unwrap();
    assert!(reply.into_inner().payload == payload);
}

#[tokio::test]
async fn errors_deadlines_and_cancellations_pass() {
    let server = Server::start().await;
    let proxy = proxy(&[&server], Settings::default()).await;
    let mut client = client(&proxy).await;

    let mut slow = Request::new(EchoRequest { delay_ms: 60_000, ..request("slow") });
    slow.metadata_mut().insert_bin("x-bytes-bin", MetadataValue::from_bytes(&[0, 255, 1]));
    slow.set_timeout(Duration::from_millis(100));
    assert!(matches!(client.unary(slow).await.unwrap_err().code(), Code::DeadlineExceeded | Code::Cancelled));
    server.until_idle().await;

    let mut other = client.clone();
    let call = other.unary(EchoRequest { delay_ms: 60_000, ..request("slow") });
    tokio::select! {
        _ = call => panic!("it takes a minute"),
        () = server.until_busy() => {}
    }
    server.until_idle().await;
}

#[tokio::test]
async fn a_drain_lets_running_calls_end_and_takes_no_new_connections() {
    let server = Server::start().await;
    let proxy = proxy(&[&server], Settings::default()).await;
    let client = client(&proxy).await;
    let mut calling = client.clone();
    let call = tokio::spawn(async move { calling.unary(EchoRequest { delay_ms: 500, ..request("slow") }).await });
    server.until_busy().await;
    proxy.stop.send(()).unwrap();
    assert_eq!(call.await.unwrap().unwrap().into_inner().message, "slow");
    drop(client);
    assert!(proxy.served.await.unwrap(), "all calls ended");
    assert!(tokio::net::TcpStream::connect(proxy.address).await.is_err());
}

#[tokio::test]
async fn a_drain_ends_at_its_time_out() {
    let server = Server::start().await;
    let settings = Settings::default().with_drain_timeout(Duration::from_millis(200));
    let proxy = proxy(&[&server], settings).await;
    let mut client = client(&proxy).await;
    let call = tokio::spawn(async move { client.unary(EchoRequest { delay_ms: 60_000, ..request("slow") }).await });
    server.until_busy().await;
    proxy.stop.send(()).unwrap();
    assert!(!proxy.served.await.unwrap(), "a call was left");
    assert!(call.await.unwrap().is_err());
    server.until_idle().await;
}
