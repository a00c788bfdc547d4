//! The DNS resolver against a real server on loopback. No test sleeps: each waits for an outcome or for a question.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod server;

use std::{net::IpAddr, time::Duration};

use evenkeel_naming::{FailureKind, Options, Outcome, ResolveError, Resolving, Target, start};
use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};

use crate::server::{DnsServer, Reply};

/// Fast enough for a test that waits for many look-ups.
const FAST: Duration = Duration::from_millis(10);
/// Longer than a test: nothing that takes so long may be waited for.
const NEVER: Duration = Duration::from_secs(3600);

fn options(server: &DnsServer) -> Options {
    let mut options = Options::default();
    options.servers = vec![server.address];
    options.min_interval = FAST;
    options.backoff_initial = FAST;
    options.backoff_max = FAST;
    options
}

fn resolve(target: &str, options: &Options) -> Resolving {
    start(target.parse::<Target>().unwrap().resolver(options))
}

fn addresses(ttl: u32, addresses: &[&str]) -> Reply {
    Reply::Addresses { ttl, addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect() }
}

/// The endpoints of an outcome as text.
fn endpoints(outcome: Option<Outcome>) -> Vec<String> {
    let resolution = outcome.expect("still resolving").expect("a resolution");
    resolution.endpoints.iter().map(ToString::to_string).collect()
}

fn failure(outcome: Option<Outcome>) -> ResolveError {
    outcome.expect("still resolving").expect_err("a failure")
}

#[tokio::test]
async fn both_families_resolve_sorted_and_without_duplicates() {
    let server = DnsServer::start().await;
    server.set("web.example", addresses(60, &["10.0.0.2", "::2", "10.0.0.1", "10.0.0.2", "::1"]));
    let mut resolving = resolve(&format!("dns://{}/web.example:80", server.address), &Options::default());
    let expected = ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80", "[::2]:80"];
    assert_eq!(endpoints(resolving.next().await), expected);
}

#[tokio::test]
async fn a_changed_answer_arrives_when_the_ttl_ends_and_a_reordered_one_does_not() {
    let server = DnsServer::start().await;
    // TTL 0 is raised to the shortest interval: the loop neither spins nor stops.
    server.set("web.example", addresses(0, &["10.0.0.1", "10.0.0.2"]));
    let mut resolving = resolve("web.example:80", &options(&server));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80", "10.0.0.2:80"]);
    server.set("web.example", addresses(0, &["10.0.0.2", "10.0.0.1"]));
    server.asked(4).await;
    server.set("web.example", addresses(0, &["10.0.0.3"]));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.3:80"], "the reordered answer was no news");
}

/// Every way to have no answer is one error, then one recovery, and never an empty list.
async fn keeps_the_list_through(reply: Reply, kind: FailureKind, says: &str) {
    let server = DnsServer::start().await;
    server.set("web.example", addresses(0, &["10.0.0.1"]));
    let mut options = options(&server);
    options.lookup_timeout = Duration::from_millis(500);
    let mut resolving = resolve("web.example:80", &options);
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80"]);
    server.set("web.example", reply);
    let error = failure(resolving.next().await);
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.message.contains("`web.example`") && error.message.contains(says), "{error}");
    // It keeps asking, and says nothing new.
    server.asked(4).await;
    server.set("web.example", addresses(0, &["10.0.0.1"]));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn servfail_keeps_the_list() {
    keeps_the_list_through(Reply::Code(ResponseCode::ServFail), FailureKind::Server, "answered SERVFAIL").await;
}

#[tokio::test]
async fn nxdomain_keeps_the_list() {
    keeps_the_list_through(Reply::Code(ResponseCode::NXDomain), FailureKind::NotFound, "NXDOMAIN").await;
}

#[tokio::test]
async fn an_empty_answer_keeps_the_list() {
    keeps_the_list_through(addresses(0, &[]), FailureKind::NoAddresses, "no A or AAAA record").await;
}

#[tokio::test]
async fn a_silent_server_keeps_the_list() {
    keeps_the_list_through(Reply::Silence, FailureKind::TimedOut, "no answer from DNS server 127.0.0.1:").await;
}

