//! channelz over a real socket: tonic's client asks about our channels, which call real servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use evenkeel_channel::{
    Channel, Report,
    balance::{Connectivity, HealthCheck, UnknownService},
};
use evenkeel_channelz::Channelz;
use evenkeel_proto::{
    channelz::{
        ChannelTrace, GetChannelRequest, GetServerRequest, GetServerSocketsRequest, GetServersRequest,
        GetSocketRequest, GetSubchannelRequest, GetTopChannelsRequest, GetTopChannelsResponse, Socket, Subchannel,
        address::Address, channel_connectivity_state::State, channel_trace_event::Severity,
        channelz_client::ChannelzClient,
    },
    health::{HealthCheckRequest, health_client::HealthClient},
};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, transport};

type Client = ChannelzClient<transport::Channel>;

/// A server of the health service, for channels to call.
struct Backend {
    address: SocketAddr,
    /// Of its own, so that killing it takes its connections with it.
    runtime: Option<Runtime>,
}

impl Backend {
    async fn start() -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listening = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await.unwrap().unwrap();
        let address = listening.local_addr().unwrap();
        let (_, health) = evenkeel_health::service();
        let server = transport::Server::builder().add_service(health);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listening)));
        Self { address, runtime: Some(runtime) }
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn client(channelz: &Channelz) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = transport::Server::builder().add_service(channelz.service());
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    let endpoint = transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    ChannelzClient::new(endpoint.connect().await.unwrap())
}

async fn until(channel: &Channel, condition: impl Fn(&Report) -> bool) {
    let mut reports = channel.reports();
    let came_true = reports.wait_for(|report| condition(report));
    tokio::time::timeout(Duration::from_secs(10), came_true).await.expect("in time").unwrap();
}

async fn top(client: &mut Client, start_channel_id: i64, max_results: i64) -> GetTopChannelsResponse {
    client.get_top_channels(GetTopChannelsRequest { start_channel_id, max_results }).await.unwrap().into_inner()
}

async fn subchannel(client: &mut Client, subchannel_id: i64) -> Subchannel {
    let reply = client.get_subchannel(GetSubchannelRequest { subchannel_id }).await.unwrap();
    reply.into_inner().subchannel.unwrap()
}

async fn socket(client: &mut Client, socket_id: i64) -> Socket {
    let reply = client.get_socket(GetSocketRequest { socket_id }).await.unwrap();
    reply.into_inner().socket.unwrap()
}

fn descriptions(trace: &ChannelTrace) -> Vec<&str> {
    trace.events.iter().map(|event| event.description.as_str()).collect()
}

