use anyhow::{Context, anyhow};
use bytes::{Buf, Bytes};
use evenkeel_proto::demo::{EchoReply, EchoRequest};
use grpc::{
    client::{Channel, Invoke, RecvStream, ResponseStreamItem, SendOptions, SendStream},
    core::{RecvMessage, RequestHeaders, SendMessage},
    credentials::LocalChannelCredentials,
};
use prost::Message;

use super::{Peer, request};

#[derive(Clone)]
pub(super) struct Grpc(Channel);

pub(super) fn peer(backends: &[String]) -> anyhow::Result<Grpc> {
    let target = format!("dns:///{}", backends.first().context("no backend")?);
    Ok(Grpc(Channel::new(target, LocalChannelCredentials::new_arc(), Default::default())))
}

struct Sent(EchoRequest);

impl SendMessage for Sent {
    fn encode(&self) -> Result<Box<dyn Buf + Send + Sync>, String> {
        Ok(Box::new(Bytes::from(self.0.encode_to_vec())))
    }
}

struct Received(EchoReply);

impl RecvMessage for Received {
    fn decode(&mut self, data: &mut dyn Buf) -> Result<(), String> {
        self.0 = EchoReply::decode(data).map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl Peer for Grpc {
    async fn call(&self) -> anyhow::Result<()> {
        let headers = RequestHeaders::new().with_method_name("/evenkeel.demo.v1.Echo/Unary");
        let (mut sending, mut receiving) = self.0.invoke(headers, Default::default()).await;
        // Where it fails, the response says why.
        let _ = sending.send(&Sent(request()), SendOptions::new().with_final_msg(true)).await;
        let mut reply = Received(EchoReply::default());
        loop {
            match receiving.recv(&mut reply).await {
                ResponseStreamItem::Trailers(trailers) => {
                    let status = trailers.status().as_ref();
                    return status.map(drop).map_err(|error| anyhow!("{:?}", error.code()));
                }
                ResponseStreamItem::StreamClosed => return Err(anyhow!("the stream closed without trailers")),
                _ => {}
            }
        }
    }
}
