use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::WeightedRoundRobinConfig;
use crate::{LoadReport, Observer, Outcome, Time};

/// The weight that an endpoint's load reports give it.
#[derive(Debug)]
pub struct ReportedWeight {
    /// Whether reports come with responses rather than out of band.
    per_call: AtomicBool,
    /// Held for a few instructions at the end of a call that brings a report, and at each update of the picker.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<WeightedRoundRobinConfig>,
    /// Since when the endpoint is ready.
    ready_since: Option<Time>,
    weight: f64,
    /// When the first report of use came, of those that followed one another.
    reporting_since: Option<Time>,
    /// When the last one came.
    updated_at: Option<Time>,
}

/// What a weight is worth at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reading {
    Weight(f64),
    /// No report has come, or they have not come for long enough.
    NotYet,
    /// The last report is too old.
    Stale,
}

impl Reading {
    pub(super) fn weight(self) -> Option<f64> {
        match self {
            Self::Weight(weight) => Some(weight),
            Self::NotYet | Self::Stale => None,
        }
    }
}

impl ReportedWeight {
    pub(super) fn new(config: Arc<WeightedRoundRobinConfig>) -> Self {
        let per_call = AtomicBool::new(!config.enable_oob_load_report);
        let state = State { config, ready_since: None, weight: 0.0, reporting_since: None, updated_at: None };
        Self { per_call, state: Mutex::new(state) }
    }

    /// The weight, under the present config, of an endpoint that became ready at `ready_since`.
    pub(super) fn read(&self, config: &Arc<WeightedRoundRobinConfig>, ready_since: Time, now: Time) -> Reading {
        self.per_call.store(!config.enable_oob_load_report, Relaxed);
        self.with(|state| {
            state.config = Arc::clone(config);
            if state.ready_since.replace(ready_since) != Some(ready_since) {
                state.reporting_since = None;
            }
            state.read(now)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // Nothing that is done under the lock can leave it half done.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn update(&mut self, report: &LoadReport, now: Time) {
        let Some(weight) = self.config.weight(report) else { return };
        self.weight = weight;
        self.reporting_since.get_or_insert(now);
        self.updated_at = Some(now);
    }

    fn read(&mut self, now: Time) -> Reading {
        let Some(updated_at) = self.updated_at else { return Reading::NotYet };
        if now.since(updated_at) >= self.config.weight_expiration_period {
            self.reporting_since = None;
            return Reading::Stale;
        }
        let blackout = self.config.blackout_period;
        let is_black = self.reporting_since.is_none_or(|since| now.since(since) < blackout);
        if is_black && !blackout.is_zero() { Reading::NotYet } else { Reading::Weight(self.weight) }
    }
}

impl Observer for ReportedWeight {
    fn finished(&self, outcome: &Outcome) {
        if let (Some(report), Some(at)) = (&outcome.report, outcome.at)
            && self.wants_reports()
        {
            self.with(|state| state.update(report, at));
        }
    }

    fn reported(&self, now: Time, report: &LoadReport) {
        if !self.wants_reports() {
            self.with(|state| state.update(report, now));
        }
    }

    fn wants_reports(&self) -> bool {
        self.per_call.load(Relaxed)
    }
}
