use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use evenkeel_balance::Time;
use evenkeel_config::Service;

use super::{
    Action, Level, Published, ReplicaName,
    action::Outbox,
    name::Runs,
    promotion::Outage,
    replica::{Replica, Role},
    roll::Roll,
    state::State,
};
use crate::process::Exit;

/// A service and its replicas, in the order of their numbers.
#[derive(Debug)]
pub(super) struct ServiceState {
    pub(super) name: Arc<str>,
    /// What the file says now; a replica goes by what it said when it was last started.
    pub(super) settings: Arc<Service>,
    pub(super) replicas: BTreeMap<u32, Replica>,
    /// Replicas that are forgotten once they have stopped.
    leaving: BTreeSet<u32>,
    /// Whether the file names it no more.
    pub(super) is_retired: bool,
    pub(super) roll: Option<Roll>,
    /// Why the last one was aborted.
    pub(super) last_roll: Option<String>,
    pub(super) outage: Outage,
    published: Vec<Published>,
}

impl ServiceState {
    pub(super) fn new(now: Time, name: &str, settings: Service) -> Self {
        let mut service = Self {
            name: name.into(),
            settings: Arc::new(settings),
            replicas: BTreeMap::new(),
            leaving: BTreeSet::new(),
            is_retired: false,
            roll: None,
            last_roll: None,
            outage: Outage::default(),
            published: Vec::new(),
        };
        for number in 0..service.settings.slots() {
            let role = if number < service.settings.replicas { Role::Primary } else { Role::Standby };
            service.add(now, number, role);
        }
        service
    }

    /// Whether calls can be answered.
    pub(super) fn is_serving(&self) -> bool {
        self.replicas.values().any(Replica::is_serving)
    }

    /// Whether those that come after it may start, and nobody need wait for it: it serves, or has done what it was for.
    pub(super) fn is_settled(&self) -> bool {
        let is_done = |replica: &Replica| replica.is_over() && replica.last_exit().is_some_and(Exit::is_success);
        self.is_serving() || self.replicas.values().all(is_done)
    }

    pub(super) fn has_process(&self) -> bool {
        self.replicas.values().any(|replica| replica.run().is_some())
    }

    /// Replicas that serve, and all that should; one that is there for a while alone counts in neither.
    pub(super) fn counts(&self) -> (usize, usize) {
        let is_wanted = |replica: &&Replica| replica.role != Role::Surge && replica.state() != State::Stopped;
        let wanted = || self.replicas.values().filter(is_wanted);
        (wanted().filter(|replica| replica.is_serving()).count(), wanted().count())
    }

    /// Takes over what the file says now.
    pub(super) fn configure(&mut self, now: Time, settings: Service, out: &mut Outbox) {
        self.is_retired = false;
        if *self.settings == settings {
            return;
        }
        let is_unlike = self.settings.starts_unlike(&settings);
        let is_resized = (self.settings.replicas, self.settings.standby) != (settings.replicas, settings.standby);
        self.settings = Arc::new(settings);
        if is_resized {
            self.resize(now, out);
        }
        let is_left_as_it_is = |replica: &Replica| is_unlike && replica.state() != State::Stopped;
        for replica in self.replicas.values_mut().filter(|replica| !is_left_as_it_is(replica)) {
            replica.service = Arc::clone(&self.settings);
        }
        if is_unlike {
            let runs = |replica: &Replica| replica.state() != State::Stopped;
            self.begin_roll(now, runs, "its configuration has changed", out);
        } else {
            out.note(Level::Info, &self.name, "takes over its changed configuration without a restart");
        }
    }

    /// Stops every replica that is not on its way to it.
    pub(super) fn stop(&mut self, now: Time, why: &str, out: &mut Outbox) {
        self.end_roll(now, why, out);
        for replica in self.replicas.values_mut().filter(|replica| replica.state() != State::Stopped) {
            replica.stop(now, why, out);
        }
    }

    /// Adds a replica that begins to wait for its start.
    pub(super) fn add(&mut self, now: Time, number: u32, role: Role) {
        self.leaving.remove(&number);
        let name = ReplicaName { service: Arc::clone(&self.name), number };
        self.replicas.insert(number, Replica::new(now, name, Arc::clone(&self.settings), role));
    }

    /// Stops a replica and forgets it then.
    pub(super) fn dismiss(&mut self, now: Time, number: u32, why: &str, out: &mut Outbox) {
        if let Some(replica) = self.replicas.get_mut(&number).filter(|_| self.leaving.insert(number)) {
            replica.stop(now, why, out);
        }
    }

    pub(super) fn forget_dismissed(&mut self) {
        let Self { leaving, replicas, .. } = self;
        leaving.retain(|number| {
            let is_gone = replicas.get(number).is_none_or(|replica| replica.run().is_none());
            if is_gone {
                replicas.remove(number);
            }
            !is_gone
        });
    }

    pub(super) fn start_waiting(&mut self, now: Time, runs: &mut Runs, out: &mut Outbox) {
        for replica in self.replicas.values_mut().filter(|replica| replica.state() == State::Waiting) {
            replica.start(now, runs.next(), out);
        }
    }

    /// Tells which replicas take calls, if that has changed.
    pub(super) fn publish(&mut self, out: &mut Outbox) {
        let publish = |replica: &Replica| {
            let run = replica.run().filter(|_| replica.is_serving())?;
            let priority = u32::from(replica.role == Role::Standby);
            Some(Published { run, replica: replica.name.clone(), priority })
        };
        let published: Vec<_> = self.replicas.values().filter_map(publish).collect();
        if published != self.published {
            self.published.clone_from(&published);
            out.push(Action::Publish(Arc::clone(&self.name), published));
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        let replicas = self.replicas.values().filter_map(Replica::next_timeout);
        replicas.chain(self.outage.next_timeout(self)).min()
    }

    /// As many replicas of each role as the file says.
    fn resize(&mut self, now: Time, out: &mut Outbox) {
        let slots = self.settings.slots();
        let beyond: Vec<u32> = self.replicas.range(slots..).map(|(number, _)| *number).collect();
        for number in beyond {
            self.dismiss(now, number, "the file names fewer replicas", out);
        }
        for number in 0..slots {
            if !self.replicas.contains_key(&number) || self.leaving.contains(&number) {
                self.add_again(now, number, out);
            }
        }
        if let Some(roll) = &mut self.roll {
            roll.adopt_surge_below(slots);
        }
        for (number, replica) in self.replicas.range_mut(..slots) {
            replica.role = if *number < self.settings.replicas { Role::Primary } else { Role::Standby };
        }
    }

    /// A number that is still on its way out is taken back, and starts again when it has stopped.
    fn add_again(&mut self, now: Time, number: u32, out: &mut Outbox) {
        self.leaving.remove(&number);
        match self.replicas.get_mut(&number) {
            Some(replica) => replica.restart(now, "the file names it again", out),
            None => self.add(now, number, Role::Standby),
        }
    }
}
