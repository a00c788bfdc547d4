//! Self-checks: a server looks after what its services need, and shows them SERVING only while that is well.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use evenkeel_proto::demo::echo_server::{Echo, EchoServer};
//! # async fn ping_database() -> std::io::Result<()> { Ok(()) }
//! # fn check<MyEcho: Echo>() -> Result<(), evenkeel_health::self_check::SelfCheckError> {
//! use evenkeel_health::self_check::{SelfCheck, event_loop, grpc, memory_share, needs};
//!
//! let (reporter, health) = evenkeel_health::service();
//! let checks = reporter
//!     .self_checks()
//!     .check("database", SelfCheck::new(ping_database).every(Duration::from_secs(5)).fall(3))
//!     .check("stock", grpc("stock.internal:50051", "shop.v1.Stock"))
//!     .check("event loop", event_loop(Duration::from_millis(500)))
//!     .check("memory", memory_share(0.95))
//!     .service::<EchoServer<MyEcho>>(needs(["database"]).reports(["stock", "event loop", "memory"]))
//!     .start()?;
//! # Ok(()) }
//! ```
//!
//! - A **check** is a name and a probe: an async function that says that all is well, or what is not. It is probed
//!   at an interval; so many failures in a row make it fail, so many successes in a row make it pass again. How that
//!   goes in detail is `evenkeel_balance::Check`'s to say.
//! - A **service** *needs* some checks: while one of them fails it shows `NOT_SERVING`, and UNKNOWN before each has
//!   been probed once. It *reports* others: they are degraded, which is logged, counted and told by
//!   [`Reporter::explain`](crate::Reporter::explain), and callers are told nothing.
//! - The whole **server**, `""`, needs what any of its services needs, unless [`SelfChecks::server`] says otherwise.
//!
//! What is set by hand wins where it is worse: a service that is set to `NOT_SERVING` stays so, whatever its checks find.
//! Checks do not depend on each other: a service lists all that it needs.
//!
//! # A warning
//! A service that needs a database that all its instances share goes out with them all at once when that database fails;
//! and then callers get no answer where they might have got a good error, or what does not need the database. Need
//! what is this instance's own trouble, and report the rest, unless nothing works without it.

mod board;
mod check;
mod explanation;
mod probes;
mod resources;
mod run;
mod stall;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use evenkeel_balance::{CheckSettings, CheckSettingsError, CheckVerdict};
pub use evenkeel_checker::{Probe, ProbeError};
use tonic::server::NamedService;

pub(crate) use self::board::Board;
use self::board::{Dependants, Member};
pub use self::check::SelfCheck;
pub use self::explanation::{CheckStanding, Explanation, ServiceStanding};
pub use self::probes::{grpc, http, probe, tcp};
#[cfg(unix)]
pub use self::resources::disk_space;
pub use self::resources::{memory_resident, memory_share};
pub use self::run::RunningSelfChecks;
pub use self::stall::event_loop;
use crate::Reporter;

/// Self-checks before they run: which there are, and which services need them.
#[derive(Debug)]
#[must_use = "self-checks do nothing before they are started"]
pub struct SelfChecks {
    reporter: Reporter,
    checks: Vec<(Arc<str>, SelfCheck)>,
    services: Vec<(String, Needs)>,
    server: Option<Needs>,
}

/// The checks that a service needs, and those that it only reports; made by [`needs`] or [`reports`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    critical: Vec<String>,
    degraded: Vec<String>,
}

/// The service shows SERVING only while all of these pass.
pub fn needs<N: Into<String>>(checks: impl IntoIterator<Item = N>) -> Needs {
    Needs { critical: checks.into_iter().map(Into::into).collect(), degraded: Vec::new() }
}

/// The service goes on without these; that they fail is reported.
pub fn reports<N: Into<String>>(checks: impl IntoIterator<Item = N>) -> Needs {
    Needs::default().reports(checks)
}

impl Needs {
    /// It goes on without these as well; that they fail is reported.
    #[must_use]
    pub fn reports<N: Into<String>>(mut self, checks: impl IntoIterator<Item = N>) -> Self {
        self.degraded.extend(checks.into_iter().map(Into::into));
        self
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.critical.iter().chain(&self.degraded)
    }
}

