//! Drives a supervisor in virtual time, with processes that do as a test says. It panics where a replica is started twice.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use evenkeel_balance::Time;
use evenkeel_config::File;

use super::{Action, Input, Order, OrderError, ReplicaStatus, RunId, Supervisor};
use crate::process::Exit;

pub(super) struct World {
    pub(super) supervisor: Supervisor,
    pub(super) now: Time,
    pub(super) processes: BTreeMap<RunId, Process>,
    /// Who takes the calls of each service, as `greeter/0`, and with a rank behind a colon where it is not the first.
    pub(super) published: BTreeMap<String, Vec<String>>,
    pub(super) notes: Vec<String>,
    /// What happened to processes, in order: `+a/0` started, `~a/0` told to end, `!a/0` killed.
    pub(super) log: Vec<String>,
    /// Whether processes serve as soon as they are started.
    pub(super) serves: bool,
    /// Whether processes end when they are told to.
    pub(super) obeys: bool,
    inputs: VecDeque<Input>,
}

pub(super) struct Process {
    pub(super) replica: String,
    pub(super) command: String,
    has_exited: bool,
}

impl World {
    pub(super) fn new(toml: &str) -> Self {
        let mut world = Self {
            supervisor: Supervisor::new(7),
            now: Time::ZERO,
            processes: BTreeMap::new(),
            published: BTreeMap::new(),
            notes: Vec::new(),
            log: Vec::new(),
            serves: true,
            obeys: true,
            inputs: VecDeque::new(),
        };
        world.configure(toml);
        world
    }

    pub(super) fn configure(&mut self, toml: &str) {
        let file = File::parse("test.toml", toml).unwrap();
        self.input(Input::Configured(file.services));
    }

    pub(super) fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.work();
    }

    pub(super) fn order(&mut self, order: &Order) -> Result<String, OrderError> {
        let (said, actions) = self.supervisor.order(self.now, order)?;
        self.act(actions);
        self.work();
        Ok(said)
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.supervisor.next_timeout().filter(|at| *at <= end) {
            assert!(at > self.now || self.now == Time::ZERO, "a deadline that has passed is still waited for");
            self.now = at;
            let actions = self.supervisor.handle_timeout(at);
            self.act(actions);
            self.work();
        }
        self.now = end;
    }

    pub(super) fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    pub(super) fn run(&self, replica: &str) -> RunId {
        *self.processes.iter().find(|(_, process)| process.replica == replica).expect("it runs").0
    }

    /// The process ends by itself.
    pub(super) fn exit(&mut self, replica: &str, exit: Exit) {
        let run = self.run(replica);
        let has_exited = self.processes.get_mut(&run).map(|process| std::mem::replace(&mut process.has_exited, true));
        if has_exited == Some(false) {
            self.input(Input::Exited(run, exit));
        }
    }

    pub(super) fn health(&mut self, replica: &str, is_healthy: bool) {
        let why = if is_healthy { "SERVING" } else { "connection refused" };
        self.input(Input::Health(self.run(replica), is_healthy, why.to_owned()));
    }

    pub(super) fn status(&self, replica: &str) -> ReplicaStatus {
        let services = self.supervisor.status(self.now);
        services.into_iter().flat_map(|s| s.replicas).find(|each| each.name == replica).expect("it is there")
    }

    pub(super) fn state(&self, replica: &str) -> String {
        self.status(replica).state
    }

    pub(super) fn has_told(&self, text: &str) -> bool {
        self.notes.iter().any(|note| note.contains(text))
    }

    pub(super) fn published(&self, service: &str) -> Vec<&str> {
        self.published.get(service).map(|list| list.iter().map(String::as_str).collect()).unwrap_or_default()
    }

    fn work(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let actions = self.supervisor.handle(self.now, input);
            self.act(actions);
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(run, replica, service) => {
                    let replica = replica.to_string();
                    let is_running = self.processes.values().any(|process| process.replica == replica);
                    assert!(!is_running, "{replica} is started while it runs");
                    self.log.push(format!("+{replica}"));
                    self.processes
                        .insert(run, Process { replica, command: service.command.clone(), has_exited: false });
                    if self.serves {
                        self.inputs.push_back(Input::Started(run, 1));
                        self.inputs.push_back(Input::Health(run, true, "SERVING".to_owned()));
                    }
                }
                Action::Terminate(run) => {
                    self.log.push(format!("~{}", self.processes[&run].replica));
                    if self.obeys {
                        self.end(run);
                    }
                }
                Action::Kill(run) => {
                    self.log.push(format!("!{}", self.processes[&run].replica));
                    self.end(run);
                }
                Action::Publish(service, published) => {
                    let tell = |each: &super::Published| match each.priority {
                        0 => each.replica.to_string(),
                        rank => format!("{}:{rank}", each.replica),
                    };
                    for each in &published {
                        assert!(
                            self.processes.contains_key(&each.run),
                            "{} takes calls without a process",
                            each.replica
                        );
                    }
                    self.published.insert(service.to_string(), published.iter().map(tell).collect());
                }
                Action::Note(note) => self.notes.push(format!("{}: {}", note.about, note.text)),
                Action::Watch(_) | Action::Unwatch(_) => {}
            }
        }
    }

    pub(super) fn end(&mut self, run: RunId) {
        if self.processes.remove(&run).is_some_and(|process| !process.has_exited) {
            self.inputs.push_back(Input::Exited(run, Exit::Signal(15)));
        }
        self.inputs.push_back(Input::Gone(run));
    }
}
