"""A grpcio server with TLS and grpc.health.v1 alone.

Prints `listening on ADDRESS` and ends when its standard input closes.
"""

import argparse
import pathlib
import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--certificate", type=pathlib.Path, required=True)
    flags.add_argument("--key", type=pathlib.Path, required=True)
    flags.add_argument("--client-ca", type=pathlib.Path, help="ask for a client's certificate of this CA")
    flags = flags.parse_args()
    credentials = grpc.ssl_server_credentials(
        [(flags.key.read_bytes(), flags.certificate.read_bytes())],
        root_certificates=flags.client_ca.read_bytes() if flags.client_ca else None,
        require_client_auth=flags.client_ca is not None,
    )
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(futures.ThreadPoolExecutor())
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None)


main()
