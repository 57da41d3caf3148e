#!/usr/bin/env python3
"""etcd's known bugs of watch and consistency, each provoked here as it was there (docs/chaos.md says what each was). The number is that of the
issue at github.com/etcd-io/etcd.

    test_etcd_bugs.py [NUMBER...]"""
import os, random, sys, threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "chaos"))
from tap import *
import members
import wire
from wire import pack

TOOLS = os.path.join(ROOT, os.environ.get("B", "build"), "tests", "chaos")
PREFIX_END = "\x7f"


def put(url, key, value="x", lease=0):
    return wire.header_revision(wire.call(url, "KV/Put", pack((1, key), (2, value), (3, lease))))


def delete(url, key):
    return wire.header_revision(wire.call(url, "KV/DeleteRange", pack((1, key))))


def get(url, key, rev=0):
    m = wire.call(url, "KV/Range", pack((1, key), (4, rev)))
    return wire.header_revision(m), [wire.key_value(v) for n, v in m if n == 2]


def compact(url, rev):
    wire.call(url, "KV/Compact", pack((1, rev), (2, True)))


def events_until(w, rev, timeout=60):
    """All events of the stream up to revision `rev`, and the bookmarks [(revision, events before it)]."""
    events, marks = [], []
    while not events or events[-1][1]["mod"] < rev:
        a = w.take(timeout)
        if a is None or a["canceled"]:
            return events, marks + [("ended", a)]
        if not a["events"] and not a["created"]:
            marks.append((a["rev"], len(events)))
        events += a["events"]
    return events, marks


class Load:
    """Clients and watchers of tests/chaos, and its judge."""

    def __init__(self, c, think_ms=5):
        self.history = os.path.join(c.dir, "history.jsonl")
        self.p = subprocess.Popen([os.path.join(TOOLS, "load"), "--endpoints", ",".join(c.urls), "--history", self.history, "--clients", "12",
                                   "--think-ms", str(think_ms), "--seed", str(os.getpid()), "--settle-s", "120"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.p.stdout), daemon=True)
        self.reader.start()
        at_exit(lambda: self.p.poll() is None and self.p.kill())

    def finish(self):
        """(right?, what was said)"""
        self.p.stdin.write("stop\n")
        self.p.stdin.flush()
        code = self.p.wait(180)
        self.reader.join(5)
        said = run(os.path.join(TOOLS, "judge"), self.history, timeout=120)
        return code == 0 and said.returncode == 0, "".join(self.lines[-2:]) + said.stdout + said.stderr


def small(n, snapshot_bytes=100000, **more):
    return Cluster(n, flags=["--wal-segment-bytes", "65536", "--snapshot-log-bytes", str(snapshot_bytes), "--workers", "2"], **more)


def storm(name, n, rounds, act):
    """`act(cluster, round)` again and again while clients write, read and watch; then their history is judged."""
    c = small(n, snapshot_bytes=10000).start().wait_healthy()
    load = Load(c, think_ms=2)
    for i in range(rounds):
        act(c, i)
    right, said = load.finish()
    ok(right, name, said)
    note(next((l for l in said.split("\n") if l.startswith("judged")), said[-200:]))
    c.stop()


def crash(c, i):
    c.kill(i)
    c.start(i)
    time.sleep(0.5)


def issue_13766():
    storm("13766: members that crash under load keep one state", 3, 12, lambda c, i: crash(c, i % 3))


def issue_14370():
    dir = temp_dir("pintle-14370-")
    shim = members.Shim(os.path.join(dir, "shim"))
    c = small(1, dir=dir)
    c.procs[0] = start(*c.command(0), log=c.log(0), env={"LD_PRELOAD": preload(os.path.join(TOOLS, "shim.so")), "CHAOS_SHIM": shim.path})
    c.wait_healthy()
    shim.set("sync_delay_us", 300000)
    took = []
    for i in range(5):
        began = time.monotonic()
        put(c.urls[0], f"a{i}")
        took.append(time.monotonic() - began)
    ok(min(took) >= 0.3, "14370: a single member acknowledges nothing before it is on disk", took)
    c.kill(0)
    power_loss(temp_dir("pintle-14370-"))


