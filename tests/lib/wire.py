"""etcd's gRPC API by hand: protobuf fields as Python lists, calls and streams through curl (HTTP/2 by prior knowledge). For tests that need
to see single messages. Standard library only."""
import os, queue, struct, subprocess, tempfile, threading

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


def frame(message):
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
                           input=frame(message), capture_output=True)
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
        self.p.stdin.write(frame(message))
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
