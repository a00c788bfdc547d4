"""The grpcio peer that serves evenkeel.demo.v1.Echo and grpc.health.v1.

Prints `listening on ADDRESS`, obeys the commands that README.md lists on its standard input, drains on SIGTERM
and ends when its standard input closes.
"""

import argparse
import json
import os
import signal
import sys
import threading
from concurrent import futures

import grpc
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from echo_proto import OPTIONS, EchoReply, services

ECHO = "evenkeel.demo.v1.Echo"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Echo(services.EchoServicer):
    def __init__(self, name):
        self.name = name
        self.lock = threading.Lock()
        self.calls = 0
        self.cancelled = 0
        self.messages = []

    def Unary(self, request, context):
        with Call(self, context, request.message) as call:
            # The pause comes first: initial metadata would commit the call, and no client could retry it.
            call.pause(request)
            call.open(request, 0)
            return self.reply(request)

    def ClientStream(self, requests, context):
        with Call(self, context) as call:
            messages = []
            for request in requests:
                if not messages:
                    call.open(request, 0)
                messages.append(request.message)
                call.pause(request)
            return EchoReply(message=",".join(messages), backend=self.name)

    def ServerStream(self, request, context):
        with Call(self, context, request.message) as call:
            for sent in range(request.repeat):
                call.open(request, sent)
                call.pause(request)
                yield self.reply(request)
            call.open(request, request.repeat)

    def BidiStream(self, requests, context):
        with Call(self, context) as call:
            sent = 0
            for request in requests:
                for _ in range(max(request.repeat, 1)):
                    call.open(request, sent)
                    call.pause(request)
                    yield self.reply(request)
                    sent += 1

    def reply(self, request):
        return EchoReply(message=request.message, payload=request.payload, backend=self.name)

    def stats(self):
        with self.lock:
            return {"calls": self.calls, "cancelled": self.cancelled}


class Call:
    """One call's wishes, which its metadata states, and its end."""

    def __init__(self, echo, context, message=""):
        self.echo, self.context = echo, context
        self.over = threading.Event()
        self.handled = False
        metadata = context.invocation_metadata()
        self.echoed = [(key, value) for key, value in metadata if key.startswith("x-echo-")]
        self.wishes = {key: value for key, value in metadata if key.startswith("x-fail-")}
        # A call that has already ended takes no callback.
        if not context.add_callback(self.ended):
            self.over.set()
        with echo.lock:
            echo.calls += 1
            if message:
                echo.messages.append(message)

    def open(self, request, sent):
        """Fails if the metadata asks for it after `sent` replies; else sends initial metadata before the first."""
        code = int(self.wishes.get("x-fail-code", 0))
        self.context.set_trailing_metadata(self.echoed)
        if code and sent >= int(self.wishes.get("x-fail-after", 0)):
            self.fail(code, request.message)
        if sent:
            return
        initial = [*self.echoed, ("x-backend", self.echo.name)]
        remaining = self.context.time_remaining()
        # Without a deadline, C-core reports one some centuries away.
        if remaining is not None and remaining < 1e6:
            initial.append(("x-deadline-ms", str(int(remaining * 1000))))
        self.context.send_initial_metadata(initial)

    def fail(self, code, message):
        details = self.wishes.get("x-fail-details-bin")
        if details is not None:
            self.context.abort_with_status(rpc_status.to_status(status_pb2.Status.FromString(details)))
        self.context.abort(CODES[code], message)

    def pause(self, request):
        if request.delay_ms and self.over.wait(request.delay_ms / 1000):
            raise ConnectionAbortedError("the call ended while it waited")

    def ended(self):
        self.over.set()
        if not self.handled:
            with self.echo.lock:
                self.echo.cancelled += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handled = True


def obey(commands, echo, health_servicer):
    for command in commands:
        print(json.dumps(obey_one(command.strip(), echo, health_servicer)), flush=True)
    os._exit(0)


def obey_one(command, echo, health_servicer):
    if command == "serving":
        return set_health(health_servicer, health_pb2.HealthCheckResponse.SERVING)
    if command == "not_serving":
        return set_health(health_servicer, health_pb2.HealthCheckResponse.NOT_SERVING)
    if command == "stats":
        return echo.stats()
    if command == "calls":
        return list(echo.messages)
    return {"error": f"unknown command {command}"}


def set_health(health_servicer, status):
    health_servicer.set("", status)
    health_servicer.set(ECHO, status)
    return {"status": health_pb2.HealthCheckResponse.ServingStatus.Name(status)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--listen", default="127.0.0.1:0")
    arguments.add_argument("--name", default="python")
    arguments = arguments.parse_args()

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=[*OPTIONS, ("grpc.so_reuseport", 0)])
    echo, health_servicer = Echo(arguments.name), health.HealthServicer()
    services.add_EchoServicer_to_server(echo, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    set_health(health_servicer, health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port(arguments.listen)
    server.start()
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    threading.Thread(target=obey, args=(sys.stdin, echo, health_servicer), daemon=True).start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    terminated.wait()
    server.stop(grace=10).wait()
    os._exit(0)


main()
