//! A tonic server with the layer and the service, and raw clients, over real sockets.

#![allow(clippy::float_cmp, reason = "the figures come out exactly")]

use std::error::Error;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use evenkeel_orca::{CallRecorder, LoadReport, Measures, Metric, Recorder};
use evenkeel_proto::demo::echo_client::EchoClient;
use evenkeel_proto::demo::echo_server::{Echo, EchoServer};
use evenkeel_proto::demo::{EchoReply, EchoRequest};
use evenkeel_proto::orca::OrcaLoadReportRequest;
use evenkeel_proto::orca::open_rca_service_client::OpenRcaServiceClient;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint, Server, server::TcpIncoming};
use tonic::{Code, Request, Response, Status, Streaming};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

const TRAILER: &str = "endpoint-load-metrics-bin";

/// Echoes what it receives; what the request's message names, it reports or fails with.
struct Reporting;

#[tonic::async_trait]
impl Echo for Reporting {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let call = CallRecorder::of(&request).ok_or_else(|| Status::internal("the layer is missing"))?;
        let refused = |error: evenkeel_orca::OutOfRange| Status::internal(error.to_string());
        match request.get_ref().message.as_str() {
            "cost" => {
                call.set_request_cost("rows", 12.0).map_err(refused)?;
                call.set_named("depth", 3.0).map_err(refused)?;
                call.set(Metric::MemoryUtilization, 0.25).map_err(refused)?;
                call.set(Metric::Utilization("disk"), 0.75).map_err(refused)?;
            }
            "hang" => std::future::pending().await,
            "fail" => return Err(Status::internal("as asked")),
            _ => {}
        }
        Ok(Response::new(EchoReply { message: request.into_inner().message, ..EchoReply::default() }))
    }

    async fn client_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, _: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    type BidiStreamStream = Replies;

    async fn bidi_stream(&self, request: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
        let call = CallRecorder::of(&request).ok_or_else(|| Status::internal("the layer is missing"))?;
        let mut served = 0.0;
        let replies = request.into_inner().map(move |request| {
            served += 1.0;
            call.set_request_cost("messages", served).map_err(|error| Status::internal(error.to_string()))?;
            Ok(EchoReply { message: request?.message, ..EchoReply::default() })
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// Serves until the test's runtime ends.
async fn serve(recorder: &Recorder) -> Outcome<Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::try_from(format!("http://{}", listener.local_addr()?))?;
    let server = Server::builder()
        .layer(recorder.layer())
        .add_service(recorder.service_with(Duration::from_millis(1)))
        .add_service(EchoServer::new(Reporting));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(endpoint.connect().await?)
}

fn saying(message: &str) -> EchoRequest {
    EchoRequest { message: message.to_owned(), ..EchoRequest::default() }
}

fn report_in(trailers: &MetadataMap) -> Outcome<Option<LoadReport>> {
    let Some(value) = trailers.get_bin(TRAILER) else { return Ok(None) };
    assert!(!value.as_encoded_bytes().contains(&b'='), "gRPC sends base64 without padding");
    Ok(Some(LoadReport::decode(value.to_bytes()?)?))
}

#[tokio::test]
async fn a_calls_trailers_carry_its_metrics_over_the_servers() -> Outcome {
    let recorder = Recorder::with(Measures::NONE);
    recorder.set(Metric::CpuUtilization, 0.5)?;
    recorder.set(Metric::MemoryUtilization, 0.5)?;
    recorder.set(Metric::Utilization("disk"), 0.5)?;
    let mut client = EchoClient::new(serve(&recorder).await?);

    let plain = client.unary(saying("")).await?;
    assert_eq!(report_in(plain.metadata())?, Some(recorder.report()));

    let reply = client.unary(saying("cost")).await?;
    let wanted = LoadReport {
        cpu_utilization: 0.5,
        mem_utilization: 0.25,
        utilization: [("disk".to_owned(), 0.75)].into(),
        request_cost: [("rows".to_owned(), 12.0)].into(),
        named_metrics: [("depth".to_owned(), 3.0)].into(),
        ..LoadReport::default()
    };
    assert_eq!(report_in(reply.metadata())?, Some(wanted));
    Ok(())
}

#[tokio::test]
async fn a_failure_without_a_reply_carries_the_report_too() -> Outcome {
    let recorder = Recorder::with(Measures::NONE);
    recorder.set(Metric::Qps, 7.0)?;
    let mut client = EchoClient::new(serve(&recorder).await?);
    let failed = client.unary(saying("fail")).await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::Internal, "as asked"));
    assert_eq!(report_in(failed.metadata())?, Some(recorder.report()));
    Ok(())
}

