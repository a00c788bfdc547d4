use std::sync::Arc;

use serde::Deserialize;

use super::{
    Child, Context, Event, Explanation, Policies, Policy, PolicyFactory, Update, child::Resolution,
    weighted_target::Split,
};
use crate::{ConfigError, Connectivity, Endpoint, LbConfig, NoChoice, Picker, Time, time::earliest};

/// `zone_aware`: calls stay in the client's own zone while that is healthy enough, and spill over to the other zones in
/// proportion as it falters.
///
/// What a zone can take is the part of its endpoints that are READY, times `overprovisioningFactor`, at most all. With
/// `local` and `other` for what the client's zone and all the others together can take:
///
/// ```text
///   local ≥ 1              all calls stay
///   local + other ≥ 1      a part of local stays, the rest spills over
///   else                   they share in the proportion local : other
/// ```
///
/// At the default factor, 1.4, nothing spills over until 29 % of the zone's endpoints are out. A list that is too
/// small for that is used as if there were no zones: each side gets the part of the calls that it has of the READY
/// endpoints.
///
/// The policy under it chooses within each side. It should be one that connects to every endpoint, which `pick_first`
/// does not: a zone is judged by how many are READY.
#[derive(Clone, Copy, Debug)]
pub struct ZoneAware;

/// The config of `zone_aware`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ZoneAwareConfig {
    /// The zone of this client, as the resolver calls those of the endpoints. Not empty; no default.
    pub zone: String,
    /// The policy that chooses within a zone.
    pub child_policy: LbConfig,
    /// How much more than its share an endpoint can bear, in percent: at 140, 10 endpoints do the work of 14. At least
    /// 100; default 140, as Envoy has it. Higher ones keep calls in a zone that is then overloaded.
    #[serde(default = "envoys_factor")]
    pub overprovisioning_factor: u32,
    /// With fewer endpoints in all, zones do not matter. Default 6, as Envoy has it.
    #[serde(default = "envoys_minimum")]
    pub min_cluster_size: usize,
    /// With fewer endpoints in the client's zone, zones do not matter: one local endpoint should not carry what a
    /// hundred carry elsewhere. Default 1.
    #[serde(default = "one")]
    pub min_local_endpoints: usize,
}

fn envoys_factor() -> u32 {
    140
}

fn envoys_minimum() -> usize {
    6
}

fn one() -> usize {
    1
}

impl ZoneAwareConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if self.zone.is_empty() {
            return Err(ConfigError::new("zone", "must not be empty"));
        }
        if self.overprovisioning_factor < 100 {
            let problem = format!("is {}, must be at least 100", self.overprovisioning_factor);
            return Err(ConfigError::new("overprovisioningFactor", problem));
        }
        Ok(())
    }

    fn child(&self, policies: &Policies) -> Result<Child, ConfigError> {
        Child::new(&self.child_policy, policies).map_err(|error| error.under("childPolicy"))
    }
}

impl PolicyFactory for ZoneAware {
    const NAME: &'static str = "zone_aware";
    type Config = ZoneAwareConfig;
    type Policy = ZoneAwarePolicy;

    fn build(&self, config: ZoneAwareConfig, policies: &Policies) -> Result<ZoneAwarePolicy, ConfigError> {
        config.check()?;
        let side =
            || Ok::<_, ConfigError>(Side { child: config.child(policies)?, endpoints: Arc::default(), ready: 0 });
        let (local, other) = (side()?, side()?);
        Ok(ZoneAwarePolicy { config, local, other, resolution: None, split: None, changed: true })
    }

    fn reconfigure(
        &self,
        policy: &mut ZoneAwarePolicy,
        config: ZoneAwareConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        config.check()?;
        policies.check(&config.child_policy).map_err(|error| error.under("childPolicy"))?;
        for side in [&mut policy.local, &mut policy.other] {
            side.child.configure(&config.child_policy, policies, ctx)?;
        }
        policy.config = config;
        policy.share_out(ctx);
        Ok(())
    }
}

/// A live `zone_aware`.
#[derive(Debug)]
pub struct ZoneAwarePolicy {
    config: ZoneAwareConfig,
    local: Side,
    other: Side,
    resolution: Option<Resolution>,
    /// How calls are split at present, once that is known.
    split: Option<Shares>,
    changed: bool,
}

/// The client's zone, or all the others.
#[derive(Debug)]
struct Side {
    child: Child,
    endpoints: Arc<[Endpoint]>,
    /// How many of the endpoints take calls.
    ready: usize,
}

