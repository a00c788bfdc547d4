use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::{
    Child, Context, Event, Explanation, Policies, Policy, PolicyFactory, Update, child::Resolution, hierarchy::Shares,
};
use crate::{
    ConfigError, Connectivity, LbConfig, NoChoice, Pick, PickArgs, Picker, Status, Time, entropy::remix, time::earliest,
};

/// `weighted_target_experimental` (gRFC A28): splits calls among named children by their weights.
///
/// Only children that are READY count; the others' shares fall to them in proportion. A child that is dropped from the
/// config ends at once: gRPC keeps it for 15 minutes for the sake of its connections, which here belong to the channel.
#[derive(Clone, Copy, Debug)]
pub struct WeightedTarget;

/// The config of `weighted_target_experimental`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WeightedTargetConfig {
    /// The children by name. An endpoint belongs to the one that the first name of its path says. Default: none, and
    /// every call fails.
    #[serde(default)]
    pub targets: BTreeMap<String, Target>,
}

/// One child of `weighted_target_experimental`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Target {
    /// Its share of calls relative to the other children. At least 1; no default.
    pub weight: u32,
    /// The policy within it.
    pub child_policy: LbConfig,
}

impl WeightedTargetConfig {
    fn check(&self, policies: &Policies) -> Result<(), ConfigError> {
        for (name, target) in &self.targets {
            target.check_weight(name)?;
            policies.check(&target.child_policy).map_err(|error| Target::child_error(name, error))?;
        }
        Ok(())
    }
}

impl Target {
    fn check_weight(&self, name: &str) -> Result<(), ConfigError> {
        if self.weight == 0 {
            return Err(ConfigError::new(format!("targets.{name}.weight"), "must be at least 1"));
        }
        Ok(())
    }

    fn start(self, name: &str, policies: &Policies) -> Result<Branch, ConfigError> {
        self.check_weight(name)?;
        let child = Child::new(&self.child_policy, policies).map_err(|error| Self::child_error(name, error))?;
        Ok(Branch { weight: self.weight, child })
    }

    fn child_error(name: &str, error: ConfigError) -> ConfigError {
        error.under(&format!("targets.{name}.childPolicy"))
    }
}

impl PolicyFactory for WeightedTarget {
    const NAME: &'static str = "weighted_target_experimental";
    const ALIASES: &'static [&'static str] = &["weighted_target"];
    type Config = WeightedTargetConfig;
    type Policy = WeightedTargetPolicy;

    fn build(&self, config: WeightedTargetConfig, policies: &Policies) -> Result<WeightedTargetPolicy, ConfigError> {
        let branches = config.targets.into_iter().map(|(name, target)| {
            let branch = target.start(&name, policies)?;
            Ok((name.into(), branch))
        });
        let branches = branches.collect::<Result<_, ConfigError>>()?;
        Ok(WeightedTargetPolicy { branches, resolution: None, warning: None, changed: true })
    }

    fn reconfigure(
        &self,
        policy: &mut WeightedTargetPolicy,
        config: WeightedTargetConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        config.check(policies)?;
        let mut before = std::mem::take(&mut policy.branches);
        for (name, target) in config.targets {
            let branch = match before.remove(name.as_str()) {
                Some(mut branch) => {
                    branch.child.configure(&target.child_policy, policies, ctx)?;
                    Branch { weight: target.weight, ..branch }
                }
                None => target.start(&name, policies)?,
            };
            policy.branches.insert(name.into(), branch);
        }
        policy.share_out(ctx);
        for mut gone in before.into_values() {
            gone.child.shutdown(ctx);
        }
        Ok(())
    }
}

/// A live `weighted_target_experimental`.
#[derive(Debug)]
pub struct WeightedTargetPolicy {
    branches: BTreeMap<Arc<str>, Branch>,
    resolution: Option<Resolution>,
    /// What is wrong with the endpoints' paths.
    warning: Option<String>,
    changed: bool,
}

#[derive(Debug)]
struct Branch {
    weight: u32,
    child: Child,
}

