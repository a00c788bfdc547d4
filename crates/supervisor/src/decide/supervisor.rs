use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use evenkeel_balance::{Entropy, Time};
use evenkeel_config::Service;

use super::{
    Action, Input, Level, Order, OrderError, RunId, ServiceStatus, action::Outbox, name::Runs, replica::Replica,
    service::ServiceState,
};
use crate::process::Exit;

/// Every service, and what is to be done about each.
///
/// ```
/// use evenkeel_balance::Time;
/// use evenkeel_config::File;
/// use evenkeel_supervisor::{Action, Input, Supervisor};
///
/// let file = File::parse("shop.toml", "[service.greeter]\ncommand = \"greeter\"\n")?;
/// let mut supervisor = Supervisor::new(7);
/// let actions = supervisor.handle(Time::ZERO, Input::Configured(file.services));
/// // A driver would start a process here, and say which.
/// let Some(Action::Start(run, replica, service)) = actions.iter().find(|a| matches!(a, Action::Start(..))) else {
///     panic!("it is started at once");
/// };
/// assert_eq!((replica.to_string().as_str(), service.command.as_str()), ("greeter/0", "greeter"));
/// supervisor.handle(Time::ZERO, Input::Started(*run, 4711));
/// assert_eq!(supervisor.status(Time::ZERO)[0].replicas[0].state, "serving");
/// # Ok::<(), evenkeel_config::ConfigErrors>(())
/// ```
#[derive(Debug)]
pub struct Supervisor {
    services: BTreeMap<Arc<str>, ServiceState>,
    runs: Runs,
    entropy: Entropy,
    is_shutting_down: bool,
    out: Outbox,
}

impl Supervisor {
    /// Supervises nothing yet. The seed makes the jitter of its waits repeatable.
    pub fn new(seed: u64) -> Self {
        Self {
            services: BTreeMap::new(),
            runs: Runs::default(),
            entropy: Entropy::new(seed),
            is_shutting_down: false,
            out: Outbox::default(),
        }
    }

    /// Takes in what has happened, and says what to do about it, in this order.
    pub fn handle(&mut self, now: Time, input: Input) -> Vec<Action> {
        self.expire(now);
        match input {
            Input::Configured(services) => self.configure(now, services),
            Input::Shutdown => self.is_shutting_down = true,
            Input::KillAll => self.kill_all(now),
            about_a_run => self.hear(now, about_a_run),
        }
        self.settle(now)
    }

