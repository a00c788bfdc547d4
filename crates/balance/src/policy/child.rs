use std::{fmt, sync::Arc};

use super::{ConfiguredPolicy, Context, Event, Explanation, Policies, Policy, Update};
use crate::{ConfigError, Connectivity, Endpoint, LbConfig, Status, Time, time::earliest};

/// A policy under another one, or under the channel: built from a config, and reconfigured while it runs.
///
/// The same kind of policy takes its new config in place. Another kind starts beside the old one, hears what the
/// resolver said last, and takes over as soon as it is READY or IDLE, or has anything to say while the old one is not
/// READY either: a graceful switch, without a gap.
pub struct Child {
    current: Running,
    pending: Option<Running>,
    resolution: Option<Resolution>,
}

struct Running {
    policy: Box<dyn ConfiguredPolicy>,
    /// What it last said.
    last: Option<Update>,
}

/// What the resolver said last, for policies that start later than that.
#[derive(Clone, Debug)]
pub(super) enum Resolution {
    Endpoints(Arc<[Endpoint]>),
    Failed(Status),
}

impl Resolution {
    /// What `event` says of the resolver, if anything.
    pub(super) fn of(event: Event<'_>) -> Option<Self> {
        match event {
            Event::Resolved(endpoints) => Some(Self::Endpoints(Arc::clone(endpoints))),
            Event::ResolutionFailed(status) => Some(Self::Failed(status.clone())),
            _ => None,
        }
    }

    pub(super) fn event(&self) -> Event<'_> {
        match self {
            Self::Endpoints(endpoints) => Event::Resolved(endpoints),
            Self::Failed(status) => Event::ResolutionFailed(status),
        }
    }
}

impl Child {
    /// A child of the first kind in `config` that is known (gRFC A24).
    ///
    /// # Errors
    ///
    /// As for [`Policies::build`].
    pub fn new(config: &LbConfig, policies: &Policies) -> Result<Self, ConfigError> {
        Ok(Self { current: Running::new(policies.build(config)?), pending: None, resolution: None })
    }

    /// The name of the kind that will be serving once any switch is over.
    pub fn name(&self) -> &'static str {
        self.latest().policy.name()
    }

    /// Its state as last published; CONNECTING before that.
    pub fn connectivity(&self) -> Connectivity {
        self.last().map_or(Connectivity::Connecting, |update| update.connectivity)
    }

    /// What it last published.
    pub fn last(&self) -> Option<&Update> {
        self.current.last.as_ref()
    }

    /// Switches to `config`.
    ///
    /// # Errors
    ///
    /// As for [`Policies::build`]; the child is then unchanged.
    pub fn configure(
        &mut self,
        config: &LbConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        let (name, value, at) = policies.first_known(config)?;
        if name == self.name() {
            let latest = self.pending.as_mut().unwrap_or(&mut self.current);
            let policies = policies.deeper(&at)?;
            return latest.policy.reconfigure(value, &policies, ctx).map_err(|error| error.under(&at));
        }
        let mut started = Running::new(policies.build(config)?);
        if let Some(resolution) = &self.resolution {
            started.policy.handle(resolution.event(), ctx);
        }
        if let Some(mut replaced) = self.pending.replace(started) {
            replaced.policy.shutdown(ctx);
        }
        Ok(())
    }

    /// Whether it has anything new to say. A child that is IDLE is woken: for parents of several, under which a call
    /// that is placed elsewhere would not do so.
    pub(super) fn poll_awake(&mut self, ctx: &mut Context<'_>) -> bool {
        let spoke = self.poll_update(ctx).is_some();
        if self.connectivity() != Connectivity::Idle {
            return spoke;
        }
        self.handle(Event::ExitIdle, ctx);
        self.poll_update(ctx).is_some() || spoke
    }

    /// Lets the new policy take over if it is time.
    fn settle(&mut self, ctx: &mut Context<'_>) -> bool {
        let Some(pending) = self.pending.as_ref().and_then(|running| running.last.as_ref()) else { return false };
        // IDLE is as good as READY: it waits for calls, and never becomes READY without one.
        let serves = matches!(pending.connectivity, Connectivity::Ready | Connectivity::Idle);
        let takes_over = serves || !self.current.is_ready();
        if !takes_over {
            return false;
        }
        if let Some(pending) = self.pending.take() {
            let mut replaced = std::mem::replace(&mut self.current, pending);
            replaced.policy.shutdown(ctx);
            ctx.note(format!("policy {} takes over from {}", self.current.policy.name(), replaced.policy.name()));
        }
        true
    }

    fn latest(&self) -> &Running {
        self.pending.as_ref().unwrap_or(&self.current)
    }

    fn running(&mut self) -> impl Iterator<Item = &mut Running> {
        std::iter::once(&mut self.current).chain(&mut self.pending)
    }
}

impl Policy for Child {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        self.resolution = Resolution::of(event).or(self.resolution.take());
        for running in self.running() {
            running.policy.handle(event, ctx);
        }
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        let mut changed = false;
        if let Some(update) = self.current.policy.poll_update(ctx) {
            self.current.last = Some(update);
            changed = true;
        }
        if let Some(pending) = &mut self.pending
            && let Some(update) = pending.policy.poll_update(ctx)
        {
            pending.last = Some(update);
        }
        changed |= self.settle(ctx);
        changed.then(|| self.current.last.clone()).flatten()
    }

    fn next_timeout(&self) -> Option<Time> {
        let pending = self.pending.as_ref().and_then(|running| running.policy.next_timeout());
        earliest(self.current.policy.next_timeout(), pending)
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        for running in self.running() {
            running.policy.shutdown(ctx);
        }
        self.resolution = None;
    }

    fn explain(&self) -> Explanation {
        let explanation = self.current.explain();
        match &self.pending {
            Some(pending) => explanation.child("about to take over", pending.explain()),
            None => explanation,
        }
    }
}

impl Running {
    fn new(policy: Box<dyn ConfiguredPolicy>) -> Self {
        Self { policy, last: None }
    }

    fn is_ready(&self) -> bool {
        self.last.as_ref().is_some_and(|update| update.connectivity == Connectivity::Ready)
    }

    fn explain(&self) -> Explanation {
        let connectivity = self.last.as_ref().map(|update| update.connectivity);
        Explanation { policy: self.policy.name().to_owned(), connectivity, ..self.policy.explain() }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("policy", &self.name()).field("last", &self.last()).finish_non_exhaustive()
    }
}
