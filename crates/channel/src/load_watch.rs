//! Out-of-band load reports: an `OpenRcaService/StreamCoreMetrics` over a connection (gRFC A51).

use std::{sync::Arc, time::Duration};

use evenkeel_balance::{Backoff, Code, ConnectionId, Entropy, Input, Status};
use evenkeel_proto::orca::OrcaLoadReportRequest;
use prost::Message as _;
use tokio::sync::mpsc::WeakUnboundedSender;

use evenkeel_transport::{Connection, ServerStream};

use crate::{
    framing::{self, Messages},
    load_report::{self, MAX_REPORT},
    message::Message,
};

const PATH: &str = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";

/// Streams one connection's reports to the driver until the connection closes or its server turns out to have none.
pub(crate) struct LoadWatch {
    pub(crate) id: ConnectionId,
    pub(crate) connection: Arc<Connection>,
    pub(crate) origin: String,
    pub(crate) interval: Duration,
    pub(crate) driver: WeakUnboundedSender<Message>,
}

impl LoadWatch {
    /// `entropy` spreads the retries.
    pub(crate) async fn run(self, mut entropy: Entropy) {
        let (backoff, mut failures) = (Backoff::default(), 0);
        loop {
            let (reported, end) = self.stream().await;
            let peer = self.connection.peer();
            if end.code == Code::Unimplemented {
                tracing::warn!(target: "evenkeel::channel", endpoint = %peer, "has no service for load reports (OpenRcaService)");
                return;
            }
            if self.connection.is_closed() {
                return;
            }
            failures = if reported { 0 } else { failures + 1 };
            let delay = if failures == 0 { Duration::ZERO } else { backoff.delay(failures, &mut entropy) };
            tracing::debug!(target: "evenkeel::channel", endpoint = %peer, status = %end, ?delay, "load reports ended");
            tokio::time::sleep(delay).await;
        }
    }

    /// One stream, to its end: whether it brought a report, and how it ended.
    async fn stream(&self) -> (bool, Status) {
        let mut reported = false;
        let end = self.read(&mut reported).await.unwrap_or_else(|status| status);
        (reported, end)
    }

    async fn read(&self, reported: &mut bool) -> Result<Status, Status> {
        let request = OrcaLoadReportRequest {
            report_interval: prost_types::Duration::try_from(self.interval).ok(),
            ..OrcaLoadReportRequest::default()
        };
        let request = framing::frame(&request.encode_to_vec());
        let mut stream = ServerStream::open(&self.connection, &self.origin, PATH, request).await?;
        let mut messages = Messages::new(MAX_REPORT);
        while let Some(data) = stream.data().await {
            let mut data = data?;
            let foreign = |error| Status::new(Code::Internal, format!("load report: {error}"));
            while let Some(message) = messages.next(&mut data).map_err(foreign)? {
                *reported = true;
                self.tell(&message);
            }
        }
        Ok(stream.status().await)
    }

    fn tell(&self, message: &[u8]) {
        if let (Some(report), Some(driver)) = (load_report::decode(message), self.driver.upgrade()) {
            // Without a driver there is no channel, and this task is about to be aborted.
            let _ = driver.send(Message::Input(Input::Load(self.id, report)));
        }
    }
}
