use std::{collections::VecDeque, sync::Arc};

use evenkeel_balance::{Backoff, Entropy, Time};
use evenkeel_config::{CheckKind, Restart, Service};

use super::{
    Action, Level, ReplicaName, RunId,
    action::Outbox,
    state::{State, tenths},
};
use crate::process::Exit;

/// One replica of a service: at most one process at a time.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) name: ReplicaName,
    /// What it goes by; the running process was started by it.
    pub(super) service: Arc<Service>,
    pub(super) role: Role,
    state: State,
    since: Time,
    why: String,
    run: Option<Run>,
    follow_up: FollowUp,
    /// Failures since it last served for long.
    failures: u32,
    /// When the last failures were, as many as a crash loop takes.
    failed_at: VecDeque<Time>,
    is_crash_looping: bool,
    starts: u64,
    last_exit: Option<Exit>,
}

/// What a replica is published as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes calls.
    Primary,
    /// It takes calls while no primary does.
    Standby,
    /// One more, while a rolling restart goes on.
    Surge,
}

/// A process.
#[derive(Debug)]
struct Run {
    id: RunId,
    pid: Option<i32>,
    is_healthy: bool,
    health: String,
    is_ready: bool,
    is_watched: bool,
}

/// What comes after the end of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FollowUp {
    /// Nothing: it was to stop.
    Stop,
    /// Another start at once: that is what it was stopped for.
    Start,
    /// What the service's `restart` says of such a failure.
    Failure { is_success: bool, why: String },
}