def power_loss(dir):
    name = "14370: what a single member acknowledged survives the loss of power"
    if "loop" in members.find_missing(dir):
        skip(name, members.find_missing(dir)["loop"])
        return
    disk = members.Disk(os.path.join(dir, "n1"), True)
    at_exit(disk.close)
    c = small(1, dir=dir).start().wait_healthy()
    load = Load(c, think_ms=2)
    for _ in range(4):
        time.sleep(random.uniform(0.5, 1.5))
        disk.lose_power()
        c.kill(0)
        disk.restore_power()
        c.start(0).wait_healthy()
    right, said = load.finish()
    ok(right, name, said)
    c.stop()


def issue_14685():
    def act(c, i):
        def defragment():
            try:
                wire.call(c.urls[i % 3], "Maintenance/Defragment", b"")
            except (wire.Refused, OSError):
                pass  # the member died over it
        t = threading.Thread(target=defragment)
        t.start()
        c.kill(i % 3)
        t.join()
        c.start(i % 3)
        time.sleep(0.4)
    storm("14685: members that crash while they defragment keep one state", 3, 8, act)


def issue_15220():
    c = small(1).start().wait_healthy()
    run(PINTLE, "bench", "put", "--endpoints", c.urls[0], "--total", "4000", "--clients", "50", "--conns", "2", "--key-space-size", "50", timeout=60)
    top, _ = get(c.urls[0], "none")
    writer = start(PINTLE, "bench", "put", "--endpoints", c.urls[0], "--total", "20000", "--clients", "20", "--conns", "2", "--key-space-size", "50")
    w = wire.Watch(c.urls[0])
    w.create("b", PREFIX_END, start=2)
    for _ in range(200):
        w.ask_progress()
        time.sleep(0.002)
    writer.wait(60)
    end = put(c.urls[0], "bench-end")
    w.ask_progress()
    events, marks = events_until(w, end)
    w.close()
    late = [(rev, n, events[n][1]["mod"]) for rev, n in marks if rev != "ended" and n < len(events) and events[n][1]["mod"] <= rev]
    ok(not late and top > 4000, "15220: a bookmark comes after all events that it covers", late[:5])
    revs = [e[1]["mod"] for e in events]
    ok(revs == list(range(2, end + 1)), "15220: and no event is missing", (len(revs), end))
    note(f"{len(marks)} bookmarks among {len(events)} events")
    c.stop()


def lagging_member(start_watches):
    """A member that sleeps until the others have dropped the log that it misses, so that it is given a snapshot. `start_watches(cluster)` opens
    streams on it before. Returns (cluster, what start_watches returned, the last revision)."""
    c = Cluster(3, flags=["--wal-segment-bytes", "65536", "--snapshot-log-bytes", "100000", "--workers", "2"]).start().wait_healthy()
    for i in range(20):
        put(c.urls[2], f"before{i:02d}")
    state = start_watches(c)
    c.procs[2].send_signal(signal.SIGSTOP)
    run(PINTLE, "bench", "put", "--endpoints", ",".join(c.urls[:2]), "--total", "60000", "--clients", "100", "--conns", "2", "--val-size", "600",
        "--key-space-size", "200", timeout=300)
    c.procs[2].send_signal(signal.SIGCONT)
    wait_for("the member to take a snapshot", lambda: "state taken from a snapshot" in open(c.log(2)).read(), 60)
    wait_for("the member to be healthy", lambda: c.healthy(2), 60)
    return c, state, put(c.urls[2], "z-end")


def issue_15271_20221():
    future = 5000

    def watches(c):
        w = wire.Watch(c.urls[2])
        w.create("a", PREFIX_END, start=2)
        f = wire.Watch(c.urls[2])
        f.create("a", PREFIX_END, start=future, progress=True)
        wait_for("both watches to be there", lambda: w.answers.qsize() and f.answers.qsize())
        f.ask_progress()
        return w, f
    c, (w, f), end = lagging_member(watches)
    events, marks = events_until(w, end)
    revs = [e[1]["mod"] for e in events]
    ok(revs == list(range(2, end + 1)), "15271: a watch on a member that is given a snapshot goes neither back nor past events",
       (len(revs), end, revs[:3], revs[-3:], marks[-1:]))
    events, marks = events_until(f, end)
    revs = [e[1]["mod"] for e in events]
    ok(revs == list(range(future, end + 1)), "20221: a watch of a future revision is told of none before it, also after a snapshot", (revs[:3], len(revs), end))
    ok(all(rev == "ended" or rev >= future - 1 for rev, _ in marks), "20221: and given no bookmark before it", marks[:3])
    w.close(), f.close(), c.stop()


