"""Every client through the proxy to every backend: what a call carries must arrive as it was sent."""

from .peers import BACKENDS, CLIENTS, eventually, missing, result

# The backend counts given-up calls: `deadline` ends one too, so `cancel` comes first.
CASES = [
    "unary", "client_stream", "server_stream", "bidi_stream", "metadata", "trailers_only", "error_after_messages",
    "status_details", "cancel", "deadline", "large",
]


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
    client = peers.client(client_language, target, *CASES)
    for case in CASES:
        report.check(f"{name}: {case}", lambda: result(client) and None)
    report.check(f"{name}: both cancellations reach the backend", lambda: eventually(
        lambda: backend.ask("stats")["cancelled"] >= 2, f"the backend saw {backend.ask('stats')}"))