impl WeightedTargetPolicy {
    fn share_out(&mut self, ctx: &mut Context<'_>) {
        self.changed = true;
        self.warning = None;
        match &self.resolution {
            None => {}
            Some(failed @ Resolution::Failed(_)) => {
                self.branches.values_mut().for_each(|branch| branch.child.handle(failed.event(), ctx));
            }
            Some(Resolution::Endpoints(endpoints)) => {
                let shares = Shares::by_path(endpoints, self.branches.keys().map(|name| &**name));
                for (name, share) in &shares.by_child {
                    if let Some(branch) = self.branches.get_mut(name) {
                        branch.child.handle(Event::Resolved(share), ctx);
                    }
                }
                self.warning = shares.warning();
            }
        }
        if let Some(warning) = &self.warning {
            ctx.note(format!("weighted_target: {warning}"));
        }
    }

    fn update(&self) -> Update {
        let connectivity = match (&self.resolution, self.branches.is_empty()) {
            (None, _) => Connectivity::Connecting,
            (Some(_), true) => return self.vacant(),
            _ => Connectivity::aggregate(self.branches.values().map(|branch| branch.child.connectivity())),
        };
        let picker: Arc<dyn Picker> = match connectivity {
            Connectivity::Connecting => Arc::new(NoChoice::Queue),
            Connectivity::Idle => Arc::new(NoChoice::Idle),
            // While all have failed, each call hears of one of the failures.
            Connectivity::Ready | Connectivity::TransientFailure => Arc::new(self.split(connectivity)),
        };
        Update { connectivity, picker }
    }

    fn split(&self, among: Connectivity) -> Split {
        let branches = self.branches.values().filter(|branch| branch.child.connectivity() == among);
        let pickers = branches.filter_map(|branch| Some((branch.weight, Arc::clone(&branch.child.last()?.picker))));
        Split::new(pickers)
    }

    fn vacant(&self) -> Update {
        let failure = match &self.resolution {
            Some(Resolution::Failed(status)) => status.clone(),
            _ => Status::unavailable("weighted_target has no targets"),
        };
        Update { connectivity: Connectivity::TransientFailure, picker: Arc::new(NoChoice::Fail(failure)) }
    }
}

impl Policy for WeightedTargetPolicy {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        if let Some(resolution) = Resolution::of(event) {
            self.resolution = Some(resolution);
            return self.share_out(ctx);
        }
        self.branches.values_mut().for_each(|branch| branch.child.handle(event, ctx));
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        for branch in self.branches.values_mut() {
            self.changed |= branch.child.poll_awake(ctx);
        }
        std::mem::take(&mut self.changed).then(|| self.update())
    }

    fn next_timeout(&self) -> Option<Time> {
        self.branches.values().map(|branch| branch.child.next_timeout()).fold(None, earliest)
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.branches.values_mut().for_each(|branch| branch.child.shutdown(ctx));
        self.branches.clear();
    }

    fn explain(&self) -> Explanation {
        let told = self.warning.iter().fold(Explanation::default(), Explanation::note);
        let total: u64 = self.branches.values().map(|branch| u64::from(branch.weight)).sum();
        self.branches.iter().fold(told, |told, (name, branch)| {
            let note = format!("weight {} of {total}", branch.weight);
            told.child(&**name, branch.child.explain().note(note))
        })
    }
}

/// Draws one of several pickers by weight, in O(log n).
#[derive(Debug)]
pub(super) struct Split {
    pickers: Vec<Arc<dyn Picker>>,
    /// The sum of the weights up to and including each picker's.
    ends: Vec<u64>,
}

impl Split {
    pub(super) fn new(pickers: impl IntoIterator<Item = (u32, Arc<dyn Picker>)>) -> Self {
        let mut split = Self { pickers: Vec::new(), ends: Vec::new() };
        for (weight, picker) in pickers {
            split.ends.push(split.total() + u64::from(weight));
            split.pickers.push(picker);
        }
        split
    }

    fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

impl Picker for Split {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let drawn = (u128::from(args.entropy) * u128::from(self.total())) >> 64;
        let at = self.ends.partition_point(|&end| u128::from(end) <= drawn);
        // The child draws by bits of its own: those that led here would show it only a part of its range.
        let args = PickArgs { entropy: remix(args.entropy), ..*args };
        self.pickers.get(at).map_or(Pick::Queue, |picker| picker.pick(&args))
    }
}
