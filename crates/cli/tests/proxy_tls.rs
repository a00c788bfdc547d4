//! `evenkeel proxy` with TLS: real certificates, real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../channel/tests/front/mod.rs"]
mod front;
mod process;
#[path = "../../channel/tests/servers/mod.rs"]
mod servers;

use std::net::SocketAddr;

use evenkeel_proto::demo::echo_client::EchoClient;
use front::{Authority, Front};
use process::{evenkeel, lines, next_line, run};
use servers::{Server, request};
use tokio::process::Child;

/// A directory of a test's own, gone with it.
struct Files(std::path::PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("evenkeel-proxy-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The path of a file with this in it.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

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
async fn backends_and_their_checks_are_spoken_to_by_tls() {
    let (ca, server, files) = (Authority::new(), Server::start().await, Files::new("backend"));
    let front = Front::start(server.address, ca.mutual_server("echo.test", &ca)).await;
    let (cert, key) = ca.issue("proxy.test");
    let (ca, cert, key) = (files.write("ca.pem", &ca.pem()), files.write("c.pem", &cert), files.write("k.pem", &key));
    let target = front.address.to_string();
    let tls = ["--backend-tls", "--backend-ca", &ca, "--backend-name", "echo.test"];
    let identity = ["--backend-cert", &*cert, "--backend-key", &key];
    let (_child, address) = proxy(&[&[&*target, "--check", "grpc"], &tls[..], &identity].concat()).await;
    client(address).await.unary(request("x")).await.unwrap();
    let file = files.write(
        "f.toml",
        &format!(
            "[proxy.p]\nlisten = \"127.0.0.1:0\"\ntarget = \"{target}\"\n\
             backend_tls = {{ ca = \"{ca}\", name = \"echo.test\", cert = \"{cert}\", key = \"{key}\" }}\n"
        ),
    );
    let control = files.0.join("socket");
    let mut child = evenkeel(&["proxy", "--config", &file, "--control", control.to_str().unwrap()]).spawn().unwrap();
    let line = next_line(&mut lines(&mut child)).await;
    let address = line.strip_prefix("proxy p listening on ").unwrap().parse().unwrap();
    client(address).await.unary(request("x")).await.unwrap();
}

#[tokio::test]
async fn files_that_do_not_do_are_told_at_once() {
    let (code, _, told) = run(&["proxy", "127.0.0.1:1", "--backend-tls", "--backend-ca", "/nowhere/ca.pem"]).await;
    assert_eq!(code, 1);
    assert!(told.contains("/nowhere/ca.pem: No such file"), "{told}");
    let (code, _, told) = run(&["proxy", "127.0.0.1:1", "--backend-ca", "ca.pem"]).await;
    assert!(code == 1 && told.contains("--backend-tls"), "{told}");
}
