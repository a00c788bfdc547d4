mod config;
mod stride;
mod weight;

use std::{sync::Arc, time::Duration};

use super::{
    Candidate, Choose, Context, Explanation, Petiole, Policies, PolicyFactory, slow_start::Ramp, turns::Turns,
};
use crate::{ConfigError, Endpoint, Measurement, Pick, PickArgs, Picker, Route, Value};

pub use config::WeightedRoundRobinConfig;
use stride::Strides;
use weight::Reading;
pub use weight::ReportedWeight;

/// `weighted_round_robin` (gRFC A58, A114, A78): ready endpoints take turns, in proportion to how many calls they bear by
/// their own account.
///
/// Servers report calls a second and utilization, with each response or out of band (A51); the weight is calls a second
/// per utilization. Endpoints without a usable weight count as the mean of those with one, and no weight counts as
/// more than ten times the mean or less than a tenth of it, as in C-core and Java: an endpoint that got no calls would
/// never report anything better.
///
/// Where fewer than two endpoints have a usable weight, A58 falls back to round robin. Here the weights that the
/// resolver gives ([`Endpoint::weight`]) count then. They are all 1 where it gives none, which is round robin.
#[derive(Clone, Copy, Debug)]
pub struct WeightedRoundRobin;

impl PolicyFactory for WeightedRoundRobin {
    const NAME: &'static str = "weighted_round_robin";
    const ALIASES: &'static [&'static str] = &["weighted_round_robin_experimental"];
    type Config = WeightedRoundRobinConfig;
    type Policy = Petiole<ByReport>;

    fn build(&self, config: WeightedRoundRobinConfig, _: &Policies) -> Result<Self::Policy, ConfigError> {
        Ok(Petiole::new(ByReport { config: Arc::new(config.checked()?), turns: None, applied: Applied::default() }))
    }

    fn reconfigure(
        &self,
        policy: &mut Self::Policy,
        config: WeightedRoundRobinConfig,
        _: &Policies,
        _: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        policy.chooser().config = Arc::new(config.checked()?);
        Ok(())
    }
}

/// How `weighted_round_robin` chooses.
#[derive(Debug)]
pub struct ByReport {
    config: Arc<WeightedRoundRobinConfig>,
    /// Outlives pickers: where few calls are made in an update period, turns must not begin anew in each.
    turns: Option<Arc<Turns>>,
    applied: Applied,
}

/// What the last picker was made of, for whoever asks.
#[derive(Debug, Default)]
struct Applied {
    endpoints: Vec<(Arc<Endpoint>, Reading)>,
    shares: Vec<f64>,
}

/// No weight counts as more than this many times the mean, or less than the mean divided by it.
const MAX_RATIO: f64 = 10.0;

impl ByReport {
    fn read(&self, ready: &[Candidate<ReportedWeight>], ctx: &Context<'_>) -> Vec<Reading> {
        let read = |candidate: &Candidate<ReportedWeight>| {
            let memory = candidate.memory.as_ref();
            memory.map_or(Reading::NotYet, |memory| memory.read(&self.config, candidate.since, ctx.now()))
        };
        ready.iter().map(read).collect()
    }
}

impl Choose for ByReport {
    type Memory = ReportedWeight;

    fn picker(&mut self, ready: Vec<Candidate<ReportedWeight>>, ctx: &mut Context<'_>) -> Arc<dyn Picker> {
        let readings = self.read(&ready, ctx);
        measure(&readings, ctx);
        let full = full_weights(&readings, &ready);
        let ramped = full.iter().zip(&ready).map(|(weight, candidate)| {
            weight * Ramp::new(self.config.slow_start, candidate.since, ctx.now()).share(ctx.now())
        });
        let strides = Strides::new(&ramped.collect::<Vec<_>>());
        let (routes, endpoints): (_, Vec<_>) =
            ready.into_iter().map(|candidate| (candidate.route, candidate.endpoint)).unzip();
        self.applied =
            Applied { endpoints: endpoints.into_iter().zip(readings).collect(), shares: strides.shares().collect() };
        let turns = self.turns.get_or_insert_with(|| Arc::new(Turns::new(ctx.entropy().next_u64())));
        Arc::new(Weighted { routes, strides, turns: Arc::clone(turns) })
    }

