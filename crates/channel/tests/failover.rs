//! Standby targets: they take over when the first target is gone, give back gracefully, and serve by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use evenkeel_channel::{
    BuildError, Channel, Report,
    balance::{Connectivity, policy::FailoverConfig},
};
use evenkeel_proto::demo::echo_client::EchoClient;
use servers::{Server, request, target};

/// Long enough for a machine that has much else to do.
const IN_TIME: Duration = Duration::from_secs(30);

async fn until_ready(channel: &Channel, ready: usize) {
    channel.connect();
    let count = |report: &Arc<Report>| {
        report.endpoints.iter().filter(|endpoint| endpoint.state.service == Connectivity::Ready).count()
    };
    let mut reports = channel.reports();
    let came_true = tokio::time::timeout(IN_TIME, reports.wait_for(|report| count(report) == ready)).await;
    came_true.expect("in time").unwrap();
}

/// Who answers each of 40 calls, all of which have to end well.
async fn backends(channel: &Channel) -> BTreeSet<String> {
    let mut client = EchoClient::new(channel.clone());
    let mut backends = BTreeSet::new();
    for _ in 0..40 {
        backends.insert(client.unary(request("x")).await.unwrap().into_inner().backend);
    }
    backends
}

fn names(servers: &[&Server]) -> BTreeSet<String> {
    servers.iter().map(|server| server.address.to_string()).collect()
}

/// Makes calls, all of which have to end well, until the decision log says so.
async fn until_decided(channel: &Channel, what: &str) {
    let decided = async {
        loop {
            backends(channel).await;
            let explanation = channel.explain().await.unwrap();
            if explanation.decisions.iter().any(|decision| decision.to_string().contains(what)) {
                return;
            }
        }
    };
    let came_true = tokio::time::timeout(IN_TIME, decided).await;
    assert!(came_true.is_ok(), "{what:?} is not in the log: {}", channel.explain().await.unwrap());
}

fn channel(first: &[&Server], standby: &[&Server], policy: &str) -> Channel {
    let config = format!(r#"{{"loadBalancingConfig":[{policy}]}}"#);
    let builder = Channel::builder(target(first)).standby(target(standby));
    builder.service_config(&config).unwrap().build().unwrap()
}

#[tokio::test]
async fn a_standby_takes_over_without_a_failed_call_and_gives_back() {
    let (mut one, mut two, standby) = (Server::start().await, Server::start().await, Server::start().await);
    let policy = r#"{"failover":{"failbackDelay":"0.2s","failbackRamp":"0.4s","childPolicy":[{"round_robin":{}}]}}"#;
    let channel = channel(&[&one, &two], &[&standby], policy);
    until_ready(&channel, 3).await;
    assert_eq!(backends(&channel).await, names(&[&one, &two]));

    one.kill();
    two.kill();
    until_ready(&channel, 1).await;
    assert_eq!(backends(&channel).await, names(&[&standby]));

    let (one, two) = (Server::start_at(one.address).await, Server::start_at(two.address).await);
    until_ready(&channel, 3).await;
    until_decided(&channel, "failover: calls return to group 0 over 400ms").await;
    until_decided(&channel, "failover: calls have returned to group 0").await;
    assert_eq!(backends(&channel).await, names(&[&one, &two]));
}

#[tokio::test]
async fn an_operator_switches_to_the_standby_and_back() {
    let (first, standby) = (Server::start().await, Server::start().await);
    let channel = channel(&[&first], &[&standby], r#"{"round_robin":{}}"#);
    until_ready(&channel, 2).await;
    let policies = channel.explain().await.unwrap().policies.to_string();
    assert!(policies.contains("failover READY") && policies.contains("group 1: round_robin READY"), "{policies}");
    assert_eq!(backends(&channel).await, names(&[&first]));
    channel.switch_to(Some(1));
    until_decided(&channel, "failover: switched to group 1 by hand").await;
    assert_eq!(backends(&channel).await, names(&[&standby]));
    channel.switch_to(None);
    until_decided(&channel, "failover: the switch by hand is over").await;
    assert_eq!(backends(&channel).await, names(&[&first]));
}

#[tokio::test]
async fn a_target_that_cannot_be_resolved_leaves_the_standby() {
    let standby = Server::start().await;
    let builder = Channel::builder("file:///nonexistent/endpoints.json").standby(target(&[&standby]));
    let channel = builder.authority("echo").build().unwrap();
    until_ready(&channel, 1).await;
    assert_eq!(backends(&channel).await, names(&[&standby]));
    let explanation = channel.explain().await.unwrap();
    assert!(explanation.report.resolver_error.as_ref().unwrap().contains("/nonexistent/endpoints.json"));
    assert!(explanation.policies.to_string().contains("group 1: least_request READY"), "{explanation}");
}

#[tokio::test]
async fn settings_that_would_do_nothing_are_refused() {
    let settings = FailoverConfig::default();
    let by = |policy: &str| Channel::builder("127.0.0.1:1").policy(policy).failover(settings.clone()).build();
    assert!(matches!(by("priority"), Err(BuildError::Failover)));
    assert_eq!(by("round_robin").unwrap().reports().borrow().policy, "failover");
}

#[tokio::test]
async fn a_standby_that_is_no_target_is_refused() {
    let refused = Channel::builder("127.0.0.1:1").standby("nosuch:///x:y:z").build().unwrap_err();
    assert!(refused.to_string().contains("nosuch"), "{refused}");
}
