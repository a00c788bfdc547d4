use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;

use super::{
    Child, Context, Event, Explanation, Policies, Policy, PolicyFactory, Update, child::Resolution, hierarchy::Shares,
};
use crate::{
    ConfigError, Connectivity, Endpoint, LbConfig, NoChoice, Status, Time, service_config::json_duration,
    time::earliest,
};

/// How long a level that is not needed is kept, with its connections (gRFC A56).
const RETENTION: Duration = Duration::from_secs(15 * 60);

/// `priority_experimental` (gRFC A56, A115): all calls go to the first of several levels that is up.
///
/// A level that is connecting has `failoverTimeout` before the next one is tried; one that has failed has not. As soon
/// as a better level is up, calls return to it; the others keep their connections for 15 minutes, in case it fails
/// again.
#[derive(Clone, Copy, Debug)]
pub struct Priority;

/// The config of `priority_experimental`: levels by name for a control plane, or by the endpoints' own ranks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PriorityConfig {
    /// Levels by name. An endpoint belongs to the one that the first name of its path says. Default: none.
    #[serde(default)]
    pub children: BTreeMap<String, PriorityChild>,
    /// The names of the levels, the best first. Default: none, and every call fails.
    #[serde(default)]
    pub priorities: Vec<String>,
    /// In place of `children` and `priorities`: a level for each [`Endpoint::priority`] that the resolver knows, the
    /// lowest number first, and this policy within each. Ours, not gRPC's. Default: not set.
    pub child_policy: Option<LbConfig>,
    /// How long a level may be connecting before the next one is tried. Above 0; default 10 s. Shorter ones fail over
    /// while a slow network is still connecting. Ours; gRPC has it fixed.
    #[serde(default = "ten_seconds", deserialize_with = "json_duration")]
    pub failover_timeout: Duration,
}

/// One level of `priority_experimental`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PriorityChild {
    /// The policy within the level.
    pub config: LbConfig,
    /// Whether its wishes to have the name resolved again go unheard (gRFC A37). Default false.
    #[serde(default)]
    pub ignore_reresolution_requests: bool,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

impl PriorityConfig {
    fn check(&self, policies: &Policies) -> Result<(), ConfigError> {
        if self.failover_timeout.is_zero() {
            return Err(ConfigError::new("failoverTimeout", "must be above 0s"));
        }
        if let Some(config) = &self.child_policy {
            if !(self.children.is_empty() && self.priorities.is_empty()) {
                return Err(ConfigError::new("childPolicy", "excludes children and priorities"));
            }
            return policies.check(config).map_err(|error| error.under("childPolicy"));
        }
        let mut seen = BTreeSet::new();
        for (i, name) in self.priorities.iter().enumerate() {
            let problem = match (self.children.contains_key(name), seen.insert(name)) {
                (false, _) => "is not among the children",
                (_, false) => "is named twice",
                _ => continue,
            };
            return Err(ConfigError::new(format!("priorities[{i}]"), format!("{name:?} {problem}")));
        }
        for (name, child) in &self.children {
            policies.check(&child.config).map_err(|error| error.under(&format!("children.{name}.config")))?;
        }
        Ok(())
    }

    /// The policy of the level of this name, and whether its wishes to resolve again go unheard.
    fn level(&self, name: &str) -> Option<(&LbConfig, bool)> {
        let named = self.children.get(name).map(|child| (&child.config, child.ignore_reresolution_requests));
        self.child_policy.as_ref().map(|config| (config, false)).or(named)
    }
}

