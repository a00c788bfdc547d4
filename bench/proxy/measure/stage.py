"""Backends, a proxy before them, and the programs that load it. Whatever it starts ends with it."""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from . import machine
from .proxies import OWN, PROXIES, program

# Networks of their own within loopback, so that nobody else's ports are in the way.
LISTEN = "127.77.255.1:15000"
BACKEND_PORT = 15001
# A small reply: one message, in bytes with and without gRPC's prefix.
MESSAGE = 32
REPLY = 5 + MESSAGE


def backend_address(number):
    return f"127.77.{number // 250}.{number % 250 + 1}:{BACKEND_PORT}"


class Stage:
    """One proxy with its backends, ready to be called. Use it as a context."""

    def __init__(self, name, backends=3, workers=1):
        self.name, self.workers, self.listen = name, workers, LISTEN
        self.backends = [backend_address(number) for number in range(backends)]
        self.folder, self.started, self.measured = None, [], None

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="evenkeel-bench-")
        try:
            self.begin()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        self.end()

    def begin(self):
        backend = self.start(machine.load_cores(self.workers), [str(OWN), "backend", ",".join(self.backends)],
                             stdout=subprocess.PIPE)
        self.line(backend, "ready")
        if command := PROXIES[self.name](self):
            with contextlib.suppress(OSError), socket.create_connection(self.address(), 1):
                raise RuntimeError(f"another program listens at {LISTEN}")
            self.measured = self.start(machine.proxy_cores(self.workers), command)
            self.wait_until_it_listens()
        else:
            self.listen, self.measured = self.backends[0], backend
        self.wait_until_calls_pass()

    def address(self):
        host, port = self.listen.split(":")
        return host, int(port)

    def start(self, cores, command, stdout=None, stdin=subprocess.DEVNULL):
        """Starts a program on these cores, in a group of its own that ends with us even if we are killed."""
        pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "--cpu-list", ",".join(map(str, cores)), *command]
        with open(os.path.join(self.folder, "log"), "ab") as log:
            child = subprocess.Popen(pinned, stdin=stdin, stdout=stdout or log, stderr=log, cwd=self.folder,
                                     text=True, start_new_session=True)
        self.started.append(child)
        return child

    def end(self):
        for child in reversed(self.started):
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGTERM)
        for child in reversed(self.started):
            try:
                child.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def failure(self, what):
        with open(os.path.join(self.folder, "log"), errors="replace") as log:
            said = log.read()[-2000:].strip()
        return RuntimeError(f"{self.name}: {what}" + (f"; it said:\n{said}" if said else ""))

    def line(self, child, expected, seconds=60):
        """Waits until one of our own programs prints this line."""
        if not select.select([child.stdout], [], [], seconds)[0] or child.stdout.readline().strip() != expected:
            raise self.failure(f"a program of the benchmark did not say {expected!r}")

    def must_run(self):
        if self.measured.poll() is not None:
            raise self.failure(f"it ended with {self.measured.returncode}")

    def wait_until_it_listens(self, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.must_run()
            try:
                socket.create_connection(self.address(), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise self.failure(f"nothing listens at {self.listen}")

    def wait_until_calls_pass(self, seconds=30):
        """Calls for a moment, again and again, until none fails. This also is the warm-up."""
        end, failed = time.monotonic() + seconds, None
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.CalledProcessError):
                result = self.load(connections=4, streams=4, seconds=0.3)
                failed = result["failed"]
                if not failed and result["ok"]:
                    return self.wait_until_it_is_quiet()
            time.sleep(0.1)
        raise self.failure(f"calls fail: {failed}")

    def wait_until_it_is_quiet(self, seconds=15):
        """Connections to many backends are made over some time: waits until that takes no more than 2 % of a core."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            before = self.cpu()
            time.sleep(0.2)
            if self.cpu() - before < 0.02 * 0.2:
                return

    def cpu(self):
        return machine.cpu(self.measured.pid)

    def resident(self):
        return machine.resident(self.measured.pid)

    def run(self, command, seconds=120):
        """Runs a program that loads the proxy, and returns what it printed."""
        child = self.start(machine.load_cores(self.workers), command, stdout=subprocess.PIPE)
        try:
            said, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise self.failure(f"{command[0]} does not end") from None
        self.started.remove(child)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, command)
        return said

    def load(self, **options):
        """Calls of our own load, each reply of which is checked."""
        command = [str(OWN), "load", self.listen]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        return json.loads(self.run(command))

    def h2load(self, connections, streams, calls):
        """Small calls as fast as they go: how many were right, why others failed, and calls a second."""
        body = os.path.join(self.folder, "request")
        with open(body, "wb") as file:
            file.write(struct.pack(">BIII", 0, 2 + MESSAGE, 1, MESSAGE) + b"x" * (2 + MESSAGE - 8))
        # The floor passes header blocks on as they are, so that its client must not index fields.
        options = ["--encoder-header-table-size=0"] if self.name == "floor" else []
        said = self.run([program("h2load"), "-t1", f"-c{connections}", f"-m{streams}", f"-n{calls}", "-d", body,
                         *options, "-H", "content-type: application/grpc", "-H", "te: trailers",
                         f"http://{self.listen}/evenkeel.bench.Echo/Call"])
        succeeded = re.search(r"(\d+) succeeded", said)
        data = re.search(r"\((\d+)\) data", said)
        speed = re.search(r"finished in .*, ([\d.]+) req/s", said)
        if not (succeeded and data and speed):
            raise self.failure(f"h2load said:\n{said}")
        # A call that fails as gRPC calls do has status 200 as well, but no message.
        right = min(int(succeeded[1]), int(data[1]) // REPLY)
        failed = {"no right reply": calls - right} if right < calls else {}
        return right, failed, float(speed[1])
