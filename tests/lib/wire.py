"""etcd's gRPC API by hand, with only the standard library: protobuf fields as Python lists, for tests that need to see single messages.

Calls and streams go through curl (HTTP/2 by prior knowledge), which says how they ended, and can be started elsewhere (`prefix`: in a network
namespace). `Connection` and `Kv` are one connection of this process, with enough of HTTP/2 (RFC 9113) and HPACK (literals out, answers judged by
their frames) to put and get by the thousand, and to misbehave on purpose."""
import queue, socket, struct, subprocess, tempfile, threading

# ---- protobuf: a message is a list of (field, int | bytes | str | message) ---------------------------------------------


def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def pack(*fields):
    out = b""
    for number, v in fields:
        if isinstance(v, bool) or isinstance(v, int):
            out += varint(number << 3) + varint(int(v))
        else:
            v = v.encode() if isinstance(v, str) else v
            out += varint(number << 3 | 2) + varint(len(v)) + v
    return out


def unpack(data):
    """[(field, int or bytes)]"""
    out, at = [], 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            b = data[at]
            at += 1
            n |= (b & 0x7f) << shift
            shift += 7
            if b < 0x80:
                return n
    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            out.append((tag >> 3, number()))
        else:
            n = number()
            out.append((tag >> 3, data[at:at + n]))
            at += n
    return out


def field(message, number, otherwise=0):
    return next((v for n, v in message if n == number), otherwise)


def header_revision(message):
    return field(unpack(field(message, 1, b"")), 3)


def key_value(data):
    m = unpack(data)
    return {"key": field(m, 1, b"").decode(), "create": field(m, 2), "mod": field(m, 3), "version": field(m, 4), "value": field(m, 5, b"").decode(),
            "lease": field(m, 6)}


def framed(message):
    return b"\0" + struct.pack(">I", len(message)) + message


CURL = ["curl", "-sSN", "--http2-prior-knowledge", "-X", "POST", "-H", "content-type: application/grpc", "-H", "te: trailers"]


class Refused(Exception):
    """A call that ended with another gRPC status than 0."""

    def __init__(self, status, text):
        super().__init__(f"{status} {text}")
        self.status, self.text = status, text


def call(url, method, message, timeout=10, prefix=()):
    """A unary call; the answer's fields."""
    with tempfile.NamedTemporaryFile() as head:
        p = subprocess.run([*prefix, *CURL, "-D", head.name, "-m", str(timeout), "--data-binary", "@-", f"{url}/etcdserverpb.{method}"],
                           input=framed(message), capture_output=True)
        trailers = dict(l.lower().split(": ", 1) for l in open(head.name, encoding="latin1").read().splitlines() if ": " in l)
    status = trailers.get("grpc-status", "-1" if p.returncode else "0")
    if status != "0" or len(p.stdout) < 5:
        raise Refused(int(status) if status.lstrip("-").isdigit() else -1, trailers.get("grpc-message", f"curl ended with {p.returncode}"))
    return unpack(p.stdout[5:])


class Watch:
    """A Watch stream. `take` gives one answer after the other as {"rev", "created", "canceled", "compact", "events": [(type, kv, prev or None)]}."""

    def __init__(self, url, prefix=(), reading=True):
        self.p = subprocess.Popen([*prefix, *CURL, "-T", ".", f"{url}/etcdserverpb.Watch/Watch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
        self.answers, self.reading = queue.Queue(), threading.Event()
        if reading:
            self.reading.set()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        f = self.p.stdout
        while True:
            self.reading.wait()
            head = f.read(5)
            if len(head) < 5:
                break
            self.answers.put(self.decode(unpack(f.read(struct.unpack(">I", head[1:])[0]))))
        self.answers.put(None)

    @staticmethod
    def decode(m):
        events = []
        for number, data in m:
            if number == 11:
                e = unpack(data)
                events.append((("put", "delete")[field(e, 1)], key_value(field(e, 2, b"")), key_value(field(e, 3)) if field(e, 3) else None))
        return {"rev": header_revision(m), "id": field(m, 2), "created": bool(field(m, 3)), "canceled": bool(field(m, 4)), "compact": field(m, 5),
                "reason": field(m, 6, b"").decode(), "fragment": bool(field(m, 7)), "events": events}

    def send(self, message):
        self.p.stdin.write(framed(message))
        self.p.stdin.flush()

    def create(self, key, end=b"", start=0, progress=False, prev=False, id=0, fragment=False):
        self.send(pack((1, pack((1, key), (2, end), (3, start), (4, progress), (6, prev), (7, id), (8, fragment)))))

    def ask_progress(self):
        self.send(pack((3, b"")))

    def take(self, timeout=20):
        """The next answer; None at the end of the stream; queue.Empty if none comes in time."""
        return self.answers.get(timeout=timeout)

    def close(self):
        self.p.kill()
        self.p.wait()
        self.reading.set()


# ---- frames of HTTP/2 by hand ------------------------------------------------------------------------------------------


def hpack(headers):
    """Literals that are never indexed."""
    def text(s):
        s = s.encode()
        return (bytes([len(s)]) if len(s) < 127 else b"\x7f" + varint(len(s) - 127)) + s
    return b"".join(b"\x10" + text(name) + text(value) for name, value in headers)


DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8


class Connection:
    """HTTP/2 to a port on this machine, frames by hand."""

    def __init__(self, port, timeout=10, window=1 << 30, tls=None, stream_window=None):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            tls.set_alpn_protocols(["h2"])
            self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self.buffer = b""
        self.next_stream = 1
        self.goaway = None
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window if stream_window is None else stream_window)) +
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
        body = framed(message)
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
        return self.call("/etcdserverpb.KV/Put", pack((1, key), (2, value))) is not None

    def get(self, key, end=b"", serializable=False):
        """{key: value}, or None."""
        answer = self.call("/etcdserverpb.KV/Range", pack((1, key), (2, end), (7, serializable)))
        if answer is None:
            return None
        kvs = [unpack(v) for n, v in unpack(answer) if n == 2]
        return {field(kv, 1, b""): field(kv, 5, b"") for kv in kvs}

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

