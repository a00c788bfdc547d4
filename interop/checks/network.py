"""Networks that fail: packets that vanish, hosts that come back without memory, servers that hang up.

Three backends, each on a host of its own (see wires.py), are called in two ways at once: by the load on Evenkeel's
channel, and through `evenkeel proxy` by the load on grpc-go's. The judge is each load's own record of its calls.
"""

import pathlib
import time
import types

from . import record, wires
from .faults import RETRY
from .peers import ECHO, INTEROP, missing
from .report import Failed, expect

OWN_LOAD = INTEROP.parent / "target/release/evenkeel-interop-load"
PORT = 50051
CHANNEL_RATE, PROXY_RATE = 300, 200
# A call that takes so long, of a backend that takes 5 ms for it, waited for something that was not there.
LONG = 1.0
# A hung endpoint is passed over for others so soon, and gets no calls at all so soon.
SUSPECT_AFTER, OUT_AFTER = 0.1, 0.3
# What processes that share two busy cores may take longer.
SLACK = 0.3
# One that was lost and refuses is tried again every 0.2 s, ± 20 %.
BACK_AFTER_REFUSAL = 0.2 * 1.2 + SLACK
# How long a connection's end may take to be noticed.
NOTICE = 0.05


def run(peers, report):
    checks = {
        "a black hole both ways for 5 s": black_hole,
        "replies alone are lost for 2 s": replies_lost,
        "a host vanishes, and is back 2 s later without memory": host_vanishes,
        "the network forgets all connections, but makes new ones": forgotten,
        "all backends are unreachable for 3 s, in silence": silent_partition,
        "all backends refuse for 3 s": refusing_partition,
        "a fifth of what one backend sends is lost, the rest takes 50 ms": lossy,
        "an address that never answers is the first of three": never_answers,
        "connections live for a second": short_lived,
        "a call at a time on each connection": one_at_a_time,
        "health flaps every 200 ms": flapping,
    }
    reason = why_not(peers)
    for name, body in checks.items():
        if reason:
            report.skip(f"network: {name}", reason)
        else:
            report.check(f"network: {name}", lambda: on_a_network(peers, body))


def why_not(peers):
    if peers.direct:
        return "it judges Evenkeel's channel"
    if not OWN_LOAD.exists():
        return f"{OWN_LOAD} is not built"
    return missing("grpc-go") or wires.missing()


def on_a_network(peers, body):
    with wires.Network(3) as network:
        try:
            return body(Trial(peers, network))
        finally:
            peers.clear()


class Trial:
    """Three backends and the loads on them, in the order in which a check starts them."""

    def __init__(self, peers, network):
        self.peers, self.network = peers, network
        self.backends, self.loads, self.warm_up = {}, {}, {}
        self.endpoints = [types.SimpleNamespace(address=f"{network.address(n)}:{PORT}") for n in range(3)]

    def serve(self, *numbers, options=()):
        for n in numbers:
            address, host = self.endpoints[n].address, self.network.servers[n]
            self.backends[n] = self.peers.backend("grpc-go", f"b{n}", address, options, host)

    def channel(self, policy, seconds, *options, face="channel", rate=CHANNEL_RATE):
        target = ",".join(endpoint.address for endpoint in self.endpoints)
        began = time.monotonic()
        self.loads[face] = self.peers.load(
            target, f"--rate={rate}", f"--seconds={seconds}", "--delay-ms=5", f"--policy={policy}",
            f"--record={self.path(face)}", *options, program=OWN_LOAD, host=self.network.clients)
        self.warm_up[face] = time.monotonic() - began

    def proxy(self, seconds, *options, service_config=None, rate=PROXY_RATE):
        proxy = self.peers.proxy(
            self.endpoints, *options, service_config=service_config, host=self.network.clients)
        began = time.monotonic()
        self.loads["proxy"] = self.peers.load(
            proxy.address, f"--rate={rate}", f"--duration={seconds}s", "--delay-ms=5",
            f"--output={self.path('proxy')}", host=self.network.clients)
        self.warm_up["proxy"] = time.monotonic() - began

    def path(self, face):
        return pathlib.Path(self.peers.folder.name) / f"{face}.csv"

    def calls(self):
        """What became of each face's calls, once all have ended."""
        for face, load in self.loads.items():
            code = load.wait()
            expect(code == 0, f"the load of the {face} ended with {code}")
        return {face: record.read(self.path(face)) for face in self.loads}


def each(faces, judge):
    """The evidence for each way of calling, or why it failed there."""
    evidence = []
    for face, calls in faces.items():
        try:
            evidence.append(f"{face}: {judge(calls)}")
        except Failed as error:
            raise Failed(f"{face}: {error}") from None
    return "; ".join(evidence)


def black_hole(trial):
    return silence(trial, trial.network.wires[0].cut, outage=5, seconds=12)


def replies_lost(trial):
    def lose_replies():
        trial.network.wires[0].replies.loss = 1.0

    return silence(trial, lose_replies, outage=2, seconds=7)


