"""What is measured. Each case takes the name of a proxy and gives a row of figures."""

import subprocess

from . import machine
from .proxies import OWN
from .stage import Stage

SHAPES = [(1, 100), (10, 10), (100, 1), (10, 100)]
RATES = [2000, 8000]
# Name, messages of a reply, bytes of a message.
PAYLOADS = [("1MiB", 1, 1 << 20), ("64x16KiB", 64, 16 << 10)]
MANY_BACKENDS = 1000
IDLE = 2000


class Measured:
    """CPU time of the proxy, and of programs that are not ours, around some work."""

    def __init__(self, stage):
        self.stage = stage

    def __enter__(self):
        self.foreign, self.before = machine.Foreign(), self.stage.cpu()
        return self

    def __exit__(self, *_):
        self.stage.must_run()
        self.cpu = self.stage.cpu() - self.before
        self.row = {"foreign": round(self.foreign.share(), 3), "rss": self.stage.resident()}


def shape(connections, streams, **places):
    """Calls as fast as they go."""

    def measure(name, seconds):
        with Stage(name, **places) as stage:
            _, _, speed = stage.h2load(connections, streams, 4000)
            _, _, speed = stage.h2load(connections, streams, max(4000, int(speed * 0.3)))
            calls = max(4000, int(speed * seconds))
            with Measured(stage) as measured:
                ok, failed, speed = stage.h2load(connections, streams, calls)
        return measured.row | {"ok": ok, "failed": failed, "speed": speed, "us": each(measured.cpu, ok) * 1e6,
                               "use": measured.cpu * speed / calls}

    return measure


def rate(calls):
    """An open loop."""

    def measure(name, seconds):
        with Stage(name) as stage:
            stage.load(rate=calls, seconds=0.5)
            with Measured(stage) as measured:
                result = stage.load(rate=calls, seconds=seconds)
        kept = {key: result[key] for key in ("ok", "failed", "p50", "p99", "p999", "backends")}
        return measured.row | kept | {"us": each(measured.cpu, result["ok"]) * 1e6, "offered": calls,
                                      "speed": result["ok"] / result["seconds"]}

    return measure


def payload(messages, size):
    """Large replies, eight at a time on four connections."""

    def measure(name, seconds):
        options = {"connections": 4, "streams": 2, "messages": messages, "bytes": size}
        with Stage(name) as stage:
            stage.load(seconds=0.5, **options)
            with Measured(stage) as measured:
                result = stage.load(seconds=seconds, **options)
        return measured.row | {"ok": result["ok"], "failed": result["failed"],
                               "ns": each(measured.cpu, result["bytes"]) * 1e9,
                               "speed": result["bytes"] / result["seconds"] / 1e6}

    return measure


def idle(name, _seconds):
    """Memory of connections that do nothing: once their settings are known, and after each has made one call."""
    with Stage(name) as stage:
        before = stage.resident()
        with Measured(stage) as measured:
            clients = stage.start(machine.load_cores(1), [str(OWN), "idle", stage.listen, "--connections", str(IDLE)],
                                  stdout=subprocess.PIPE, stdin=subprocess.PIPE)
            stage.line(clients, "open")
            opened = stage.resident()
            clients.stdin.write("\n")
            clients.stdin.flush()
            stage.line(clients, "called")
            called = stage.resident()
    return measured.row | {"ok": IDLE, "failed": {}, "open": (opened - before) / IDLE,
                           "called": (called - before) / IDLE}


def each(total, count):
    return total / count if count else float("nan")


def shape_name(connections, streams):
    return f"{connections}x{streams}"


CASES = {shape_name(*it): shape(*it) for it in SHAPES}
CASES |= {f"{it}/s": rate(it) for it in RATES}
CASES |= {name: payload(messages, size) for name, messages, size in PAYLOADS}
CASES |= {"idle": idle}
CASES |= {f"10x10+{MANY_BACKENDS}backends": shape(10, 10, backends=MANY_BACKENDS)}
CASES |= {f"{shape_name(*it)}+2workers": shape(*it, workers=2) for it in [(10, 10), (100, 1)]}



def takes_part(name, case):
    """The floor can do small calls alone; and without a proxy there is none to have more backends or workers."""
    if name == "floor":
        return case in {shape_name(*it) for it in SHAPES}
    if name == "direct":
        return "+" not in case and case != "idle"
    return True
