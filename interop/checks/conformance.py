"""gRPC's own interop cases, between grpc-go's client and server and Evenkeel's channel and server."""

import subprocess

from .interop_set import COMMON, LOAD_REPORTS, ORCA_POLICY, PICK_FIRST, server_at
from .peers import BIN, INTEROP, Child, missing
from .report import expect

CASES = [*COMMON, *LOAD_REPORTS, PICK_FIRST]
OWN_CLIENT = INTEROP.parent / "target/release/evenkeel-interop"
OWN_SERVER = INTEROP.parent / "target/release/evenkeel-interop-server"


def run(peers, report):
    if peers.direct:
        return report.skip("interop cases on Evenkeel's channel and server", "there is nothing of Evenkeel's to leave out")
    if reason := missing("grpc-go"):
        for case in CASES:
            report.skip(f"interop {case}", reason)
        return
    server = server_at(peers)
    # grpc-go's interop server never says who it is; the echo backends serve the same tests and do.
    named = peers.backend("grpc-go")
    for case in CASES:
        target = (named if case == PICK_FIRST else server).address
        report.check(f"interop Evenkeel's channel: {case}", lambda: passes(OWN_CLIENT, target, case))
    to_own_server(peers, report)


def to_own_server(peers, report):
    own = peers.start(Child([OWN_SERVER, "--port=0"]))
    own.address = own.line_starting("listening on ")
    through = peers.proxy([own])
    for case in CASES:
        report.check(f"interop grpc-go client, Evenkeel's server: {case}", lambda: go_passes(own.address, case))
        report.check(f"interop the same through the proxy: {case}", lambda: go_passes(through.address, case))
        report.check(f"interop Evenkeel's channel and server: {case}", lambda: passes(OWN_CLIENT, own.address, case))


def go_passes(target, case):
    options = [ORCA_POLICY] if case in LOAD_REPORTS else []
    passes(BIN / "grpc-go-client", target, case, *options)


def passes(client, target, case, *options):
    host, port = target.rsplit(":", 1)
    ran = subprocess.run(
        [client, f"--server_host={host}", f"--server_port={port}", f"--test_case={case}", *options],
        capture_output=True, text=True, timeout=60)
    expect(ran.returncode == 0, f"exit {ran.returncode}: {ran.stderr.strip()[-600:]}")
