"""h2spec's whole set, the strict cases too, against the proxy: with TLS as well, where the proxy can.

It checks how the proxy speaks HTTP/2 and needs nothing of gRPC: its requests are GETs, which the proxy answers by itself. Cases
about flow control want an answer with a body, and are skipped by h2spec where there is none."""

import subprocess
import xml.etree.ElementTree

from .certificates import Certificates, proxy_lacks_tls
from .peers import BIN, missing
from .report import Failed, expect

H2SPEC = BIN / "h2spec"
# Seconds that h2spec waits for an answer.
PATIENCE = 2


def run(peers, report):
    if reason := ("there is nothing of Evenkeel's to check" if peers.direct else reason_to_skip()):
        return report.skip("h2spec", reason)
    backend = peers.backend("grpc-go")
    cases_of(peers, report, "h2spec", peers.proxy([backend]))
    if reason := proxy_lacks_tls(peers):
        return report.skip("h2spec with TLS", reason)
    made = Certificates(peers.folder.name, "IP:127.0.0.1")
    proxy = peers.proxy([backend], "--tls-cert", made.certificate, "--tls-key", made.key)
    cases_of(peers, report, "h2spec with TLS", proxy, "--tls", "--insecure")


def reason_to_skip():
    return missing("grpc-go") or (None if H2SPEC.exists() else "h2spec is not installed (see install.sh)")


def cases_of(peers, report, name, proxy, *options):
    for case in ran(peers, proxy, options):
        title = f"{name}: {case.get('package')}: {case.get('classname')}"
        if case.find("skipped") is not None:
            report.skip(title, "h2spec finds that it does not apply, most often for want of a body in the answer")
        else:
            report.check(title, lambda: passed(case))
    report.check(f"{name}: the proxy still runs", lambda: expect(proxy.process.poll() is None, "it has ended"))


def ran(peers, proxy, options):
    """The cases of h2spec's own report."""
    host, port = proxy.address.rsplit(":", 1)
    written = f"{peers.folder.name}/h2spec.xml"
    said = subprocess.run(
        [H2SPEC, "--strict", "--host", host, "--port", port, "--timeout", str(PATIENCE), "--junit-report", written, *options],
        capture_output=True, text=True, timeout=300)
    cases = list(xml.etree.ElementTree.parse(written).iter("testcase"))
    expect(len(cases) > 100, f"h2spec ran {len(cases)} cases only: {said.stderr[-600:]}")
    return cases


def passed(case):
    """h2spec's finding has what it expected, one a line, and last what it got."""
    for kind in ("error", "failure"):
        if (found := case.find(kind)) is not None:
            *expected, actual = (found.text or "nothing said").splitlines()
            raise Failed(f"{actual} in place of {', '.join(expected)}")
