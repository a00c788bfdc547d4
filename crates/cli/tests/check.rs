//! `evenkeel check` as its users run it, against servers in plain text.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod process;
#[path = "../../channel/tests/servers/mod.rs"]
mod servers;
mod strange;

use evenkeel_health::ServingStatus;
use process::{evenkeel, exit_code, lines, next_line, run, signal};
use serde_json::Value;
use servers::Server;
use strange::Nobody;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixListener},
};

/// Runs with this address and more arguments, and expects this exit code and these words on standard error.
async fn fails(address: impl ToString, arguments: &[&str], code: i32, words: &[&str]) {
    let (ended, output, error) = run(&[&["check", &address.to_string()], arguments].concat()).await;
    assert_eq!(ended, code, "{output}{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
}

#[tokio::test]
async fn it_prints_the_status_and_exits_by_it() {
    let server = Server::start().await;
    let address = server.address.to_string();
    assert_eq!(run(&["check", &address]).await, (0, "SERVING\n".into(), String::new()));
    server.health.set("", ServingStatus::NotServing);
    assert_eq!(run(&["check", &address]).await, (4, "NOT_SERVING\n".into(), String::new()));
    assert_eq!(run(&["check", "-q", &address]).await, (4, String::new(), String::new()));
    fails(Nobody::new().address, &[], 2, &["refused", "is the server up"]).await;
}

#[tokio::test]
async fn flags_have_one_dash_or_two() {
    let server = Server::start().await;
    server.health.set("a.B", ServingStatus::Serving);
    let address = server.address.to_string();
    let joined = format!("-addr={address}");
    for line in [
        &["-addr", &address][..],
        &[&joined, "-service", "a.B"],
        &["--addr", &address, "--service=a.B", "-tls=false"],
        &["-service=x", &address, "-service=a.B", "-connect-timeout", "1m0.5s"],
        &[&address, "-rpc-header", "a: b", "-rpc-header=-c:-d", "-user-agent", "-x"],
    ] {
        assert_eq!(run(&[&["check"], line].concat()).await.0, 0, "{line:?}");
    }
    let (code, _, error) = run(&["check", &address, "-v"]).await;
    assert!(code == 0 && error.contains("connected to"), "{error}");
}

#[tokio::test]
async fn wrong_arguments_are_told_with_the_nearest_right_one() {
    fails("127.0.0.1:1", &["-servce", "x"], 1, &["--service"]).await;
    fails("127.0.0.1:1", &["-tls=perhaps"], 1, &["perhaps"]).await;
    fails("127.0.0.1:1", &["-connect-timeout=0s"], 1, &["-connect-timeout must be greater than zero"]).await;
    fails("127.0.0.1:1", &["-tls-ca-cert=x"], 1, &["specified -tls-ca-cert without specifying -tls"]).await;
    fails("127.0.0.1:1", &["-tls", "-tls-ca-cert=/nowhere"], 1, &["/nowhere", "--tls-ca-cert"]).await;
    fails("127.0.0.1:1", &["-rpc-header", "a b: c"], 3, &["header key \"a b\""]).await;
    fails("127.0.0.1:1", &["-alts"], 2, &["ALTS is not supported"]).await;
    fails("127.0.0.1:1", &["-spiffe"], 20, &["SPIFFE"]).await;
    fails("127.0.0.1:1", &["--proxy", "socks5://x"], 1, &["socks5"]).await;
    fails("dsn:///x", &[], 1, &["did you mean `dns`"]).await;
    assert_eq!(run(&["check"]).await.0, 1);
    assert_eq!(run(&["check", "--help"]).await.0, 0);
}

#[tokio::test]
async fn an_unknown_service_is_told_with_the_nearest_known_one() {
    let server = Server::start().await;
    server.health.set("greeter.Greeter", ServingStatus::Serving);
    fails(server.address, &["--service", "Greeter"], 3, &["does not know", "did you mean \"greeter.Greeter\"?"]).await;
    fails(server.address, &["--service", "x"], 3, &["it knows greeter.Greeter"]).await;
    fails(strange::obedient().await, &["--service", "x"], 3, &["does not know the service \"x\"\n"]).await;
}

#[tokio::test]
async fn calls_that_fail_say_why() {
    fails(strange::healthless().await, &[], 3, &["no grpc.health.v1.Health"]).await;
    let obedient = strange::obedient().await;
    fails(obedient, &["--service", "denied"], 3, &["PERMISSION_DENIED: not you", "--rpc-header"]).await;
    fails(obedient, &["--service", "hangs", "--rpc-timeout", "50ms"], 3, &["within 50ms", "--rpc-timeout"]).await;
    let (code, output, _) = run(&["check", &obedient.to_string(), "--service", "status 9"]).await;
    assert_eq!((code, output.as_str()), (4, "9\n"));
}

#[tokio::test]
async fn metadata_the_user_agent_and_gzip_reach_the_server() {
    let obedient = strange::obedient().await;
    let headers = ["-rpc-header", "X-Token:  a b", "-rpc-header=x-bin:\u{1}", "-user-agent=k8s", "-gzip"];
    let arguments = [&["--service", "metadata"][..], &headers].concat();
    let words = [
        "\"x-token\": \"a b\"",
        "\"x-bin\": \"AQ",
        "\"k8s evenkeel/",
        "\"grpc-encoding\": \"gzip\"",
        "\"grpc-timeout\": \"1000000u\"",
    ];
    fails(obedient, &arguments, 3, &words).await;
    // The reply is compressed, too.
    let (code, output, error) = run(&["check", &obedient.to_string(), "--service", "status 1", "-gzip"]).await;
    assert_eq!((code, output.as_str()), (0, "SERVING\n"), "{error}");
}

#[tokio::test]
async fn connections_that_fail_say_why() {
    fails("unix:/nowhere/socket", &[], 2, &["No such file", "is this its path"]).await;
    let brief = ["--connect-timeout", "100ms"];
    fails(strange::silent().await, &brief, 2, &["the connection was accepted", "within 100ms", "may hang"]).await;
    let old = strange::says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    fails(old, &[], 2, &["the server speaks HTTP/1", "HTTP/1.1 400 Bad Request"]).await;
    let secure =
        strange::says(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n").await;
    fails(secure, &[], 2, &["wants TLS", "add --tls"]).await;
    fails(strange::says(b"\x15\x03\x01\x00\x02\x02\x46").await, &[], 2, &["wants TLS", "add --tls"]).await;
    fails(strange::says(b"SSH-2.0-OpenSSH_9.9\r\n").await, &[], 2, &["does not speak HTTP/2", "SSH-2.0-OpenSSH_9.9"])
        .await;
    fails(strange::says(b"").await, &[], 2, &["closed the connection without a word"]).await;
    fails("name.invalid:1", &["--connect-timeout", "30s"], 2, &["name.invalid"]).await;
}

#[tokio::test]
async fn each_address_of_a_target_is_tried() {
    let (bound, server) = (Nobody::new(), Server::start().await);
    let nobody = bound.address;
    assert_eq!(run(&["check", &format!("ipv4:{nobody},{}", server.address)]).await.0, 0);
    let port = server.address.port();
    for target in [format!(":{port}"), format!("localhost:{port}"), format!("dns:///localhost:{port}")] {
        assert_eq!(run(&["check", &target]).await.0, 0, "{target}");
    }
    fails(format!("ipv4:{nobody},{nobody}"), &[], 2, &["refused"]).await;
}

#[tokio::test]
async fn sockets_of_this_machine_are_targets() {
    let server = Server::start().await;
    let path = std::env::temp_dir().join(format!("evenkeel-check-{}", std::process::id()));
    let named = UnixListener::bind(&path).unwrap();
    let address = server.address;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = named.accept().await {
            let mut far = TcpStream::connect(address).await.unwrap();
            tokio::spawn(async move { drop(copy_bidirectional(&mut near, &mut far).await) });
        }
    });
    let result = run(&["check", &format!("unix:{}", path.display())]).await;
    std::fs::remove_file(&path).unwrap();
    assert_eq!(result, (0, "SERVING\n".into(), String::new()));
}

