#!/usr/bin/env python3
"""Damaged disks of a single real member: every file of its folder in turn - flipped bits, zeroed, exchanged and misplaced sectors, a cut end, an
older copy of itself - after an orderly stop and after kill -9, and while it runs. It refuses, naming file and offset, or it starts with nothing lost;
it never answers wrongly. And a restore that cannot be finished leaves nothing behind.

PINTLE_LONG=1 (make faults) tries many more places; SEED=n repeats a sample."""
import os, random, re, resource, shutil, signal, struct, subprocess, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *
from wire import Kv

LONG = os.environ.get("PINTLE_LONG") == "1"
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
RANDOM = random.Random(SEED)
FLAGS = ["--snapshot-log-bytes", "60000", "--wal-segment-bytes", "65536", "--workers", "1"]
NO_SCRUB = ["--scrub-interval", "0"]
SECTOR = 512
TMP = temp_dir()
HEAD = 56
KINDS = {"lock", "members", "meta", "meta2", "snap/N-N.snap", "wal/N.wal", "wal/mark"}  # and *.tmp, which mean nothing


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def files(dir):
    out = []
    for base, _, names in os.walk(dir):
        out += [os.path.relpath(os.path.join(base, n), dir) for n in names]
    return sorted(out)


def records(data):
    """(offset, kind, sequence number) of each record of a segment (docs/formats-raft.md)."""
    at, salt = 64, data[32:40]
    while data[at:at + 8] == salt:
        seq, kind, length = struct.unpack_from("<16xQ16xI4xI", data, at)
        yield at, kind, seq
        at += (HEAD + length + 7) // 8 * 8


def durable(dir):
    """The sequence number of the next record, as the segments have it and as wal/mark knows it."""
    last = 0
    for f in files(os.path.join(dir, "wal")):
        if f.endswith(".wal"):
            last = max([last] + [seq + (kind < 4) for _, kind, seq in records(read(os.path.join(dir, "wal", f)))])
    return last, struct.unpack_from("<Q", read(os.path.join(dir, "wal", "mark")), 24)[0]


class Member:
    def __init__(self, dir, ports=None):
        os.makedirs(dir, exist_ok=True)
        self.c = Cluster(1, dir=dir, flags=FLAGS + NO_SCRUB, ports=ports)
        self.dir = self.c.data(0)
        self.client = Kv(self.c.ports[0], 20)

    def start(self):
        if os.path.exists(self.c.log(0)):
            os.unlink(self.c.log(0))
        self.c.start()
        self.client = Kv(self.c.ports[0], 20)
        return self

    def alive(self):
        return self.c.procs[0].poll() is None

    def log(self):
        return read(self.c.log(0)).decode(errors="replace")

    def put(self, n, data):
        for i in range(n):
            key, value = b"k%03d" % (len(data) % 100), RANDOM.randbytes(RANDOM.randrange(100, 3000))
            wait_for("a put", lambda: self.client.put(key, value))
            data[key] = value
            data[b"n%d" % len(data)] = None  # only counts

    def everything(self):
        """What it serves, or None when it has refused."""
        def answer():
            got = self.client.get(b"k", b"l")
            return got if got is not None else not self.alive()
        got = wait_for("an answer or its end", answer, timeout=60)
        return None if got is True else dict(got)


def values(data):
    return {k: v for k, v in data.items() if v is not None}


class Folder:
    """One that a member left, with what it has acknowledged; and one that it left earlier."""

    def __init__(self, name, sig):
        self.name = name
        m = Member(os.path.join(TMP, name)).start()
        self.data = {}
        m.put(50, self.data)
        m.c.kill(0, sig)
        self.old = {f: read(os.path.join(m.dir, f)) for f in files(m.dir)}
        m.start().put(60, self.data)
        wait_for("the mark", lambda: len(set(durable(m.dir))) == 1)
        m.c.kill(0, sig)
        self.whole = {f: read(os.path.join(m.dir, f)) for f in files(m.dir)}
        self.ports = m.c.ports

    def used(self, f):
        """How much of the file means something; behind the records lie zeros or what the file's earlier life left."""
        data = self.whole[f]
        if not f.endswith(".wal"):
            return len(data)
        ends = [at + HEAD + struct.unpack_from("<I", data, at + 48)[0] for at, _, _ in records(data)]
        return max([64] + ends)

    def lay_out(self, f, data):
        dir = os.path.join(TMP, "try")
        shutil.rmtree(dir, ignore_errors=True)
        m = Member(dir, self.ports)
        for name, whole in self.whole.items():
            os.makedirs(os.path.dirname(os.path.join(m.dir, name)), exist_ok=True)
            write(os.path.join(m.dir, name), data if name == f else whole)
        return m


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1 << RANDOM.randrange(8)]) + data[at + 1:]


def sector(data, at):
    at = at // SECTOR * SECTOR
    return at, min(at + SECTOR, len(data))


def zeroed(data, at):
    a, b = sector(data, at)
    return data[:a] + bytes(b - a) + data[b:]


def exchanged(data, at):
    a, b = sector(data, at)
    return data[:a] + data[b:b + SECTOR] + data[a:b] + data[b + SECTOR:]


def misplaced(data, at):
    a, b = sector(data, at)
    other = RANDOM.randrange(0, max(1, len(data) - SECTOR))
    return data[:a] + data[other:other + b - a] + data[b:]


def cut(data, at):
    return data[:at]


def places(f, used, n):
    """The first and the last byte that mean something, and some between."""
    fixed = [0, used - 1] if used else []
    return fixed + [RANDOM.randrange(used) for _ in range(n)] if used else []


