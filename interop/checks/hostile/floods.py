"""Floods: frames that cost their sender little. The flooder is told off or held up, its neighbour notices nothing, and the
proxy's memory stays."""

import json
import pathlib
import struct
import subprocess
import threading
import time

from .. import record
from ..peers import ECHO, eventually
from ..report import Failed, expect
from .raw import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, PRIORITY, RST_STREAM, UNARY, Connection, block,
    head, literal, message, raw_frame, request, settings, window_update)

MEMORY = 20 << 20
# The neighbour's load: calls a second, and how long it runs beside each flood.
RATE, SECONDS = 300, 1.5
# How long a flood presses on, and how long what shall be stalled is held: both within the load's time.
PRESSING, HELD = 1.2, 0.8
# What the neighbour's p99 may be beyond twice what it is without a flood: the flooder itself takes a core of two.
FLOOR = 0.025
TRIES = 3
CANCEL = struct.pack(">I", 8)
# EchoRequest{message: "flood", delay_ms: 60000}: a call that would go on for a minute.
LONG = message(b"\x0a\x05flood\x18\xe0\xd4\x03")
GOOD = block(request())
# The kinds of flood that are counted, and happen here.
KINDS = ("rapid_resets", "glitches", "pings", "updates", "continuations", "header_bombs")


def run(peers, report, front, backend):
    trial = Trial(peers, front)
    report.check("hostile: the load without a flood", trial.baseline)
    for flood in FLOODS:
        report.check(f"hostile: {flood.__doc__}", lambda: trial.under(lambda: flood(front)))
    report.check("hostile: what resets itself is cancelled at the backend", lambda: cancelled(front, backend))
    report.check("hostile: memory after all floods", trial.memory_at_last)
    if counts(peers, front) is None:
        report.skip("hostile: floods are counted", "this `evenkeel status` tells none")
    else:
        report.check("hostile: floods are counted", lambda: counted(peers, front))


def counts(peers, front):
    """How many connections the proxy has ended for each kind of flood, as `evenkeel status` tells it, or None."""
    command = [peers.evenkeel, "status", "--json", "--control", front.control]
    # It exits with 2 where something does not serve.
    said = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    return json.loads(said)["proxies"][0].get("floods")


def counted(peers, front):
    told = counts(peers, front)
    missed = [kind for kind in KINDS if not told.get(kind)]
    expect(not missed, f"none of {', '.join(missed)} is counted in {told}")
    return f"{told}"


class Trial:
    """A proxy with a neighbour's load, beside which the floods run."""

    def __init__(self, peers, front):
        self.peers, self.front = peers, front
        self.p99 = None

    def baseline(self):
        self.p99 = p99(self.load(lambda: time.sleep(PRESSING)))
        self.resident = self.front.resident()
        return f"p99 {self.p99 * 1000:.1f} ms"

    def load(self, beside):
        """The neighbour's calls, made while `beside` runs."""
        output = pathlib.Path(self.peers.folder.name) / "neighbour.csv"
        load = self.peers.load(self.front.address, f"--rate={RATE}", f"--duration={SECONDS}s", f"--output={output}")
        beside()
        code = load.wait()
        expect(code == 0, f"the load ended with {code}")
        return record.read(output)

    def under(self, flood):
        """Runs the flood; what it says of itself, and every finding of the three: flooder, neighbour, memory.

        Where the neighbour is slower and nothing else is wrong, others on the machine may be to blame: it is tried again."""
        for _ in range(TRIES):
            wrong, late, evidence = self.once(flood)
            if wrong or not late:
                break
        expect(not wrong and not late, "; ".join(wrong + late))
        return evidence

    def once(self, flood):
        said, before = [], self.front.resident()
        with Peak(self.front) as peak:
            calls = self.load(lambda: said.extend(findings(flood)))
        wrong, evidence = said
        failed = [call for call in calls if call.code != "OK"]
        if failed:
            wrong.append(f"{len(failed)} of the neighbour's {len(calls)} calls failed, with {failed[0].code}")
        growth = peak.octets - before
        if growth > MEMORY:
            wrong.append(f"memory grew by {growth >> 20} MiB")
        took = p99(calls)
        late = took > 2 * self.p99 + FLOOR
        late = [f"the neighbour's p99 was {took * 1000:.0f} ms, and {self.p99 * 1000:.0f} without the flood"] if late else []
        return wrong, late, f"{evidence}; p99 {took * 1000:.1f} ms, memory +{max(growth, 0) / (1 << 20):.1f} MiB"

    def memory_at_last(self):
        growth = self.front.resident() - self.resident
        expect(growth < MEMORY, f"it has grown by {growth >> 20} MiB")
        return f"+{max(growth, 0) / (1 << 20):.1f} MiB"


