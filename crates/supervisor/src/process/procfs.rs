//! What `/proc` says of a process.

use std::{collections::BTreeMap, fs, io};

/// The parts of `/proc/PID/stat` that are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    /// Its name, cut to 15 bytes by the kernel.
    pub(super) command: String,
    pub(super) is_dead: bool,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// User and system time, in clock ticks.
    pub(super) cpu: u64,
    pub(super) threads: u64,
    /// In clock ticks since boot. With the pid, it names a process for good.
    pub(super) started: u64,
    /// Resident memory, in pages.
    pub(super) resident: u64,
}

impl Stat {
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there is no such process.
    pub(super) fn read(pid: i32) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).map_err(gone)?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat cannot be understood: {text:?}")))
    }

    pub(super) fn of_ourselves() -> io::Result<Self> {
        Self::read(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// The name stands in parentheses and may itself contain any of them, so that the last one ends it.
    fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(')')?;
        let (pid, command) = head.split_once(" (")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let id = |index: usize| fields.get(index)?.parse::<i32>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            command: command.to_owned(),
            is_dead: matches!(*fields.first()?, "Z" | "X" | "x"),
            parent: id(1)?,
            group: id(2)?,
            session: id(3)?,
            cpu: number(11)?.saturating_add(number(12)?),
            threads: number(17)?,
            started: number(19)?,
            resident: number(21)?,
        })
    }
}

/// Every process that can be seen now, by its pid. Those that end while they are read are left out.
///
/// # Errors
/// Where `/proc` cannot be listed.
pub(super) fn processes() -> io::Result<BTreeMap<i32, Stat>> {
    let entries = fs::read_dir("/proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    Ok(pids.filter_map(|pid| Stat::read(pid).ok().map(|stat| (pid, stat))).collect())
}

/// A process that ends between opening its file and reading it answers ESRCH.
fn gone(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) {
        io::Error::from(io::ErrorKind::NotFound)
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_spaces_are_read() {
        let line = "7 (a) (b c) S 1 7 6 0 -1 4194304 9 0 0 0 30 12 0 0 20 0 3 0 88123 1024 55 18446744073709551615 1";
        let stat = Stat::parse(line).expect("a line as the kernel writes it");
        assert_eq!((stat.pid, stat.command.as_str(), stat.is_dead), (7, "a) (b c", false));
        assert_eq!((stat.parent, stat.group, stat.session), (1, 7, 6));
        assert_eq!((stat.cpu, stat.threads, stat.started, stat.resident), (42, 3, 88123, 55));
        assert_eq!([Stat::parse(""), Stat::parse("7 (a"), Stat::parse("7 (a) S 1")], [None, None, None]);
    }

    #[test]
    fn we_are_among_the_processes() {
        let ourselves = Stat::of_ourselves().expect("/proc is mounted");
        let all = processes().expect("/proc is mounted");
        assert_eq!(all.get(&ourselves.pid).map(|stat| stat.started), Some(ourselves.started));
        assert_eq!(Stat::read(i32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
