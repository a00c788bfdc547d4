"""gRPC's own interop cases, between grpc-go's client and server and Evenkeel's channel, proxy and server."""

import socket
import subprocess

from .peers import BIN, INTEROP, Child, eventually, missing
from .report import expect

CASES = [
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
    "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "rpc_soak",
    "channel_soak", "orca_per_rpc", "orca_oob", "pick_first_unary",
]
OWN_CLIENT = INTEROP.parent / "target/release/evenkeel-interop"
OWN_SERVER = INTEROP.parent / "target/release/evenkeel-interop-server"
# The policy with which grpc-go's client collects load reports; its interop client brings it.
ORCA_POLICY = '--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}'


def run(peers, report):
    if reason := missing("grpc-go"):
        for case in CASES:
            report.skip(f"interop {case}", reason)
        return
    server = server_at(peers)
    server.address = f"127.0.0.1:{server.port}"
    # grpc-go's interop server never says who it is; the echo backends serve the same tests and do.
    named = [peers.backend("grpc-go", f"b{n}") for n in range(3)]
    through = server if peers.direct else peers.proxy([server], "--no-health-check")
    first = named[0] if peers.direct else peers.proxy(named, "--policy", "pick_first")
    for case in CASES:
        target = (first if case == "pick_first_unary" else through).address
        report.check(f"interop grpc-go client: {case}", lambda: go_passes(target, case))
    for case in [] if peers.direct else CASES:
        target = (named[0] if case == "pick_first_unary" else server).address
        report.check(f"interop Evenkeel's channel: {case}", lambda: passes(OWN_CLIENT, target, case))
    if not peers.direct:
        to_own_server(peers, report)


def to_own_server(peers, report):
    own = peers.start(Child([OWN_SERVER, "--port=0"]))
    own.address = own.line_starting("listening on ")
    through = peers.proxy([own])
    for case in CASES:
        report.check(f"interop grpc-go client, Evenkeel's server: {case}", lambda: go_passes(own.address, case))
        report.check(f"interop the same through the proxy: {case}", lambda: go_passes(through.address, case))
        report.check(f"interop Evenkeel's channel and server: {case}", lambda: passes(OWN_CLIENT, own.address, case))


def server_at(peers):
    """grpc-go's interop server wants a port by number: one that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = peers.start(Child([BIN / "grpc-go-server", f"--port={port}"]))
    server.port = port
    eventually(lambda: answers(port), "the interop server does not listen")
    return server


def answers(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def go_passes(target, case):
    options = [ORCA_POLICY] if case.startswith("orca") else []
    passes(BIN / "grpc-go-client", target, case, *options)


def passes(client, target, case, *options):
    host, port = target.rsplit(":", 1)
    ran = subprocess.run(
        [client, f"--server_host={host}", f"--server_port={port}", f"--test_case={case}", *options],
        capture_output=True, text=True, timeout=60)
    expect(ran.returncode == 0, f"exit {ran.returncode}: {ran.stderr.strip()[-600:]}")
