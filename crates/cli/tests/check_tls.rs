//! `evenkeel check` against servers with TLS: what it says of each thing that can be wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../channel/tests/front/mod.rs"]
mod front;
mod process;
#[path = "../../channel/tests/servers/mod.rs"]
mod servers;
mod strange;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use front::{Authority, Front};
use process::run;
use rcgen::{CertificateParams, date_time_ymd};
use rustls::ServerConfig;
use serde_json::Value;
use servers::Server;

/// Files of a test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("evenkeel-check-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Asks by TLS, trusting `ca`, in JSON.
async fn ask(address: SocketAddr, ca: &str, more: &[&str]) -> Value {
    let address = address.to_string();
    let (code, output, error) = run(&[&["check", &address, "-tls", "-tls-ca-cert", ca, "--json"], more].concat()).await;
    let line: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{output}{error}"));
    assert_eq!(line["exit_code"], code);
    line
}

/// A server behind this TLS: the answer of one that trusts `ca`.
async fn behind(config: Arc<ServerConfig>, ca: &str) -> Value {
    let server = Server::start().await;
    let front = Front::start(server.address, config).await;
    ask(front.address, ca, &[]).await
}

fn expect(line: &Value, cause: &str, words: &[&str]) {
    assert_eq!((&line["cause"], &line["exit_code"]), (&cause.into(), &2.into()), "{line}");
    for word in words {
        assert!(line["error"].as_str().unwrap().contains(word), "{word:?} is not in {line}");
    }
}

#[tokio::test]
async fn facts_of_the_connection_are_told() {
    let (authority, folder) = (Authority::new(), Folder::new("facts"));
    let ca = folder.write("ca.pem", &authority.pem());
    let line = behind(authority.server("127.0.0.1"), &ca).await;
    assert_eq!((&line["status"], &line["exit_code"]), (&"SERVING".into(), &0.into()), "{line}");
    let tls = &line["connection"]["tls"];
    assert_eq!((&tls["version"], &tls["alpn"]), (&"TLSv1_3".into(), &"h2".into()), "{line}");
    assert_eq!(tls["certificate"]["names"], serde_json::json!(["127.0.0.1"]), "{line}");
    assert!(tls["certificate"]["not_after"].as_str().unwrap().ends_with('Z'), "{line}");
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told() {
    let (authority, folder) = (Authority::new(), Folder::new("wrong"));
    let ca = folder.write("ca.pem", &authority.pem());
    let params = || CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let valid = |from: (i32, u8, u8), to: (i32, u8, u8)| {
        let mut params = params();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        params
    };

    let old = valid((2001, 1, 1), (2002, 3, 4));
    expect(
        &behind(authority.server_as(&old), &ca).await,
        "tls_certificate_expired",
        &["expired on 2002-03-04T", "renew"],
    );

    let new = valid((3001, 5, 6), (3002, 1, 1));
    let line = behind(authority.server_as(&new), &ca).await;
    expect(&line, "tls_certificate_not_yet_valid", &["not valid before 3001-05-06T", "clocks"]);

    let other = CertificateParams::new(vec!["a.test".to_owned(), "b.test".to_owned()]).unwrap();
    let line = behind(authority.server_as(&other), &ca).await;
    expect(&line, "tls_wrong_name", &["not for \"127.0.0.1\"", "a.test, b.test", "--tls-server-name"]);

    let stranger = folder.write("stranger.pem", &Authority::new().pem());
    let line = behind(authority.server_as(&params()), &stranger).await;
    expect(&line, "tls_unknown_issuer", &["is issued by", "rcgen", "--tls-ca-cert"]);
}

#[tokio::test]
async fn names_and_verification_are_as_the_flags_say() {
    let (authority, folder, server) = (Authority::new(), Folder::new("names"), Server::start().await);
    let ca = folder.write("ca.pem", &authority.pem());
    let front = Front::start(server.address, authority.server("echo.test")).await;
    assert_eq!(ask(front.address, &ca, &["-tls-server-name", "echo.test"]).await["status"], "SERVING");
    let address = front.address.to_string();
    assert_eq!(run(&["check", &address, "-tls", "-tls-no-verify"]).await.0, 0);
}

#[tokio::test]
async fn servers_that_ask_for_a_certificate_are_shown_one() {
    let (authority, folder, server) = (Authority::new(), Folder::new("mutual"), Server::start().await);
    let ca = folder.write("ca.pem", &authority.pem());
    let front = Front::start(server.address, authority.mutual_server("127.0.0.1", &authority)).await;
    let line = ask(front.address, &ca, &[]).await;
    expect(&line, "tls_client_certificate", &["--tls-client-cert"]);
    let pair = |authority: &Authority, name: &str| {
        let (chain, key) = authority.issue("client");
        (folder.write(&format!("{name}.crt"), &chain), folder.write(&format!("{name}.key"), &key))
    };
    let (chain, key) = pair(&authority, "good");
    let good = ["-tls-client-cert", &chain, "-tls-client-key", &key];
    assert_eq!(ask(front.address, &ca, &good).await["status"], "SERVING");
    let (chain, other_key) = pair(&Authority::new(), "other");
    let strange = ["-tls-client-cert", &chain, "-tls-client-key", &other_key];
    expect(&ask(front.address, &ca, &strange).await, "tls_client_certificate", &["does not accept our certificate"]);
    let (code, _, error) =
        run(&["check", "x:1", "-tls", "-tls-ca-cert", &ca, "-tls-client-cert", &chain, "-tls-client-key", &key]).await;
    assert!(code == 1 && error.contains("its own key"), "{error}");
}

#[tokio::test]
async fn servers_without_http2_inside_are_told() {
    let (authority, folder) = (Authority::new(), Folder::new("alpn"));
    let ca = folder.write("ca.pem", &authority.pem());
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = authority.server("127.0.0.1");
        Arc::get_mut(&mut config).unwrap().alpn_protocols = protocols;
        expect(&behind(config, &ca).await, "no_alpn_h2", &["h2"]);
    }
}

#[tokio::test]
async fn tls_where_none_is_and_none_where_it_is_are_told() {
    let (authority, folder, server) = (Authority::new(), Folder::new("plain"), Server::start().await);
    let ca = folder.write("ca.pem", &authority.pem());
    let plain = "server_speaks_plaintext";
    expect(&ask(server.address, &ca, &[]).await, plain, &["leave --tls out"]);
    expect(&ask(strange::says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, &ca, &[]).await, plain, &["HTTP/1.1 400"]);
    expect(&ask(strange::says(b"").await, &ca, &[]).await, "closed", &["does it speak TLS"]);
    let line = ask(strange::silent().await, &ca, &["--connect-timeout", "100ms"]).await;
    expect(&line, "connect_timeout", &["TLS handshake", "within 100ms"]);

    let front = Front::start(server.address, authority.server("127.0.0.1")).await;
    let (code, _, error) = run(&["check", &front.address.to_string()]).await;
    assert!(code == 2 && error.contains("wants TLS") && error.contains("add --tls"), "{error}");
}
