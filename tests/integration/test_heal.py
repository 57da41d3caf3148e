#!/usr/bin/env python3
"""One of three members finds its files damaged, old or gone, sets them aside, and heals from the others while these take writes;
every kind of file. What was acknowledged is there afterwards, on every member.

PINTLE_LONG=1 (make faults) tries more places in each; SEED=n chooses others."""
import os, random, re, shutil, signal, subprocess, sys, threading, time, urllib.error, urllib.request
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *

LONG = os.environ.get("PINTLE_LONG") == "1"
random.seed(int(os.environ.get("SEED", "1")))
note(f"seed {os.environ.get('SEED', '1')}")


class Writer(threading.Thread):
    """Writes numbered keys through the members that are left, and remembers what was acknowledged."""

    def __init__(self, cluster, which):
        super().__init__(daemon=True)
        self.urls = [cluster.urls[i] for i in which]
        self.cluster, self.done, self.acked = cluster, False, []
        self.start()

    def run(self):
        n = 0
        while not self.done:
            n += 1
            key = f"load/{id(self):x}/{n}"
            if self.cluster.ctl("put", key, str(n), endpoints=self.urls).returncode == 0:
                self.acked.append(key)

    def stop(self):
        self.done = True
        self.join()
        return self.acked


def metric(c, i, name):
    text = urllib.request.urlopen(c.urls[i] + "/metrics", timeout=10).read().decode()
    m = re.search(rf"^{name} (\d+)", text, re.M)
    return int(m[1]) if m else None


def files(folder):
    out = []
    for path, _, names in os.walk(folder):
        out += [os.path.join(path, n) for n in names if n != "lock" and "/damaged" not in path]
    return sorted(out)


def written(path):
    """How much of the file is not zeros that were written before anything else."""
    data = open(path, "rb").read()
    return len(data.rstrip(b"\0"))


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        b = f.read(1)[0]
        f.seek(at)
        f.write(bytes([b ^ 1 << random.randrange(8)]))


def same(c):
    h = c.hashes()
    return len(h) == c.n and len({x[0] for x in h}) == 1 and len({x[1] for x in h}) == 1


def whole_again(c, i, acked, what):
    """It is back, serves, and holds all that was acknowledged."""
    try:
        wait_for("healing", lambda: c.healthy(i), 60)
        wait_for("equal states", lambda: same(c), 60)
        missing = [k for k in acked if c.ctl("get", k, "--print-value-only", endpoints=[c.urls[i]]).stdout.strip() != k.split("/")[-1]]
        return ok(not missing, f"{what}: nothing acknowledged is missing", missing[:5])
    except AssertionError as e:
        return ok(False, what, f"{e}\n{open(c.log(i)).read()[-3000:]}")


def new_cluster(*flags):
    c = Cluster(3, flags=["--snapshot-log-bytes", "60000", "--wal-segment-bytes", "65536", *flags]).start().wait_healthy()
    for n in range(40):
        c.ctl("put", f"first/{n}", "x" * 3000)
    return c


def damage_and_start(c, i, damage, acked, what):
    c.procs[i].terminate()
    c.procs[i].wait(30)
    damage()
    load = Writer(c, [j for j in range(3) if j != i])
    c.start(i)
    try:
        wait_for("healing", lambda: c.healthy(i), 60)
    finally:
        acked += load.stop()
    return whole_again(c, i, acked[-20:], what)


def kind_of(c, i, path):
    return re.sub(r"[0-9a-f]{8,}", "N", os.path.relpath(path, c.data(i)))


def damage_one(c, i, kind, part):
    """One bit of one file of that kind: of the newest snapshot, for the older one is not needed; in wal/mark of both its copies, or, at its
    beginning, of one. Which file and where, or None when there is none."""
    of_kind = [f for f in files(c.data(i)) if kind_of(c, i, f) == kind and written(f)]
    if not of_kind:
        return None
    path = of_kind[-1] if kind.startswith("snap/") else random.choice(of_kind)
    at = int((written(path) - 1) * part)
    places = [at]
    if kind == "wal/mark" and part:
        copy = os.path.getsize(path) // 2
        places = [n * copy + at % copy for n in range(2)]
    for at in places:
        flip(path, at)
    return f"{os.path.relpath(path, c.data(i))} offset {places}"


