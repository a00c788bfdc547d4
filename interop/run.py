"""Runs the interop checks and closes with `N passed, N failed, N skipped`. run.sh calls it."""

import argparse
import os
import signal
import sys

from checks import (
    balance, channelz, checkers, conformance, drain, envoy, faults, flow, h2spec,
    hostile, interop_set, network, probe, semantics)
from checks.peers import Peers
from checks.report import Report

SUITES = {
    "semantics": semantics, "flow": flow, "balance": balance, "faults": faults,
    "network": network, "drain": drain, "conformance": conformance, "probe": probe, "checkers": checkers,
    "envoy": envoy, "channelz": channelz, "h2spec": h2spec, "interop_set": interop_set,
    "hostile": hostile,
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--direct", action="store_true", help="leave Evenkeel out: the peers balance for themselves")
    arguments.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; all by default")
    arguments = arguments.parse_args()
    unknown = set(arguments.suites) - set(SUITES)
    if unknown:
        sys.exit(f"no suite is called {', '.join(unknown)}; there are {', '.join(SUITES)}")

    # Python's own answer to SIGTERM would leave the children running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report()
    for name in arguments.suites or SUITES:
        with Peers(direct=arguments.direct, evenkeel=os.environ.get("EVENKEEL", "")) as peers:
            report.suite(name, lambda: SUITES[name].run(peers, report))
    sys.exit(report.close())


main()
