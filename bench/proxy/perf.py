"""Where a proxy's time goes: `perf record` while h2load calls it; then the split, and the symbols that cost most."""

import argparse
import re
import signal
import subprocess
import sys

from measure import machine
from measure.proxies import CACHE, PROXIES, Missing
from measure.stage import Stage
from run import allow_many_files, alone


def main():
    parser = argparse.ArgumentParser(prog="bench/proxy/profile.sh", description=__doc__)
    parser.add_argument("proxy", choices=PROXIES)
    parser.add_argument("connections", type=int)
    parser.add_argument("streams", type=int)
    parser.add_argument("seconds", type=float, nargs="?", default=5.0)
    parser.add_argument("--symbols", type=int, default=40, help="how many to show (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    allow_many_files()
    with alone(), Stage(options.proxy) as stage:
        profile(stage, options)


def profile(stage, options):
    recorded = CACHE / f"{options.proxy}-{options.connections}x{options.streams}.perf"
    _, _, speed = stage.h2load(options.connections, options.streams, 4000)
    members = ",".join(map(str, machine.family(stage.measured.pid)))
    # By the clock, since virtual machines often have no counters of cycles.
    perf = stage.start(machine.load_cores(1), ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", "1999",
                                               "-g", "--pid", members, "--output", str(recorded)])
    foreign, user, system = machine.Foreign(), *machine.split(stage.measured.pid)
    ok, failed, speed = stage.h2load(options.connections, options.streams, int(speed * options.seconds))
    others, (user_after, system_after) = foreign.share(), machine.split(stage.measured.pid)
    perf.send_signal(signal.SIGINT)
    perf.wait(30)
    user, system = (user_after - user) / ok * 1e6, (system_after - system) / ok * 1e6
    print(f"{options.proxy} {options.connections}x{options.streams}: {ok} calls, failed: {failed or 'none'}, "
          f"{speed:,.0f} a second, other programs took {others:.0%} of a core")
    print(f"CPU µs a call, with what perf adds: {user + system:.2f} = user {user:.2f} + system {system:.2f}\n")
    said = subprocess.run(["perf", "report", "--stdio", "--quiet", "--no-children", "--call-graph", "none", "--sort",
                           "dso,symbol", "--input", str(recorded)], capture_output=True, text=True, check=True).stdout
    # Two columns are of no use without a call graph.
    lines = [re.sub(r"\s+-\s+-\s*$", "", line) for line in said.splitlines() if line.strip()]
    print("\n".join(lines[:options.symbols]))
    print(f"\nWith callers: perf report --no-children --input {recorded}")


if __name__ == "__main__":
    try:
        main()
    except Missing as reason:
        sys.exit(str(reason))