/// Shares of the calls, in parts of their sum, and why they are what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    mode: Mode,
    local: u32,
    other: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Local,
    SpillOver,
    TooFew,
}

/// All that a side can take.
const WHOLE: u32 = 1_000_000;

impl Shares {
    fn of(config: &ZoneAwareConfig, local: &Side, other: &Side) -> Self {
        let (here, there) = (local.endpoints.len(), other.endpoints.len());
        if here + there < config.min_cluster_size || here < config.min_local_endpoints {
            let count = |side: &Side| u32::try_from(side.ready).unwrap_or(u32::MAX);
            return Self { mode: Mode::TooFew, local: count(local), other: count(other) };
        }
        let capacity = |side: &Side| capacity(side.ready, side.endpoints.len(), config.overprovisioning_factor);
        let (local, other) = (capacity(local), capacity(other));
        let mode = if local == WHOLE { Mode::Local } else { Mode::SpillOver };
        Self { mode, local, other: other.min(WHOLE - local) }
    }

    fn describe(&self, zone: &str) -> String {
        let percent = u64::from(self.local) * 100 / (u64::from(self.local) + u64::from(self.other)).max(1);
        match self.mode {
            Mode::Local => format!("all calls stay in zone {zone}"),
            Mode::SpillOver => format!("calls spill over: {percent} % stay in zone {zone}"),
            Mode::TooFew => format!("too few endpoints to go by zones: {percent} % of calls stay in zone {zone}"),
        }
    }
}

/// What a side can take, in parts of [`WHOLE`].
fn capacity(ready: usize, total: usize, factor: u32) -> u32 {
    let scaled = ready as u128 * u128::from(factor) * u128::from(WHOLE) / 100;
    let part = scaled.checked_div(total as u128).unwrap_or(0);
    u32::try_from(part).unwrap_or(WHOLE).min(WHOLE)
}

impl Side {
    fn count(&mut self, ctx: &Context<'_>) {
        let is_ready = |endpoint: &&Endpoint| {
            endpoint.addresses.iter().filter_map(|address| ctx.find(address)).any(|id| ctx.is_ready(id))
        };
        self.ready = self.endpoints.iter().filter(is_ready).count();
    }

    fn is(&self, connectivity: Connectivity) -> bool {
        self.child.connectivity() == connectivity
    }

    fn picker(&self) -> Arc<dyn Picker> {
        self.child.last().map_or_else(|| Arc::new(NoChoice::Queue) as _, |update| Arc::clone(&update.picker))
    }

    fn describe(&self) -> String {
        format!("{} of {} endpoints ready", self.ready, self.endpoints.len())
    }
}

impl ZoneAwarePolicy {
    fn share_out(&mut self, ctx: &mut Context<'_>) {
        self.changed = true;
        match &self.resolution {
            None => {}
            Some(failed @ Resolution::Failed(_)) => {
                for side in [&mut self.local, &mut self.other] {
                    side.child.handle(failed.event(), ctx);
                }
            }
            Some(Resolution::Endpoints(endpoints)) => {
                let is_local = |endpoint: &&Endpoint| endpoint.zone.as_deref() == Some(&*self.config.zone);
                let (local, other): (Vec<_>, Vec<_>) = endpoints.iter().partition(is_local);
                self.local.endpoints = local.into_iter().cloned().collect();
                self.other.endpoints = other.into_iter().cloned().collect();
                for side in [&mut self.local, &mut self.other] {
                    side.child.handle(Event::Resolved(&side.endpoints), ctx);
                }
            }
        }
    }

    fn sides(&mut self) -> impl Iterator<Item = &mut Side> {
        [&mut self.local, &mut self.other].into_iter()
    }

    /// Decides anew how calls are split, and tells the operator when they begin to spill over or stop.
    fn weigh(&mut self, ctx: &mut Context<'_>) {
        self.sides().for_each(|side| side.count(ctx));
        let shares = Shares::of(&self.config, &self.local, &self.other);
        let before = self.split.replace(shares);
        let was_ready = self.local.ready + self.other.ready > 0;
        if before.map(|before| before.mode) != Some(shares.mode) && was_ready {
            let told = shares.describe(&self.config.zone);
            ctx.note(format!(
                "zone_aware: {told}; there, {}; elsewhere, {}",
                self.local.describe(),
                self.other.describe()
            ));
        }
    }

