use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use evenkeel_balance::{Balancer, Connectivity, Decision, SubchannelReport, Time, policy};

use crate::report::Report;

/// The answer to "which backend is out, why, since when, and what happens now?"
///
/// [`Display`](fmt::Display) writes it for people, a few lines:
///
/// ```text
/// dns:///echo.internal:50051: READY, 2 of 3 endpoints ready
/// endpoints
///   10.0.0.1:50051  READY              for 3m 12s   12 in flight, 80211 ok, 0 failed   connected; not health-checked
///   10.0.0.3:50051  TRANSIENT_FAILURE  for 4s       0 in flight, 79912 ok, 31 failed   Connection refused
/// policies
///   round_robin READY
/// last decisions
///   4s ago  endpoint 10.0.0.3:50051: READY → TRANSIENT_FAILURE: Connection refused
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// Every endpoint and the errors of the resolver and the service config.
    pub report: Arc<Report>,
    /// The tree of policies, and what each is up to.
    pub policies: policy::Explanation,
    /// The group that an operator sends all calls to ([`switch_to`](crate::Channel::switch_to)).
    pub switched_to: Option<u32>,
    /// The last decisions, oldest first: at most [`Explanation::MAX_DECISIONS`].
    pub decisions: Vec<Decision>,
    /// How many decisions there were before those.
    pub forgotten: u64,
}

impl Explanation {
    /// How many decisions a channel remembers.
    pub const MAX_DECISIONS: usize = 256;
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { target, connectivity, endpoints, resolver_error, config_error, at, .. } = &*self.report;
        let ready = endpoints.iter().filter(|endpoint| endpoint.state.service == Connectivity::Ready).count();
        writeln!(f, "{target}: {connectivity}, {ready} of {} endpoints ready", endpoints.len())?;
        if let Some(error) = resolver_error {
            writeln!(f, "resolver: {error}")?;
        }
        if let Some(error) = config_error {
            writeln!(f, "refused: {error}")?;
        }
        writeln!(f, "endpoints")?;
        for endpoint in endpoints {
            writeln!(f, "  {}", Line(endpoint, *at))?;
        }
        writeln!(f, "policies")?;
        for line in self.policies.to_string().lines() {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "last decisions")?;
        for decision in &self.decisions {
            writeln!(f, "  {} ago  {decision}", Rough(at.since(decision.at)))?;
        }
        Ok(())
    }
}

/// An endpoint's line, seen at a moment.
struct Line<'a>(&'a SubchannelReport, Time);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(SubchannelReport { address, state, load, .. }, at) = self;
        let (address, service) = (address.to_string(), state.service.to_string());
        let since = Rough(at.since(state.since)).to_string();
        write!(f, "{address:<21}  {service:<17}  for {since:<8}  ")?;
        write!(f, "{} in flight, {} ok, {} failed  ", load.in_flight(), load.succeeded(), load.failed())?;
        f.write_str(&state.reason)
    }
}

/// A duration to two units.
struct Rough(Duration);

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0, 0) => write!(f, "{}ms", self.0.as_millis()),
            (0, 0, 0, s) => write!(f, "{s}s"),
            (0, 0, m, s) => write!(f, "{m}m {s}s"),
            (0, h, m, _) => write!(f, "{h}h {m}m"),
            (d, h, ..) => write!(f, "{d}d {h}h"),
        }
    }
}

/// The last decisions of a channel.
#[derive(Debug, Default)]
pub(crate) struct DecisionLog {
    kept: VecDeque<Decision>,
    forgotten: u64,
}

impl DecisionLog {
    pub(crate) fn push(&mut self, decision: Decision) {
        if self.kept.len() == Explanation::MAX_DECISIONS {
            self.kept.pop_front();
            self.forgotten += 1;
        }
        self.kept.push_back(decision);
    }

    pub(crate) fn explain(&self, report: Arc<Report>, balancer: &Balancer) -> Explanation {
        let decisions = self.kept.iter().cloned().collect();
        let (policies, switched_to) = (balancer.explain(), balancer.switched_to());
        Explanation { report, policies, switched_to, decisions, forgotten: self.forgotten }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let rough = |millis| Rough(Duration::from_millis(millis)).to_string();
        let shown = [rough(7), rough(4_000), rough(192_000), rough(3_600_000), rough(90_000_000)];
        assert_eq!(shown, ["7ms", "4s", "3m 12s", "1h 0m", "1d 1h"]);
    }
}
