"""SIGTERM while calls run: they end well, and the process exits 0."""

from .peers import CLIENTS, missing, result, terminate
from .report import expect


def run(peers, report):
    for language in CLIENTS:
        name = f"{language}: running calls survive a drain"
        if reason := missing("grpc-go") or missing(language):
            report.skip(name, reason)
            continue
        report.check(name, lambda: drain(peers, language))
        peers.clear()


def drain(peers, language):
    backend = peers.backend("grpc-go")
    drained = backend if peers.direct else peers.proxy([backend], "--drain-timeout", "10s")
    client = peers.client(language, drained.address, "in_flight")
    client.line_starting("started")
    terminate(drained)
    result(client)
    code = drained.wait(10)
    expect(code == 0, f"exit code {code}")
    return "exit 0"
