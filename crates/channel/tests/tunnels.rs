//! Tunnels through an HTTP proxy, over real sockets: what the proxy is asked, what goes around it, and what the channel
//! says when there is no tunnel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(feature = "tls")]
mod front;
mod servers;

use std::net::SocketAddr;

use evenkeel_channel::{BuildError, Builder, Channel, ConnectProxy};
use evenkeel_proto::demo::echo_client::EchoClient;
use servers::{Server, request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// An HTTP proxy: it answers each CONNECT as it was told, and makes a tunnel where that is a success.
struct Proxy {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
}

const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

impl Proxy {
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (send, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, answer, send.clone()));
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(mut client: TcpStream, answer: &str, requests: mpsc::UnboundedSender<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    requests.send(head).unwrap();
    if !answer.starts_with("HTTP/1.1 200") {
        client.write_all(answer.as_bytes()).await.unwrap();
        return;
    }
    let mut server = TcpStream::connect(target).await.unwrap();
    client.write_all(answer.as_bytes()).await.unwrap();
    // Either side may end the tunnel.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

fn through(proxy: ConnectProxy, address: SocketAddr) -> Builder {
    Channel::builder(address.to_string()).connect_proxy(proxy)
}

async fn failure(builder: Builder) -> String {
    EchoClient::new(builder.build().unwrap()).unary(request("x")).await.unwrap_err().message().to_owned()
}

#[tokio::test]
async fn calls_pass_a_proxy_that_is_shown_the_credentials() {
    let (server, mut proxy) = (Server::start().await, Proxy::start(ESTABLISHED).await);
    let url = format!("http://Aladdin:open%20sesame@{}", proxy.address);
    let channel = through(ConnectProxy::new(&url).unwrap(), server.address).build().unwrap();
    EchoClient::new(channel).unary(request("x")).await.unwrap();
    let asked = proxy.requests.recv().await.unwrap();
    let expected = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n", server.address);
    assert!(asked.starts_with(&expected), "{asked}");
    assert!(asked.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{asked}");
}

#[tokio::test]
async fn a_connection_of_the_callers_own_goes_the_same_way() {
    let (server, mut proxy) = (Server::start().await, Proxy::start(ESTABLISHED).await);
    let channel = through(ConnectProxy::new(&proxy.url()).unwrap(), server.address).build().unwrap();
    channel.dial(&server.address.into()).await.unwrap();
    assert!(proxy.requests.recv().await.unwrap().starts_with(&format!("CONNECT {} ", server.address)));
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_is_spoken_inside_the_tunnel_and_is_for_the_authority() {
    let (ca, server, mut proxy) = (front::Authority::new(), Server::start().await, Proxy::start(ESTABLISHED).await);
    let front = front::Front::start(server.address, ca.server("echo.test")).await;
    let builder = through(ConnectProxy::new(&proxy.url()).unwrap(), front.address).authority("echo.test");
    let channel = builder.tls(evenkeel_channel::Tls::new().ca_pem(ca.pem())).build().unwrap();
    EchoClient::new(channel).unary(request("x")).await.unwrap();
    assert!(proxy.requests.recv().await.unwrap().starts_with(&format!("CONNECT {} ", front.address)));
}

#[tokio::test]
async fn what_is_exempt_goes_around_the_proxy() {
    let (server, mut proxy) = (Server::start().await, Proxy::start(ESTABLISHED).await);
    let given = || ConnectProxy::new(&proxy.url()).unwrap();
    let by_address = through(given().except("10.0.0.0/8, 127.0.0.0/8"), server.address);
    let by_name = through(given().except(".echo.test"), server.address).authority("a.echo.test");
    for builder in [by_address, by_name, through(ConnectProxy::none(), server.address)] {
        EchoClient::new(builder.build().unwrap()).unary(request("x")).await.unwrap();
    }
    assert!(proxy.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_server_that_speaks_right_behind_the_reply_is_heard() {
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = ConnectProxy::new(&listener.local_addr().unwrap().to_string()).unwrap();
    let address = server.address;
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        while client.read_u8().await.unwrap() != b'\r' {}
        let (mut server, mut bytes) = (TcpStream::connect(address).await.unwrap(), ESTABLISHED.as_bytes().to_vec());
        // The server waits for the client's preface, so the client's SETTINGS are written for it: what comes back then
        // leaves in one piece with the reply.
        server.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut settings = [0; 9];
        server.read_exact(&mut settings).await.unwrap();
        bytes.extend(settings);
        client.write_all(&bytes).await.unwrap();
        // The rest of CONNECT's head, and the preface that the server has already had.
        let mut seen = Vec::new();
        while !seen.ends_with(b"SM\r\n\r\n") {
            seen.push(client.read_u8().await.unwrap());
        }
        let _ = copy_bidirectional(&mut client, &mut server).await;
    });
    let channel = through(proxy, address).build().unwrap();
    EchoClient::new(channel).unary(request("x")).await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_gives_no_tunnel_is_named_with_what_it_said() {
    for (answer, expected) in [
        (
            "HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\n\r\n",
            "\"HTTP/1.1 407 Who are you\"; it wants credentials",
        ),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "\"HTTP/1.1 502 Bad Gateway\"; it cannot reach the endpoint"),
        ("\0\0\u{c}\u{4}", "begins with \"\\x00\", which is not HTTP/1"),
        ("HTTP/1.1 2", "hung up before it had answered"),
    ] {
        let (server, proxy) = (Server::start().await, Proxy::start(answer).await);
        let why = failure(through(ConnectProxy::new(&proxy.url()).unwrap(), server.address)).await;
        assert!(why.contains(&format!("the proxy {}", proxy.address)) && why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named_and_one_that_is_none_cannot_be_built() {
    let server = Server::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let why = failure(through(ConnectProxy::new(&nobody.to_string()).unwrap(), server.address)).await;
    assert!(why.contains(&format!("the proxy {nobody} cannot be reached")), "{why}");
    let error = BuildError::from(ConnectProxy::new("socks5://proxy:1080").unwrap_err()).to_string();
    assert!(error.contains("the scheme \"socks5\" is not supported, only http"), "{error}");
}
