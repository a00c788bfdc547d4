"""What the kernel tells about processes and cores (Linux)."""

import os
import resource
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CORES = sorted(os.sched_getaffinity(0))
# Above this share of one core, other programs have spoilt a measurement.
SPOILT = 0.10


def proxy_cores(workers):
    """The last cores are the proxy's."""
    return CORES[-workers:]


def load_cores(workers):
    """The rest is for the load and the backends; where there is no rest, all share."""
    return CORES[:-workers] or CORES


def family(pid):
    """A process and all its descendants, each with the fields of its `stat` from the state on."""
    fields, children = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := stat(int(name))):
            fields[int(name)] = found
            children.setdefault(int(found[1]), []).append(int(name))
    members, todo = {}, [pid]
    while todo:
        member = todo.pop()
        if member in fields:
            members[member] = fields[member]
        todo += children.get(member, [])
    return members


def stat(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:  # It has ended meanwhile.
        return None


def cpu(pid):
    """Seconds of processor time, user and system, that a family of processes has taken, to the nanosecond."""
    return sum(clock(member) for member in family(pid))


def clock(pid):
    """What clock_getcpuclockid(3) names, which Python lacks: all threads, also those that have ended."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:  # It has ended meanwhile.
        return 0.0


def split(pid):
    """User and system seconds of a family, to the tick."""
    members = family(pid).values()
    return sum(int(fields[11]) for fields in members) / TICKS, sum(int(fields[12]) for fields in members) / TICKS


def resident(pid):
    """Resident bytes of a family."""
    return sum(int(fields[21]) for fields in family(pid).values()) * PAGE


class Foreign:
    """How much of a core others take: programs that are not ours, interrupts, and other guests of the same machine."""

    def __init__(self):
        self.began, self.taken = time.monotonic(), self.read()

    @staticmethod
    def read():
        with open("/proc/stat") as file:
            user, nice, system, _idle, _wait, hard, soft, steal = map(int, file.readline().split()[1:9])
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours = sum(split(os.getpid())) + ended.ru_utime + ended.ru_stime
        return (user + nice + system + hard + soft + steal) / TICKS - ours

    def share(self):
        return max(0.0, (self.read() - self.taken) / (time.monotonic() - self.began))
