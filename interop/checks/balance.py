"""300 calls on one connection over three backends: each call, not each connection, is balanced."""

from .peers import CLIENTS, ROUND_ROBIN, missing, result
from .report import expect


def run(peers, report):
    for language in CLIENTS:
        name = f"{language}: 300 calls on one connection, 100 to each of three backends"
        if reason := missing("grpcio") or missing(language):
            report.skip(name, reason)
            continue
        report.check(name, lambda: spread(peers, language))
        peers.clear()


def spread(peers, language):
    backends = [peers.backend("grpcio", f"b{n}") for n in range(3)]
    if peers.direct:
        target, service_config = ",".join(b.address for b in backends), ROUND_ROBIN
    else:
        target, service_config = peers.proxy(backends, "--policy", "round_robin").address, None
    counts = result(peers.client(language, target, "spread", service_config=service_config))
    expect(len(counts) == 3 and all(99 <= count <= 101 for count in counts.values()), f"{counts}")
    return counts