#[tokio::test]
async fn of_several_targets_the_worst_decides() {
    let (well, ill, nobody) = (Server::start().await, Server::start().await, Nobody::new());
    ill.health.set("", ServingStatus::NotServing);
    let (well, ill, nobody) = (well.address.to_string(), ill.address.to_string(), nobody.address.to_string());
    let (code, output, _) = run(&["check", &well, &ill]).await;
    assert_eq!((code, output), (4, format!("{well}  SERVING\n{ill}  NOT_SERVING\n")));
    let (code, output, error) = run(&["check", &ill, &nobody, &well]).await;
    assert_eq!((code, output), (2, format!("{ill}  NOT_SERVING\n{well}  SERVING\n")));
    assert!(error.contains(&nobody), "{error}");
}

#[tokio::test]
async fn json_is_an_object_a_line() {
    let (server, bound) = (Server::start().await, Nobody::new());
    let nobody = bound.address.to_string();
    let address = server.address.to_string();
    let (code, output, error) = run(&["check", "--json", &address, &nobody]).await;
    assert_eq!((code, error.as_str()), (2, ""));
    let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [well, refused] = &lines[..] else { panic!("{output}") };
    assert_eq!(
        (&well["target"], &well["status"], &well["code"]),
        (&address.as_str().into(), &"SERVING".into(), &"OK".into())
    );
    assert_eq!((&well["connection"]["address"], &well["exit_code"]), (&well["target"], &0.into()));
    assert!(well["connect_ms"].as_f64().unwrap() > 0.0 && well["connection"]["tls"].is_null(), "{well}");
    assert_eq!((&refused["cause"], &refused["status"]), (&"refused".into(), &Value::Null));
    let (_, output, _) = run(&["check", "--json", &address, "--service", "x"]).await;
    let unknown: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&unknown["cause"], &unknown["code"]), (&"unknown_service".into(), &"NOT_FOUND".into()));
}

