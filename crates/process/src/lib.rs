//! What this process uses of what it may use: processors and memory, within the limits of its control group.

mod cgroup;

use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use cgroup::Cgroup;

/// The process, and the limits that hold for it.
#[derive(Debug)]
pub struct Process {
    cgroup: Cgroup,
}

impl Process {
    /// This process, and the control groups that it is in now.
    pub fn this() -> Self {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self { cgroup: Cgroup::find(Path::new("/sys/fs/cgroup"), &membership) }
    }

    /// Time on processors since the start, of all threads together.
    #[cfg(unix)]
    pub fn busy() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::try_from(time).unwrap_or_default()
    }

    /// Not known on this system.
    #[cfg(not(unix))]
    pub fn busy() -> Duration {
        Duration::ZERO
    }

    /// How many processors it may use: a fraction where a quota says so. `None` if the system does not tell.
    pub fn processors(&self) -> Option<f64> {
        let parallelism = thread::available_parallelism().ok()?.get();
        Some(within(self.cgroup.processors(), f64::from(u32::try_from(parallelism).ok()?)))
    }

    /// Share in use of the memory that it may use: of its control group's limit, or else of the machine's memory.
    /// `None` where neither is told.
    pub fn memory_utilization(&self) -> Option<f64> {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| Memory::of_meminfo(&text))?;
        self.cgroup.memory(machine.limit).unwrap_or(machine).utilization()
    }
}

/// Bytes of memory that hold this process's pages now (RSS); `None` where the system does not tell.
pub fn resident_memory() -> Option<u64> {
    resident_of_status(&fs::read_to_string("/proc/self/status").ok()?)
}

/// From the text of `/proc/self/status`.
fn resident_of_status(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The standard library rounds a quota down, though not below 1, and counts the processors that the process is bound to.
/// So a quota holds with its fraction, unless there are fewer processors than whole ones in it.
fn within(quota: Option<f64>, parallelism: f64) -> f64 {
    quota.filter(|quota| quota.floor().max(1.0) <= parallelism).unwrap_or(parallelism)
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    used: u64,
    limit: u64,
}

impl Memory {
    /// The machine's, from the text of `/proc/meminfo`. What the kernel can give back at once does not count as used.
    fn of_meminfo(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let limit = field("MemTotal")?;
        Some(Self { used: limit.saturating_sub(field("MemAvailable")?), limit })
    }

    /// `None` for a limit of nothing.
    #[allow(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
    fn utilization(self) -> Option<f64> {
        (self.limit > 0).then(|| (self.used as f64 / self.limit as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_tells_what_is_used() {
        let text = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    4000 kB\nBuffers: 12 kB\n";
        let memory = Memory::of_meminfo(text).unwrap();
        assert_eq!(memory, Memory { used: 12_000 * 1024, limit: 16_000 * 1024 });
        assert_eq!(memory.utilization(), Some(0.75));
        for broken in ["", "MemTotal: 16000 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n", "MemTotal 1\nMemAvailable 1"]
        {
            assert_eq!(Memory::of_meminfo(broken), None, "{broken:?}");
        }
        assert_eq!(Memory { used: 0, limit: 0 }.utilization(), None);
    }

    #[test]
    fn resident_memory_is_what_the_kernel_says() {
        assert_eq!(resident_of_status("Name:\tx\nVmRSS:\t    5120 kB\n"), Some(5120 * 1024));
        for broken in ["", "VmRSS:\t x kB", "VmRSS: 1", "VmRSS: 99999999999999999999 kB"] {
            assert_eq!(resident_of_status(broken), None, "{broken:?}");
        }
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "they come out as they went in")]
    fn a_quota_counts_with_its_fraction() {
        assert_eq!(within(None, 4.0), 4.0);
        assert_eq!(within(Some(0.5), 1.0), 0.5);
        assert_eq!(within(Some(1.5), 1.0), 1.5);
        assert_eq!(within(Some(8.0), 4.0), 4.0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_measured() {
        let process = Process::this();
        let before = Process::busy();
        while Process::busy() == before {}
        assert!(process.processors().unwrap() > 0.0);
        assert!(resident_memory().unwrap() > 0);
        let memory = process.memory_utilization().unwrap();
        assert!(memory > 0.0 && memory <= 1.0, "{memory}");
    }
}
