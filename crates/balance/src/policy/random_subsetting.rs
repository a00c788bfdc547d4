use std::{fmt::Write, sync::Arc};

use serde::Deserialize;

use super::{Child, Context, Event, Explanation, Policies, Policy, PolicyFactory, Update};
use crate::{ConfigError, Endpoint, LbConfig, Time, xxhash::xxh64};

/// `random_subsetting` (gRFC A68): each client knows but a few of the endpoints, drawn at random, so that many clients
/// and many servers do not all hold connections to one another.
///
/// Endpoints are ranked by the XXH64 hash of their first address under a seed of the client's own, and the first
/// `subsetSize` are used: an endpoint that comes or goes changes at most one of them.
#[derive(Clone, Copy, Debug)]
pub struct RandomSubsetting;

/// The config of `random_subsetting`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RandomSubsettingConfig {
    /// How many endpoints the child sees. At least 1; no default. Too few make for uneven load: with 100 clients and 100
    /// servers, 25 put 0.6 to 1.5 times the mean on a server, 5 put 0.1 to 2.2 times.
    pub subset_size: usize,
    /// The policy that chooses among them.
    pub child_policy: LbConfig,
}

impl RandomSubsettingConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if self.subset_size == 0 {
            return Err(ConfigError::new("subsetSize", "must be at least 1"));
        }
        Ok(())
    }
}

impl PolicyFactory for RandomSubsetting {
    const NAME: &'static str = "random_subsetting";
    const ALIASES: &'static [&'static str] = &["random_subsetting_experimental"];
    type Config = RandomSubsettingConfig;
    type Policy = RandomSubsettingPolicy;

    fn build(
        &self,
        config: RandomSubsettingConfig,
        policies: &Policies,
    ) -> Result<RandomSubsettingPolicy, ConfigError> {
        config.check()?;
        let child = Child::new(&config.child_policy, policies).map_err(|error| error.under("childPolicy"))?;
        Ok(RandomSubsettingPolicy { size: config.subset_size, seed: None, endpoints: None, child })
    }

    fn reconfigure(
        &self,
        policy: &mut RandomSubsettingPolicy,
        config: RandomSubsettingConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        config.check()?;
        let child = &mut policy.child;
        child.configure(&config.child_policy, policies, ctx).map_err(|error| error.under("childPolicy"))?;
        if std::mem::replace(&mut policy.size, config.subset_size) != config.subset_size {
            policy.spread(ctx);
        }
        Ok(())
    }
}

/// A live `random_subsetting`.
#[derive(Debug)]
pub struct RandomSubsettingPolicy {
    size: usize,
    /// Drawn with the first list of endpoints, and kept for as long as the policy lives.
    seed: Option<u64>,
    endpoints: Option<Arc<[Endpoint]>>,
    child: Child,
}

impl RandomSubsettingPolicy {
    fn spread(&mut self, ctx: &mut Context<'_>) {
        let Some(endpoints) = &self.endpoints else { return };
        let seed = *self.seed.get_or_insert_with(|| ctx.entropy().next_u64());
        self.child.handle(Event::Resolved(&subset(endpoints, self.size, seed)), ctx);
    }
}

impl Policy for RandomSubsettingPolicy {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        match event {
            Event::Resolved(endpoints) => {
                self.endpoints = Some(Arc::clone(endpoints));
                self.spread(ctx);
            }
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
        self.endpoints = None;
    }

    fn explain(&self) -> Explanation {
        let total = self.endpoints.as_ref().map_or(0, |endpoints| endpoints.len());
        let note = format!("uses {} of {total} endpoints", total.min(self.size));
        Explanation::default().note(note).child("childPolicy", self.child.explain())
    }
}

/// The `size` endpoints of the smallest hashes, in the order of these; all of them where there are no more.
fn subset(endpoints: &Arc<[Endpoint]>, size: usize, seed: u64) -> Arc<[Endpoint]> {
    if endpoints.len() <= size {
        return Arc::clone(endpoints);
    }
    let mut address = String::new();
    let hashes = endpoints.iter().enumerate().map(|(i, endpoint)| {
        address.clear();
        // Writing to a String cannot fail, and an endpoint always has an address.
        let _ = endpoint.addresses.first().map(|first| write!(address, "{first}"));
        (xxh64(address.as_bytes(), seed), i)
    });
    let mut ranked: Vec<_> = hashes.collect();
    ranked.select_nth_unstable(size);
    ranked.truncate(size);
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, i)| endpoints[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_set, prelude::*};

    use super::*;
    use crate::Address;

    fn list(hosts: &BTreeSet<u16>) -> Arc<[Endpoint]> {
        hosts.iter().map(|&port| Endpoint::new(std::net::SocketAddr::from(([127, 0, 0, 1], port)))).collect()
    }

    fn chosen(hosts: &BTreeSet<u16>, size: usize, seed: u64) -> BTreeSet<Address> {
        subset(&list(hosts), size, seed).iter().map(|endpoint| endpoint.addresses[0].clone()).collect()
    }

    proptest! {
        #[test]
        fn a68_an_endpoint_that_comes_or_goes_changes_at_most_one_entry(
            hosts in btree_set(any::<u16>(), 0..60),
            other: u16,
            size in 1..30_usize,
            seed: u64,
        ) {
            let without: BTreeSet<_> = hosts.iter().copied().filter(|&host| host != other).collect();
            let with: BTreeSet<_> = hosts.iter().copied().chain([other]).collect();
            let (before, after) = (chosen(&without, size, seed), chosen(&with, size, seed));
            prop_assert!(before.difference(&after).count() <= 1);
            prop_assert!(after.difference(&before).count() <= 1);
            prop_assert_eq!(after.len(), size.min(with.len()));
        }

        #[test]
        fn a68_it_is_those_of_the_smallest_hashes_in_their_order(
            hosts in btree_set(any::<u16>(), 0..60),
            size in 1..30_usize,
            seed: u64,
        ) {
            let hosts = list(&hosts);
            let mut sorted = hosts.to_vec();
            sorted.sort_by_key(|endpoint| xxh64(endpoint.to_string().as_bytes(), seed));
            sorted.truncate(size);
            let subset = subset(&hosts, size, seed);
            prop_assert!(hosts.len() <= size || *subset == *sorted);
        }
    }

    #[test]
    fn a68_clients_are_spread_evenly_over_servers() {
        let hosts = (1..=100).collect();
        let mut counts = std::collections::BTreeMap::<_, u32>::new();
        for seed in 0..2_000 {
            for address in chosen(&hosts, 20, seed) {
                *counts.entry(address).or_default() += 1;
            }
        }
        assert!(counts.len() == 100 && counts.values().all(|n| (310..490).contains(n)), "{counts:?}");
    }
}
