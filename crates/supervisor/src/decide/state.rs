use std::time::Duration;

use evenkeel_balance::Time;

/// Where a replica is in its life.
///
/// ```text
///                 its dependencies serve       the process runs        it serves
///  STOPPED ──► WAITING ──────────────► STARTING ──────────► UNREADY ──────────► SERVING ◄──┐
///     ▲         ▲  ▲                     │                   │                   │  │ fails its checks
///     │         │  │ the wait is over    │ cannot start      │ start_timeout     │  ▼      │ passes them
///     │         │ BACKOFF ◄──────────────┤                   │                   │ UNHEALTHY
///     │         │ CRASH_LOOPING ◄─┐      │                   │                   │  │ unhealthy_timeout
///     │         │                 │      │                   ▼  it is to stop    ▼  │
///     │         │                 │      │                   │ ◄──────────── DRAINING
///     │         │  of itself      │      │                   ▼   drain_timeout      │
///     └─────────┴─────────────────┴──────┴── gone ◄─────── STOPPING ◄───────────────┘
///      it was to  to be restarted   of itself  ▲             │ stop_timeout
///      stop                                    └── gone ── KILLING
/// ```
///
/// An exit from any state that has a process leads to STOPPING, which ends what the process has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No process, and none to come.
    Stopped,
    /// No process yet: the services before it do not serve.
    Waiting,
    /// A process was asked for.
    Starting { until: Time },
    /// It runs and does not serve yet.
    Unready { until: Time },
    /// It serves, and takes calls.
    Serving,
    /// It served, and its checks fail.
    Unhealthy { until: Time },
    /// It takes no new calls, and ends those it has.
    Draining { until: Time },
    /// It has been sent SIGTERM.
    Stopping { until: Time },
    /// It has been sent SIGKILL.
    Killing,
    /// It failed, and is started again after a while.
    Backoff { until: Time },
    /// It fails again and again; `None` where it was given up.
    CrashLooping { until: Option<Time> },
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Starting { .. } => "starting",
            Self::Unready { .. } => "unready",
            Self::Serving => "serving",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Draining { .. } => "draining",
            Self::Stopping { .. } => "stopping",
            Self::Killing => "killing",
            Self::Backoff { .. } => "backoff",
            Self::CrashLooping { .. } => "crash-looping",
        }
    }

    /// When it is left if nothing happens.
    pub(super) fn until(self) -> Option<Time> {
        match self {
            Self::Starting { until }
            | Self::Unready { until }
            | Self::Unhealthy { until }
            | Self::Draining { until }
            | Self::Stopping { until }
            | Self::Backoff { until } => Some(until),
            Self::CrashLooping { until } => until,
            Self::Stopped | Self::Waiting | Self::Serving | Self::Killing => None,
        }
    }

    /// Whether it is on its way to the end of its process.
    pub(super) fn is_ending(self) -> bool {
        matches!(self, Self::Draining { .. } | Self::Stopping { .. } | Self::Killing)
    }

    /// What happens next, as far as can be foreseen at `now`; `waits_for` are the services before it that do not serve.
    pub(super) fn next(self, now: Time, waits_for: &[&str]) -> String {
        let left = self.until().map(|until| until.since(now)).unwrap_or_default();
        let left = tenths(left);
        match self {
            Self::Stopped => "nothing until it is started".to_owned(),
            Self::Waiting => match waits_for {
                [] => "starts at once".to_owned(),
                [one] => format!("starts when {one} serves"),
                several => format!("starts when {} serve", several.join(" and ")),
            },
            Self::Starting { .. } | Self::Unready { .. } => format!("is restarted unless it serves within {left}"),
            Self::Serving => String::new(),
            Self::Unhealthy { .. } => format!("is restarted unless it recovers within {left}"),
            Self::Draining { .. } => format!("gets SIGTERM in {left}"),
            Self::Stopping { .. } => format!("gets SIGKILL in {left}"),
            Self::Killing => "ends as soon as the kernel lets it".to_owned(),
            Self::Backoff { .. } | Self::CrashLooping { until: Some(_) } => format!("starts again in {left}"),
            Self::CrashLooping { until: None } => "nothing: given up until it is started".to_owned(),
        }
    }
}

/// A duration as people read it.
pub(super) fn tenths(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        seconds => format!("{seconds}s"),
    }
}