def issue_17247():
    c = small(3).start().wait_healthy()
    live = [wire.Watch(u) for u in c.urls]
    for w in live:
        w.create("a", PREFIX_END, start=2)
    top = 1
    for i in range(60):
        ops = [(2, pack((1, f"t{i % 5}"), (2, f"v{i}"))), (1, pack((1, f"t{i % 5}"))), (2, pack((1, f"u{i % 7}"), (2, f"v{i}"))), (1, pack((1, "t"), (2, "z"))),
               (3, pack((1, f"w{i % 3}")))] + ([(2, pack((1, f"w{(i + 1) % 3}"), (2, "w")))] if i % 2 else [])
        m = wire.call(c.urls[i % 3], "KV/Txn", b"".join(pack((2, pack(op))) for op in ops))
        top = max(top, wire.header_revision(m))
    late = wire.Watch(c.urls[1])
    late.create("a", PREFIX_END, start=2)
    told = [[(e[0], e[1]["key"], e[1]["mod"]) for e in events_until(w, top)[0]] for w in live + [late]]
    ok(all(len(set(t)) == len(t) and len({m for _, _, m in t}) == top - 1 for t in told) and all(t == told[0] for t in told),
       "17247: events of txns that write and read come once, and the same everywhere", [len(t) for t in told])
    for w in live + [late]:
        w.close()
    joining_watches(c)
    c.stop()


