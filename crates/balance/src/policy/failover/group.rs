use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    config::FailoverConfig,
    shares::{Offer, capacity},
};
use crate::{
    Address, Connectivity, Endpoint, Time,
    policy::{Child, Context, Event, Explanation, Policy, leaves::identity},
    time::earliest,
};

/// In how many steps the share of a group grows that calls return to.
const STEPS: u32 = 20;

/// The endpoints of one rank.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) members: BTreeMap<Vec<Address>, Standing>,
    /// What places its calls; `None` while it is not connected.
    pub(super) child: Option<Child>,
    pub(super) phase: Phase,
    pub(super) count: Count,
    /// Its part of all calls.
    pub(super) share: u32,
    /// Since when the groups before it have needed no help.
    pub(super) spare_since: Option<Time>,
}

/// What is held against an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody has tried it since it was last well, if ever.
    #[default]
    Untried,
    /// It is being connected, or has yet to report its health, and until this moment that is not held against it.
    Awaited {
        until: Time,
    },
    Well,
    Out,
}

/// ```text
///            all endpoints out                an endpoint is well
///   Serving ──────────────────► Out ─────────────────────────────► Held
///      ▲                         ▲                                  │ failbackDelay is over
///      │ failbackRamp is over    │ all endpoints out                ▼
///      └─────────────────────────┴─────────────────────────────── Easing
/// ```
///
/// Held and easing groups serve at once where the others cannot take all calls, or where those before it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    Out,
    Held { since: Time },
    Easing { since: Time },
}

/// A step of a group's phase that an operator hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    IsHeld,
    BeginsToEase,
    ServesWhole,
    ServesEarly,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) total: usize,
    /// Endpoints that are ready, by themselves.
    pub(super) well: usize,
    /// Those, and those that nothing is held against yet.
    pub(super) not_out: usize,
    /// Endpoints that take calls, be it because somebody trusts them.
    pub(super) usable: usize,
}

