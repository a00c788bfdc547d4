//! Servers and clients over real sockets.

use std::error::Error;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_proto::demo::echo_client::EchoClient;
use evenkeel_proto::demo::echo_server::{Echo, EchoServer};
use evenkeel_proto::demo::{EchoReply, EchoRequest};
use evenkeel_server::{ConnectionId, Listener, PermittedPings, Server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

type Outcome = Result<(), Box<dyn Error>>;
type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

/// Answers `wait` when it is released, `forever` never, and everything else with the connection that it came on.
#[derive(Clone, Default)]
struct Waiter {
    begun: Arc<Notify>,
    release: Arc<Notify>,
}

#[tonic::async_trait]
impl Echo for Waiter {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let connection = request.extensions().get::<ConnectionId>().copied();
        let peer = request.remote_addr();
        match request.get_ref().message.as_str() {
            "wait" => {
                self.begun.notify_one();
                self.release.notified().await;
            }
            "forever" => {
                self.begun.notify_one();
                pending::<()>().await;
            }
            _ => {}
        }
        let message = peer.map_or_else(|| "no address".to_owned(), |peer| peer.ip().to_string());
        let backend = connection.map(|id| id.to_string()).unwrap_or_default();
        Ok(Response::new(EchoReply { message, backend, ..Default::default() }))
    }

    async fn client_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, _: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        let first = tokio_stream::once(Ok(EchoReply::default()));
        let endless = tokio_stream::StreamExt::chain(first, tokio_stream::pending());
        Ok(Response::new(Box::pin(endless)))
    }

    type BidiStreamStream = Replies;

    async fn bidi_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}

struct Running {
    address: SocketAddr,
    waiter: Waiter,
    stop: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
}

async fn run(configure: impl FnOnce(Server<Routes>) -> Server<Routes>) -> io::Result<Running> {
    run_at("127.0.0.1:0", configure).await
}

async fn run_at(address: &str, configure: impl FnOnce(Server<Routes>) -> Server<Routes>) -> io::Result<Running> {
    let listener = Listener::bind(address.parse().map_err(io::Error::other)?).await?;
    let address = listener.local_addr()?;
    let waiter = Waiter::default();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = configure(Server::new(listener, Routes::new(EchoServer::new(waiter.clone()))));
    let server = tokio::spawn(server.serve_with_shutdown(async {
        if stopped.await.is_err() {
            pending::<()>().await;
        }
    }));
    Ok(Running { address, waiter, stop, server })
}

async fn client(address: SocketAddr) -> Result<EchoClient<Channel>, tonic::transport::Error> {
    Ok(EchoClient::new(Endpoint::try_from(format!("http://{address}"))?.connect().await?))
}

fn say(message: &str) -> EchoRequest {
    EchoRequest { message: message.to_owned(), ..Default::default() }
}

/// A client that speaks for itself: the preface, and empty SETTINGS.
async fn raw(address: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    Ok(socket)
}

const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// The kinds and payloads of the frames in what a peer has sent.
fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (payload, rest) = rest.split_at(length);
        frames.push((header[3], payload));
        bytes = rest;
    }
    frames
}

#[tokio::test]
async fn calls_know_their_connection_over_ipv4_ipv6_and_a_unix_socket() -> Outcome {
    for (listen, peer) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        let running = run_at(listen, |server| server).await?;
        let (mut first, mut second) = (client(running.address).await?, client(running.address).await?);
        let a = first.unary(say("")).await?.into_inner();
        let again = first.unary(say("")).await?.into_inner();
        let b = second.unary(say("")).await?.into_inner();
        assert_eq!((a.message.as_str(), &a.backend), (peer, &again.backend));
        assert_ne!(a.backend, b.backend);
    }
    Ok(())
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_served_beside_a_port() -> Outcome {
    let path = std::env::temp_dir().join(format!("evenkeel-server-{}.sock", std::process::id()));
    let listener = tokio::net::UnixListener::bind(&path)?;
    let running = run(|server| server.also_on(listener)).await?;
    let by_path = Endpoint::try_from(format!("unix://{}", path.display()))?.connect().await?;
    let reply = EchoClient::new(by_path).unary(say("")).await?.into_inner();
    assert_eq!(reply.message, "no address");
    assert_eq!(client(running.address).await?.unary(say("")).await?.into_inner().message, "127.0.0.1");
    std::fs::remove_file(path)?;
    Ok(())
}

