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
    fn of<T>(self, items: &[T], entropy: u64) -> impl Iterator<Item = &T> {
        let n = items.len();
        let draws = std::iter::successors(Some(entropy), |&bits| Some(remix(bits))).map(move |bits| scale(bits, n));
        let from = scale(entropy, n);
        let (draws, all) = match self {
            Self::Draws(count) => (Some(draws.take(count as usize)), None),
            Self::All => (None, Some((from..n).chain(0..from))),
        };
        draws.into_iter().flatten().chain(all.into_iter().flatten()).filter_map(|index| items.get(index))
    }
}

/// Endpoints of equal weight.
#[derive(Debug)]
struct Fewest {
    pool: Pool,
    routes: Vec<Arc<Route>>,
}

impl Picker for Fewest {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        // `min_by_key` keeps the first of equals, so that ties fall as evenly as the draws.
        let burden = |route: &&Arc<Route>| (route.load().is_suspect(), route.load().in_flight());
        let drawn = self.pool.of(&self.routes, args.entropy).min_by_key(burden);
        // Where only suspects were drawn, any other is better.
        let well = drawn.filter(|route| !route.load().is_suspect());
        let fewest = well.or_else(|| Pool::All.of(&self.routes, args.entropy).min_by_key(burden));
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

impl MostWeight {
    /// The best of some: one that is no suspect, and then the one of the greatest weight a call.
    fn best<'a>(&self, some: impl Iterator<Item = &'a Weighed>, now: Time) -> Option<&'a Arc<Route>> {
        let rank = |one: &Weighed| {
            let calls = f64::from(one.route.load().in_flight()) + 1.0;
            let weight = one.weight * one.ramp.share(now) / calls.powf(self.bias);
            (!one.route.load().is_suspect(), weight)
        };
        let ranked = some.map(|one| (rank(one), &one.route));
        // The first of equals, as above.
        let best = ranked.reduce(|best, other| if other.0 > best.0 { other } else { best });
        best.map(|(_, route)| route)
    }
}

impl Picker for MostWeight {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let drawn = self.best(self.pool.of(&self.endpoints, args.entropy), args.now);
        let well = drawn.filter(|route| !route.load().is_suspect());
        let best = well.or_else(|| self.best(Pool::All.of(&self.endpoints, args.entropy), args.now));
        best.map_or(Pick::Queue, |route| Pick::Call(route.call()))
    }
}
