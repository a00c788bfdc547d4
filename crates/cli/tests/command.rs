//! The command as its users run it: a process, its output and its exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../channel/tests/servers/mod.rs"]
mod servers;

use std::{net::SocketAddr, process::Stdio, time::Duration};

use evenkeel_health::ServingStatus;
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use servers::{Server, request};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn evenkeel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs to the end: exit code, standard output, standard error.
async fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = tokio::time::timeout(PATIENCE, evenkeel(arguments).output()).await.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a line comes").unwrap().expect("there is a line")
}

fn lines(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args([format!("-{name}"), pid]).status().await.unwrap().success());
}

async fn exit_code(child: &mut Child) -> i32 {
    tokio::time::timeout(PATIENCE, child.wait()).await.expect("it exits").unwrap().code().unwrap()
}

#[tokio::test]
async fn check_prints_the_status_and_exits_by_it() {
    let server = Server::start().await;
    let address = server.address.to_string();
    assert_eq!(run(&["check", &address]).await, (0, "SERVING\n".into(), String::new()));

    let (code, _, error) = run(&["check", &address, "--service", "nobody.Knows"]).await;
    assert_eq!((code, error.contains("does not know the service \"nobody.Knows\"")), (3, true), "{error}");

    server.health.set("", ServingStatus::NotServing);
    assert_eq!(run(&["check", &address]).await, (4, "NOT_SERVING\n".into(), String::new()));

    server.stop().await;
    let (code, _, error) = run(&["check", &address]).await;
    assert_eq!((code, error.contains("refused")), (2, true), "{error}");
}

#[tokio::test]
async fn check_says_what_is_wrong_with_its_arguments() {
    let (code, _, error) = run(&["check", "dsn:///x"]).await;
    assert_eq!((code, error.contains("did you mean `dns`")), (1, true), "{error}");
    assert_eq!(run(&["check"]).await.0, 1);
    assert_eq!(run(&["check", "--help"]).await.0, 0);
}

#[tokio::test]
async fn check_connects_within_its_time_out_or_says_that_it_did_not() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (code, _, error) = run(&["check", &address, "--connect-timeout", "100ms"]).await;
    assert_eq!((code, error.contains("not connected within 100ms")), (2, true), "{error}");
}

#[tokio::test]
async fn check_watches_until_it_is_interrupted() {
    let server = Server::start().await;
    let mut child = evenkeel(&["check", &server.address.to_string(), "--watch"]).spawn().unwrap();
    let mut output = lines(&mut child);
    assert_eq!(next_line(&mut output).await, "SERVING");
    server.health.set("", ServingStatus::NotServing);
    assert_eq!(next_line(&mut output).await, "NOT_SERVING");
    signal(&child, "INT").await;
    assert_eq!(exit_code(&mut child).await, 4);
}

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
