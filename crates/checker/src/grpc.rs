//! One call of grpc.health.v1 over an HTTP/2 connection: a Check, or a Watch as long as it lasts.

use std::future::poll_fn;

use bytes::Bytes;
use evenkeel_balance::{Code, Statement};
use evenkeel_transport::{Connection, Incoming, Outgoing, Purpose, StreamError, wire_status};
use http::{HeaderMap, Request, header};

use crate::codec::ReplyDecoder;

/// A call under way.
#[derive(Debug)]
pub(crate) struct Call {
    incoming: Incoming,
    /// Kept, because a stream is cancelled once a half of it is dropped too early.
    _outgoing: Outgoing,
    decoder: ReplyDecoder,
    chunk: Bytes,
    /// The status in the head, where there is nothing else.
    in_head: Option<End>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// With a gRPC status, and what the server says to it.
    Status(Code, String),
    /// With an answer that is not gRPC's.
    Foreign(String),
    /// The server reset the stream, and the connection goes on.
    Reset(String),
    /// Without an answer: the connection is lost.
    Broken(StreamError),
}

impl End {
    fn of(error: StreamError) -> Self {
        match error {
            StreamError::Refused | StreamError::Reset(_) | StreamError::Invalid(_) => Self::Reset(error.to_string()),
            StreamError::NotSent | StreamError::LeftBehind | StreamError::Broken(_) => Self::Broken(error),
        }
    }
}

/// The whole of a Check: its one reply, and the status OK.
pub(crate) async fn check(connection: &Connection, head: Request<()>, request: Bytes) -> Result<Statement, End> {
    let mut call = Call::open(connection, head, request).await?;
    let statement = match call.next().await {
        Err(End::Status(Code::Ok, _)) => return Err(End::Foreign("the Check ended without a reply".to_owned())),
        reply => reply?,
    };
    match call.next().await {
        Err(End::Status(Code::Ok, _)) => Ok(statement),
        Err(end) => Err(end),
        Ok(_) => Err(End::Foreign("the Check has more than one reply".to_owned())),
    }
}

impl Call {
    /// Sends the request and reads the response's head.
    pub(crate) async fn open(connection: &Connection, head: Request<()>, mut request: Bytes) -> Result<Self, End> {
        let (mut outgoing, mut incoming) = connection.open(head, false, Purpose::Watch).await.map_err(End::of)?;
        poll_fn(|cx| outgoing.poll_send(cx, &mut request, true)).await.map_err(End::of)?;
        let head = poll_fn(|cx| incoming.poll_head(cx)).await.map_err(End::of)?;
        if !is_grpc(head.headers()) {
            return Err(End::Foreign(format!(
                "it answers with HTTP status {}, and not as a gRPC server",
                head.status()
            )));
        }
        let in_head = wire_status::of_head(head.status(), head.headers()).map(|code| status(code, head.headers()));
        Ok(Self { incoming, _outgoing: outgoing, decoder: ReplyDecoder::default(), chunk: Bytes::new(), in_head })
    }

    /// The next reply. Nothing is lost where it is dropped before its end.
    pub(crate) async fn next(&mut self) -> Result<Statement, End> {
        loop {
            let decoded = self.decoder.decode(&mut self.chunk);
            if let Some(statement) = decoded.map_err(|error| End::Foreign(error.to_string()))? {
                return Ok(statement);
            }
            match poll_fn(|cx| self.incoming.poll_data(cx)).await {
                Some(chunk) => self.chunk = chunk.map_err(End::of)?,
                None => return Err(self.end().await),
            }
        }
    }

    async fn end(&mut self) -> End {
        if let Err(error) = std::mem::take(&mut self.decoder).finish() {
            return End::Foreign(error.to_string());
        }
        if let Some(end) = self.in_head.take() {
            return end;
        }
        match poll_fn(|cx| self.incoming.poll_trailers(cx)).await {
            Ok(Some(trailers)) => status(wire_status::code(&trailers).unwrap_or(Code::Unknown), &trailers),
            Ok(None) => End::Foreign("the call ended without a status".to_owned()),
            Err(error) => End::of(error),
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The longest part of a server's message that is passed on, in bytes as they are sent.
const MAX_MESSAGE: usize = 256;

fn status(code: Code, headers: &HeaderMap) -> End {
    let encoded = headers.get("grpc-message").map_or(&[][..], |value| value.as_bytes());
    let encoded = &encoded[..encoded.len().min(MAX_MESSAGE)];
    let decoded = percent_encoding::percent_decode(encoded).decode_utf8_lossy();
    // A log's line stays one line, whatever the server says.
    End::Status(code, decoded.escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_servers_message_is_decoded_cut_and_of_one_line() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-message", HeaderValue::from_static("no%20db%0Anow"));
        assert_eq!(status(Code::Unavailable, &headers), End::Status(Code::Unavailable, "no db\\nnow".into()));
        headers.insert("grpc-message", HeaderValue::try_from("x".repeat(5_000)).unwrap());
        assert_eq!(status(Code::Internal, &headers), End::Status(Code::Internal, "x".repeat(MAX_MESSAGE)));
    }
}
