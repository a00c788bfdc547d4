use std::fmt;

use crate::{Address, Connectivity, Time, Transition};

/// Something that the core decided or learned and an operator may ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// When.
    pub at: Time,
    /// What.
    pub what: What,
}

/// What a [`Decision`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// An endpoint went out or came back.
    Endpoint {
        /// Its address.
        address: Address,
        /// The state that it had for the policies.
        from: Connectivity,
        /// The state that it has now.
        to: Connectivity,
        /// Why.
        reason: String,
    },
    /// The channel as a whole changed its state.
    Channel {
        /// From this one.
        from: Connectivity,
        /// To this one.
        to: Connectivity,
    },
    /// The checks of an endpoint came to another verdict, and its state is the same.
    Check {
        /// Its address.
        address: Address,
        /// From which verdict to which, and why.
        transition: Transition,
    },
    /// A policy says so: it failed over, say, or ejected an endpoint.
    Policy(String),
}

impl Decision {
    pub(crate) fn new(at: Time, what: What) -> Self {
        Self { at, what }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Endpoint { address, from, to, reason } => write!(f, "endpoint {address}: {from} → {to}: {reason}"),
            What::Channel { from, to } => write!(f, "channel: {from} → {to}"),
            What::Check { address, transition } => write!(f, "endpoint {address}: {transition}"),
            What::Policy(note) => f.write_str(note),
        }
    }
}

/// A figure for the driver's metrics.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Measurement {
    /// The metric's name as the gRFCs have it, such as `grpc.lb.wrr.rr_fallback`.
    pub metric: &'static str,
    /// What kind of figure, and how much.
    pub value: Value,
    /// Labels beside those that every metric of the channel has.
    pub labels: Vec<(&'static str, String)>,
}

impl Measurement {
    /// A figure without labels of its own.
    pub fn new(metric: &'static str, value: Value) -> Self {
        Self { metric, value, labels: Vec::new() }
    }

    /// The same with one more label.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

/// What a [`Measurement`] adds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// To a counter.
    Count(u64),
    /// To a histogram.
    Sample(f64),
    /// The present value of a gauge.
    Level(f64),
    /// To a gauge that others add to as well: by how much it rises, or falls.
    Change(f64),
}
