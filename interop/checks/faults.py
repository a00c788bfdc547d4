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
# How long a restarted backend may wait for its third of the calls: an attempt comes every 0.2 s ± 20 %.
RETURN = 0.3
# How long a hung backend may get calls: 0.1 s are promised, the rest is for busy cores.
SUSPICION = 0.4


def run(peers, report):
    checks = {
        "kill -9 and restart at 1000 calls/s": lambda: killed(peers, {}, most_failures=8),
        "kill -9 and restart at 1000 calls/s with a retryPolicy": lambda: killed(peers, RETRY, most_failures=0),
        "SIGTERM and restart at 1000 calls/s": lambda: drained(peers),
        "NOT_SERVING at 1000 calls/s": lambda: not_serving(peers),
        "SIGSTOP for 3 s at 1000 calls/s, round_robin": lambda: stopped(peers, "round_robin"),
        "SIGSTOP for 3 s at 1000 calls/s, least_request": lambda: stopped(peers, "least_request_experimental"),
    }
    for name, body in checks.items():
        if reason := missing("grpc-go"):
            report.skip(name, reason)
        elif peers.direct and "SIGSTOP" in name:
            report.skip(name, "grpc-go's client does not notice a backend that hangs for 3 s")
        else:
            report.check(name, body)
        peers.clear()


class Trial:
    """Three backends under load for a while."""

    def __init__(self, peers, rate, seconds, policy, service_config):
        self.rate = rate
        self.direct = peers.direct
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
    trial = Trial(peers, 1000, 9.5, "round_robin", service_config)
    victim = trial.backends[0]
    trial.until(1)
    shot = time.time()
    victim.kill()
    dead = time.time()
    trial.until(4)
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
    return f"{len(failures)} failed of {len(calls)}, {expect_return(calls, victim.name, back, trial, RETURN)}"


def drained(peers):
    trial = Trial(peers, 1000, 9.5, "round_robin", {})
    victim = trial.backends[0]
    trial.until(1)
    victim.send(signal.SIGTERM)
    code = victim.wait()
    expect(code == 0, f"the backend ended with {code}")
    trial.until(4)
    peers.backend("grpc-go", victim.name, victim.address)
    back = time.time()
    calls = trial.calls()

    failures = [call for call in calls if call.code != "OK"]
    expect(not failures, f"{len(failures)} calls failed, e.g. {failures[:3]}")
    return f"none failed of {len(calls)}, {expect_return(calls, victim.name, back, trial, RETURN)}"


def not_serving(peers):
    trial = Trial(peers, 1000, 8.5, "round_robin", {})
    victim = trial.backends[0]
    trial.until(1)
    victim.ask("not_serving")
    told = time.time()
    trial.until(4)
    serving = time.time()
    victim.ask("serving")
    calls = trial.calls()

    failures = [call for call in calls if call.code != "OK"]
    expect(not failures, f"{len(failures)} calls failed, e.g. {failures[:3]}")
    strays = [call for call in calls if told + 1 < call.start < serving and call.backend == victim.name]
    expect(not strays, f"{len(strays)} calls went to the backend that was not serving, e.g. {strays[:3]}")
    return f"none failed of {len(calls)}, {expect_return(calls, victim.name, serving, trial)}"


def stopped(peers, policy):
    trial = Trial(peers, 1000, 8.5, policy, {})
    victim = trial.backends[0]
    trial.until(1)
    victim.send(signal.SIGSTOP)
    stop = time.time()
    trial.until(4)
    woken = time.time()
    victim.send(signal.SIGCONT)
    calls = trial.calls()
    arrived = {int(number) for number in victim.ask("calls")}

    failures = [call for call in calls if call.code != "OK"]
    expect(not failures, f"{len(failures)} calls failed, e.g. {failures[:3]}")
    slow = [call for call in calls if call.latency > 1]
    expect(len(slow) <= 60, f"{len(slow)} calls took longer than 1 s, e.g. {slow[:3]}")
    # A call that was withdrawn from it need not have arrived, but then it has waited.
    sent = [
        call for call in calls
        if stop + SUSPICION < call.start < woken - NOTICE
        and (call.number in arrived or call.backend == victim.name or call.latency > 1)
    ]
    expect(not sent, f"{len(sent)} calls went to the stopped backend, e.g. {sent[:3]}")
    last = max((call.start - stop for call in slow), default=0)
    returned = expect_return(calls, victim.name, woken, trial)
    return f"{len(slow)} of {len(calls)} took longer than 1 s, the last sent after {last:.2f} s, {returned}"


def expect_return(calls, name, back, trial, within=None):
    """From 3 s after its return, the backend answers about a third of the calls; so it does at once, from `within` on."""
    answers = [call.backend for call in calls if back + 3 < call.start]
    expect(len(answers) > trial.rate, f"only {len(answers)} calls began in the time to be judged")
    share = answers.count(name) / len(answers)
    first = min((call.start - back for call in calls if call.start > back and call.backend == name), default=None)
    when = "no call went to it" if first is None else f"calls went to it again after {first:.2f} s"
    expect(0.28 < share < 0.39, f"its share 3 s after its return is {share:.2f}, not a third; {when}")
    if within is None or trial.direct:
        return f"{when}, share from 3 s on {share:.2f}"
    early = [call.backend for call in calls if back + within < call.start < back + within + 0.5]
    at_once = early.count(name) / len(early)
    expect(0.28 < at_once < 0.39, f"its share in the 0.5 s from {within} s on is {at_once:.2f}, not a third; {when}")
    return f"{when}, share from {within} s on {at_once:.2f}, from 3 s on {share:.2f}"
