use std::time::Duration;

use evenkeel_balance::Connectivity;

use super::super::{
    latency::Latency,
    record::{Face, History, Performed, Plan, Record},
    script::{Act, BACKENDS},
    summary::Healing,
};

/// Rates and percentiles in the view are over this long.
const RECENT: Duration = Duration::from_secs(1);

/// A run at one moment, as the view shows it: taken quickly, drawn at leisure.
#[derive(Debug)]
pub(super) struct Shot {
    pub(super) now: Duration,
    pub(super) plan: Plan,
    pub(super) calls: usize,
    pub(super) failed: usize,
    pub(super) acts: [ActShot; 3],
    /// By face, by backend.
    pub(super) backends: [[BackendShot; BACKENDS.len()]; 2],
}

#[derive(Debug)]
pub(super) struct ActShot {
    pub(super) act: Act,
    pub(super) performed: Performed,
    /// By face.
    pub(super) healings: [Healing; 2],
}

impl ActShot {
    /// Whether the backend is repaired and in use again wherever it was missed.
    pub(super) fn is_over(&self) -> bool {
        let healed = |healing: &Healing| healing.detect.is_none() || healing.back.is_some();
        self.performed.repair.is_some() && self.healings.iter().all(healed)
    }
}

#[derive(Debug)]
pub(super) struct BackendShot {
    pub(super) name: &'static str,
    pub(super) address: String,
    /// `None` until the channel has heard of it.
    pub(super) state: Option<Connectivity>,
    pub(super) reason: String,
    pub(super) calls_per_second: f64,
    pub(super) in_flight: u32,
    pub(super) latency: Latency,
    /// How many times it has left the rotation.
    pub(super) outages: usize,
    pub(super) history: History,
}

impl Shot {
    pub(super) fn take(record: &Record, now: Duration) -> Self {
        let backends = Face::ALL.map(|face| std::array::from_fn(|backend| backend_shot(record, now, face, backend)));
        let act = |i: usize| {
            let (act, performed) = (record.acts[i], record.performed[i]);
            let healings = Face::ALL.map(|face| Healing::of(record, face, act.backend, performed));
            ActShot { act, performed, healings }
        };
        Self {
            now,
            plan: record.plan.clone(),
            calls: record.calls.len(),
            failed: record.failed(),
            acts: std::array::from_fn(act),
            backends,
        }
    }
}

fn backend_shot(record: &Record, now: Duration, face: Face, backend: usize) -> BackendShot {
    let since = now.saturating_sub(RECENT);
    let recent = || record.calls_since(face, since).filter(move |call| call.outcome == Ok(backend));
    let seen = record.rotation(face).sight(backend);
    BackendShot {
        name: BACKENDS[backend],
        address: record.addresses[backend].to_string(),
        state: seen.map(|sight| sight.state),
        reason: seen.map_or_else(|| "not heard of yet".to_owned(), |sight| sight.reason.clone()),
        calls_per_second: rate(recent().count(), now.saturating_sub(since)),
        in_flight: seen.map_or(0, |sight| sight.load.in_flight()),
        latency: Latency::of(recent()),
        outages: record.rotation(face).outages(backend),
        history: *record.history(face, backend),
    }
}

/// Events a second; 0 where there was no time yet.
fn rate(count: usize, span: Duration) -> f64 {
    let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if span.is_zero() { 0.0 } else { count / span.as_secs_f64() }
}
