//! What every check has found, and what follows for the services. Sans-IO.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use evenkeel_balance::{CheckReason, CheckVerdict};

use crate::ServingStatus;

/// The standing of all checks, shared by their tasks and by whoever asks.
#[derive(Debug)]
pub(crate) struct Board {
    /// Empty once they have stopped.
    checks: Mutex<Vec<Standing>>,
    services: Vec<Dependants>,
}

/// What a check has found.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) name: Arc<str>,
    pub(super) verdict: CheckVerdict,
    pub(super) reason: CheckReason,
    pub(super) since: SystemTime,
}

/// A service and the checks that it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dependants {
    pub(super) service: String,
    pub(super) members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its place in the list of checks.
    pub(super) check: usize,
    pub(super) critical: bool,
}

impl Board {
    pub(super) fn new(checks: impl IntoIterator<Item = Arc<str>>, services: Vec<Dependants>) -> Self {
        let since = SystemTime::now();
        let unprobed = |name| Standing { name, verdict: CheckVerdict::Pending, reason: CheckReason::Unprobed, since };
        Self { checks: Mutex::new(checks.into_iter().map(unprobed).collect()), services }
    }

    pub(super) fn services(&self) -> &[Dependants] {
        &self.services
    }

    /// The standing of each check, in the order in which they were given. As long as it is held, nothing changes.
    pub(super) fn checks(&self) -> MutexGuard<'_, Vec<Standing>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dependants {
    /// What the checks allow the service to show.
    pub(super) fn allowed(&self, checks: &[Standing]) -> ServingStatus {
        let mut allowed = ServingStatus::Serving;
        for check in self.failing(checks, true) {
            match check.verdict {
                CheckVerdict::Pending => allowed = ServingStatus::Unknown,
                _ => return ServingStatus::NotServing,
            }
        }
        allowed
    }

    /// Its checks that do not pass: those that it needs, or those that it only reports.
    pub(super) fn failing<'a>(&self, checks: &'a [Standing], critical: bool) -> impl Iterator<Item = &'a Standing> {
        let members = self.members.iter().filter(move |member| member.critical == critical);
        members.filter_map(|member| checks.get(member.check)).filter(|check| !check.verdict.is_healthy())
    }
}

#[cfg(test)]
mod tests {
    use CheckVerdict::{Healthy, Pending, Unhealthy};
    use ServingStatus::{NotServing, Serving, Unknown};

    use super::*;

    #[test]
    fn a_service_serves_only_while_all_that_it_needs_is_well() {
        let board = Board::new(["a", "b", "c"].map(Arc::from), Vec::new());
        let member = |check, critical| Member { check, critical };
        let members = vec![member(0, true), member(1, true), member(2, false)];
        let service = Dependants { service: "s".to_owned(), members };
        for (verdicts, allowed, held, degraded) in [
            ([Pending, Pending, Pending], Unknown, vec!["a", "b"], vec!["c"]),
            ([Healthy, Pending, Healthy], Unknown, vec!["b"], vec![]),
            ([Unhealthy, Pending, Healthy], NotServing, vec!["a", "b"], vec![]),
            ([Healthy, Healthy, Unhealthy], Serving, vec![], vec!["c"]),
            ([Healthy, Unhealthy, Healthy], NotServing, vec!["b"], vec![]),
        ] {
            let mut checks = board.checks();
            for (check, verdict) in checks.iter_mut().zip(verdicts) {
                check.verdict = verdict;
            }
            assert_eq!(service.allowed(&checks), allowed, "{verdicts:?}");
            let names = |critical| service.failing(&checks, critical).map(|check| &*check.name).collect::<Vec<_>>();
            assert_eq!((names(true), names(false)), (held, degraded), "{verdicts:?}");
        }
    }
}
