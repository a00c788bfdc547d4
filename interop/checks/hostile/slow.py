"""Clients that begin and do not go on: the proxy has to close their connections."""

import socket
import threading
import time

from ..report import expect
from .raw import END_HEADERS, HEADERS, PREFACE, block, raw_frame, request, settings

# Seconds that the proxy may wait for a preface, or for a head to be complete: 10 s are promised, the rest is for busy cores.
PATIENCE = 12
BEGINNINGS = {
    "nothing at all": b"",
    "half a preface": PREFACE[:12],
    "a preface without SETTINGS": PREFACE,
    "a frame's header without the frame": PREFACE + settings() + raw_frame(HEADERS, END_HEADERS, 1, bytes(100))[:9],
    "a head without its end": PREFACE + settings() + raw_frame(HEADERS, 0, 1, block(request())[:20]),
}


def start(front):
    """Begins all of them; the threads that wait for their ends, by name."""
    waiting = {name: Waiting(front.address, octets) for name, octets in BEGINNINGS.items()}
    for thread in waiting.values():
        thread.start()
    return waiting


def judge(report, waiting):
    for name, thread in waiting.items():
        report.check(f"hostile: {name}: closed within 10 s", lambda: closed(thread))


def closed(thread):
    thread.join()
    expect(thread.took is not None, f"still open after {PATIENCE} s")
    return f"after {thread.took:.1f} s"


class Waiting(threading.Thread):
    """Sends the octets, and waits for the end of the connection."""

    def __init__(self, address, octets):
        super().__init__(daemon=True)
        self.address, self.octets, self.took = address, octets, None

    def run(self):
        host, port = self.address.rsplit(":", 1)
        begun = time.monotonic()
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(self.octets)
            while (left := begun + PATIENCE - time.monotonic()) > 0:
                connection.settimeout(left)
                try:
                    if not connection.recv(1 << 16):
                        break
                except TimeoutError:
                    return
                except OSError:
                    break
        self.took = time.monotonic() - begun
