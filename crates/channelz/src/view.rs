//! A channel as protobuf.

use std::net::{IpAddr, SocketAddr};

use evenkeel_channel::{
    Channel, Explanation, SocketReport,
    balance::{self, Connectivity, Decision, SubchannelReport, Time, What},
};
use evenkeel_proto::channelz::{
    self as proto, Address, ChannelConnectivityState, ChannelData, ChannelRef, ChannelTrace, ChannelTraceEvent,
    Security, Socket, SocketData, SocketRef, Subchannel, SubchannelRef,
    address::{self, OtherAddress, TcpIpAddress, UdsAddress},
    channel_connectivity_state::State,
    channel_trace_event::{ChildRef, Severity},
    security::{self, Tls},
};
use prost_types::Timestamp;

use crate::registry::Ids;

/// All that there is to tell of a channel at one moment.
pub(crate) struct View {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) channel: Channel,
    pub(crate) explanation: Explanation,
    pub(crate) sockets: Vec<SocketReport>,
    pub(crate) ids: Ids,
}

impl View {
    pub(crate) fn channel(&self) -> proto::Channel {
        let report = &self.explanation.report;
        let calls = self.channel.calls();
        let data = ChannelData {
            state: Some(state(report.connectivity)),
            target: report.target.clone(),
            trace: Some(self.channel_trace()),
            calls_started: count(calls.started),
            calls_succeeded: count(calls.succeeded),
            calls_failed: count(calls.failed),
            last_call_started_timestamp: calls.last_started.map(|at| self.timestamp(at)),
        };
        proto::Channel {
            r#ref: Some(ChannelRef { channel_id: self.id, name: self.name.clone() }),
            data: Some(data),
            subchannel_ref: report.endpoints.iter().filter_map(|endpoint| self.subchannel_ref(endpoint)).collect(),
            ..proto::Channel::default()
        }
    }

    pub(crate) fn subchannel(&self, id: i64) -> Option<Subchannel> {
        let endpoints = &self.explanation.report.endpoints;
        let endpoint = endpoints.iter().find(|endpoint| self.ids.subchannels.get(&endpoint.id) == Some(&id))?;
        let load = &endpoint.load;
        let data = ChannelData {
            state: Some(state(endpoint.state.connection)),
            target: endpoint.address.to_string(),
            trace: Some(self.subchannel_trace(endpoint)),
            calls_started: count(load.started()),
            calls_succeeded: count(load.succeeded()),
            calls_failed: count(load.failed()),
            last_call_started_timestamp: None,
        };
        let sockets = self.sockets.iter().filter(|socket| socket.id.subchannel == endpoint.id);
        Some(Subchannel {
            r#ref: self.subchannel_ref(endpoint),
            data: Some(data),
            socket_ref: sockets.filter_map(|socket| self.socket_ref(socket)).collect(),
            ..Subchannel::default()
        })
    }

    pub(crate) fn socket(&self, id: i64) -> Option<Socket> {
        let socket = self.sockets.iter().find(|socket| self.ids.sockets.get(&socket.id) == Some(&id))?;
        let streams = &socket.streams;
        let data = SocketData {
            streams_started: count(streams.started),
            streams_succeeded: count(streams.succeeded),
            streams_failed: count(streams.failed),
            ..SocketData::default()
        };
        Some(Socket {
            r#ref: self.socket_ref(socket),
            data: Some(data),
            local: socket.local.as_ref().map(address),
            remote: Some(address(&socket.remote)),
            // Absent means "not secured".
            security: socket.is_secure.then(|| Security { model: Some(security::Model::Tls(Tls::default())) }),
            ..Socket::default()
        })
    }

    fn subchannel_ref(&self, endpoint: &SubchannelReport) -> Option<SubchannelRef> {
        let subchannel_id = *self.ids.subchannels.get(&endpoint.id)?;
        Some(SubchannelRef { subchannel_id, name: endpoint.address.to_string() })
    }

    fn socket_ref(&self, socket: &SocketReport) -> Option<SocketRef> {
        let socket_id = *self.ids.sockets.get(&socket.id)?;
        Some(SocketRef { socket_id, name: socket.remote.to_string() })
    }

    fn channel_trace(&self) -> ChannelTrace {
        let Explanation { decisions, forgotten, .. } = &self.explanation;
        ChannelTrace {
            num_events_logged: count(*forgotten + decisions.len() as u64),
            creation_timestamp: Some(self.timestamp(Time::ZERO)),
            events: decisions.iter().map(|decision| self.event(decision)).collect(),
        }
    }

    /// The decisions about one endpoint, of those that are kept.
    fn subchannel_trace(&self, endpoint: &SubchannelReport) -> ChannelTrace {
        let is_about = |decision: &&Decision| {
            decision.at >= endpoint.created
                && matches!(&decision.what, What::Endpoint { address, .. } if *address == endpoint.address)
        };
        let about = self.explanation.decisions.iter().filter(is_about);
        let events: Vec<_> =
            about.map(|decision| ChannelTraceEvent { child_ref: None, ..self.event(decision) }).collect();
        ChannelTrace {
            num_events_logged: count(events.len() as u64),
            creation_timestamp: Some(self.timestamp(endpoint.created)),
            events,
        }
    }

    fn event(&self, decision: &Decision) -> ChannelTraceEvent {
        let (to, child) = match &decision.what {
            What::Endpoint { address, to, .. } => {
                let endpoints = &self.explanation.report.endpoints;
                (Some(*to), endpoints.iter().find(|endpoint| endpoint.address == *address))
            }
            What::Channel { to, .. } => (Some(*to), None),
            _ => (None, None),
        };
        let is_bad = to == Some(Connectivity::TransientFailure);
        let severity = if is_bad { Severity::CtWarning } else { Severity::CtInfo };
        ChannelTraceEvent {
            description: decision.to_string(),
            severity: severity.into(),
            timestamp: Some(self.timestamp(decision.at)),
            child_ref: child.and_then(|endpoint| self.subchannel_ref(endpoint)).map(ChildRef::SubchannelRef),
        }
    }

    fn timestamp(&self, time: Time) -> Timestamp {
        self.channel.wall_clock(time).into()
    }
}

fn state(connectivity: Connectivity) -> ChannelConnectivityState {
    let state = match connectivity {
        Connectivity::Idle => State::Idle,
        Connectivity::Connecting => State::Connecting,
        Connectivity::Ready => State::Ready,
        Connectivity::TransientFailure => State::TransientFailure,
    };
    ChannelConnectivityState { state: state.into() }
}

fn address(address: &balance::Address) -> Address {
    let address = match address {
        balance::Address::Tcp(address) => address::Address::TcpipAddress(tcp(*address)),
        balance::Address::Unix(path) => {
            address::Address::UdsAddress(UdsAddress { filename: path.display().to_string() })
        }
        other => address::Address::OtherAddress(OtherAddress { name: other.to_string(), value: None }),
    };
    Address { address: Some(address) }
}

fn tcp(address: SocketAddr) -> TcpIpAddress {
    let ip_address = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    TcpIpAddress { ip_address: ip_address.into(), port: address.port().into() }
}

/// What no counter reaches in practice is shown as the most that there is.
fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