#[tokio::test]
async fn a14_a_channel_its_subchannels_and_their_sockets_are_told_of() {
    let before = SystemTime::now();
    let (first, second) = (Backend::start().await, Backend::start().await);
    let check = HealthCheck { service: String::new(), unknown: UnknownService::IsUnhealthy };
    let target = format!("{},{}", first.address, second.address);
    let channel = Channel::builder(&target).policy("round_robin").health_check(check).build().unwrap();
    let channelz = Channelz::new();
    channelz.add("health", &channel);
    let mut client = client(&channelz).await;

    let [idle] = &top(&mut client, 0, 0).await.channel[..] else { panic!("one channel") };
    let data = idle.data.as_ref().unwrap();
    assert_eq!((data.state.unwrap().state(), data.calls_started, &data.target), (State::Idle, 0, &target));
    assert!(data.last_call_started_timestamp.is_none() && idle.subchannel_ref.is_empty());

    channel.connect();
    until(&channel, |report| report.endpoints.iter().filter(|e| e.state.service == Connectivity::Ready).count() == 2)
        .await;
    let mut calls = HealthClient::new(channel.clone());
    for _ in 0..4 {
        calls.check(HealthCheckRequest { service: String::new() }).await.unwrap();
    }
    calls.check(HealthCheckRequest { service: "none".to_owned() }).await.unwrap_err();

    let id = idle.r#ref.as_ref().unwrap().channel_id;
    let reply = client.get_channel(GetChannelRequest { channel_id: id }).await.unwrap().into_inner();
    let found = reply.channel.unwrap();
    assert_eq!(found.r#ref.as_ref().unwrap().name, "health");
    let data = found.data.unwrap();
    assert_eq!(data.state.unwrap().state(), State::Ready);
    assert_eq!((data.calls_started, data.calls_succeeded, data.calls_failed), (5, 4, 1));
    let trace = data.trace.unwrap();
    let made = SystemTime::try_from(trace.creation_timestamp.unwrap()).unwrap();
    let last_call = SystemTime::try_from(data.last_call_started_timestamp.unwrap()).unwrap();
    assert!(before <= made && made <= last_call && last_call <= SystemTime::now());
    assert!(descriptions(&trace).contains(&"channel: CONNECTING → READY"), "{trace:?}");
    assert_eq!(trace.num_events_logged, i64::try_from(trace.events.len()).unwrap());
    assert!(trace.events.iter().any(|event| event.child_ref.is_some()), "{trace:?}");

    let names: Vec<_> = found.subchannel_ref.iter().map(|subchannel| subchannel.name.as_str()).collect();
    let mut expected = [first.address.to_string(), second.address.to_string()];
    expected.sort();
    assert_eq!(names, expected);
    let mut attempts = 0;
    for reference in &found.subchannel_ref {
        let subchannel = subchannel(&mut client, reference.subchannel_id).await;
        let data = subchannel.data.unwrap();
        assert_eq!((data.state.unwrap().state(), &data.target), (State::Ready, &reference.name));
        attempts += data.calls_started;
        let [socket_ref] = &subchannel.socket_ref[..] else { panic!("one connection") };
        let socket = socket(&mut client, socket_ref.socket_id).await;
        let Some(Address::TcpipAddress(remote)) = socket.remote.unwrap().address else { panic!("TCP") };
        assert_eq!(
            (&remote.ip_address[..], reference.name.clone()),
            (&[127, 0, 0, 1][..], format!("127.0.0.1:{}", remote.port))
        );
        let Some(Address::TcpipAddress(local)) = socket.local.unwrap().address else { panic!("TCP") };
        assert!(local.port > 0 && socket.security.is_none());
        let streams = socket.data.unwrap();
        // Its calls, and the Watch, which goes on.
        assert_eq!(streams.streams_started, data.calls_started + 1);
        assert_eq!((streams.streams_succeeded, streams.streams_failed), (data.calls_started, 0));
    }
    assert_eq!(attempts, 5);
}

#[tokio::test]
async fn ids_last_as_long_as_what_they_name_and_a_lost_endpoint_is_a_warning() {
    let mut backend = Backend::start().await;
    let channel = Channel::builder(backend.address.to_string()).policy("round_robin").build().unwrap();
    let channelz = Channelz::new();
    channelz.add("once", &channel);
    channelz.add("again", &channel.clone());
    let mut client = client(&channelz).await;
    channel.connect();
    until(&channel, |report| report.connectivity == Connectivity::Ready).await;

    let before = top(&mut client, 0, 0).await.channel;
    assert_eq!((before.len(), before[0].r#ref.as_ref().unwrap().name.as_str()), (1, "again"));
    let id = before[0].subchannel_ref[0].subchannel_id;
    let connected = subchannel(&mut client, id).await;
    assert_eq!(subchannel(&mut client, id).await.socket_ref, connected.socket_ref);

    backend.kill();
    until(&channel, |report| report.connectivity == Connectivity::TransientFailure).await;
    let lost = subchannel(&mut client, id).await;
    assert!(lost.socket_ref.is_empty());
    let socket_id = connected.socket_ref[0].socket_id;
    let gone = client.get_socket(GetSocketRequest { socket_id }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let trace = lost.data.unwrap().trace.unwrap();
    let newest = trace.events.last().unwrap();
    assert!(newest.description.contains("TRANSIENT_FAILURE: "), "{trace:?}");
    assert_eq!(newest.severity(), Severity::CtWarning);
    assert_eq!(top(&mut client, 0, 0).await.channel[0].subchannel_ref, before[0].subchannel_ref);
}

#[tokio::test]
async fn a14_top_channels_come_in_pages_and_drop_out_when_nobody_holds_them() {
    let channelz = Channelz::new();
    let made: Vec<_> =
        (1..=5).map(|port| Channel::builder(format!("ipv4:127.0.0.1:{port}")).build().unwrap()).collect();
    for channel in &made {
        channelz.add("", channel);
    }
    let mut client = client(&channelz).await;
    let ids = |page: &GetTopChannelsResponse| {
        page.channel.iter().map(|channel| channel.r#ref.as_ref().unwrap().channel_id).collect::<Vec<_>>()
    };
    let all = top(&mut client, 0, 0).await;
    let known = ids(&all);
    assert!(all.end && known.len() == 5 && known.is_sorted() && known[0] > 0);

    let page = top(&mut client, 0, 2).await;
    assert_eq!((ids(&page), page.end), (known[..2].to_vec(), false));
    let page = top(&mut client, known[1] + 1, 3).await;
    assert_eq!((ids(&page), page.end), (known[2..].to_vec(), true));
    let page = top(&mut client, known[4] + 1, 3).await;
    assert_eq!((ids(&page), page.end), (vec![], true));
    let refused = client.get_top_channels(GetTopChannelsRequest { start_channel_id: -1, max_results: 0 }).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);

    drop(made);
    assert_eq!(ids(&top(&mut client, 0, 0).await), [0; 0]);
    let gone = client.get_channel(GetChannelRequest { channel_id: known[0] }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a14_there_are_no_servers_and_unknown_ids_are_not_found() {
    let mut client = client(&Channelz::new()).await;
    let servers = client.get_servers(GetServersRequest { start_server_id: 0, max_results: 0 }).await.unwrap();
    assert!(servers.get_ref().server.is_empty() && servers.get_ref().end);
    let sockets = GetServerSocketsRequest { server_id: 1, start_socket_id: 0, max_results: 0 };
    let codes = [
        client.get_server(GetServerRequest { server_id: 1 }).await.unwrap_err().code(),
        client.get_server_sockets(sockets).await.unwrap_err().code(),
        client.get_channel(GetChannelRequest { channel_id: 1 }).await.unwrap_err().code(),
        client.get_subchannel(GetSubchannelRequest { subchannel_id: i64::MAX }).await.unwrap_err().code(),
        client.get_socket(GetSocketRequest { socket_id: -1 }).await.unwrap_err().code(),
    ];
    assert_eq!(codes, [Code::NotFound; 5]);
}