def silence(trial, fault, outage, seconds):
    trial.serve(0, 1, 2)
    trial.channel("round_robin", seconds)
    trial.proxy(seconds)
    time.sleep(1.5)
    cut = time.time()
    fault()
    time.sleep(outage)
    mended = time.time()
    trial.network.wires[0].mend()

    def judge(calls):
        expect_none(failed(calls), "failed")
        out = expect_out(calls, cut)
        return f"{out}, none failed of {len(calls)}, {expect_back(calls, 'b0', mended, after_silence(cut, mended))}"

    return each(trial.calls(), judge)


def host_vanishes(trial):
    network, wire = trial.network, trial.network.wires[0]
    trial.serve(0, 1, 2)
    trial.channel("round_robin", 7)
    trial.proxy(7, service_config=RETRY)
    time.sleep(1.5)
    cut = time.time()
    wire.cut()
    trial.backends[0].kill()
    network.vanish(0)
    time.sleep(2)
    network.boot(0)
    trial.serve(0)
    mended = time.time()
    wire.mend()
    calls = trial.calls()

    # What was sent before it was out may have been processed: the channel cannot know, and may not send it again.
    lost = failed(calls["channel"])
    expect_none([call for call in lost if call.code != "Unavailable"], "failed otherwise than with UNAVAILABLE")
    expect_none(failed(calls["proxy"]), "failed in spite of the retryPolicy")

    def judge(calls):
        out = expect_out(calls, cut)
        return f"{out}, {len(failed(calls))} failed, {expect_back(calls, 'b0', mended, after_silence(cut, mended))}"

    return each(calls, judge)


def forgotten(trial):
    give_up = 1.5
    trial.serve(0, 1, 2)
    trial.channel("round_robin", 6, f"--give-up-ms={give_up * 1000:.0f}")
    time.sleep(1.5)
    lost = time.time()
    for wire in trial.network.wires:
        wire.forget()
    calls = trial.calls()["channel"]

    # A connection that no byte will come on is closed so long after the PING that it did not answer.
    well = expect_quick_again(calls, lost, SUSPECT_AFTER + give_up + 0.5)
    unsent = [call for call in failed(calls) if call.start > lost + OUT_AFTER + SLACK]
    expect_none(unsent, "failed that had been sent nowhere")
    return f"{len(failed(calls))} failed, {well}, given up after {give_up} s; e.g. {failed(calls)[-1].message!r}"


def silent_partition(trial):
    trial.serve(0, 1, 2)
    hasty = "channel with deadlines of 0.5 s"
    trial.channel("round_robin", 9, "--deadline-ms=500", face=hasty, rate=50)
    trial.channel("round_robin", 9, "--odd-wait-for-ready")
    trial.proxy(9)
    time.sleep(1.5)
    cut = time.time()
    for wire in trial.network.wires:
        wire.cut()
    time.sleep(3)
    mended = time.time()
    for wire in trial.network.wires:
        wire.mend()

    def judge(calls):
        # Nobody has said no: hung endpoints are CONNECTING, and calls wait for what comes of that.
        expect_none(failed(calls), "failed")
        return f"none failed of {len(calls)}, {expect_quick_again(calls, mended, after_silence(cut, mended))}"

    faces = trial.calls()
    late = failed(faces.pop(hasty))
    expect_none([call for call in late if call.code != "DeadlineExceeded"], "failed otherwise than at their deadline")
    expect_none([call for call in late if not 0.45 < call.latency < 0.75], "did not fail at their deadline of 0.5 s")
    return f"{each(faces, judge)}; {hasty}: {len(late)} failed at it, e.g. {late[-1].message!r}"


def refusing_partition(trial):
    trial.serve(0, 1, 2)
    trial.channel("round_robin", 9, "--odd-wait-for-ready")
    trial.proxy(9)
    time.sleep(1.5)
    killed = time.time()
    for backend in trial.backends.values():
        backend.kill()
    dead = time.time()
    time.sleep(3)
    trial.serve(0, 1, 2)
    back = time.time()
    faces = trial.calls()

    channel = [call for call in faces["channel"] if not killed - 0.1 < call.start < dead + NOTICE]
    expect_none([call for call in failed(channel) if call.number % 2 == 1], "failed that waited for ready")

    def judge(calls):
        during = [call for call in failed(calls) if dead + NOTICE < call.start < back]
        expect(during, "no call failed while all were out")
        expect_none([call for call in failed(calls) if call.code != "Unavailable"], "failed otherwise than UNAVAILABLE")
        expect_none([call for call in during if call.latency > 0.1], "failed, but not fast")
        told = [call for call in during if call.message]  # grpc-go's load does not record what it was told
        named = [call for call in told if any(endpoint.address in call.message for endpoint in trial.endpoints)]
        expect(len(named) == len(told), f"{len(told) - len(named)} calls failed and named no endpoint, e.g. {told[:2]}")
        return f"{len(during)} failed fast, {expect_quick_again(calls, back, BACK_AFTER_REFUSAL)}"

    return f"{each(faces, judge)}; e.g. {failed(faces['channel'])[-1].message!r}"


