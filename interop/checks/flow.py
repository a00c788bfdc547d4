"""Hundreds of MiB through the proxy at the pace of the slower end: its memory must not grow with them."""

import time

from .peers import CLIENTS, missing, result
from .report import expect

LIMIT = 64 << 20


def run(peers, report):
    for language in CLIENTS:
        for case in ("slow_reader", "slow_backend"):
            name = f"{language} {case}: the proxy's memory stays bounded"
            if reason := missing("grpc-go") or missing(language):
                report.skip(name, reason)
                continue
            report.check(name, lambda: bounded(peers, language, case))
            peers.clear()


def bounded(peers, language, case):
    backend = peers.backend("grpc-go")
    between = backend if peers.direct else peers.proxy([backend])
    result(peers.client(language, between.address, "unary"))
    before = between.resident()
    client = peers.client(language, between.address, case)
    peak = before
    while client.process.poll() is None:
        peak = max(peak, between.resident())
        time.sleep(0.05)
    result(client)
    growth = peak - before
    if not peers.direct:
        expect(growth < LIMIT, f"grew by {growth >> 20} MiB")
    return f"grew by {growth >> 20} MiB"
