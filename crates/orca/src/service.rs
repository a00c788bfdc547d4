use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use evenkeel_proto::orca::OrcaLoadReportRequest;
use evenkeel_proto::orca::open_rca_service_server::{self, OpenRcaServiceServer};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::{LoadReport, Recorder};

/// The shortest interval between the reports of a stream, by default (gRFC A51).
pub(crate) const MIN_INTERVAL: Duration = Duration::from_secs(30);

/// gRPC sets no longest interval; this one keeps the clock's arithmetic within bounds.
const MAX_INTERVAL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The longest request in bytes. It holds an interval, and names of costs that reports out of band never have.
const MAX_REQUEST: usize = 4096;

/// Answers `xds.service.orca.v3.OpenRcaService/StreamCoreMetrics`: load reports beside the calls.
#[derive(Clone, Debug)]
pub struct OpenRcaService {
    recorder: Recorder,
    min_interval: Duration,
}

pub(crate) fn server(recorder: Recorder, min_interval: Duration) -> OpenRcaServiceServer<OpenRcaService> {
    let min_interval = min_interval.max(Duration::from_millis(1));
    OpenRcaServiceServer::new(OpenRcaService { recorder, min_interval }).max_decoding_message_size(MAX_REQUEST)
}

#[tonic::async_trait]
impl open_rca_service_server::OpenRcaService for OpenRcaService {
    type StreamCoreMetricsStream = Reports;

    async fn stream_core_metrics(&self, request: Request<OrcaLoadReportRequest>) -> Result<Response<Reports>, Status> {
        let mut interval = tokio::time::interval(self.interval(request.get_ref()));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Response::new(Reports { recorder: self.recorder.clone(), interval }))
    }
}

impl OpenRcaService {
    /// What is asked for, if it is no shorter than allowed. A negative interval counts as none.
    fn interval(&self, request: &OrcaLoadReportRequest) -> Duration {
        let asked = request.report_interval.and_then(duration).unwrap_or_default();
        asked.max(self.min_interval).min(MAX_INTERVAL)
    }
}

/// `None` if it is negative. The library's own conversion panics at the most negative one.
fn duration(interval: prost_types::Duration) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(interval.seconds).ok()?, u64::try_from(interval.nanos).ok()?);
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos)))
}

/// A report at once, and then one each interval, without end: the caller ends it, or the connection.
#[derive(Debug)]
pub struct Reports {
    recorder: Recorder,
    interval: Interval,
}

impl Stream for Reports {
    type Item = Result<LoadReport, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(self.interval.poll_tick(cx));
        Poll::Ready(Some(Ok(self.recorder.report())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Measures;

    #[test]
    fn the_interval_is_the_longer_of_what_is_asked_for_and_what_is_allowed() {
        let service = OpenRcaService { recorder: Recorder::with(Measures::NONE), min_interval: MIN_INTERVAL };
        let interval = |seconds: Option<i64>| {
            let report_interval = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
            service.interval(&OrcaLoadReportRequest { report_interval, ..OrcaLoadReportRequest::default() })
        };
        for short in [None, Some(0), Some(29), Some(-60), Some(i64::MIN)] {
            assert_eq!(interval(short), MIN_INTERVAL, "{short:?}");
        }
        assert_eq!(duration(prost_types::Duration { seconds: 0, nanos: i32::MIN }), None);
        assert_eq!(interval(Some(31)), Duration::from_secs(31));
        assert_eq!(interval(Some(i64::MAX)), MAX_INTERVAL);
    }
}
