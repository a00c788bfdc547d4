"""Evenkeel's checkers follow each language's health server through its life. There is nothing to do for `--direct`."""

import os
import signal
import time

from .peers import BACKENDS, ECHO, INTEROP, Child, missing
from .report import expect

FOLLOW = os.environ.get("EVENKEEL_FOLLOW", INTEROP.parent / "target/release/examples/follow")


def run(peers, report):
    for language in BACKENDS:
        if reason := "there are no checkers" if peers.direct else missing(language):
            report.skip(f"checkers of {language}", reason)
            continue
        for kind in ("grpc", "watch"):
            life(peers, report, language, kind)
    if not peers.direct:
        report.check("checkers by http2 and tcp", lambda: other_kinds(peers))


def life(peers, report, language, kind):
    backend = peers.backend(language)
    unknown = peers.start(Child([FOLLOW, kind, backend.address, "no.such.Service"]))
    follow = peers.start(Child([FOLLOW, kind, backend.address, ECHO]))

    def check(event, action, verdict, words, seconds):
        def body():
            action()
            return becomes(follow, verdict, words, seconds)

        report.check(f"{kind} of {language}, {event}: {verdict} within {seconds} s", body)

    # A Watch tells at once, a Check is made once a second; the rest is for busy cores.
    told = 0.6 if kind == "watch" else 1.8
    check("SERVING", lambda: None, "healthy", "answered", 2)
    check("NOT_SERVING", lambda: backend.ask("not_serving"), "unhealthy", "NOT_SERVING", told)
    check("SERVING again", lambda: backend.ask("serving"), "healthy", "SERVING again", told)
    check("SIGSTOP", lambda: backend.send(signal.SIGSTOP), "unhealthy", "within the time-out", 2.7)
    check("SIGCONT", lambda: backend.send(signal.SIGCONT), "healthy", "2 probes in a row", 3)
    check("kill -9", backend.kill, "unhealthy", "efused", 2.5)
    report.check(f"{kind} of {language}, unknown service", lambda: becomes(unknown, "unhealthy", "does not know", 5))


def becomes(follow, verdict, words, seconds):
    """The next change is to this verdict, for this reason, and comes in time."""
    began = time.monotonic()
    line = follow.line(timeout=20)
    took = time.monotonic() - began
    expect(line.startswith(f"{verdict}: ") and words in line, f"it says {line!r}")
    expect(took <= seconds, f"after {took:.2f} s: {line}")
    return f"after {took:.2f} s: {line}"


def other_kinds(peers):
    """grpc-go answers a GET with an HTTP status that passes nowhere, and accepts connections."""
    backend = peers.backend("grpc-go")
    becomes(peers.start(Child([FOLLOW, "tcp", backend.address])), "healthy", "answered", 5)
    return becomes(peers.start(Child([FOLLOW, "http2", backend.address, "/"])), "unhealthy", "a probe failed", 5)