def findings(flood):
    try:
        return [], flood()
    except Failed as finding:
        return [str(finding)], ""


class Peak:
    """The most resident memory that a process has meanwhile."""

    def __init__(self, process):
        self.process, self.octets, self.over = process, process.resident(), threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.over.wait(0.02):
            self.octets = max(self.octets, self.process.resident())

    def __enter__(self):
        self.watcher.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.watcher.join()


def p99(calls):
    return sorted(call.latency for call in calls)[int(len(calls) * 0.99)]


def told_off(front, made, most, batch=100, answers=None, settle=True, first=settings()):
    """Sends what `made` makes, a batch at a time, until the proxy ends the connection: within `most`, or it is a finding.

    Goes on with further connections for the rest of the time. `answers` are the codes of GOAWAY that are right; any by default."""
    until = time.monotonic() + PRESSING
    told = pressed(front, made, most, batch, settle, first)
    expect(told.over(), f"no end of the connection within {most}")
    codes = [code for _, code in told.goaways]
    expect(answers is None or not codes or codes[-1] in answers, f"{told.end()}")
    while time.monotonic() < until:
        # Flat out it would be two busy cores that the neighbour noticed, and not the proxy.
        time.sleep(0.05)
        pressed(front, made, most, batch, settle, first)
    return f"{told.end()} within {told.sent}"


def pressed(front, made, most, batch, settle, first):
    with Connection(front.address, first) as connection:
        connection.sent = 0
        while connection.sent < most and not connection.over():
            connection.send(b"".join(made(connection) for _ in range(batch)))
            connection.sent += batch
            if settle:
                connection.settle()
            else:
                connection.wait(connection.over, 0.002)
        connection.wait(connection.over, 0.5)
        return connection


def rapid_reset(front):
    """rapid reset: GOAWAY ENHANCE_YOUR_CALM within 1000 streams"""
    def made(connection):
        stream = connection.next_stream()
        return head(stream, GOOD) + raw_frame(RST_STREAM, 0, stream, CANCEL)

    return told_off(front, made, 1000, answers=[ENHANCE_YOUR_CALM])


def reset_by(broken):
    """A call, and the frames that make the proxy reset it."""
    def made(connection):
        stream = connection.next_stream()
        return head(stream, GOOD, end=False) + raw_frame(DATA, 0, stream, LONG) + broken(stream)

    return made


def zero_increment(stream):
    return window_update(stream, 0)


def overflow(stream):
    return window_update(stream, 0x7FFFFFFF)


def after_end(stream):
    return raw_frame(DATA, END_STREAM, stream) + raw_frame(DATA, 0, stream, bytes(1))


def made_you_reset_zero(front):
    """MadeYouReset by WINDOW_UPDATE 0: GOAWAY within 1200 streams"""
    return told_off(front, reset_by(zero_increment), 1200)


def made_you_reset_overflow(front):
    """MadeYouReset by a window beyond its bound: GOAWAY within 1200 streams"""
    return told_off(front, reset_by(overflow), 1200)


def made_you_reset_after_end(front):
    """MadeYouReset by DATA after the end: GOAWAY within 1200 streams"""
    return told_off(front, reset_by(after_end), 1200)


def continuations(fragment):
    def made(connection):
        if connection.stream < 0:
            return raw_frame(HEADERS, END_STREAM, connection.next_stream(), GOOD)
        return raw_frame(CONTINUATION, 0, connection.stream, fragment)

    return made


