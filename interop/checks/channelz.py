"""grpcio's channelz client asks a process of Evenkeel's what its channel is doing, under load and with a backend gone."""

import pathlib
import socket

import grpc
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from .network import OWN_LOAD
from .peers import eventually, missing
from .report import expect

READY, IN_TROUBLE = channelz_pb2.ChannelConnectivityState.READY, channelz_pb2.ChannelTraceEvent.CT_WARNING


def run(peers, report):
    name = "channelz: grpcio's client sees the channel, its subchannels and sockets, and a backend that dies"
    if peers.direct:
        return report.skip(name, "there is no channel of Evenkeel's")
    if reason := missing("grpcio") or (None if OWN_LOAD.exists() else f"{OWN_LOAD} is not built"):
        return report.skip(name, reason)
    report.check(name, lambda: watch(peers))


def watch(peers):
    backends = [peers.backend("grpcio", f"b{n}") for n in range(3)]
    target = ",".join(backend.address for backend in backends)
    record = pathlib.Path(peers.folder.name) / "calls.csv"
    load = peers.load(
        target, "--policy=round_robin", "--rate=200", "--seconds=30", "--channelz-port=0", f"--record={record}",
        program=OWN_LOAD)
    with grpc.insecure_channel(load.line_starting("channelz on ")) as connection:
        asked = Asked(channelz_pb2_grpc.ChannelzStub(connection))
        eventually(lambda: asked.states() == [READY] * 3, "three subchannels are not READY")
        channel = asked.channel()
        expect(channel.data.target == target and channel.ref.name == "load", f"{channel.ref} {channel.data.target}")
        calls = adds_up(asked)
        remotes = sorted(remote(asked.socket(ref)) for child in asked.subchannels() for ref in child.socket_ref)
        expect(remotes == sorted(backend.address for backend in backends), f"sockets lead to {remotes}")
        begun = channel.data.calls_started
        eventually(lambda: asked.channel().data.calls_started > begun, "calls_started does not grow")
        events = dies(asked, backends[0])
    return f"{calls} calls; {events[-1]}"


def adds_up(asked):
    """Calls that have ended have begun, in the channel, and the subchannels have them all; both are read as they run."""
    data = asked.channel().data
    expect(0 < data.calls_succeeded <= data.calls_started and data.calls_failed == 0, f"{data}")
    expect(data.HasField("last_call_started_timestamp"), "last_call_started_timestamp is not set")
    begun = sum(child.data.calls_started for child in asked.subchannels())
    expect(begun >= data.calls_succeeded, f"{begun} attempts, {data.calls_succeeded} calls")
    return data.calls_succeeded


def dies(asked, backend):
    """Kills a backend; its subchannel's trace says so, and its socket goes."""
    backend.kill()

    def lost():
        child = next(child for child in asked.subchannels() if child.data.target == backend.address)
        return [event.description for event in child.data.trace.events
                if event.severity == IN_TROUBLE and not child.socket_ref]

    eventually(lost, "the lost backend is not in its subchannel's trace")
    return lost()


class Asked:
    def __init__(self, stub):
        self.stub = stub

    def channel(self):
        page = self.stub.GetTopChannels(channelz_pb2.GetTopChannelsRequest(start_channel_id=0), timeout=5)
        expect(len(page.channel) == 1 and page.end, f"{len(page.channel)} channels")
        ref = page.channel[0].ref
        return self.stub.GetChannel(channelz_pb2.GetChannelRequest(channel_id=ref.channel_id), timeout=5).channel

    def subchannels(self):
        return [
            self.stub.GetSubchannel(
                channelz_pb2.GetSubchannelRequest(subchannel_id=ref.subchannel_id), timeout=5).subchannel
            for ref in self.channel().subchannel_ref]

    def states(self):
        return [child.data.state.state for child in self.subchannels()]

    def socket(self, ref):
        return self.stub.GetSocket(channelz_pb2.GetSocketRequest(socket_id=ref.socket_id), timeout=5).socket


def remote(found):
    address = found.remote.tcpip_address
    expect(found.data.streams_started > 0 and found.local.tcpip_address.port > 0, f"{found}")
    return f"{socket.inet_ntoa(address.ip_address)}:{address.port}"
