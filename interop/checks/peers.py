"""The processes of a suite: backends, the proxy before them, and clients. All end with the suite."""

import json
import pathlib
import queue
import signal
import subprocess
import tempfile
import threading
import time

from .report import Failed, expect

INTEROP = pathlib.Path(__file__).resolve().parents[1]
BIN = INTEROP / ".cache/bin"
PYTHON = INTEROP / ".cache/venv/bin/python"
ECHO = "evenkeel.demo.v1.Echo"
ROUND_ROBIN = {"loadBalancingConfig": [{"round_robin": {}}]}

BACKENDS = {
    "grpcio": [PYTHON, INTEROP / "python/echo_backend.py"],
    "grpc-go": [BIN / "echo-backend"],
    "node": ["node", INTEROP / "node/echo_backend.js"],
}
# Serves grpc.health.v1 alone.
HEALTH_SERVERS = {"evenkeel": [INTEROP.parent / "target/release/evenkeel-interop-health"]}
CLIENTS = {
    "grpcio": [PYTHON, INTEROP / "python/echo_client.py"],
    "grpc-go": [BIN / "echo-client"],
    "node": ["node", INTEROP / "node/echo_client.js"],
}


def missing(language):
    """Why the peers of a language cannot run, or None."""
    needs = {"grpcio": PYTHON, "grpc-go": BIN / "echo-backend", "node": INTEROP / "node/node_modules/@grpc/grpc-js"}
    return None if needs[language].exists() else f"the {language} peers are not installed (see install.sh)"


class Child:
    """A process whose output lines are read as they come."""

    def __init__(self, command, host=None):
        self.command = [str(word) for word in (*(host.enter if host else ()), *command)]
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.lines = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self, timeout=20):
        """The next line; fails when the process ends or stays silent."""
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            raise Failed(f"{self.command[0]} said nothing for {timeout} s") from None
        if line is None:
            self.lines.put(None)  # for whoever asks again
            raise Failed(f"{' '.join(self.command)} ended with {self.process.wait()}")
        return line

    def line_starting(self, prefix):
        while not (line := self.line()).startswith(prefix):
            pass
        return line[len(prefix):]

    def wait(self, timeout=70):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.command[0]} did not end within {timeout} s") from None

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def resident(self):
        """Resident memory in bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS:"))


class Backend(Child):
    def __init__(self, language, name, listen="127.0.0.1:0", options=(), host=None):
        super().__init__([*(BACKENDS | HEALTH_SERVERS)[language], "--name", name, "--listen", listen, *options], host)
        self.language, self.name = language, name
        self.address = self.line_starting("listening on ")

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.line())


class Peers:
    def __init__(self, direct, evenkeel):
        self.direct, self.evenkeel = direct, evenkeel
        self.children = []
        self.folder = tempfile.TemporaryDirectory(prefix="evenkeel-interop-")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clear()
        self.folder.cleanup()

    def clear(self):
        while self.children:
            self.children.pop().kill()

    def start(self, child):
        self.children.append(child)
        return child

    def backend(self, language, name=None, listen="127.0.0.1:0", options=(), host=None):
        return self.start(Backend(language, name or language, listen, options, host))

    def proxy(self, backends, *options, service_config=None, host=None):
        """Starts the proxy before the backends and waits until it listens."""
        targets = ",".join(backend.address for backend in backends)
        if service_config is not None:
            path = pathlib.Path(self.folder.name) / "service-config.json"
            path.write_text(json.dumps(service_config))
            options = (*options, "--service-config", path)
        command = [self.evenkeel, "proxy", "--listen", "127.0.0.1:0", targets, "--log-level", "warn", *options]
        proxy = self.start(Child(command, host))
        proxy.address = proxy.line_starting("listening on ")
        return proxy

    def client(self, language, target, *cases, service_config=None):
        return self.start(Child([*CLIENTS[language], "--target", target, *config(service_config), *cases]))

    def load(self, target, *options, service_config=None, program=BIN / "echo-load", host=None):
        """Starts an open-loop load and waits until its first call has been answered."""
        load = self.start(Child([program, "--target", target, *config(service_config), *options], host))
        expect(load.line() == "started", "the load did not start")
        return load


def config(service_config):
    return ["--service-config", json.dumps(service_config)] if service_config else []


def result(client, timeout=70):
    """A client's next result, without its error: that is raised."""
    answer = json.loads(client.line(timeout))
    expect(not answer["error"], answer["error"])
    return answer.get("counts") or {}


def eventually(condition, finding, seconds=5):
    limit = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < limit, finding)
        time.sleep(0.05)


def terminate(child):
    child.send(signal.SIGTERM)
