#!/usr/bin/env python3
"""Echoes messages off a guest, over all three subprotocols of a bridge.

    python3 echo.py [http://127.0.0.1:8080 [demo/echo]]

Written from docs/protocol.md and RFC 6455, with nothing but Python's standard library. It prints what it did; the exit
code is 0 where every message came back as it was sent, else 1.
"""

import base64
import hashlib
import http.client
import json
import os
import socket
import struct
import sys
import urllib.parse

# Around the lengths at which the frame of a WebSocket changes its header, and the longest message of most guests.
LENGTHS = (1, 125, 126, 496)
SECONDS = 10

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Failure(Exception):
    """Something is not as the page says."""


class WebSocket:
    """A client of RFC 6455."""

    def __init__(self, host, port, path, subprotocol):
        self.socket = socket.create_connection((host, port), SECONDS)
        self.file = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        name = f"[{host}]" if ":" in host else host
        self.socket.sendall(
            (
                f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
            ).encode("latin-1")
        )
        status = self.file.readline().decode("latin-1").rstrip()
        fields = http.client.parse_headers(self.file)
        if status.split(" ")[1:2] != ["101"]:
            body = self.file.read(int(fields.get("content-length", 0)))
            raise Failure(f"refused: {status}: {body.decode()}")
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        if fields["sec-websocket-accept"] != base64.b64encode(digest).decode():
            raise Failure("the handshake was answered wrongly")
        if fields["sec-websocket-protocol"] != subprotocol:
            raise Failure(f"another subprotocol was chosen: {fields['sec-websocket-protocol']}")

    def send(self, opcode, payload):
        """Sends one message in one frame; what a client sends is masked."""
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.socket.sendall(head + mask + masked)

    def send_json(self, frame):
        self.send(TEXT, json.dumps(frame).encode())

    def receive(self):
        """The next message, as its opcode and its bytes; pings are answered."""
        opcode, payload = None, b""
        while True:
            first, second = self.read(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self.read(8))
            part = self.read(length)
            code = first & 0x0F
            if code == PING:
                self.send(PONG, part)
            elif code == CLOSE:
                number = struct.unpack("!H", part[:2])[0] if part else 1005
                raise Failure(f"closed with {number}: {part[2:].decode()}")
            elif code != PONG:
                opcode = opcode or code
                payload += part
                if first & 0x80:
                    return opcode, payload

    def read(self, count):
        data = self.file.read(count)
        if len(data) < count:
            raise Failure("the connection broke")
        return data

    def close(self):
        """Says good-bye and waits for the answer."""
        self.send(CLOSE, struct.pack("!H", 1000))
        try:
            while True:
                self.receive()
        except Failure as end:
            if not str(end).startswith("closed with 1000"):
                raise
        self.file.close()
        self.socket.close()


def get(host, port, path):
    """A resource over HTTP."""
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    connection.request("GET", path)
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    if response.status != 200:
        raise Failure(f"{path}: {body['code']}: {body['detail']}")
    return body


def list_endpoints(host, port):
    """All endpoints of all guests, page by page."""
    endpoints, after = [], None
    while True:
        query = {"limit": 2} if after is None else {"limit": 2, "after": after}
        page = get(host, port, "/api/v1/endpoints?" + urllib.parse.urlencode(query))
        endpoints += page["endpoints"]
        after = page["next"]
        if after is None:
            return endpoints


def payload_of(length, seed):
    return bytes((seed + i) % 256 for i in range(length))


def same(what, sent, came):
    if sent != came:
        raise Failure(f"{what}: sent {sent.hex()}, {came.hex()} came back")


def echo_raw(host, port, endpoint):
    """One binary message is one message."""
    channel = WebSocket(host, port, endpoint["path"], "rpmsg.v1.raw")
    for length in LENGTHS:
        sent = payload_of(length, 7)
        channel.send(BINARY, sent)
        opcode, came = channel.receive()
        if opcode != BINARY:
            raise Failure("a text came")
        same(f"{length} bytes", sent, came)
        print(f"rpmsg.v1.raw: {length} bytes came back")
    channel.close()


def decoded(frame):
    if frame["encoding"] == "utf8":
        return frame["data"].encode()
    if frame["encoding"] == "base64":
        return base64.b64decode(frame["data"], validate=True)
    return bytes.fromhex(frame["data"])


