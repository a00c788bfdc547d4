use std::sync::Arc;

use serde::Deserialize;

use super::{Candidate, Choose, Context, Explanation, Petiole, Policies, PolicyFactory, SlowStart, slow_start::Ramp};
use crate::{
    ConfigError, Pick, PickArgs, Picker, Route, Time,
    entropy::{remix, scale},
};

/// `least_request` (gRFC A48): draws a few ready endpoints and takes the one with the fewest calls in flight.
///
/// Where endpoints differ in weight, because the config says to heed the resolver's weights or has a slow start, it
/// takes the one of the greatest `weight / (calls in flight + 1)^activeRequestBias`, Envoy's formula. On an idle fleet
/// that is the heaviest of the draws.
#[derive(Clone, Copy, Debug)]
pub struct LeastRequest;

/// The config of `least_request`. All but `choiceCount` is ours.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LeastRequestConfig {
    /// How many endpoints are drawn, with replacement. Default 2; below 2 is refused, above 10 is taken as 10.
    #[serde(default = "two")]
    pub choice_count: u32,
    /// Whether all ready endpoints are compared in place of a few that are drawn. A pick then takes time in proportion
    /// to their number, and clients that cannot see each other's calls run after the same endpoint: for few endpoints
    /// and few clients. Default false.
    #[serde(default)]
    pub full_scan: bool,
    /// Heeds the resolver's weights ([`Endpoint::weight`](crate::Endpoint::weight)), against which calls in flight weigh
    /// the more the greater this is; 0 goes by weights alone. Default: weights are not heeded (A48), and a slow start
    /// takes 1.
    pub active_request_bias: Option<f64>,
    /// Whether endpoints that have just become ready start slowly. Default: they do not.
    pub slow_start: Option<SlowStart>,
}

fn two() -> u32 {
    2
}

impl LeastRequestConfig {
    fn chooser(self) -> Result<FewestInFlight, ConfigError> {
        if self.choice_count < 2 {
            return Err(ConfigError::new("choiceCount", format!("is {}, must be at least 2", self.choice_count)));
        }
        if self.active_request_bias.is_some_and(|bias| bias.is_nan() || bias < 0.0) {
            return Err(ConfigError::new("activeRequestBias", "must not be negative"));
        }
        SlowStart::check(self.slow_start)?;
        Ok(FewestInFlight { config: Self { choice_count: self.choice_count.min(10), ..self } })
    }
}

impl PolicyFactory for LeastRequest {
    const NAME: &'static str = "least_request";
    const ALIASES: &'static [&'static str] = &["least_request_experimental"];
    type Config = LeastRequestConfig;
    type Policy = Petiole<FewestInFlight>;

    fn build(&self, config: LeastRequestConfig, _: &Policies) -> Result<Self::Policy, ConfigError> {
        Ok(Petiole::new(config.chooser()?))
    }

    fn reconfigure(
        &self,
        policy: &mut Self::Policy,
        config: LeastRequestConfig,
        _: &Policies,
        _: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        policy.reconfigure(config.chooser()?);
        Ok(())
    }
}

/// How `least_request` chooses.
#[derive(Clone, Copy, Debug)]
pub struct FewestInFlight {
    config: LeastRequestConfig,
}

impl FewestInFlight {
    /// Endpoints with their weights, where they differ.
    fn weighed(&self, ready: &[Candidate<()>], now: Time) -> Option<Vec<Weighed>> {
        let bias = self.config.active_request_bias;
        let weights: Vec<_> = ready
            .iter()
            .map(|candidate| Weighed {
                route: Arc::clone(&candidate.route),
                weight: if bias.is_some() { f64::from(candidate.endpoint.weight) } else { 1.0 },
                ramp: Ramp::new(self.config.slow_start, candidate.since, now),
            })
            .collect();
        let is_level = weights.iter().all(|one| one.ramp.is_over() && one.weight.total_cmp(&weights[0].weight).is_eq());
        (!is_level).then_some(weights)
    }
}

impl Choose for FewestInFlight {
    type Memory = ();

    fn picker(&mut self, ready: Vec<Candidate<()>>, ctx: &mut Context<'_>) -> Arc<dyn Picker> {
        let LeastRequestConfig { choice_count, full_scan, active_request_bias, .. } = self.config;
        let pool = if full_scan { Pool::All } else { Pool::Draws(choice_count) };
        if let Some(endpoints) = self.weighed(&ready, ctx.now()) {
            return Arc::new(MostWeight { pool, endpoints, bias: active_request_bias.unwrap_or(1.0) });
        }
        Arc::new(Fewest { pool, routes: ready.into_iter().map(|candidate| candidate.route).collect() })
    }

    fn explain(&self) -> Explanation {
        let pool = if self.config.full_scan {
            "compares all ready endpoints".to_owned()
        } else {
            format!("compares {} endpoints that it draws", self.config.choice_count)
        };
        Explanation::default().note(pool)
    }
}

/// What a pick compares.
#[derive(Clone, Copy, Debug)]
enum Pool {
    /// So many draws, with replacement.
    Draws(u32),
    /// Everything, from a random place on, so that ties fall evenly.
    All,
}

impl Pool {
    /// The least of what is compared, by a key whose first part says whether it is suspect; of equals the first, so that
    /// ties fall as evenly as the draws. Where only suspects were drawn, any other is better.
    fn least<T, K: PartialOrd>(self, items: &[T], entropy: u64, key: impl Fn(&T) -> (bool, K)) -> Option<&T> {
        if let Self::Draws(count) = self {
            let draws = std::iter::successors(Some(entropy), |&bits| Some(remix(bits))).take(count as usize);
            let least = first_least(draws.filter_map(|bits| items.get(scale(bits, items.len()))), &key);
            if let Some(((false, _), item)) = least {
                return Some(item);
            }
        }
        let (before, from) = items.split_at(scale(entropy, items.len()));
        first_least(from.iter().chain(before), &key).map(|(_, item)| item)
    }
}

fn first_least<'a, T, K: PartialOrd>(items: impl Iterator<Item = &'a T>, key: impl Fn(&T) -> K) -> Option<(K, &'a T)> {
    items.map(|item| (key(item), item)).reduce(|least, other| if other.0 < least.0 { other } else { least })
}

/// Endpoints of equal weight.
#[derive(Debug)]
struct Fewest {
    pool: Pool,
    routes: Vec<Arc<Route>>,
}

impl Picker for Fewest {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let burden = |route: &Arc<Route>| (route.load().is_suspect(), route.load().in_flight());
        let fewest = self.pool.least(&self.routes, args.entropy, burden);
        fewest.map_or(Pick::Queue, |route| Pick::Call(route.call()))
    }
}

/// Endpoints of unequal weights.
#[derive(Debug)]
struct MostWeight {
    pool: Pool,
    endpoints: Vec<Weighed>,
    bias: f64,
}

#[derive(Debug)]
struct Weighed {
    route: Arc<Route>,
    weight: f64,
    ramp: Ramp,
}

impl Picker for MostWeight {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        // Of calls to weight, the least; that is the greatest of weight to calls.
        let burden = |one: &Weighed| {
            let calls = f64::from(one.route.load().in_flight()) + 1.0;
            // A power is most of a pick's time, and the usual one is none.
            let calls = if (self.bias - 1.0).abs() < f64::EPSILON { calls } else { calls.powf(self.bias) };
            (one.route.load().is_suspect(), calls / (one.weight * one.ramp.share(args.now)))
        };
        let least = self.pool.least(&self.endpoints, args.entropy, burden);
        least.map_or(Pick::Queue, |one| Pick::Call(one.route.call()))
    }
}