def lossy(trial):
    trial.serve(0, 1, 2)
    trial.channel("least_request", 9)
    trial.proxy(9)
    time.sleep(1.5)
    bad = time.time()
    replies = trial.network.wires[0].replies
    replies.loss, replies.delay = 0.2, 0.05

    def judge(calls):
        expect_none(failed(calls), "failed")
        share = answered_by(calls, "b0", bad + 0.5)
        expect(share < 0.2, f"its share is {share:.2f}: calls have not moved to the others")
        return f"none failed of {len(calls)}, its share {share:.2f}, {len(long(calls))} over 1 s, {slowest(calls)}"

    return each(trial.calls(), judge)


def never_answers(trial):
    trial.network.wires[0].cut()
    trial.serve(1, 2)
    for policy in ("round_robin", "pick_first"):
        trial.channel(policy, 3, face=policy)
    trial.proxy(3)

    def judge(calls):
        expect_none(failed(calls), "failed")
        expect_none([call for call in calls if call.latency > 0.5], "waited")
        return f"none failed of {len(calls)}, {slowest(calls)}"

    evidence = each(trial.calls(), judge)
    firsts = ", ".join(f"{face} {seconds:.2f} s" for face, seconds in trial.warm_up.items())
    expect(max(trial.warm_up.values()) < 1.0, f"the first answers came late: {firsts}")
    return f"{evidence}; first answers: {firsts}"


def short_lived(trial):
    trial.serve(0, 1, 2, options=("--max-connection-age=1s",))
    trial.channel("round_robin", 6)
    trial.proxy(6)
    return each(trial.calls(), undisturbed)


def one_at_a_time(trial):
    trial.serve(0, 1, 2, options=("--max-concurrent-streams=1",))
    # A call takes some 10 ms on busy cores, so that a connection carries 100/s at most.
    trial.channel("round_robin", 5, rate=100)
    trial.proxy(5, rate=100)
    return each(trial.calls(), undisturbed)


def flapping(trial):
    trial.serve(0, 1, 2)
    trial.channel("round_robin", 5, f"--health-service={ECHO}")
    trial.proxy(5, "--health-service", ECHO)
    for _ in range(10):
        for health in ("not_serving", "serving"):
            trial.backends[0].ask(health)
            time.sleep(0.2)
    return each(trial.calls(), undisturbed)


def undisturbed(calls):
    expect_none(failed(calls), "failed")
    expect_none(long(calls), "waited")
    return f"none failed of {len(calls)}, {slowest(calls)}"


def after_silence(cut, mended):
    """TCP sends again after pauses that double, so that it is heard again within as long as the silence was."""
    return mended - cut + 0.5


def failed(calls):
    return [call for call in calls if call.code != "OK"]


def long(calls):
    return [call for call in calls if call.latency > LONG]


def slowest(calls):
    return f"slowest {max(call.latency for call in calls):.2f} s"


def expect_none(calls, what):
    expect(not calls, f"{len(calls)} calls {what}, e.g. {calls[:2]}")


def expect_out(calls, cut):
    """No call that began later than the endpoint was suspect met the fault: there were others to take it."""
    met = {*failed(calls), *long(calls)}
    out = max((call.start - cut for call in met), default=0.0)
    limit = SUSPECT_AFTER + SLACK
    expect(out <= limit, f"calls met the hung endpoint until {out:.2f} s after the fault, {len(met)} in all")
    return f"out after {max(out, 0):.2f} s, {len(met)} calls met it"


def expect_back(calls, name, since, limit):
    """Calls go to an endpoint again before long, and then its share of them."""
    first = min((call.start - since for call in calls if call.start > since and call.backend == name), default=None)
    expect(first is not None, f"no call went to {name} again")
    expect(first <= limit, f"calls went to {name} again only after {first:.2f} s, not {limit:.2f} s")
    share = answered_by(calls, name, since + first + 0.5)
    expect(0.25 < share < 0.42, f"the share of {name} after its return is {share:.2f}, not a third")
    return f"back after {first:.2f} s, share then {share:.2f}"


def answered_by(calls, name, since):
    answers = [call.backend for call in calls if call.start > since]
    expect(len(answers) > 100, f"only {len(answers)} calls began in the time to be judged")
    return answers.count(name) / len(answers)


def expect_quick_again(calls, since, limit):
    """From `limit` on, calls are answered at once."""
    bad = [call for call in calls if call.code != "OK" or call.latency > 0.3]
    again = max((call.start + call.latency - since for call in bad), default=0.0)
    expect(again <= limit, f"calls were slow or failed for {again:.2f} s, not {limit:.2f} s")
    return f"well again after {max(again, 0):.2f} s"