/// Why self-checks cannot start.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SelfCheckError {
    /// Two checks have one name.
    #[error("two self-checks are called {0:?}: give each a name of its own")]
    SameName(String),
    /// A service needs or reports a check that there is not.
    #[error("service {service:?} depends on a self-check {check:?}, and there is none of that name")]
    NoSuchCheck {
        /// The service; `""` is the whole server.
        service: String,
        /// The name that it gives.
        check: String,
    },
    /// A service is given twice.
    #[error("service {0:?} is given twice: list what it needs once")]
    SameService(String),
    /// A check's times or thresholds make no sense.
    #[error("self-check {check:?} cannot run")]
    Settings {
        /// The check's name.
        check: String,
        /// What is wrong.
        #[source]
        error: CheckSettingsError,
    },
    /// Self-checks of this reporter run already.
    #[error("self-checks of this reporter run already: drop those first, or give all of them at once")]
    Running,
}

impl SelfChecks {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Self { reporter, checks: Vec::new(), services: Vec::new(), server: None }
    }

    /// Adds a check. Its name is for services to refer to, and for logs, metrics and people.
    pub fn check(mut self, name: impl Into<String>, check: SelfCheck) -> Self {
        self.checks.push((Arc::from(name.into()), check));
        self
    }

    /// Says what the service of a generated server, such as `EchoServer<MyEcho>`, needs.
    pub fn service<S: NamedService>(self, needs: Needs) -> Self {
        self.service_named(S::NAME, needs)
    }

    /// Says what a service needs, by its full name.
    pub fn service_named(mut self, name: impl Into<String>, needs: Needs) -> Self {
        self.services.push((name.into(), needs));
        self
    }

    /// Says what the whole server, `""`, needs. Default: all that any of its services needs and reports, or all checks if no
    /// service is given.
    pub fn server(mut self, needs: Needs) -> Self {
        self.server = Some(needs);
        self
    }

    /// Probes from now on, until what is returned is dropped, a drain begins, or no reporter is left.
    ///
    /// Services that are not registered yet are registered as SERVING, which they show once their checks allow it.
    /// When the checks stop without a drain, services show what was set by hand.
    ///
    /// # Errors
    /// When what was given does not fit together.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    pub fn start(self) -> Result<RunningSelfChecks, SelfCheckError> {
        self.validate()?;
        let dependants = self.dependants();
        let board = Arc::new(Board::new(self.checks.iter().map(|(name, _)| name.clone()), dependants));
        self.reporter.set_board(&board)?;
        Ok(RunningSelfChecks::start(&self.reporter, board, self.checks))
    }

    fn validate(&self) -> Result<(), SelfCheckError> {
        let mut names = BTreeSet::new();
        for (name, check) in &self.checks {
            if !names.insert(&**name) {
                return Err(SelfCheckError::SameName(name.to_string()));
            }
            let settings = |error| SelfCheckError::Settings { check: name.to_string(), error };
            check.settings().validate().map_err(settings)?;
        }
        let mut services = BTreeSet::new();
        for (service, needs) in self.given() {
            if !services.insert(service) {
                return Err(SelfCheckError::SameService(service.to_owned()));
            } else if let Some(check) = needs.all().find(|check| !names.contains(check.as_str())) {
                return Err(SelfCheckError::NoSuchCheck { service: service.to_owned(), check: check.clone() });
            }
        }
        Ok(())
    }

    /// The services that were given, the server among them if it was.
    fn given(&self) -> impl Iterator<Item = (&str, &Needs)> {
        let services = self.services.iter().map(|(name, needs)| (name.as_str(), needs));
        services.chain(self.server.iter().map(|needs| ("", needs)))
    }

    fn dependants(&self) -> Vec<Dependants> {
        let server = (!self.given().any(|(name, _)| name.is_empty())).then(|| self.server_by_default());
        let given = self.given().chain(server.iter().map(|needs| ("", needs)));
        given.map(|(name, needs)| self.dependants_of(name, needs)).collect()
    }

    fn server_by_default(&self) -> Needs {
        if self.services.is_empty() {
            return needs(self.checks.iter().map(|(name, _)| name.to_string()));
        }
        let of_any = |pick: fn(&Needs) -> &Vec<String>| -> BTreeSet<String> {
            self.services.iter().flat_map(|(_, needs)| pick(needs)).cloned().collect()
        };
        let critical = of_any(|needs| &needs.critical);
        let degraded = of_any(|needs| &needs.degraded);
        needs(critical.clone()).reports(degraded.difference(&critical).cloned())
    }

    fn dependants_of(&self, service: &str, needs: &Needs) -> Dependants {
        let members = |names: &[String], critical| -> Vec<Member> {
            let at = |name: &String| self.checks.iter().position(|(check, _)| **check == **name);
            names.iter().filter_map(at).map(|check| Member { check, critical }).collect()
        };
        let members = [members(&needs.critical, true), members(&needs.degraded, false)].concat();
        Dependants { service: service.to_owned(), members }
    }
}
