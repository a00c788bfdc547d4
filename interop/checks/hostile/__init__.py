"""Broken and hostile input, frame by frame: single messages, clients that are slow on purpose, and floods.

Each message has one right answer, and the proxy's backend tells whether anything of it went through. Under each flood a load on a
connection of its own must lose nothing and hardly slow down, and the proxy's memory must not grow."""

from ..peers import missing
from . import floods, messages, slow


def run(peers, report):
    if peers.direct:
        return report.skip("hostile input", "there is nothing of Evenkeel's to check")
    if reason := missing("grpc-go"):
        return report.skip("hostile input", reason)
    backend = peers.backend("grpc-go")
    front = peers.proxy([backend], "--no-health-check")
    # They wait for the proxy to lose patience, and do so while all else runs.
    waiting = slow.start(front)
    messages.run(peers, report)
    floods.run(peers, report, front, backend)
    slow.judge(report, waiting)