def judge(folder, f, data, what):
    m = folder.lay_out(f, data).start()
    got = m.everything()
    if got is None:
        log = m.log()
        file = "meta2?" if "meta" in f else "snap/[0-9a-f]{16}-[0-9a-f]{16}[.]snap" if f.startswith("snap") else re.escape(f)
        named = re.search(rf"{file}: offset [0-9]+: ", log)
        named = named or "wal: offset 0: the log begins" in log  # a segment that became one of long ago: what is there cannot say which
        bad = "" if named and "damaged" in log else "refused without file, offset or reason: " + log[-500:]
    else:
        missing = [k for k, v in values(folder.data).items() if got.get(k) != v]
        extra = [k for k in got if k not in folder.data]
        bad = f"lost or wrong: {missing} {extra}\n{m.log()[-500:]}" if missing or extra else ""
        m.c.kill(0)
    return ("" if not bad else f"{folder.name}, {f}, {what}: {bad}"), got is None


def try_folder(folder):
    refused, started, bad = 0, 0, []
    for f in folder.whole:
        whole, used = folder.whole[f], folder.used(f)
        cases = [("flipped at %d" % at, flipped(whole, at)) for at in places(f, used, 40 if LONG else 3)]
        for how in (zeroed, exchanged, misplaced, cut):
            cases += [("%s at %d" % (how.__name__, at), how(whole, at)) for at in places(f, used, 10 if LONG else 0)[0 if LONG else 1:]]
        if f in folder.old:
            cases.append(("an older copy", folder.old[f]))
        for what, data in cases:
            if data == whole:
                continue
            problem, no = judge(folder, f, data, what)
            refused, started = refused + no, started + (not no)
            bad += [problem] if problem else []
    ok(not bad, f"{folder.name}: {refused + started} damages, {refused} refused, {started} without harm", "\n".join(bad))
    ok(refused > 10, f"{folder.name}: most are refused")


def test_at_start():
    note(f"SEED={SEED}")
    for name, sig in (("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)):
        folder = Folder(name, sig)
        problem, no = judge(folder, "lock", folder.whole["lock"], "nothing")
        ok(not problem and not no, f"{name}: as it was, the folder starts with all of it", problem)
        kinds = {re.sub("[0-9a-f]{16}", "N", f) for f in folder.whole if not f.endswith(".tmp")}
        ok(kinds == KINDS, f"{name}: every kind of file is one that is known", kinds ^ KINDS)
        try_folder(folder)


def metric(m, name):
    out = run("curl", "-sS", "--max-time", "10", m.c.urls[0] + "/metrics").stdout
    return next((float(line.split()[1]) for line in out.splitlines() if line.startswith(name + " ")), 0)


def test_while_it_runs():
    folder = Folder("running", signal.SIGTERM)
    kinds = {"meta": 0, "meta2": 0, "wal/mark": 0, "members": 0}
    for f in folder.whole:
        if not f.endswith(".tmp") and f != "lock":
            kinds.setdefault(f, 1)
    for f, stops in kinds.items():
        if f not in folder.whole:
            continue
        m = folder.lay_out(f, folder.whole[f])
        m.c.flags = FLAGS + ["--scrub-interval", "100ms"]
        m.start()
        if m.everything() is None:
            ok(False, f"{f}: starts", m.log())
            continue
        wait_for("a round", lambda: metric(m, "pintle_raft_scrub_rounds_total") >= 2)
        if not os.path.exists(os.path.join(m.dir, f)):
            m.c.kill(0)
            continue
        at = max([34] + [at + 20 for at, _, _ in records(folder.whole[f])]) if f.endswith(".wal") else folder.used(f) // 2
        with open(os.path.join(m.dir, f), "r+b") as h:
            h.seek(at)
            byte = h.read(1)[0]
            h.seek(at)
            h.write(bytes([byte ^ 16]))
            h.flush()
            os.fsync(h.fileno())
        found = wait_for("the scrub", lambda: not m.alive() or metric(m, "pintle_raft_scrub_errors_total") >= 1, timeout=60)
        log = m.log()
        ok(found and f in log, f"{f}: damage is found while it runs and named", log[-300:])
        if m.alive():
            m.c.kill(0)
        m.start()
        got = m.everything()
        lost = got is not None and any(got.get(k) != v for k, v in values(folder.data).items())
        ok(not lost, f"{f}: and then it starts with all of it, or refuses", m.log()[-300:])
        if m.alive():
            m.c.kill(0)


def test_unfinished_restore():
    m = Member(os.path.join(TMP, "restore")).start()
    m.put(100, {})
    snap, target = os.path.join(TMP, "backup"), os.path.join(TMP, "restored")
    out = m.c.ctl("snapshot", "save", snap)
    ok(out.returncode == 0, "a snapshot", out.stderr)
    m.c.kill(0)

    def little_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
    args = [PINTLE, "ctl", "snapshot", "restore", snap, "--name", "n1", "--data-dir", target + "/", "--initial-cluster", m.c.initial]
    out = subprocess.run(args, capture_output=True, text=True, preexec_fn=little_room, timeout=60)
    left = [f for f in os.listdir(TMP) if f.startswith("restored")]
    ok(out.returncode == 1 and "Error: " in out.stderr and not left, "a restore without room fails and leaves nothing", (out.stderr, left))
    os.makedirs(target + ".restoring/wal")  # what a killed one leaves
    write(target + ".restoring/wal/x", b"x")
    out = run(*args)
    left = [f for f in os.listdir(TMP) if f.startswith("restored")]
    ok(out.returncode == 0 and left == ["restored"], "a restore after a killed one is whole", (out.stderr, left))
    ok("wal/x" not in files(target), "and has nothing of it")


main(test_at_start, test_while_it_runs, test_unfinished_restore)