#[tokio::test]
async fn a_name_that_fails_at_first_is_retried() {
    let server = DnsServer::start().await;
    let mut resolving = resolve("web.example:80", &options(&server));
    assert_eq!(failure(resolving.next().await).kind, FailureKind::NotFound);
    server.set("web.example", addresses(60, &["10.0.0.1"]));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn a_family_that_fails_keeps_its_addresses_while_the_other_changes() {
    let server = DnsServer::start().await;
    server.set("web.example", addresses(0, &["10.0.0.1", "::1"]));
    let mut resolving = resolve("web.example:80", &options(&server));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80", "[::1]:80"]);
    server.set_family("web.example", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
    server.set_family("web.example", RecordType::A, addresses(0, &["10.0.0.2"]));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.2:80", "[::1]:80"]);
    server.set_family("web.example", RecordType::AAAA, addresses(0, &[]));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.2:80"], "a clear answer that there is none counts");
}

#[tokio::test]
async fn a_flapping_name_shows_each_state_and_never_an_empty_list() {
    let server = DnsServer::start().await;
    let mut resolving = resolve("web.example:80", &options(&server));
    for round in 0..10 {
        server.set("web.example", Reply::Code(ResponseCode::ServFail));
        loop {
            // The first round may begin with NXDOMAIN, asked for before the server was told.
            if failure(resolving.next().await).kind == FailureKind::Server {
                break;
            }
        }
        let ip = format!("10.0.0.{}", round % 2 + 1);
        server.set("web.example", addresses(0, &[&ip]));
        // One family may answer before the other recovers; the list is the same.
        assert_eq!(endpoints(resolving.next().await), [format!("{ip}:80")]);
    }
}

#[tokio::test]
async fn an_answer_too_large_for_udp_comes_over_tcp() {
    let server = DnsServer::start().await;
    let many: Vec<IpAddr> = (0..1000_u32).map(|i| IpAddr::from((0x0a00_0000 + i).to_be_bytes())).collect();
    server.set("big.example", Reply::Addresses { ttl: 60, addresses: many.clone() });
    let mut resolving = resolve("big.example:80", &options(&server));
    let expected: Vec<String> = many.iter().map(|ip| format!("{ip}:80")).collect();
    assert_eq!(endpoints(resolving.next().await), expected);
    assert!(server.questions().tcp > 0);
}

#[tokio::test]
async fn a_request_looks_up_before_the_ttl_ends() {
    let server = DnsServer::start().await;
    server.set("web.example", addresses(3600, &["10.0.0.1"]));
    let mut resolving = resolve("web.example:80", &options(&server));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80"]);
    server.set("web.example", addresses(3600, &["10.0.0.2"]));
    resolving.resolve_now();
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.2:80"]);
}

#[tokio::test]
async fn requests_wait_for_the_shortest_interval_and_for_backoff() {
    let server = DnsServer::start().await;
    server.set("good.example", addresses(0, &["10.0.0.1"]));
    let mut options = options(&server);
    (options.min_interval, options.backoff_initial, options.backoff_max) = (NEVER, NEVER, NEVER);
    let mut good = resolve("good.example:80", &options);
    let mut bad = resolve("bad.example:80", &options);
    endpoints(good.next().await);
    failure(bad.next().await);
    let before = server.questions().udp;
    for _ in 0..100 {
        good.resolve_now();
        bad.resolve_now();
        tokio::task::yield_now().await;
    }
    // A third name goes through the same server, so that its answer bounds the wait.
    endpoints(resolve("good.example:81", &options).next().await);
    assert_eq!(server.questions().udp, before + 2);
}

#[tokio::test]
async fn a_list_is_the_union_and_keeps_the_last_good_of_each_name() {
    let server = DnsServer::start().await;
    server.set("a.example", addresses(0, &["10.0.0.1", "10.0.0.9"]));
    server.set("b.example", Reply::Silence);
    let mut resolving = resolve("a.example:80,b.example:81,10.0.0.9:80", &options(&server));
    // What is known is published at once: first the literal, then the name that answers.
    let mut seen = endpoints(resolving.next().await);
    if seen == ["10.0.0.9:80"] {
        seen = endpoints(resolving.next().await);
    }
    assert_eq!(seen, ["10.0.0.1:80", "10.0.0.9:80"]);
    server.set("b.example", addresses(0, &["10.0.0.2"]));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80", "10.0.0.2:81", "10.0.0.9:80"]);
    server.set("a.example", Reply::Code(ResponseCode::ServFail));
    assert!(failure(resolving.next().await).message.contains("`a.example`"));
    server.set("b.example", addresses(0, &["10.0.0.3"]));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80", "10.0.0.3:81", "10.0.0.9:80"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_that_names_it() {
    // Bound and dropped: nobody listens.
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = Options::default();
    options.lookup_timeout = Duration::from_millis(300);
    let mut resolving = resolve(&format!("dns://{gone}/web.example:80"), &options);
    assert!(failure(resolving.next().await).message.contains(&gone.to_string()));
}
