"""Messages and stubs of the demo service, made from its proto when first imported."""

import pathlib
import sys

import grpc

PROTOS = pathlib.Path(__file__).resolve().parents[2] / "crates/proto/protos"
MAX_MESSAGE = 64 << 20
OPTIONS = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]

sys.path.insert(0, str(PROTOS))
messages, services = grpc.protos_and_services("evenkeel/demo/v1/echo.proto")
EchoRequest, EchoReply = messages.EchoRequest, messages.EchoReply
