use std::{collections::BTreeMap, sync::Arc};

use evenkeel_balance::{Endpoint, Time};
use evenkeel_checker::Checker;
use evenkeel_config::Service;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep_until},
};

use super::{
    handle::{Ended, Endpoints, Handle, Message, Overall},
    launch::Launch,
    tend::{Deed, Tend},
};
use crate::{
    Action, Input, Level, Note, Published, ReplicaName, RunId, ServiceStatus, Supervisor,
    process::{Child, Processes, Signal},
};

/// Starts to supervise; nothing yet, until it is [configured](Handle::configure). The seed makes the jitter of waits repeatable.
///
/// # Panics
/// Outside of a tokio runtime with I/O and time.
pub fn start(processes: Processes, seed: u64) -> Handle {
    let (sender, messages) = mpsc::unbounded_channel();
    let (overall, receiver) = watch::channel(Overall::default());
    let endpoints = Endpoints::default();
    let engine = Engine {
        supervisor: Supervisor::new(seed),
        began: Instant::now(),
        processes,
        sender: sender.clone(),
        overall,
        endpoints: endpoints.clone(),
        runs: BTreeMap::new(),
        last_lines: BTreeMap::new(),
        was_stopped: false,
    };
    tokio::spawn(engine.run(messages));
    Handle { messages: sender, overall: receiver, endpoints }
}

struct Engine {
    supervisor: Supervisor,
    began: Instant,
    processes: Processes,
    /// For the tasks that tend processes.
    sender: mpsc::UnboundedSender<Message>,
    overall: watch::Sender<Overall>,
    endpoints: Endpoints,
    runs: BTreeMap<RunId, Run>,
    /// Of processes that are gone, by replica.
    last_lines: BTreeMap<String, Vec<String>>,
    was_stopped: bool,
}

/// One start of a replica, while anything of it runs.
struct Run {
    replica: ReplicaName,
    service: Arc<Service>,
    launch: Launch,
    deeds: mpsc::UnboundedSender<Deed>,
    child: watch::Receiver<Option<Arc<Child>>>,
    checks: Option<Checks>,
}

/// Checks that go on until this is dropped.
struct Checks {
    _checker: Checker,
    telling: AbortHandle,
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.telling.abort();
    }
}

