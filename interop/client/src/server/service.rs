//! gRPC's `TestService`: does as the requests ask.

use std::{pin::Pin, sync::Arc, time::Duration};

use evenkeel_interop::proto::{
    EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse, StreamingInputCallRequest,
    StreamingInputCallResponse, StreamingOutputCallRequest, StreamingOutputCallResponse, TestOrcaReport,
    test_service_server,
};
use evenkeel_orca::{CallRecorder, Metric, OutOfRange, Recorder};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming};

type Replies = Pin<Box<dyn Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send>>;
type Sender = mpsc::Sender<Result<StreamingOutputCallResponse, Status>>;

#[derive(Debug)]
pub(crate) struct TestService {
    load: Recorder,
    /// Held by the call that sets the server's load, until it ends: another would spoil what its client waits for.
    reporting: Arc<Mutex<()>>,
}

impl TestService {
    pub(crate) fn new(load: Recorder) -> Self {
        Self { load, reporting: Arc::default() }
    }
}

#[tonic::async_trait]
impl test_service_server::TestService for TestService {
    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(&self, request: Request<SimpleRequest>) -> Result<Response<SimpleResponse>, Status> {
        let call = CallRecorder::of(&request);
        let request = request.into_inner();
        end_as_asked(request.response_status)?;
        if let (Some(report), Some(call)) = (&request.orca_per_query_report, call) {
            report_for_call(&call, report).map_err(refused)?;
        }
        let server_id = if request.fill_server_id { format!("evenkeel-{}", std::process::id()) } else { String::new() };
        Ok(Response::new(SimpleResponse { payload: Some(payload(request.response_size)?), server_id }))
    }

    type StreamingOutputCallStream = Replies;

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Replies>, Status> {
        let asked = request.into_inner().response_parameters;
        Ok(replies(async move |sender| reply(asked, &sender).await))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let mut requests = request.into_inner();
        let mut received = 0;
        while let Some(request) = requests.message().await? {
            received += request.payload.map_or(0, |payload| payload.body.len());
        }
        let aggregated_payload_size =
            i32::try_from(received).map_err(|_| Status::out_of_range("more was received than the reply can say"))?;
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size }))
    }

    type FullDuplexCallStream = Replies;

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let requests = request.into_inner();
        let turn = Turn { load: self.load.clone(), reporting: Arc::clone(&self.reporting), held: None };
        Ok(replies(async move |sender| answer(requests, turn, &sender).await))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("no server implements this method"))
    }
}

/// A response whose messages `send` sends, and whose end is its.
fn replies<F>(send: impl FnOnce(Sender) -> F) -> Response<Replies>
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    let sending = send(sender.clone());
    tokio::spawn(async move {
        if let Err(status) = sending.await {
            // Nobody is left to hear it if the client has gone.
            _ = sender.send(Err(status)).await;
        }
    });
    Response::new(Box::pin(ReceiverStream::new(receiver)))
}

/// Answers requests one by one until they end.
async fn answer(
    mut requests: Streaming<StreamingOutputCallRequest>,
    mut turn: Turn,
    sender: &Sender,
) -> Result<(), Status> {
    while let Some(request) = requests.message().await? {
        end_as_asked(request.response_status)?;
        if let Some(report) = &request.orca_oob_report {
            turn.report(report).await?;
        }
        reply(request.response_parameters, sender).await?;
    }
    Ok(())
}

async fn reply(asked: Vec<ResponseParameters>, sender: &Sender) -> Result<(), Status> {
    for ResponseParameters { size, interval_us } in asked {
        if let Ok(wait @ 1..) = u64::try_from(interval_us) {
            tokio::time::sleep(Duration::from_micros(wait)).await;
        }
        let reply = StreamingOutputCallResponse { payload: Some(payload(size)?) };
        sender.send(Ok(reply)).await.map_err(|_| Status::cancelled("the client has gone"))?;
    }
    Ok(())
}

/// A call's turn at setting the server's load: it waits for it, and keeps it until it ends.
struct Turn {
    load: Recorder,
    reporting: Arc<Mutex<()>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turn {
    async fn report(&mut self, report: &TestOrcaReport) -> Result<(), Status> {
        if self.held.is_none() {
            self.held = Some(Arc::clone(&self.reporting).lock_owned().await);
        }
        for (metric, value) in metrics(report) {
            self.load.set(metric, value).map_err(refused)?;
        }
        Ok(())
    }
}

fn report_for_call(call: &CallRecorder, report: &TestOrcaReport) -> Result<(), OutOfRange> {
    for (metric, value) in metrics(report) {
        call.set(metric, value)?;
    }
    report.request_cost.iter().try_for_each(|(name, cost)| call.set_request_cost(name, *cost))
}

fn metrics(report: &TestOrcaReport) -> impl Iterator<Item = (Metric<'_>, f64)> {
    let whole =
        [(Metric::CpuUtilization, report.cpu_utilization), (Metric::MemoryUtilization, report.memory_utilization)];
    whole.into_iter().chain(report.utilization.iter().map(|(name, share)| (Metric::Utilization(name), *share)))
}

#[allow(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn refused(error: OutOfRange) -> Status {
    Status::invalid_argument(error.to_string())
}

fn end_as_asked(asked: Option<EchoStatus>) -> Result<(), Status> {
    match asked {
        Some(status) if status.code != Code::Ok as i32 => Err(Status::new(status.code.into(), status.message)),
        _ => Ok(()),
    }
}

/// So many zero bytes.
fn payload(size: i32) -> Result<Payload, Status> {
    let size = usize::try_from(size).map_err(|_| Status::invalid_argument("a payload's size cannot be negative"))?;
    Ok(Payload { body: vec![0; size] })
}
