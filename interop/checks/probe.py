"""`evenkeel check` against each language's health server, by exit code. Direct: grpc-health-probe in its place.

Then grpc-health-probe and `evenkeel` under its name, side by side: the same command lines against the same servers, Evenkeel's
own among them, must end with the same exit code and the same lines."""

import re
import socket
import subprocess
import threading

from .certificates import Certificates
from .interop_set import server_at
from .peers import BACKENDS, BIN, ECHO, INTEROP, PYTHON, Child, missing
from .report import expect

ORIGINAL = BIN / "grpc-health-probe"
# What an HTTP/2 server begins with, and nothing more: the call that follows is never answered.
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def run(peers, report):
    for language in BACKENDS:
        if reason := missing(language):
            report.skip(f"health of {language}", reason)
            continue
        backend = peers.backend(language)
        for service in ("", ECHO):
            exits(peers, report, f"{language} SERVING {service!r}", backend.address, service, 0)
        exits(peers, report, f"{language} unknown service", backend.address, "no.such.Service", 3)
        backend.ask("not_serving")
        for service in ("", ECHO):
            exits(peers, report, f"{language} NOT_SERVING {service!r}", backend.address, service, 4)
        backend.kill()
        exits(peers, report, f"{language} refused", backend.address, "", 2)
    if peers.direct:
        return
    if ORIGINAL.exists():
        side_by_side(Both(peers, report))
    else:
        report.skip("grpc-health-probe side by side", "grpc-health-probe is not installed (see install.sh)")


def exits(peers, report, name, address, service, code):
    report.check(f"health of {name}: exit {code}", lambda: expect_exit(command(peers, address, service), code))


def command(peers, address, service):
    if peers.direct:
        return [ORIGINAL, f"-addr={address}", f"-service={service}"]
    return [peers.evenkeel, "check", address, *(["--service", service] if service else [])]


def expect_exit(words, code):
    ran = subprocess.run(words, capture_output=True, text=True, timeout=10)
    expect(ran.returncode == code, f"exit {ran.returncode}: {ran.stderr.strip()}")


class Both:
    """grpc-health-probe and what stands in for it."""

    def __init__(self, peers, report):
        self.peers, self.report = peers, report
        self.stand_in = f"{peers.folder.name}/grpc_health_probe"
        subprocess.run(["ln", "-sf", peers.evenkeel, self.stand_in], check=True)

    def agree(self, name, *arguments, code, words=True):
        """Both end with the code and with the same lines; without words, those that end in a library's own may differ there."""
        self.report.check(f"as grpc-health-probe: {name}", lambda: self.compare(arguments, code, words))

    def compare(self, arguments, code, words):
        original, ours = (ran(program, arguments, words) for program in (ORIGINAL, self.stand_in))
        expect(ours == original, f"{ours} in place of {original}")
        expect(original[0] == code, f"both exit with {original[0]} in place of {code}")
        return f"exit {code}"


def ran(program, arguments, words):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20)
    return done.returncode, normal(done.stdout, words), normal(done.stderr, words)


def normal(text, words):
    """Without what differs from run to run, and without the texts of a usage, which are each program's own."""
    text = text.split("Usage:\n")[0] + ("Usage:" if "Usage:\n" in text else "")
    text = re.sub(r"(took |connect=|rpc=)[0-9.]+(ns|µs|ms|s)", r"\1TIME", text)
    return text if words else re.sub(r"(desc = |error=|Health\): ).*", r"\1…", text)


def side_by_side(both):
    arguments(both)
    for language in (*BACKENDS, "evenkeel"):
        if language != "evenkeel" and (reason := missing(language)):
            both.report.skip(f"as grpc-health-probe: {language}", reason)
            continue
        backend = both.peers.backend(language)
        answers(both, language, backend)
    foreign(both)
    tls(both)


def answers(both, language, backend):
    address = f"-addr={backend.address}"
    for service in ("", ECHO):
        both.agree(f"{language} SERVING {service!r}", address, f"-service={service}", code=0)
    both.agree(f"{language}, two dashes, -v, metadata", "--addr", backend.address, "-v", "--rpc-header=a: b", "-rpc-header", "A:c",
               "-rpc-header", "x-bin:y", "-user-agent=x", code=0)
    both.agree(f"{language} unknown service", address, "-service=no.such.Service", code=3)
    both.agree(f"{language} illegal metadata", address, "-rpc-header=a b: c", code=3)
    # Neither grpc-go's backend nor Evenkeel's server has been told to take it.
    both.agree(f"{language} gzip", address, "-gzip", code=3 if language in ("grpc-go", "evenkeel") else 0)
    backend.ask("not_serving")
    both.agree(f"{language} NOT_SERVING", address, code=4)
    both.agree(f"{language} TLS to plain text", address, "-tls", "-tls-no-verify", "-connect-timeout=300ms", code=2)
    backend.kill()
    both.agree(f"{language} refused", address, "-connect-timeout=200ms", code=2)


