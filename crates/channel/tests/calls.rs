//! Calls over real sockets: generated clients of tonic on our channel, against servers of tonic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::time::Duration;

use evenkeel_channel::{
    Channel,
    balance::{Connectivity, HealthCheck, UnknownService},
};
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use servers::{Server, request};
use tokio_stream::StreamExt;
use tonic::{Code, Request};

fn round_robin(servers: &[&Server]) -> Channel {
    let config = r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#;
    Channel::builder(servers::target(servers)).service_config(config).unwrap().build().unwrap()
}

/// Waits until `count` endpoints are ready.
async fn ready(channel: &Channel, count: usize) {
    channel.connect();
    let mut reports = channel.reports();
    let is_ready = |report: &std::sync::Arc<evenkeel_channel::Report>| {
        report.endpoints.iter().filter(|endpoint| endpoint.state.service == Connectivity::Ready).count() == count
    };
    tokio::time::timeout(Duration::from_secs(10), reports.wait_for(is_ready)).await.expect("in time").unwrap();
}

#[tokio::test]
async fn calls_take_turns_over_three_servers() {
    let servers = [Server::start().await, Server::start().await, Server::start().await];
    let channel = round_robin(&[&servers[0], &servers[1], &servers[2]]);
    ready(&channel, 3).await;
    let mut client = EchoClient::new(channel);
    for _ in 0..300 {
        client.unary(request("x")).await.unwrap();
    }
    assert_eq!(servers.each_ref().map(Server::calls), [100, 100, 100]);
}

#[tokio::test]
async fn all_four_kinds_of_call_pass() {
    let server = Server::start().await;
    let mut client = EchoClient::new(round_robin(&[&server]));
    assert_eq!(client.unary(request("one")).await.unwrap().into_inner().message, "one");

    let many = tokio_stream::iter((0..10).map(|i| request(&i.to_string())));
    assert_eq!(client.client_stream(many).await.unwrap().into_inner().message, "0123456789");

    let replies = client.server_stream(EchoRequest { repeat: 5, ..request("again") }).await.unwrap().into_inner();
    assert_eq!(replies.collect::<Vec<_>>().await.len(), 5);

    let (send, receive) = tokio::sync::mpsc::channel(1);
    let mut replies =
        client.bidi_stream(tokio_stream::wrappers::ReceiverStream::new(receive)).await.unwrap().into_inner();
    for i in 0..20 {
        send.send(request(&i.to_string())).await.unwrap();
        assert_eq!(replies.message().await.unwrap().unwrap().message, i.to_string());
    }
    drop(send);
    assert!(replies.message().await.unwrap().is_none());
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    let server = Server::start().await;
    let mut client = EchoClient::new(round_robin(&[&server])).max_decoding_message_size(64 << 20);
    let payload = vec![7; 32 << 20];
    let reply = client.unary(EchoRequest { payload: payload.clone().into(), ..request("big") }).await.unwrap();
    assert!(reply.into_inner().payload == payload);
}

#[tokio::test]
async fn long_responses_pass_while_their_window_is_being_found() {
    let server = Server::start().await;
    let builder = Channel::builder(servers::target(&[&server])).stream_window(65_535).adaptive_window(16 << 20);
    let mut client = EchoClient::new(builder.build().unwrap()).max_decoding_message_size(64 << 20);
    let large = EchoRequest { payload: vec![7; 4 << 20].into(), repeat: 16, ..request("big") };
    let mut replies = client.server_stream(large).await.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(reply) = replies.message().await.unwrap() {
        bytes += reply.payload.len();
        client.unary(request("beside it")).await.unwrap();
    }
    assert_eq!(bytes, 64 << 20);
}

#[tokio::test]
async fn deadlines_are_kept_on_both_sides_of_the_head() {
    let server = Server::start().await;
    let mut client = EchoClient::new(round_robin(&[&server]));
    let mut slow = Request::new(EchoRequest { delay_ms: 60_000, ..request("slow") });
    slow.set_timeout(Duration::from_millis(50));
    assert_eq!(client.unary(slow).await.unwrap_err().code(), Code::DeadlineExceeded);

    let mut slow = Request::new(EchoRequest { delay_ms: 60_000, repeat: 2, ..request("slow") });
    slow.set_timeout(Duration::from_millis(300));
    let mut replies = client.server_stream(slow).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap_err().code(), Code::DeadlineExceeded);
    server.until_idle().await;
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_at_the_server_and_leaves_nothing_in_flight() {
    let server = Server::start().await;
    let channel = round_robin(&[&server]);
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let call = client.unary(EchoRequest { delay_ms: 60_000, ..request("slow") });
    tokio::select! {
        _ = call => panic!("it takes a minute"),
        () = server.until_busy() => {}
    }
    server.until_idle().await;
    assert_eq!(channel.reports().borrow().endpoints[0].load.in_flight(), 0);
}