#[tokio::test]
async fn an_empty_report_is_not_sent() -> Outcome {
    let mut client = EchoClient::new(serve(&Recorder::with(Measures::NONE)).await?);
    let reply = client.unary(saying("")).await?;
    assert_eq!(report_in(reply.metadata())?, None);
    Ok(())
}

#[tokio::test]
async fn a_stream_passes_message_by_message_and_reports_at_its_end() -> Outcome {
    let measures = Measures { concurrency_limit: NonZeroU32::new(2), ..Measures::NONE };
    let recorder = Recorder::with(measures);
    let mut client = EchoClient::new(serve(&recorder).await?);
    let (requests, receiver) = mpsc::channel(1);
    requests.send(saying("1")).await?;
    let mut replies = client.bidi_stream(ReceiverStream::new(receiver)).await?.into_inner();
    assert_eq!(replies.message().await?.unwrap_or_default().message, "1");
    assert_eq!(recorder.report().application_utilization, 0.5, "one of two calls runs");
    requests.send(saying("2")).await?;
    assert_eq!(replies.message().await?.unwrap_or_default().message, "2");
    drop(requests);
    assert_eq!(replies.message().await?, None);

    let report = report_in(&replies.trailers().await?.unwrap_or_default())?;
    let request_cost = [("messages".to_owned(), 2.0)].into();
    assert_eq!(report, Some(LoadReport { request_cost, ..LoadReport::default() }), "the call itself no longer runs");
    Ok(())
}

#[tokio::test]
async fn a_call_that_its_client_gives_up_no_longer_runs() -> Outcome {
    let measures = Measures { concurrency_limit: NonZeroU32::new(1), ..Measures::NONE };
    let recorder = Recorder::with(measures);
    let mut client = EchoClient::new(serve(&recorder).await?);
    let mut other = client.clone();
    let given_up = tokio::spawn(async move { other.unary(saying("hang")).await });
    until(async || recorder.report().application_utilization == 1.0).await?;
    given_up.abort();
    until(async || {
        let answered = client.unary(saying("")).await.is_ok();
        answered && recorder.report().application_utilization == 0.0
    })
    .await
}

/// Waits for a condition, which is looked at again and again.
async fn until(mut holds: impl AsyncFnMut() -> bool) -> Outcome {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    Ok(tokio::time::timeout(Duration::from_secs(10), waiting).await?)
}

#[tokio::test]
async fn the_service_streams_what_is_set_and_is_not_load_itself() -> Outcome {
    let measures = Measures { concurrency_limit: NonZeroU32::new(1), ..Measures::NONE };
    let recorder = Recorder::with(measures);
    recorder.set(Metric::CpuUtilization, 0.5)?;
    let mut client = OpenRcaServiceClient::new(serve(&recorder).await?);
    let mut reports = client.stream_core_metrics(OrcaLoadReportRequest::default()).await?.into_inner();
    let first = reports.message().await?;
    assert_eq!(first, Some(LoadReport { cpu_utilization: 0.5, ..LoadReport::default() }));

    recorder.clear(Metric::CpuUtilization);
    recorder.set(Metric::Eps, 3.0)?;
    let wanted = Some(LoadReport { eps: 3.0, ..LoadReport::default() });
    until(async || reports.message().await.is_ok_and(|report| report == wanted)).await
}
