"""`evenkeel check` against each language's health server, by exit code. Direct: grpc-health-probe in its place."""

import subprocess

from .peers import BACKENDS, BIN, ECHO, missing
from .report import expect


def run(peers, report):
    for language in BACKENDS:
        if reason := missing(language):
            report.skip(f"health of {language}", reason)
            continue
        backend = peers.backend(language)
        for service in ("", ECHO):
            exits(peers, report, f"{language} SERVING {service!r}", backend.address, service, 0)
        exits(peers, report, f"{language} unknown service", backend.address, "no.such.Service", 3)
        backend.ask("not_serving")
        for service in ("", ECHO):
            exits(peers, report, f"{language} NOT_SERVING {service!r}", backend.address, service, 4)
        backend.kill()
        exits(peers, report, f"{language} refused", backend.address, "", 2)


def exits(peers, report, name, address, service, code):
    report.check(f"health of {name}: exit {code}", lambda: expect_exit(command(peers, address, service), code))


def command(peers, address, service):
    if peers.direct:
        return [BIN / "grpc-health-probe", f"-addr={address}", f"-service={service}"]
    return [peers.evenkeel, "check", address, *(["--service", service] if service else [])]


def expect_exit(words, code):
    ran = subprocess.run(words, capture_output=True, text=True, timeout=10)
    expect(ran.returncode == code, f"exit {ran.returncode}: {ran.stderr.strip()}")