impl Standing {
    fn next(self, addresses: &[Address], timeout: Duration, ctx: &Context<'_>) -> Self {
        let known = || addresses.iter().filter_map(|address| ctx.untrusted(ctx.find(address)?));
        let connectivity = match known().next() {
            Some(_) => Connectivity::aggregate(known().map(|(state, _)| state)),
            None => Connectivity::Idle,
        };
        match (connectivity, self) {
            (Connectivity::Ready, _) => Self::Well,
            (Connectivity::TransientFailure, _) => Self::Out,
            (Connectivity::Connecting, _) if known().any(|(_, stalled)| stalled) => Self::Out,
            (Connectivity::Connecting, Self::Well | Self::Untried) => Self::Awaited { until: ctx.now() + timeout },
            (_, Self::Awaited { until }) if until <= ctx.now() => Self::Out,
            (Connectivity::Idle, Self::Well) => Self::Untried,
            (Connectivity::Connecting | Connectivity::Idle, before) => before,
        }
    }
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            endpoints: Arc::default(),
            members: BTreeMap::new(),
            child: None,
            phase: Phase::Serving,
            count: Count::default(),
            share: 0,
            spare_since: None,
        }
    }

    /// Takes in another list; of endpoints that are in `known`, what is known stays so.
    pub(super) fn list(
        &mut self,
        endpoints: Arc<[Endpoint]>,
        known: &BTreeMap<Vec<Address>, Standing>,
        ctx: &mut Context<'_>,
    ) {
        let standing = |addresses: &Vec<Address>| known.get(addresses).copied().unwrap_or_default();
        let named = endpoints.iter().map(identity).map(|addresses| (standing(&addresses), addresses));
        self.members = named.map(|(standing, addresses)| (addresses, standing)).collect();
        self.endpoints = endpoints;
        if let Some(child) = &mut self.child {
            child.handle(Event::Resolved(&self.endpoints), ctx);
        }
    }

    /// Connects it.
    pub(super) fn start(&mut self, mut child: Child, ctx: &mut Context<'_>) {
        child.handle(Event::Resolved(&self.endpoints), ctx);
        child.poll_awake(ctx);
        self.child = Some(child);
    }

    /// Ends it, or disconnects it until it is needed again.
    pub(super) fn stop(&mut self, ctx: &mut Context<'_>) {
        if let Some(mut child) = self.child.take() {
            child.shutdown(ctx);
        }
        self.members.values_mut().for_each(|standing| *standing = Standing::Untried);
        self.count = Count { total: self.count.total, not_out: self.count.total, ..Count::default() };
        self.phase = Phase::Serving;
        self.spare_since = None;
    }

    /// Looks at each endpoint anew.
    pub(super) fn count(&mut self, timeout: Duration, ctx: &Context<'_>) {
        let mut count = Count { total: self.members.len(), ..Count::default() };
        for (addresses, standing) in &mut self.members {
            // A group that has not been connected is not judged by what other policies have seen of it, or it would never be.
            if self.child.is_some() {
                *standing = standing.next(addresses, timeout, ctx);
            }
            count.well += usize::from(*standing == Standing::Well);
            count.not_out += usize::from(*standing != Standing::Out);
            let mut ids = addresses.iter().filter_map(|address| ctx.find(address));
            count.usable += usize::from(ids.any(|id| ctx.is_ready(id)));
        }
        if self.is(Connectivity::TransientFailure) {
            // It has not tried all of them, and will not.
            (count.well, count.not_out) = (0, 0);
        }
        self.count = count;
    }

    /// Moves on to the phase that is due. `is_needed`: the groups before it cannot take all calls.
    pub(super) fn turn(&mut self, is_needed: bool, config: &FailoverConfig, now: Time) -> Option<Turn> {
        let (phase, turn) = match self.phase {
            Phase::Serving if self.count.not_out > 0 => return None,
            Phase::Serving | Phase::Held { .. } | Phase::Easing { .. } if self.count.not_out == 0 => (Phase::Out, None),
            Phase::Out if self.count.well == 0 => return None,
            _ if !is_needed => (Phase::Serving, None),
            Phase::Out if !config.failback_delay.is_zero() => (Phase::Held { since: now }, Some(Turn::IsHeld)),
            Phase::Held { since } if now < since + config.failback_delay => return None,
            Phase::Out | Phase::Held { .. } if !config.failback_ramp.is_zero() => {
                (Phase::Easing { since: now }, Some(Turn::BeginsToEase))
            }
            Phase::Easing { since } if now < since + step(config.failback_ramp) * STEPS => return None,
            _ => (Phase::Serving, Some(Turn::ServesWhole)),
        };
        self.phase = phase;
        turn
    }

    /// Serves at once, since the others cannot take all calls.
    pub(super) fn release(&mut self) -> Turn {
        self.phase = Phase::Serving;
        Turn::ServesEarly
    }

    pub(super) fn offer(&self, config: &FailoverConfig, now: Time) -> Offer {
        let able = capacity(self.count.not_out, self.count.total, config.overprovisioning_factor);
        let eased = match self.phase {
            Phase::Serving => able,
            Phase::Out | Phase::Held { .. } => 0,
            Phase::Easing { since } => {
                let steps = (steps(config.failback_ramp, now.since(since)) + 1).min(STEPS);
                u32::try_from(u64::from(able) * u64::from(steps) / u64::from(STEPS)).unwrap_or(able)
            }
        };
        Offer { able, eased }
    }

    /// When something changes by itself.
    pub(super) fn next_turn(&self, config: &FailoverConfig, now: Time) -> Option<Time> {
        let awaited = self.members.values().filter_map(|standing| match standing {
            Standing::Awaited { until } => Some(*until),
            _ => None,
        });
        let phase = match self.phase {
            Phase::Serving | Phase::Out => None,
            Phase::Held { since } => Some(since + config.failback_delay),
            Phase::Easing { since } => {
                let ramp = config.failback_ramp;
                Some(since + step(ramp) * (steps(ramp, now.since(since)) + 1))
            }
        };
        earliest(awaited.min(), phase)
    }

    pub(super) fn is(&self, connectivity: Connectivity) -> bool {
        self.child.as_ref().is_some_and(|child| child.connectivity() == connectivity)
    }

    /// What is wrong with the first of its endpoints that is out, if any is.
    pub(super) fn ailment(&self, ctx: &Context<'_>) -> Option<String> {
        let (addresses, _) = self.members.iter().find(|(_, standing)| **standing == Standing::Out)?;
        let address = addresses.first()?;
        let state = ctx.state(ctx.find(address)?)?;
        Some(format!("{address}: {}", state.reason))
    }

    /// How it is and what it gets, in words.
    pub(super) fn describe(&self) -> String {
        let Count { well, total, .. } = self.count;
        format!("{well} of {total} endpoints ready, takes {} % of calls", percent(self.share))
    }

    pub(super) fn explain(&self, config: &FailoverConfig) -> Explanation {
        let told = match &self.child {
            Some(child) => child.explain().note(self.describe()),
            None => Explanation::default().note(format!("not connected: {}", self.describe())),
        };
        match self.phase {
            Phase::Serving | Phase::Out => told,
            Phase::Held { since } => {
                told.note(format!("held back until {}, unless it is needed", since + config.failback_delay))
            }
            Phase::Easing { since } => {
                told.note(format!("calls return to it until {}", since + step(config.failback_ramp) * STEPS))
            }
        }
    }
}

/// A share in percent, rounded.
pub(super) fn percent(share: u32) -> u32 {
    (share + 5_000) / 10_000
}

/// The time of one step of a ramp.
fn step(ramp: Duration) -> Duration {
    (ramp / STEPS).max(Duration::from_nanos(1))
}

/// How many steps of a ramp are over.
fn steps(ramp: Duration, elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_nanos() / step(ramp).as_nanos()).unwrap_or(u32::MAX).min(STEPS)
}
