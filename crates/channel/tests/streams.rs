//! Servers that allow few streams at a time: further connections (gRFC A105), and who goes first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::{pin::Pin, time::Duration};

use evenkeel_channel::{
    CallPriority, Channel,
    balance::Endpoint,
    naming::{Resolution, Resolver, Updates},
};
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use servers::{Server, request};
use tonic::Request;

fn channel(server: &Server, most: usize) -> Channel {
    let config = format!(
        r#"{{"loadBalancingConfig":[{{"round_robin":{{}}}}],"connectionScaling":{{"maxConnectionsPerSubchannel":{most}}}}}"#
    );
    Channel::builder(servers::target(&[server])).service_config(&config).unwrap().build().unwrap()
}

fn slow(client: &EchoClient<Channel>) -> tokio::task::JoinHandle<()> {
    let mut client = client.clone();
    tokio::spawn(async move { drop(client.unary(EchoRequest { delay_ms: 60_000, ..request("slow") }).await) })
}

#[tokio::test]
async fn a105_calls_beyond_the_streams_of_one_connection_get_more_connections() {
    let server = Server::start_with(|builder| builder.max_concurrent_streams(2)).await;
    let client = EchoClient::new(channel(&server, 3));
    let calls: Vec<_> = (0..6).map(|_| slow(&client)).collect();
    server.until_calls(6).await;
    assert_eq!(server.most_at_once(), 6, "three connections of two streams");

    // With every stream of the most connections taken, the next call waits for one to end.
    let mut next = client.clone();
    let waiting = tokio::spawn(async move { next.unary(request("next")).await });
    calls[3].abort();
    assert_eq!(waiting.await.unwrap().unwrap().into_inner().message, "next");
    for call in calls {
        call.abort();
    }
    server.until_idle().await;
}

#[tokio::test]
async fn a105_a_hundred_calls_over_one_stream_at_a_time_all_succeed_on_all_connections() {
    let server = Server::start_with(|builder| builder.max_concurrent_streams(1)).await;
    let client = EchoClient::new(channel(&server, 4));
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move { client.unary(EchoRequest { delay_ms: 5, ..request(&n.to_string()) }).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.most_at_once(), 4);
}

#[tokio::test]
async fn urgent_calls_get_the_next_stream() {
    let server = Server::start_with(|builder| builder.max_concurrent_streams(1)).await;
    let client = EchoClient::new(channel(&server, 1));
    let first = slow(&client);
    server.until_busy().await;

    let (order, mut ended) = tokio::sync::mpsc::unbounded_channel();
    for (n, priority) in [0_i8, 0, 5, -3, 5].into_iter().enumerate() {
        let (mut client, order) = (client.clone(), order.clone());
        let mut call = Request::new(request("x"));
        call.extensions_mut().insert(CallPriority(priority));
        let call = async move {
            client.unary(call).await.unwrap();
            order.send(n).unwrap();
        };
        tokio::spawn(call);
        // On this runtime of one thread, it is in line once it has run as far as it can.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    first.abort();
    let mut went = Vec::new();
    while went.len() < 5 {
        went.push(tokio::time::timeout(Duration::from_secs(10), ended.recv()).await.unwrap().unwrap());
    }
    assert_eq!(went, [2, 4, 0, 1, 3]);
}

/// Gives a channel what a test sends.
struct Told(tokio::sync::mpsc::UnboundedReceiver<Resolution>);

impl Resolver for Told {
    fn run(mut self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Some(resolution) = self.0.recv().await {
                updates.send(Ok(resolution));
            }
        })
    }
}

#[tokio::test]
async fn a105_a_load_report_that_waits_for_a_stream_holds_up_no_call_on_another_connection() {
    let server = Server::start_with(|builder| builder.max_concurrent_streams(2)).await;
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let resolve = |policy: &str| {
        let config =
            format!(r#"{{"loadBalancingConfig":[{policy}],"connectionScaling":{{"maxConnectionsPerSubchannel":2}}}}"#);
        tell.send(Resolution::new(vec![Endpoint::new(server.address)]).with_service_config(config)).unwrap();
    };
    let channel = Channel::builder("told").resolver(Box::new(Told(told))).build().unwrap();
    let client = EchoClient::new(channel.clone());
    resolve(r#"{"round_robin":{}}"#);
    let mut first = vec![slow(&client), slow(&client)];
    server.until_calls(2).await;
    let second = vec![slow(&client), slow(&client)];
    server.until_calls(4).await;

    // The stream of the load reports has to be on the first connection, which is full.
    resolve(r#"{"weighted_round_robin":{"enableOobLoadReport":true}}"#);
    let mut reports = channel.reports();
    reports.wait_for(|report| report.policy == "weighted_round_robin").await.unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    for call in second {
        call.abort();
    }
    // Their streams are over before the next call comes, so that none will end behind it.
    while channel.sockets()[1].streams.failed < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let mut client = client.clone();
    for _ in 0..3 {
        let answered = tokio::time::timeout(Duration::from_secs(10), client.unary(request("x"))).await;
        answered.expect("the second connection has room").unwrap();
    }
    first.drain(..).for_each(|call| call.abort());
    server.until_idle().await;
}
