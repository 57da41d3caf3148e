#!/usr/bin/env python3
"""etcdctl drives three `pintle server` members, and a real etcd beside them: the same commands, and every field of the answers must agree
(ids, terms and sizes apart). Every command goes to the next of the three members. Prints TAP.

PINTLE: the binary (build/pintle). PINTLE_PEERS: a folder with a newer etcd and etcdctl somewhere below it; what is there is run too.
PINTLE_TEST_PORT: the first of 40 ports (23100). PINTLE_LONG=1: `check perf` too, which takes a minute."""
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PINTLE = os.environ.get("PINTLE", os.path.join(TOP, "build", "pintle"))
PORT = int(os.environ.get("PINTLE_TEST_PORT", "23100"))
ENV = dict(os.environ, ETCDCTL_API="3")

tests = 0
failures = 0


def ok(good, name, detail=""):
    global tests, failures
    tests += 1
    failures += not good
    print(("ok" if good else "not ok"), tests, "-", name, flush=True)
    if not good:
        for line in str(detail).splitlines()[:40]:
            print("#", line[:400], flush=True)
    return good


def skip(name, why):
    global tests
    tests += 1
    print("ok", tests, "-", name, "# SKIP", why, flush=True)


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError("no %s within %d s" % (what, seconds))


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=3) as r:
            return r.read().decode()
    except (OSError, ValueError):
        return ""


def metric(url, name):
    for line in fetch(url + "/metrics").splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    return None