def arguments(both):
    for name, line in {
        "no address": (),
        "help": ("-help",),
        "-h": ("-h",),
        "an unknown flag": ("-adr=x",),
        "bad syntax": ("---",),
        "no name": ("-=x",),
        "no value": ("-addr",),
        "a bad switch": ("-addr=x", "-tls=perhaps"),
        "a bad duration": ("-addr=x", "-connect-timeout=1"),
        "another bad duration": ("-addr=x", "-rpc-timeout", "1.2.3s"),
        "a bad header": ("-addr=x", "-rpc-header=a\tb"),
        "no time to connect": ("-addr=x", "-connect-timeout=-1m30s"),
        "no time to call": ("-addr=x", "-rpc-timeout=0"),
        "-alts and -spiffe": ("-addr=x", "-alts", "-spiffe"),
        "-tls and -alts": ("-addr=x", "-alts", "-tls"),
        "-tls and -spiffe": ("-addr=x", "-spiffe", "-tls"),
        "-tls-no-verify alone": ("-addr=x", "-tls-no-verify"),
        "-tls-ca-cert alone": ("-addr=x", "-tls-ca-cert=y"),
        "-tls-client-cert alone": ("-addr=x", "-tls-client-cert=y"),
        "-tls-client-key alone": ("-addr=x", "-tls-client-key=y"),
        "-tls-server-name alone": ("-addr=x", "-tls-server-name=y"),
        "a certificate without a key": ("-addr=x", "-tls", "-tls-client-cert=y"),
        "a key without a certificate": ("-addr=x", "-tls", "-tls-client-key=y"),
        "a CA that is not looked at": ("-addr=x", "-tls", "-tls-no-verify", "-tls-ca-cert=y"),
        "a name that is not looked at": ("-addr=x", "-tls", "-tls-no-verify", "-tls-server-name=y"),
        "a CA that is not there": ("-addr=x", "-tls", "-tls-ca-cert=/nope"),
        "a CA that is none": ("-addr=x", "-tls", f"-tls-ca-cert={__file__}"),
        "a certificate that is not there": ("-addr=x", "-tls", "-tls-client-cert=/nope", "-tls-client-key=/nope"),
    }.items():
        both.agree(name, *line, code=1)
    both.agree("a certificate that is none", "-addr=x", "-tls", f"-tls-client-cert={__file__}", f"-tls-client-key={__file__}",
               code=1, words=False)
    both.agree("SPIFFE without its API", "-addr=x", "-spiffe", code=20, words=False)


def foreign(both):
    silent, unanswering = Accepting(b""), Accepting(SETTINGS)
    both.agree("accepted and silent", f"-addr={silent.address}", "-connect-timeout=200ms", code=2)
    both.agree("no answer to the call", f"-addr={unanswering.address}", "-rpc-timeout=200ms", "-v", code=3)
    both.agree("HTTP/1", f"-addr={Accepting(b'HTTP/1.1 400 Bad Request' + bytes([13, 10] * 2)).address}", "-connect-timeout=200ms",
               code=2)
    if not missing("grpc-go"):
        address = server_at(both.peers).address
        both.agree("grpc-go without a health service", f"-addr={address}", code=3)


def tls(both):
    if reason := missing("grpcio"):
        both.report.skip("as grpc-health-probe: TLS", reason)
        return
    certificates = Certificates(both.peers.folder.name, "DNS:health.test")
    ca, cert, key = (f"{certificates.folder}/{name}" for name in ("ca.pem", "server.pem", "server.key"))
    server = both.peers.start(TlsServer(cert, key))
    strict = both.peers.start(TlsServer(cert, key, "--client-ca", ca))
    quick = "-connect-timeout=300ms"
    trusted = ("-tls", f"-tls-ca-cert={ca}")
    named = (*trusted, "-tls-server-name=health.test")
    both.agree("TLS", f"-addr={server.address}", *named, "-v", code=0)
    both.agree("TLS, any certificate", f"-addr={server.address}", "-tls", "-tls-no-verify", code=0)
    both.agree("TLS, wrong name", f"-addr={server.address}", *trusted, quick, code=2)
    both.agree("TLS, unknown issuer", f"-addr={server.address}", "-tls", "-tls-server-name=health.test", quick, code=2)
    both.agree("plain text to TLS", f"-addr={server.address}", quick, code=2)
    client = (f"-tls-client-cert={certificates.folder}/client.pem", f"-tls-client-key={certificates.folder}/client.key")
    both.agree("mutual TLS", f"-addr={strict.address}", *named, *client, code=0)
    both.agree("mutual TLS without a certificate", f"-addr={strict.address}", *named, quick, code=2)


class TlsServer(Child):
    def __init__(self, certificate, key, *options):
        super().__init__([PYTHON, INTEROP / "python/tls_health.py", "--certificate", certificate, "--key", key, *options])
        self.address = self.line_starting("listening on ")


class Accepting:
    """Accepts connections, says its words, and no more."""

    def __init__(self, words):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.words, self.connections = words, []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            self.connections.append(connection)
            connection.sendall(self.words)
