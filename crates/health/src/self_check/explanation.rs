use std::fmt;
use std::time::{Duration, SystemTime};

use evenkeel_balance::CheckVerdict;

use super::board::{Board, Standing};
use crate::ServingStatus;

/// Why services show what they show, at one moment. Its `Display` is for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The registered services, by name; `""` is the whole server.
    pub services: Vec<ServiceStanding>,
    /// The self-checks, in the order in which they were given; none if none run.
    pub checks: Vec<CheckStanding>,
}

/// What a service shows, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceStanding {
    /// Its full name.
    pub name: String,
    /// What callers are told.
    pub status: ServingStatus,
    /// What was set by hand.
    pub by_hand: ServingStatus,
    /// The checks that it needs and that do not pass.
    pub held_by: Vec<String>,
    /// The checks that it only reports and that do not pass.
    pub degraded_by: Vec<String>,
}

/// What a self-check has found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckStanding {
    /// Its name.
    pub name: String,
    /// What its probes come to.
    pub verdict: CheckVerdict,
    /// Why.
    pub reason: String,
    /// Since when, for this reason.
    pub since: SystemTime,
}

impl Explanation {
    /// Of services with what they show and what was set by hand.
    ///
    /// They are asked for while the board is locked, as by a check that turns: whoever locks both the board and the
    /// registry begins with the board.
    pub(crate) fn of(
        board: Option<&Board>,
        services: impl FnOnce() -> Vec<(String, ServingStatus, ServingStatus)>,
    ) -> Self {
        let locked = board.map(Board::checks);
        let services = services();
        let checks = locked.map(|checks| checks.clone()).unwrap_or_default();
        let names = |service: &str, critical: bool| -> Vec<String> {
            let dependants = board.into_iter().flat_map(Board::services).filter(|known| known.service == service);
            dependants.flat_map(|known| known.failing(&checks, critical)).map(|check| check.name.to_string()).collect()
        };
        let explain = |(name, status, by_hand): (String, ServingStatus, ServingStatus)| ServiceStanding {
            held_by: names(&name, true),
            degraded_by: names(&name, false),
            name,
            status,
            by_hand,
        };
        let services = services.into_iter().map(explain).collect();
        Self { services, checks: checks.iter().map(CheckStanding::of).collect() }
    }
}

impl CheckStanding {
    fn of(check: &Standing) -> Self {
        let Standing { name, verdict, reason, since } = check;
        Self { name: name.to_string(), verdict: *verdict, reason: reason.to_string(), since: *since }
    }
}

/// A service a line, then a check a line.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for service in &self.services {
            writeln!(f, "{service}")?;
        }
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))
    }
}

impl fmt::Display for ServiceStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {:?}: {}", self.name, self.status)?;
        if self.by_hand != ServingStatus::Serving {
            write!(f, ", set to {} by hand", self.by_hand)?;
        }
        if !self.held_by.is_empty() {
            write!(f, ", held by {}", self.held_by.join(", "))?;
        }
        if !self.degraded_by.is_empty() {
            write!(f, ", degraded by {}", self.degraded_by.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for CheckStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.elapsed().unwrap_or_default();
        let seconds = Duration::from_secs(since.as_secs());
        write!(f, "check {:?}: {} for {seconds:?}: {}", self.name, self.verdict, self.reason)
    }
}