#[tokio::test]
async fn a_refused_connection_fails_calls_with_a_status_that_says_so_or_is_waited_out() {
    let server = Server::start().await;
    let address = server.address;
    server.stop().await;
    let channel = round_robin_at(address);
    let mut client = EchoClient::new(channel.clone());
    let status = client.unary(request("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(&address.to_string()) && status.message().contains("refused"), "{status:?}");

    let mut patient = Request::new(request("y"));
    patient.extensions_mut().insert(evenkeel_channel::WaitForReady(true));
    let waiting = tokio::spawn(async move { client.unary(patient).await });
    let _server = Server::start_at(address).await;
    assert_eq!(waiting.await.unwrap().unwrap().into_inner().message, "y");
}

fn round_robin_at(address: std::net::SocketAddr) -> Channel {
    Channel::builder(address.to_string()).policy("round_robin").build().unwrap()
}

#[tokio::test]
async fn a_graceful_shutdown_fails_no_call() {
    let (staying, leaving) = (Server::start().await, Server::start().await);
    let channel = round_robin(&[&staying, &leaving]);
    ready(&channel, 2).await;
    let client = EchoClient::new(channel);
    let calls = tokio::spawn(async move {
        for i in 0..2_000_u32 {
            client.clone().unary(request("x")).await.map_err(|status| format!("call {i}: {status}"))?;
        }
        Ok::<_, String>(())
    });
    leaving.until_calls(200).await;
    leaving.stop().await;
    calls.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_killed_connection_is_retried_where_the_config_says_so() {
    let (staying, mut dying) = (Server::start().await, Server::start().await);
    let config = r#"{"loadBalancingConfig":[{"round_robin":{}}],"methodConfig":[{"name":[{}],"retryPolicy":
        {"maxAttempts":3,"initialBackoff":"0.01s","maxBackoff":"0.1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}]}"#;
    let target = servers::target(&[&staying, &dying]);
    let channel = Channel::builder(target).service_config(config).unwrap().build().unwrap();
    ready(&channel, 2).await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut client = EchoClient::new(channel.clone());
            tokio::spawn(async move { client.unary(EchoRequest { delay_ms: 300, ..request("x") }).await })
        })
        .collect();
    dying.until_busy().await;
    dying.kill();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(staying.calls(), 20);
}

#[tokio::test]
async fn a17_an_unhealthy_server_gets_no_new_calls_until_it_is_well() {
    let (well, ill) = (Server::start().await, Server::start().await);
    let target = servers::target(&[&well, &ill]);
    let check = HealthCheck { service: String::new(), unknown: UnknownService::IsUnhealthy };
    let channel = Channel::builder(target).policy("round_robin").health_check(check).build().unwrap();
    ready(&channel, 2).await;
    ill.health.set("", evenkeel_health::ServingStatus::NotServing);
    ready(&channel, 1).await;
    let before = ill.calls();
    let mut client = EchoClient::new(channel.clone());
    for _ in 0..50 {
        client.unary(request("x")).await.unwrap();
    }
    assert_eq!((well.calls(), ill.calls()), (50, before));
    ill.health.set("", evenkeel_health::ServingStatus::Serving);
    ready(&channel, 2).await;
    for _ in 0..50 {
        client.unary(request("x")).await.unwrap();
    }
    assert_eq!(ill.calls(), before + 25);
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_never_ready() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start().await;
    let target = format!("{},{}", silent.local_addr().unwrap(), server.address);
    let channel = Channel::builder(target).policy("round_robin").build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    for _ in 0..20 {
        client.unary(request("x")).await.unwrap();
    }
    assert_eq!(server.calls(), 20);
}

#[tokio::test]
async fn max_concurrent_streams_of_one_queues_calls_and_fails_none() {
    let server = Server::start_with(|builder| builder.max_concurrent_streams(1)).await;
    // A Watch would take the only stream, so that there is none for calls.
    let check = HealthCheck { service: String::new(), unknown: UnknownService::IsUnhealthy };
    let channel = Channel::builder(servers::target(&[&server])).policy("round_robin").health_check(check);
    let channel = channel.build().unwrap();
    ready(&channel, 1).await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut client = EchoClient::new(channel.clone());
            tokio::spawn(async move { client.unary(request("x")).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.most_at_once(), 1);
}

#[tokio::test]
async fn unix_sockets_are_reached_by_path() {
    let path = std::env::temp_dir().join(format!("evenkeel-channel-{}.sock", std::process::id()));
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (_reporter, health) = evenkeel_health::service();
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let server = tokio::spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));

    let channel = Channel::builder(format!("unix:{}", path.display())).build().unwrap();
    let mut client = evenkeel_proto::health::health_client::HealthClient::new(channel);
    let answer = client.check(evenkeel_proto::health::HealthCheckRequest::default()).await;
    server.abort();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(answer.unwrap().into_inner().status, 1, "SERVING");
}

#[tokio::test]
async fn a_resolver_of_ones_own_changes_endpoints_and_config_under_running_calls() {
    use evenkeel_channel::naming::{FailureKind, Resolution, ResolveError, Resolver, Updates};

    struct Script(tokio::sync::mpsc::UnboundedReceiver<Resolution>);
    impl Resolver for Script {
        fn run(mut self: Box<Self>, updates: Updates) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async move {
                while let Some(resolution) = self.0.recv().await {
                    updates.send(Ok(resolution));
                }
            })
        }
    }

    let servers = [Server::start().await, Server::start().await];
    let endpoint = |server: &Server| evenkeel_channel::balance::Endpoint::new(server.address);
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    let channel = Channel::builder("scripted").resolver(Box::new(Script(receive))).build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    let mut reports = channel.reports();

    send.send(Resolution::new(vec![endpoint(&servers[0])])).unwrap();
    client.unary(request("x")).await.unwrap();
    assert_eq!(reports.borrow().policy, "pick_first");

    let both = Resolution::new(servers.iter().map(endpoint).collect());
    let config = r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#;
    send.send(both.clone().with_service_config(config)).unwrap();
    ready(&channel, 2).await;
    reports.wait_for(|report| report.policy == "round_robin").await.unwrap();
    while servers[1].calls() == 0 {
        client.unary(request("x")).await.unwrap();
    }

    // A config that is refused leaves the one before in force, and says so (gRFC A21).
    send.send(both.with_service_config(r#"{"loadBalancingConfig":[{"nobody_has_it":{}}]}"#)).unwrap();
    let report = reports.wait_for(|report| report.config_error.is_some()).await.unwrap().clone();
    assert_eq!(report.policy, "round_robin");
    assert!(report.config_error.as_ref().unwrap().contains("nobody_has_it"));

    // So does one that the resolver itself could not make out, such as a malformed TXT record.
    let mut last = Resolution::new(vec![endpoint(&servers[1])]);
    let malformed = ResolveError::new(FailureKind::Invalid, "a malformed record");
    last.service_config = Some(Err(malformed));
    send.send(last).unwrap();
    let report = reports.wait_for(|report| report.endpoints.len() == 1).await.unwrap().clone();
    assert_eq!((report.policy.as_str(), report.config_error.as_deref()), ("round_robin", Some("a malformed record")));

    send.send(Resolution::new(vec![endpoint(&servers[1])])).unwrap();
    reports.wait_for(|report| report.endpoints.len() == 1).await.unwrap();
    let before = servers[1].calls();
    for _ in 0..10 {
        client.unary(request("x")).await.unwrap();
    }
    assert_eq!(servers[1].calls(), before + 10);
}

#[tokio::test]
async fn the_channel_explains_which_endpoint_is_out_and_why() {
    let (server, mut gone) = (Server::start().await, Server::start().await);
    let channel = round_robin(&[&server, &gone]);
    assert_eq!(channel.connectivity(), Connectivity::Idle);
    ready(&channel, 2).await;
    let lost = gone.address;
    gone.kill();
    let mut reports = channel.reports();
    let is_out = |report: &std::sync::Arc<evenkeel_channel::Report>| {
        report.endpoints.iter().any(|endpoint| endpoint.state.service == Connectivity::TransientFailure)
    };
    tokio::time::timeout(Duration::from_secs(10), reports.wait_for(is_out)).await.expect("in time").unwrap();

    let explanation = channel.explain().await.unwrap();
    let text = explanation.to_string();
    assert!(text.contains("READY, 1 of 2 endpoints ready") && text.contains("round_robin READY"), "{text}");
    assert!(text.contains(&format!("endpoint {lost}: ")) && text.contains("→ TRANSIENT_FAILURE"), "{text}");
    assert_eq!(explanation.forgotten, 0);
    assert_eq!(channel.connectivity_other_than(Connectivity::Idle).await, Connectivity::Ready);
}
