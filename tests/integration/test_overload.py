#!/usr/bin/env python3
"""More than the members can do, and clients that do harm: throughput under ten times the clients that saturate it, memory under its bound, the
leader kept, others' requests answered meanwhile. Prints what it measures; asserts only what must hold on any machine.

PINTLE_LONG=1 (make overload): three minutes of overload, a million watchers, 10,000 connections."""
import os, re, resource, socket, sys, threading, time, urllib.request
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *
from wire import *

LONG = os.environ.get("PINTLE_LONG") == "1"
MiB = 1 << 20
# docs/reliability.md: a member with its data, which in these tests is little
BOUND = 2048 * MiB
DELAY = 2 # seconds: a put and a get of others, whatever is done to the members (docs/reliability.md)
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def rss(p):
    with open(f"/proc/{p.pid}/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


class Probe(threading.Thread):
    """Another client, which the load must not starve: a put and a get every 20 ms, timed; memory, terms and leaders too."""

    def __init__(self, c, member=0):
        super().__init__(daemon=True)
        self.c, self.member, self.over = c, member, threading.Event()
        self.times, self.failed, self.memory = [], 0, 0

    def run(self):
        kv = Kv(self.c.ports[self.member], 60)
        n = 0
        while not self.over.is_set():
            t = time.time()
            n += 1
            done = kv.put(b"/probe", b"%d" % n) and kv.get(b"/probe") == {b"/probe": b"%d" % n}
            self.times.append(time.time() - t)
            self.failed += not done
            self.memory = max([self.memory] + [rss(p) for p in self.c.procs])
            self.over.wait(0.02)
        kv.close()

    def __enter__(self):
        self.before = terms(self.c)
        self.start()
        return self

    def __exit__(self, *a):
        self.over.set()
        self.join(120)
        self.after = terms(self.c)

    def judge(self, what):
        t = sorted(self.times)
        note(f"{what}: others' put and get p50 {t[len(t) // 2] * 1e3:.1f} ms, p99 {t[int(len(t) * 0.99)] * 1e3:.1f} ms, longest {t[-1] * 1e3:.0f} ms of "
             f"{len(t)}, {self.failed} refused; memory of the largest member {self.memory // MiB} MiB")
        ok(all(p.poll() is None for p in self.c.procs), f"{what}: all members live")
        ok(len(t) - self.failed > 0, f"{what}: others are served", f"{len(t)} tried, {self.failed} failed")
        if LONG: # make overload is for a machine that does little else
            ok(self.failed == 0 and t[-1] < DELAY, f"{what}: others wait for less than {DELAY} s", f"{t[-1]:.3f} s, {self.failed} refused")
        ok(self.memory < BOUND or SANITIZED, f"{what}: memory stays under {BOUND // MiB} MiB", self.memory)
        if self.before != self.after:
            note(f"{what}: leader, term and changes seen were {self.before}, are {self.after}")
        ok(LEADER_MAY_CHANGE or self.before == self.after, f"{what}: the leader is kept, and heard all the time", f"{self.before} {self.after}")


# A machine that is busy with other things may itself starve a leader of half a second: only `make overload` insists.
LEADER_MAY_CHANGE = not LONG


def terms(c):
    """(leader, term, how often it has found another leader or its own again) as each member knows it: who misses heartbeats for an election
    timeout counts one, also if the leader is kept."""
    out = []
    for i, port in enumerate(c.ports[:c.n]):
        answer = wait_for("status", lambda: Kv(port, 30).call("/etcdserverpb.Maintenance/Status", b""), 60)
        f = dict(unpack(answer))
        text = urllib.request.urlopen(c.urls[i] + "/metrics", timeout=60).read().decode()
        out.append((f.get(4), f.get(6), int(re.search(r"^etcd_server_leader_changes_seen_total (\d+)", text, re.M)[1])))
    return out


def bench(c, *args, timeout=300):
    out = run(PINTLE, "bench", *args, "--endpoints", ",".join(c.urls), "-o", "json", timeout=timeout)
    try:
        return json.loads(out.stdout)
    except ValueError:
        raise AssertionError(f"bench: {out.stdout} {out.stderr}")


def rate(result):
    return result.get("rate") or result.get("ops_per_s") or 0


class Compactor(threading.Thread):
    """Keeps history from growing to the quota while the load goes on: a compaction a second, of all but the last moments."""

    def __init__(self, c):
        super().__init__(daemon=True)
        self.c, self.over, self.failed = c, threading.Event(), ""

    def run(self):
        while not self.over.wait(1):
            out = self.c.ctl("get", "/probe", "-w", "json", timeout=60)
            if out.returncode == 0:
                rev = json.loads(out.stdout)["header"]["revision"]
                out = self.c.ctl("compaction", str(max(1, rev - 10000)), timeout=60)
            if out.returncode != 0 and "has been compacted" not in out.stderr:
                self.failed = out.stderr

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *a):
        self.over.set()
        self.join(120)


