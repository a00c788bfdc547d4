//! A server-streaming call that the channel makes for itself, on one connection: a health Watch, a load report.

use std::future::poll_fn;

use bytes::Bytes;
use evenkeel_balance::{Address, Code, Status};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};

use crate::{Connection, Incoming, Outgoing, Purpose, StreamError, wire_status};

/// The call, after its response's head.
#[derive(Debug)]
pub struct ServerStream {
    incoming: Incoming,
    /// Kept, because a stream is cancelled once a half of it is dropped too early.
    _outgoing: Outgoing,
    peer: Address,
    /// The status in the head, where there is nothing else.
    head_code: Option<Code>,
}

impl ServerStream {
    /// Sends `request`, a whole message in gRPC's framing, to `path`.
    ///
    /// # Errors
    ///
    /// The status with which the call ended before it began.
    pub async fn open(
        connection: &Connection,
        origin: &str,
        path: &'static str,
        mut request: Bytes,
    ) -> Result<Self, Status> {
        let peer = connection.peer().clone();
        let broken = |error: StreamError| error.status(&peer);
        let (mut outgoing, mut incoming) =
            connection.open(head(origin, path)?, false, Purpose::Watch).await.map_err(broken)?;
        poll_fn(|cx| outgoing.poll_send(cx, &mut request, true)).await.map_err(broken)?;
        let head = poll_fn(|cx| incoming.poll_head(cx)).await.map_err(broken)?;
        if head.status() != StatusCode::OK {
            // What is not a gRPC server has no such service either; a proxy's error may pass.
            let code = if head.status() == StatusCode::NOT_FOUND { Code::Unimplemented } else { Code::Unavailable };
            return Err(Status::new(code, format!("HTTP status {}", head.status())));
        }
        Ok(Self { incoming, _outgoing: outgoing, peer, head_code: wire_status::code(head.headers()) })
    }

    /// The next data of the response; `None` at its end.
    pub async fn data(&mut self) -> Option<Result<Bytes, Status>> {
        let data = poll_fn(|cx| self.incoming.poll_data(cx)).await?;
        Some(data.map_err(|error| error.status(&self.peer)))
    }

    /// How the call ended, after its last data.
    pub async fn status(&mut self) -> Status {
        const ENDED: &str = "the stream ended";
        if let Some(code) = self.head_code {
            return Status::new(code, ENDED);
        }
        match poll_fn(|cx| self.incoming.poll_trailers(cx)).await {
            Ok(trailers) => Status::new(trailers.as_ref().and_then(wire_status::code).unwrap_or(Code::Unknown), ENDED),
            Err(error) => error.status(&self.peer),
        }
    }
}

fn head(origin: &str, path: &'static str) -> Result<Request<()>, Status> {
    let uri: Result<Uri, _> = format!("{origin}{path}").parse();
    let uri = uri.map_err(|error| Status::new(Code::Internal, format!("{origin:?} cannot be called: {error}")))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    Ok(request)
}
