//! Long lists and resolvers that fail: calls go on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use evenkeel_channel::{
    Channel, Report,
    balance::{Connectivity, Endpoint},
    naming::{FailureKind, Resolution, ResolveError, Resolver, Updates},
};
use evenkeel_proto::demo::echo_client::EchoClient;
use servers::{Server, request};
use tokio::sync::mpsc;

type Answer = Result<Resolution, ResolveError>;

/// Says what the test tells it.
struct Told(mpsc::UnboundedReceiver<Answer>);

impl Resolver for Told {
    fn run(mut self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Some(answer) = self.0.recv().await {
                updates.send(answer);
            }
        })
    }
}

fn told() -> (mpsc::UnboundedSender<Answer>, Channel) {
    let (tell, told) = mpsc::unbounded_channel();
    (tell, Channel::builder("told").policy("round_robin").resolver(Box::new(Told(told))).build().unwrap())
}

async fn until(channel: &Channel, condition: impl Fn(&Report) -> bool) -> Arc<Report> {
    let mut reports = channel.reports();
    let report = tokio::time::timeout(Duration::from_secs(60), reports.wait_for(|report| condition(report))).await;
    Arc::clone(&*report.expect("in time").unwrap())
}

#[tokio::test]
async fn calls_go_on_while_ten_thousand_endpoints_come_and_go() {
    const MANY: u32 = 10_000;
    let server = Server::start().await;
    let (tell, channel) = told();
    // Addresses of this machine where nobody listens, and one server among them.
    let list = |from: u32| {
        let nobody = (from..from + MANY).map(|n| SocketAddr::from((Ipv4Addr::from(0x7F01_0000 + n), 1)));
        Ok(Resolution::new(nobody.chain([server.address]).map(Endpoint::new).collect()))
    };
    tell.send(list(0)).unwrap();
    let mut client = EchoClient::new(channel.clone());
    client.unary(request("first")).await.unwrap();
    let all_known = |report: &Report| report.endpoints.len() == MANY as usize + 1;
    until(&channel, |report| all_known(report) && report.connectivity == Connectivity::Ready).await;
    for update in 1..=10 {
        tell.send(list(update * MANY / 100)).unwrap();
        for _ in 0..20 {
            client.unary(request("x")).await.unwrap();
        }
    }
    let newest = SocketAddr::from((Ipv4Addr::from(0x7F01_0000 + MANY + MANY / 10 - 1), 1));
    until(&channel, |report| report.endpoints.iter().any(|endpoint| endpoint.address == newest.into())).await;
    assert_eq!(server.calls(), 201);
}

#[tokio::test]
async fn a_resolver_that_fails_for_long_takes_nothing_away_and_a_first_failure_ends_with_the_first_list() {
    let server = Server::start().await;
    let (tell, channel) = told();
    let failure = |n: u32| Err(ResolveError::new(FailureKind::Unreachable, format!("failure {n}")));
    let mut client = EchoClient::new(channel.clone());

    tell.send(failure(0)).unwrap();
    let refused = client.unary(request("early")).await.unwrap_err();
    assert!(refused.message().contains("failure 0"), "{refused}");

    tell.send(Ok(Resolution::new(vec![Endpoint::new(server.address)]))).unwrap();
    until(&channel, |report| report.connectivity == Connectivity::Ready).await;
    for n in 1..=300 {
        tell.send(failure(n)).unwrap();
        client.unary(request("x")).await.unwrap();
    }
    let report = until(&channel, |report| report.resolver_error.as_deref() == Some("failure 300")).await;
    assert_eq!((report.endpoints.len(), report.connectivity), (1, Connectivity::Ready));
    tell.send(Ok(Resolution::new(vec![Endpoint::new(server.address)]))).unwrap();
    until(&channel, |report| report.resolver_error.is_none()).await;
}
