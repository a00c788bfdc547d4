"""Calls that break a rule each, and some that look as if they did: what the client is told, and what the backend gets. Then answers
that are odd."""

import collections

import grpc

from ..report import Failed, expect
from .raw import (
    DATA, END_STREAM, ENHANCE_YOUR_CALM, NO_ERROR, PROTOCOL_ERROR, Connection, Recorder, block, head, message,
    raw_frame, request)

DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL = 4, 8, 13
PADDED = 8
# An `end` of False leaves the call open. What `passes` is true of has to reach the backend, and the rest must not.
Case = collections.namedtuple("Case", "name fields judge passes data end", defaults=[False, message(), True])


def cases():
    for value in ("abc", "1", "", "-1S", "1x", "123456789S"):
        yield Case(f"grpc-timeout {value!r}", request(grpc_timeout=value), http(400, INTERNAL))
    yield Case("grpc-timeout 0n", request(grpc_timeout="0n"), http(200, DEADLINE_EXCEEDED))
    yield Case("no content-type", request(content_type=None), http(415))
    yield Case("content-type text/html", request(content_type="text/html"), http(415))
    yield Case("content-type application/grpc+proto", request(content_type="application/grpc+proto"), ok, True)
    yield Case("GET", request(p_method="GET"), http(405))
    yield Case("te: gzip", request(te="gzip"), broken)
    yield Case("no te", request(te=None), ok, True)
    yield Case("a path without /", request(p_path="hostile.Test/NoSlash"), either(http(400), broken))
    yield Case("an empty path", request(p_path=""), either(http(400), broken))
    yield from malformed_heads()
    yield from lengths()
    yield from authorities()
    yield from metadata()


def malformed_heads():
    for name, value in (
        ("connection", "close"), ("transfer-encoding", "chunked"), ("keep-alive", "1"), ("proxy-connection", "close"),
        ("upgrade", "h2c"), ("X-Upper", "a"), ("x-cr", "a\rb"), ("x-lf", "a\nb"), ("x-nul", "a\0b"), ("x-crlf", "a\r\nx: b"),
        ("", "no name"), ("x space", "a"), (":unknown", "a"), (":status", "200"), (":path", "/twice"),
    ):
        yield Case(f"field {name!r}: {value!r}", [*request(), (name, value)], broken)
    for name in (":method", ":scheme", ":path"):
        yield Case(f"no {name}", [field for field in request() if field[0] != name], either(http(400), broken))
    late = request(p_scheme=None)
    yield Case("a pseudo-field after the others", [*late, (":scheme", "http")], broken)


def lengths():
    # What had come before the length was known to be wrong may have gone on to the backend.
    for said in ("3", "9", "x", "-5", "5, 6"):
        yield Case(f"content-length {said} of 5 octets", request(content_length=said), broken, None)
    yield Case("content-length 5 of 5 octets", request(content_length="5"), ok, True)
    endless = b"\0\xff\xff\xff\xff" + bytes(16_000)
    yield Case("a message of 4 GiB, by its own word", request(), http(200, RESOURCE_EXHAUSTED), None, endless, False)


def authorities():
    yield Case("a host that differs from :authority", request(host="other.test"), ok, authority_alone)
    for value in ("127.0.0.1:1,127.0.0.1:2", "/run/service.sock", "%2Frun%2Fservice.sock", "[::1]:50051", "a_b.test"):
        yield Case(f":authority {value}", request(p_authority=value), ok, True)


def metadata():
    for value in ("!!!", "a", "YQ", "YQ==", "YWI=,Yg"):
        yield Case(f"x-data-bin: {value}", request(x_data_bin=value), ok, carried("x-data-bin", value))
    for size in (15, 32):
        value = "v" * (size << 10)
        yield Case(f"{size} KiB of metadata", request(x_large=value), ok, carried("x-large", value))
    many = [*request(), *((f"x-{number}", "v" * 1000) for number in range(80))]
    yield Case("80 KB of metadata", many, either(http(431), http(200, RESOURCE_EXHAUSTED)))


def http(status, code=None):
    """An answer with this HTTP status and, if there is to be one, this gRPC status, without a message."""
    def judge(answer):
        expect(answer.reset in (None, 0) and answer.fields.get(":status") == str(status), f"{answer} in place of HTTP {status}")
        got = answer.fields.get("grpc-status")
        expect(code is None or got == str(code), f"{answer} in place of HTTP {status} with grpc-status {code}")
    return judge


