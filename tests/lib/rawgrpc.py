"""A gRPC client of one connection with only the standard library: enough of HTTP/2 (RFC 9113) and HPACK (literals out, answers judged by their
frames) to put and get by the thousand without starting a program, and to misbehave on purpose."""
import socket, struct


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, value):
    """A protobuf field: bytes, str or a number."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def fields(message):
    """[(number, value)] of a message; nested ones stay bytes."""
    at, out = 0, []

    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte = message[at]
            at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n
    while at < len(message):
        tag = number()
        n = number()
        if tag & 7 == 2:
            out.append((tag >> 3, message[at:at + n]))
            at += n
        else:
            out.append((tag >> 3, n))
    return out


def hpack(headers):
    """Literals that are never indexed."""
    def text(s):
        s = s.encode()
        return (bytes([len(s)]) if len(s) < 127 else b"\x7f" + varint(len(s) - 127)) + s
    return b"".join(b"\x10" + text(name) + text(value) for name, value in headers)


DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8


class Connection:
    """HTTP/2 to a port on this machine, frames by hand."""

    def __init__(self, port, timeout=10, window=1 << 30, tls=None):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            tls.set_alpn_protocols(["h2"])
            self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self.buffer = b""
        self.next_stream = 1
        self.goaway = None
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)) +
                  self.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", window)))

    def close(self):
        self.sock.close()

    @staticmethod
    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def send(self, data):
        self.sock.sendall(data)

    def read_frame(self):
        """(kind, flags, stream, payload); OSError when the connection is gone or silent for too long."""
        while True:
            if len(self.buffer) >= 9:
                n = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) >= 9 + n:
                    head, payload = self.buffer[:9], self.buffer[9:9 + n]
                    self.buffer = self.buffer[9 + n:]
                    kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7fffffff
                    if kind == SETTINGS and not flags & 1:
                        self.send(self.frame(SETTINGS, 1, 0))
                    elif kind == PING and not flags & 1:
                        self.send(self.frame(PING, 1, 0, payload))
                    elif kind == GOAWAY:
                        self.goaway = payload
                    return kind, flags, stream, payload
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("closed by the server")
            self.buffer += data

    def start(self, method, message=None, end=True):
        """Opens a gRPC call and returns its stream."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        head = hpack([(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "a"), ("te", "trailers"),
                      ("content-type", "application/grpc")])
        out = self.frame(HEADERS, 4, stream, head)
        if message is not None:
            out += self.message(stream, message, end)
        self.send(out)
        return stream

    def message(self, stream, message, end=False):
        body = struct.pack(">BI", 0, len(message)) + message
        out = b""
        for at in range(0, len(body), 16384):
            out += self.frame(DATA, 1 if end and at + 16384 >= len(body) else 0, stream, body[at:at + 16384])
        return out


class Kv:
    """Puts and gets, one after the other; reconnects by itself. None is no answer or a refusal: the outcome is not known."""

    def __init__(self, port, timeout=10):
        self.port, self.timeout, self.connection = port, timeout, None

    def call(self, method, message):
        try:
            if not self.connection:
                self.connection = Connection(self.port, self.timeout)
            return self._answer(self.connection.start(method, message))
        except OSError:
            self.close()
            return None

    def _answer(self, stream):
        body = b""
        c = self.connection
        while True:
            kind, flags, of, payload = c.read_frame()
            if c.goaway is not None:
                raise ConnectionError("GOAWAY")
            if of == stream and kind == DATA:
                body += payload
                c.send(c.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", max(len(payload), 1))))
            if of == stream and kind == RST_STREAM:
                return None
            if of == stream and kind in (DATA, HEADERS) and flags & 1:
                return body[5:] if len(body) >= 5 else None

    def put(self, key, value):
        return self.call("/etcdserverpb.KV/Put", field(1, key) + field(2, value)) is not None

    def get(self, key, end=b"", serializable=False):
        """{key: value}, or None."""
        answer = self.call("/etcdserverpb.KV/Range", field(1, key) + (field(2, end) if end else b"") + (field(7, 1) if serializable else b""))
        if answer is None:
            return None
        kvs = [dict(fields(v)) for n, v in fields(answer) if n == 2]
        return {kv[1]: kv.get(5, b"") for kv in kvs}

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