#[tokio::test]
async fn a_list_has_every_service() {
    let server = Server::start().await;
    server.health.set("a.B", ServingStatus::Serving);
    let address = server.address.to_string();
    let table = "(the whole server)  SERVING\na.B                 SERVING\n";
    assert_eq!(run(&["check", "--list", &address]).await, (0, table.into(), String::new()));
    server.health.set("a.B", ServingStatus::NotServing);
    let (code, output, _) = run(&["check", "--list", "--json", &address]).await;
    let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, lines.len()), (4, 2));
    assert_eq!((&lines[1]["service"], &lines[1]["status"]), (&"a.B".into(), &"NOT_SERVING".into()));
    fails(strange::obedient().await, &["--list"], 3, &["no List"]).await;
}

#[tokio::test]
async fn waiting_ends_with_serving_or_with_the_time() {
    let server = Server::start().await;
    server.health.set("", ServingStatus::NotServing);
    let address = server.address.to_string();
    assert_eq!(run(&["check", "--wait", "0.2", &address]).await, (4, "NOT_SERVING\n".into(), String::new()));
    fails(Nobody::new().address, &["--wait", "200ms"], 2, &["refused"]).await;

    let port = strange::free().await;
    let mut child = evenkeel(&["check", "--wait", "30", &port.to_string()]).spawn().unwrap();
    let later = Server::start_at(port).await;
    assert_eq!(next_line(&mut lines(&mut child)).await, "SERVING");
    assert_eq!(exit_code(&mut child).await, 0);
    drop(later);
}

/// A line without its time.
fn unstamped(line: &str) -> &str {
    let (time, rest) = line.split_once("  ").unwrap();
    assert!(time.len() == "2026-01-01T00:00:00.000Z".len() && time.ends_with('Z'), "{line}");
    rest
}

#[tokio::test]
async fn watching_tells_changes_and_survives_a_lost_connection() {
    let mut server = Server::start().await;
    let address = server.address;
    let mut child = evenkeel(&["check", &address.to_string(), "--watch"]).spawn().unwrap();
    let mut output = lines(&mut child);
    assert_eq!(unstamped(&next_line(&mut output).await), "SERVING");
    server.health.set("", ServingStatus::NotServing);
    assert_eq!(unstamped(&next_line(&mut output).await), "NOT_SERVING");
    server.kill();
    let mut line = next_line(&mut output).await;
    assert!(line.contains("connecting again"), "{line}");
    let _again = Server::start_at(address).await;
    while unstamped(&line) != "SERVING" {
        line = next_line(&mut output).await;
    }
    signal(&child, "INT").await;
    assert_eq!(exit_code(&mut child).await, 0);
}

#[tokio::test]
async fn a_server_without_watch_is_asked_again_and_again() {
    let obedient = strange::obedient().await.to_string();
    let mut child = evenkeel(&["check", &obedient, "--service", "status 2", "--watch", "--json"]).spawn().unwrap();
    let line: Value = serde_json::from_str(&next_line(&mut lines(&mut child)).await).unwrap();
    assert_eq!(line["status"], "NOT_SERVING");
    signal(&child, "TERM").await;
    assert_eq!(exit_code(&mut child).await, 4);
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_although_its_watch_is_open() {
    let obedient = strange::obedient().await.to_string();
    let arguments = ["check", &obedient, "--service", "hangs", "--watch", "--rpc-timeout", "500ms"];
    let mut child = evenkeel(&arguments).spawn().unwrap();
    let mut output = lines(&mut child);
    assert_eq!(unstamped(&next_line(&mut output).await), "SERVING");
    let line = next_line(&mut output).await;
    assert!(line.contains("no answer to the call within 500ms; connecting again"), "{line}");
}

/// An HTTP proxy that makes every tunnel, and the address that it was asked for last.
async fn proxy() -> (String, tokio::sync::watch::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, asked) = tokio::sync::watch::channel(String::new());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.unwrap());
            }
            let target = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
            let mut far = TcpStream::connect(&target).await.unwrap();
            tell.send_replace(target);
            near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            tokio::spawn(async move { drop(copy_bidirectional(&mut near, &mut far).await) });
        }
    });
    (url, asked)
}

#[tokio::test]
async fn proxies_are_gone_through_or_around() {
    let (server, (url, asked)) = (Server::start().await, proxy().await);
    let address = server.address.to_string();
    assert_eq!(run(&["check", &address, "--proxy", &url]).await.0, 0);
    assert_eq!(*asked.borrow(), address);
    let bound = Nobody::new();
    let nobody = format!("http://{}", bound.address);
    fails(&address, &["--proxy", &nobody], 2, &["the proxy", "refused"]).await;
    let mut around = evenkeel(&["check", &address, "--no-proxy"]);
    around.env("HTTPS_PROXY", &nobody);
    assert_eq!(process::end(around).await.0, 0);
}
