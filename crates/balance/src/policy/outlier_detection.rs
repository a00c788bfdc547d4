mod config;
mod host;
mod tally;

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Child, Context, Event, Explanation, Policies, Policy, PolicyFactory, Update, leaves::identity};
use crate::{Address, ConfigError, Endpoint, Load, Measurement, Time, Value, time::earliest};

pub use config::{FailurePercentageEjection, OutlierDetectionConfig, SmallFleetEjection, SuccessRateEjection};
use host::Host;
use tally::Tally;

/// `outlier_detection` (gRFC A50): takes endpoints out whose calls fail more than other endpoints' do, for a while.
///
/// Every `interval` it looks at how the calls of each endpoint went since the last time; an endpoint's addresses count
/// together and go together (A61). Endpoints are taken out with [`Context::eject`], so their connections stay, petiole
/// policies below pass them over, and reports say why; a `pick_first` that is not under a petiole takes no notice.
///
/// Where implementations differ it does as grpc-go does: outliers that stay because of `maxEjectionPercent` are counted,
/// and `maxEjectionPercent` 0 ejects nothing. Of several outliers the worst goes first; A50 leaves the order open. An
/// ejection ends with the first sweep at which its time is up, to the instant.
///
/// Calls of an address that several policies of the tree use count for each of them. Put
/// [`panic_threshold`](super::PanicThreshold) around it where `maxEjectionPercent` is high.
#[derive(Clone, Copy, Debug)]
pub struct OutlierDetection;

impl PolicyFactory for OutlierDetection {
    const NAME: &'static str = "outlier_detection";
    const ALIASES: &'static [&'static str] = &["outlier_detection_experimental"];
    type Config = OutlierDetectionConfig;
    type Policy = Detector;

    fn build(&self, config: OutlierDetectionConfig, policies: &Policies) -> Result<Detector, ConfigError> {
        let config = config.checked()?;
        let child = Child::new(&config.child_policy, policies).map_err(|error| error.under(CHILD))?;
        Ok(Detector { config, child, hosts: BTreeMap::new(), tallies: BTreeMap::new(), swept_at: None, sweep_at: None })
    }

    fn reconfigure(
        &self,
        policy: &mut Detector,
        config: OutlierDetectionConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        let config = config.checked()?;
        policy.child.configure(&config.child_policy, policies, ctx).map_err(|error| error.under(CHILD))?;
        policy.config = config;
        policy.schedule(ctx);
        Ok(())
    }
}

const CHILD: &str = "childPolicy";

/// `outlier_detection`, live.
#[derive(Debug)]
pub struct Detector {
    config: OutlierDetectionConfig,
    child: Child,
    /// Endpoints by their addresses.
    hosts: BTreeMap<Vec<Address>, Host>,
    /// The calls of each of those addresses.
    tallies: BTreeMap<Address, Tally>,
    /// When the present interval began; `None` while there is nothing to detect.
    swept_at: Option<Time>,
    /// When it ends.
    sweep_at: Option<Time>,
}

/// Which rule found an outlier, as A91 has it for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    SuccessRate,
    FailurePercentage,
    SmallFleet,
}

/// An endpoint that a rule would have out.
#[derive(Debug)]
struct Outlier {
    addresses: Vec<Address>,
    success_rate: f64,
    why: String,
}

impl Detector {
    /// Takes note of which endpoints there are; one that is gone is no longer ejected.
    fn list(&mut self, endpoints: &[Endpoint], ctx: &mut Context<'_>) {
        let mut known = std::mem::take(&mut self.hosts);
        let mut tallies = std::mem::take(&mut self.tallies);
        for addresses in endpoints.iter().map(identity) {
            for address in &addresses {
                let tally = tallies.remove(address).or_else(|| self.tallies.remove(address));
                self.tallies.insert(address.clone(), tally.unwrap_or_else(|| Tally::new(load(address, ctx))));
            }
            let host = known.remove(&addresses).or_else(|| self.hosts.remove(&addresses));
            self.hosts.insert(addresses, host.unwrap_or_default());
        }
        for (addresses, mut gone) in known {
            gone.restore(&addresses, ctx);
        }
    }

