//! What a process uses.

use std::{io, time::Duration};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    time::{ClockId, clock_gettime},
};
use serde::Serialize;

use super::procfs::Stat;

/// What the process that was started uses; not what it has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Facts {
    /// Resident memory, in bytes, pages that it shares with others included.
    pub resident: u64,
    /// Processor time since its start, its own and the kernel's for it.
    pub cpu: Duration,
    /// Since it was started.
    pub uptime: Duration,
    /// How many threads it has.
    pub threads: u64,
}

impl Facts {
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it has ended.
    pub(super) fn of(leader: &Stat) -> io::Result<Self> {
        let now = Stat::read(leader.pid)?;
        if now.started != leader.started || now.is_dead {
            return Err(io::ErrorKind::NotFound.into());
        }
        let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        Ok(Self {
            resident: now.resident.saturating_mul(page_size() as u64),
            cpu: ticks(now.cpu),
            uptime: since_boot.saturating_sub(ticks(now.started)),
            threads: now.threads,
        })
    }
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000) / clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_use_something() {
        let facts = Facts::of(&Stat::of_ourselves().unwrap()).unwrap();
        assert!(facts.resident > 100_000 && facts.threads >= 1, "{facts:?}");
        assert!(facts.uptime < Duration::from_secs(3600), "{facts:?}");
        let gone = Stat { started: 1, ..Stat::of_ourselves().unwrap() };
        assert_eq!(Facts::of(&gone).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
