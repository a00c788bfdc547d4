use std::sync::Arc;

use serde::Deserialize;

use super::{Choose, Context, Petiole, Policies, PolicyFactory, petiole::Candidate};
use crate::{
    ConfigError, Pick, PickArgs, Picker, Route,
    entropy::{remix, scale},
};

/// `least_request` (gRFC A48): draws a few ready endpoints and takes the one with the fewest calls in flight.
#[derive(Clone, Copy, Debug)]
pub struct LeastRequest;

/// The config of `least_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LeastRequestConfig {
    /// How many endpoints are drawn, with replacement. Default 2; below 2 is refused, above 10 is taken as 10.
    #[serde(default = "two")]
    pub choice_count: u32,
}

fn two() -> u32 {
    2
}

impl LeastRequestConfig {
    fn chooser(self) -> Result<FewestInFlight, ConfigError> {
        if self.choice_count < 2 {
            return Err(ConfigError::new("choiceCount", format!("is {}, must be at least 2", self.choice_count)));
        }
        Ok(FewestInFlight { choices: self.choice_count.min(10) })
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
    choices: u32,
}

impl Choose for FewestInFlight {
    type Memory = ();

    fn picker(&mut self, ready: Vec<Candidate<()>>, _: &mut Context<'_>) -> Arc<dyn Picker> {
        let routes = ready.into_iter().map(|candidate| candidate.route).collect();
        Arc::new(Draw { choices: self.choices, routes })
    }
}

#[derive(Debug)]
struct Draw {
    choices: u32,
    routes: Vec<Arc<Route>>,
}

impl Picker for Draw {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let draws = std::iter::successors(Some(args.entropy), |&bits| Some(remix(bits))).take(self.choices as usize);
        let candidates = draws.filter_map(|bits| self.routes.get(scale(bits, self.routes.len())));
        // `min_by_key` keeps the first of equals, so that ties fall as evenly as the draws.
        let burden = |route: &&Arc<Route>| (route.load().is_suspect(), route.load().in_flight());
        let Some(route) = candidates.min_by_key(burden) else { return Pick::Queue };
        if !route.load().is_suspect() {
            return Pick::Call(route.call());
        }
        // Only suspects were drawn: any other is better.
        let other = self.routes.iter().min_by_key(burden);
        Pick::Call(other.unwrap_or(route).call())
    }
}
