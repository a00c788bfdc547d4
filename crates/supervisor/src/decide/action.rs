use std::{collections::BTreeMap, fmt, sync::Arc};

use evenkeel_config::Service;

use super::{ReplicaName, RunId};
use crate::process::Exit;

/// What has happened. Whatever is about a run that is over is ignored.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The process runs, with this number.
    Started(RunId, i32),
    /// It could not be started, for this reason; nothing of it is there.
    StartFailed(RunId, String),
    /// The process that was started has ended. Others of its may still run.
    Exited(RunId, Exit),
    /// Nothing of it runs any more; comes once for each start that did not fail, after a [`Action::Terminate`] or
    /// [`Action::Kill`].
    Gone(RunId),
    /// What its checks make of it now: healthy or not, and why.
    Health(RunId, bool, String),
    /// It has said `READY=1`.
    Ready(RunId),
    /// It has not said `WATCHDOG=1` for as long as its service's `watchdog` allows, or has said that it hangs.
    Silent(RunId),
    /// The file says this now; services that are missing are stopped and forgotten.
    Configured(BTreeMap<String, Service>),
    /// Everything is to stop, in order.
    Shutdown,
    /// Everything is to end at once.
    KillAll,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a process. Answered by [`Input::Started`] or [`Input::StartFailed`].
    Start(RunId, ReplicaName, Arc<Service>),
    /// Begin to check it, as its service says.
    Watch(RunId),
    /// Check it no more.
    Unwatch(RunId),
    /// Send SIGTERM to everything of it, and tell when nothing runs any more.
    Terminate(RunId),
    /// Send SIGKILL to everything of it, again until nothing runs any more.
    Kill(RunId),
    /// These replicas of a service take its calls now, and no others.
    Publish(Arc<str>, Vec<Published>),
    /// Tell what was decided, and why.
    Note(Note),
}

/// A replica that takes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its present start, which its address belongs to.
    pub run: RunId,
    /// Which replica.
    pub replica: ReplicaName,
    /// 0 for a primary, 1 for a standby, which gets calls only while no primary does.
    pub priority: u32,
}

/// A decision, told to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How bad it is.
    pub level: Level,
    /// `greeter` or `greeter/0`.
    pub about: String,
    /// What was decided, and why.
    pub text: String,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Info,
    /// Something failed and is being dealt with.
    Warn,
    /// Somebody should look.
    Error,
}

/// What the parts of the supervisor want done, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox(Vec<Action>);

impl Outbox {
    pub(super) fn push(&mut self, action: Action) {
        self.0.push(action);
    }

    pub(super) fn note(&mut self, level: Level, about: impl fmt::Display, text: impl Into<String>) {
        self.push(Action::Note(Note { level, about: about.to_string(), text: text.into() }));
    }

    pub(super) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.0)
    }
}
