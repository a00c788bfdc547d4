//! The client half of health checking: a `grpc.health.v1.Health/Watch` over a connection (gRFC A17).

use std::sync::Arc;

use evenkeel_balance::{Code, ConnectionId, HealthSignal, Input, Statement, Status};
use evenkeel_checker::codec::{self, ReplyDecoder, WATCH_PATH};
use tokio::sync::mpsc::WeakUnboundedSender;

use evenkeel_transport::{Connection, ServerStream};

use crate::message::Message;

/// Watches `service` until the Watch ends, and tells the driver each thing it says and how it ended.
pub(crate) async fn run(
    id: ConnectionId,
    connection: Arc<Connection>,
    origin: String,
    service: String,
    driver: WeakUnboundedSender<Message>,
) {
    let tell = |signal| {
        if let Some(driver) = driver.upgrade() {
            let _ = driver.send(Message::Input(Input::Health(id, signal)));
        }
    };
    let status = watch(&connection, &origin, &service, &tell).await.unwrap_or_else(|status| status);
    tell(HealthSignal::Ended(status));
}

async fn watch(
    connection: &Connection,
    origin: &str,
    service: &str,
    tell: &impl Fn(HealthSignal),
) -> Result<Status, Status> {
    if connection.stream_limit() < 2 {
        let peer = connection.peer();
        tracing::warn!(target: "evenkeel::channel", endpoint = %peer, "not health-checked: it allows one stream at a time, and calls need that");
        return Ok(Status::new(Code::Unimplemented, "the server allows one stream at a time"));
    }
    let mut stream = ServerStream::open(connection, origin, WATCH_PATH, codec::request(service)).await?;
    let mut decoder = ReplyDecoder::default();
    while let Some(data) = stream.data().await {
        let mut data = data?;
        let foreign = |error| Status::unavailable(format!("{}: {error}", connection.peer()));
        while let Some(status) = decoder.decode(&mut data).map_err(foreign)? {
            tell(signal(status));
        }
    }
    Ok(stream.status().await)
}

fn signal(statement: Statement) -> HealthSignal {
    match statement {
        Statement::Serving => HealthSignal::Serving,
        Statement::ServiceUnknown => HealthSignal::ServiceUnknown,
        Statement::NotServing => HealthSignal::NotServing,
    }
}
