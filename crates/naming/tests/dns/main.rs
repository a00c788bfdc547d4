//! The DNS resolver against a real server on loopback. No test sleeps: each waits for an outcome or for a question.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod server;

use std::{net::IpAddr, time::Duration};

use evenkeel_naming::{FailureKind, Options, Outcome, Resolution, ResolveError, Resolving, Target, start};
use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};

use crate::server::{DnsServer, Reply, services, texts};

/// Fast enough for a test that waits for many look-ups.
const FAST: Duration = Duration::from_millis(10);
/// Longer than a test: nothing that takes so long may be waited for.
const NEVER: Duration = Duration::from_secs(3600);

fn options(server: &DnsServer) -> Options {
    let mut options = Options::default();
    options.servers = vec![server.address];
    // Not those of the machine.
    options.search = Some(Vec::new());
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

fn resolution(outcome: Option<Outcome>) -> Resolution {
    outcome.expect("still resolving").expect("a resolution")
}

/// The endpoints of an outcome as text.
fn endpoints(outcome: Option<Outcome>) -> Vec<String> {
    resolution(outcome).endpoints.iter().map(ToString::to_string).collect()
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
    server.set_kind("web.example", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
    server.set_kind("web.example", RecordType::A, addresses(0, &["10.0.0.2"]));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.2:80", "[::1]:80"]);
    server.set_kind("web.example", RecordType::AAAA, addresses(0, &[]));
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
    let many: Vec<IpAddr> = (0..3000_u32).map(|i| IpAddr::from((0x0a00_0000 + i).to_be_bytes())).collect();
    server.set("big.example", Reply::Addresses { ttl: 60, addresses: many.clone() });
    let mut options = options(&server);
    // Unoptimised builds take long for it.
    options.lookup_timeout = Duration::from_secs(60);
    let mut resolving = resolve("big.example:80", &options);
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
    assert_eq!(server.questions().udp, before + 3, "A, AAAA and TXT");
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

const ROUND_ROBIN: &str = r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#;

/// The text of a record with one choice, for everybody.
fn config(json: &str) -> String {
    format!(r#"grpc_config=[{{"serviceConfig":{json}}}]"#)
}

#[tokio::test]
async fn a_service_config_comes_with_the_endpoints_and_changes_with_them() {
    let server = DnsServer::start().await;
    server.set("web.example", addresses(0, &["10.0.0.1"]));
    let choices = format!(
        r#"grpc_config=[{{"clientLanguage":["go"],"serviceConfig":{{}}}},{{"percentage":0,"serviceConfig":{{}}}},
            {{"clientLanguage":["Rust"],"percentage":100,"serviceConfig":{ROUND_ROBIN}}}]"#
    );
    server.set_kind("_grpc_config.web.example", RecordType::TXT, texts(0, &["v=spf1 -all", &choices]));
    let mut resolving = resolve("web.example:80", &options(&server));
    let both = resolution(resolving.next().await);
    assert_eq!(both.service_config, Some(Ok(ROUND_ROBIN.to_owned())));
    assert_eq!(both.endpoints.len(), 1);
    server.set_kind("_grpc_config.web.example", RecordType::TXT, texts(0, &[&config("{}")]));
    let changed = resolution(resolving.next().await);
    assert_eq!((changed.service_config, changed.endpoints), (Some(Ok("{}".to_owned())), both.endpoints));
}

#[tokio::test]
async fn a_service_config_that_fails_neither_fails_nor_empties_the_list() {
    let server = DnsServer::start().await;
    let mut options = options(&server);
    options.lookup_timeout = Duration::from_millis(400);
    for reply in [Reply::Code(ResponseCode::ServFail), Reply::Silence] {
        server.set("web.example", addresses(0, &["10.0.0.1"]));
        server.set_kind("_grpc_config.web.example", RecordType::TXT, reply.clone());
        let mut resolving = resolve("web.example:80", &options);
        let first = resolution(resolving.next().await);
        assert_eq!((first.endpoints.len(), first.service_config), (1, None), "{reply:?}");
        // It is found as soon as it is there, kept while it fails again, and the list changes meanwhile.
        server.set_kind("_grpc_config.web.example", RecordType::TXT, texts(0, &[&config(ROUND_ROBIN)]));
        assert_eq!(resolution(resolving.next().await).service_config, Some(Ok(ROUND_ROBIN.to_owned())));
        server.set_kind("_grpc_config.web.example", RecordType::TXT, reply);
        server.set("web.example", addresses(0, &["10.0.0.2"]));
        let last = resolution(resolving.next().await);
        assert_eq!(last.endpoints[0].to_string(), "10.0.0.2:80");
        assert_eq!(last.service_config, Some(Ok(ROUND_ROBIN.to_owned())));
    }
}

#[tokio::test]
async fn a_malformed_service_config_is_told_beside_the_endpoints() {
    let server = DnsServer::start().await;
    server.set("web.example", addresses(60, &["10.0.0.1"]));
    let record = r#"grpc_config=[{"serviceConfig":{}},{"unknown":1,"serviceConfig":{}}]"#;
    server.set_kind("_grpc_config.web.example", RecordType::TXT, texts(60, &[record]));
    let found = resolution(resolve("web.example:80", &options(&server)).next().await);
    assert_eq!(found.endpoints.len(), 1);
    let error = found.service_config.unwrap().unwrap_err();
    assert_eq!(error.kind, FailureKind::Invalid);
    assert!(error.message.contains("`_grpc_config.web.example`") && error.message.contains("unknown"), "{error}");
}

#[tokio::test]
async fn no_service_config_is_looked_up_where_none_is_wanted() {
    let server = DnsServer::start().await;
    for name in ["a.example", "b.example"] {
        server.set(name, addresses(60, &["10.0.0.1"]));
    }
    let mut without = options(&server);
    without.service_config = false;
    endpoints(resolve("a.example:80", &without).next().await);
    let with = options(&server);
    endpoints(resolve("a.example:80,b.example:80", &with).next().await);
    for local in ["localhost:80", "10.0.0.1:80", "[::1]:80"] {
        endpoints(resolve(local, &with).next().await);
    }
    let log = server.log();
    assert!(log.iter().all(|(_, kind)| matches!(kind, RecordType::A | RecordType::AAAA)), "{log:?}");
    endpoints(resolve("a.example:80", &with).next().await);
    assert_eq!(server.log().last().unwrap(), &("_grpc_config.a.example".to_owned(), RecordType::TXT));
}

/// Address, rank and weight of every endpoint.
fn ranked(outcome: Option<Outcome>) -> Vec<(String, u32, u32)> {
    let endpoints = resolution(outcome).endpoints;
    endpoints.iter().map(|endpoint| (endpoint.to_string(), endpoint.priority, endpoint.weight)).collect()
}

#[tokio::test]
async fn a_service_is_its_srv_records_and_the_addresses_of_their_targets() {
    let server = DnsServer::start().await;
    let records = [(20, 0, 7001, "spare.example."), (10, 5, 7002, "one.example."), (10, 3, 7003, "two.example.")];
    server.set_kind("_grpc._tcp.echo.example", RecordType::SRV, services(0, &records));
    server.set("spare.example", addresses(60, &["10.0.0.1"]));
    server.set("one.example", addresses(60, &["10.0.0.2", "fd00::2"]));
    server.set("two.example", addresses(60, &["10.0.0.3"]));
    server.set_kind("_grpc_config._grpc._tcp.echo.example", RecordType::TXT, texts(60, &[&config("{}")]));
    let mut resolving = resolve("dns:///_grpc._tcp.echo.example", &options(&server));
    let expected =
        [("10.0.0.2:7002", 0, 5), ("10.0.0.3:7003", 0, 3), ("[fd00::2]:7002", 0, 5), ("10.0.0.1:7001", 1, 1)];
    let expected = expected.map(|(address, rank, weight)| (address.to_owned(), rank, weight));
    let first = resolving.next().await;
    assert_eq!(first.clone().unwrap().unwrap().service_config, Some(Ok("{}".to_owned())));
    assert_eq!(ranked(first), expected);
    // The TTL of the SRV records is 0, so that what they no longer name goes though its address holds for a minute.
    server.set_kind("_grpc._tcp.echo.example", RecordType::SRV, services(0, &records[..1]));
    assert_eq!(ranked(resolving.next().await), [("10.0.0.1:7001".to_owned(), 0, 1)]);
}

#[tokio::test]
async fn a_service_that_fails_or_is_gone_keeps_the_list() {
    let server = DnsServer::start().await;
    let name = "_grpc._tcp.echo.example";
    let good = services(0, &[(1, 1, 7001, "one.example.")]);
    server.set("one.example", addresses(0, &["10.0.0.1"]));
    server.set_kind(name, RecordType::SRV, good.clone());
    let mut resolving = resolve(name, &options(&server));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:7001"]);
    for (reply, kind, says) in [
        (Reply::Code(ResponseCode::ServFail), FailureKind::Server, "answered SERVFAIL"),
        (Reply::Code(ResponseCode::NXDomain), FailureKind::NotFound, "NXDOMAIN"),
        (services(0, &[]), FailureKind::NoAddresses, "has no SRV record with a target"),
        (services(0, &[(1, 1, 7001, ".")]), FailureKind::NoAddresses, "has no SRV record with a target"),
        (services(0, &[(1, 1, 7001, "gone.example.")]), FailureKind::NoAddresses, "none of the targets"),
    ] {
        server.set_kind(name, RecordType::SRV, reply);
        let error = failure(resolving.next().await);
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(name) && error.message.contains(says), "{error}");
        server.set_kind(name, RecordType::SRV, good.clone());
        assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:7001"]);
    }
    server.set("one.example", Reply::Code(ResponseCode::ServFail));
    assert!(failure(resolving.next().await).message.contains("`one.example`"));
}

#[tokio::test]
async fn a_service_of_many_targets_is_found_whole() {
    let server = DnsServer::start().await;
    let names: Vec<String> = (0..100).map(|i| format!("pod-{i}.example.")).collect();
    let records: Vec<_> = names.iter().map(|name| (0, 1, 80, name.as_str())).collect();
    server.set_kind("_grpc._tcp.echo.example", RecordType::SRV, services(60, &records));
    for (i, name) in names.iter().enumerate() {
        server.set(name.trim_end_matches('.'), addresses(60, &[&format!("10.0.0.{i}")]));
    }
    let mut options = options(&server);
    options.lookup_timeout = Duration::from_secs(60);
    assert_eq!(endpoints(resolve("_grpc._tcp.echo.example", &options).next().await).len(), 100);
}

#[tokio::test]
async fn names_are_looked_up_in_the_search_list_unless_they_end_in_a_dot() {
    let server = DnsServer::start().await;
    server.set("web.ns.example", addresses(60, &["10.0.0.1"]));
    server.set("web", addresses(60, &["10.0.0.2"]));
    server.set_kind("_grpc_config.web.ns.example", RecordType::TXT, texts(60, &[&config("{}")]));
    server.set_kind("_grpc._tcp.web.ns.example", RecordType::SRV, services(60, &[(0, 0, 7001, "web.")]));
    let mut options = options(&server);
    options.search = Some(vec!["other.example".to_owned(), "ns.example".to_owned()]);
    options.ndots = Some(5);
    let searched = resolution(resolve("web:80", &options).next().await);
    assert_eq!(searched.endpoints[0].to_string(), "10.0.0.1:80");
    assert_eq!(searched.service_config, Some(Ok("{}".to_owned())), "of the name that was found");
    assert_eq!(endpoints(resolve("web.:80", &options).next().await), ["10.0.0.2:80"]);
    let service = endpoints(resolve("_grpc._tcp.web", &options).next().await);
    assert_eq!(service, ["10.0.0.2:7001"], "the targets of records are absolute");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_interface_that_is_missing_is_an_error_and_one_that_is_there_a_number() {
    let found = endpoints(resolve("dns:///[fe80::1%lo]:80", &Options::default()).next().await);
    let number = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
    assert_eq!(found, [format!("[fe80::1%{}]:80", number.trim())]);
    let error = failure(resolve("ipv6:[fe80::1%25nosuch]:80", &Options::default()).next().await);
    assert_eq!(error.kind, FailureKind::Unreachable);
    assert!(error.message.contains("network interface `nosuch`"), "{error}");
}
