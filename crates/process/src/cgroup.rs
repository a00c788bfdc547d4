//! Limits of Linux control groups, of either version.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::Memory;

/// The folders of the groups whose limits hold for a process: its own and those above it. Limits may change while it
/// runs, so they are read anew each time.
#[derive(Debug)]
pub(super) struct Cgroup {
    processors: Vec<PathBuf>,
    memory: Vec<PathBuf>,
}

impl Cgroup {
    /// `membership` is the text of `/proc/self/cgroup`. In a container its paths may be the host's, while the mount has
    /// only what is inside: then the root of the mount is all that is found.
    pub(super) fn find(mount: &Path, membership: &str) -> Self {
        let folders = |controller: &str| {
            let groups = membership.lines().filter_map(|line| group_of(mount, line, controller));
            groups.flat_map(|(root, group)| folders_between(&root, &group)).collect()
        };
        Self { processors: folders("cpu"), memory: folders("memory") }
    }

    /// The smallest quota, in processors; `None` without one.
    pub(super) fn processors(&self) -> Option<f64> {
        self.processors.iter().filter_map(|folder| processors_of(folder)).min_by(f64::total_cmp)
    }

    /// The memory of the group with the smallest limit that is below the machine's.
    pub(super) fn memory(&self, machine: u64) -> Option<Memory> {
        let limited = self.memory.iter().filter_map(|folder| memory_of(folder));
        limited.filter(|memory| memory.limit < machine).min_by_key(|memory| memory.limit)
    }
}

/// The root of a hierarchy and the path in it, if this line of `/proc/self/cgroup` is of the one that has this
/// controller. A line is `id:controllers:path`; version 2 names no controllers, and has all of them.
fn group_of(mount: &Path, line: &str, controller: &str) -> Option<(PathBuf, PathBuf)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let root = match controllers {
        "" => mount.to_owned(),
        _ if controllers.split(',').any(|name| name == controller) => mount.join(controller),
        _ => return None,
    };
    let names = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
    Some((root, names.collect()))
}

fn folders_between(root: &Path, group: &Path) -> Vec<PathBuf> {
    group.ancestors().map(|part| root.join(part)).filter(|folder| folder.is_dir()).collect()
}

fn processors_of(folder: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    match read("cpu.max") {
        Some(text) => text.split_once(' ').and_then(|(quota, period)| quota_of(quota, period)),
        None => quota_of(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?),
    }
}

/// Microseconds on processors in each period of so many; `max` and -1 mean no quota.
fn quota_of(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.trim().parse::<u32>().ok()?, period.trim().parse::<u32>().ok()?);
    (quota > 0 && period > 0).then(|| f64::from(quota) / f64::from(period))
}

fn memory_of(folder: &Path) -> Option<Memory> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let bytes = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = bytes("memory.max").or_else(|| bytes("memory.limit_in_bytes"))?;
    let charged = bytes("memory.current").or_else(|| bytes("memory.usage_in_bytes"))?;
    let cache = read("memory.stat").and_then(|text| idle_cache(&text)).unwrap_or_default();
    Some(Memory { used: charged.saturating_sub(cache), limit })
}

/// Bytes of file cache that the kernel takes back first, from the text of `memory.stat`. Version 1 has the whole tree's
/// under another name, and under this one the group's own.
fn idle_cache(stat: &str) -> Option<u64> {
    let field = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    };
    field("total_inactive_file").or_else(|| field("inactive_file"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A mount with these files, in a folder of its own.
    fn mount(name: &str, files: &[(&str, &str)]) -> io::Result<PathBuf> {
        let mount = std::env::temp_dir().join(format!("evenkeel-process-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = mount.join(path);
            fs::create_dir_all(path.parent().expect("the files are below the mount"))?;
            fs::write(path, text)?;
        }
        Ok(mount)
    }

    #[test]
    fn version_2_limits_come_from_the_group_and_those_above() -> io::Result<()> {
        let mount = mount(
            "v2",
            &[
                ("a/cpu.max", "150000 100000\n"),
                ("a/memory.max", "max\n"),
                ("a/b/cpu.max", "max 100000\n"),
                ("a/b/memory.max", "1000\n"),
                ("a/b/memory.current", "700\n"),
                ("a/b/memory.stat", "anon 500\ninactive_file 200\nactive_file 10\n"),
            ],
        )?;
        let cgroup = Cgroup::find(&mount, "0::/a/b\n");
        assert_eq!(cgroup.processors(), Some(1.5));
        assert_eq!(cgroup.memory(10_000), Some(Memory { used: 500, limit: 1000 }));
        assert_eq!(cgroup.memory(1000), None, "a limit that is no less than the machine's is none");
        fs::remove_dir_all(mount)
    }

    #[test]
    fn version_1_limits_come_from_each_controllers_own_hierarchy() -> io::Result<()> {
        let mount = mount(
            "v1",
            &[
                ("cpu/cpu.cfs_quota_us", "50000\n"),
                ("cpu/cpu.cfs_period_us", "100000\n"),
                ("memory/x/memory.limit_in_bytes", "4000\n"),
                ("memory/x/memory.usage_in_bytes", "3000\n"),
                ("memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n"),
            ],
        )?;
        let membership = "9:cpuset:/\n4:memory:/x\n2:cpu,cpuacct:/host/only\n0::/\n";
        let cgroup = Cgroup::find(&mount, membership);
        assert_eq!(cgroup.processors(), Some(0.5));
        assert_eq!(cgroup.memory(10_000), Some(Memory { used: 2000, limit: 4000 }));
        fs::remove_dir_all(mount)
    }

    #[test]
    fn what_says_no_limit_or_nothing_is_none() {
        assert_eq!(quota_of("max", "100000"), None);
        assert_eq!(quota_of("-1\n", "100000\n"), None);
        assert_eq!(quota_of("50000", "0"), None);
        let nowhere = Cgroup::find(Path::new("/nowhere"), "0::/a\nnot a line\n1:memory\n");
        assert_eq!(nowhere.processors(), None);
        assert_eq!(nowhere.memory(u64::MAX), None);
    }

    #[test]
    fn a_path_cannot_lead_out_of_the_mount() {
        let (root, group) = group_of(Path::new("/m"), "0::/../../a", "cpu").unwrap();
        assert_eq!((root, group), (PathBuf::from("/m"), PathBuf::from("a")));
    }
}
