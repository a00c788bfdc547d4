//! Calls that stream.

use evenkeel_interop::proto::{
    ResponseParameters, StreamingInputCallRequest, StreamingOutputCallRequest, StreamingOutputCallResponse,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use super::{Client, payload, size, wire};
use crate::failure::{Outcome, expect};

/// Bytes of the messages that the streams carry: some larger than a frame, and one of a few bytes.
const REQUESTS: [usize; 4] = [27_182, 8, 1_828, 45_904];
const REPLIES: [usize; 4] = [31_415, 9, 2_653, 58_979];

pub(super) async fn client_streaming(client: &mut Client) -> Outcome {
    let requests = REQUESTS.map(|size| StreamingInputCallRequest { payload: Some(payload(size)) });
    let reply = client.streaming_input_call(tokio_stream::iter(requests)).await?.into_inner();
    expect("bytes received by the server", &reply.aggregated_payload_size, &wire(REQUESTS.iter().sum()))
}

pub(super) async fn server_streaming(client: &mut Client) -> Outcome {
    let request = StreamingOutputCallRequest {
        response_parameters: REPLIES.map(reply_of).to_vec(),
        ..StreamingOutputCallRequest::default()
    };
    let mut replies = client.streaming_output_call(request).await?.into_inner();
    let mut sizes = Vec::new();
    while let Some(reply) = replies.next().await {
        sizes.push(size(reply?.payload.as_ref()));
    }
    expect("sizes of the replies", &sizes, &REPLIES.to_vec())
}

/// Each request waits for the reply to the one before.
pub(super) async fn ping_pong(client: &mut Client) -> Outcome {
    let (requests, receiver) = mpsc::channel(1);
    send(&requests, REQUESTS[0], REPLIES[0]).await?;
    let mut replies = client.full_duplex_call(ReceiverStream::new(receiver)).await?.into_inner();
    for (turn, wanted) in REPLIES.iter().enumerate() {
        let reply = replies.next().await.transpose()?;
        expect("size of a reply", &reply_size(reply), &Some(*wanted))?;
        if let (Some(request), Some(reply)) = (REQUESTS.get(turn + 1), REPLIES.get(turn + 1)) {
            send(&requests, *request, *reply).await?;
        }
    }
    drop(requests);
    expect("a reply after the last", &reply_size(replies.next().await.transpose()?), &None)
}

pub(super) async fn empty(client: &mut Client) -> Outcome {
    let mut replies = client.full_duplex_call(tokio_stream::empty()).await?.into_inner();
    expect("a reply to nothing", &reply_size(replies.next().await.transpose()?), &None)
}

async fn send(requests: &mpsc::Sender<StreamingOutputCallRequest>, request: usize, reply: usize) -> Outcome {
    let message = StreamingOutputCallRequest {
        response_parameters: vec![reply_of(reply)],
        payload: Some(payload(request)),
        ..StreamingOutputCallRequest::default()
    };
    requests.send(message).await.map_err(|_| Status::aborted("the call ended before the last request"))?;
    Ok(())
}

fn reply_of(size: usize) -> ResponseParameters {
    ResponseParameters { size: wire(size), interval_us: 0 }
}

fn reply_size(reply: Option<StreamingOutputCallResponse>) -> Option<usize> {
    reply.map(|reply| size(reply.payload.as_ref()))
}
