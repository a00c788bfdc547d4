"""HTTP/2 by hand: a client that may send whatever it likes, and a backend that tells what reached it and may answer oddly."""

import contextlib
import select
import socket
import struct
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import hpack

from ..peers import ECHO

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UNARY = f"/{ECHO}/Unary"
NO_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 0, 1, 11
NAMES = {NO_ERROR: "NO_ERROR", PROTOCOL_ERROR: "PROTOCOL_ERROR", ENHANCE_YOUR_CALM: "ENHANCE_YOUR_CALM"}
# What a frame may carry by default, in octets.
LARGEST = 16_384
# Frame types and flags.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def raw_frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values):
    """SETTINGS with these values by number, as `s1=0`."""
    return raw_frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", int(name[1:]), value) for name, value in values.items()))


def window_update(stream, increment):
    return raw_frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def literal(name, value):
    """A field that is not indexed, as it stands: neither lower-cased nor checked."""
    return b"\0" + string(name) + string(value)


def string(text):
    octets = text.encode() if isinstance(text, str) else text
    if len(octets) < 127:
        return bytes([len(octets)]) + octets
    length, rest = b"\x7f", len(octets) - 127
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return length + bytes([rest]) + octets


def block(fields):
    return b"".join(literal(name, value) for name, value in fields)


