//! Calls that are placed by a channel and carried by somebody else: what is picked and counted, and what becomes of the
//! channel's own connections when another one beside them is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(feature = "tls")]
mod front;
mod peer;
mod recorder;
mod servers;

use std::{collections::BTreeSet, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use evenkeel_channel::{
    AttemptCost, Channel, DataSocket, Placer, Repeats, Versions,
    balance::{Address, Code, ConnectionId, Connectivity, Input, Loss, Metadata, Outcome, Pick, Status},
    naming::{Resolution, Resolver, Updates},
};
use peer::Raw;
use servers::{Server, target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

const METHOD: &str = "/evenkeel.demo.v1.Echo/Unary";

/// Metadata of one field.
#[derive(Debug)]
struct Field(&'static str, &'static [u8]);

impl Metadata for Field {
    fn values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        if name == self.0 {
            visit(self.1);
        }
    }
}

/// Resolves to what a test says.
struct Script(mpsc::UnboundedReceiver<Resolution>);

impl Resolver for Script {
    fn run(mut self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Some(resolution) = self.0.recv().await {
                updates.send(Ok(resolution));
            }
        })
    }
}

const NOTHING: Field = Field("", b"");

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// Looks at every version until one has it.
async fn until<T>(placer: &mut Placer, versions: &mut Versions, mut wanted: impl FnMut(&mut Placer) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(placer) {
            return found;
        }
        within(versions.changed()).await.expect("the channel lives");
    }
}

fn connections(placer: &Placer) -> Vec<(ConnectionId, Address)> {
    let mut found = Vec::new();
    placer.connections(&mut |id, address, _| found.push((id, address.clone())));
    found
}

fn only_connection(placer: &mut Placer) -> Option<ConnectionId> {
    connections(placer).first().map(|(id, _)| *id)
}

/// Places a call and ends it well.
fn make_call(placer: &mut Placer, metadata: &Field) -> Option<SocketAddr> {
    let now = placer.now();
    let Pick::Call(call) = placer.pick(now, METHOD, metadata) else { return None };
    let at = connections(placer).into_iter().find(|(id, _)| id.subchannel == call.subchannel());
    call.finish(&Outcome::new(Code::Ok).at(placer.now()));
    match at.unwrap().1 {
        Address::Tcp(address) => Some(address),
        other => panic!("{other}"),
    }
}

fn builder(target: impl Into<String>, policy: &str) -> evenkeel_channel::Builder {
    Channel::builder(target).policy(policy)
}

#[tokio::test]
async fn the_first_pick_wakes_the_channel_and_calls_go_to_every_endpoint() {
    let servers = [Server::start().await, Server::start().await];
    let channel = builder(target(&[&servers[0], &servers[1]]), "round_robin").build().unwrap();
    let (mut placer, mut versions) = (channel.placer(), channel.versions());
    assert_eq!(placer.version(), 0);
    assert!(connections(&placer).is_empty());
    assert!(matches!(placer.pick(placer.now(), METHOD, &NOTHING), Pick::Idle));
    until(&mut placer, &mut versions, |placer| (connections(placer).len() == 2).then_some(())).await;
    let both = BTreeSet::from([servers[0].address, servers[1].address]);
    until(&mut placer, &mut versions, |placer| {
        let picked: BTreeSet<_> = (0..2).filter_map(|_| make_call(placer, &NOTHING)).collect();
        (picked == both).then_some(())
    })
    .await;
    let report = channel.reports().borrow().clone();
    assert!(report.endpoints.iter().all(|endpoint| endpoint.load.in_flight() == 0 && endpoint.load.succeeded() > 0));
}

