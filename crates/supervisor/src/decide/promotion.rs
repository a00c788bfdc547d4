use evenkeel_balance::Time;

use super::{
    Level,
    action::Outbox,
    replica::{Replica, Role},
    service::ServiceState,
};

/// How long no primary of a service has served.
///
/// A standby gets calls at once when no primary serves, by its lower rank. If that lasts, it takes a primary's place for
/// good: a primary that comes back must not pull the calls to itself just to lose them again.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Time>,
}

impl Outage {
    pub(super) fn next_timeout(&self, service: &ServiceState) -> Option<Time> {
        let is_standby_serving = service.in_role(Role::Standby).any(Replica::is_serving);
        self.since.filter(|_| is_standby_serving).map(|since| since + service.settings.promote_after)
    }
}

impl ServiceState {
    /// Swaps standbys that serve with primaries that do not, once no primary has served for `promote_after`.
    pub(super) fn step_promotion(&mut self, now: Time, out: &mut Outbox) {
        let is_served = self.in_role(Role::Primary).any(Replica::is_serving);
        // Primaries that take their first steps are no outage.
        let is_new = self.in_role(Role::Primary).any(Replica::is_new);
        self.outage.since = (!is_served && !is_new).then(|| self.outage.since.unwrap_or(now));
        if self.outage.next_timeout(self).is_none_or(|at| at > now) {
            return;
        }
        let standbys = self.numbers(|replica| replica.role == Role::Standby && replica.is_serving());
        let primaries = self.numbers(|replica| replica.role == Role::Primary);
        for (standby, primary) in standbys.into_iter().zip(primaries) {
            self.swap(standby, primary, out);
        }
        self.outage.since = None;
    }

    pub(super) fn in_role(&self, role: Role) -> impl Iterator<Item = &Replica> {
        self.replicas.values().filter(move |replica| replica.role == role)
    }

    fn numbers(&self, which: impl Fn(&Replica) -> bool) -> Vec<u32> {
        self.replicas.iter().filter(|(_, replica)| which(replica)).map(|(number, _)| *number).collect()
    }

    fn swap(&mut self, standby: u32, primary: u32, out: &mut Outbox) {
        let Some(demoted) = self.replicas.get_mut(&primary) else { return };
        demoted.role = Role::Standby;
        let (name, state, why) = (demoted.name.clone(), demoted.state().name(), demoted.why().to_owned());
        let Some(promoted) = self.replicas.get_mut(&standby) else { return };
        promoted.role = Role::Primary;
        let text = format!(
            "promoted to primary: no primary has served for {:?}; {name} ({state}: {why}) is a standby now",
            self.settings.promote_after
        );
        out.note(Level::Warn, &promoted.name, text);
    }
}