    /// Follows an order. The text says what will happen.
    ///
    /// # Errors
    ///
    /// Where there is no such service or replica, or everything is being stopped.
    pub fn order(&mut self, now: Time, order: &Order) -> Result<(String, Vec<Action>), OrderError> {
        self.expire(now);
        let (name, replica) = order.target();
        let number = self.find(name, replica)?;
        let Some(service) = self.services.get_mut(name) else { return Ok((String::new(), Vec::new())) };
        let out = &mut self.out;
        let said = match order {
            Order::Restart(_) => {
                let which = |replica: &Replica| number.is_none_or(|number| number == replica.name.number);
                service.begin_roll(now, which, "an operator asked for it", out);
                "restarting, one replica at a time"
            }
            Order::Stop(_) => {
                stop(service, now, number, out);
                "stopping"
            }
            Order::Start(_) => {
                let chosen = service.replicas.values_mut().filter(|each| number.is_none_or(|n| n == each.name.number));
                chosen.for_each(|replica| replica.revive(now, "an operator asked for it", out));
                "starting what does not run"
            }
        };
        Ok((said.to_owned(), self.settle(now)))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_timeout(&self) -> Option<Time> {
        self.services.values().filter_map(ServiceState::next_timeout).min()
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Time) -> Vec<Action> {
        self.expire(now);
        self.settle(now)
    }

    /// What each service is doing, by name.
    pub fn status(&self, now: Time) -> Vec<ServiceStatus> {
        let status = |service| ServiceStatus::of(now, service, &self.waited_for_by(service));
        self.services.values().map(status).collect()
    }

    /// Whether every service serves, or has done what it was for; not where there is none.
    pub fn is_serving(&self) -> bool {
        !self.services.is_empty() && self.services.values().all(ServiceState::is_settled)
    }

    /// Whether there is nothing left to do: everything was stopped, or has ended by itself for good.
    pub fn is_finished(&self) -> bool {
        let mut replicas = self.services.values().flat_map(|service| service.replicas.values());
        let is_idle = replicas.clone().all(|replica| replica.run().is_none());
        is_idle && (self.is_shutting_down || (!self.services.is_empty() && replicas.all(Replica::is_over)))
    }

    /// How the last service that has ended for good did so; of several, the first in order that did not do well.
    pub fn ended_with(&self) -> Option<Exit> {
        let replicas = self.services.values().flat_map(|service| service.replicas.values());
        let exits = || replicas.clone().filter(|replica| replica.is_over()).filter_map(Replica::last_exit);
        exits().find(|exit| !exit.is_success()).or_else(|| exits().next())
    }

    fn configure(&mut self, now: Time, services: BTreeMap<String, Service>) {
        for (name, state) in &mut self.services {
            if !services.contains_key(&**name) {
                state.is_retired = true;
                self.out.note(Level::Info, name, "is stopped: the file names it no more");
                state.stop(now, "the file names it no more", &mut self.out);
            }
        }
        for (name, settings) in services {
            if let Some(state) = self.services.get_mut(&*name) {
                state.configure(now, settings, &mut self.out);
            } else {
                let state = ServiceState::new(now, &name, settings);
                self.services.insert(Arc::clone(&state.name), state);
            }
        }
    }

    fn kill_all(&mut self, now: Time) {
        self.is_shutting_down = true;
        for replica in self.services.values_mut().flat_map(|service| service.replicas.values_mut()) {
            replica.kill(now, "everything is to end at once", &mut self.out);
        }
    }

    fn hear(&mut self, now: Time, input: Input) {
        let Some(replica) = run_of(&input).and_then(|run| self.replica(run)) else { return };
        // Taken apart so that the outbox and the replica can be borrowed at once.
        let (service, number) = (Arc::clone(&replica.name.service), replica.name.number);
        let replicas = self.services.get_mut(&service).map(|service| &mut service.replicas);
        let Some(replica) = replicas.and_then(|replicas| replicas.get_mut(&number)) else { return };
        let (out, entropy) = (&mut self.out, &mut self.entropy);
        match input {
            Input::Started(_, pid) => replica.started(now, pid, out),
            Input::StartFailed(_, why) => replica.start_failed(now, &why, entropy, out),
            Input::Exited(_, exit) => replica.exited(now, exit, out),
            Input::Gone(_) => replica.gone(now, entropy, out),
            Input::Health(_, is_healthy, why) => replica.heard_health(now, is_healthy, why, out),
            Input::Ready(_) => replica.heard_ready(now, out),
            Input::Silent(_) => replica.fell_silent(now, out),
            Input::Configured(_) | Input::Shutdown | Input::KillAll => {}
        }
    }

    /// The services that must serve before it is started, and do not.
    fn waited_for_by<'a>(&self, service: &'a ServiceState) -> Vec<&'a str> {
        let is_out = |before: &&str| self.services.get(*before).is_none_or(|before| !before.is_settled());
        service.settings.after.iter().map(String::as_str).filter(is_out).collect()
    }

    fn replica(&self, run: RunId) -> Option<&Replica> {
        self.services.values().flat_map(|service| service.replicas.values()).find(|each| each.run() == Some(run))
    }

    fn find(&self, name: &str, replica: Option<&str>) -> Result<Option<u32>, OrderError> {
        if self.is_shutting_down {
            return Err(OrderError::ShuttingDown);
        }
        let known: Vec<&str> = self.services.keys().map(|name| &**name).collect();
        let service = self.services.get(name).ok_or_else(|| OrderError::unknown_service(name, &known))?;
        let Some(replica) = replica else { return Ok(None) };
        let number = replica.parse().ok().filter(|number| service.replicas.contains_key(number));
        let unknown = || OrderError::UnknownReplica {
            service: name.to_owned(),
            replica: replica.to_owned(),
            count: service.replicas.len(),
        };
        number.map(Some).ok_or_else(unknown)
    }

    /// Lets every deadline up to `now` take effect.
    fn expire(&mut self, now: Time) {
        for replica in self.services.values_mut().flat_map(|service| service.replicas.values_mut()) {
            replica.handle_timeout(now, &mut self.out);
        }
    }

    /// Draws the conclusions from what has changed.
    fn settle(&mut self, now: Time) -> Vec<Action> {
        if self.is_shutting_down {
            self.stop_in_order(now);
        }
        let settled: BTreeSet<Arc<str>> = self
            .services
            .iter()
            .filter(|(_, service)| service.is_settled())
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for service in self.services.values_mut() {
            service.forget_dismissed();
            service.step_roll(now, &mut self.out);
            service.step_promotion(now, &mut self.out);
            let can_start = service.settings.after.iter().all(|before| settled.contains(&**before));
            if can_start && !self.is_shutting_down && !service.is_retired {
                service.start_waiting(now, &mut self.runs, &mut self.out);
            }
            service.publish(&mut self.out);
        }
        self.services.retain(|_, service| !service.is_retired || service.has_process());
        self.out.take()
    }

    /// Stops services on which no other that runs depends.
    fn stop_in_order(&mut self, now: Time) {
        let running = self.services.values().filter(|service| service.has_process());
        let needed: BTreeSet<String> = running.flat_map(|service| service.settings.after.clone()).collect();
        for service in self.services.values_mut().filter(|service| !needed.contains(&*service.name)) {
            service.stop(now, "everything is being stopped", &mut self.out);
        }
    }
}

fn stop(service: &mut ServiceState, now: Time, number: Option<u32>, out: &mut Outbox) {
    let why = "an operator asked for it";
    match number.and_then(|number| service.replicas.get_mut(&number)) {
        Some(replica) => replica.stop(now, why, out),
        None => service.stop(now, why, out),
    }
}

fn run_of(input: &Input) -> Option<RunId> {
    match input {
        Input::Started(run, _)
        | Input::StartFailed(run, _)
        | Input::Exited(run, _)
        | Input::Gone(run)
        | Input::Health(run, ..)
        | Input::Ready(run)
        | Input::Silent(run) => Some(*run),
        Input::Configured(_) | Input::Shutdown | Input::KillAll => None,
    }
}
