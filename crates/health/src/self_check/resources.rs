//! Checks of what the machine has left.

use std::future::ready;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_process::{Process, resident_memory};
#[cfg(unix)]
use tokio::sync::Semaphore;

use super::SelfCheck;

/// Fails while more than this share, from 0 to 1, of the memory is in use that this process's control group may use, or
/// else of the machine's. On Linux; elsewhere it fails.
///
/// The kernel kills at 1. What it can take back at once, such as idle file cache, does not count.
pub fn memory_share(most: f64) -> SelfCheck {
    let process = Process::this();
    SelfCheck::new(move || ready(within(process.memory_utilization(), most)))
}

fn within(used: Option<f64>, most: f64) -> Result<(), String> {
    match used {
        None => Err(UNKNOWN_MEMORY.to_owned()),
        Some(used) if used > most => {
            Err(format!("{:.1} % of the memory is in use, at most {:.1} % is taken", used * 100.0, most * 100.0))
        }
        Some(_) => Ok(()),
    }
}

const UNKNOWN_MEMORY: &str = "this system does not tell how much memory is in use: leave the check out";

/// Fails while more than so many bytes of memory hold this process's pages (RSS). On Linux; elsewhere it fails.
pub fn memory_resident(most: u64) -> SelfCheck {
    SelfCheck::new(move || {
        ready(match resident_memory() {
            None => Err(UNKNOWN_MEMORY.to_owned()),
            Some(used) if used > most => Err(format!("{used} bytes of memory are resident, at most {most} are taken")),
            Some(_) => Ok(()),
        })
    })
}

/// Fails while the file system of `path` has less than so many bytes that this process may still write.
///
/// It looks on a thread that may block. On a file system that hangs one thread is held, not one for each probe.
#[cfg(unix)]
pub fn disk_space(path: impl Into<PathBuf>, least_free: u64) -> SelfCheck {
    let (path, one) = (Arc::new(path.into()), Arc::new(Semaphore::new(1)));
    SelfCheck::new(move || {
        let (path, permit) = (path.clone(), one.clone().try_acquire_owned());
        async move {
            let permit = permit.map_err(|_| format!("{} does not answer", path.display()))?;
            let look = move || {
                let _permit = permit;
                free_space(&path, least_free)
            };
            tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?
        }
    })
}

#[cfg(unix)]
fn free_space(path: &std::path::Path, least: u64) -> Result<(), String> {
    let found = rustix::fs::statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < least {
        return Err(format!("{} has {free} bytes free, at least {least} are wanted", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use evenkeel_balance::CheckOutcome;
    use tokio::time::Instant;

    use super::*;

    async fn probe(mut check: SelfCheck) -> Result<(), String> {
        match check.probe_now(Instant::now()).await {
            CheckOutcome::Failed(failure) => Err(failure.to_string()),
            _ => Ok(()),
        }
    }

    #[test]
    fn memory_has_to_be_known_and_within_its_share() {
        assert_eq!(within(Some(0.9), 0.9), Ok(()));
        assert_eq!(within(Some(0.95), 0.9).unwrap_err(), "95.0 % of the memory is in use, at most 90.0 % is taken");
        assert_eq!(within(None, 0.9).unwrap_err(), UNKNOWN_MEMORY);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn memory_is_measured() {
        assert_eq!(probe(memory_share(1.0)).await, Ok(()));
        assert!(probe(memory_share(0.0)).await.unwrap_err().contains("% of the memory"));
        assert_eq!(probe(memory_resident(u64::MAX)).await, Ok(()));
        assert!(probe(memory_resident(1)).await.unwrap_err().contains("resident"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn disk_space_is_measured() {
        assert_eq!(probe(disk_space("/", 1)).await, Ok(()));
        assert!(probe(disk_space("/", u64::MAX)).await.unwrap_err().contains("bytes free"));
        assert!(probe(disk_space("/no/such/folder", 1)).await.unwrap_err().starts_with("/no/such/folder: "));
    }
}
