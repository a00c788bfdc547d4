//! The cases, by the names that gRPC gives them.

mod endings;
mod load_reports;
mod soak;
mod streams;
mod unary;

use std::fmt;

use clap::ValueEnum;
use evenkeel_channel::{BuildError, Channel};

use evenkeel_interop::proto::{Payload, test_service_client::TestServiceClient};

use crate::failure::Outcome;
pub(crate) use soak::Soak;

/// Bytes of the large unary call's request and reply.
const LARGE_REQUEST: usize = 271_828;
const LARGE_REPLY: usize = 314_159;

type Client = TestServiceClient<Channel>;

/// gRPC's interop test cases.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Case {
    EmptyUnary,
    LargeUnary,
    ClientStreaming,
    ServerStreaming,
    PingPong,
    EmptyStream,
    TimeoutOnSleepingServer,
    CancelAfterBegin,
    CancelAfterFirstResponse,
    StatusCodeAndMessage,
    SpecialStatusMessage,
    CustomMetadata,
    UnimplementedMethod,
    UnimplementedService,
    /// Needs a server that says who it is.
    PickFirstUnary,
    RpcSoak,
    ChannelSoak,
    OrcaPerRpc,
    OrcaOob,
}

impl Case {
    pub(crate) async fn run(self, server: &Server, soak: &Soak) -> Outcome {
        let channel = server.channel()?;
        let mut client = Client::new(channel.clone());
        match self {
            Self::EmptyUnary => unary::empty(&mut client).await,
            Self::LargeUnary => unary::large(&mut client).await,
            Self::ClientStreaming => streams::client_streaming(&mut client).await,
            Self::ServerStreaming => streams::server_streaming(&mut client).await,
            Self::PingPong => streams::ping_pong(&mut client).await,
            Self::EmptyStream => streams::empty(&mut client).await,
            Self::TimeoutOnSleepingServer => endings::timeout(&mut client).await,
            Self::CancelAfterBegin => endings::cancel_after_begin(&mut client, &channel).await,
            Self::CancelAfterFirstResponse => endings::cancel_after_first_response(&mut client, &channel).await,
            Self::StatusCodeAndMessage => endings::status_code_and_message(&mut client).await,
            Self::SpecialStatusMessage => endings::special_status_message(&mut client).await,
            Self::CustomMetadata => unary::custom_metadata(&mut client).await,
            Self::UnimplementedMethod => endings::unimplemented_method(&mut client).await,
            Self::UnimplementedService => endings::unimplemented_service(channel).await,
            Self::PickFirstUnary => unary::pick_first(&mut client).await,
            Self::RpcSoak => soak::calls(soak, &client).await,
            Self::ChannelSoak => soak::channels(soak, server).await,
            Self::OrcaPerRpc => load_reports::per_call(&mut client).await,
            Self::OrcaOob => load_reports::out_of_band(&mut client, channel).await,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no case is hidden");
        f.write_str(value.get_name())
    }
}

/// Where the interop server is.
#[derive(Debug)]
pub(crate) struct Server {
    target: String,
}

impl Server {
    pub(crate) fn at(target: String) -> Self {
        Self { target }
    }

    /// A channel of its own to the server, with the default service config: `pick_first`.
    fn channel(&self) -> Result<Channel, BuildError> {
        Channel::builder(&self.target).build()
    }
}

/// A payload of so many zero bytes.
fn payload(size: usize) -> Payload {
    Payload { body: vec![0; size] }
}

/// Bytes in a payload that may be absent.
fn size(payload: Option<&Payload>) -> usize {
    payload.map_or(0, |payload| payload.body.len())
}

/// A size as the messages carry it.
fn wire(size: usize) -> i32 {
    i32::try_from(size).expect("the cases' sizes are below 2 GiB")
}
