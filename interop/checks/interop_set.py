"""gRPC's own interop cases through the proxy, from grpc-go's, grpcio's, Node's and Java's clients: in plain text, and with TLS on
both sides of the proxy."""

import json
import shutil
import socket
import subprocess

from .certificates import Certificates, proxy_lacks_tls
from .peers import BIN, CLIENTS, INTEROP, PYTHON, Child, eventually, missing
from .report import expect

COMMON = [
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
    "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "rpc_soak", "channel_soak",
]
PICK_FIRST = "pick_first_unary"
# What only the interop clients of grpc-go and Java have.
LOAD_REPORTS = ["orca_per_rpc", "orca_oob"]
# What only Java's client and server have both. Neither server answers the probe of the cases without `noprobe`.
COMPRESSED = [
    "client_compressed_unary_noprobe", "client_compressed_streaming_noprobe", "server_compressed_unary",
    "server_compressed_streaming", "very_large_request",
]
# The policy with which these clients collect load reports; they bring it.
ORCA_POLICY = '--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}'
JARS = INTEROP / ".cache/java"
# The quickest start counts, not the quickest code.
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{JARS}/*"]
PROGRAMS = {"grpcio": [PYTHON, INTEROP / "python/interop_client.py"], "node": ["node", INTEROP / "node/interop_client.js"]}
STORE_PASSWORD = "interop"


def run(peers, report):
    if reason := missing("grpc-go"):
        return report.skip("interop set", reason)
    set_of(peers, report, Plain(peers))
    peers.clear()
    if reason := None if peers.direct else proxy_lacks_tls(peers):
        return report.skip("interop set with TLS", reason)
    set_of(peers, report, Tls(peers))


def set_of(peers, report, wire):
    """Every client's cases, through proxies of one kind."""
    common, further = wire.common_target(), wire.further_targets()
    for language in CLIENTS:
        name = f"interop {language} client{wire.name}"
        if reason := missing(language):
            report.skip(name, reason)
            continue
        orca = LOAD_REPORTS if language == "grpc-go" else []
        check(report, name, wire, language, [(common, [*COMMON, *orca]), *further[:1]])
    name = f"interop java client{wire.name}"
    if reason := missing_java():
        return report.skip(name, reason)
    check(report, name, wire, "java", [(common, [*COMMON, *LOAD_REPORTS]), *further])


def check(report, name, wire, language, targets):
    """Runs each target's cases."""
    if language == "grpc-go":
        for target, cases in targets:
            for case in cases:
                report.check(f"{name}: {case}", lambda: go_passes(wire, target, case))
        return
    for client, cases in wire.clients(language, targets):
        for case in cases:
            report.check(f"{name}: {case}", lambda: passed(client, case, wire.peers.direct))


def passed(client, case, direct):
    """The client's next result: it prints other lines, too."""
    answer = json.loads("{" + client.line_starting("{"))
    expect(answer["case"] == case, f"the client ran {answer['case']}")
    # At the deadline the server may reset the call before the client's own timer: that reads as CANCELLED (README.md).
    if direct and case == "timeout_on_sleeping_server" and "CANCELLED" in answer["error"]:
        return "CANCELLED is these peers' own doing"
    expect(not answer["error"], answer["error"])


def go_passes(wire, target, case):
    orca = [ORCA_POLICY] if case in LOAD_REPORTS else []
    command = [BIN / "grpc-go-client", *server_flags(target), f"--test_case={case}", *wire.go_client, *orca]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    expect(ran.returncode == 0, f"exit {ran.returncode}: {ran.stderr.strip()[-600:]}")


def server_flags(target):
    host, port = target.rsplit(":", 1)
    return f"--server_host={host}", f"--server_port={port}"


class Plain:
    """Peers and proxies without TLS."""

    name = ""
    go_client, go_server, java_machine, java_client, trust = (), (), (), ("--use_tls=false",), ()

    def __init__(self, peers):
        self.peers = peers

    def common_target(self):
        """The address of a server that knows the common cases."""
        server = server_at(self.peers, *self.go_server)
        return (server if self.peers.direct else self.proxy([server], "--no-health-check")).address

    def further_targets(self):
        """Addresses of servers that know more, each with its cases: all clients have those of the first, Java those of all."""
        # grpc-go's interop server never says who it is; the echo backends serve the same tests and do.
        named = [self.peers.backend("grpc-go", f"b{n}") for n in range(3)]
        first = named[0] if self.peers.direct else self.proxy_of_plain(named, "--policy", "pick_first")
        targets = [(first.address, [PICK_FIRST])]
        if not missing_java():
            server = java_server(self.peers)
            targets.append(((server if self.peers.direct else self.proxy_of_plain([server])).address, COMPRESSED))
        return targets

    def proxy(self, backends, *options):
        return self.peers.proxy(backends, *options)

    def proxy_of_plain(self, backends, *options):
        return self.proxy(backends, *options)

    def clients(self, language, targets):
        """The clients that run each target's cases, with these cases: Java's starts slowly, so it is one for all."""
        if language == "java":
            words = [word for target, cases in targets for word in (target, *cases)]
            command = [*JAVA, *self.java_machine, INTEROP / "java/InteropClient.java", *words, "--", *self.java_client, ORCA_POLICY]
            yield self.peers.start(Child(command)), [case for _, cases in targets for case in cases]
            return
        for target, cases in targets:
            yield self.peers.start(Child([*PROGRAMS[language], "--target", target, *self.trust, *cases])), cases


class Tls(Plain):
    """Peers and proxies with certificates of one CA, for 127.0.0.1."""

    name = " with TLS"

    def __init__(self, peers):
        super().__init__(peers)
        made = Certificates(peers.folder.name, "IP:127.0.0.1")
        self.listen = ("--tls-cert", made.certificate, "--tls-key", made.key)
        self.backends = ("--backend-tls", "--backend-ca", made.ca)
        self.go_server = ("--use_tls", f"--tls_cert_file={made.certificate}", f"--tls_key_file={made.key}")
        self.go_client = ("--use_tls", "--use_test_ca", f"--ca_file={made.ca}")
        self.trust = ("--ca", made.ca)
        self.java_client = ("--use_tls=true",)
        self.java_machine = () if missing_java() else java_trust(made)

    def further_targets(self):
        # These servers speak plain text alone.
        return [] if self.peers.direct else super().further_targets()

    def proxy(self, backends, *options):
        return self.proxy_of_plain(backends, *options, *self.backends)

    def proxy_of_plain(self, backends, *options):
        return self.peers.proxy(backends, *options, *self.listen)


def java_trust(made):
    """Options of a Java virtual machine that trusts the CA alone."""
    store = made.folder / "trusted.p12"
    subprocess.run(
        ["keytool", "-importcert", "-noprompt", "-alias", "interop", "-file", made.ca, "-keystore", store,
         "-storetype", "PKCS12", "-storepass", STORE_PASSWORD], check=True, capture_output=True)
    return f"-Djavax.net.ssl.trustStore={store}", f"-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"


def missing_java():
    """Why Java's client cannot run, or None."""
    if not any(JARS.glob("grpc-interop-testing-*.jar")):
        return "the java peers are not installed (see install.sh)"
    return None if shutil.which("java") and shutil.which("javac") else "there is no java with its compiler on the PATH"


def server_at(peers, *options):
    """grpc-go's interop server."""
    return listening(peers, [BIN / "grpc-go-server", *options])


def java_server(peers):
    return listening(peers, [*JAVA, "io.grpc.testing.integration.TestServiceServer", "--use_tls=false"])


def listening(peers, command):
    """An interop server wants a port by number: one that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = peers.start(Child([*command, f"--port={port}"]))
    server.address = f"127.0.0.1:{port}"
    eventually(lambda: answers(port), "the interop server does not listen", seconds=20)
    return server


def answers(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