    /// Starts, moves or stops the sweeps, as the config has it.
    fn schedule(&mut self, ctx: &mut Context<'_>) {
        if !self.config.detects() {
            self.swept_at = None;
            self.sweep_at = None;
            for (addresses, host) in &mut self.hosts {
                host.restore(addresses, ctx);
                host.multiplier = 0;
            }
            return;
        }
        if self.swept_at.is_none() {
            self.swept_at = Some(ctx.now());
            self.count();
        }
        self.sweep_at = self.swept_at.map(|began| ctx.now().max(began + self.config.interval));
    }

    /// Ends an interval: what finished in it is each host's `recent` from now on.
    fn count(&mut self) {
        let calls: BTreeMap<_, _> = self.tallies.iter_mut().map(|(address, tally)| (address, tally.take())).collect();
        for (addresses, host) in &mut self.hosts {
            host.recent = addresses.iter().filter_map(|address| calls.get(address).copied()).sum();
        }
    }

    fn sweep(&mut self, ctx: &mut Context<'_>) {
        self.swept_at = Some(ctx.now());
        self.sweep_at = Some(ctx.now() + self.config.interval);
        self.count();
        if let Some(rule) = self.config.success_rate_ejection {
            self.enforce(Rule::SuccessRate, self.below_mean(&rule), rule.enforcement_percentage, ctx);
        }
        if let Some(rule) = self.config.failure_percentage_ejection {
            self.enforce(Rule::FailurePercentage, self.failing(&rule), rule.enforcement_percentage, ctx);
        }
        if let Some(rule) = self.config.small_fleet_ejection {
            self.enforce(Rule::SmallFleet, self.behind_the_others(&rule), rule.enforcement_percentage, ctx);
        }
        self.let_return(ctx);
    }

    /// The endpoints with enough calls to judge, and their success rates.
    fn judged(&self, volume: u32) -> Vec<(&Vec<Address>, &Host, f64)> {
        let hosts = self.hosts.iter().filter(|(_, host)| host.recent.total() >= u64::from(volume.max(1)));
        hosts.map(|(addresses, host)| (addresses, host, host.recent.success_rate())).collect()
    }

    fn below_mean(&self, rule: &SuccessRateEjection) -> Vec<Outlier> {
        let judged = self.judged(rule.request_volume);
        if judged.is_empty() || judged.len() < rule.minimum_hosts as usize {
            return Vec::new();
        }
        let mean = mean(judged.iter().map(|(_, _, rate)| *rate));
        let variance = self::mean(judged.iter().map(|(_, _, rate)| (rate - mean).powi(2)));
        let required = mean - variance.sqrt() * f64::from(rule.stdev_factor) / 1_000.0;
        let bar = mean - f64::from(rule.minimum_gap) / 100.0;
        let outliers = judged.into_iter().filter(|(_, _, rate)| *rate < required && *rate <= bar);
        let why = |host: &Host| {
            format!("{}; the mean is {}, the least accepted {}", host.recent, Percent(mean), Percent(required.min(bar)))
        };
        outliers.map(|(addresses, host, rate)| Outlier::new(addresses, rate, why(host))).collect()
    }

    fn failing(&self, rule: &FailurePercentageEjection) -> Vec<Outlier> {
        let judged = self.judged(rule.request_volume);
        if judged.len() < rule.minimum_hosts as usize {
            return Vec::new();
        }
        let threshold = u64::from(rule.threshold);
        let outliers = judged.into_iter().filter(|(_, host, _)| host.recent.fails_more_than(threshold));
        let why = |host: &Host| format!("{}; more than {threshold} % fail", host.recent);
        outliers.map(|(addresses, host, rate)| Outlier::new(addresses, rate, why(host))).collect()
    }

    fn behind_the_others(&self, rule: &SmallFleetEjection) -> Vec<Outlier> {
        let judged = self.judged(rule.request_volume);
        if !(2..=4).contains(&judged.len()) {
            return Vec::new();
        }
        let gap = f64::from(rule.minimum_gap) / 100.0;
        let outliers = judged.iter().enumerate().filter_map(|(i, (addresses, host, rate))| {
            let others = judged.iter().enumerate().filter(|(j, _)| i != *j);
            let mean = mean(others.map(|(_, (_, _, rate))| *rate));
            let why = format!("{}; the mean of the others is {}", host.recent, Percent(mean));
            (rate + gap <= mean).then(|| Outlier::new(addresses, *rate, why))
        });
        outliers.collect()
    }