impl PolicyFactory for Priority {
    const NAME: &'static str = "priority_experimental";
    const ALIASES: &'static [&'static str] = &["priority"];
    type Config = PriorityConfig;
    type Policy = PriorityPolicy;

    fn build(&self, config: PriorityConfig, policies: &Policies) -> Result<PriorityPolicy, ConfigError> {
        config.check(policies)?;
        Ok(PriorityPolicy {
            config,
            policies: policies.clone(),
            resolution: None,
            order: Vec::new(),
            warning: None,
            levels: BTreeMap::new(),
            serving: None,
            changed: true,
        })
    }

    fn reconfigure(
        &self,
        policy: &mut PriorityPolicy,
        config: PriorityConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        config.check(policies)?;
        policy.config = config;
        policy.policies = policies.clone();
        for (name, level) in &mut policy.levels {
            if let Some((config, mute)) = policy.config.level(name) {
                level.child.configure(config, policies, ctx)?;
                level.mute = mute;
            }
        }
        policy.apply(ctx);
        Ok(())
    }
}

/// A live `priority_experimental`.
#[derive(Debug)]
pub struct PriorityPolicy {
    config: PriorityConfig,
    policies: Policies,
    resolution: Option<Resolution>,
    /// The levels that there should be, the best first, and what each of them is told of the endpoints.
    order: Vec<(Arc<str>, Resolution)>,
    /// What is wrong with the endpoints' paths.
    warning: Option<String>,
    /// The levels that have been needed so far.
    levels: BTreeMap<Arc<str>, Level>,
    /// Which level serves, and since when.
    serving: Option<(Arc<str>, Time)>,
    changed: bool,
}

impl PriorityPolicy {
    /// Shares out the endpoints among the levels that run, and ends those that are no longer listed.
    fn apply(&mut self, ctx: &mut Context<'_>) {
        self.share_out(ctx);
        self.changed = true;
        let listed: BTreeSet<_> = self.order.iter().map(|(name, _)| Arc::clone(name)).collect();
        self.levels.retain(|name, level| {
            // Not kept for a while (gRFC A115).
            let is_listed = listed.contains(name);
            if !is_listed {
                level.child.shutdown(ctx);
            }
            is_listed
        });
        for (name, resolution) in &self.order {
            if let Some(level) = self.levels.get_mut(name) {
                level.tell(resolution.event(), ctx);
            }
        }
    }

    fn share_out(&mut self, ctx: &mut Context<'_>) {
        self.warning = None;
        self.order = match &self.resolution {
            None => Vec::new(),
            Some(failed @ Resolution::Failed(_)) => {
                self.config.priorities.iter().map(|name| (name.as_str().into(), failed.clone())).collect()
            }
            Some(Resolution::Endpoints(endpoints)) => self.shares(&Arc::clone(endpoints), ctx),
        };
    }

    fn shares(&mut self, endpoints: &[Endpoint], ctx: &mut Context<'_>) -> Vec<(Arc<str>, Resolution)> {
        if self.config.child_policy.is_some() {
            let ranks = Shares::by_rank(endpoints).into_iter();
            return ranks.map(|(rank, share)| (rank.to_string().into(), Resolution::Endpoints(share))).collect();
        }
        let mut shares = Shares::by_path(endpoints, self.config.priorities.iter().map(String::as_str));
        self.warning = shares.warning();
        if let Some(warning) = &self.warning {
            ctx.note(format!("priority: {warning}"));
        }
        let shares = self.config.priorities.iter().filter_map(|name| shares.by_child.remove_entry(name.as_str()));
        shares.map(|(name, share)| (name, Resolution::Endpoints(share))).collect()
    }

    /// Finds the level that serves, and starts those that have to be tried (gRFC A56, `ChoosePriority`).
    fn choose(&mut self, ctx: &mut Context<'_>) -> Option<Arc<str>> {
        for i in 0..self.order.len() {
            let name = Arc::clone(&self.order[i].0);
            let level = self.needed(i, ctx);
            if level.is_up() {
                self.deactivate_after(i, ctx.now());
                return Some(name);
            }
            if level.is_awaited() {
                return Some(name);
            }
        }
        let connecting =
            |(name, _): &&(Arc<str>, _)| self.levels.get(name).is_some_and(|level| level.is(Connectivity::Connecting));
        let best = self.order.iter().find(connecting).or(self.order.last());
        best.map(|(name, _)| Arc::clone(name))
    }

