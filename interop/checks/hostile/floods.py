"""Floods: frames that cost their sender little. The flooder is told off or held up, its neighbour notices nothing, and the proxy's
memory stays."""

import pathlib
import struct
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
RATE, SECONDS = 200, 2.0
# How long a flood presses on, which is within the load's time.
PRESSING = 1.5
# What the neighbour's p99 may be beyond twice what it is without a flood: the flooder itself takes a core of two.
FLOOR = 0.025
CANCEL = struct.pack(">I", 8)
# EchoRequest{message: "flood", delay_ms: 60000}: a call that would go on for a minute.
LONG = message(b"\x0a\x05flood\x18\xe0\xd4\x03")
GOOD = block(request())


def run(peers, report, front, backend):
    trial = Trial(peers, front)
    report.check("hostile: the load without a flood", trial.baseline)
    for flood in FLOODS:
        report.check(f"hostile: {flood.__doc__}", lambda: trial.under(lambda: flood(front)))
    report.check("hostile: what resets itself is cancelled at the backend", lambda: cancelled(front, backend))
    report.check("hostile: memory after all floods", trial.memory_at_last)


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
        """Runs the flood; what it says of itself, and every finding of the three: flooder, neighbour, memory."""
        said, before = [], self.front.resident()
        with Peak(self.front) as peak:
            calls = self.load(lambda: said.extend(findings(flood)))
        wrong, evidence = said
        failed = [call for call in calls if call.code != "OK"]
        if failed:
            wrong.append(f"{len(failed)} of the neighbour's {len(calls)} calls failed, with {failed[0].code}")
        if p99(calls) > 2 * self.p99 + FLOOR:
            wrong.append(f"the neighbour's p99 was {p99(calls) * 1000:.0f} ms, and {self.p99 * 1000:.0f} without the flood")
        growth = peak.octets - before
        if growth > MEMORY:
            wrong.append(f"memory grew by {growth >> 20} MiB")
        expect(not wrong, "; ".join(wrong))
        return f"{evidence}; p99 {p99(calls) * 1000:.1f} ms, memory +{max(growth, 0) / (1 << 20):.1f} MiB"

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
    expect(answers is None or told.goaway is None or told.goaway in answers, f"{told.end()}")
    while time.monotonic() < until:
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
    with Connection(front.address, settings(s1=0xFFFFFFFF)) as connection:
        answers = []
        for batch in range(30):
            for call in range(50):
                fields = [*request(), (f"x-echo-{batch}-{call}", f"{batch:04}{call:04}" + "v" * 7992)]
                answers.append(connection.answer(connection.call(fields, message())))
            expect(connection.wait(lambda: connection.over() or all(a.over() for a in answers[-50:])), "no answers")
        expect(not connection.over(), f"{connection.end()}")
        bad = [answer for answer in answers if answer.fields.get("grpc-status") != "0"]
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


def held_up(front, octets, first=settings()):
    """Sends 200,000 of these and never reads: the proxy stops reading, or ends the connection."""
    with Connection(front.address, first, receive_buffer=4096) as connection:
        sent = 0
        while sent < 200_000 and not connection.closed:
            if not connection.send(octets * 1000, patience=0.3, reading=False):
                break
            sent += 1000
        # What was read meanwhile says whether it was told.
        connection.wait(lambda: connection.over(), 0.3)
        expect(sent < 200_000 or connection.over(), "all 200,000 were taken, and no end of the connection")
        return f"{'held up' if not connection.over() else connection.end()} after {sent}"


def pings(front):
    """PING, 200,000 times, and never read: held up or ended"""
    return held_up(front, raw_frame(PING, 0, 0, bytes(8)))


def settings_flood(front):
    """SETTINGS, 200,000 times, and never read: held up or ended"""
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
    # EchoRequest{payload: 64 KiB of zeros, repeat: 64}.
    payload = 1 << 16
    octets = message(b"\x12\x80\x80\x04" + bytes(payload) + b"\x20\x40")
    with Connection(front.address, first, receive_buffer=None if reading else 4096) as connection:
        for _ in range(100):
            stream = connection.next_stream()
            fields = block(request(p_path=f"/{ECHO}/ServerStream"))
            parts = [octets[at:at + 16_384] for at in range(0, len(octets), 16_384)]
            data = b"".join(raw_frame(DATA, 0, stream, part) for part in parts[:-1]) + raw_frame(DATA, END_STREAM, stream, parts[-1])
            # The requests are more than the connection's first window: what does not go stays.
            if not connection.send(head(stream, fields, end=False) + data, patience=0.2, reading=reading):
                break
        hold(connection)
        return connection.end()


def hold(connection):
    """Keeps the connection for a while as it is."""
    connection.wait(lambda: False, 0.5)


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