def echo_json(host, port, endpoint):
    """Frames with a type; what became of a message is told under its id, before or after what comes back."""
    channel = WebSocket(host, port, endpoint["path"], "rpmsg.v1.json")
    hello = json.loads(channel.receive()[1])
    if hello["type"] != "hello" or hello["protocol"] != "rpmsg.v1.json":
        raise Failure(f"no greeting: {hello}")
    print(f"rpmsg.v1.json: generation {hello['generation']}, at most {hello['mtu']} bytes, from {hello['local']}")
    for seq, length in enumerate(LENGTHS, 1):
        sent = payload_of(length, 61)
        data = base64.b64encode(sent).decode()
        channel.send_json({"type": "send", "id": length, "data": data, "encoding": "base64"})
        confirmed, came = False, None
        while not confirmed or came is None:
            frame = json.loads(channel.receive()[1])
            if frame["type"] == "sent" and frame["id"] == length:
                confirmed = True
            elif frame["type"] == "message":
                if frame["seq"] != seq:
                    raise Failure(f"message {seq} is missing: {frame}")
                came = decoded(frame)
            elif frame["type"] in ("error", "dropped"):
                raise Failure(f"{length} bytes: {frame}")
        same(f"{length} bytes", sent, came)
        print(f"rpmsg.v1.json: {length} bytes sent and came back")
    channel.send_json({"type": "ping"})
    pong = json.loads(channel.receive()[1])
    if pong["type"] != "pong":
        raise Failure(f"no pong: {pong}")
    channel.close()


HEADER = struct.Struct("<III")
TO_PEER = 0xFFFFFFFF
MESSAGE_COST = 16


def echo_mux(host, port, endpoint):
    """Two subscriptions of one connection, each with a local address, messages and credit of its own."""
    connection = WebSocket(host, port, "/ws/v1", "rpmsg.v1.mux")
    hello = json.loads(connection.receive()[1])
    if hello["type"] != "hello" or hello["protocol"] != "rpmsg.v1.mux":
        raise Failure(f"no greeting: {hello}")
    most = 0
    for sub in (1, 2):
        # Credit for two of the longest messages, and more for each that was looked at.
        credit = 2 * (MESSAGE_COST + max(LENGTHS))
        connection.send_json({"type": "subscribe", "sub": sub, "path": endpoint["path"], "credit": credit})
        frame = json.loads(connection.receive()[1])
        if frame["type"] != "subscribed" or frame["sub"] != sub:
            raise Failure(f"not subscribed: {frame}")
        most = frame["mtu"]
        print(f"rpmsg.v1.mux: subscription {sub} from {frame['local']}, credit for {frame['credit']} bytes")
    for seq, length in enumerate(LENGTHS, 1):
        waiting, confirmed = {}, set()
        for sub in (1, 2):
            waiting[sub] = payload_of(length, 100 * sub)
            connection.send(BINARY, HEADER.pack(sub, TO_PEER, length) + waiting[sub])
        while waiting or confirmed != {1, 2}:
            opcode, came = connection.receive()
            if opcode == BINARY:
                sub, _source, count = HEADER.unpack_from(came)
                if count != seq or sub not in waiting:
                    raise Failure(f"message {count} of {sub}, want {seq}")
                same(f"{length} bytes of {sub}", waiting.pop(sub), came[HEADER.size :])
                connection.send_json({"type": "credit", "sub": sub, "bytes": MESSAGE_COST + length})
                continue
            frame = json.loads(came)
            if frame["type"] == "sent" and frame["id"] == length:
                confirmed.add(frame["sub"])
            elif frame["type"] in ("error", "dropped", "unsubscribed"):
                raise Failure(f"{length} bytes: {frame}")
        print(f"rpmsg.v1.mux: {length} bytes of {most} sent and came back, on both")
    connection.close()


def main(url="http://127.0.0.1:8080", name="demo/echo"):
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname, parts.port or 80
    guest, _, name = name.partition("/")
    try:
        endpoints = list_endpoints(host, port)
        for endpoint in endpoints:
            print(f"{endpoint['guest']}/{endpoint['name']} at {endpoint['path']}, {endpoint['state']}")
        found = [each for each in endpoints if (each["guest"], each["name"]) == (guest, name)]
        if not found:
            raise Failure(f"there is no endpoint {guest}/{name}")
        echo_raw(host, port, found[0])
        echo_json(host, port, found[0])
        echo_mux(host, port, found[0])
    except (Failure, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print("all came back")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