    /// The level at place `i`, started if need be, and no longer about to end.
    fn needed(&mut self, i: usize, ctx: &mut Context<'_>) -> &mut Level {
        let (name, resolution) = &self.order[i];
        let (config, policies, timeout) = (&self.config, &self.policies, self.config.failover_timeout);
        let level = self.levels.entry(Arc::clone(name)).or_insert_with(|| {
            let (config, mute) = config.level(name).expect("every level that is listed has a config");
            let child = Child::new(config, policies).expect("the config has been checked");
            let mut level = Level::new(child, mute, ctx.now(), timeout);
            level.tell(resolution.event(), ctx);
            level.poll(timeout, ctx);
            level
        });
        level.expires_at = None;
        level
    }

    fn deactivate_after(&mut self, i: usize, now: Time) {
        for (name, _) in &self.order[i + 1..] {
            if let Some(level) = self.levels.get_mut(name) {
                level.expires_at.get_or_insert(now + RETENTION);
            }
        }
    }

    fn end_expired(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now();
        self.levels.retain(|_, level| {
            let expired = level.expires_at.is_some_and(|at| at <= now);
            if expired {
                level.child.shutdown(ctx);
            }
            !expired
        });
    }

    /// Makes `name` the level that serves; says so, and why, where it is another one than before.
    fn serve(&mut self, name: Option<Arc<str>>, ctx: &mut Context<'_>) -> bool {
        let before = self.serving.as_ref().map(|(name, _)| Arc::clone(name));
        if before == name {
            return false;
        }
        if let (Some(from), Some(to)) = (&before, &name) {
            let place = |name| self.order.iter().position(|(listed, _)| listed == name);
            let note = match (place(from), place(to)) {
                (None, _) => format!("priority: {to} serves; {from} is no longer listed"),
                (Some(from_at), Some(to_at)) if to_at < from_at => {
                    format!("priority: back to {to} from {from}: {}", self.condition(to))
                }
                _ => format!("priority: fails over from {from} to {to}: {}", self.condition(from)),
            };
            ctx.note(note);
        }
        self.serving = name.map(|name| (name, ctx.now()));
        true
    }

    /// How a level is doing, in words.
    fn condition(&self, name: &str) -> String {
        self.levels
            .get(name)
            .map_or_else(|| "not needed so far".to_owned(), |level| format!("{name} {}", level.condition()))
    }

    fn serving_level(&mut self) -> Option<&mut Level> {
        let (name, _) = self.serving.as_ref()?;
        self.levels.get_mut(name)
    }

    /// What is published while there is no level.
    fn vacant(&self) -> Update {
        let failure = match &self.resolution {
            None => return Update { connectivity: Connectivity::Connecting, picker: Arc::new(NoChoice::Queue) },
            Some(Resolution::Failed(status)) => status.clone(),
            Some(_) if self.config.child_policy.is_some() => Status::unavailable("the resolver returned no endpoints"),
            Some(_) => Status::unavailable("priority policy has empty priority list"),
        };
        Update { connectivity: Connectivity::TransientFailure, picker: Arc::new(NoChoice::Fail(failure)) }
    }
}