    fn update(&self) -> Update {
        let connectivity = match self.resolution {
            None => Connectivity::Connecting,
            Some(_) => Connectivity::aggregate([self.local.child.connectivity(), self.other.child.connectivity()]),
        };
        let picker: Arc<dyn Picker> = match connectivity {
            Connectivity::Ready => Arc::new(self.ready_picker()),
            Connectivity::Connecting => Arc::new(NoChoice::Queue),
            Connectivity::Idle => Arc::new(NoChoice::Idle),
            Connectivity::TransientFailure if self.local.endpoints.is_empty() => self.other.picker(),
            Connectivity::TransientFailure => self.local.picker(),
        };
        Update { connectivity, picker }
    }

    fn ready_picker(&self) -> Split {
        let shares = self.split.unwrap_or(Shares { mode: Mode::TooFew, local: 1, other: 1 });
        let weight = |side: &Side, share| if side.is(Connectivity::Ready) { share } else { 0 };
        match (weight(&self.local, shares.local), weight(&self.other, shares.other)) {
            // A side can be READY without any share: then it is all that there is.
            (0, 0) if self.local.is(Connectivity::Ready) => Split::new([(1, self.local.picker())]),
            (0, 0) => Split::new([(1, self.other.picker())]),
            (local, other) => Split::new([(local, self.local.picker()), (other, self.other.picker())]),
        }
    }
}

impl Policy for ZoneAwarePolicy {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        if let Some(resolution) = Resolution::of(event) {
            self.resolution = Some(resolution);
            return self.share_out(ctx);
        }
        self.sides().for_each(|side| side.child.handle(event, ctx));
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        for side in [&mut self.local, &mut self.other] {
            self.changed |= side.child.poll_awake(ctx);
        }
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.weigh(ctx);
        Some(self.update())
    }

    fn next_timeout(&self) -> Option<Time> {
        earliest(self.local.child.next_timeout(), self.other.child.next_timeout())
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        for side in self.sides() {
            side.child.shutdown(ctx);
            side.endpoints = Arc::default();
        }
        self.resolution = None;
    }

    fn explain(&self) -> Explanation {
        let told = Explanation::default();
        let told = match &self.split {
            Some(shares) => told.note(shares.describe(&self.config.zone)),
            None => told,
        };
        let side = |side: &Side| side.child.explain().note(side.describe());
        told.child(format!("zone {}", self.config.zone), side(&self.local)).child("other zones", side(&self.other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The documented formulas, word for word.
    fn naive(local: (usize, usize), other: (usize, usize), factor: f64) -> (f64, f64) {
        #[allow(clippy::cast_precision_loss, reason = "the counts are small")]
        let capacity = |(ready, total): (usize, usize)| {
            if total == 0 { 0.0 } else { (ready as f64 / total as f64 * factor).min(1.0) }
        };
        let (local, other) = (capacity(local), capacity(other));
        if local >= 1.0 {
            (1.0, 0.0)
        } else if local + other >= 1.0 {
            (local, 1.0 - local)
        } else {
            (local, other)
        }
    }

    fn side(ready: usize, total: usize) -> Side {
        let child = Child::new(&LbConfig::of("random"), &Policies::standard()).expect("it is known");
        let endpoint = || Endpoint::new(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        Side { child, endpoints: std::iter::repeat_with(endpoint).take(total).collect(), ready }
    }

    proptest! {
        #[test]
        fn shares_are_as_documented(
            (here, here_ready) in (1..40_usize).prop_flat_map(|n| (Just(n), 0..=n)),
            (there, there_ready) in (0..40_usize).prop_flat_map(|n| (Just(n), 0..=n)),
            factor in 100..300_u32,
        ) {
            let json = format!(
                r#"{{"zone":"a","childPolicy":[{{"random":{{}}}}],"minClusterSize":0,"overprovisioningFactor":{factor}}}"#
            );
            let config: ZoneAwareConfig = serde_json::from_str(&json).unwrap();
            let shares = Shares::of(&config, &side(here_ready, here), &side(there_ready, there));
            let (local, other) = naive((here_ready, here), (there_ready, there), f64::from(factor) / 100.0);
            let close = |parts: u32, expected: f64| (f64::from(parts) / f64::from(WHOLE) - expected).abs() < 1e-5;
            prop_assert!(close(shares.local, local) && close(shares.other, other), "{shares:?} {local} {other}");
        }
    }
}
