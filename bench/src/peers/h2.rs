use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::{Context, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use evenkeel_proto::demo::EchoReply;
use h2::client::SendRequest;
use http::{HeaderValue, Request, Uri, header};
use prost::Message;
use tokio::net::TcpStream;

use super::{Peer, request};

/// gRPC puts a flag and a length before each message.
const PREFIX: usize = 5;

#[derive(Clone)]
pub(super) struct H2(Arc<Connections>);

struct Connections {
    senders: Vec<SendRequest<Bytes>>,
    next: AtomicUsize,
    uri: Uri,
}

pub(super) async fn peer(backends: &[String]) -> anyhow::Result<H2> {
    let mut senders = Vec::new();
    for backend in backends {
        let stream = TcpStream::connect(backend).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        senders.push(sender);
    }
    let first = backends.first().context("no backend")?;
    let uri = format!("http://{first}/evenkeel.demo.v1.Echo/Unary").parse()?;
    Ok(H2(Arc::new(Connections { senders, next: AtomicUsize::new(0), uri })))
}

impl H2 {
    fn head(&self) -> Request<()> {
        let mut head = Request::post(self.0.uri.clone()).body(()).unwrap_or_default();
        let headers = head.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("h2-by-hand/1"));
        head
    }
}

impl Peer for H2 {
    async fn call(&self) -> anyhow::Result<()> {
        let turn = self.0.next.fetch_add(1, Relaxed) % self.0.senders.len();
        let mut sender = self.0.senders[turn].clone();
        poll_fn(|cx| sender.poll_ready(cx)).await?;
        let (response, mut stream) = sender.send_request(self.head(), false)?;
        stream.send_data(framed()?, true)?;
        let mut body = response.await?.into_body();
        let mut reply = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            reply.extend_from_slice(&data);
        }
        let trailers = body.trailers().await?.context("no trailers")?;
        ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "the call failed");
        ensure!(reply.len() >= PREFIX, "no message");
        reply.advance(PREFIX);
        EchoReply::decode(reply)?;
        Ok(())
    }
}

fn framed() -> anyhow::Result<Bytes> {
    let message = request();
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length)?);
    message.encode(&mut framed)?;
    Ok(framed.freeze())
}
