use std::{collections::BTreeSet, sync::Arc};

use evenkeel::balance::{
    ConfigError, Context, Endpoint, Event, LbConfig, Policies, Policy, PolicyFactory, Time, Update,
    policy::{Child, Explanation},
};
use serde::Deserialize;

/// `example.avoid_zones`: keeps calls out of some zones, say while one is being repaired.
///
/// Where no endpoint is anywhere else, it has no effect: better a doubtful zone than none.
#[derive(Clone, Copy, Debug)]
pub struct AvoidZones;

/// The config of `example.avoid_zones`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AvoidZonesConfig {
    /// The zones to avoid, as the resolver calls them. Default: none.
    #[serde(default)]
    pub zones: BTreeSet<String>,
    /// The policy that chooses among the endpoints that remain. No default.
    pub child_policy: LbConfig,
}

impl PolicyFactory for AvoidZones {
    const NAME: &'static str = "example.avoid_zones";
    type Config = AvoidZonesConfig;
    type Policy = AvoidZonesPolicy;

    fn build(&self, config: AvoidZonesConfig, policies: &Policies) -> Result<AvoidZonesPolicy, ConfigError> {
        let child = Child::new(&config.child_policy, policies).map_err(|error| error.under("childPolicy"))?;
        Ok(AvoidZonesPolicy { zones: config.zones, child, endpoints: None, avoided: 0 })
    }

    fn reconfigure(
        &self,
        policy: &mut AvoidZonesPolicy,
        config: AvoidZonesConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        // First what can fail, so that a refused config changes nothing.
        let configured = policy.child.configure(&config.child_policy, policies, ctx);
        configured.map_err(|error| error.under("childPolicy"))?;
        policy.zones = config.zones;
        policy.pass_on(ctx);
        Ok(())
    }
}

/// A live `example.avoid_zones`.
#[derive(Debug)]
pub struct AvoidZonesPolicy {
    zones: BTreeSet<String>,
    child: Child,
    endpoints: Option<Arc<[Endpoint]>>,
    /// How many endpoints the child does not see.
    avoided: usize,
}

impl AvoidZonesPolicy {
    /// Tells the child of the endpoints that it may use.
    fn pass_on(&mut self, ctx: &mut Context<'_>) {
        let Some(all) = &self.endpoints else { return };
        let is_avoided = |endpoint: &Endpoint| endpoint.zone.as_deref().is_some_and(|zone| self.zones.contains(zone));
        let mut rest: Arc<[Endpoint]> = all.iter().filter(|endpoint| !is_avoided(endpoint)).cloned().collect();
        if rest.is_empty() && !all.is_empty() {
            ctx.note("avoid_zones: all endpoints are in zones to avoid: all are used");
            rest = Arc::clone(all);
        }
        self.avoided = all.len() - rest.len();
        self.child.handle(Event::Resolved(&rest), ctx);
    }
}

impl Policy for AvoidZonesPolicy {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        match event {
            Event::Resolved(endpoints) => {
                self.endpoints = Some(Arc::clone(endpoints));
                self.pass_on(ctx);
            }
            // Whatever else there is, now or later, is the child's business.
            _ => self.child.handle(event, ctx),
        }
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        self.child.poll_update(ctx)
    }

    fn next_timeout(&self) -> Option<Time> {
        self.child.next_timeout()
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.child.shutdown(ctx);
    }

    fn explain(&self) -> Explanation {
        let note = format!("avoids {} endpoints", self.avoided);
        Explanation::default().note(note).child("childPolicy", self.child.explain())
    }
}