impl Engine {
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        while !self.supervisor.is_finished() {
            let timeout = self.supervisor.next_timeout().map(|at| self.instant(at));
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.hear(message),
                    None => break,
                },
                () = sleep_until(timeout.unwrap_or(self.began)), if timeout.is_some() => {
                    let actions = self.supervisor.handle_timeout(self.now());
                    self.act(actions);
                }
            }
        }
        let exit = self.supervisor.ended_with();
        let ended = Ended { exit, was_stopped: self.was_stopped };
        self.overall.send_replace(Overall { is_serving: false, ended: Some(ended) });
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.input(input),
            Message::Order(order, answer) => {
                let followed = self.supervisor.order(self.now(), &order).map(|(said, actions)| {
                    self.act(actions);
                    said
                });
                // Whoever asked may have gone.
                let _ = answer.send(followed);
            }
            Message::Status(answer) => drop(answer.send(self.status())),
            Message::Signal(signal) => self.pass_on(signal),
        }
    }

    fn input(&mut self, input: Input) {
        self.was_stopped |= matches!(input, Input::Shutdown | Input::KillAll);
        let gone = match input {
            Input::Gone(run) | Input::StartFailed(run, _) => Some(run),
            _ => None,
        };
        // Before the replica is started again, so that its port is free to be chosen.
        if let Some(run) = gone.and_then(|run| self.runs.remove(&run)) {
            self.last_lines.insert(run.replica.to_string(), run.last_lines());
        }
        let actions = self.supervisor.handle(self.now(), input);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(run, replica, service) => self.start(run, replica, service),
                Action::Watch(run) => self.watch(run),
                Action::Unwatch(run) => {
                    if let Some(run) = self.runs.get_mut(&run) {
                        run.checks = None;
                    }
                }
                Action::Terminate(run) => self.do_to(run, Deed::Terminate),
                Action::Kill(run) => self.do_to(run, Deed::Kill),
                Action::Publish(service, published) => self.publish(&service, &published),
                Action::Note(note) => tell(&note),
            }
        }
        let is_serving = self.supervisor.is_serving();
        self.overall.send_if_modified(|overall| std::mem::replace(&mut overall.is_serving, is_serving) != is_serving);
    }

    fn start(&mut self, id: RunId, replica: ReplicaName, service: Arc<Service>) {
        let taken: Vec<u16> = self.runs.values().filter_map(|run| run.launch.port()).collect();
        let launch = match Launch::new(&replica, &service, &taken) {
            Ok(launch) => launch,
            Err(error) => return self.tell(Input::StartFailed(id, error.to_string())),
        };
        let (deeds, receiver) = mpsc::unbounded_channel();
        let (sender, child) = watch::channel(None);
        let tend = Tend {
            run: id,
            command: launch.command.clone(),
            processes: self.processes.clone(),
            deeds: receiver,
            messages: self.sender.clone(),
            child: sender,
        };
        tokio::spawn(tend.run());
        self.runs.insert(id, Run { replica, service, launch, deeds, child, checks: None });
    }

    fn watch(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        match run.launch.check(&run.service) {
            Ok(Some(checker)) => {
                let telling = tell_health(id, &checker, self.sender.clone()).abort_handle();
                run.checks = Some(Checks { _checker: checker, telling });
            }
            Ok(None) => self.tell(Input::Health(id, true, String::new())),
            Err(error) => self.tell(Input::Health(id, false, format!("cannot be checked: {error}"))),
        }
    }

    fn do_to(&mut self, run: RunId, deed: Deed) {
        if let Some(run) = self.runs.get(&run) {
            // Fails only where it is gone already, which is on its way to be told.
            let _ = run.deeds.send(deed);
        }
    }

    fn publish(&self, service: &str, published: &[Published]) {
        let endpoint = |published: &Published| {
            let address = self.runs.get(&published.run)?.launch.address.clone()?;
            // So that a replica keeps its calls in consistent hashing when its port changes.
            Some(Endpoint::new(address).with_priority(published.priority).with_hash_key(published.replica.to_string()))
        };
        let endpoints: Arc<[Endpoint]> = published.iter().filter_map(endpoint).collect();
        self.endpoints.of(service).send_replace(endpoints);
    }

    fn pass_on(&self, signal: Signal) {
        for child in self.runs.values().filter_map(|run| run.child.borrow().clone()) {
            tokio::spawn(async move {
                if let Err(error) = child.signal(signal).await {
                    tracing::warn!(target: "evenkeel::supervisor", pid = child.pid(), %error, "cannot pass a signal on");
                }
            });
        }
    }

    fn status(&self) -> Vec<ServiceStatus> {
        let mut services = self.supervisor.status(self.now());
        for replica in services.iter_mut().flat_map(|service| &mut service.replicas) {
            let run = replica.run.and_then(|run| self.runs.get(&run));
            replica.address = run.and_then(|run| run.launch.address.as_ref()).map(ToString::to_string);
            if replica.state != "serving" {
                let lines = run.map(Run::last_lines).filter(|lines| !lines.is_empty());
                replica.last_lines = lines.or_else(|| self.last_lines.get(&replica.name).cloned()).unwrap_or_default();
            }
        }
        services
    }

    fn tell(&self, input: Input) {
        // The receiver is ours.
        let _ = self.sender.send(Message::Input(input));
    }

    fn now(&self) -> Time {
        Time::ZERO + self.began.elapsed()
    }

    fn instant(&self, at: Time) -> Instant {
        self.began + at.since(Time::ZERO)
    }
}

impl Run {
    fn last_lines(&self) -> Vec<String> {
        let child = self.child.borrow();
        child.as_ref().map(|child| child.last_lines().into_iter().map(|line| line.line).collect()).unwrap_or_default()
    }
}

/// Tells each change of what checks make of a replica.
fn tell_health(run: RunId, checker: &Checker, messages: mpsc::UnboundedSender<Message>) -> JoinHandle<()> {
    let mut transitions = checker.transitions();
    tokio::spawn(async move {
        while let Some(change) = transitions.next().await {
            let input = Input::Health(run, change.to.is_healthy(), change.reason.to_string());
            if messages.send(Message::Input(input)).is_err() {
                return;
            }
        }
    })
}

fn tell(note: &Note) {
    let Note { level, about, text } = note;
    match level {
        Level::Info => tracing::info!(target: "evenkeel::supervisor", "{about}: {text}"),
        Level::Warn => tracing::warn!(target: "evenkeel::supervisor", "{about}: {text}"),
        Level::Error => tracing::error!(target: "evenkeel::supervisor", "{about}: {text}"),
    }
}