def noticed(c, i):
    """How often it has said so: set aside and healed, or mended from what it has twice (a second copy; the snapshot before, and the log)."""
    return len(re.findall("damage found at start|healed member|written again from the other|the one before it and the log have it all", open(c.log(i)).read()))


MUST_BE_NOTICED = {"wal/N.wal", "wal/mark", "snap/N-N.snap"}


def test_every_file():
    c = new_cluster()
    acked, found = [], {}
    kinds = sorted({kind_of(c, 0, path) for path in files(c.data(0))})
    note("kinds of files: " + " ".join(kinds))
    for kind in kinds:
        for part in ([0.0, 0.02, 0.3, 0.6, 0.999] if LONG else [0.0, 0.5]):
            i = random.randrange(3)
            before, where = noticed(c, i), None

            def damage():
                nonlocal where
                where = damage_one(c, i, kind, part)
            if not damage_and_start(c, i, damage, acked, f"{kind} at {part:.0%}"):
                note(f"n{i + 1}: {where}")
                return
            if noticed(c, i) > before:
                found.setdefault(kind, []).append(where)
    ok(MUST_BE_NOTICED <= set(found), "damage to the log, its mark and the newest snapshot each was named and healed", found)
    note("named and healed: " + ", ".join(f"{kind} {len(found[kind])}" for kind in sorted(found)))
    c.stop()