def cluster():
    c = Cluster(3, dir=temp_dir())
    c.start().wait_healthy()
    return c


def test_ten_times():
    c = cluster()
    few, many, cpu = [], [], {}
    bench(c, "put", "--clients", "1000", "--conns", "100", "--duration", "1s")
    with Compactor(c) as compactor:
        for _ in range(5 if LONG else 1):  # in turns, so that whatever else this machine does is the same for both
            for clients, conns, rates in (("1000", "100", few), ("10000", "1000", many)):
                r = bench(c, "put", "--clients", clients, "--conns", conns, "--duration", "4s" if LONG else "2s")
                rates.append(rate(r))
                cpu.setdefault(clients, []).append(r["server_cpu_us_per_op"])
    with Probe(c) as p, Compactor(c) as compactor_beside_it:
        long = bench(c, "put", "--clients", "10000", "--conns", "1000", "--duration", "180s" if LONG else "3s")

    def median(a):
        return sorted(a)[len(a) // 2]
    note(f"puts, medians of {len(few)}: 1,000 clients on 100 connections {median(few):.0f}/s ({median(cpu['1000']):.1f} us of all servers' CPU each), 10,000 on "
         f"1,000 {median(many):.0f}/s ({median(cpu['10000']):.1f} us): {100 * median(many) / max(median(few), 1):.0f}%; {rate(long):.0f}/s beside the probe")
    if LONG:
        ok(median(many) >= 0.8 * median(few), "10,000 clients: no less than 80% of what 1,000 get done", (few, many))
    ok(rate(long) > 0 and (long["errors"] == 0 or not LONG), "10,000 clients are served", long)
    failed = compactor.failed or compactor_beside_it.failed
    ok(not failed, "10,000 clients: history is compacted beside them", failed)
    p.judge("10,000 clients")
    c.stop()


def fill(c, mib):
    kv = Kv(c.ports[0], 60)
    kv.get(b"/fill")
    for i in range(4 * mib):
        if not kv.put(b"/fill/%04d" % i, bytes(MiB // 4)):
            raise AssertionError("cannot fill")
    kv.close()


class SlowReader(threading.Thread):
    """Takes 1 KiB of each of its connections every 100 ms."""

    def __init__(self, conns):
        super().__init__(daemon=True)
        self.conns, self.over, self.taken, self.cut_off = conns, threading.Event(), [0] * len(conns), 0
        for conn in conns:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)  # what it has not taken waits at the server, not here

    def run(self):
        for conn in self.conns:
            conn.sock.setblocking(False)
        while not self.over.wait(0.1):
            for i, conn in enumerate(self.conns):
                try:
                    got = len(conn.sock.recv(1024))
                    self.taken[i] += got
                    self.cut_off += not got
                except BlockingIOError:
                    pass
                except OSError:
                    self.cut_off += 1

    def stop(self):
        self.over.set()
        self.join(60)


def test_slow_readers():
    """Half of them read nothing, half next to nothing."""
    c = cluster()
    fill(c, 20)
    with Probe(c) as p:
        conns = [Connection(c.ports[0], 60) for _ in range(200 if LONG else 40)]
        slow = SlowReader(conns[::2])
        for conn in conns:
            for _ in range(50):
                conn.start("/etcdserverpb.KV/Range", pack((1, "/fill/"), (2, "/fill0")))
            conn.start("/etcdserverpb.Watch/Watch", pack((1, pack((1, b"\0"), (2, b"\0"), (3, 1)))), end=False)
        slow.start()
        load = bench(c, "put", "--clients", "100", "--conns", "10", "--duration", "20s" if LONG else "3s")
        slow.stop()
    note(f"{len(conns)} connections that asked for 50 x 20 MiB each, half of which read nothing and half {sum(slow.taken) // len(slow.taken) // 1024} KiB each: "
         f"others put {rate(load):.0f}/s")
    ok(min(slow.taken) > 0 and not slow.cut_off, "who reads slowly is served slowly, and not cut off", (slow.taken, slow.cut_off))
    p.judge("clients that read slowly or never")
    for conn in conns:
        conn.close()
    c.stop()


def test_idle_watchers():
    c = cluster()
    want, streams = (1000000, 20) if LONG else (50000, 5)
    before = rss(c.procs[0])
    conns = []
    for s in range(streams):
        conn = Connection(c.ports[0], 120)
        stream = conn.start("/etcdserverpb.Watch/Watch", end=False)
        each = want // streams
        for at in range(0, each, 1000):
            conn.send(b"".join(conn.message(stream, pack((1, pack((1, b"/w/%d/%d" % (s, n)))))) for n in range(at, at + 1000)))
            answered = 0
            while answered < 1000:
                kind, flags, of, payload = conn.read_frame()
                if kind == DATA:
                    conn.pending = getattr(conn, "pending", b"") + payload
                    while len(conn.pending) >= 5 and len(conn.pending) >= 5 + int.from_bytes(conn.pending[1:5], "big"):
                        answered += 1
                        conn.pending = conn.pending[5 + int.from_bytes(conn.pending[1:5], "big"):]
                if kind == HEADERS and flags & 1:
                    raise AssertionError("the stream ended")
        conns.append(conn)
    used = rss(c.procs[0]) - before
    note(f"{want} idle watchers on {streams} streams: {used // MiB} MiB, {used / want:.0f} bytes each")
    with Probe(c) as p:
        load = bench(c, "put", "--clients", "100", "--conns", "10", "--duration", "10s" if LONG else "2s")
    note(f"beside them: {rate(load):.0f} puts/s")
    p.judge("idle watchers")
    for conn in conns:
        conn.close()
    c.stop()


def test_connections():
    c = cluster()
    want = 10000 if LONG else 1500
    before = rss(c.procs[0])
    conns = []
    for n in range(want):
        conn = Connection(c.ports[0], 60)
        conn.start("/etcdserverpb.KV/Range", pack((1, b"x")))
        conns.append(conn)
    for conn in conns:
        while conn.read_frame()[0] != HEADERS:
            pass
    used = rss(c.procs[0]) - before
    note(f"{want} connections, each with a request: {used // MiB} MiB, {used // want} bytes each")
    with Probe(c) as p:
        bench(c, "put", "--clients", "100", "--conns", "10", "--duration", "5s" if LONG else "1s")
    p.judge(f"{want} connections")
    for conn in conns:
        conn.close()
    c.stop()


def test_endless_requests():
    """Headers, bodies, chunks and resets without an end, until the server has had enough or the time is up."""
    c = cluster()
    seconds = 20 if LONG else 3
    ended, over, must_end = [], threading.Event(), {"headers", "body", "resets", "request line", "fields"}

    def endless(name, first, more):
        conn = Connection(c.ports[0], 20)
        try:
            if callable(first):
                first = first(conn)
            conn.send(first)
            while not over.is_set():
                conn.send(more(conn) if callable(more) else more)
        except OSError:
            ended.append(name)
        conn.close()

    def raw(name, first, more):
        s = socket.create_connection(("127.0.0.1", c.ports[0]), timeout=20)
        try:
            s.sendall(first)
            while not over.is_set():
                s.sendall(more)
        except OSError:
            ended.append(name)
        s.close()

    def put_head(conn):
        stream = conn.start("/etcdserverpb.KV/Put", None)
        return conn.frame(DATA, 0, stream, b"\0\0\x17\0\0" + bytes(1000))

    def reset(conn):
        stream = conn.start("/etcdserverpb.KV/Range", pack((1, b"x")))
        return conn.frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
    junk = hpack([("x" * 50, "y" * 50)]) * 100
    frame = Connection.frame
    with Probe(c) as p:
        threads = []
        for n in range(8):
            threads += [threading.Thread(target=f, args=a, daemon=True) for f, a in (
                (endless, ("headers", frame(HEADERS, 0, 1, junk), frame(9, 0, 1, junk))),
                (endless, ("body", put_head, lambda conn: conn.frame(DATA, 0, conn.next_stream - 2, bytes(10000)))),
                (endless, ("resets", b"", reset)),
                (endless, ("settings", b"", frame(SETTINGS, 0, 0) * 100)),
                (endless, ("pings", b"", frame(PING, 0, 0, bytes(8)) * 100)),
                (raw, ("request line", b"GET /" + b"a" * 1000, b"a" * 1000)),
                (raw, ("fields", b"GET / HTTP/1.1\r\nHost: a\r\n", b"x: y\r\n" * 100)),
                (raw, ("chunks", b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"400\r\n" + bytes(1024) + b"\r\n")))]
        for t in threads:
            t.start()
        time.sleep(seconds)
        deadline = time.time() + 60
        while not set(ended) >= must_end and time.time() < deadline:
            time.sleep(0.1)
        over.set()
        for t in threads:
            t.join(60)
    ok(set(ended) >= must_end, "requests without an end are cut off", sorted(set(ended)))
    note("cut off: " + ", ".join(f"{n} {ended.count(n)}" for n in sorted(set(ended))))
    p.judge("requests without an end")
    c.stop()


def test_compaction_and_snapshot():
    c = cluster()
    bench(c, "put", "--clients", "500", "--conns", "50", "--total", "400000" if LONG else "30000", "--key-space-size", "20000")
    full = "--clients 1000 --conns 100 --duration 20s" if LONG else "--clients 300 --conns 30 --duration 4s"
    load = threading.Thread(target=lambda: bench(c, "put", *full.split()), daemon=True)
    with Probe(c) as alone:
        load.start()
        time.sleep(5 if LONG else 1)
    with Probe(c) as p:
        rev = json.loads(c.ctl("get", "/probe", "-w", "json").stdout)["header"]["revision"]
        out = c.ctl("compaction", str(rev), "--physical", timeout=120)
        ok(out.returncode == 0, "compaction under full load", out.stderr)
        out = c.ctl("snapshot", "save", os.path.join(c.dir, "snap"), endpoints=c.urls[:1], timeout=120)
        ok(out.returncode == 0, "snapshot save under full load", out.stderr)
    load.join()
    alone.judge("load alone")
    p.judge("compaction and snapshot under load")
    c.stop()


def test_bodies_without_end():
    """One Kubernetes client sends 150 bodies of almost 3 MiB at once and ends none: more than a worker keeps."""
    import kube_cluster
    k = kube_cluster.Cluster(1, ["--workers", "1"])
    try:
        conn = Connection(k.kube_port(0), 60, tls=k.context())
        head = hpack([(":method", "POST"), (":scheme", "https"), (":path", "/api/v1/namespaces/default/configmaps"), (":authority", "a"),
                      ("content-type", "application/json")])
        sent = {2 * n + 1: 0 for n in range(150)}
        room, all_room, answered, most = {s: MiB for s in sent}, 65535, set(), 2900 << 10
        for s in sent:
            conn.send(conn.frame(HEADERS, 4, s, head))

        def take():
            nonlocal all_room
            kind, flags, of, payload = conn.read_frame()
            if kind == WINDOW_UPDATE and of == 0:
                all_room += int.from_bytes(payload, "big")
            elif kind == WINDOW_UPDATE and of in room:
                room[of] += int.from_bytes(payload, "big")
            elif kind in (HEADERS, RST_STREAM):
                answered.add(of)
        while not answered and any(n < most for n in sent.values()):
            ready = [s for s in sent if room[s] >= 16384 and sent[s] < most]
            if all_room < 16384 or not ready:
                take()
                continue
            s = min(ready, key=sent.get)
            conn.send(conn.frame(DATA, 0, s, b" " * 16384))
            sent[s] += 16384
            room[s] -= 16384
            all_room -= 16384
        ok(answered, "request bodies beyond what a worker keeps are refused", f"{sum(sent.values()) // MiB} MiB were taken")
        used = rss(k.procs[0])
        note(f"after {sum(sent.values()) // MiB} MiB of bodies without an end: memory {used // MiB} MiB")
        ok(used < 1024 * MiB or SANITIZED, "and memory stays bounded", used)
        ok(k.get("/api/v1/namespaces/default").status == 200, "others are served")
        conn.close()
    finally:
        k.close()


class Unread(threading.Thread):
    """Answers that keep a revision, asked for on streams without a window, on a connection that is alive; waits until all are ended."""

    def __init__(self, port, *requests, tls=None):
        super().__init__()
        self.conn, self.ended = Connection(port, 150, tls=tls, stream_window=0), set()
        self.streams = {ask(self.conn) for ask in requests}
        self.began = time.time()

    def run(self):
        while self.ended != self.streams and time.time() < self.began + 150:
            kind, _, of, _ = self.conn.read_frame()
            if kind == RST_STREAM:
                self.ended.add(of)
        self.took = time.time() - self.began


def test_unread_answers():
    import kube_cluster
    k = kube_cluster.Cluster(1, ["--workers", "1"])
    path, file = "/api/v1/namespaces/default/configmaps", os.path.join(k.dir, "saved")
    etcd = k.ports[0]

    def get(path):
        def ask(conn):
            of, conn.next_stream = conn.next_stream, conn.next_stream + 2
            conn.send(conn.frame(HEADERS, 5, of, hpack([(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "a")])))
            return of
        return ask

    def save():
        return run(PINTLE, "ctl", "--endpoints", f"http://127.0.0.1:{etcd}", "snapshot", "save", file)
    everything, snapshot = (lambda conn: conn.start("/etcdserverpb.KV/Range", pack((1, b"\0"), (2, b"\0")))), (lambda conn: conn.start("/etcdserverpb.Maintenance/Snapshot", b""))
    try:
        for i in range(12):
            k.post(path, {"metadata": {"name": f"m{i}"}, "data": {"x": "y" * MiB}})
        slow = Connection(k.kube_port(0), 150, tls=k.context(), stream_window=0)
        of, taken = get(path)(slow), 0
        unread = [Unread(k.kube_port(0), get(path), get(path + "?watch=true"), tls=k.context())] + [Unread(etcd, everything, *[snapshot] * 8) for _ in range(4)]
        out = wait_for("too many snapshots", lambda: (lambda out: out if out.returncode else None)(save()))
        ok("too many requests" in out.stderr, "snapshots that nobody reads keep others out at first", out.stderr)
        for u in unread:
            u.start()
        while any(u.is_alive() for u in unread):
            slow.send(slow.frame(WINDOW_UPDATE, 0, of, (16384).to_bytes(4, "big")))
            kind = None
            while kind != DATA:
                kind, _, which, payload = slow.read_frame()
                assert kind != RST_STREAM, (which, payload)
            taken += len(payload)
            time.sleep(0.15)
        ok(all(u.ended == u.streams for u in unread), "lists, the beginning of a watch, ranges and snapshots that nobody reads are ended", [(u.streams, u.ended) for u in unread])
        note(f"after {min(u.took for u in unread):.0f} to {max(u.took for u in unread):.0f} s; another client took {taken >> 10} KiB of a list meanwhile")
        ok(taken > MiB, "who reads slowly is not cut off")
        out = save()
        ok(out.returncode == 0, "a snapshot is made again", out.stdout + out.stderr)
        ok(k.get("/readyz").status == 200, "others are served")
        for u in unread:
            u.conn.close()
        slow.close()
    finally:
        k.close()


main(test_ten_times, test_slow_readers, test_idle_watchers, test_connections, test_endless_requests, test_bodies_without_end, *((test_unread_answers,) if LONG else ()), test_compaction_and_snapshot)
