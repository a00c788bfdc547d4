//! What is known of a channel's methods: figures for the `metrics` facade, by the names of the gRFCs (A66, A96), and
//! how long their calls take.
//!
//! The recorder is looked up when a channel first needs a figure, so it has to be installed before the channel is used.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use evenkeel_balance::{Code, HedgeBudget, HedgingPolicy, LiveQuantile, Time};
use metrics::{Counter, Histogram, Label};

use crate::tally::{CallCounts, Tally};

/// How many methods of a channel have figures of their own; those that come later share the name `other`, since a
/// caller may make up names without end.
const MAX_METHODS: usize = 256;

/// The methods of a channel, by path.
pub(crate) struct Methods {
    target: String,
    tally: Arc<Tally>,
    by_path: ArcSwap<BTreeMap<Box<str>, Arc<Method>>>,
    /// Made when it is first needed, since what is registered is exported.
    other: OnceLock<Arc<Method>>,
}

impl Methods {
    pub(crate) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), tally: Arc::default(), by_path: ArcSwap::default(), other: OnceLock::new() }
    }

    /// The method at `path`: `/package.Service/Method`.
    pub(crate) fn get(&self, path: &str) -> Arc<Method> {
        let known = self.by_path.load();
        match known.get(path) {
            Some(method) => Arc::clone(method),
            None if known.len() < MAX_METHODS => self.admit(path),
            None => Arc::clone(self.other.get_or_init(|| self.make("other"))),
        }
    }

    /// The calls of all methods together.
    pub(crate) fn calls(&self) -> CallCounts {
        self.tally.counts()
    }

    fn admit(&self, path: &str) -> Arc<Method> {
        let fresh = self.make(path.trim_start_matches('/'));
        self.by_path.rcu(|known| {
            let mut more = BTreeMap::clone(known);
            // Another call may have been here first: its figures are the ones that count.
            more.entry(path.into()).or_insert_with(|| Arc::clone(&fresh));
            more
        });
        self.by_path.load().get(path).map_or(fresh, Arc::clone)
    }

    fn make(&self, name: &str) -> Arc<Method> {
        Arc::new(Method::new(&self.target, name, Arc::clone(&self.tally)))
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Methods").field("target", &self.target).finish_non_exhaustive()
    }
}

/// One method's figures, and what is learned of it.
pub(crate) struct Method {
    /// That of the channel.
    tally: Arc<Tally>,
    labels: Vec<Label>,
    started: Counter,
    attempts: PerCode<AttemptFigures>,
    calls: PerCode<Histogram>,
    /// How long its calls take, for hedging.
    pub(crate) latency: LiveQuantile,
    /// How many of its calls may be hedged.
    hedges: HedgeBudget,
}

type PerCode<T> = [OnceLock<T>; Code::ALL.len()];

struct AttemptFigures {
    duration: Histogram,
    sent: Histogram,
    received: Histogram,
}

/// What an attempt took (gRFC A66).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCost {
    /// From its start to its end.
    pub duration: Duration,
    /// Bytes of messages sent, as they were compressed, without framing.
    pub sent: u64,
    /// Bytes of messages received, likewise.
    pub received: u64,
}

/// How often a call was tried beyond its first attempt (gRFC A96).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// Attempts because one before had failed.
    pub retries: u32,
    /// Attempts because no server had processed the one before.
    pub transparent: u32,
    /// Attempts beside one that was running.
    pub hedges: u32,
    /// Time between attempts, in which none was running.
    pub delay: Duration,
}

impl Method {
    fn new(target: &str, name: &str, tally: Arc<Tally>) -> Self {
        let labels = vec![Label::new("grpc.method", name.to_owned()), Label::new("grpc.target", target.to_owned())];
        Self {
            tally,
            started: metrics::counter!("grpc.client.attempt.started", labels.clone()),
            labels,
            attempts: Default::default(),
            calls: Default::default(),
            latency: LiveQuantile::new(),
            hedges: HedgeBudget::new(),
        }
    }

    pub(crate) fn attempt_started(&self) {
        self.started.increment(1);
    }

    pub(crate) fn attempt_ended(&self, code: Code, cost: &AttemptCost) {
        let figures = self.attempts[usize::from(code.number())].get_or_init(|| {
            let labels = self.with_status(code);
            AttemptFigures {
                duration: metrics::histogram!("grpc.client.attempt.duration", labels.clone()),
                sent: metrics::histogram!("grpc.client.attempt.sent_total_compressed_message_size", labels.clone()),
                received: metrics::histogram!("grpc.client.attempt.rcvd_total_compressed_message_size", labels),
            }
        });
        figures.duration.record(cost.duration);
        figures.sent.record(float(cost.sent));
        figures.received.record(float(cost.received));
    }

    /// How long a hedge of one of its calls waits for the attempt before it; without end where there is to be none.
    pub(crate) fn hedging_delay(&self, policy: &HedgingPolicy) -> Duration {
        let Some(adaptive) = policy.adaptive else { return policy.delay };
        self.hedges.earn(adaptive.extra_load);
        let learned = self.latency.read(adaptive.quantile);
        // Until something is learned, a delay of 0 would hedge every call.
        learned.unwrap_or(if policy.delay.is_zero() { Duration::MAX } else { policy.delay })
    }

    /// Whether its budget has room for one more hedge, which is then spent.
    pub(crate) fn spend_hedge(&self, policy: &HedgingPolicy) -> bool {
        policy.adaptive.is_none() || self.hedges.spend()
    }

    pub(crate) fn call_started(&self, lane: usize, now: Time) {
        self.tally.started(lane, now);
    }

    pub(crate) fn call_ended(&self, lane: usize, code: Code, duration: Duration, repeats: &Repeats) {
        self.tally.ended(lane, code == Code::Ok);
        let figure = self.calls[usize::from(code.number())]
            .get_or_init(|| metrics::histogram!("grpc.client.call.duration", self.with_status(code)));
        figure.record(duration);
        for (metric, count) in [
            ("grpc.client.call.retries", repeats.retries),
            ("grpc.client.call.transparent_retries", repeats.transparent),
            ("grpc.client.call.hedges", repeats.hedges),
        ] {
            // The histograms are of the calls that were tried again, not of all (gRFC A96).
            if count > 0 {
                metrics::histogram!(metric, self.labels.clone()).record(count);
            }
        }
        if !repeats.delay.is_zero() {
            metrics::histogram!("grpc.client.call.retry_delay", self.labels.clone()).record(repeats.delay);
        }
    }

    fn with_status(&self, code: Code) -> Vec<Label> {
        let status = Label::new("grpc.status", code.to_string());
        self.labels.iter().cloned().chain([status]).collect()
    }
}

#[allow(clippy::cast_precision_loss, reason = "sizes below 2^53 are exact")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method").field("labels", &self.labels).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_keeps_its_figures_and_made_up_names_share_theirs() {
        let methods = Methods::new("dns:///echo");
        let first = methods.get("/a.B/C");
        assert!(Arc::ptr_eq(&first, &methods.get("/a.B/C")));
        for n in 0..MAX_METHODS {
            methods.get(&format!("/made.Up/{n}"));
        }
        assert!(Arc::ptr_eq(&methods.get("/x/1"), &methods.get("/x/2")));
        assert!(Arc::ptr_eq(&first, &methods.get("/a.B/C")));
    }
}