def test_stopped_meanwhile():
    """Told to stop as it is about to start itself again: it does not come back until somebody starts it."""
    c = new_cluster("--scrub-interval", "100ms")
    i = random.randrange(3)
    path = [f for f in files(c.data(i)) if f.endswith(".snap")][-1]
    flip(path, written(path) // 2)
    log = open(c.log(i))
    deadline = time.monotonic() + 60
    while "starting again in" not in log.read() and time.monotonic() < deadline:
        time.sleep(0.002)
    c.procs[i].terminate()
    try:
        code = c.procs[i].wait(60)
    except subprocess.TimeoutExpired:
        code = None
    log.seek(0)
    ok("starting again in" in log.read() and code in (0, -signal.SIGTERM), "told to stop while it pauses before its new start: it ends", code)
    if code is None:
        c.kill(i)
    c.start(i)
    whole_again(c, i, [], "started later: it heals")
    c.stop()


def test_old_and_lost():
    c = new_cluster()
    acked = []
    c.procs[1].terminate()
    c.procs[1].wait(30)
    old = os.path.join(c.dir, "old")
    shutil.copytree(c.data(1), old)
    c.start(1)
    c.wait_healthy()
    load = Writer(c, [0, 1, 2])
    wait_for("some writes", lambda: len(load.acked) > 20)
    acked += load.stop()

    def put_back():
        shutil.rmtree(c.data(1))
        shutil.copytree(old, c.data(1))
    damage_and_start(c, 1, put_back, acked, "an old copy of the folder")
    log = open(c.log(1)).read()
    ok("not what this member left" in log and "healed member" in log, "... is recognised, and not believed", log[-2000:])
    ok(os.listdir(os.path.join(c.data(1), "damaged")), "... and set aside")
    damage_and_start(c, 2, lambda: shutil.rmtree(c.data(2)), acked, "a lost folder")
    log = open(c.log(2)).read()
    ok("not what this member left" in log and "healed member" in log, "... is recognised, and filled by the others", log[-2000:])
    c.stop()


def test_metric():
    c = new_cluster()
    acked = []

    def damage():
        f = [f for f in files(c.data(2)) if f.endswith(".wal") and written(f) > 1000][0]
        flip(f, written(f) // 2)
    damage_and_start(c, 2, damage, acked, "a damaged log")
    ok(metric(c, 2, "pintle_healed_total") == 1, "the metric counts it", metric(c, 2, "pintle_healed_total"))
    ok(metric(c, 2, "pintle_healing") == 0, "... and says that it is over")
    # one that is damaged while another is down: nothing is served rather than without what was acknowledged
    c.kill(0)
    c.procs[1].terminate()
    c.procs[1].wait(30)
    f = [f for f in files(c.data(1)) if f.endswith(".wal") and written(f) > 1000][0]
    flip(f, written(f) // 2)
    c.start(1)
    wait_for("the healing member", lambda: metric(c, 1, "pintle_healing") == 1)
    out = c.ctl("put", "a", "b", endpoints=[c.urls[2]], timeout=60)
    ok(out.returncode != 0, "two of three, one of them damaged: no write is taken", out.stdout)
    out = c.ctl("get", "first/1", "--consistency", "s", endpoints=[c.urls[1]])
    ok(out.returncode != 0 and "heals" in out.stderr, "... and the healing one serves nothing", out.stdout + out.stderr)
    c.start(0)
    whole_again(c, 1, acked[-20:], "the third comes back")
    c.stop()


def etcdctl(*args):
    return run(ETCDCTL or PINTLE, *([] if ETCDCTL else ["ctl"]), *args)


def alarms(c, i):
    return [a.strip() for a in etcdctl("alarm", "list", "--endpoints", c.urls[i]).stdout.split("\n")[:-1]]


def http(c, i, path):
    try:
        return urllib.request.urlopen(c.urls[i] + path, timeout=10).status
    except urllib.error.HTTPError as e:
        return e.code


def test_alarm():
    """Of five, one has lost its folder and waits for the word of another that is down: it heals as long as that takes, and the three that
    are left serve."""
    c = Cluster(5).start().wait_healthy()
    id = c.status([c.urls[3]])[0]["header"]["member_id"]
    c.kill(4, signal.SIGTERM)
    c.kill(3, signal.SIGTERM)
    shutil.rmtree(c.data(3))
    c.start(3)
    named = [f"memberID:{id} alarm:CORRUPT"]
    said = wait_for("the alarm", lambda: (all_say := [alarms(c, i) for i in range(4)]) == [named] * 4 and all_say)
    ok(True, "alarm list of each member that runs, itself included, names the one that heals", said)
    wait_for("a write", lambda: etcdctl("put", "a", "b", "--endpoints", c.urls[0]).returncode == 0)
    ok(True, "... and writes are taken")
    errors = [c.status([c.urls[i]])[0].get("errors") for i in (0, 3)]
    ok(all(f"memberID:{id} alarm:CORRUPT " in (e or []) for e in errors), "... endpoint status shows it", errors)
    wait_for("health", lambda: [http(c, i, "/health") for i in range(4)] == [200, 200, 200, 503])
    ok(True, "... the others are healthy, it is not")
    text = urllib.request.urlopen(c.urls[1] + "/metrics", timeout=10).read().decode()
    ok(f'pintle_alarms{{server_id="{id:x}",alarm="CORRUPT"}} 1' in text and metric(c, 1, "pintle_healing") == 0, "... their metrics name it", text)
    for out in etcdctl("alarm", "disarm", "--endpoints", c.urls[0]), c.ctl("alarm", "disarm", endpoints=[c.urls[0]]):
        ok(out.returncode == 0 and not out.stdout and alarms(c, 0) == named, "alarm disarm clears nothing", out.stdout + out.stderr)
    c.kill(0, signal.SIGTERM)
    c.start(0)
    ok(wait_for("the alarm", lambda: alarms(c, 0)) == named, "a member that starts is told")
    c.start(4)
    wait_for("the end of the alarm", lambda: not any(alarms(c, i) for i in range(5)) and c.healthy(), 60)
    ok(True, "it is gone everywhere when the member is whole")
    log = open(c.log(1)).read()
    ok(f"another member heals: it has set log and snapshots aside member={id:x}" in log and f"another member is whole again member={id:x}" in log,
       "the others' logs tell it", log[-2000:])

    def restart():
        c.kill(3, signal.SIGTERM)
        c.start(3).wait_healthy(3)
        return metric(c, 3, "pintle_set_aside_files")
    n = restart()
    log = open(c.log(3)).read()
    ok(n > 0 and re.search(rf"damaged/ holds {n} files that were set aside .*not what this member left", log), "what was set aside is told by later starts", n)
    shutil.rmtree(os.path.join(c.data(3), "damaged"))
    ok(restart() == 0, "... until it is removed")
    c.stop()


main(test_every_file, test_stopped_meanwhile, test_old_and_lost, test_metric, test_alarm)
