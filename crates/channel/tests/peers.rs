//! Calls to peers that no server library would be: each test speaks HTTP/2 by hand, and misbehaves in one way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peer;
mod servers;

use std::time::Duration;

use bytes::Bytes;
use evenkeel_channel::{Channel, ResponseBody};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use peer::{Peer, Raw};
use servers::{Server, request};
use tokio::sync::mpsc;
use tower_service::Service;

/// A request body that a test writes as it goes.
struct Script(mpsc::UnboundedReceiver<Result<Frame<Bytes>, String>>);

type Writer = mpsc::UnboundedSender<Result<Frame<Bytes>, String>>;

impl Body for Script {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, String>>> {
        self.0.poll_recv(cx)
    }
}

fn script() -> (Writer, Script) {
    let (send, receive) = mpsc::unbounded_channel();
    (send, Script(receive))
}

/// A request body that ends after `data`.
fn whole(data: impl Into<Bytes>) -> Script {
    let (send, body) = script();
    send.send(Ok(Frame::data(data.into()))).unwrap();
    body
}

fn to(path: &str, body: Script) -> Request<Script> {
    Request::post(path).header("content-type", "application/grpc").header("te", "trailers").body(body).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

async fn call(channel: &Channel, request: Request<Script>) -> Response<ResponseBody> {
    let Ok(response) = within(channel.clone().call(request)).await;
    response
}

/// Reads a response to its end: its data and the headers that hold its status.
async fn finish(response: Response<ResponseBody>) -> (Vec<u8>, HeaderMap) {
    let (head, mut body) = response.into_parts();
    let (mut data, mut last) = (Vec::new(), head.headers);
    while let Some(Ok(frame)) = within(std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx))).await {
        match frame.into_data() {
            Ok(bytes) => data.extend(bytes),
            Err(frame) => last = frame.into_trailers().unwrap(),
        }
    }
    (data, last)
}

async fn status(channel: &Channel, request: Request<Script>) -> u32 {
    let (_, headers) = finish(call(channel, request).await).await;
    headers["grpc-status"].to_str().unwrap().parse().unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "an address or a string, as each test has it")]
fn channel_to(target: impl std::fmt::Display) -> Channel {
    Channel::builder(target.to_string()).policy("round_robin").build().unwrap()
}

fn in_flight(channel: &Channel) -> u32 {
    channel.reports().borrow().endpoints.iter().map(|endpoint| endpoint.load.in_flight()).sum()
}