def continuation_large(front):
    """CONTINUATION without end, 16 KB each: GOAWAY within 128"""
    fragment = literal("x-filler", "v" * 16_000)
    return told_off(front, continuations(fragment), 128, batch=8, settle=False)


def continuation_small(front):
    """CONTINUATION without end, 4 octets each: GOAWAY within 10,000"""
    return told_off(front, continuations(literal("x", "")), 10_000, settle=False)


def continuation_empty(front):
    """CONTINUATION without end, empty: GOAWAY within 1000"""
    return told_off(front, continuations(b""), 1000, settle=False)


def hpack_bomb(front):
    """HPACK bomb, 8000 references to 4 KB: GOAWAY within 4 requests"""
    # A literal with incremental indexing, which is then the first entry of the dynamic table: index 62.
    entry = b"\x40" + literal("x-bomb", "v" * 4000)[1:]

    def made(connection):
        stream = connection.next_stream()
        references = b"\xbe" * 8000
        return head(stream, (GOOD + entry if stream == 1 else GOOD) + references)

    return told_off(front, made, 4, batch=1)


def cookie_crumbs(front):
    """HTTP/2 bomb, thousands of crumbs on each of 100 streams with no window: every call refused"""
    entry = b"\x40" + literal("cookie", "a")[1:]
    with Connection(front.address, settings(s4=0)) as connection:
        streams = []
        for _ in range(100):
            stream = connection.next_stream()
            streams.append(stream)
            connection.send(head(stream, (GOOD + entry if stream == 1 else GOOD) + b"\xbe" * 4000))
        connection.wait(lambda: connection.over() or all(connection.answer(stream).over() for stream in streams))
        let_in = [connection.answer(stream) for stream in streams if not refused(connection.answer(stream))]
        expect(connection.over() or not let_in, f"{len(let_in)} calls were not refused: {let_in[:1]}")
        hold(connection)
        return connection.end() if connection.over() else f"{connection.answer(streams[0])}"


def refused(answer):
    said = answer.fields.get(":status") in ("400", "431") or answer.fields.get("grpc-status") == "8"
    return said or answer.reset is not None


def table_abuse(front):
    """SETTINGS_HEADER_TABLE_SIZE of 4 GiB, and 24 MB of different fields in answers: the table is capped"""
    with Connection(front.address, settings(s1=0xFFFFFFFF), decoding=False) as connection:
        answers = []
        for batch in range(150):
            for call in range(10):
                fields = [*request(), (f"x-echo-{batch}-{call}", f"{batch:04}{call:04}" + "v" * 7992)]
                answers.append(connection.answer(connection.call(fields, message())))
            expect(connection.wait(lambda: connection.over() or all(answer.over() for answer in answers[-10:])), "no answers")
        expect(not connection.over(), f"{connection.end()}")
        # Each has its fields twice: before its message and after.
        bad = [answer for answer in answers if answer.heads != 2]
        expect(not bad, f"{len(bad)} calls failed: {bad[:1]}")
        return f"{len(answers)} calls"


def empty_data(front):
    """empty DATA, 60,000 times: closed, or nothing comes of it"""
    return trickled(front, b"")


def tiny_data(front):
    """DATA of one octet, 60,000 times: closed, or made into more"""
    return trickled(front, b"v")


def trickled(front, octets):
    with Connection(front.address) as connection:
        fields = request(p_path=f"/{ECHO}/ClientStream")
        # One message that is never complete.
        stream = connection.call(fields, struct.pack(">BI", 0, 64_000), end=False)
        answer, sent = connection.answer(stream), 0
        while sent < 60_000 and not connection.over() and not answer.over():
            connection.send(raw_frame(DATA, 0, stream, octets) * 1000)
            sent += 1000
            connection.settle()
        if answer.over() and not connection.over():
            return f"{answer} within {sent}"
        return f"{connection.end()} within {sent}"


