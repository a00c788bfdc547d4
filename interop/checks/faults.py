"""Backends that die, drain and hang under load: which calls failed, and where the others went.

The judge is the load's own record of each call (start, latency, code, who answered), joined for the hung backend
with its list of arrivals, which it tells after it has woken.
"""

import pathlib
import signal
import time

from . import record
from .peers import ECHO, missing
from .report import expect

RETRY = {
    "methodConfig": [{
        "name": [{"service": ECHO}],
        "retryPolicy": {
            "maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }],
}
# How long a connection's end may take to be noticed by processes that share two busy cores.
NOTICE = 0.02


def run(peers, report):
    checks = {
        "kill -9 and restart at 1000 calls/s": lambda: killed(peers, {}, most_failures=10),
        "kill -9 and restart at 1000 calls/s with a retryPolicy": lambda: killed(peers, RETRY, most_failures=0),
        "NOT_SERVING at 1000 calls/s": lambda: not_serving(peers),
        "SIGSTOP for 3 s at 500 calls/s, least_request": lambda: stopped(peers),
    }
    for name, body in checks.items():
        if reason := missing("grpc-go"):
            report.skip(name, reason)
        elif peers.direct and "least_request" in name:
            report.skip(name, "grpc-go's least_request draws with replacement: a ninth of the calls has no choice")
        else:
            report.check(name, body)
        peers.clear()


class Trial:
    """Three backends under load for a while."""

    def __init__(self, peers, rate, seconds, policy, service_config):
        self.rate = rate
        self.output = pathlib.Path(peers.folder.name) / "calls.csv"
        self.backends = [peers.backend("grpc-go", f"b{n}") for n in range(3)]
        options = (f"--rate={rate}", f"--duration={seconds}s", "--delay-ms=5", f"--output={self.output}")
        if peers.direct:
            target = ",".join(backend.address for backend in self.backends)
            own = {"loadBalancingConfig": [{policy: {}}], "healthCheckConfig": {"serviceName": ECHO}}
            self.load = peers.load(target, *options, service_config={**own, **service_config})
        else:
            proxy_options = ("--policy", policy.removesuffix("_experimental"), "--health-service", ECHO)
            proxy = peers.proxy(self.backends, *proxy_options, service_config=service_config or None)
            self.load = peers.load(proxy.address, *options)
        self.began = time.time()

    def until(self, second):
        """Waits until so many seconds of load have passed; returns the time."""
        time.sleep(max(0, self.began + second - time.time()))
        return time.time()

    def calls(self):
        code = self.load.wait()
        expect(code == 0, f"the load ended with {code}")
        return record.read(self.output)


def killed(peers, service_config, most_failures):
    trial = Trial(peers, 1000, 12, "round_robin", service_config)
    victim = trial.backends[0]
    trial.until(2)
    shot = time.time()
    victim.kill()
    dead = time.time()
    trial.until(5)
    peers.backend("grpc-go", victim.name, victim.address)
    back = time.time()
    calls = trial.calls()

    failures = [call for call in calls if call.code != "OK"]
    # Sent to the dead process: unanswered when it was shot, or begun before the end of its connection was noticed.
    others = [
        call for call in failures
        if call.code != "Unavailable" or call.start > dead + NOTICE or call.start + call.latency < shot
    ]
    expect(not others, f"{len(others)} calls failed that were not on the dead connection, e.g. {others[:3]}")
    expect(len(failures) <= most_failures, f"{len(failures)} calls failed, e.g. {failures[:3]}")
    return f"{len(failures)} failed of {len(calls)}, {expect_return(calls, victim.name, back, trial)}"


def not_serving(peers):
    trial = Trial(peers, 1000, 10, "round_robin", {})
    victim = trial.backends[0]
    trial.until(2)
    victim.ask("not_serving")
    told = time.time()
    trial.until(5)
    serving = time.time()
    victim.ask("serving")
    calls = trial.calls()

    failures = [call for call in calls if call.code != "OK"]
    expect(not failures, f"{len(failures)} calls failed, e.g. {failures[:3]}")
    strays = [call for call in calls if told + 1 < call.start < serving and call.backend == victim.name]
    expect(not strays, f"{len(strays)} calls went to the backend that was not serving, e.g. {strays[:3]}")
    return f"none failed of {len(calls)}, {expect_return(calls, victim.name, serving, trial)}"


def stopped(peers):
    trial = Trial(peers, 500, 11, "least_request_experimental", {})
    victim = trial.backends[0]
    trial.until(2)
    victim.send(signal.SIGSTOP)
    stop = time.time()
    trial.until(5)
    woken = time.time()
    victim.send(signal.SIGCONT)
    calls = trial.calls()
    arrived = {int(number) for number in victim.ask("calls")}

    bad = [call for call in calls if call.code != "OK" or call.latency > 2.2]
    expect(len(bad) <= 40, f"{len(bad)} calls failed or were slower than 2.2 s, e.g. {bad[:3]}")
    # A call that was withdrawn from it need not have arrived, but then it has waited or failed.
    sent = [
        call for call in calls
        if stop + 1 < call.start < woken - NOTICE
        and (call.number in arrived or call.backend == victim.name or call.code != "OK" or call.latency > 1)
    ]
    expect(not sent, f"{len(sent)} calls went to the stopped backend, e.g. {sent[:3]}")
    return f"{len(bad)} bad of {len(calls)}, {expect_return(calls, victim.name, woken, trial)}"


def expect_return(calls, name, back, trial):
    """From 3 s after its return, the backend answers about a third of the calls."""
    answers = [call.backend for call in calls if back + 3 < call.start]
    expect(len(answers) > trial.rate, f"only {len(answers)} calls began in the time to be judged")
    share = answers.count(name) / len(answers)
    first = min((call.start - back for call in calls if call.start > back and call.backend == name), default=None)
    when = "no call went to it" if first is None else f"calls went to it again after {first:.2f} s"
    expect(0.28 < share < 0.39, f"its share 3 s after its return is {share:.2f}, not a third; {when}")
    return f"{when}, share from 3 s on {share:.2f}"
