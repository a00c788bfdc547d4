use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Child, Context, Event, Explanation, Policies, Policy, PolicyFactory, Update, leaves::identity};
use crate::{Address, ConfigError, Connectivity, Endpoint, LbConfig, Time};

/// `panic_threshold`: where too few endpoints are ready, uses all that are connected, whatever is held against them.
///
/// When most of a fleet looks ill at once, it is likelier that the looking is at fault, and the few that seem well would
/// drown in everybody's calls. After Envoy's panic threshold; there is no gRFC.
///
/// Health reports, stalls and ejections count against an endpoint, wherever in the tree they come from: as an ejection
/// belongs to the address, it makes no difference whether `outlier_detection` stands above or below. Write
/// `panic_threshold` on the outside, so that the config reads as it works: what it wraps is what it overrules.
#[derive(Clone, Copy, Debug)]
pub struct PanicThreshold;

/// The config of `panic_threshold`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PanicThresholdConfig {
    /// With fewer than this percentage of the endpoints ready, all connected ones are used. Default 50, at most 100;
    /// 0 turns it off.
    #[serde(default = "half")]
    pub threshold: u32,
    /// What places the calls. Required.
    pub child_policy: LbConfig,
}

fn half() -> u32 {
    50
}

const CHILD: &str = "childPolicy";

impl PanicThresholdConfig {
    fn checked(self) -> Result<Self, ConfigError> {
        if self.threshold > 100 {
            return Err(ConfigError::new("threshold", format!("is {}, must be at most 100", self.threshold)));
        }
        Ok(self)
    }
}

impl PolicyFactory for PanicThreshold {
    const NAME: &'static str = "panic_threshold";
    type Config = PanicThresholdConfig;
    type Policy = Overruler;

    fn build(&self, config: PanicThresholdConfig, policies: &Policies) -> Result<Overruler, ConfigError> {
        let config = config.checked()?;
        let child = Child::new(&config.child_policy, policies).map_err(|error| error.under(CHILD))?;
        Ok(Overruler { threshold: config.threshold, child, endpoints: BTreeMap::new(), panics: false, changed: true })
    }

    fn reconfigure(
        &self,
        policy: &mut Overruler,
        config: PanicThresholdConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        let config = config.checked()?;
        policy.child.configure(&config.child_policy, policies, ctx).map_err(|error| error.under(CHILD))?;
        policy.threshold = config.threshold;
        policy.changed = true;
        Ok(())
    }
}

/// `panic_threshold`, live.
#[derive(Debug)]
pub struct Overruler {
    threshold: u32,
    child: Child,
    /// Endpoints by their addresses.
    endpoints: BTreeMap<Vec<Address>, Standing>,
    /// Whether their addresses are trusted at present.
    panics: bool,
    /// Whether anything has happened since they were counted.
    changed: bool,
}

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// It has yet to connect, or to report its health, for the first time. Nothing is held against it.
    #[default]
    New,
    Ready,
    Out,
}

impl Standing {
    fn next(self, addresses: &[Address], ctx: &Context<'_>) -> Self {
        let states: Vec<_> =
            addresses.iter().filter_map(|address| ctx.find(address)).filter_map(|id| ctx.state(id)).collect();
        match Connectivity::aggregate(states.iter().map(|state| state.untrusted)) {
            Connectivity::Ready => Self::Ready,
            _ if self == Self::New && states.is_empty() => Self::New,
            Connectivity::TransientFailure => Self::Out,
            Connectivity::Connecting | Connectivity::Idle => {
                let is_new = self == Self::New && !states.iter().any(|state| state.stalled);
                if is_new { Self::New } else { Self::Out }
            }
        }
    }
}

impl Overruler {
    fn list(&mut self, endpoints: &[Endpoint], ctx: &mut Context<'_>) {
        let mut gone = std::mem::take(&mut self.endpoints);
        for addresses in endpoints.iter().map(identity) {
            let known = gone.remove(&addresses);
            if known.is_none() && self.panics && !self.endpoints.contains_key(&addresses) {
                for address in &*addresses {
                    ctx.trust(address);
                }
            }
            self.endpoints.entry(addresses).or_insert(known.unwrap_or_default());
        }
        if self.panics {
            for address in gone.keys().flatten() {
                ctx.distrust(address);
            }
        }
    }

    fn judge(&mut self, ctx: &mut Context<'_>) {
        for (addresses, standing) in &mut self.endpoints {
            *standing = standing.next(addresses, ctx);
        }
        let (well, all) = self.count();
        let panics = well * 100 < all * self.threshold as usize;
        if panics == self.panics {
            return;
        }
        if panics {
            ctx.note(format!("panic: {well} of {all} endpoints are well; all that are connected are used"));
        } else {
            ctx.note(format!("the panic is over: {well} of {all} endpoints are well"));
        }
        self.set_panic(panics, ctx);
    }

    fn set_panic(&mut self, panics: bool, ctx: &mut Context<'_>) {
        if std::mem::replace(&mut self.panics, panics) == panics {
            return;
        }
        for address in self.endpoints.keys().flatten() {
            if panics { ctx.trust(address) } else { ctx.distrust(address) }
        }
    }

    /// How many endpoints are not out, and how many there are.
    fn count(&self) -> (usize, usize) {
        let well = self.endpoints.values().filter(|standing| **standing != Standing::Out);
        (well.count(), self.endpoints.len())
    }
}

impl Policy for Overruler {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        if let Event::Resolved(endpoints) = event {
            self.list(endpoints, ctx);
        }
        self.changed = true;
        self.child.handle(event, ctx);
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        if std::mem::take(&mut self.changed) {
            self.judge(ctx);
        }
        self.child.poll_update(ctx)
    }

    fn next_timeout(&self) -> Option<Time> {
        self.child.next_timeout()
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.set_panic(false, ctx);
        self.endpoints.clear();
        self.child.shutdown(ctx);
    }

    fn explain(&self) -> Explanation {
        let ((well, all), threshold) = (self.count(), self.threshold);
        let counted = format!("{well} of {all} endpoints are well; the threshold is {threshold} %");
        let mut explanation = Explanation::default().note(counted);
        if self.panics {
            explanation = explanation.note("panic: all endpoints that are connected are used");
        }
        explanation.child(CHILD, self.child.explain())
    }
}