def held_up(front, octets):
    """Sends 600,000 of these and never reads: the proxy stops reading, or ends the connection.

    Of 200,000 the acknowledgements may all find room in the kernel's buffers, so that there would be nothing to see."""
    with Connection(front.address, receive_buffer=4096) as connection:
        sent = 0
        while sent < 600_000 and not connection.closed:
            if not connection.send(octets * 1000, patience=0.5, reading=False):
                break
            sent += 1000
        # Whether it was told off is to be read.
        connection.wait(connection.over, 0.3)
        expect(sent < 600_000 or connection.over(), "all 600,000 were taken, and no end of the connection")
        return f"{connection.end() if connection.over() else 'held up'} after {sent}"


def pings(front):
    """PING, 600,000 times, and never read: held up or ended"""
    return held_up(front, raw_frame(PING, 0, 0, bytes(8)))


def settings_flood(front):
    """SETTINGS, 600,000 times, and never read: held up or ended"""
    return held_up(front, settings(s4=65535))


def priorities(front):
    """PRIORITY, 200,000 times: GOAWAY or closed"""
    frame = raw_frame(PRIORITY, 0, 1, struct.pack(">IB", 3, 16))
    return told_off(front, lambda _: frame, 200_000, batch=2000)


def window_updates(front):
    """WINDOW_UPDATE, 200,000 times: GOAWAY or closed"""
    return told_off(front, lambda _: window_update(0, 1), 200_000, batch=2000)


def invalid_heads(front):
    """heads without :path: GOAWAY within 1200"""
    bad = block(request(p_path=None))
    return told_off(front, lambda connection: head(connection.next_stream(), bad), 1200)


def empty_names(front):
    """fields without names: GOAWAY within 1200"""
    bad = GOOD + literal("", "")
    return told_off(front, lambda connection: head(connection.next_stream(), bad), 1200)


def no_window(front):
    """100 replies of 4 MiB and no window for them: buffers are bounded"""
    return stalled(front, settings(s4=0), reading=True)


def never_reads(front):
    """100 replies of 4 MiB and nobody who reads: buffers are bounded"""
    return stalled(front, settings(s4=0x7FFFFFFF) + window_update(0, 0x7FFF0000), reading=False)


def stalled(front, first, reading):
    # EchoRequest{payload: 500 zeros, repeat: 8192}: a hundred of them fit into the connection's first window.
    asked = message(b"\x12\xf4\x03" + bytes(500) + b"\x20\x80\x40")
    fields = request(p_path=f"/{ECHO}/ServerStream")
    with Connection(front.address, first, receive_buffer=None if reading else 4096) as connection:
        for _ in range(100):
            stream = connection.next_stream()
            octets = head(stream, block(fields), end=False) + raw_frame(DATA, END_STREAM, stream, asked)
            expect(connection.send(octets, reading=reading), "the requests were not taken")
        hold(connection, reading)
        got = sum(answer.heads for answer in connection.answers.values())
        return f"{connection.end()}" + (f", {got} heads" if reading else "")


def hold(connection, reading=True):
    """Keeps the connection for a while as it is."""
    if reading:
        connection.wait(lambda: False, HELD)
    else:
        time.sleep(HELD)


def cancelled(front, backend):
    """Of long calls that the proxy reset, none goes on at the backend."""
    before = backend.ask("calls").count("flood")
    ended = backend.ask("stats")["cancelled"]
    with Connection(front.address) as connection:
        for _ in range(20):
            stream = connection.next_stream()
            connection.send(head(stream, GOOD, end=False) + raw_frame(DATA, END_STREAM, stream, LONG))
        eventually(lambda: backend.ask("calls").count("flood") - before >= 20, "the calls do not reach the backend")
        for stream in range(1, 41, 2):
            connection.send(window_update(stream, 0))
        eventually(lambda: backend.ask("stats")["cancelled"] - ended >= 20, "the backend goes on with calls that were reset")


FLOODS = (
    rapid_reset, made_you_reset_zero, made_you_reset_overflow, made_you_reset_after_end, continuation_large, continuation_small,
    continuation_empty, hpack_bomb, cookie_crumbs, table_abuse, empty_data, tiny_data, pings, settings_flood, priorities,
    window_updates, invalid_heads, empty_names, no_window, never_reads,
)
