"""A real Envoy that health-checks our servers by gRPC: what it makes of them, by its own admin page."""

import json
import pathlib
import urllib.request

from .peers import ECHO, PYTHON, Child, eventually, terminate
from .report import expect

ENVOY = PYTHON.parent / "envoy"
INTERVAL = "0.25s"


def run(peers, report):
    if peers.direct:
        report.skip("Envoy's health checks", "there is nothing of Evenkeel's to leave out")
        return
    if not ENVOY.exists():
        report.skip("Envoy's health checks", "Envoy is not installed (see install.sh)")
        return
    for service in ("", ECHO):
        name = repr(service)
        servers = [peers.backend("evenkeel"), peers.backend("evenkeel")]
        envoy = peers.start(Envoy(peers, servers, service))
        report.check(f"Envoy finds both healthy, asking about {name}", lambda: envoy.sees(servers, ()))
        servers[0].ask("not_serving")
        report.check(f"Envoy takes out the one that is NOT_SERVING, {name}", lambda: envoy.sees(servers[1:], servers[:1]))
        servers[0].ask("serving")
        report.check(f"Envoy takes it back, {name}", lambda: envoy.sees(servers, ()))
        terminate(servers[1])
        report.check(f"Envoy takes out the one that drains, {name}", lambda: envoy.sees(servers[:1], servers[1:]))
        report.check(f"the drained server ends though Envoy's connection is kept, {name}", lambda: ends(servers[1]))
        peers.clear()


def ends(server):
    code = server.wait(timeout=20)
    expect(code == 0, f"exit code {code}")


class Envoy(Child):
    """Envoy with one cluster of these servers, checked by gRPC."""

    def __init__(self, peers, servers, service):
        admin = pathlib.Path(peers.folder.name) / "envoy-admin"
        admin.unlink(missing_ok=True)
        config = pathlib.Path(peers.folder.name) / "envoy.json"
        config.write_text(json.dumps(bootstrap(servers, service)))
        super().__init__([ENVOY, "--config-path", config, "--admin-address-path", admin, "--use-dynamic-base-id",
                          "--log-level", "error", "--concurrency", "1"])
        eventually(lambda: admin.exists() and admin.read_text(), "Envoy did not start", seconds=20)
        self.admin = admin.read_text().strip()

    def sees(self, healthy, failed):
        """Waits until it takes exactly these for healthy and for failed."""
        want = {**{s.address: "HEALTHY" for s in healthy}, **{s.address: "UNHEALTHY" for s in failed}}
        last = {}

        def is_so():
            last.clear()
            last.update(self.states())
            return last == want

        try:
            eventually(is_so, "", seconds=10)
        except Exception as error:
            raise type(error)(f"Envoy sees {last}, not {want}") from None

    def states(self):
        with urllib.request.urlopen(f"http://{self.admin}/clusters?format=json", timeout=5) as answer:
            clusters = json.load(answer)["cluster_statuses"]
        hosts = next(cluster for cluster in clusters if cluster["name"] == "checked").get("host_statuses", [])
        states = {}
        for host in hosts:
            address = host["address"]["socket_address"]
            failed = host["health_status"].get("failed_active_health_check", False)
            pending = host["health_status"].get("pending_active_hc", False)
            state = "PENDING" if pending else "UNHEALTHY" if failed else "HEALTHY"
            states[f"{address['address']}:{address['port_value']}"] = state
        return states


def bootstrap(servers, service):
    endpoints = []
    for server in servers:
        host, port = server.address.rsplit(":", 1)
        endpoints.append({"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}})
    check = {
        "timeout": "1s", "interval": INTERVAL, "no_traffic_interval": INTERVAL,
        "unhealthy_threshold": 2, "healthy_threshold": 1, "grpc_health_check": {"service_name": service},
    }
    cluster = {
        "name": "checked", "type": "STATIC", "connect_timeout": "1s", "health_checks": [check],
        "load_assignment": {"cluster_name": "checked", "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}},
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"clusters": [cluster]},
    }