#[tokio::test]
async fn policies_that_hash_read_the_metadata() {
    let servers = [Server::start().await, Server::start().await, Server::start().await];
    let config = r#"{"loadBalancingConfig":[{"ring_hash":{"requestHashHeader":"x-user"}}]}"#;
    let all: Vec<_> = servers.iter().collect();
    let channel = Channel::builder(target(&all)).service_config(config).unwrap().build().unwrap();
    channel.connect();
    let (mut placer, mut versions) = (channel.placer(), channel.versions());
    let mut place_of = async |value: &'static [u8]| {
        let user = Field("x-user", value);
        until(&mut placer, &mut versions, |placer| make_call(placer, &user)).await;
        let found: BTreeSet<_> = (0..20).map(|_| make_call(&mut placer, &user).unwrap()).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    };
    let mut found = BTreeSet::new();
    for value in [&b"a"[..], b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i", b"j", b"k", b"l"] {
        found.insert(place_of(value).await);
    }
    assert!(found.len() > 1, "not all users hash to one endpoint");
}

#[tokio::test]
async fn calls_are_counted_as_the_channels_own_are() {
    let figures = recorder::installed();
    let config = r#"{"methodConfig":[{"name":[{"service":"evenkeel.demo.v1.Echo"}],"timeout":"7s"}],
        "retryThrottling":{"maxTokens":10,"tokenRatio":0.1}}"#;
    let target = "ipv4:127.0.0.1:1";
    let channel = Channel::builder(target).service_config(config).unwrap().build().unwrap();
    let mut placer = channel.placer();
    let [ended, dropped] = [(); 2].map(|()| placer.begin(placer.now(), METHOD));
    assert_eq!(ended.config().timeout, Some(Duration::from_secs(7)));
    assert_eq!(placer.begin(placer.now(), "/other/Method").config().timeout, None);
    for call in [&ended, &dropped] {
        call.attempt_started();
    }
    let cost = AttemptCost { duration: Duration::from_millis(3), sent: 5, received: 8 };
    ended.attempt_ended(Code::Ok, &cost);
    ended.ended(Code::Ok, Duration::from_secs(2), &Repeats { retries: 1, ..Repeats::default() });
    let calls = channel.calls();
    assert_eq!((calls.started, calls.succeeded, calls.failed), (3, 1, 1));
    drop(dropped);
    assert_eq!(channel.calls().failed, 2);
    let method = ("grpc.method", "evenkeel.demo.v1.Echo/Unary");
    let (ok, cancelled) = ("OK", "CANCELLED");
    assert_eq!(figures.total("grpc.client.attempt.started", target, &[method]).to_bits(), 2.0_f64.to_bits());
    let samples = |metric, status| figures.samples(metric, target, &[method, ("grpc.status", status)]);
    assert_eq!(samples("grpc.client.attempt.rcvd_total_compressed_message_size", ok), [8.0]);
    assert_eq!(samples("grpc.client.call.duration", ok), [2.0]);
    assert_eq!(samples("grpc.client.call.duration", cancelled).len(), 1);
}

