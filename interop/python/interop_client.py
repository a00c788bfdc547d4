"""gRPC's interop cases from grpcio: those it is given, in order, over one channel.

Prints a line of JSON for each: {"case": …, "error": … or ""}.
"""

import argparse
import json
import pathlib
import queue
import sys

import grpc

# By its bare name: under its package's it would be looked for in the package `grpc` itself.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "client/protos/grpc/testing"))
messages, services = grpc.protos_and_services("test.proto")

# The sizes that the cases' descriptions name.
LARGE_REQUEST, LARGE_REPLY = 271_828, 314_159
SENT_SIZES, REPLY_SIZES = (27_182, 8, 1_828, 45_904), (31_415, 9, 2_653, 58_979)
ODD_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
SOAKED_CALLS = 10
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
ECHOED = [(INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab")]


class Client:
    def __init__(self, connect):
        self.connect = connect
        self.channel = connect()
        self.stub = services.TestServiceStub(self.channel)

    def empty_unary(self):
        assert self.stub.EmptyCall(messages.Empty(), timeout=20) == messages.Empty()

    def large_unary(self):
        large(self.stub)

    def client_streaming(self):
        sent = (messages.StreamingInputCallRequest(payload=payload(size)) for size in SENT_SIZES)
        assert self.stub.StreamingInputCall(sent, timeout=20).aggregated_payload_size == sum(SENT_SIZES)

    def server_streaming(self):
        replies = list(self.stub.StreamingOutputCall(asking(*REPLY_SIZES), timeout=20))
        assert [len(reply.payload.body) for reply in replies] == list(REPLY_SIZES), replies

    def ping_pong(self):
        requests = queue.SimpleQueue()
        replies = self.stub.FullDuplexCall(iter(requests.get, None), timeout=20)
        for sent, wanted in zip(SENT_SIZES, REPLY_SIZES):
            requests.put(asking(wanted, sent=sent))
            assert len(next(replies).payload.body) == wanted
        requests.put(None)
        assert list(replies) == []

    def empty_stream(self):
        assert list(self.stub.FullDuplexCall(iter(()), timeout=20)) == []

    def timeout_on_sleeping_server(self):
        replies = self.stub.FullDuplexCall(Pending(asking(sent=27_182)), timeout=0.001)
        ended(lambda: next(replies), grpc.StatusCode.DEADLINE_EXCEEDED)

    def cancel_after_begin(self):
        call = self.stub.StreamingInputCall.future(Pending(), timeout=20)
        call.cancel()
        assert call.code() == grpc.StatusCode.CANCELLED, call.code()

    def cancel_after_first_response(self):
        replies = self.stub.FullDuplexCall(Pending(asking(REPLY_SIZES[0], sent=SENT_SIZES[0])), timeout=20)
        next(replies)
        replies.cancel()
        ended(lambda: next(replies), grpc.StatusCode.CANCELLED)

    def status_code_and_message(self):
        self.both_end_with("test status message")

    def special_status_message(self):
        self.both_end_with(ODD_MESSAGE)

    def both_end_with(self, message):
        status = messages.EchoStatus(code=2, message=message)
        unary, streamed = messages.SimpleRequest(response_status=status), messages.StreamingOutputCallRequest(response_status=status)
        ended(lambda: self.stub.UnaryCall(unary, timeout=20), grpc.StatusCode.UNKNOWN, message)
        ended(lambda: list(self.stub.FullDuplexCall(iter([streamed]), timeout=20)), grpc.StatusCode.UNKNOWN, message)

    def custom_metadata(self):
        _, call = self.stub.UnaryCall.with_call(sized(1, 1), metadata=ECHOED, timeout=20)
        echoes(call)
        call = self.stub.FullDuplexCall(iter([asking(1, sent=1)]), metadata=ECHOED, timeout=20)
        assert len(list(call)) == 1
        echoes(call)

    def unimplemented_method(self):
        ended(lambda: self.stub.UnimplementedCall(messages.Empty(), timeout=20), grpc.StatusCode.UNIMPLEMENTED)

    def unimplemented_service(self):
        other = services.UnimplementedServiceStub(self.channel)
        ended(lambda: other.UnimplementedCall(messages.Empty(), timeout=20), grpc.StatusCode.UNIMPLEMENTED)

    def pick_first_unary(self):
        request = messages.SimpleRequest(response_size=1, payload=payload(1), fill_server_id=True)
        servers = {self.stub.UnaryCall(request, timeout=20).server_id for _ in range(100)}
        assert len(servers) == 1 and "" not in servers, servers

    def rpc_soak(self):
        for _ in range(SOAKED_CALLS):
            large(self.stub)

    def channel_soak(self):
        for _ in range(SOAKED_CALLS):
            with self.connect() as channel:
                large(services.TestServiceStub(channel))


class Pending:
    """The requests of a call that is never half-closed."""

    def __init__(self, *requests):
        self.requests, self.end = iter(requests), queue.SimpleQueue()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.requests, None) or self.end.get()


def large(stub):
    reply = stub.UnaryCall(sized(LARGE_REQUEST, LARGE_REPLY), timeout=20)
    assert reply.payload.body == bytes(LARGE_REPLY), f"{len(reply.payload.body)} bytes"


def sized(sent, wanted):
    return messages.SimpleRequest(payload=payload(sent), response_size=wanted)


def asking(*wanted, sent=0):
    parameters = [messages.ResponseParameters(size=size) for size in wanted]
    return messages.StreamingOutputCallRequest(response_parameters=parameters, payload=payload(sent))


def payload(size):
    return messages.Payload(body=bytes(size))


def echoes(call):
    for key, found in ((INITIAL, call.initial_metadata()), (TRAILING, call.trailing_metadata())):
        assert dict(found).get(key) == dict(ECHOED)[key], f"{key}: {found}"


def ended(call, code, details=None):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code and details in (None, error.details()), error
        return
    raise AssertionError(f"the call succeeded, and {code} was due")


def run(client, case):
    try:
        getattr(client, case)()
    except (AssertionError, grpc.RpcError) as error:
        return {"case": case, "error": f"{error}" or "an assertion failed"}
    return {"case": case, "error": ""}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--target", required=True)
    arguments.add_argument("--ca", type=pathlib.Path, help="speak TLS, and trust this CA")
    arguments.add_argument("cases", nargs="+")
    arguments = arguments.parse_args()

    def connect():
        # A channel of its own has to have connections of its own, which C-core would share.
        options = [("grpc.use_local_subchannel_pool", 1)]
        if arguments.ca is None:
            return grpc.insecure_channel(arguments.target, options)
        return grpc.secure_channel(arguments.target, grpc.ssl_channel_credentials(arguments.ca.read_bytes()), options)

    client = Client(connect)
    for case in arguments.cases:
        print(json.dumps(run(client, case)), flush=True)
    client.channel.close()


main()