    fn refresh_after(&self) -> Option<Duration> {
        Some(self.config.weight_update_period)
    }

    fn report_interval(&self) -> Option<Duration> {
        self.config.enable_oob_load_report.then_some(self.config.oob_reporting_period)
    }

    fn remember(&mut self, _: &Endpoint) -> Option<Arc<ReportedWeight>> {
        Some(Arc::new(ReportedWeight::new(Arc::clone(&self.config))))
    }

    fn explain(&self) -> Explanation {
        const NAMED: usize = 20;
        let endpoints = &self.applied.endpoints;
        let usable = endpoints.iter().filter(|(_, reading)| reading.weight().is_some()).count();
        let basis = if usable < 2 { "the resolver's weights count" } else { "the reported weights count" };
        let summary = format!("{usable} of {} ready endpoints report usable weights: {basis}", endpoints.len());
        let each = endpoints.iter().zip(&self.applied.shares).take(NAMED).map(|((endpoint, reading), share)| {
            let weight = match reading {
                Reading::Weight(weight) => format!("weight {weight:.1}"),
                Reading::NotYet => "no usable weight yet".to_owned(),
                Reading::Stale => "no report for too long".to_owned(),
            };
            format!("{endpoint}: {:.1} % of calls; {weight}", share * 100.0)
        });
        each.fold(Explanation::default().note(summary), Explanation::note)
    }
}

/// The weights that count, before any slow start.
fn full_weights(readings: &[Reading], ready: &[Candidate<ReportedWeight>]) -> Vec<f64> {
    let usable: Vec<f64> = readings.iter().filter_map(|reading| reading.weight()).collect();
    if usable.len() < 2 {
        return ready.iter().map(|candidate| f64::from(candidate.endpoint.weight)).collect();
    }
    // Divided first, for weights whose sum is beyond all numbers.
    #[allow(clippy::cast_precision_loss, reason = "a number of endpoints")]
    let n = usable.len() as f64;
    let mean: f64 = usable.iter().map(|weight| weight / n).sum();
    let within = |weight: f64| weight.clamp(mean / MAX_RATIO, (mean * MAX_RATIO).min(f64::MAX));
    readings.iter().map(|reading| within(reading.weight().unwrap_or(mean))).collect()
}

fn measure(readings: &[Reading], ctx: &mut Context<'_>) {
    let mut add = |metric, value| ctx.measure(Measurement::new(metric, value));
    let count = |wanted: fn(&Reading) -> bool| readings.iter().filter(|reading| wanted(reading)).count() as u64;
    if count(|reading| matches!(reading, Reading::Weight(_))) < 2 {
        add("grpc.lb.wrr.rr_fallback", Value::Count(1));
    }
    for (metric, n) in [
        ("grpc.lb.wrr.endpoint_weight_not_yet_usable", count(|reading| *reading == Reading::NotYet)),
        ("grpc.lb.wrr.endpoint_weight_stale", count(|reading| *reading == Reading::Stale)),
    ] {
        if n > 0 {
            add(metric, Value::Count(n));
        }
    }
    for reading in readings {
        add("grpc.lb.wrr.endpoint_weights", Value::Sample(reading.weight().unwrap_or(0.0)));
    }
}

#[derive(Debug)]
struct Weighted {
    routes: Vec<Arc<Route>>,
    strides: Strides,
    turns: Arc<Turns>,
}

impl Picker for Weighted {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let turn = || self.routes.get(self.strides.pick(|| self.turns.next(args.lane)));
        // Where all are suspect, so many turns have been skipped that they would no longer be even.
        let lot = || self.routes.get(self.strides.draw(args.entropy));
        // The turn of one that is suspect is skipped rather than given to its neighbour: the others keep their shares.
        let turns = (0..self.routes.len()).filter_map(|_| turn());
        let route = turns.into_iter().find(|route| !route.load().is_suspect()).or_else(lot);
        route.map_or(Pick::Queue, |route| Pick::Call(route.call()))
    }
}
