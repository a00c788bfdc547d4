"""Hosts that are network namespaces, and wires between them that drop and delay packets as they are told.

A wire is two TUN devices, one in the namespace at each end, and a thread of this process that carries packets from one
to the other. So every fault is exact, is the same on every kernel (few are built with netem), and needs no firewall.
"""

import fcntl
import heapq
import itertools
import os
import pathlib
import random
import select
import shutil
import struct
import subprocess
import threading
import time

TUN = "/dev/net/tun"
# From the kernel's linux/if_tun.h.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
LARGEST_PACKET = 1 << 16
# What the names of this run's hosts begin with.
OWN_HOSTS = f"evenkeel-{os.getpid()}-"
# IP's number of TCP, and two flags in its header.
TCP, SYN, ACK = 6, 0x02, 0x10


def missing():
    """Why this machine has no hosts and wires to offer, or None."""
    if needed := [name for name in ("ip", "nsenter") if not shutil.which(name)]:
        return f"no {' and no '.join(needed)} on the PATH (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Network(1):
            return None
    except OSError as error:
        return f"this machine makes no network namespaces with TUN devices: {error}"


class Host:
    """A network namespace. What runs in it ends before it does."""

    def __init__(self, name):
        self.name = OWN_HOSTS + name
        _ip("netns", "add", self.name)
        _ip("-n", self.name, "link", "set", "lo", "up")
        # What a command starts with to run here.
        self.enter = ("nsenter", f"--net=/run/netns/{self.name}")

    def remove(self):
        _ip("netns", "del", self.name)

    def plug(self, address, peer, device):
        """A device of this host that has `address` and leads to `peer`: what is sent there is read from the result."""
        end = open(TUN, "r+b", buffering=0)
        # Made in the runner's own namespace and moved: under a name that no other run of it uses.
        made = f"ek{os.getpid()}{device}"[-15:]
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", made.encode(), IFF_TUN | IFF_NO_PI))
        _ip("link", "set", made, "netns", self.name)
        _ip("-n", self.name, "address", "add", address, "peer", peer, "dev", made)
        _ip("-n", self.name, "link", "set", made, "up")
        os.set_blocking(end.fileno(), False)
        return end


def _ip(*words):
    ran = subprocess.run(["ip", *words], capture_output=True, text=True)
    if ran.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {ran.stderr.strip()}")


class Way:
    """One direction of a wire: what share of its packets is lost, and how many seconds the others take."""

    def __init__(self):
        self.loss, self.delay = 0.0, 0.0


class Wire:
    """Carries packets between the clients' end and a server's, which may be away."""

    def __init__(self, client_end):
        self.client_end, self.server_end = client_end, None
        self.requests, self.replies = Way(), Way()
        self.known = None  # the clients' ports of the connections that it carries; None carries all
        self.random = random.Random(1)  # so that each run loses packets by the same dice
        self.order = itertools.count()
        self.delayed = []
        self.closing = False
        self.thread = threading.Thread(target=self._carry, daemon=True)
        self.thread.start()

    def cut(self):
        self.requests.loss = self.replies.loss = 1.0

    def mend(self):
        self.requests.loss = self.replies.loss = 0.0

    def forget(self):
        """Loses what comes of the connections made so far, as a NAT does that has forgotten them; carries new ones."""
        self.known = set()

    def close(self):
        self.closing = True
        self.thread.join()

    def _carry(self):
        while not self.closing:
            ends = [end for end in (self.client_end, self.server_end) if end]
            pause = self.delayed[0][0] - time.monotonic() if self.delayed else 0.1
            readable, _, _ = select.select(ends, [], [], min(max(pause, 0), 0.1))
            for end in readable:
                self._forward(end)
            while self.delayed and self.delayed[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(self.delayed)
                _put(to, packet)

    def _forward(self, end):
        to, way = (self.server_end, self.requests) if end is self.client_end else (self.client_end, self.replies)
        try:
            packet = os.read(end.fileno(), LARGEST_PACKET)
        except OSError:  # its host has just gone
            return
        known = self._knows(packet, from_client=end is self.client_end)
        if to is None or not known or self.random.random() < way.loss:
            return
        if way.delay:
            heapq.heappush(self.delayed, (time.monotonic() + way.delay, next(self.order), to, packet))
        else:
            _put(to, packet)

    def _knows(self, packet, from_client):
        if self.known is None or packet[0] >> 4 != 4 or packet[9] != TCP:
            return True
        header = (packet[0] & 0xF) * 4
        source, destination = struct.unpack_from("!HH", packet, header)
        port = source if from_client else destination
        if from_client and packet[header + 13] & (SYN | ACK) == SYN:
            self.known.add(port)
        return port in self.known


def _put(end, packet):
    try:
        os.write(end.fileno(), packet)
    except OSError:  # a packet to a host that is gone is lost
        pass


class Network:
    """A host of clients, and servers' hosts, each at the other end of a wire of its own."""

    def __init__(self, servers):
        self.servers, self.wires = [None] * servers, []
        try:
            self.clients = Host("clients")
            for n in range(servers):
                self.wires.append(Wire(self.clients.plug(f"10.77.{n}.1", self.address(n), f"c{n}")))
                self.boot(n)
        except BaseException:  # the runner's own end as well
            self.close()
            raise

    @staticmethod
    def address(n):
        return f"10.77.{n}.2"

    def boot(self, n):
        """Sets up the host of server `n`, which remembers nothing of an earlier one."""
        self.servers[n] = Host(f"server{n}")
        self.wires[n].server_end = self.servers[n].plug(self.address(n), f"10.77.{n}.1", f"s{n}")

    def vanish(self, n):
        """Takes the host of server `n` away. What ran in it has been killed behind a cut wire, so that nobody heard."""
        self.wires[n].server_end = None
        self.servers[n].remove()
        self.servers[n] = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for wire in self.wires:
            wire.close()
        # All that there are, also one that the end of the runner has met while it was made.
        for host in pathlib.Path("/run/netns").glob(f"{OWN_HOSTS}*"):
            _ip("netns", "del", host.name)
