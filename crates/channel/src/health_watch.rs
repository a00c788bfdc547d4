//! The client half of health checking: a `grpc.health.v1.Health/Watch` over a connection (gRFC A17).

use std::{future::poll_fn, sync::Arc};

use evenkeel_balance::{Code, ConnectionId, HealthSignal, Input, Status};
use evenkeel_health::{
    ServingStatus,
    client::{ReplyDecoder, WATCH_PATH, watch_request},
};
use http::{HeaderValue, Method, Request, Uri, header};
use tokio::sync::mpsc::WeakUnboundedSender;

use crate::{
    message::Message,
    transport::{Connection, Incoming, Purpose, StreamError},
    wire_status,
};

/// Watches `service` until the Watch ends, and tells the driver each thing it says and how it ended.
pub(crate) async fn run(
    id: ConnectionId,
    connection: Arc<Connection>,
    authority: String,
    service: String,
    driver: WeakUnboundedSender<Message>,
) {
    let tell = |signal| {
        if let Some(driver) = driver.upgrade() {
            let _ = driver.send(Message::Input(Input::Health(id, signal)));
        }
    };
    let status = watch(&connection, &authority, &service, &tell).await.unwrap_or_else(|status| status);
    tell(HealthSignal::Ended(status));
}

async fn watch(
    connection: &Connection,
    authority: &str,
    service: &str,
    tell: &impl Fn(HealthSignal),
) -> Result<Status, Status> {
    if connection.stream_limit() < 2 {
        let peer = connection.peer();
        tracing::warn!(target: "evenkeel::channel", endpoint = %peer, "not health-checked: it allows one stream at a time, and calls need that");
        return Ok(Status::new(Code::Unimplemented, "the server allows one stream at a time"));
    }
    let broken = |error: StreamError| error.status(connection.peer());
    let (mut outgoing, mut incoming) =
        connection.open(head(authority)?, false, Purpose::Watch).await.map_err(broken)?;
    let mut request = watch_request(service);
    poll_fn(|cx| outgoing.poll_send(cx, &mut request, true)).await.map_err(broken)?;

    let head = poll_fn(|cx| incoming.poll_head(cx)).await.map_err(broken)?;
    if head.status() != http::StatusCode::OK {
        // What is not a gRPC server has no health service either; a proxy's error may pass.
        let code = if head.status().as_u16() == 404 { Code::Unimplemented } else { Code::Unavailable };
        return Ok(Status::new(code, format!("HTTP status {}", head.status())));
    }
    read(&mut incoming, tell).await.map_err(broken)?;
    if let Some(code) = wire_status::code(head.headers()) {
        return Ok(Status::new(code, "the Watch ended"));
    }
    let trailers = poll_fn(|cx| incoming.poll_trailers(cx)).await.map_err(broken)?;
    let code = trailers.as_ref().and_then(wire_status::code).unwrap_or(Code::Unknown);
    Ok(Status::new(code, "the Watch ended"))
}

/// Reads messages until the stream ends.
async fn read(incoming: &mut Incoming, tell: &impl Fn(HealthSignal)) -> Result<(), StreamError> {
    let mut decoder = ReplyDecoder::default();
    while let Some(data) = poll_fn(|cx| incoming.poll_data(cx)).await {
        let mut data = data?;
        while let Some(status) = decoder.decode(&mut data).map_err(|error| StreamError::Broken(error.to_string()))? {
            tell(match status {
                ServingStatus::Serving => HealthSignal::Serving,
                ServingStatus::ServiceUnknown => HealthSignal::ServiceUnknown,
                ServingStatus::NotServing | ServingStatus::Unknown => HealthSignal::NotServing,
            });
        }
    }
    Ok(())
}

fn head(authority: &str) -> Result<Request<()>, Status> {
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query(WATCH_PATH).build();
    let uri = uri.map_err(|error| Status::new(Code::Internal, format!("authority {authority:?}: {error}")))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    Ok(request)
}
