use std::time::Duration;

/// The names of the backends; everywhere else a backend is its index here.
pub(super) const BACKENDS: [&str; 3] = ["a", "b", "c"];

/// What the demo does to a backend: each is something that production does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process is killed, and started again on the same port.
    Kill,
    /// The process says that it is `NOT_SERVING`, and later that it is SERVING; it would answer calls all the while.
    NotServing,
    /// The process is stopped by SIGSTOP, connections and all, and resumed by SIGCONT.
    Pause,
}

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::NotServing => "not_serving",
            Self::Pause => "pause",
        }
    }

    /// The fault and the repair, in the words of one who does them.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Kill => ("SIGKILL", "started again"),
            Self::NotServing => ("NOT_SERVING", "SERVING"),
            Self::Pause => ("SIGSTOP", "SIGCONT"),
        }
    }
}

/// One fault, on one backend, for a while. Moments are counted from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) fault: Fault,
    /// The index of the backend that suffers it.
    pub(super) backend: usize,
    pub(super) fault_at: Duration,
    pub(super) repair_at: Duration,
}

impl Act {
    /// Such as `a: SIGKILL, then started again`.
    pub(super) fn title(&self) -> String {
        let (fault, repair) = self.fault.words();
        format!("{}: {fault}, then {repair}", BACKENDS[self.backend])
    }
}

/// The acts of a run of `duration`, one after the other, with room to see each one heal.
pub(super) fn script(duration: Duration) -> [Act; 3] {
    let act = |fault, backend, from, to| Act {
        fault,
        backend,
        fault_at: duration.mul_f64(from),
        repair_at: duration.mul_f64(to),
    };
    // A killed backend comes back when the backoff of its reconnect is over: the longest way to heal.
    [act(Fault::Kill, 0, 0.10, 0.22), act(Fault::NotServing, 1, 0.45, 0.58), act(Fault::Pause, 2, 0.70, 0.85)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_scale_with_the_duration_and_never_overlap() {
        for seconds in [6, 20, 300] {
            let duration = Duration::from_secs(seconds);
            let acts = script(duration);
            assert_eq!(acts[0].fault_at, duration / 10);
            assert!(acts.iter().all(|act| act.fault_at < act.repair_at && act.repair_at < duration));
            assert!(acts.windows(2).all(|pair| pair[0].repair_at < pair[1].fault_at));
        }
    }

    #[test]
    fn each_backend_suffers_one_fault() {
        let mut backends = script(Duration::from_secs(20)).map(|act| act.backend);
        backends.sort_unstable();
        assert_eq!(backends, [0, 1, 2]);
    }

    #[test]
    fn titles_name_the_backend() {
        let titles = script(Duration::from_secs(20)).map(|act| act.title());
        assert_eq!(
            titles,
            ["a: SIGKILL, then started again", "b: NOT_SERVING, then SERVING", "c: SIGSTOP, then SIGCONT"]
        );
    }
}