class Servers:
    """Processes with their data in one temporary folder."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def start(self, name, command):
        log = open(os.path.join(self.folder, name + ".log"), "wb")
        self.running.append(subprocess.Popen(command, stdout=log, stderr=log, env=ENV))

    def stop(self):
        for p in self.running:
            p.send_signal(signal.SIGTERM)
        for p in self.running:
            try:
                p.wait(15)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()


def start_pintle(servers, base):
    urls = ["http://127.0.0.1:%d" % (base + 2 * i) for i in range(3)]
    peers = ["http://127.0.0.1:%d" % (base + 2 * i + 1) for i in range(3)]
    cluster = ",".join("n%d=%s" % (i + 1, peers[i]) for i in range(3))
    for i in range(3):
        servers.start("n%d" % (i + 1), [
            PINTLE, "server", "--name", "n%d" % (i + 1), "--data-dir", os.path.join(servers.folder, "n%d" % (i + 1)),
            "--listen-client-urls", urls[i], "--listen-peer-urls", peers[i], "--initial-cluster", cluster,
            "--initial-cluster-state", "new"])
    for url in urls:
        wait_for("healthy " + url, lambda: '"true"' in fetch(url + "/health"))
    return urls


def start_etcd(servers, binary, base, name):
    url, peer = "http://127.0.0.1:%d" % base, "http://127.0.0.1:%d" % (base + 1)
    servers.start(name, [
        binary, "--name", "e1", "--data-dir", os.path.join(servers.folder, name), "--listen-client-urls", url,
        "--advertise-client-urls", url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
        "--initial-cluster", "e1=" + peer, "--log-level", "error"])
    wait_for("healthy etcd", lambda: '"true"' in fetch(url + "/health"))
    return [url]


class Side:
    """One of the two that are compared: its endpoints, used in turn."""

    def __init__(self, etcdctl, urls):
        self.etcdctl = etcdctl
        self.urls = urls
        self.turn = 0
        self.vars = {}  # what earlier answers said, for {names} in later commands

    def command(self, args):
        url = self.urls[self.turn % len(self.urls)]
        self.turn += 1
        return [self.etcdctl, "--endpoints", url] + [a.replace("{", "{").format(**self.vars) if "{" in a else a for a in args]

    def run(self, args, stdin=None, timeout=20):
        p = subprocess.run(self.command(args), input=stdin, capture_output=True, env=ENV, timeout=timeout)
        return p.returncode, p.stdout, p.stderr


MASKED = {"cluster_id", "member_id", "raft_term", "ID", "id"}


def mask(value, lease_ids):
    """The answer without what must differ. Lease ids become the order in which they were seen."""
    if isinstance(value, dict):
        out = {}
        for k, v in value.items():
            if k in ("lease", "Lease") and v:
                out[k] = "lease-%d" % lease_ids.setdefault(v, len(lease_ids))
            elif k == "ttl":
                out[k] = v if v <= 0 else "positive"
            elif k == "keys" and isinstance(v, list):
                out[k] = sorted(v)  # of a lease: etcd walks a Go map, in another order each time
            elif k not in MASKED:
                out[k] = mask(v, lease_ids)
        return out
    if isinstance(value, list):
        return [mask(v, lease_ids) for v in value]
    return value


def error_of(stderr):
    """The sentence that a person sees, without client-side log lines."""
    lines = [l for l in stderr.decode(errors="replace").splitlines() if not l.startswith("{")]
    return "\n".join(lines)


def parsed(result, lease_ids):
    code, out, err = result
    text = out.decode(errors="replace")
    try:
        body = [mask(json.loads(line), lease_ids) for line in text.splitlines() if line]
    except ValueError:
        body = text
    return {"exit": code, "out": body, "error": error_of(err)}


class Pair:
    """Runs commands on both sides and compares."""

    def __init__(self, label, ours, theirs):
        self.label = label
        self.ours = ours
        self.theirs = theirs
        self.lease_ids = ({}, {})

    def same(self, name, args, stdin=None, plain=False):
        full = args if plain else args + ["-w", "json"]
        results = [s.run(full, stdin) for s in (self.ours, self.theirs)]
        a, b = (parsed(r, ids) for r, ids in zip(results, self.lease_ids))
        good = ok(a == b, "%s: %s" % (self.label, name),
                  "command: %s\npintle: %s\netcd:   %s" % (" ".join(args), json.dumps(a), json.dumps(b)))
        return good, [r[1] for r in results]

    def remember(self, name, outs, extract):
        for side, out in zip((self.ours, self.theirs), outs):
            side.vars[name] = extract(out)


# ---- what is run ------------------------------------------------------------------------------------------


def test_keys(p):
    for i in range(1, 8):
        p.same("put key%d" % i, ["put", "key%d" % i, "value %d" % (9 - i)])
    p.same("put again", ["put", "key3", "second"])
    p.same("put --prev-kv", ["put", "key3", "third", "--prev-kv"])
    p.same("put --prev-kv of a new key", ["put", "fresh", "1", "--prev-kv"])
    p.same("put --ignore-value", ["put", "key3", "--ignore-value"])
    p.same("put --ignore-value of a missing key", ["put", "nothing", "--ignore-value"])
    p.same("put from standard input", ["put", "binary"], stdin=bytes(range(256)))
    p.same("put an empty value", ["put", "empty", ""])
    p.same("put, plain output", ["put", "key1", "value"], plain=True)
    p.same("get", ["get", "key1"])
    p.same("get, plain output", ["get", "key1"], plain=True)
    p.same("get binary", ["get", "binary"])
    p.same("get a missing key", ["get", "no such key"])
    p.same("get a range", ["get", "key2", "key5"])
    p.same("get a range that is backwards", ["get", "key5", "key2"])
    p.same("get --prefix", ["get", "key", "--prefix"])
    p.same("get --prefix of everything", ["get", "", "--prefix"])
    p.same("get --from-key", ["get", "key4", "--from-key"])
    p.same("get --limit", ["get", "key", "--prefix", "--limit", "2"])
    p.same("get --limit beyond", ["get", "key", "--prefix", "--limit", "100"])
    p.same("get --keys-only", ["get", "key", "--prefix", "--keys-only"])
    p.same("get --count-only", ["get", "key", "--prefix", "--count-only", "-w", "fields"], plain=False)
    p.same("get --print-value-only", ["get", "key1", "--print-value-only"], plain=True)
    p.same("get --rev", ["get", "key", "--prefix", "--rev", "5"])
    p.same("get --rev before a key", ["get", "key7", "--rev", "3"])
    p.same("get --rev in the future", ["get", "key1", "--rev", "100000"])
    p.same("get serializable", ["get", "key1", "--consistency", "s"])
    for by in ("CREATE", "KEY", "MODIFY", "VALUE", "VERSION"):
        for order in ("ASCEND", "DESCEND"):
            p.same("get --sort-by %s --order %s" % (by, order),
                   ["get", "key", "--prefix", "--sort-by", by, "--order", order, "--limit", "5"])
        p.same("get --sort-by %s" % by, ["get", "key", "--prefix", "--sort-by", by])


def test_deletes(p):
    p.same("del", ["del", "key7"])
    p.same("del a missing key", ["del", "key7"])
    p.same("del --prev-kv", ["del", "key6", "--prev-kv"])
    p.same("del a range --prev-kv", ["del", "key4", "key6", "--prev-kv"])
    p.same("del --prefix", ["del", "fre", "--prefix"])
    p.same("del --from-key", ["del", "zzz", "--from-key"])
    p.same("get of what was deleted, before", ["get", "key", "--prefix", "--rev", "9"])
    p.same("get after", ["get", "key", "--prefix"])
    p.same("put after a deletion", ["put", "key7", "again"])
    p.same("get after that", ["get", "key7"])


def txn(compares, then, otherwise):
    return "".join("".join(line + "\n" for line in part) + "\n" for part in (compares, then, otherwise)).encode()


def test_txns(p):
    p.same("txn that succeeds", ["txn"], txn(['value("key1") = "value"'], ["put key1 changed", "get key1", "del key2"],
                                             ["get key2"]))
    p.same("txn that fails", ["txn"], txn(['version("key1") = "100"'], ["put key1 x"], ["get key --prefix", "put other 1"]))
    p.same("txn of reads", ["txn"], txn(['mod("key1") > "2"', 'create("key1") != "0"'], ["get key1", "get key3"], []))
    p.same("txn without a compare", ["txn"], txn([], ["put t1 1", "put t2 2", "get t --prefix", "del nothing"], []))
    p.same("txn of no change", ["txn"], txn([], ["del nothing"], []))
    p.same("txn that puts a key twice", ["txn"], txn([], ["put t1 1", "put t1 2"], []))
    p.same("txn that deletes what it puts", ["txn"], txn([], ["put t1 1", "del t --prefix"], []))
    p.same("txn on a missing key", ["txn"], txn(['value("missing") = "x"'], ["put a 1"], ["get key1"]))
    p.same("txn with too many operations", ["txn"], txn([], ["put many%d x" % i for i in range(129)], []))
    p.same("txn with 128 operations", ["txn"], txn([], ["put many%d x" % i for i in range(128)], []))
    p.same("get after txns", ["get", "", "--prefix"])


def lease_id(out):
    return "%x" % json.loads(out)["ID"]


def test_leases(p):
    good, outs = p.same("lease grant", ["lease", "grant", "100"])
    p.remember("lease", outs, lease_id)
    good, outs = p.same("lease grant of a short time", ["lease", "grant", "1"])
    p.same("lease grant of too long a time", ["lease", "grant", "9000000001"])
    p.same("put --lease", ["put", "leased1", "1", "--lease", "{lease}"])
    p.same("put --lease", ["put", "leased2", "2", "--lease", "{lease}"])
    p.same("put --lease that is not there", ["put", "leased3", "3", "--lease", "1234"])
    p.same("put --ignore-lease", ["put", "leased2", "4", "--ignore-lease"])
    p.same("get of leased keys", ["get", "leased", "--prefix"])
    p.same("lease timetolive", ["lease", "timetolive", "{lease}"])
    p.same("lease timetolive --keys", ["lease", "timetolive", "{lease}", "--keys"])
    p.same("lease timetolive of none", ["lease", "timetolive", "1234"])
    p.same("lease keep-alive --once", ["lease", "keep-alive", "{lease}", "--once"])
    p.same("lease keep-alive --once of none", ["lease", "keep-alive", "1234", "--once"])
    counts = []
    for side in (p.ours, p.theirs):
        code, out, err = side.run(["lease", "list", "-w", "json"])
        listed = ["%x" % l.get("ID", l.get("id", 0)) for l in json.loads(out).get("leases", [])] if code == 0 else []
        counts.append(side.vars["lease"] in listed)
    ok(counts == [True, True], p.label + ": lease list", counts)
    p.same("lease revoke", ["lease", "revoke", "{lease}"])
    p.same("lease revoke again", ["lease", "revoke", "{lease}"])
    p.same("get after the revocation", ["get", "leased", "--prefix"])
    good, outs = p.same("lease grant", ["lease", "grant", "2"])
    p.remember("short", outs, lease_id)
    p.same("put --lease that will expire", ["put", "expires", "1", "--lease", "{short}"])
    for side in (p.ours, p.theirs):
        wait_for("expiry", lambda: b'"count"' not in side.run(["get", "expires", "-w", "json"])[1])
    p.same("get after the expiry", ["get", "expires"])


class Watching:
    """`etcdctl watch` on both sides at once."""

    def __init__(self, pair, name, args):
        self.pair = pair
        self.name = name
        self.outputs = []
        self.processes = []
        for side in (pair.ours, pair.theirs):
            before = self.watchers(side)
            out = tempfile.NamedTemporaryFile()
            self.outputs.append(out)
            self.processes.append(subprocess.Popen(side.command(["watch"] + args + ["-w", "json"]), stdout=out,
                                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=ENV))
            if "--rev" not in args:
                wait_for("watcher", lambda: self.watchers(side) > before)

    @staticmethod
    def watchers(side):
        return sum(metric(url, "etcd_debugging_mvcc_watcher_total") or 0 for url in side.urls)

    def events(self, which):
        self.outputs[which].seek(0)
        events = []
        for line in self.outputs[which].read().decode(errors="replace").splitlines():
            try:
                answer = json.loads(line)
            except ValueError:
                events.append(line)  # what it says when it ends
                continue
            if answer.get("CompactRevision"):
                events.append("compacted at %d" % answer["CompactRevision"])
            for e in answer.get("Events") or []:
                events.append(json.dumps(mask(e, self.pair.lease_ids[which]), sort_keys=True))
        return events

    def compare(self, count):
        try:
            wait_for("%d events" % count, lambda: all(len(self.events(i)) >= count for i in (0, 1)))
        except TimeoutError:
            pass
        for p in self.processes:
            p.terminate()
            p.wait()
        a, b = self.events(0), self.events(1)
        ok(a == b and len(a) == count, "%s: %s" % (self.pair.label, self.name),
           "wanted %d events\npintle (%d):\n%s\netcd (%d):\n%s" % (count, len(a), "\n".join(a), len(b), "\n".join(b)))


def test_watches(p):
    live = [
        (Watching(p, "watch a key", ["w1"]), 3),
        (Watching(p, "watch --prefix --prev-kv", ["w", "--prefix", "--prev-kv"]), 6),
        (Watching(p, "watch a range", ["w1", "w3"]), 4),
        (Watching(p, "watch to the end of a range", ["w3", "x"]), 2),
    ]
    for args in (["put", "w1", "1"], ["put", "w2", "1"], ["put", "w1", "2"], ["del", "w1"], ["put", "w3", "x"]):
        p.same(" ".join(args), args)
    p.same("txn of two watched keys", ["txn"], txn([], ["put w4 1", "put unwatched 2"], []))
    for w, count in live:
        w.compare(count)
    good, outs = p.same("get the revision", ["get", "w1"])
    p.remember("rev", outs, lambda out: str(json.loads(out)["header"]["revision"] - 5))
    Watching(p, "watch --rev in the past", ["", "--prefix", "--rev", "{rev}"]).compare(7)
    Watching(p, "watch --rev --prev-kv", ["w1", "--rev", "{rev}", "--prev-kv"]).compare(3)


def test_compaction(p):
    good, outs = p.same("get the revision", ["get", "w1"])
    p.remember("now", outs, lambda out: str(json.loads(out)["header"]["revision"]))
    p.remember("past", outs, lambda out: str(json.loads(out)["header"]["revision"] - 4))
    p.same("compaction", ["compaction", "{past}"], plain=True)
    p.same("compaction again", ["compaction", "{past}"], plain=True)
    p.same("compaction of the future", ["compaction", "100000"], plain=True)
    p.same("get --rev that was compacted", ["get", "w1", "--rev", "3"])
    p.same("get --rev at the compaction", ["get", "", "--prefix", "--rev", "{past}"])
    Watching(p, "watch --rev that was compacted", ["w1", "--rev", "3"]).compare(3)
    Watching(p, "watch --rev after the compaction", ["", "--prefix", "--rev", "{now}"]).compare(2)
    p.same("compaction --physical", ["compaction", "--physical", "{now}"], plain=True)
    p.same("get after it", ["get", "", "--prefix"])


def in_step(side):
    """Waits until every member has what was acknowledged; returns the revision."""
    revision = json.loads(side.run(["get", "w1", "-w", "json"])[1])["header"]["revision"]
    for url in side.urls:
        wait_for("revision %d at %s" % (revision, url), lambda: json.loads(subprocess.run(
            [side.etcdctl, "--endpoints", url, "get", "w1", "--consistency", "s", "-w", "json"], capture_output=True, env=ENV,
            timeout=20).stdout)["header"]["revision"] >= revision)
    return revision


def test_hashes(p):
    """Before the leases, whose ids are in the hash and not the same."""
    hashes = []
    for side in (p.ours, p.theirs):
        found = set()
        in_step(side)
        for url in side.urls:
            out = subprocess.run([side.etcdctl, "--endpoints", url, "endpoint", "hashkv", "-w", "json"], capture_output=True,
                                 env=ENV, timeout=20)
            try:
                h = json.loads(out.stdout)[0]["HashKV"]
                found.add((h["hash"], h["compact_revision"]))
            except (ValueError, KeyError, IndexError):
                found.add(out.stderr.decode(errors="replace"))
        hashes.append(found)
    ok(len(hashes[0]) == 1 and not isinstance(next(iter(hashes[0])), str), p.label + ": endpoint hashkv agrees between members",
       hashes)
    ok(hashes[0] == hashes[1], p.label + ": endpoint hashkv agrees with etcd", hashes)


def test_maintenance(p):
    code, out, err = p.ours.run(["endpoint", "health"])
    ok(code == 0 and b"is healthy" in out + err, p.label + ": endpoint health", out + err)
    code, out, err = p.ours.run(["endpoint", "status", "-w", "json"])
    good = code == 0
    if good:
        status = json.loads(out)[0]["Status"]
        good = status["version"].startswith("3.5") and status["leader"] and status["raftIndex"] >= status["raftAppliedIndex"]
    ok(good, p.label + ": endpoint status", out + err)
    code, out, err = p.ours.run(["member", "list", "-w", "json"])
    names = sorted(m["name"] for m in json.loads(out)["members"]) if code == 0 else []
    ok(names == ["n1", "n2", "n3"], p.label + ": member list", out + err)
    p.same("alarm list", ["alarm", "list"], plain=True)
    p.same("alarm disarm", ["alarm", "disarm"], plain=True)
    code, out, err = p.ours.run(["defrag"])
    ok(code == 0, p.label + ": defrag", err)


def leader_of(side):
    """(url of the leader, ids of the others)"""
    statuses = {}
    for url in side.urls:
        out = subprocess.run([side.etcdctl, "--endpoints", url, "endpoint", "status", "-w", "json"], capture_output=True, env=ENV,
                             timeout=20).stdout
        try:
            statuses[url] = json.loads(out)[0]["Status"]
        except (ValueError, IndexError):
            return None
    for url, s in statuses.items():
        if s["leader"] == s["header"]["member_id"]:
            return url, [o["header"]["member_id"] for o in statuses.values() if o["header"]["member_id"] != s["leader"]]
    return None


def test_move_leader(p):
    url, others = wait_for("leader", lambda: leader_of(p.ours))
    run = lambda u, target: subprocess.run([p.ours.etcdctl, "--endpoints", u, "move-leader", target], capture_output=True,
                                           env=ENV, timeout=20)
    follower = next(u for u in p.ours.urls if u != url)
    out = run(",".join(p.ours.urls), "%x" % others[0])
    ok(out.returncode == 0, p.label + ": move-leader", out.stdout + out.stderr)
    moved = wait_for("new leader", lambda: leader_of(p.ours))
    ok(moved and moved[0] != url, p.label + ": another member leads", moved)
    out = run(",".join(p.ours.urls), "1234")
    ok(out.returncode != 0 and b"bad leader transferee" in out.stderr, p.label + ": move-leader to nobody", out.stderr)
    out = run(next(u for u in p.ours.urls if u != wait_for("leader", lambda: leader_of(p.ours))[0]), "%x" % others[0])
    ok(out.returncode != 0 and b"no leader endpoint" in out.stderr, p.label + ": move-leader at a follower", out.stderr)
    p.same("put after the move", ["put", "moved", "1"])
    del follower


def test_snapshot(p, folder):
    path = os.path.join(folder, "snapshot-" + p.label.replace(" ", "-"))
    revision = in_step(p.ours)
    code, out, err = p.ours.run(["snapshot", "save", path], timeout=60)
    good = code == 0 and os.path.exists(path)
    ok(good, p.label + ": snapshot save", out + err)
    if not good:
        return
    data = open(path, "rb").read()
    ok(hashlib.sha256(data[:-32]).digest() == data[-32:], p.label + ": the snapshot ends with its SHA-256")
    ok(len(data) % 512 == 32, p.label + ": its size says that a checksum is there", len(data))
    run = subprocess.run([PINTLE, "ctl", "snapshot", "status", path, "-w", "json"], capture_output=True, timeout=60)
    try:
        status = json.loads(run.stdout)
    except ValueError:
        status = {}
    ok(status.get("revision") == revision, p.label + ": snapshot status", run.stdout + run.stderr)
    with open(path, "r+b") as f:
        f.seek(len(data) // 2)
        f.write(bytes([data[len(data) // 2] ^ 1]))
    run = subprocess.run([PINTLE, "ctl", "snapshot", "status", path], capture_output=True, timeout=60)
    ok(run.returncode != 0 and b"damaged" in run.stderr, p.label + ": a damaged snapshot is refused", run.stdout + run.stderr)


def test_check_perf(p):
    if os.environ.get("PINTLE_LONG") != "1":
        skip(p.label + ": check perf", "takes a minute; PINTLE_LONG=1 runs it")
        return
    code, out, err = p.ours.run(["check", "perf", "--load", "s"], timeout=150)
    ok(code == 0 and b"PASS" in out, p.label + ": check perf", out[-2000:] + err[-500:])


def test_large(p):
    """Values and lists that need many frames, and what is too large."""
    p.same("put 1 MiB", ["put", "large"], stdin=b"x" * (1 << 20))
    p.same("get 1 MiB", ["get", "large"])
    p.same("put more than is allowed", ["put", "too large"], stdin=b"x" * (1600 * 1024))
    p.same("put more than a message may have", ["put", "too large"], stdin=b"x" * (3 << 20))
    lines = ["put list/%05d %s" % (i, "v" * 300) for i in range(3000)]
    for side in (p.ours, p.theirs):
        for i in range(0, len(lines), 100):
            side.run(["txn"], txn([], lines[i:i + 100], []))
    p.same("get 3,000 keys", ["get", "list/", "--prefix"])
    p.same("get 3,000 keys, descending", ["get", "list/", "--prefix", "--order", "DESCEND", "--sort-by", "KEY"])
    p.same("del 3,000 keys", ["del", "list/", "--prefix", "--prev-kv"])


def test_plain_http(urls, theirs):
    for path in ("/health", "/nothing"):
        pages = []
        for base in (urls[0], theirs[0]):
            try:
                with urllib.request.urlopen(base + path, timeout=5) as r:
                    pages.append((r.status, r.read().decode().strip()))
            except urllib.error.HTTPError as e:
                pages.append((e.code, ""))
        first, second = pages
        if path == "/health":  # 3.4 has no reason
            first, second = ((s, json.loads(t)["health"]) for s, t in pages)
        ok(first == second, "plain HTTP " + path, pages)
    ok(json.loads(fetch(urls[0] + "/version"))["etcdcluster"].startswith("3.5"), "plain HTTP /version")


def run_all(label, etcdctl, etcd, folder, base):
    servers = Servers(folder)
    try:
        urls = start_pintle(servers, base)
        theirs = start_etcd(servers, etcd, base + 8, "etcd")
        p = Pair(label, Side(etcdctl, urls), Side(etcdctl, theirs))
        test_keys(p)
        test_deletes(p)
        test_txns(p)
        test_watches(p)
        test_compaction(p)
        test_hashes(p)
        test_leases(p)
        test_large(p)
        test_maintenance(p)
        test_move_leader(p)
        test_snapshot(p, folder)
        test_check_perf(p)
        test_plain_http(urls, theirs)
    except Exception as e:  # whatever happened, say it as a failure and stop the servers
        ok(False, label + ": " + type(e).__name__, e)
        for name in ("n1", "n2", "n3", "etcd"):
            path = os.path.join(folder, name + ".log")
            if os.path.exists(path):
                for line in open(path, errors="replace").read().splitlines()[-10:]:
                    print("#", name + ":", line)
    finally:
        servers.stop()


def versions():
    """(etcdctl, etcd) pairs: Debian's, and newer ones."""
    found = []
    if shutil.which("etcdctl") and shutil.which("etcd"):
        found.append((shutil.which("etcdctl"), shutil.which("etcd")))
    peers = os.environ.get("PINTLE_PEERS")
    if peers:
        for ctl in sorted(glob.glob(os.path.join(peers, "**", "etcdctl"), recursive=True)):
            etcd = os.path.join(os.path.dirname(ctl), "etcd")
            if os.path.exists(etcd):
                found.append((ctl, etcd))
    return found


def main():
    pairs = versions()
    if not pairs:
        print("1..0 # SKIP no etcd and etcdctl here")
        return 0
    if not os.path.exists(PINTLE):
        print("Bail out! no binary at " + PINTLE)
        return 1
    for i, (etcdctl, etcd) in enumerate(pairs):
        text = subprocess.run([etcdctl, "version"], capture_output=True, env=ENV).stdout.decode()
        label = "etcdctl " + text.split()[2]
        with tempfile.TemporaryDirectory(prefix="pintle-etcdctl-") as folder:
            run_all(label, etcdctl, etcd, folder, PORT + 12 * i)
    print("1..%d" % tests)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
