"""Every client through the proxy to every backend: what a call carries must arrive as it was sent."""

from .peers import BACKENDS, CLIENTS, eventually, missing, result
from .report import Failed

# The backend counts given-up calls: `deadline` ends one too, so `cancel` comes first.
CASES = [
    "unary", "client_stream", "server_stream", "bidi_stream", "metadata", "repeated_metadata", "trailers_only",
    "error_after_messages", "status_details", "cancel", "deadline", "large",
]
# What two peers do without Evenkeel: (client, backend, case) and the words of the error.
PEER_FACTS = {
    # At the deadline the backend may reset the call before the client's own timer: that reads as CANCELLED.
    ("grpcio", "grpc-go", "deadline"): "StatusCode.CANCELLED",
    ("node", "grpc-go", "deadline"): "1 !== 4",
}


def run(peers, report):
    for backend_language in BACKENDS:
        for client_language in CLIENTS:
            name = f"{client_language} to {backend_language}"
            if reason := missing(backend_language) or missing(client_language):
                report.skip(name, reason)
                continue
            pair(peers, report, client_language, backend_language, name)
            peers.clear()


def pair(peers, report, client_language, backend_language, name):
    backend = peers.backend(backend_language)
    target = backend.address if peers.direct else peers.proxy([backend]).address
    cases = [case for case in CASES if case != "repeated_metadata" or "node" not in (client_language, backend_language)]
    client = peers.client(client_language, target, *cases)
    for case in cases:
        fact = PEER_FACTS.get((client_language, backend_language, case)) if peers.direct else None
        report.check(f"{name}: {case}", lambda: outcome(client, fact))
    report.check(f"{name}: both cancellations reach the backend", lambda: eventually(
        lambda: backend.ask("stats")["cancelled"] >= 2, f"the backend saw {backend.ask('stats')}"))


def outcome(client, fact):
    try:
        result(client)
    except Failed as error:
        if not (fact and fact in str(error)):
            raise
        return f"{fact} is these peers' own doing"