#[tokio::test]
async fn a_new_service_config_holds_for_the_calls_that_begin_after_it() {
    let (send, configs) = mpsc::unbounded_channel();
    let resolver = Script(configs);
    let resolve = |seconds| {
        let config = format!(r#"{{"methodConfig":[{{"name":[{{}}],"timeout":"{seconds}s"}}]}}"#);
        send.send(Resolution::new(Vec::new()).with_service_config(config)).unwrap();
    };
    let channel = Channel::builder("echo.test:1").resolver(Box::new(resolver)).build().unwrap();
    channel.connect();
    let (mut placer, mut versions) = (channel.placer(), channel.versions());
    let timeout = |placer: &mut Placer| placer.begin(placer.now(), METHOD).config().timeout;
    resolve(1);
    until(&mut placer, &mut versions, |placer| timeout(placer).filter(|found| found.as_secs() == 1)).await;
    let early = placer.begin(placer.now(), METHOD);
    resolve(2);
    until(&mut placer, &mut versions, |placer| timeout(placer).filter(|found| found.as_secs() == 2)).await;
    assert_eq!(early.config().timeout, Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_connection_lost_beside_the_channels_own_takes_that_with_it_and_the_endpoint_is_connected_anew() {
    let (address, mut peers) = Raw::listen().await;
    let channel = builder(address.to_string(), "round_robin").build().unwrap();
    channel.connect();
    let mut own = within(peers.recv()).await.unwrap();
    own.settings(&[]).await;
    let (mut placer, mut versions) = (channel.placer(), channel.versions());
    let first = until(&mut placer, &mut versions, only_connection).await;
    // A call has gone to it, or an endpoint that hangs up at once would be dialled in a tight loop.
    until(&mut placer, &mut versions, |placer| make_call(placer, &NOTHING)).await;
    let lost = || Input::Lost(first, Status::unavailable("connection reset"), Loss::Reset);
    placer.tell(lost());
    within(own.frames(|_| false)).await;
    let mut second_peer = within(peers.recv()).await.unwrap();
    assert!(connections(&placer).is_empty(), "until the peer has spoken");
    second_peer.settings(&[]).await;
    let second = until(&mut placer, &mut versions, only_connection).await;
    assert_eq!((first.subchannel, first == second), (second.subchannel, false));
    // Another thread has lost its connection to the same server, and says so late.
    placer.tell(lost());
    let version = placer.version();
    let explanation = channel.explain().await.unwrap();
    assert_eq!(explanation.report.connectivity, Connectivity::Ready, "{explanation}");
    assert_eq!((only_connection(&mut placer), placer.version()), (Some(second), version));
}

#[tokio::test]
async fn silence_on_a_connection_beside_takes_the_endpoint_out_until_it_speaks() {
    let (address, mut peers) = Raw::listen().await;
    let channel = builder(address.to_string(), "round_robin").build().unwrap();
    channel.connect();
    let mut own = within(peers.recv()).await.unwrap();
    own.settings(&[]).await;
    let (mut placer, mut versions) = (channel.placer(), channel.versions());
    until(&mut placer, &mut versions, |placer| make_call(placer, &NOTHING)).await;
    let connection = only_connection(&mut placer).unwrap();
    placer.tell(Input::Stalled(connection, "silent for 300ms".to_owned()));
    until(&mut placer, &mut versions, |placer| make_call(placer, &NOTHING).is_none().then_some(())).await;
    placer.tell(Input::Recovered(connection));
    until(&mut placer, &mut versions, |placer| make_call(placer, &NOTHING)).await;
    assert_eq!(only_connection(&mut placer), Some(connection), "it was not replaced");
}

#[tokio::test]
async fn an_endpoint_is_dialled_for_a_connection_of_the_callers_own() {
    let server = Server::start().await;
    let channel = Channel::builder(server.address.to_string()).build().unwrap();
    let dialled = channel.dial(&Address::Tcp(server.address)).await.unwrap();
    let DataSocket::Tcp(socket) = dialled.socket else { panic!("TCP") };
    assert!(socket.nodelay().unwrap());
    // The server answers the preface with its settings.
    let mut stream = TcpStream::from_std(socket).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut header = [0; 9];
    within(stream.read_exact(&mut header)).await.unwrap();
    assert_eq!(header[3], 4, "SETTINGS");
    let missing = channel.dial(&Address::Unix("/nobody/listens/here".into())).await.unwrap_err();
    assert!(missing.to_string().contains("No such file"), "{missing}");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_is_left_to_the_caller_with_all_that_it_takes() {
    use evenkeel_channel::Tls;

    let (ca, server) = (front::Authority::new(), Server::start().await);
    let front = front::Front::start(server.address, ca.server("echo.test")).await;
    let tls = Tls::new().ca_pem(ca.pem()).server_name("echo.test");
    let channel = Channel::builder(front.address.to_string()).tls(tls).build().unwrap();
    assert_eq!(channel.placer().scheme(), "https");
    let dialled = channel.dial(&Address::Tcp(front.address)).await.unwrap();
    let (DataSocket::Tcp(socket), Some(handshake)) = (dialled.socket, dialled.tls) else { panic!("TLS over TCP") };
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&handshake.config));
    let stream = TcpStream::from_std(socket).unwrap();
    let secure = within(connector.connect(handshake.server_name.clone(), stream)).await.unwrap();
    assert_eq!(handshake.agreed(secure.get_ref().1.alpn_protocol()), Ok(()));
    let other = handshake.agreed(Some(b"http/1.1")).unwrap_err();
    assert!(other.contains("gRPC needs \"h2\""), "{other}");
}
