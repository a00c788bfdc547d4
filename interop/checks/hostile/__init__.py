"""Broken and hostile input, frame by frame: single messages, clients that are slow on purpose, and floods.

Each message has one right answer, and the proxy's backend tells whether anything of it went through. Under each flood a load on a
connection of its own must lose nothing and hardly slow down, and the proxy's memory must not grow."""

import pathlib

from ..peers import Child, missing
from . import drain, floods, messages, slow


def run(peers, report):
    if peers.direct:
        return report.skip("hostile input", "there is nothing of Evenkeel's to check")
    if reason := missing("grpc-go"):
        return report.skip("hostile input", reason)
    backend = peers.backend("grpc-go")
    front = peers.start(Front(peers, backend))
    # They wait for the proxy to lose patience, and do so while all else runs.
    waiting = slow.start(front)
    messages.run(peers, report)
    drain.run(peers, report, backend)
    floods.run(peers, report, front, backend)
    slow.judge(report, waiting)


class Front(Child):
    """A proxy that `evenkeel status` can ask what it has counted."""

    def __init__(self, peers, backend):
        folder = pathlib.Path(peers.folder.name)
        config, self.control = folder / "hostile.toml", folder / "hostile.sock"
        config.write_text(f'[proxy.front]\nlisten = "127.0.0.1:0"\ntarget = "{backend.address}"\nhealth_check = false\n')
        super().__init__(
            [peers.evenkeel, "proxy", "--config", config, "--control", self.control, "--log-level", "error"])
        self.address = self.line_starting("proxy front listening on ")
