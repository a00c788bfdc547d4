use std::time::Duration;

use serde::Deserialize;

use crate::{duration, size};

/// What a proxy takes from its clients and endpoints at most (`limits`). What is absent is as the proxy has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProxyLimits {
    /// Clients that may be connected, all workers together. At least 1.
    pub connections: Option<u32>,
    /// Calls that one connection may have running. At least 1.
    pub max_concurrent_streams: Option<u32>,
    /// Bytes of a call's header list, as HTTP/2 counts them.
    #[serde(deserialize_with = "size::read")]
    pub max_header_list: Option<u64>,
    /// Fields of a header list.
    pub max_header_count: Option<u32>,
    /// Bytes of a message, either way; at most 2 GiB − 1.
    #[serde(deserialize_with = "size::read")]
    pub max_message: Option<u64>,
    /// Bytes of a request that are kept for another attempt.
    #[serde(deserialize_with = "size::read")]
    pub max_replay: Option<u64>,
    /// Bytes of payload that a worker keeps for sides that are slow to take it, all calls together.
    #[serde(deserialize_with = "size::read")]
    pub max_held: Option<u64>,
    /// Connections of a worker to one endpoint. At least 1.
    pub endpoint_connections: Option<u32>,
    /// How long a client may take for TLS and for HTTP/2's preface. Above 0.
    #[serde(deserialize_with = "duration::read")]
    pub handshake_timeout: Option<Duration>,
    /// How long an unfinished header block may take. Above 0.
    #[serde(deserialize_with = "duration::read")]
    pub header_timeout: Option<Duration>,
}