#[tokio::test]
async fn a_call_that_waits_for_a_stream_goes_out_when_the_peer_raises_its_limit() {
    let (address, mut peers) = Raw::listen().await;
    let channel = channel_to(address);
    let calling = tokio::spawn({
        let channel = channel.clone();
        async move { status(&channel, to("/s/m", whole("x"))).await }
    });
    let mut peer = within(peers.recv()).await.unwrap();
    peer.settings(&[(3, 0)]).await;
    peer.settings_acknowledged().await;
    // The channel answers this only after it has acted on the settings, and so has tried to place the call.
    peer.ping().await;
    peer.settings(&[(3, 1)]).await;
    let stream = peer.until_headers().await;
    peer.trailers_only(stream, "0").await;
    assert_eq!(within(calling).await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_that_http2_forbids_fails_instead_of_being_tried_for_ever() {
    let server = Server::start().await;
    let channel = channel_to(server.address);
    for (name, value) in [("connection", "close"), ("te", "gzip")] {
        let mut request = to("/s/m", whole("x"));
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        assert_eq!(status(&channel, request).await, 13, "INTERNAL for {name}: {value}");
    }
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test]
async fn a_dropped_response_cancels_the_call_though_its_request_is_still_open() {
    let mut peer = Peer::start().await;
    let channel = channel_to(peer.address);
    let (writer, body) = script();
    let calling = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel, to("/s/m", body)).await }
    });
    let mut stream = peer.call().await;
    let mut sending = stream.respond.send_response(peer::head(), false).unwrap();
    drop(within(calling).await.unwrap());
    assert_eq!(peer::until_reset(&mut sending).await, h2::Reason::CANCEL);
    within(writer.closed()).await;
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test]
async fn a_response_that_ends_ends_the_request_that_is_still_open() {
    let mut peer = Peer::start().await;
    let channel = channel_to(peer.address);
    let (writer, body) = script();
    let calling = tokio::spawn({
        let channel = channel.clone();
        async move { status(&channel, to("/s/m", body)).await }
    });
    let mut stream = peer.call().await;
    let mut sending = stream.respond.send_response(peer::head(), false).unwrap();
    sending.send_trailers(peer::status("0")).unwrap();
    assert_eq!(within(calling).await.unwrap(), 0);
    within(writer.closed()).await;
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test]
async fn an_early_status_reaches_the_caller_whatever_becomes_of_the_upload() {
    const NO_ERROR: u32 = 0;
    const CANCEL: u32 = 8;
    let (address, mut peers) = Raw::listen().await;
    let channel = channel_to(address);
    channel.connect();
    let mut peer = within(peers.recv()).await.unwrap();
    peer.settings(&[]).await;
    for reset in [None, Some(NO_ERROR), Some(CANCEL)] {
        let (writer, body) = script();
        writer.send(Ok(Frame::data(vec![0; 1 << 20].into()))).unwrap();
        let calling = tokio::spawn({
            let channel = channel.clone();
            async move { status(&channel, to("/s/m", body)).await }
        });
        let stream = peer.until_headers().await;
        peer.trailers_only(stream, "8").await;
        if let Some(code) = reset {
            peer.reset(stream, code).await;
        }
        assert_eq!(within(calling).await.unwrap(), 8, "{reset:?}");
        within(writer.closed()).await;
    }
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test]
async fn cancelling_many_calls_leaves_the_connection_and_its_other_calls_alone() {
    let mut peer = Peer::start().await;
    let channel = channel_to(peer.address);
    let staying = tokio::spawn({
        let channel = channel.clone();
        async move { status(&channel, to("/s/stays", whole("x"))).await }
    });
    let mut staying_stream = peer.call().await;
    let served = tokio::spawn(async move {
        // Each sends on as long as it may, so that frames cross with the cancellation.
        while let Some(mut stream) = peer.next().await {
            tokio::spawn(async move {
                let Ok(mut sending) = stream.respond.send_response(peer::head(), false) else { return };
                for _ in 0..64 {
                    if sending.send_data(Bytes::from_static(&[0; 1024]), false).is_err() {
                        return;
                    }
                }
                peer::until_reset(&mut sending).await;
            });
        }
    });
    for _ in 0..40 {
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move {
                    drop(call(&channel, to("/s/m", whole("x"))).await);
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
    }
    let mut sending = staying_stream.respond.send_response(peer::head(), false).expect("still open");
    sending.send_trailers(peer::status("0")).unwrap();
    assert_eq!(within(staying).await.unwrap(), 0);
    served.abort();
}

#[tokio::test]
async fn many_slow_readers_leave_room_for_their_neighbours() {
    let server = Server::start().await;
    let channel = channel_to(server.address);
    let mut client = evenkeel_proto::demo::echo_client::EchoClient::new(channel.clone());
    let mut unread = Vec::new();
    for _ in 0..100 {
        let many = evenkeel_proto::demo::EchoRequest { repeat: 64, payload: vec![0; 64 * 1024].into(), ..request("x") };
        unread.push(client.server_stream(many).await.unwrap());
    }
    for _ in 0..20 {
        within(client.unary(request("x"))).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_that_waited_tells_the_server_what_is_left_of_its_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = channel_to(listener.local_addr().unwrap());
    let mut request = to("/s/m", whole("x"));
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("60S"));
    let calling = tokio::spawn({
        let channel = channel.clone();
        async move { status(&channel, request).await }
    });
    // The peer is slow to greet, so the call waits.
    let (socket, _) = within(listener.accept()).await.unwrap();
    let mut connection = within(h2::server::handshake(socket)).await.unwrap();
    let (call, mut respond) = within(connection.accept()).await.unwrap().unwrap();
    let told = call.headers()["grpc-timeout"].to_str().unwrap().to_owned();
    assert!(told != "60S" && told.starts_with("59") && told.ends_with('u'), "{told}");
    let mut ended = Response::new(());
    ended.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
    respond.send_response(ended, true).unwrap();
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    assert_eq!(within(calling).await.unwrap(), 0);
}

#[tokio::test]
async fn a_deadline_ends_a_response_that_never_pauses() {
    let mut peer = Peer::start().await;
    let channel = channel_to(peer.address);
    let mut request = to("/s/m", whole("x"));
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("200m"));
    let calling = tokio::spawn({
        let channel = channel.clone();
        async move { status(&channel, request).await }
    });
    let mut stream = peer.call().await;
    let mut sending = stream.respond.send_response(peer::head(), false).unwrap();
    let endless = async {
        loop {
            sending.reserve_capacity(16_384);
            match std::future::poll_fn(|cx| sending.poll_capacity(cx)).await {
                Some(Ok(granted)) => sending.send_data(vec![0; granted].into(), false).unwrap(),
                _ => return,
            }
        }
    };
    within(endless).await;
    assert_eq!(within(calling).await.unwrap(), 4, "DEADLINE_EXCEEDED");
    assert_eq!(in_flight(&channel), 0);
}

