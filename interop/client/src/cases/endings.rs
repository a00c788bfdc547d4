//! Calls that end otherwise than with a reply.

use std::time::Duration;

use evenkeel_channel::Channel;
use evenkeel_interop::proto::{
    EchoStatus, Empty, ResponseParameters, SimpleRequest, StreamingInputCallRequest, StreamingOutputCallRequest,
    unimplemented_service_client::UnimplementedServiceClient,
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Status};

use super::{Client, payload};
use crate::failure::{Outcome, expect, expect_code, unexpected};

pub(super) async fn timeout(client: &mut Client) -> Outcome {
    let message =
        StreamingOutputCallRequest { payload: Some(payload(27_182)), ..StreamingOutputCallRequest::default() };
    let mut request = Request::new(tokio_stream::once(message).chain(tokio_stream::pending()));
    request.set_timeout(Duration::from_millis(1));
    expect_code("the call's end", first_reply(client, request).await, Code::DeadlineExceeded)?;
    Ok(())
}

/// Dropping a call is how a user of tonic cancels it, so that nobody is left to see the status: what can be judged is
/// that the channel counts it as ended and serves other calls.
pub(super) async fn cancel_after_begin(client: &mut Client, channel: &Channel) -> Outcome {
    let requests = tokio_stream::pending::<StreamingInputCallRequest>();
    tokio::select! {
        ended = client.streaming_input_call(requests) => {
            return Err(unexpected("the call's end", &ended, &"none before it is cancelled"));
        }
        () = running(channel, 1) => {}
    }
    still_serves(client, channel).await
}

/// See [`cancel_after_begin`] on what is judged.
pub(super) async fn cancel_after_first_response(client: &mut Client, channel: &Channel) -> Outcome {
    let message = StreamingOutputCallRequest {
        response_parameters: vec![ResponseParameters { size: 31_415, interval_us: 0 }],
        payload: Some(payload(27_182)),
        ..StreamingOutputCallRequest::default()
    };
    let requests = tokio_stream::once(message).chain(tokio_stream::pending());
    let mut replies = client.full_duplex_call(requests).await?.into_inner();
    let first = replies.next().await.transpose()?;
    expect("whether there was a reply", &first.is_some(), &true)?;
    drop(replies);
    still_serves(client, channel).await
}

async fn still_serves(client: &mut Client, channel: &Channel) -> Outcome {
    running(channel, 0).await;
    client.empty_call(Empty {}).await?;
    Ok(())
}

pub(super) async fn status_code_and_message(client: &mut Client) -> Outcome {
    let wanted = EchoStatus { code: Code::Unknown as i32, message: "test status message".to_owned() };
    ends_with(client, &wanted).await?;

    let request =
        StreamingOutputCallRequest { response_status: Some(wanted.clone()), ..StreamingOutputCallRequest::default() };
    let ended = first_reply(client, Request::new(tokio_stream::once(request))).await;
    let status = expect_code("the stream's end", ended, Code::Unknown)?;
    expect("the stream's status message", &status.message(), &&*wanted.message)
}

pub(super) async fn special_status_message(client: &mut Client) -> Outcome {
    let message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n".to_owned();
    ends_with(client, &EchoStatus { code: Code::Unknown as i32, message }).await
}

/// A unary call that asks for this status gets it.
async fn ends_with(client: &mut Client, wanted: &EchoStatus) -> Outcome {
    let request = SimpleRequest { response_status: Some(wanted.clone()), ..SimpleRequest::default() };
    let status = expect_code("the call's end", client.unary_call(request).await, wanted.code.into())?;
    expect("the status message", &status.message(), &&*wanted.message)
}

pub(super) async fn unimplemented_method(client: &mut Client) -> Outcome {
    expect_code("the call's end", client.unimplemented_call(Empty {}).await, Code::Unimplemented)?;
    Ok(())
}

pub(super) async fn unimplemented_service(channel: Channel) -> Outcome {
    let mut client = UnimplementedServiceClient::new(channel);
    expect_code("the call's end", client.unimplemented_call(Empty {}).await, Code::Unimplemented)?;
    Ok(())
}

/// The first reply of a duplex call, as the size of its payload, or how the call ended.
async fn first_reply<S>(client: &mut Client, request: Request<S>) -> Result<Option<usize>, Status>
where
    S: Stream<Item = StreamingOutputCallRequest> + Send + 'static,
{
    let mut replies = client.full_duplex_call(request).await?.into_inner();
    let reply = replies.next().await.transpose()?;
    Ok(reply.map(|reply| super::size(reply.payload.as_ref())))
}

/// Waits until the channel counts so many calls as running. Its counters are live but announce nothing, so they are
/// looked at again and again.
async fn running(channel: &Channel, wanted: u32) {
    let counted = || channel.reports().borrow().endpoints.iter().map(|endpoint| endpoint.load.in_flight()).sum::<u32>();
    while counted() != wanted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