def joining_watches(c):
    """Watches that begin at many places of history while txns are written, on streams that catch up together."""
    writer = start(PINTLE, "bench", "txn", "--endpoints", c.urls[0], "--total", "6000", "--clients", "20", "--conns", "2", "--txn-ops", "3", "--key-space-size", "50")
    streams, top = [], 0
    while writer.poll() is None:
        top, _ = get(c.urls[0], "none")
        if len(streams) < 8:
            w = wire.Watch(c.urls[0])
            starts = [2 + top * i // 6 for i in range(6)]
            for i, rev in enumerate(starts):
                w.create("b", PREFIX_END, start=rev, id=i + 1)
            streams.append((w, starts))
    end = put(c.urls[0], "z-end")
    bad = []
    for w, starts in streams:
        told = {i + 1: [] for i in range(6)}
        while any(not t or t[-1][1] < end for t in told.values()):
            a = w.take(60)
            told[a["id"]] += [(e[1]["key"], e[1]["mod"]) for e in a["events"]]
        for i, t in told.items():
            revs = sorted({rev for _, rev in t})
            if len(set(t)) != len(t) or [r for _, r in t] != sorted(r for _, r in t) or (revs[0], revs[-1], len(revs)) != (revs[0], end, end - revs[0] + 1):
                bad.append((starts[i - 1], len(t), len(set(t)), len(revs), end))
        w.close()
    ok(not bad and len(streams) > 2, "17247: and at the join of history and what is new", (bad[:5], len(streams)))


def issue_17529():
    c = small(1).start().wait_healthy()
    w = wire.Watch(c.urls[0], reading=False)
    n = 10
    for i in range(n):
        w.create("b", PREFIX_END, start=2, id=i + 1, prev=i % 2 == 1)
    run(PINTLE, "bench", "put", "--endpoints", c.urls[0], "--total", "3000", "--clients", "50", "--conns", "2", "--val-size", "1500", "--key-space-size", "40",
        timeout=60)
    end = put(c.urls[0], "bench-end")
    w.reading.set()
    told = {i + 1: [] for i in range(n)}
    while any(not t or t[-1] < end for t in told.values()):
        a = w.take(60)
        if a is None or a["canceled"]:
            break
        told[a["id"]] += [e[1]["mod"] for e in a["events"]]
    ok(all(t == list(range(2, end + 1)) for t in told.values()), "17529: a stream of many watches that was not read for a while loses nothing",
       {i: (len(t), t[-1:]) for i, t in told.items()})
    w.close(), c.stop()


def issue_17780():
    c = small(1, snapshot_bytes=2000).start().wait_healthy()
    bad = []
    for i in range(4):
        put(c.urls[0], "gone")
        last = delete(c.urls[0], "gone")
        compact(c.urls[0], last)
        if i % 2:  # entries without revisions, until a snapshot is taken
            run(PINTLE, "bench", "lease", "--endpoints", c.urls[0], "--total", "400", "--clients", "10", "--conns", "1", timeout=60)
        crash(c, 0)
        c.wait_healthy()
        now, _ = get(c.urls[0], "gone")
        next = put(c.urls[0], "kept")
        if (now, next) != (last, last + 1):
            bad.append((i, last, now, next))
    for i in range(4):
        run(PINTLE, "bench", "put", "--endpoints", c.urls[0], "--total", "3000", "--clients", "50", "--conns", "2", "--key-space-size", "20", timeout=60)
        last = delete(c.urls[0], "kept")
        t = threading.Thread(target=lambda: run(PINTLE, "ctl", "compact", last, "--endpoints", c.urls[0], "--command-timeout", "2s"))
        t.start()
        time.sleep(random.uniform(0.005, 0.03))
        crash(c, 0)
        t.join()
        c.wait_healthy()
        now, _ = get(c.urls[0], "kept")
        next = put(c.urls[0], "kept")
        if (now, next) != (last, last + 1):
            bad.append((i, last, now, next))
    ok(not bad, "17780: a crash while the newest revision is compacted does not turn it back", bad)
    c.stop()


def issue_18089():
    c = small(1).start().wait_healthy()
    u = c.urls[0]
    for i in range(3):
        put(u, "k", f"v{i}")
    gone = delete(u, "k")
    put(u, "k", "v6")
    compact(u, gone)
    told = []
    for again in (False, True):
        w = wire.Watch(u)
        w.create("k", start=gone)
        told.append([(e[0], e[1]["mod"]) for e in events_until(w, gone + 1)[0]])
        w.close()
        if not again:
            crash(c, 0)
            c.wait_healthy()
    want = [("delete", gone), ("put", gone + 1)]
    ok(told == [want, want], "18089: a watch from a compacted delete on is told of it, before and after a restart", told)
    c.stop()


def issue_18667():
    c = small(3).start().wait_healthy()
    bad, refused = [], 0
    for i in range(25):
        old = put(c.urls[0], "k", f"v{i}")
        put(c.urls[0], "k", f"w{i}")
        t = threading.Thread(target=compact, args=(c.urls[1], old + 1))
        t.start()
        if i % 2:
            t.join()
        txn = pack((2, pack((2, pack((1, f"side{i}"), (2, "x"))))), (2, pack((1, pack((1, "k"), (4, old))))), (2, pack((2, pack((1, f"other{i}"), (2, "x"))))))
        try:
            m = wire.call(c.urls[2], "KV/Txn", txn)
            read = [wire.key_value(v)["value"] for n, v in wire.unpack(wire.field(wire.unpack([v for n, v in m if n == 3][1]), 1)) if n == 2]
            right, done = read == [f"v{i}"], 1
        except wire.Refused as e:
            right, done = e.status == 11 and "compacted" in e.text, 0
            refused += 1
        t.join()
        have = [[len(get(u, f"{k}{i}")[1]) for k in ("side", "other")] for u in c.urls]
        if not right or have != [[done, done]] * 3:
            bad.append((i, right, done, have))
    ok(not bad and refused >= 12, "18667: a txn that reads a compacted revision does all or nothing, the same on every member", (bad, refused))
    ok(len(set(c.hashes())) == 1, "18667: and leaves one state", c.hashes())
    note(f"{refused} of 25 refused")
    c.stop()


def issue_19179():
    c = small(1).start().wait_healthy()
    u, bad = c.urls[0], []
    for i in range(3):
        for k in range(30):
            put(u, f"p{k:02d}")
        gone = [delete(u, f"p{k:02d}") for k in range(30)]
        compact(u, gone[9])
        compact(u, gone[19])
        crash(c, 0)
        c.wait_healthy()
        for at in (19, 20):
            w = wire.Watch(u)
            w.create("p", "q", start=gone[at])
            told = [(e[0], e[1]["mod"]) for e in events_until(w, gone[-1])[0]]
            w.close()
            if told != [("delete", r) for r in gone[at:]]:
                bad.append((i, gone[at], told[:3], len(told)))
    ok(not bad, "19179: a watch from the compacted revision on is told of the delete there, after a crash too", bad)
    c.stop()


ISSUES = (issue_13766, issue_14370, issue_14685, issue_15220, issue_15271_20221, issue_17247, issue_17529, issue_17780, issue_18089, issue_18667,
          issue_19179)
main(*(f for f in ISSUES if len(sys.argv) < 2 or any(n in f.__name__ for n in sys.argv[1:])))