    /// Ejects outliers, the worst first, as far as the config lets it.
    fn enforce(&mut self, rule: Rule, mut outliers: Vec<Outlier>, chance: u32, ctx: &mut Context<'_>) {
        outliers.sort_by(|a, b| a.success_rate.total_cmp(&b.success_rate));
        for outlier in outliers {
            let most = self.hosts.len() * self.config.max_ejection_percent as usize;
            if self.ejected().count() * 100 >= most {
                ctx.measure(rule.unenforced("max_ejection_overflow"));
            } else if ctx.entropy().below(100) >= chance as usize {
                ctx.measure(rule.unenforced("enforcement_percentage"));
            } else if let Some(host) = self.hosts.get_mut(&outlier.addresses) {
                host.eject(&outlier, &self.config, ctx);
                ctx.measure(rule.enforced());
            }
        }
    }

    /// Endpoints that were out for long enough return; those that behave are forgiven by and by.
    fn let_return(&mut self, ctx: &mut Context<'_>) {
        for (addresses, host) in &mut self.hosts {
            match &host.ejection {
                None => host.multiplier = host.multiplier.saturating_sub(1),
                Some(ejection) if ejection.at + self.config.ejection_time(host.multiplier) <= ctx.now() => {
                    ctx.note(format!("outlier detection: {} returns", listed(addresses)));
                    host.restore(addresses, ctx);
                }
                Some(_) => {}
            }
        }
    }

    fn ejected(&self) -> impl Iterator<Item = (&Vec<Address>, &host::Ejection)> {
        self.hosts.iter().filter_map(|(addresses, host)| Some((addresses, host.ejection.as_ref()?)))
    }
}

impl Policy for Detector {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        match event {
            Event::Resolved(endpoints) => {
                self.list(endpoints, ctx);
                self.schedule(ctx);
            }
            Event::Subchannel(id) => {
                if let Some(tally) = ctx.address(id).and_then(|address| self.tallies.get_mut(address)) {
                    tally.follow(ctx.load(id));
                }
            }
            Event::Timeout if self.sweep_at.is_some_and(|at| at <= ctx.now()) => self.sweep(ctx),
            _ => {}
        }
        self.child.handle(event, ctx);
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        self.child.poll_update(ctx)
    }

    fn next_timeout(&self) -> Option<Time> {
        let sweep_at = self.sweep_at.filter(|_| !self.hosts.is_empty());
        earliest(sweep_at, self.child.next_timeout())
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        for (addresses, mut host) in std::mem::take(&mut self.hosts) {
            host.restore(&addresses, ctx);
        }
        self.child.shutdown(ctx);
    }

    fn explain(&self) -> Explanation {
        let (out, all, most) = (self.ejected().count(), self.hosts.len(), self.config.max_ejection_percent);
        let mut explanation = Explanation::default();
        if self.config.detects() {
            explanation = explanation.note(format!("{out} of {all} endpoints are ejected; the most is {most} %"));
        } else {
            explanation = explanation.note("no rule is set: nothing is ever ejected");
        }
        for (addresses, ejection) in self.ejected() {
            explanation = explanation.note(format!("{}: {}", listed(addresses), ejection.why));
        }
        explanation.child(CHILD, self.child.explain())
    }
}

impl Outlier {
    fn new(addresses: &[Address], success_rate: f64, why: String) -> Self {
        Self { addresses: addresses.to_vec(), success_rate, why }
    }
}

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::SmallFleet => "small_fleet",
        }
    }

    fn enforced(self) -> Measurement {
        let labels = vec![("grpc.lb.outlier_detection.detection_method", self.name().to_owned())];
        Measurement { metric: "grpc.lb.outlier_detection.ejections_enforced", value: Value::Count(1), labels }
    }

    fn unenforced(self, reason: &str) -> Measurement {
        let labels = vec![
            ("grpc.lb.outlier_detection.detection_method", self.name().to_owned()),
            ("grpc.lb.outlier_detection.unenforced_reason", reason.to_owned()),
        ];
        Measurement { metric: "grpc.lb.outlier_detection.ejections_unenforced", value: Value::Count(1), labels }
    }
}

/// A share, as a percentage.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.0 * 100.0)
    }
}

/// The mean of `values`; NaN of none.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    sum / n
}

fn load(address: &Address, ctx: &Context<'_>) -> Arc<Load> {
    ctx.find(address).map(|id| ctx.load(id)).unwrap_or_default()
}

fn listed(addresses: &[Address]) -> String {
    addresses.iter().map(Address::to_string).collect::<Vec<_>>().join("|")
}