impl Replica {
    pub(super) fn new(now: Time, name: ReplicaName, service: Arc<Service>, role: Role) -> Self {
        Self {
            name,
            service,
            role,
            state: State::Waiting,
            since: now,
            why: "it has not been started yet".to_owned(),
            run: None,
            follow_up: FollowUp::Stop,
            failures: 0,
            failed_at: VecDeque::new(),
            is_crash_looping: false,
            starts: 0,
            last_exit: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn since(&self) -> Time {
        self.since
    }

    pub(super) fn why(&self) -> &str {
        &self.why
    }

    pub(super) fn run(&self) -> Option<RunId> {
        self.run.as_ref().map(|run| run.id)
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.run.as_ref().and_then(|run| run.pid)
    }

    pub(super) fn health(&self) -> &str {
        self.run.as_ref().map_or("", |run| &run.health)
    }

    /// How often it was started again.
    pub(super) fn restarts(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    pub(super) fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }

    pub(super) fn is_crash_looping(&self) -> bool {
        self.is_crash_looping
    }

    pub(super) fn is_serving(&self) -> bool {
        self.state == State::Serving
    }

    /// Whether it ended by itself and is not started again.
    pub(super) fn is_over(&self) -> bool {
        let gave_up = self.state == State::CrashLooping { until: None };
        gave_up || (self.state == State::Stopped && matches!(self.follow_up, FollowUp::Failure { .. }))
    }

    /// Whether it still takes its first steps.
    pub(super) fn is_new(&self) -> bool {
        self.failures == 0
            && self.starts <= 1
            && matches!(self.state, State::Waiting | State::Starting { .. } | State::Unready { .. })
    }

    /// Starts it, now that what it waits for serves.
    pub(super) fn start(&mut self, now: Time, id: RunId, out: &mut Outbox) {
        self.starts += 1;
        self.run = Some(Run {
            id,
            pid: None,
            is_healthy: self.service.check().kind == CheckKind::None,
            health: String::new(),
            is_ready: !self.service.notify,
            is_watched: false,
        });
        out.push(Action::Start(id, self.name.clone(), Arc::clone(&self.service)));
        let why = std::mem::take(&mut self.why);
        self.enter(now, State::Starting { until: now + self.service.start_timeout }, why, out);
    }

    pub(super) fn started(&mut self, now: Time, pid: i32, out: &mut Outbox) {
        let is_checked = self.service.check().kind != CheckKind::None;
        let State::Starting { until } = self.state else {
            if let Some(run) = &mut self.run {
                run.pid = Some(pid);
            }
            return;
        };
        let Some(run) = &mut self.run else { return };
        run.pid = Some(pid);
        run.is_watched = is_checked;
        if is_checked {
            out.push(Action::Watch(run.id));
        }
        self.enter(now, State::Unready { until }, format!("process {pid} runs"), out);
        self.judge(now, out);
    }

    pub(super) fn start_failed(&mut self, now: Time, why: &str, entropy: &mut Entropy, out: &mut Outbox) {
        let why = format!("cannot be started: {why}");
        if !self.state.is_ending() {
            self.follow_up = FollowUp::Failure { is_success: false, why };
        }
        self.gone(now, entropy, out);
    }

    pub(super) fn exited(&mut self, now: Time, exit: Exit, out: &mut Outbox) {
        self.last_exit = Some(exit);
        if self.state.is_ending() {
            if let State::Draining { .. } = self.state {
                self.terminate(now, format!("process {exit} before it was told to"), out);
            }
            return;
        }
        let why = format!("process {exit}");
        self.follow_up = FollowUp::Failure { is_success: exit.is_success(), why: why.clone() };
        self.terminate(now, why, out);
    }

    /// Nothing of the process runs any more.
    pub(super) fn gone(&mut self, now: Time, entropy: &mut Entropy, out: &mut Outbox) {
        self.unwatch(out);
        self.run = None;
        match self.follow_up.clone() {
            FollowUp::Stop => self.enter(now, State::Stopped, self.why.clone(), out),
            FollowUp::Start => self.enter(now, State::Waiting, self.why.clone(), out),
            FollowUp::Failure { is_success, why } => self.failed(now, is_success, why, entropy, out),
        }
    }

    pub(super) fn heard_health(&mut self, now: Time, is_healthy: bool, why: String, out: &mut Outbox) {
        if let Some(run) = &mut self.run {
            (run.is_healthy, run.health) = (is_healthy, why);
            self.judge(now, out);
        }
    }

    pub(super) fn heard_ready(&mut self, now: Time, out: &mut Outbox) {
        if let Some(run) = &mut self.run {
            run.is_ready = true;
            self.judge(now, out);
        }
    }

    pub(super) fn fell_silent(&mut self, now: Time, out: &mut Outbox) {
        if !self.state.is_ending() {
            let watchdog = self.service.watchdog.unwrap_or_default();
            self.fail(now, format!("hangs: it has not said WATCHDOG=1 for {watchdog:?}"), out);
        }
    }

    /// Ends it in order, for good.
    pub(super) fn stop(&mut self, now: Time, why: &str, out: &mut Outbox) {
        self.end(now, FollowUp::Stop, why, out);
    }

    /// Ends it in order and starts it again; starts it now where it does not run.
    pub(super) fn restart(&mut self, now: Time, why: &str, out: &mut Outbox) {
        self.forgive();
        self.end(now, FollowUp::Start, why, out);
    }

    /// Starts it if it does not run, or is about to stop for good.
    pub(super) fn revive(&mut self, now: Time, why: &str, out: &mut Outbox) {
        let is_to_stop = self.state.is_ending() && self.follow_up == FollowUp::Stop;
        if self.run.is_none() || is_to_stop {
            self.restart(now, why, out);
        }
    }

    /// Ends it at once, for good.
    pub(super) fn kill(&mut self, now: Time, why: &str, out: &mut Outbox) {
        self.follow_up = FollowUp::Stop;
        match self.state {
            State::Killing => {}
            _ if self.run.is_some() => self.send_kill(now, why.to_owned(), out),
            _ => self.enter(now, State::Stopped, why.to_owned(), out),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        [self.state.until(), self.forgiven_at()].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        if self.forgiven_at().is_some_and(|at| at <= now) {
            self.forgive();
        }
        if self.state.until().is_none_or(|until| until > now) {
            return;
        }
        match self.state {
            State::Starting { .. } | State::Unready { .. } => {
                let why = format!("did not serve within {:?}{}", self.service.start_timeout, self.health_in_brackets());
                self.fail(now, why, out);
            }
            State::Unhealthy { .. } => {
                let why =
                    format!("was unhealthy for {:?}{}", self.service.unhealthy_timeout, self.health_in_brackets());
                self.fail(now, why, out);
            }
            State::Draining { .. } => self.terminate(now, self.why.clone(), out),
            State::Stopping { .. } => {
                let why = format!("{}; still there {:?} after SIGTERM", self.why, self.service.stop_timeout);
                self.send_kill(now, why, out);
            }
            State::Backoff { .. } | State::CrashLooping { .. } => {
                self.enter(now, State::Waiting, self.why.clone(), out);
            }
            State::Stopped | State::Waiting | State::Serving | State::Killing => {}
        }
    }

    /// Serving or not, by what its checks and it itself have said.
    fn judge(&mut self, now: Time, out: &mut Outbox) {
        let Some(run) = &self.run else { return };
        let serves = run.is_healthy && run.is_ready;
        let why = if run.health.is_empty() { "it runs".to_owned() } else { run.health.clone() };
        match self.state {
            State::Unready { .. } | State::Unhealthy { .. } if serves => self.enter(now, State::Serving, why, out),
            State::Serving if !serves => {
                let until = now + self.service.unhealthy_timeout;
                self.enter(now, State::Unhealthy { until }, why, out);
            }
            _ => {}
        }
    }

    /// The supervisor itself ends it, since it does not do what it should.
    fn fail(&mut self, now: Time, why: String, out: &mut Outbox) {
        self.follow_up = FollowUp::Failure { is_success: false, why: why.clone() };
        self.terminate(now, why, out);
    }

    fn end(&mut self, now: Time, follow_up: FollowUp, why: &str, out: &mut Outbox) {
        let is_start = follow_up == FollowUp::Start;
        let before = std::mem::replace(&mut self.follow_up, follow_up);
        if self.state.is_ending() {
            if before != self.follow_up {
                why.clone_into(&mut self.why);
            }
        } else if self.run.is_none() {
            let state = if is_start { State::Waiting } else { State::Stopped };
            self.enter(now, state, why.to_owned(), out);
        } else if self.is_serving() && !self.service.drain_timeout.is_zero() && self.service.address().is_some() {
            self.unwatch(out);
            self.enter(now, State::Draining { until: now + self.service.drain_timeout }, why.to_owned(), out);
        } else {
            self.terminate(now, why.to_owned(), out);
        }
    }

    fn terminate(&mut self, now: Time, why: String, out: &mut Outbox) {
        self.unwatch(out);
        if let Some(run) = &self.run {
            out.push(Action::Terminate(run.id));
            self.enter(now, State::Stopping { until: now + self.service.stop_timeout }, why, out);
        }
    }

    fn send_kill(&mut self, now: Time, why: String, out: &mut Outbox) {
        self.unwatch(out);
        if let Some(run) = &self.run {
            out.push(Action::Kill(run.id));
            self.enter(now, State::Killing, why, out);
        }
    }

    fn unwatch(&mut self, out: &mut Outbox) {
        if let Some(run) = self.run.as_mut().filter(|run| run.is_watched) {
            run.is_watched = false;
            out.push(Action::Unwatch(run.id));
        }
    }

    /// What the service's `restart` makes of a failure.
    fn failed(&mut self, now: Time, is_success: bool, why: String, entropy: &mut Entropy, out: &mut Outbox) {
        let is_over = match self.service.restart {
            Restart::Always => false,
            Restart::OnFailure => is_success,
            Restart::Never => true,
        };
        if is_over {
            return self.enter(now, State::Stopped, why, out);
        }
        self.failures = self.failures.saturating_add(1);
        self.remember_failure(now);
        let settings = self.service.backoff;
        let backoff = Backoff::new(settings.initial, settings.max, settings.multiplier, settings.jitter);
        let until = now + backoff.delay(self.failures, entropy);
        if !self.is_crash_looping {
            return self.enter(now, State::Backoff { until }, why, out);
        }
        let until = (!self.service.crash_loop.give_up).then_some(until);
        let exits = self.service.crash_loop.exits;
        let why = format!("{exits} failures within {:?}, the last: {why}", self.service.crash_loop.within);
        self.enter(now, State::CrashLooping { until }, why, out);
    }

    fn remember_failure(&mut self, now: Time) {
        let settings = self.service.crash_loop;
        self.failed_at.push_back(now);
        while self.failed_at.len() > settings.exits as usize {
            self.failed_at.pop_front();
        }
        let is_full = self.failed_at.len() == settings.exits as usize;
        self.is_crash_looping |= is_full && self.failed_at.front().is_some_and(|at| now.since(*at) <= settings.within);
    }

    fn forgive(&mut self) {
        self.failures = 0;
        self.failed_at.clear();
        self.is_crash_looping = false;
    }

    /// When it will have served for long enough.
    fn forgiven_at(&self) -> Option<Time> {
        (self.is_serving() && self.failures > 0).then(|| self.since + self.service.healthy_after)
    }

    fn health_in_brackets(&self) -> String {
        match self.health() {
            "" => String::new(),
            health => format!(" ({health})"),
        }
    }

    fn enter(&mut self, now: Time, state: State, why: String, out: &mut Outbox) {
        let level = match state {
            State::CrashLooping { .. } => Level::Error,
            State::Unhealthy { .. } | State::Killing | State::Backoff { .. } => Level::Warn,
            _ => Level::Info,
        };
        let next = match state {
            State::Backoff { until } | State::CrashLooping { until: Some(until) } => {
                format!("; starts again in {}", tenths(until.since(now)))
            }
            State::CrashLooping { until: None } => "; given up".to_owned(),
            _ => String::new(),
        };
        out.note(level, &self.name, format!("{}: {why}{next}", state.name()));
        (self.state, self.since, self.why) = (state, now, why);
    }
}