#[tokio::test]
async fn a_call_outlives_its_connections_age() -> Outcome {
    let Running { address, waiter, .. } = run(|server| server.max_connection_age(Duration::from_millis(1))).await?;
    let mut first = client(address).await?;
    let mut caller = first.clone();
    let call = tokio::spawn(async move { caller.unary(say("wait")).await });
    waiter.begun.notified().await;
    // A connection of age takes no new call, so that these come on other ones; tonic connects anew by itself.
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3 {
        if let Ok(reply) = first.unary(say("")).await {
            seen.insert(reply.into_inner().backend);
        }
    }
    waiter.release.notify_one();
    let late = call.await??.into_inner();
    assert!(!late.backend.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_grace_of_an_age_ends_calls() -> Outcome {
    let age = Duration::from_millis(50);
    let Running { address, .. } =
        run(|server| server.max_connection_age(age).max_connection_age_grace(Duration::from_millis(1))).await?;
    let status = client(address).await?.unary(say("forever")).await.unwrap_err();
    assert!(matches!(status.code(), Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal), "{status}");
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_is_left() -> Outcome {
    let Running { address, .. } = run(|server| server.max_connection_idle(Duration::from_millis(1))).await?;
    let mut socket = raw(address).await?;
    let (mut received, mut buffer) = (Vec::new(), [0; 512]);
    while !frames(&received).iter().any(|(kind, _)| *kind == 7) {
        let read = socket.read(&mut buffer).await?;
        assert_ne!(read, 0, "GOAWAY comes before the end");
        received.extend(&buffer[..read]);
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_says_nothing_or_only_half_a_preface_is_closed() -> Outcome {
    let Running { address, .. } = run(|server| server.handshake_timeout(Duration::from_millis(1))).await?;
    for word in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(word).await?;
        let mut received = Vec::new();
        // A reset is an end, too.
        let _ = socket.read_to_end(&mut received).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_with_too_many_pings_and_harms_no_neighbour() -> Outcome {
    let Running { address, .. } = run(|server| server).await?;
    let mut neighbour = client(address).await?;
    let mut stream = neighbour.server_stream(say("")).await?.into_inner();
    assert!(stream.message().await?.is_some());
    let mut socket = raw(address).await?;
    socket.write_all(&PING.repeat(10_000)).await?;
    let mut received = Vec::new();
    socket.shutdown().await?;
    socket.read_to_end(&mut received).await?;
    let frames = frames(&received);
    let (kind, payload) = frames.last().expect("the server has spoken");
    assert_eq!((*kind, *payload), (7, &[&[0, 0, 0, 0, 0, 0, 0, 11][..], b"too_many_pings"].concat()[..]));
    assert!(frames.iter().filter(|(kind, _)| *kind == 6).count() <= 4, "it stopped answering");
    assert!(neighbour.unary(say("")).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn a_flooder_that_neither_reads_nor_closes_is_cut_off() -> Outcome {
    let Running { address, server, stop, .. } = run(|server| server).await?;
    let mut socket = raw(address).await?;
    // Writing fails once the server has closed.
    while socket.write_all(&PING.repeat(100)).await.is_ok() {}
    stop.send(()).expect("the server runs");
    server.await??;
    Ok(())
}

#[tokio::test]
async fn pings_that_are_permitted_are_answered() -> Outcome {
    let permitted = PermittedPings { interval: Duration::ZERO, without_calls: true };
    let Running { address, .. } = run(|server| server.permitted_pings(permitted)).await?;
    let mut socket = raw(address).await?;
    socket.write_all(&PING.repeat(100)).await?;
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    while frames(&received).iter().filter(|(kind, _)| *kind == 6).count() < 100 {
        let read = socket.read(&mut buffer).await?;
        assert_ne!(read, 0, "the connection stays");
        received.extend(&buffer[..read]);
    }
    Ok(())
}

#[tokio::test]
async fn times_without_end_are_no_times() -> Outcome {
    let endless = Duration::MAX;
    let pings = PermittedPings { interval: endless, without_calls: true };
    let running = run(|server| {
        let server = server.handshake_timeout(endless).max_connection_idle(endless).max_connection_age(endless);
        server.max_connection_age_grace(endless).keepalive(Some((endless, endless))).permitted_pings(pings)
    })
    .await?;
    client(running.address).await?.unary(say("hello")).await?;
    Ok(())
}

#[tokio::test]
async fn a_shutdown_lets_calls_finish_and_takes_no_connection() -> Outcome {
    let Running { address, waiter, stop, server } = run(|server| server).await?;
    let (mut caller, silent) = (client(address).await?, TcpStream::connect(address).await?);
    let call = tokio::spawn(async move { caller.unary(say("wait")).await });
    waiter.begun.notified().await;
    stop.send(()).expect("the server runs");
    while TcpStream::connect(address).await.is_ok() {}
    assert!(!server.is_finished());
    waiter.release.notify_one();
    call.await??;
    server.await??;
    drop(silent);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_dropped_closes_its_connections() -> Outcome {
    let Running { address, waiter, server, .. } = run(|server| server).await?;
    let mut caller = client(address).await?;
    let call = tokio::spawn(async move { caller.unary(say("forever")).await });
    waiter.begun.notified().await;
    server.abort();
    assert!(call.await?.is_err());
    Ok(())
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_at_once() -> Outcome {
    let Running { address, .. } = run(|server| server.max_connections(1)).await?;
    let mut first = client(address).await?;
    first.unary(say("")).await?;
    let mut second = TcpStream::connect(address).await?;
    assert_eq!(second.read(&mut [0; 1]).await?, 0);
    first.unary(say("")).await?;
    drop(first);
    // The server learns of the client's leaving when its connection ends.
    while client(address).await.is_err() {}
    Ok(())
}

#[tokio::test]
async fn the_servers_settings_tell_how_many_streams_a_client_may_open() -> Outcome {
    let Running { address, .. } = run(|server| server.max_concurrent_streams(7)).await?;
    let mut socket = raw(address).await?;
    let mut header = [0; 9];
    socket.read_exact(&mut header).await?;
    let mut settings = vec![0; usize::from(header[2])];
    socket.read_exact(&mut settings).await?;
    assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 7]), "{settings:?}");
    Ok(())
}

/// A call by a client that keeps no deadline itself.
async fn call(
    address: SocketAddr,
    method: &str,
    timeout: &str,
    message: &[u8],
) -> Result<(u16, String), Box<dyn Error>> {
    call_over(TcpStream::connect(address).await?, address, method, timeout, message).await
}

async fn call_over<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: IO,
    address: SocketAddr,
    method: &str,
    timeout: &str,
    message: &[u8],
) -> Result<(u16, String), Box<dyn Error>> {
    let (mut sender, connection) = h2::client::handshake(io).await?;
    tokio::spawn(connection);
    let uri = format!("http://{address}/evenkeel.demo.v1.Echo/{method}");
    let request = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let (response, mut body) = sender.send_request(request.header("grpc-timeout", timeout).body(())?, false)?;
    body.send_data(message.to_vec().into(), true)?;
    let (head, mut body) = response.await?.into_parts();
    while body.data().await.transpose()?.is_some() {}
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let status = trailers.get("grpc-status").ok_or("a status ends every call")?.to_str()?.to_owned();
    Ok((head.status.as_u16(), status))
}

#[tokio::test]
async fn a_callers_deadline_ends_its_call_before_and_within_the_response() -> Outcome {
    let Running { address, .. } = run(|server| server).await?;
    let forever = b"\0\0\0\0\x09\x0A\x07forever";
    assert_eq!(call(address, "Unary", "1m", forever).await?, (200, "4".to_owned()));
    assert_eq!(call(address, "ServerStream", "10m", &[0; 5]).await?, (200, "4".to_owned()));
    assert_eq!(call(address, "Unary", "1H", &[0; 5]).await?, (200, "0".to_owned()));
    assert_eq!(call(address, "Unary", "soon", &[0; 5]).await?, (400, "13".to_owned()));
    Ok(())
}

#[cfg(feature = "tls")]
mod tls {
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio_rustls::TlsConnector;

    use super::*;

    #[tokio::test]
    async fn calls_are_served_within_tls_and_a_silent_client_is_closed() -> Outcome {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let Running { address, .. } =
            run(|server| server.tls(Arc::new(config)).handshake_timeout(Duration::from_millis(500))).await?;

        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ServerName::try_from("localhost")?, TcpStream::connect(address).await?).await?;
        assert_eq!(call_over(stream, address, "Unary", "1H", &[0; 5]).await?, (200, "0".to_owned()));

        let mut silent = TcpStream::connect(address).await?;
        assert_eq!(silent.read(&mut [0; 1]).await?, 0);
        Ok(())
    }
}