impl Policy for PriorityPolicy {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        if let Some(resolution) = Resolution::of(event) {
            self.resolution = Some(resolution);
            return self.apply(ctx);
        }
        match event {
            Event::ExitIdle => {
                if let Some(level) = self.serving_level() {
                    level.tell(event, ctx);
                }
            }
            _ => self.levels.values_mut().for_each(|level| level.tell(event, ctx)),
        }
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        let timeout = self.config.failover_timeout;
        self.levels.values_mut().for_each(|level| level.poll(timeout, ctx));
        let chosen = self.choose(ctx);
        self.end_expired(ctx);
        let mut changed = std::mem::take(&mut self.changed) | self.serve(chosen, ctx);
        let Some(level) = self.serving_level() else { return changed.then(|| self.vacant()) };
        changed |= std::mem::take(&mut level.spoke);
        changed.then(|| level.update())
    }

    fn next_timeout(&self) -> Option<Time> {
        let levels = self.levels.values().map(Level::next_timeout);
        levels.fold(None, earliest)
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        for level in self.levels.values_mut() {
            level.child.shutdown(ctx);
        }
        self.levels.clear();
        self.order.clear();
        self.resolution = None;
    }

    fn explain(&self) -> Explanation {
        let mut told = Explanation::default();
        if let Some((name, since)) = &self.serving {
            told = told.note(format!("{name} serves since {since}"));
            for (better, _) in self.order.iter().take_while(|(better, _)| better != name) {
                told = told.note(format!("not {better}: {}", self.condition(better)));
            }
        }
        if let Some(warning) = &self.warning {
            told = told.note(warning);
        }
        for (name, _) in &self.order {
            if let Some(level) = self.levels.get(name) {
                told = told.child(&**name, level.explain());
            }
        }
        told
    }
}

/// A level that has been needed.
#[derive(Debug)]
struct Level {
    child: Child,
    /// Whether its wishes to resolve again go unheard.
    mute: bool,
    state: Connectivity,
    since: Time,
    /// Whether it has failed since it was last READY or IDLE.
    has_failed: bool,
    /// The failover timer: until when the levels after it wait for it.
    awaited_until: Option<Time>,
    /// When it ends, unless it is needed again before.
    expires_at: Option<Time>,
    /// Whether it has said anything that has not been published.
    spoke: bool,
}

impl Level {
    fn new(child: Child, mute: bool, now: Time, timeout: Duration) -> Self {
        Self {
            child,
            mute,
            state: Connectivity::Connecting,
            since: now,
            has_failed: false,
            awaited_until: Some(now + timeout),
            expires_at: None,
            spoke: false,
        }
    }

    fn tell(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        if self.mute {
            ctx.without_re_resolution(|ctx| self.child.handle(event, ctx));
        } else {
            self.child.handle(event, ctx);
        }
    }

    /// Takes in what the child has to say, and keeps the failover timer (gRFC A56, "Child Connectivity State Tracking").
    fn poll(&mut self, timeout: Duration, ctx: &mut Context<'_>) {
        if let Some(update) = self.child.poll_update(ctx) {
            self.spoke = true;
            self.become_(update.connectivity, timeout, ctx.now());
        }
        if self.awaited_until.is_some_and(|at| at <= ctx.now()) {
            self.awaited_until = None;
        }
    }

    fn become_(&mut self, state: Connectivity, timeout: Duration, now: Time) {
        let before = std::mem::replace(&mut self.state, state);
        if before != state {
            self.since = now;
        }
        match state {
            Connectivity::Connecting if before != state && !self.has_failed => self.awaited_until = Some(now + timeout),
            Connectivity::Connecting => {}
            Connectivity::Ready | Connectivity::Idle | Connectivity::TransientFailure => {
                self.has_failed = state == Connectivity::TransientFailure;
                self.awaited_until = None;
            }
        }
    }

    fn is(&self, state: Connectivity) -> bool {
        self.state == state
    }

    fn is_up(&self) -> bool {
        self.is(Connectivity::Ready) || self.is(Connectivity::Idle)
    }

    fn is_awaited(&self) -> bool {
        self.awaited_until.is_some()
    }

    fn update(&self) -> Update {
        let queue = || Update { connectivity: Connectivity::Connecting, picker: Arc::new(NoChoice::Queue) };
        self.child.last().cloned().unwrap_or_else(queue)
    }

    fn next_timeout(&self) -> Option<Time> {
        earliest(self.child.next_timeout(), earliest(self.awaited_until, self.expires_at))
    }

    fn condition(&self) -> String {
        format!("is {} since {}", self.state, self.since)
    }

    fn explain(&self) -> Explanation {
        match self.expires_at {
            Some(at) => self.child.explain().note(format!("not needed: kept until {at}")),
            None => self.child.explain(),
        }
    }
}
