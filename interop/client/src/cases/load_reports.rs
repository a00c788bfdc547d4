//! Load reports (ORCA): in a call's trailers, and on a stream of their own.

use std::collections::BTreeMap;

use evenkeel_channel::Channel;
use evenkeel_interop::proto::{
    ResponseParameters, SimpleRequest, StreamingOutputCallRequest, StreamingOutputCallResponse, TestOrcaReport,
};
use evenkeel_proto::orca::{OrcaLoadReport, OrcaLoadReportRequest, open_rca_service_client::OpenRcaServiceClient};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use super::Client;
use crate::failure::{Outcome, expect, unexpected};

const TRAILER: &str = "endpoint-load-metrics-bin";

pub(super) async fn per_call(client: &mut Client) -> Outcome {
    let asked = TestOrcaReport {
        cpu_utilization: 0.8210,
        memory_utilization: 0.5847,
        request_cost: BTreeMap::from([("cost".to_owned(), 3456.32)]),
        utilization: BTreeMap::from([("util".to_owned(), 0.30499)]),
    };
    let request = SimpleRequest { orca_per_query_report: Some(asked.clone()), ..SimpleRequest::default() };
    let reply = client.unary_call(request).await?;
    // tonic hands out a unary call's trailers among its initial metadata.
    let value = reply.metadata().get_bin(TRAILER).and_then(|value| value.to_bytes().ok());
    let report = value.as_deref().and_then(|bytes| OrcaLoadReport::decode(bytes).ok());
    expect("the load report in the trailers", &report, &Some(report_of(asked)))
}

/// The server keeps one set of figures for all: they change twice, and the stream of reports must tell each.
pub(super) async fn out_of_band(client: &mut Client, channel: Channel) -> Outcome {
    let every_second = prost_types::Duration { seconds: 1, nanos: 0 };
    let mut reports = OpenRcaServiceClient::new(channel)
        .stream_core_metrics(OrcaLoadReportRequest {
            report_interval: Some(every_second),
            request_cost_names: Vec::new(),
        })
        .await?
        .into_inner();

    let (requests, receiver) = mpsc::channel(1);
    let busy = figures(0.8210, 0.5847, 0.30499);
    ask(&requests, busy.clone()).await?;
    let mut replies = client.full_duplex_call(ReceiverStream::new(receiver)).await?.into_inner();
    expect_reply(&mut replies).await?;
    await_report(&mut reports, &report_of(busy)).await?;

    let idle = figures(0.29309, 0.2, 0.2039);
    ask(&requests, idle.clone()).await?;
    expect_reply(&mut replies).await?;
    await_report(&mut reports, &report_of(idle)).await
}

fn figures(cpu_utilization: f64, memory_utilization: f64, util: f64) -> TestOrcaReport {
    let utilization = BTreeMap::from([("util".to_owned(), util)]);
    TestOrcaReport { cpu_utilization, memory_utilization, utilization, ..TestOrcaReport::default() }
}

/// The report that a server makes of the figures it is given.
fn report_of(figures: TestOrcaReport) -> OrcaLoadReport {
    OrcaLoadReport {
        cpu_utilization: figures.cpu_utilization,
        mem_utilization: figures.memory_utilization,
        request_cost: figures.request_cost,
        utilization: figures.utilization,
        ..OrcaLoadReport::default()
    }
}

async fn ask(requests: &mpsc::Sender<StreamingOutputCallRequest>, figures: TestOrcaReport) -> Outcome {
    let message = StreamingOutputCallRequest {
        response_parameters: vec![ResponseParameters { size: 1, interval_us: 0 }],
        orca_oob_report: Some(figures),
        ..StreamingOutputCallRequest::default()
    };
    requests.send(message).await.map_err(|_| Status::aborted("the call ended before the last request"))?;
    Ok(())
}

async fn expect_reply(replies: &mut Streaming<StreamingOutputCallResponse>) -> Outcome {
    expect("whether there was a reply", &replies.next().await.transpose()?.is_some(), &true)
}

/// Reads until this report comes; the first ones may still tell earlier figures.
async fn await_report(reports: &mut Streaming<OrcaLoadReport>, wanted: &OrcaLoadReport) -> Outcome {
    while let Some(report) = reports.next().await.transpose()? {
        if report == *wanted {
            return Ok(());
        }
    }
    Err(unexpected("the stream of load reports", &"its end", wanted))
}
