//! The command as its users run it: a process, its output and its exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod process;
#[path = "../../channel/tests/servers/mod.rs"]
mod servers;

use std::net::SocketAddr;

use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use process::{evenkeel, exit_code, lines, next_line, run, signal};
use servers::{Server, request};
use tokio::process::Child;

/// A proxy that listens, and where.
async fn proxy(arguments: &[&str]) -> (Child, SocketAddr) {
    let mut child = evenkeel(&[&["proxy", "--listen", "127.0.0.1:0"], arguments].concat()).spawn().unwrap();
    let line = next_line(&mut lines(&mut child)).await;
    (child, line.strip_prefix("listening on ").unwrap().parse().unwrap())
}

async fn client(proxy: SocketAddr) -> EchoClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{proxy}")).unwrap();
    EchoClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn proxy_balances_and_drains_on_sigterm() {
    let servers = [Server::start().await, Server::start().await];
    let (mut child, address) = proxy(&[&servers::target(&servers.each_ref()), "--policy", "round_robin"]).await;
    let mut client = client(address).await;
    for server in &servers {
        // Whichever connects first gets the first calls.
        while server.calls() == 0 {
            client.unary(request("x")).await.unwrap();
        }
    }
    let mut calling = client.clone();
    let call = tokio::spawn(async move { calling.unary(EchoRequest { delay_ms: 500, ..request("slow") }).await });
    tokio::select! {
        () = servers[0].until_busy() => {}
        () = servers[1].until_busy() => {}
    }
    signal(&child, "TERM").await;
    assert_eq!(call.await.unwrap().unwrap().into_inner().message, "slow");
    assert_eq!(exit_code(&mut child).await, 0);
}

#[tokio::test]
async fn proxy_fails_over_to_its_standby() {
    let (mut first, standby) = (Server::start().await, Server::start().await);
    let (_child, address) =
        proxy(&[&servers::target(&[&first]), "--standby", &servers::target(&[&standby]), "--policy", "round_robin"])
            .await;
    let mut client = client(address).await;
    assert_eq!(client.unary(request("x")).await.unwrap().into_inner().backend, first.address.to_string());
    first.kill();
    // Calls that the first had taken may fail; those that come after do not.
    while standby.calls() == 0 {
        let _ = client.unary(request("x")).await;
    }
    assert_eq!(client.unary(request("x")).await.unwrap().into_inner().backend, standby.address.to_string());
}

#[tokio::test]
async fn proxy_reaches_backends_by_name() {
    let server = Server::start().await;
    let by_name = format!("dns:///localhost:{}", server.address.port());
    let (_child, address) = proxy(&[&by_name]).await;
    assert_eq!(client(address).await.unary(request("x")).await.unwrap().into_inner().message, "x");

    // The proxy's own health is its backends': the call is relayed like any other.
    assert_eq!(run(&["check", &address.to_string()]).await.0, 0);
}

#[tokio::test]
async fn proxy_says_what_is_wrong_with_its_arguments() {
    let file = std::env::temp_dir().join(format!("evenkeel-test-{}.json", std::process::id()));
    std::fs::write(&file, r#"{"methodConfig":[{"name":[{}],"timeout":"soon"}]}"#).unwrap();
    let (code, _, error) = run(&["proxy", "127.0.0.1:1", "--service-config", file.to_str().unwrap()]).await;
    std::fs::remove_file(&file).unwrap();
    assert_eq!((code, error.contains("methodConfig[0].timeout")), (1, true), "{error}");

    let (code, _, error) = run(&["proxy", "127.0.0.1:1", "--policy", "round_robbin"]).await;
    assert_eq!((code, error.contains("round_robin")), (1, true), "{error}");

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (code, _, error) = run(&["proxy", "127.0.0.1:1", "--listen", &taken.local_addr().unwrap().to_string()]).await;
    assert_eq!((code, error.contains("cannot listen on")), (1, true), "{error}");
}
