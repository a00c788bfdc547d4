//! One call: the client's request to the channel, and the channel's response to the client.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use evenkeel_channel::{Channel, ResponseBody};
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{Request, Response, header};
use http_body::{Body, Frame};
use tower_service::Service;

/// Carries one call to its end. A client that resets it cancels it at the backend: everything of it is dropped here.
pub(crate) async fn call(mut channel: Channel, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (mut head, body) = request.into_parts();
    // The authority is what counts, and the only one that goes on (gRFC A41).
    if head.uri.authority().is_some() {
        head.headers.remove(header::HOST);
    }
    let response = channel.call(Request::from_parts(head, RequestBody::new(body)));
    let response = tokio::select! {
        biased;
        response = response => response,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let Ok(response) = response;
    let (head, body) = response.into_parts();
    let sent = respond.send_response(Response::from_parts(head, ()), body.is_end_stream());
    // Fails only where the client is gone; so do the sends below.
    if let Ok(stream) = sent {
        let _ = send_body(body, stream).await;
    }
}

async fn send_body(body: ResponseBody, mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut body = std::pin::pin!(body);
    while !body.is_end_stream() {
        let frame = tokio::select! {
            biased;
            frame = poll_fn(|cx| body.as_mut().poll_frame(cx)) => frame,
            reset = poll_fn(|cx| stream.poll_reset(cx)) => return reset.map(drop),
        };
        let Some(Ok(frame)) = frame else { break };
        match frame.into_data() {
            Ok(data) => send_data(data, &mut stream).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
    stream.send_data(Bytes::new(), true)
}

/// Sends `data` as fast as the client's windows let it, and holds back the backend meanwhile.
async fn send_data(mut data: Bytes, stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(granted) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(()) };
        let part = data.split_to(granted?.min(data.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}

/// A client's request body. Taking data lets the client send as much again.
struct RequestBody {
    stream: RecvStream,
    data_ended: bool,
}

impl RequestBody {
    fn new(stream: RecvStream) -> Self {
        Self { stream, data_ended: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only where the stream is gone, which the next read tells.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
