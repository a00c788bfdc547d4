"""A drain as a client sees it, frame by frame: GOAWAY twice, and the call that runs ends well."""

from ..peers import terminate
from ..report import expect
from .raw import NO_ERROR, Connection, message, request

# GOAWAY's first last stream: all that are still to come.
ALL = 0x7FFFFFFF
# EchoRequest{delay_ms: 1000}.
SLOW = message(b"\x18\xe8\x07")


def run(peers, report, backend):
    proxy = peers.proxy([backend], "--no-health-check")
    report.check("hostile: a drain says GOAWAY twice and lets the running call end", lambda: drained(proxy, backend))


def drained(proxy, backend):
    before = backend.ask("stats")["calls"]
    with Connection(proxy.address) as connection:
        stream = connection.call(request(), SLOW)
        connection.wait(lambda: backend.ask("stats")["calls"] > before)
        terminate(proxy)
        answer = connection.answer(stream)
        connection.wait(lambda: connection.closed)
        expect(answer.fields.get("grpc-status") == "0", f"{answer}")
        expect(connection.goaways == [(ALL, NO_ERROR), (stream, NO_ERROR)], f"GOAWAY {connection.goaways}")
    code = proxy.wait(timeout=10)
    expect(code == 0, f"exit code {code}")
    return f"{answer}"
