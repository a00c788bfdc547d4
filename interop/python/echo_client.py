"""The grpcio peer that calls evenkeel.demo.v1.Echo: the cases it is given, in order, over one channel.

Prints a line of JSON for each: {"case": …, "error": … or "", "counts": …}. README.md says what each case proves.
"""

import argparse
import json
import queue
import time

import grpc
from google.protobuf import any_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status

from echo_proto import OPTIONS, EchoRequest, services

ODD_MESSAGE = "naïve ☃ 100% 😈\n\tend"
# Duplicates, an order that sorting would break, commas, and bytes that are no text.
ECHOED = [
    ("x-echo-text", "one"), ("x-echo-text", "two"), ("x-echo-text", "one"), ("x-echo-text", "a, b;c"),
    ("x-echo-other", "v" * 2000),
    ("x-echo-data-bin", b"\x00\xff\x80,"), ("x-echo-data-bin", b"second"), ("x-echo-data-bin", b"\x00\xff\x80,"),
]


def unary(stub):
    echoes(stub, b"payload")


def large(stub):
    echoes(stub, b"0123456789abcdef" * (2 << 20))


def echoes(stub, payload):
    reply = stub.Unary(EchoRequest(message="hello", payload=payload), timeout=60)
    assert reply.message == "hello" and reply.payload == payload, f"got {len(reply.payload)} bytes back"


def client_stream(stub):
    reply = stub.ClientStream(iter([EchoRequest(message=m) for m in "abc"]), timeout=60)
    assert reply.message == "a,b,c", reply.message


def server_stream(stub):
    replies = [reply.message for reply in stub.ServerStream(EchoRequest(message="again", repeat=5), timeout=60)]
    assert replies == ["again"] * 5, replies


def bidi_stream(stub):
    requests = queue.SimpleQueue()
    replies = stub.BidiStream(iter(requests.get, None), timeout=60)
    for message in ("ping", "pong", "end"):
        requests.put(EchoRequest(message=message))
        assert next(replies).message == message
    requests.put(None)
    assert list(replies) == []


def metadata(stub):
    request = EchoRequest(message="m", repeat=1)
    _, call = stub.Unary.with_call(request, metadata=ECHOED, timeout=60)
    same_echoes("unary", call)
    call = stub.ServerStream(request, metadata=ECHOED, timeout=60)
    assert len(list(call)) == 1
    same_echoes("stream", call)


def same_echoes(where, call):
    assert by_key(call.initial_metadata()) == by_key(ECHOED), f"{where} initial: {call.initial_metadata()}"
    assert by_key(call.trailing_metadata()) == by_key(ECHOED), f"{where} trailing: {call.trailing_metadata()}"


def by_key(pairs):
    """The values of each echoed key in order: the order among keys is not promised.

    Text values are joined, which gRPC calls equivalent and Node's HTTP/2 does; `repeated_metadata` sees them apart.
    """
    keys = {key for key, _ in pairs if key.startswith("x-echo-")}
    return {key: values(pairs, key) if key.endswith("-bin") else ", ".join(values(pairs, key)) for key in keys}


def values(pairs, key):
    return [value for other, value in pairs if other == key]


def repeated_metadata(stub):
    _, call = stub.Unary.with_call(EchoRequest(message="m"), metadata=ECHOED, timeout=60)
    for pairs in (call.initial_metadata(), call.trailing_metadata()):
        assert values(pairs, "x-echo-text") == values(ECHOED, "x-echo-text"), values(pairs, "x-echo-text")


def trailers_only(stub):
    error = failure(lambda: stub.Unary(
        EchoRequest(message=ODD_MESSAGE), metadata=[*ECHOED, ("x-fail-code", "9")], timeout=60))
    ended(error, grpc.StatusCode.FAILED_PRECONDITION, ODD_MESSAGE)
    assert by_key(error.trailing_metadata()) == by_key(ECHOED), error.trailing_metadata()


def error_after_messages(stub):
    wishes = [("x-fail-code", "15"), ("x-fail-after", "2")]
    call = stub.ServerStream(EchoRequest(message=ODD_MESSAGE, repeat=5), metadata=wishes, timeout=60)
    assert [next(call).message, next(call).message] == [ODD_MESSAGE] * 2
    ended(failure(lambda: next(call)), grpc.StatusCode.DATA_LOSS, ODD_MESSAGE)


