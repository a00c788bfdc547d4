//! The clients that are compared. Each makes the same small unary call.

mod engine;
mod evenkeel;
mod grpc;
mod h2;
mod tonic;

use clap::ValueEnum;
use evenkeel_proto::demo::EchoRequest;

use crate::{
    figures::Counted,
    load::{Figures, Options, Runtime, drive},
};

/// Something that makes calls.
pub(crate) trait Peer: Clone + Send + Sync + 'static {
    /// Makes one call and reads its reply.
    fn call(&self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// The peers by name, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeerName {
    /// Evenkeel's channel: `round_robin` over three backends, with everything that it has on by default
    Evenkeel,
    /// The same with outlier detection and retries
    EvenkeelWatched,
    /// tonic's channel to one backend
    Tonic,
    /// tonic's `balance_list` over three backends
    TonicBalance,
    /// The `grpc` crate, which has `pick_first` alone
    Grpc,
    /// The h2 crate and a hand-made round robin over three backends: no channel at all
    H2,
    /// The same by our relay engine's connections; on the current-thread runtime alone
    Engine,
}

impl PeerName {
    /// How many calls under way it can bear. Bare h2 has nobody to hold calls back until the servers allow more streams.
    pub(crate) fn most_in_flight(self) -> usize {
        if self == Self::H2 { 300 } else { usize::MAX }
    }

    /// Whether it can run there. The engine's connections stay on one thread.
    pub(crate) fn runs_on(self, runtime: Runtime) -> bool {
        self != Self::Engine || runtime == Runtime::CurrentThread
    }
}

/// Puts one of them under load.
pub(crate) async fn measure(options: &Options, counted: Option<Counted>) -> anyhow::Result<Figures> {
    let backends = &options.backends;
    match options.peer {
        PeerName::Evenkeel => drive(evenkeel::peer(backends, evenkeel::CHECKED)?, options, counted).await,
        PeerName::EvenkeelWatched => drive(evenkeel::peer(backends, evenkeel::WATCHED)?, options, counted).await,
        PeerName::Tonic => drive(tonic::one(backends).await?, options, counted).await,
        PeerName::TonicBalance => drive(tonic::balanced(backends)?, options, counted).await,
        PeerName::Grpc => drive(grpc::peer(backends)?, options, counted).await,
        PeerName::H2 => drive(h2::peer(backends).await?, options, counted).await,
        PeerName::Engine => drive(engine::peer(backends).await?, options, counted).await,
    }
}

fn request() -> EchoRequest {
    EchoRequest { message: "hello-0123456789".to_owned(), ..EchoRequest::default() }
}