def request(**changes):
    """The fields of a good call of Echo/Unary. Changes by name, `_` for `-` and `p_` for `:`; None leaves a field out."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": UNARY, ":authority": "interop.test", "te": "trailers",
        "content-type": "application/grpc",
    }
    for name, value in changes.items():
        fields[name.replace("p_", ":").replace("_", "-")] = value
    return [(name, value) for name, value in fields.items() if value is not None]


def message(octets=b""):
    return struct.pack(">BI", 0, len(octets)) + octets


class Answer:
    """What has come back on one stream."""

    def __init__(self):
        self.fields, self.data, self.reset, self.ended, self.heads = {}, b"", None, False, 0

    def __repr__(self):
        said = {name: value for name, value in self.fields.items() if name in (":status", "grpc-status", "grpc-message")}
        if self.reset is not None:
            return f"{said or ''} RST_STREAM {self.reset}".strip()
        return f"{said}{'' if self.ended else ' and no end'}"

    def over(self):
        return self.ended or self.reset is not None


class Connection:
    """A client's connection on which anything can be sent. What comes back is kept by stream; `fields` only if decoding, which is
    slow for large ones."""

    def __init__(self, address, first=settings(), receive_buffer=None, decoding=True):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        host, port = address.rsplit(":", 1)
        self.socket.connect((host, int(port)))
        self.socket.setblocking(False)
        self.decoder = hpack.Decoder(max_header_list_size=1 << 30) if decoding else None
        self.unread, self.head, self.owed = b"", b"", b""
        self.answers, self.goaways, self.closed, self.pings = {}, [], False, 0
        self.stream = -1
        self.send(PREFACE + first)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def over(self):
        return self.closed or bool(self.goaways)

    def next_stream(self):
        self.stream += 2
        return self.stream

    def answer(self, stream):
        return self.answers.setdefault(stream, Answer())

    def send(self, octets, patience=5.0, reading=True):
        """Sends all, and reads what comes meanwhile. False if the peer closed, or took nothing for so many seconds."""
        octets, self.owed = self.owed + octets, b""
        view, limit = memoryview(octets), time.monotonic() + patience
        while view and not self.closed:
            readable, writable, _ = select.select([self.socket] if reading else [], [self.socket], [], 0.1)
            if readable:
                self.read()
            if writable:
                try:
                    view, limit = view[self.socket.send(view):], time.monotonic() + patience
                except BlockingIOError:
                    pass
                except OSError:
                    self.closed = True
            elif time.monotonic() > limit:
                return False
        return not view

    def call(self, fields, data=None, end=True):
        """Sends a request and, if there is any, its data. Its stream."""
        stream = self.next_stream()
        octets = head(stream, block(fields), end and data is None)
        if data is not None:
            octets += raw_frame(DATA, END_STREAM if end else 0, stream, data)
        self.send(octets)
        return stream

    def wait(self, condition, seconds=5.0):
        """Reads until the condition holds, or the connection closes, or the time is up. Whether it holds."""
        limit = time.monotonic() + seconds
        while not (held := condition()) and not self.closed and (left := limit - time.monotonic()) > 0:
            if self.owed:
                self.send(b"")
            elif select.select([self.socket], [], [], left)[0]:
                self.read()
        return bool(held or condition())

    def settle(self, seconds=5.0):
        """Waits until the peer has dealt with all that was sent. False once it has given the connection up."""
        due = self.pings + 1
        self.send(raw_frame(PING, 0, 0, bytes(8)))
        self.wait(lambda: self.pings >= due or self.over(), seconds)
        return not self.over()

    def read(self):
        try:
            octets = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self.closed = True
            return
        self.unread += octets
        while len(self.unread) >= 9:
            length = int.from_bytes(self.unread[:3], "big")
            if len(self.unread) < 9 + length:
                return
            kind, flags = self.unread[3], self.unread[4]
            stream = int.from_bytes(self.unread[5:9], "big") & 0x7FFFFFFF
            payload, self.unread = self.unread[9:9 + length], self.unread[9 + length:]
            self.handle(kind, flags, stream, payload)

    def handle(self, kind, flags, stream, payload):
        if kind in (HEADERS, CONTINUATION):
            self.head += payload
            if flags & END_HEADERS:
                answer = self.answer(stream)
                answer.heads += 1
                answer.fields |= dict(self.decoder.decode(self.head)) if self.decoder else {}
                self.head = b""
        elif kind == DATA:
            self.answer(stream).data += payload
        elif kind == RST_STREAM:
            self.answer(stream).reset = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.goaways.append((int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")))
        elif kind == PING and flags & ACK:
            self.pings += 1
        elif kind == PING:
            self.owed += raw_frame(PING, ACK, 0, payload)
        elif kind == SETTINGS and not flags & ACK:
            # It goes with what is sent next: what is being sent now may be half sent.
            self.owed += raw_frame(SETTINGS, ACK, 0)
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.answer(stream).ended = True

    def end(self):
        if not self.goaways:
            return "closed" if self.closed else "no answer"
        code = self.goaways[-1][1]
        return f"GOAWAY {NAMES.get(code, code)}"


def head(stream, octets, end=True):
    """HEADERS, and CONTINUATION for what is more than a frame may carry."""
    parts = [octets[at:at + LARGEST] for at in range(0, len(octets), LARGEST)] or [b""]
    frames = [(HEADERS if at == 0 else CONTINUATION, part) for at, part in enumerate(parts)]
    flags = [END_STREAM if end else 0] + [0] * (len(parts) - 1)
    flags[-1] |= END_HEADERS
    return b"".join(raw_frame(kind, flag, stream, part) for (kind, part), flag in zip(frames, flags))


class Recorder:
    """A backend that keeps what it got, octet by octet. It answers calls with an empty message and OK, and some by their path."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.calls = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def close(self):
        self.listener.close()

    def found(self, path):
        """The fields of the call of that path, or None: every call here has a path of its own."""
        return next((fields for fields in list(self.calls) if (b":path", path.encode()) in fields), None)

    def serve(self, connection):
        config = h2.config.H2Configuration(
            client_side=False, header_encoding=None, validate_inbound_headers=False, normalize_inbound_headers=False)
        state = h2.connection.H2Connection(config)
        state.local_settings.max_header_list_size = 1 << 20
        state.initiate_connection()
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            connection.sendall(state.data_to_send())
            while octets := connection.recv(1 << 16):
                for event in state.receive_data(octets):
                    self.handle(state, event)
                connection.sendall(state.data_to_send())

    def handle(self, state, event):
        if isinstance(event, h2.events.RequestReceived):
            fields = [tuple(field) for field in event.headers]
            self.calls.append(fields)
            if early := EARLY_ANSWERS.get(dict(fields)[b":path"].decode()):
                early(state, event.stream_id)
        elif isinstance(event, h2.events.DataReceived):
            state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            with contextlib.suppress(h2.exceptions.ProtocolError):
                good_answer(state, event.stream_id)


def good_answer(state, stream):
    state.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    state.send_data(stream, message())
    state.send_headers(stream, [("grpc-status", "0")], end_stream=True)


def enough(state, stream):
    """All of an answer, and that no more of the request is wanted."""
    good_answer(state, stream)
    state.reset_stream(stream, NO_ERROR)


def informed(state, stream):
    state.send_headers(stream, [(":status", "103"), ("link", "</x>")])


def padded(state, stream):
    state.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    state.send_data(stream, message(), pad_length=200)
    state.send_headers(stream, [("grpc-status", "0")], end_stream=True)


def not_grpc(state, stream):
    state.send_headers(stream, [(":status", "503"), ("content-type", "text/html")])
    state.send_data(stream, b"<p>busy", end_stream=True)


def given_up(state, stream):
    state.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    state.reset_stream(stream, ENHANCE_YOUR_CALM)


# What is answered to calls of these paths as soon as they begin.
EARLY_ANSWERS = {f"/hostile.Test/{name}": answer for name, answer in {
    "Enough": enough, "Informed": informed, "Padded": padded, "NotGrpc": not_grpc, "GivenUp": given_up}.items()}
