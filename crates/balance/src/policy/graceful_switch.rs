use super::{ConfiguredPolicy, Context, Event, Policies, Policy, Update};
use crate::{ConfigError, Connectivity, LbConfig, Time, time::earliest};

/// Runs one policy, and replaces it by another without a gap: the old one serves until the new one is ready.
///
/// The same kind of policy is reconfigured in place; another kind starts beside the old one and takes over as soon as
/// it is READY, or has anything to say while the old one is not READY either.
pub(crate) struct GracefulSwitch {
    current: Running,
    pending: Option<Running>,
}

struct Running {
    policy: Box<dyn ConfiguredPolicy>,
    /// What it last said.
    last: Option<Update>,
}

impl Running {
    fn new(policy: Box<dyn ConfiguredPolicy>) -> Self {
        Self { policy, last: None }
    }

    fn is_ready(&self) -> bool {
        self.last.as_ref().is_some_and(|update| update.connectivity == Connectivity::Ready)
    }
}

impl GracefulSwitch {
    pub(crate) fn new(policy: Box<dyn ConfiguredPolicy>) -> Self {
        Self { current: Running::new(policy), pending: None }
    }

    /// The name of the policy that will be serving once any switch is over.
    pub(crate) fn name(&self) -> &'static str {
        self.latest().policy.name()
    }

    /// Switches to `config`. Returns whether a new policy was started, which has heard nothing yet.
    pub(crate) fn configure(
        &mut self,
        config: &LbConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<bool, ConfigError> {
        let (name, value, at) = policies.first_known(config)?;
        if name == self.name() {
            let latest = self.pending.as_mut().unwrap_or(&mut self.current);
            latest.policy.reconfigure(value, policies).map_err(|error| error.under(&at))?;
            return Ok(false);
        }
        let replaced = self.pending.replace(Running::new(policies.build(config)?));
        if let Some(mut replaced) = replaced {
            replaced.policy.shutdown(ctx);
        }
        Ok(true)
    }

    /// Lets the new policy take over if it is time.
    fn settle(&mut self, ctx: &mut Context<'_>) -> bool {
        let Some(pending) = self.pending.as_ref().and_then(|running| running.last.as_ref()) else { return false };
        let takes_over = pending.connectivity == Connectivity::Ready || !self.current.is_ready();
        if !takes_over {
            return false;
        }
        if let Some(pending) = self.pending.take() {
            let mut replaced = std::mem::replace(&mut self.current, pending);
            replaced.policy.shutdown(ctx);
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

impl Policy for GracefulSwitch {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
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
    }
}