def broken(answer):
    expect(answer.reset == PROTOCOL_ERROR, f"{answer} in place of RST_STREAM {PROTOCOL_ERROR}")


def ok(answer):
    http(200, 0)(answer)
    expect(answer.data == message(), f"{answer} with {answer.data}")


def either(first, second):
    def judge(answer):
        try:
            first(answer)
        except Failed:
            second(answer)
    return judge


def authority_alone(fields):
    names = [name for name, _ in fields]
    expect((b":authority", b"interop.test") in fields and b"host" not in names, f"the backend got {fields}")


def carried(name, value):
    def judge(fields):
        got = [found for key, found in fields if key == name.encode()]
        expect(got == [value.encode()], f"the backend got {[found[:80] for found in got]}")
    return judge


def run(peers, report):
    recorder = Recorder()
    proxy = peers.proxy([recorder], "--no-health-check")
    for number, case in enumerate(cases()):
        report.check(f"hostile: {case.name}", lambda: answered(proxy, recorder, case, number))
    for name, path, judge, end in odd_answers():
        report.check(f"hostile: a backend that {name}", lambda: answered_oddly(proxy, path, judge, end))
    report.check("hostile: DATA with padding", lambda: padded(proxy))
    other = peers.proxy([recorder], "--no-health-check")
    report.check("hostile: a target of grpcio's with two addresses", lambda: two_addresses(proxy, other))
    recorder.close()


def answered(proxy, recorder, case, number):
    """Makes the call; its answer, what the backend got, and that the connection is as good as before."""
    path = f"/hostile.Test/Case{number}"
    fields = [(name, path if value == request()[2][1] else value) for name, value in case.fields]
    with Connection(proxy.address) as connection:
        stream = connection.call(fields, case.data, case.end)
        answer = connection.answer(stream)
        connection.wait(lambda: answer.over() or connection.over())
        expect(answer.over(), f"{answer}, {connection.end()}")
        case.judge(answer)
        expect(connection.settle(), f"the connection's end: {connection.end()}")
        good = connection.answer(connection.call(request(p_path="/hostile.Test/Good"), message()))
        connection.wait(good.over)
        ok(good)
    got = recorder.found(path)
    expect(case.passes is None or bool(case.passes) == (got is not None), f"the backend got {got and got[:12]}")
    if callable(case.passes):
        case.passes(got)
    return f"{answer}"


def two_addresses(first, second):
    """C-core names both in :authority."""
    with grpc.insecure_channel(f"ipv4:{first.address},{second.address}") as channel:
        try:
            for _ in range(3):
                channel.unary_unary("/hostile.Test/TwoAddresses")(b"", timeout=5)
        except grpc.RpcError as error:
            raise Failed(f"{error.code()}: {error.details()}") from None


def odd_answers():
    """What it does, the path that makes it do so, what the client must see, and whether its request has ended."""
    yield "ends the answer and wants no more of the request", "Enough", complete, False
    yield "says 103 before it answers", "Informed", ok, True
    yield "pads its answer", "Padded", ok, True
    yield "answers 503 in HTML", "NotGrpc", either(http(503), http(200, 14)), True
    yield "resets the call after its head", "GivenUp", calmed, True


def complete(answer):
    expect(answer.reset in (None, NO_ERROR), f"{answer}")
    expect((answer.fields.get("grpc-status"), answer.data) == ("0", message()), f"{answer} with {answer.data}")


def calmed(answer):
    """The backend's own code, or what gRPC makes of it: RESOURCE_EXHAUSTED."""
    told = answer.reset == ENHANCE_YOUR_CALM or answer.fields.get("grpc-status") == str(RESOURCE_EXHAUSTED)
    expect(told, f"{answer}")


def answered_oddly(proxy, path, judge, end):
    with Connection(proxy.address) as connection:
        answer = connection.answer(connection.call(request(p_path=f"/hostile.Test/{path}"), message(), end))
        connection.wait(lambda: answer.over() or connection.over())
        expect(answer.over(), f"{answer}, {connection.end()}")
        expect(connection.settle(), f"the connection's end: {connection.end()}")
        judge(answer)
        return f"{answer}"


def padded(proxy):
    with Connection(proxy.address) as connection:
        stream = connection.next_stream()
        payload = bytes([200]) + message() + bytes(200)
        fields = request(p_path="/hostile.Test/PaddedRequest")
        connection.send(head(stream, block(fields), end=False) + raw_frame(DATA, PADDED | END_STREAM, stream, payload))
        answer = connection.answer(stream)
        connection.wait(lambda: answer.over() or connection.over())
        ok(answer)
