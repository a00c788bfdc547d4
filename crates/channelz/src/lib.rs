//! channelz v1 (gRFC A14): what a process's channels are doing, told by a gRPC service that `grpcdebug` and other tools read.
//!
//! ```no_run
//! # async fn serve(channel: evenkeel_channel::Channel) -> Result<(), Box<dyn std::error::Error>> {
//! let channelz = evenkeel_channelz::Channelz::new();
//! channelz.add("greeter", &channel);
//! let server = tonic::transport::Server::builder().add_service(channelz.service());
//! // It says where a process calls and with what addresses: for operators only, so on loopback.
//! server.serve("127.0.0.1:50053".parse()?).await?;
//! # Ok(()) }
//! ```
//!
//! Each [`Channel`] that was [added](Channelz::add) is a top channel, each of its addresses a subchannel, and each connection
//! that takes calls a socket. A channel is held weakly: it is gone from here once nobody uses it any more.
//!
//! | what it tells | |
//! |---|---|
//! | channels | target, state, calls as their callers saw them, when the last one began, the last 256 decisions as a trace, its subchannels |
//! | subchannels | address, state of the connection, attempts of calls, the decisions about it, its sockets |
//! | sockets | both addresses, streams (health Watches and load reports among them), and that TLS is spoken, where it is |
//!
//! An id names the same thing for as long as the thing lives, and is never given to another. Servers are not told of, since
//! those of a process are tonic's: `GetServers` answers with an empty page, `GetServer` and `GetServerSockets` with
//! `NOT_FOUND`. Nor is what nobody counts: messages, keepalives and flow control of sockets, and when a subchannel's last
//! call began.
//!
//! Inside, `service` answers requests, `registry` has the channels and gives out ids, and `view` says it in protobuf.

mod registry;
mod service;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_channel::Channel;
use evenkeel_proto::channelz::channelz_server::ChannelzServer;

use registry::Registry;
pub use service::ChannelzService;

/// The longest request in bytes: two numbers and a flag.
const MAX_REQUEST: usize = 256;

/// The channels of a process that channelz tells of. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Channelz {
    registry: Arc<Mutex<Registry>>,
}

impl Channelz {
    /// Knows of no channels yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells of `channel` for as long as somebody else holds it, under a name for people to read. Added again, it keeps
    /// its id and takes the new name.
    pub fn add(&self, name: impl Into<String>, channel: &Channel) {
        self.registry().add(name.into(), channel);
    }

    /// The service `grpc.channelz.v1.Channelz`, for tonic's server.
    pub fn service(&self) -> ChannelzServer<ChannelzService> {
        ChannelzServer::new(ChannelzService::new(self.clone())).max_decoding_message_size(MAX_REQUEST)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic elsewhere leaves nothing half-done behind this lock.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
