"""Measures gRPC proxies side by side: they take turns, round after round, and medians are compared."""

import argparse
import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys

from measure import machine, tables
from measure.cases import CASES, SHAPES, shape_name, takes_part
from measure.proxies import CACHE, PROXIES, Missing, program, version

STANDARD = ["evenkeel", "haproxy", "nginx", "envoy", "floor", "direct"]
QUICK = {"proxies": ["evenkeel", "haproxy"], "cases": [shape_name(*it) for it in SHAPES] + ["2000/s"], "reps": 1,
         "seconds": 1.0}


def main():
    options = parse()
    if options.report:
        with open(options.report) as file:
            return tables.report([json.loads(line) for line in file])
    if len(machine.CORES) < 2:
        sys.exit("two cores are needed: one for the proxy, one for what loads it")
    # So that children are ended, whatever ends us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    allow_many_files()
    program("h2load")
    proxies = options.proxies or installed(STANDARD)
    for name in proxies:
        if text := version(name):
            print(f"{name}: {text}")
    with alone():
        rows = measure(proxies, options)
    tables.report(rows)
    if any(row["failed"] for row in rows):
        sys.exit(1)


def parse():
    parser = argparse.ArgumentParser(prog="bench/proxy/run.sh", description=__doc__)
    parser.add_argument("--proxies", type=names_of(PROXIES), help=f"of {', '.join(PROXIES)}, separated by commas")
    parser.add_argument("--cases", type=names_of(CASES), help=f"of {', '.join(CASES)}, separated by commas")
    parser.add_argument("--reps", type=int, help="rounds (default: REPS or 3)")
    parser.add_argument("--seconds", type=float, help="of one measurement (default: 3)")
    parser.add_argument("--retries", type=int, default=0,
                        help="how often a measurement that other programs have spoilt is repeated (default: 0)")
    parser.add_argument("--quick", action="store_true", help="evenkeel and HAProxy alone, less than a minute")
    parser.add_argument("--out", default=CACHE / "last.jsonl", help="where rows are kept (default: %(default)s)")
    parser.add_argument("--report", metavar="FILE", help="print the tables of rows that were kept, and measure nothing")
    options = parser.parse_args()
    usual = {"proxies": None, "cases": list(CASES), "reps": int(os.environ.get("REPS", 3)), "seconds": 3.0}
    for name, value in (usual | (QUICK if options.quick else {})).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def names_of(known):
    def names(text):
        asked = text.split(",")
        if unknown := [name for name in asked if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(known)}")
        return asked

    return names


def allow_many_files():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def installed(names):
    """Those that can be started; says which cannot."""
    found = []
    for name in names:
        try:
            version(name)
            found.append(name)
        except Missing as reason:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    return found


@contextlib.contextmanager
def alone():
    """Waits until no other measurement runs on this machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another measurement", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def measure(proxies, options):
    rows = []
    with open(options.out, "w") as out:
        for rep in range(options.reps):
            for case in options.cases:
                for name in proxies:
                    if not takes_part(name, case):
                        continue
                    row = {"proxy": name, "case": case, "rep": rep} | attempt(name, case, options)
                    rows.append(row)
                    print(json.dumps(row), file=out, flush=True)
                    print(progress(row), file=sys.stderr)
    return rows


def attempt(name, case, options):
    """Measures once, and again while others spoil it; the least disturbed attempt counts."""
    best = None
    for _ in range(1 + options.retries):
        try:
            row = CASES[case](name, options.seconds)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            return {"ok": 0, "failed": {str(error): 1}, "foreign": 0.0}
        if row["failed"]:
            return row
        if best is None or row["foreign"] < best["foreign"]:
            best = row
        if best["foreign"] <= machine.SPOILT:
            break
    return best


def progress(row):
    figures = [f"{key} {row[key]:.2f}" for key in ("us", "ns", "p50", "p99", "open", "called") if key in row]
    doubts = [f"failed: {reason.splitlines()[0]} ({count})" for reason, count in row["failed"].items()]
    doubts += [f"others took {row['foreign']:.0%} of a core"] if row["foreign"] > machine.SPOILT else []
    return f"{row['rep'] + 1}. {row['proxy']} {row['case']}: {', '.join(figures + doubts)}"


if __name__ == "__main__":
    try:
        main()
    except Missing as reason:
        sys.exit(str(reason))
    except KeyboardInterrupt:
        sys.exit("interrupted")
