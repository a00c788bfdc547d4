//! The control socket: a Unix socket on which a running supervisor, or a proxy, answers questions and takes orders.
//!
//! Each request and each reply is one line of JSON, see [`Request`] and [`Reply`]. The socket is its owner's alone (mode
//! 0600): whoever can write to it can stop the services.

mod client;
mod path;
mod proxy;
mod server;

pub use client::{AskError, ask};
pub use path::{default_path, only_path};
pub use proxy::{DecisionStatus, EndpointStatus, GroupStatus, ProxyStatus, TrafficStatus};
pub use server::{Answer, Control, ControlError};

use serde::{Deserialize, Serialize};

use crate::{Order, ServiceStatus};

/// What is asked of a supervisor: `{"command":"status"}`, `{"command":"restart","name":"greeter/0"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// What are all services and proxies doing?
    Status,
    /// As [`Order::Restart`].
    Restart {
        /// `NAME` or `NAME/REPLICA`.
        name: String,
    },
    /// As [`Order::Stop`].
    Stop {
        /// `NAME` or `NAME/REPLICA`.
        name: String,
    },
    /// As [`Order::Start`].
    Start {
        /// `NAME` or `NAME/REPLICA`.
        name: String,
    },
    /// Sends all calls of a proxy to one group of its endpoints.
    Switch {
        /// The proxy's name.
        name: String,
        /// The group, 0 for the first; none to leave it to what is well again.
        group: Option<u32>,
    },
}

/// What it answers: `{"reply":"status","services":[…],"proxies":[…]}`, `{"reply":"done","text":"…"}`, `{"reply":"refused","why":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// What each service and each proxy is doing.
    Status {
        /// In the order of their names.
        services: Vec<ServiceStatus>,
        /// In the order of their names.
        proxies: Vec<ProxyStatus>,
    },
    /// The order is being followed.
    Done {
        /// What will happen.
        text: String,
    },
    /// It was not.
    Refused {
        /// Why.
        why: String,
    },
}

impl Request {
    /// The order to services that it is, if it is one.
    pub fn order(&self) -> Option<Order> {
        match self {
            Self::Status | Self::Switch { .. } => None,
            Self::Restart { name } => Some(Order::Restart(name.clone())),
            Self::Stop { name } => Some(Order::Stop(name.clone())),
            Self::Start { name } => Some(Order::Start(name.clone())),
        }
    }
}
