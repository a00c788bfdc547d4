use std::time::Duration;

use evenkeel_balance::Time;
use serde::{Deserialize, Serialize};

use super::{
    RunId,
    replica::{Replica, Role},
    roll::Roll,
    service::ServiceState,
};

/// What a service is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// How many replicas serve.
    pub serving: usize,
    /// How many there should be.
    pub wanted: usize,
    /// How far a rolling restart is; none where there is none.
    pub rolling: Option<String>,
    /// Why the last rolling restart was aborted; none where it was not.
    pub last_roll: Option<String>,
    /// Each of them, in the order of their numbers.
    pub replicas: Vec<ReplicaStatus>,
}

/// What a replica is doing, why, since when, and what comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Such as `greeter/0`.
    pub name: String,
    /// `primary`, `standby`, or `surge` for the additional one of a rolling restart.
    pub role: String,
    /// `stopped`, `waiting`, `starting`, `unready`, `serving`, `unhealthy`, `draining`, `stopping`, `killing`, `backoff`
    /// or `crash-looping`.
    pub state: String,
    /// How long it has been so, in milliseconds.
    pub for_ms: u64,
    /// Why.
    pub why: String,
    /// What happens next; empty where nothing is to be done.
    pub next: String,
    /// Its process.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Whether it fails again and again, also while it is being tried once more.
    pub crash_looping: bool,
    /// What its checks say.
    pub health: String,
    /// How its last process ended.
    pub last_exit: Option<String>,
    /// Where it takes calls; filled in by the driver.
    pub address: Option<String>,
    /// The last lines it wrote, of a replica that is out; filled in by the driver.
    pub last_lines: Vec<String>,
    /// Its present start.
    #[serde(skip)]
    pub run: Option<RunId>,
}

impl ServiceStatus {
    pub(super) fn of(now: Time, service: &ServiceState, waits_for: &[&str]) -> Self {
        let (serving, wanted) = service.counts();
        Self {
            name: service.name.to_string(),
            serving,
            wanted,
            rolling: service.roll.as_ref().map(Roll::progress),
            last_roll: service.last_roll.clone(),
            replicas: service.replicas.values().map(|replica| ReplicaStatus::of(now, replica, waits_for)).collect(),
        }
    }
}

impl ReplicaStatus {
    fn of(now: Time, replica: &Replica, waits_for: &[&str]) -> Self {
        let role = match replica.role {
            Role::Primary => "primary",
            Role::Standby => "standby",
            Role::Surge => "surge",
        };
        Self {
            name: replica.name.to_string(),
            role: role.to_owned(),
            state: replica.state().name().to_owned(),
            for_ms: millis(now.since(replica.since())),
            why: replica.why().to_owned(),
            next: replica.state().next(now, waits_for),
            pid: replica.pid(),
            restarts: replica.restarts(),
            crash_looping: replica.is_crash_looping(),
            health: replica.health().to_owned(),
            last_exit: replica.last_exit().map(|exit| exit.to_string()),
            address: None,
            last_lines: Vec::new(),
            run: replica.run(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
