//! Unary calls, and what metadata they and a stream carry.

use evenkeel_interop::proto::{Empty, ResponseParameters, SimpleRequest, StreamingOutputCallRequest};
use tokio_stream::StreamExt;
use tonic::{
    Request,
    metadata::{MetadataMap, MetadataValue},
};

use super::{Client, LARGE_REPLY, LARGE_REQUEST, payload, size, wire};
use crate::failure::{Outcome, expect, unexpected};

/// The server returns the first in the initial metadata and the second in the trailers.
const INITIAL: (&str, &str) = ("x-grpc-test-echo-initial", "test_initial_metadata_value");
const TRAILING: (&str, &[u8]) = ("x-grpc-test-echo-trailing-bin", &[0xab, 0xab, 0xab]);

pub(super) async fn empty(client: &mut Client) -> Outcome {
    let reply = client.empty_call(Empty {}).await?.into_inner();
    expect("the reply", &reply, &Empty {})
}

pub(super) async fn large(client: &mut Client) -> Outcome {
    let request = SimpleRequest {
        response_size: wire(LARGE_REPLY),
        payload: Some(payload(LARGE_REQUEST)),
        ..SimpleRequest::default()
    };
    let reply = client.unary_call(request).await?.into_inner();
    expect("the reply's size", &size(reply.payload.as_ref()), &LARGE_REPLY)
}

pub(super) async fn custom_metadata(client: &mut Client) -> Outcome {
    let request = SimpleRequest { response_size: 1, payload: Some(payload(1)), ..SimpleRequest::default() };
    // tonic hands out a unary call's trailers among its initial metadata.
    let reply = client.unary_call(with_metadata(request)).await?;
    expect_initial(reply.metadata())?;
    expect_trailing(reply.metadata())?;

    let request = StreamingOutputCallRequest {
        response_parameters: vec![ResponseParameters { size: 1, interval_us: 0 }],
        payload: Some(payload(1)),
        ..StreamingOutputCallRequest::default()
    };
    let reply = client.full_duplex_call(with_metadata(tokio_stream::once(request))).await?;
    expect_initial(reply.metadata())?;
    let mut replies = reply.into_inner();
    while replies.next().await.transpose()?.is_some() {}
    expect_trailing(&replies.trailers().await?.unwrap_or_default())
}

fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(INITIAL.0, MetadataValue::from_static(INITIAL.1));
    request.metadata_mut().insert_bin(TRAILING.0, MetadataValue::from_bytes(TRAILING.1));
    request
}

fn expect_initial(metadata: &MetadataMap) -> Outcome {
    let values: Vec<_> = metadata.get_all(INITIAL.0).iter().map(|value| value.as_bytes().to_vec()).collect();
    expect("the initial metadata", &values, &vec![INITIAL.1.as_bytes().to_vec()])
}

fn expect_trailing(metadata: &MetadataMap) -> Outcome {
    let values = metadata.get_all_bin(TRAILING.0);
    let values: Vec<_> = values.iter().filter_map(|value| value.to_bytes().ok()).collect();
    expect("the trailing metadata", &values, &vec![TRAILING.1.into()])
}

/// All of a channel's calls go to one server.
pub(super) async fn pick_first(client: &mut Client) -> Outcome {
    let request =
        SimpleRequest { response_size: 1, payload: Some(payload(1)), fill_server_id: true, ..SimpleRequest::default() };
    let first = client.unary_call(request.clone()).await?.into_inner().server_id;
    if first.is_empty() {
        return Err(unexpected("the server's id", &first, &"one"));
    }
    for _ in 1..100 {
        let server = client.unary_call(request.clone()).await?.into_inner().server_id;
        expect("the server's id", &server, &first)?;
    }
    Ok(())
}
