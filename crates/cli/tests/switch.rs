//! Standby groups of a proxy from a file, and the operator's switch, as its users run them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod process;
#[path = "../../channel/tests/servers/mod.rs"]
mod servers;

use std::{fs, net::SocketAddr, path::PathBuf};

use evenkeel_proto::demo::echo_client::EchoClient;
use process::{evenkeel, exit_code, lines, next_line, run, signal};
use servers::{Server, request};
use tokio::process::Child;
use tonic::transport::{Channel, Endpoint};

/// The proxies of a file, run by `evenkeel proxy --config`.
struct Proxies {
    child: Child,
    directory: PathBuf,
    /// Where the first of them listens.
    front: SocketAddr,
}

impl Proxies {
    async fn start(name: &str, toml: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("evenkeel-switch-{name}-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (file, socket) = (directory.join("shop.toml"), directory.join("shop.sock"));
        fs::write(&file, format!("control = \"{}\"\n{toml}", socket.display())).unwrap();
        let mut child = evenkeel(&["proxy", "--config", file.to_str().unwrap()]).spawn().unwrap();
        let line = next_line(&mut lines(&mut child)).await;
        let front = line.strip_prefix("proxy front listening on ").unwrap().parse().unwrap();
        let proxies = Self { child, directory, front };
        // The socket is there a moment after the proxies.
        while proxies.command(&["status"]).await.0 == 1 {}
        proxies
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("shop.sock")
    }

    async fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        run(&[arguments, &["--control", self.socket().to_str().unwrap()]].concat()).await
    }

    /// What an order is refused with.
    async fn refusal(&self, arguments: &[&str]) -> String {
        let (code, _, error) = self.command(arguments).await;
        assert_eq!(code, 1, "{error}");
        error
    }

    async fn client(&self) -> EchoClient<Channel> {
        EchoClient::new(Endpoint::from_shared(format!("http://{}", self.front)).unwrap().connect().await.unwrap())
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn front(first: &[&Server], standby: &Server) -> String {
    format!(
        "[proxy.front]\nlisten = \"127.0.0.1:0\"\ntarget = \"{}\"\nstandby = [\"{}\"]\n\
         [proxy.front.failover]\nfailback_delay = \"0s\"\nfailback_ramp = \"0s\"\n",
        servers::target(first),
        standby.address
    )
}

/// Calls until one is answered by any of `backends`, and then a few more, which must be as well.
async fn until_answered_by(client: &mut EchoClient<Channel>, backends: &[&Server]) {
    let backends: Vec<_> = backends.iter().map(|backend| backend.address.to_string()).collect();
    loop {
        // Calls that a killed server had taken may fail.
        let answer = client.unary(request("x")).await;
        if answer.is_ok_and(|answer| backends.contains(&answer.into_inner().backend)) {
            break;
        }
    }
    for _ in 0..10 {
        let backend = client.unary(request("x")).await.unwrap().into_inner().backend;
        assert!(backends.contains(&backend), "{backend} of {backends:?}");
    }
}

#[tokio::test]
async fn a_standby_takes_over_from_primaries_that_are_killed_and_status_says_why() {
    let (mut first, mut second, standby) = (Server::start().await, Server::start().await, Server::start().await);
    let mut proxies = Proxies::start("kill", &front(&[&first, &second], &standby)).await;
    let mut client = proxies.client().await;
    until_answered_by(&mut client, &[&first, &second]).await;
    assert_eq!(standby.calls(), 0);
    let killed = first.address;
    first.kill();
    second.kill();
    until_answered_by(&mut client, &[&standby]).await;

    let (code, text, _) = proxies.command(&["status", "--decisions"]).await;
    assert_eq!(code, 2, "{text}");
    let endpoint = text.lines().find(|line| line.trim_start().starts_with(&killed.to_string()));
    assert!(endpoint.is_some_and(|line| line.contains("TRANSIENT_FAILURE")), "{text}");
    let listener = format!("proxy front on {}, before ", proxies.front);
    for expected in [&*listener, "group 1: 1 of 1 endpoints ready, takes 100 % of calls", "calls move on"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let (_, json, _) = proxies.command(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    let proxy = &status["proxies"][0];
    let out = proxy["endpoints"].as_array().unwrap().iter().filter(|endpoint| endpoint["is_out"] == true);
    assert_eq!(out.count(), 2, "{json}");
    let told = |decision: &serde_json::Value| decision["what"].as_str().unwrap().contains("calls move on");
    assert!(proxy["decisions"].as_array().unwrap().iter().any(told), "{json}");

    signal(&proxies.child, "TERM").await;
    assert_eq!(exit_code(&mut proxies.child).await, 0);
    assert!(!proxies.socket().exists());
}

#[tokio::test]
async fn a_switch_by_hand_moves_calls_until_it_is_auto_again() {
    let (first, standby) = (Server::start().await, Server::start().await);
    let plain = format!("[proxy.plain]\nlisten = \"127.0.0.1:0\"\ntarget = \"{}\"\n", first.address);
    let proxies = Proxies::start("hand", &(front(&[&first], &standby) + &plain)).await;
    let mut client = proxies.client().await;
    until_answered_by(&mut client, &[&first]).await;

    let (code, text, error) = proxies.command(&["switch", "front", "1"]).await;
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(text.contains("front: all calls go to group 1 until `evenkeel switch front auto`"), "{text}");
    until_answered_by(&mut client, &[&standby]).await;
    let (code, text, _) = proxies.command(&["status"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("all calls sent to group 1 by hand"), "{text}");
    assert!(text.contains("group 0: 1 of 1 endpoints ready, takes 0 % of calls"), "{text}");

    let (code, text, _) = proxies.command(&["switch", "front", "auto"]).await;
    assert_eq!((code, text.contains("front: calls go to what is well; group 0: ")), (0, true), "{text}");
    until_answered_by(&mut client, &[&first]).await;
    assert!(!proxies.command(&["status"]).await.1.contains("by hand"));

    for (arguments, expected) in [
        (&["switch", "frnt", "1"][..], "there is no proxy `frnt`; did you mean `front`?"),
        (&["switch", "front", "7"], "`front` has no group 7 now; there are: group 0, group 1"),
        (&["switch", "front", "first"], "neither a number nor auto"),
        (&["switch", "plain", "1"], "`plain` places calls by least_request, which knows no groups"),
        (&["restart", "front"], "proxies alone run here"),
    ] {
        let error = proxies.refusal(arguments).await;
        assert!(error.contains(expected), "{expected} in {error}");
    }
}
