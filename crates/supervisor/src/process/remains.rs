//! Which processes of a replica still run, wherever they have gone, and how to signal them and nobody else.
//!
//! As the subreaper, the supervisor is an ancestor of every process that its children have ever started. Among those, a
//! process is a replica's if it or an ancestor of it is the one that was started, is in its process group or session, or
//! carries its mark. What was once seen to be stays it. A process escapes that only by all three, before anybody has
//! looked: it leaves the session, clears its environment, and outlives its ancestors. Then it is still known to be a
//! stray of some replica.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};

use super::{Marker, Signal, procfs, procfs::Stat};

/// A process that is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remain {
    /// Its number.
    pub pid: i32,
    /// Its name, as the kernel has it: 15 bytes at most.
    pub command: String,
    group: i32,
    started: u64,
}

impl fmt::Display for Remain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pid, self.command)
    }
}

impl Remain {
    fn new(stat: &Stat) -> Self {
        Self { pid: stat.pid, command: stat.command.clone(), group: stat.group, started: stat.started }
    }

    /// Sends a signal to this process and to no other that may have got its number since. No error if it is gone.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        // The descriptor holds on to whichever process has the number now; then that is compared.
        let sent = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) if self.is_there() => pidfd_send_signal(descriptor, signal),
            // Before Linux 5.3, a moment remains in which the number could change hands.
            Err(rustix::io::Errno::NOSYS) if self.is_there() => kill_process(pid, signal),
            Ok(_) | Err(rustix::io::Errno::NOSYS) => return Ok(()),
            Err(error) => Err(error),
        };
        match sent {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn is_there(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.started == self.started && !stat.is_dead)
    }
}

/// How the processes of a replica are known. Clones share what was seen.
#[derive(Clone, Debug)]
pub(super) struct Kin {
    pub(super) supervisor: i32,
    pub(super) replica: String,
    pub(super) leader: Stat,
    pub(super) marker: Marker,
    /// Those that were seen last, by pid and start.
    seen: Arc<Mutex<BTreeSet<(i32, u64)>>>,
}

impl Kin {
    pub(super) fn new(supervisor: i32, replica: String, leader: Stat, marker: Marker) -> Self {
        Self { supervisor, replica, leader, marker, seen: Arc::default() }
    }

    /// Those that run now, the first process included. Zombies do not count: they are dead already.
    pub(super) fn remains(&self) -> io::Result<Vec<Remain>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = Family { kin: self, seen: &seen, processes: procfs::processes()?, is_kin: BTreeMap::new() };
        let running: Vec<Stat> = family.processes.values().filter(|stat| !stat.is_dead).cloned().collect();
        let remains: Vec<Remain> = running.iter().filter(|stat| family.has(stat.pid)).map(Remain::new).collect();
        *seen = remains.iter().map(|remain| (remain.pid, remain.started)).collect();
        Ok(remains)
    }

    /// Whether a signal to the process group reaches it.
    pub(super) fn is_in_group(&self, remain: &Remain) -> bool {
        remain.group == self.leader.pid
    }

    fn is_kin_by_itself(&self, stat: &Stat, processes: &BTreeMap<i32, Stat>) -> bool {
        let leader = &self.leader;
        let now = processes.get(&leader.pid);
        // Group and session have the number of their first process, which may be another's by now.
        let is_number_ours = now.is_none_or(|now| now.started == leader.started);
        let by_number = is_number_ours && [stat.pid, stat.group, stat.session].contains(&leader.pid);
        // An environment that may not be read tells nothing; its ancestors still may.
        by_number || self.marker.is_on(stat.pid).unwrap_or(false)
    }
}

/// Every descendant of the supervisor that runs now, but for those of which `is_known` holds and their descendants.
pub(super) fn strays(supervisor: i32, is_known: impl Fn(i32) -> bool) -> io::Result<Vec<Remain>> {
    let processes = procfs::processes()?;
    let is_stray = |stat: &Stat| {
        // The picture is not of one moment; the bound holds even if it shows a circle.
        let mut line = std::iter::successors(Some(stat), |stat| processes.get(&stat.parent)).take(processes.len());
        let end = line.find(|stat| is_known(stat.pid) || stat.parent == supervisor);
        end.is_some_and(|stat| !is_known(stat.pid))
    };
    let running = processes.values().filter(|stat| !stat.is_dead && stat.pid != supervisor);
    Ok(running.filter(|stat| is_stray(stat)).map(Remain::new).collect())
}

/// A search through one picture of all processes.
struct Family<'a> {
    kin: &'a Kin,
    seen: &'a BTreeSet<(i32, u64)>,
    processes: BTreeMap<i32, Stat>,
    /// What is known already, so that the search is not quadratic in a long line of descent.
    is_kin: BTreeMap<i32, bool>,
}

impl Family<'_> {
    /// Goes up to the supervisor; then down again, where one that is kin makes all below it so.
    fn has(&mut self, pid: i32) -> bool {
        let mut line = Vec::new();
        let mut at = pid;
        let mut is_kin = loop {
            if let Some(known) = self.is_kin.get(&at) {
                break *known;
            }
            if at == self.kin.supervisor {
                break false;
            }
            // The picture is not of one moment, so that a line may break off; what has no way to us is not ours.
            let Some(stat) = self.processes.get(&at).filter(|stat| !line.contains(&stat.pid)) else {
                self.is_kin.extend(line.into_iter().map(|pid| (pid, false)));
                return false;
            };
            line.push(at);
            at = stat.parent;
        };
        for pid in line.into_iter().rev() {
            let stat = &self.processes[&pid];
            is_kin = is_kin
                || self.seen.contains(&(stat.pid, stat.started))
                || self.kin.is_kin_by_itself(stat, &self.processes);
            self.is_kin.insert(pid, is_kin);
        }
        is_kin
    }
}