def status_details(stub):
    detail = any_pb2.Any(type_url="type.googleapis.com/example.Detail", value=b"\x0a\x01x")
    sent = status_pb2.Status(code=9, message="no cheese", details=[detail])
    wishes = [("x-fail-code", "9"), ("x-fail-details-bin", sent.SerializeToString())]
    error = failure(lambda: stub.Unary(EchoRequest(message="no cheese"), metadata=wishes, timeout=60))
    assert rpc_status.from_call(error) == sent, rpc_status.from_call(error)


def deadline(stub):
    _, call = stub.Unary.with_call(EchoRequest(message="m"), timeout=10)
    seen = dict(call.initial_metadata()).get("x-deadline-ms")
    # C-core rounds the deadline that it sends up, by some 1 %.
    assert seen and 0 < int(seen) <= 10_200, f"the backend saw the deadline as {seen} ms"
    error = failure(lambda: stub.Unary(EchoRequest(message="m", delay_ms=20_000), timeout=0.3))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def cancel(stub):
    waiting = stub.ServerStream(EchoRequest(message="m", repeat=1, delay_ms=60_000), timeout=60)
    waiting.initial_metadata()
    requests = queue.SimpleQueue()
    requests.put(EchoRequest(message="m"))
    opened = stub.BidiStream(iter(requests.get, None), timeout=60)
    next(opened)
    for call in (waiting, opened):
        call.cancel()
        assert call.code() == grpc.StatusCode.CANCELLED, call.code()
    requests.put(None)
    # Leaves the channel time to send what the two calls' ends owe their server.
    time.sleep(0.2)


def slow_reader(stub):
    call = stub.ServerStream(EchoRequest(payload=bytes(1 << 20), repeat=400), timeout=60)
    for received, _ in enumerate(call):
        time.sleep(1.5 if received == 0 else 0.002)
    assert received == 399, f"{received + 1} replies"


def slow_backend(stub):
    requests = (EchoRequest(payload=bytes(1 << 20), delay_ms=5 if sent else 1500) for sent in range(200))
    stub.ClientStream(requests, timeout=60)


def spread(stub):
    """Counts which backend answers each of 300 unary calls, once calls of another method have reached all three."""
    reached, limit = set(), time.monotonic() + 10
    while len(reached) < 3:
        assert time.monotonic() < limit, f"within 10 s only {reached} could be reached"
        reached |= {reply.backend for reply in stub.ServerStream(EchoRequest(repeat=1), wait_for_ready=True, timeout=10)}
    counts = {}
    for _ in range(300):
        backend = stub.Unary(EchoRequest(message="spread"), timeout=10).backend
        counts[backend] = counts.get(backend, 0) + 1
    return counts


def in_flight(stub):
    stream = stub.ServerStream(EchoRequest(message="m", repeat=20, delay_ms=100), timeout=60)
    calls = [stub.Unary.future(EchoRequest(message="m", delay_ms=2000), timeout=60) for _ in range(10)]
    stream.initial_metadata()
    # The ten are on the wire by then: they need no answer to be so.
    time.sleep(0.3)
    print("started", flush=True)
    assert len(list(stream)) == 20
    for call in calls:
        call.result()


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def ended(error, code, message):
    assert (error.code(), error.details()) == (code, message), (error.code(), error.details())


CASES = [
    unary, client_stream, server_stream, bidi_stream, metadata, repeated_metadata, trailers_only, error_after_messages,
    status_details, cancel, deadline, large, slow_reader, slow_backend, spread, in_flight,
]


def run(case, stub):
    try:
        return {"case": case.__name__, "error": "", "counts": case(stub) or {}}
    except (AssertionError, grpc.RpcError) as error:
        return {"case": case.__name__, "error": f"{error}" or "an assertion failed"}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--target", required=True)
    arguments.add_argument("--service-config", default="")
    arguments.add_argument("cases", nargs="+", choices=[case.__name__ for case in CASES])
    arguments = arguments.parse_args()
    options = [*OPTIONS, ("grpc.service_config", arguments.service_config)] if arguments.service_config else OPTIONS
    stub = services.EchoStub(grpc.insecure_channel(f"ipv4:{arguments.target}", options=options))
    by_name = {case.__name__: case for case in CASES}
    for name in arguments.cases:
        print(json.dumps(run(by_name[name], stub)), flush=True)


main()
