"""Certificates that a suite makes for itself, and whether the proxy can use them."""

import pathlib
import subprocess

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


class Certificates:
    """A CA, and certificates of it for a server of these names (as in a subjectAltName) and for the client `client.test`."""

    def __init__(self, folder, names):
        self.folder = pathlib.Path(folder)
        self.openssl("req", "-x509", *CURVE, "-subj", "/CN=interop", "-keyout", "ca.key", "-out", "ca.pem")
        for name, names in (("server", names), ("client", "DNS:client.test")):
            self.openssl("req", "-x509", *CURVE, "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}",
                         "-addext", "basicConstraints=CA:FALSE", "-CA", "ca.pem", "-CAkey", "ca.key",
                         "-keyout", f"{name}.key", "-out", f"{name}.pem")
        self.ca, self.certificate, self.key = (self.folder / name for name in ("ca.pem", "server.pem", "server.key"))

    def openssl(self, *words):
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


def proxy_lacks_tls(peers):
    """Why the proxy cannot listen with TLS, or None."""
    said = subprocess.run([peers.evenkeel, "proxy", "--help"], capture_output=True, text=True, check=True).stdout
    return None if "--tls-cert" in said else "this `evenkeel proxy` has no --tls-cert"
