use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Context, Event, Explanation, Policy, Update};
use crate::{ConfigError, LbConfig, Time};

/// How deep policies may nest in a config (gRFC A52).
const MAX_DEPTH: u32 = 16;

/// A kind of policy: its name in a service config, its typed config, and how to build and reconfigure one.
pub trait PolicyFactory: Send + Sync + 'static {
    /// The key in `loadBalancingConfig`.
    const NAME: &'static str;
    /// Other keys that mean the same, such as gRPC's names with `_experimental` at their end. Default: none.
    const ALIASES: &'static [&'static str] = &[];
    /// The value under that key. A missing value is `{}`.
    type Config: DeserializeOwned;
    /// What runs.
    type Policy: Policy + 'static;

    /// Builds a policy. `policies` builds its children, if it has any.
    ///
    /// # Errors
    ///
    /// Where the config is well-formed but out of range, or a child's is wrong: then the whole service config is
    /// refused (gRFC A21).
    fn build(&self, config: Self::Config, policies: &Policies) -> Result<Self::Policy, ConfigError>;

    /// Applies another config to a live policy, which keeps its endpoints and what it has learned.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build); the policy is then unchanged, its children included: a parent of several checks
    /// every child's config ([`Policies::check`]) before it applies one.
    fn reconfigure(
        &self,
        policy: &mut Self::Policy,
        config: Self::Config,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError>;
}

/// The config of a policy that takes none: any object, whose fields are ignored (gRFC A21).
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct NoConfig {}

/// The kinds of policies that a channel knows: a value, handed to the channel, not a process-wide table.
#[derive(Clone, Default)]
pub struct Policies {
    kinds: BTreeMap<&'static str, Arc<dyn Kind>>,
    depth: u32,
}

impl Policies {
    /// These kinds and one more, under its name and its aliases; it replaces any of the same name.
    #[must_use]
    pub fn with<F: PolicyFactory>(mut self, factory: F) -> Self {
        let kind: Arc<dyn Kind> = Arc::new(Registered(Arc::new(factory)));
        for name in std::iter::once(&F::NAME).chain(F::ALIASES) {
            self.kinds.insert(name, Arc::clone(&kind));
        }
        self
    }

    /// The names that a config may use, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.kinds.keys().copied()
    }

    /// Builds the first policy of `list` whose kind is known (gRFC A24).
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the path in the JSON: no known policy in the list, a config that its policy refuses, or
    /// nesting deeper than 16.
    pub fn build(&self, list: &LbConfig) -> Result<Box<dyn ConfiguredPolicy>, ConfigError> {
        let (name, config, at) = self.first_known(list)?;
        self.kinds[name].build(config, &self.deeper(&at)?).map_err(|error| error.under(&at))
    }

    /// Checks `list` as [`build`](Self::build) does, and builds nothing that lasts.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn check(&self, list: &LbConfig) -> Result<(), ConfigError> {
        self.build(list).map(drop)
    }

    /// The first entry of `list` whose kind is known: the kind's own name, its config, and where in the list it stands.
    pub(crate) fn first_known<'a>(&self, list: &'a LbConfig) -> Result<(&'static str, &'a Value, String), ConfigError> {
        let known = list.iter().enumerate().find_map(|(i, (name, config))| {
            let kind = self.kinds.get(name)?;
            Some((kind.name(), config, format!("[{i}].{name}")))
        });
        known.ok_or_else(|| {
            let asked: Vec<_> = list.iter().map(|(name, _)| name).collect();
            let have: Vec<_> = self.names().collect();
            ConfigError::new("", format!("no known policy among {asked:?}; known are {}", have.join(", ")))
        })
    }

    pub(super) fn deeper(&self, at: &str) -> Result<Self, ConfigError> {
        if self.depth == MAX_DEPTH {
            return Err(ConfigError::new(at, format!("policies nest deeper than {MAX_DEPTH}")));
        }
        Ok(Self { kinds: self.kinds.clone(), depth: self.depth + 1 })
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A live policy that knows its kind, so that it can take another config of that kind.
pub trait ConfiguredPolicy: Policy {
    /// The name of its kind.
    fn name(&self) -> &'static str;

    /// Applies another config of the same kind.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] where the kind refuses the config; the policy is then unchanged.
    fn reconfigure(&mut self, config: &Value, policies: &Policies, ctx: &mut Context<'_>) -> Result<(), ConfigError>;
}

/// A [`PolicyFactory`] with its types put out of sight.
trait Kind: Send + Sync {
    fn name(&self) -> &'static str;

    fn build(&self, config: &Value, policies: &Policies) -> Result<Box<dyn ConfiguredPolicy>, ConfigError>;
}

struct Registered<F>(Arc<F>);

impl<F: PolicyFactory> Kind for Registered<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn build(&self, config: &Value, policies: &Policies) -> Result<Box<dyn ConfiguredPolicy>, ConfigError> {
        let policy = self.0.build(parse(config)?, policies)?;
        Ok(Box::new(Configured { factory: Arc::clone(&self.0), policy }))
    }
}

struct Configured<F: PolicyFactory> {
    factory: Arc<F>,
    policy: F::Policy,
}

impl<F: PolicyFactory> ConfiguredPolicy for Configured<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn reconfigure(&mut self, config: &Value, policies: &Policies, ctx: &mut Context<'_>) -> Result<(), ConfigError> {
        self.factory.reconfigure(&mut self.policy, parse(config)?, policies, ctx)
    }
}

impl<F: PolicyFactory> Policy for Configured<F> {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        self.policy.handle(event, ctx);
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        self.policy.poll_update(ctx)
    }

    fn next_timeout(&self) -> Option<Time> {
        self.policy.next_timeout()
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.policy.shutdown(ctx);
    }

    fn explain(&self) -> Explanation {
        self.policy.explain()
    }
}

fn parse<C: DeserializeOwned>(config: &Value) -> Result<C, ConfigError> {
    serde_path_to_error::deserialize(config).map_err(|error| ConfigError::from_json(&error))
}