/// Whether the channel's report comes to say so, in time.
async fn reported(channel: &Channel, is_so: impl Fn(&evenkeel_channel::Report) -> bool) {
    let mut reports = channel.reports();
    within(reports.wait_for(|report| is_so(report))).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_falls_silent_gets_no_calls_until_its_first_byte_and_few_pings() {
    use evenkeel_channel::balance::{Connectivity, ProgressSettings};

    let (address, mut peers) = Raw::listen().await;
    let server = Server::start().await;
    // A stall that is over must leave no timer of its own behind: one of an hour would show.
    let mut progress = ProgressSettings::default();
    progress.give_up_after = Duration::from_secs(3_600);
    let channel = Channel::builder(format!("{address},{}", server.address)).policy("round_robin");
    let channel = channel.progress(progress).build().unwrap();
    channel.connect();
    let mut peer = within(peers.recv()).await.unwrap();
    peer.settings(&[]).await;
    let ready = |count| {
        move |report: &evenkeel_channel::Report| {
            report.endpoints.iter().filter(|endpoint| endpoint.state.service == Connectivity::Ready).count() == count
        }
    };
    reported(&channel, ready(2)).await;
    let mut client = evenkeel_proto::demo::echo_client::EchoClient::new(channel.clone());
    for round in 0..3 {
        // One call hangs at the silent peer.
        let before = server.calls();
        let hanging = tokio::spawn({
            let channel = channel.clone();
            async move {
                let calls = [status(&channel, to("/s/m", whole("x"))), status(&channel, to("/s/m", whole("x")))];
                let [one, two] = calls;
                tokio::join!(one, two)
            }
        });
        reported(&channel, ready(1)).await;
        let between = server.calls();
        for _ in 0..20 {
            within(client.unary(request("x"))).await.unwrap();
        }
        assert_eq!(server.calls(), between + 20, "round {round}");
        assert!(between <= before + 1);
        let (stream, pings) = peer.headers_and_pings().await;
        assert!(pings <= 1, "one question, however many calls wait for the answer: {pings}");
        peer.trailers_only(stream, "0").await;
        reported(&channel, ready(2)).await;
        within(hanging).await.unwrap();
    }
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test]
async fn servers_that_send_goaway_after_each_call_fail_none() {
    let (one, two) = (recycling(|calls| calls >= 1).await, recycling(|calls| calls >= 1).await);
    let channel = channel_to(format!("{one},{two}"));
    for i in 0..1_000 {
        assert_eq!(status(&channel, to("/s/m", whole("x"))).await, 0, "call {i}");
    }
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_that_recycle_their_connections_under_load_fail_no_call() {
    let (one, two) = (recycling(|calls| calls >= 20).await, recycling(|calls| calls >= 20).await);
    let channel = channel_to(format!("{one},{two}"));
    let callers: Vec<_> = (0..32)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                for i in 0..100 {
                    let response = finish(call(&channel, to("/s/m", whole("x"))).await).await;
                    assert_eq!(response.1["grpc-status"], "0", "call {i}: {:?}", response.1);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(in_flight(&channel), 0);
}

/// A server that says a proper good-bye (a GOAWAY in two steps) to each connection once `is_enough` says so of its
/// calls, and answers all that came before.
async fn recycling(is_enough: impl Fn(usize) -> bool + Copy + Send + 'static) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut http = h2::server::handshake(socket).await.unwrap();
                let mut calls = 0;
                while let Some(Ok((_, mut respond))) = http.accept().await {
                    calls += 1;
                    let mut head = peer::head();
                    head.headers_mut().extend(peer::status("0"));
                    let _ = respond.send_response(head, true);
                    if is_enough(calls) {
                        http.graceful_shutdown();
                    }
                }
            });
        }
    });
    address
}
