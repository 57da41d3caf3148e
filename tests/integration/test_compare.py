#!/usr/bin/env python3
"""Members compare their states: a bit that flips in the memory of a running member is found, the member is named, stops serving, and
heals from the others by itself. Without a majority nobody changes anything until a third member decides."""
import json, os, re, sys, urllib.error, urllib.request
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *

TMP = temp_dir()
TOKEN = os.path.join(TMP, "tokens")
GOOD, BAD = "value-that-will-rot-0123456789", "Value-that-will-rot-0123456789"


class Members(Cluster):
    """With the Kubernetes port. `period`: of the checks, which else come after a compaction only."""

    def __init__(self, name, period):
        os.makedirs(os.path.join(TMP, name))
        super().__init__(3, dir=os.path.join(TMP, name), ports=free_ports(9),
                         flags=["--corrupt-check-time", period, "--experimental-compact-hash-check-time", "500ms",
                                "--auto-compaction-retention", "0"])

    def command(self, i):
        return super().command(i) + ["--kube-listen", f"http://127.0.0.1:{self.ports[6 + i]}", "--kube-token-file", TOKEN]

    def kube(self, i, path):
        r = urllib.request.Request(f"http://127.0.0.1:{self.ports[6 + i]}{path}", headers={"Authorization": "Bearer secret"})
        try:
            return urllib.request.urlopen(r, timeout=10).status, ""
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def metric(self, i, name):
        text = urllib.request.urlopen(self.urls[i] + "/metrics", timeout=10).read().decode()
        return sum(float(v) for v in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))

    def id(self, i):
        return self.status([self.urls[i]])[0]["header"]["member_id"]

    def get(self, i, *flags):
        return self.ctl("get", "/rot", "--print-value-only", *flags, endpoints=[self.urls[i]])

    def check(self, i):
        """Asks for one, and waits until the member has begun it."""
        before = self.metric(i, "pintle_state_checks_total")
        out = wait_for("a write", lambda: (o := self.ctl("put", "/any", "x", "-w", "json", endpoints=[self.urls[i]])).returncode == 0 and o)
        rev = json.loads(out.stdout)["header"]["revision"]
        wait_for("a compaction", lambda: self.ctl("compaction", rev, endpoints=[self.urls[i]]).returncode == 0)
        wait_for("a check", lambda: self.metric(i, "pintle_state_checks_total") > before)

    def alarms(self, i):
        out = run(ETCDCTL or PINTLE, *([] if ETCDCTL else ["ctl"]), "alarm", "list", "--endpoints", self.urls[i])
        return [a.strip() for a in out.stdout.split("\n")[:-1]]


def writable(pid):
    """Pieces of its memory, overlapping; not what a sanitizer keeps beside it."""
    for line in open(f"/proc/{pid}/maps"):
        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
        first, last = (int(m[1], 16), int(m[2], 16)) if m else (0, 0)
        if last - first < 1 << 31:
            yield from ((at, min(last - at, (1 << 20) + 100)) for at in range(first, last, 1 << 20))


def flip(pid, key, value):
    """Where memory has the key right before the value, a record of the store lies: turns the value's first letter into a capital."""
    wanted, n = (key + value).encode(), 0
    with open(f"/proc/{pid}/mem", "r+b", 0) as mem:
        for first, size in writable(pid):
            try:
                mem.seek(first)
                at = mem.read(size).find(wanted)
            except (OSError, OverflowError, ValueError):
                continue
            if at >= 0:
                mem.seek(first + at + len(key))
                mem.write(bytes([wanted[len(key)] ^ 0x20]))
                n += 1
    return n


def can_flip():
    try:
        open(f"/proc/{os.getpid()}/mem", "r+b").close()
        return os.geteuid() == 0 or open("/proc/sys/kernel/yama/ptrace_scope").read().strip() == "0"
    except OSError:
        return False


def name_and_heal(c, victim):
    others = [i for i in range(3) if i != victim]
    id = c.id(victim)
    before = c.metric(others[0], "pintle_state_mismatches_total")
    lives = lambda: open(c.log(victim)).read().count(" serving name=")
    life = lives()
    damaged = flip(c.procs[victim].pid, "/rot", GOOD)
    ok(damaged > 0 and c.get(victim, "--consistency", "s").stdout == BAD + "\n", "a bit of a value is flipped in the memory of a running member")
    c.check(others[0])
    alarms = wait_for("the alarm", lambda: c.alarms(others[0]))
    ok(alarms == [f"memberID:{id} alarm:CORRUPT"], "the alarm names the member", (alarms, id))
    wait_for("its new start", lambda: lives() > life and c.metric(victim, "pintle_state_refused") == 1)
    wait_for("its state", lambda: c.metric(victim, "pintle_healing") == 0) # until then it is healing, and says that
    out = c.get(victim, "--consistency", "s")
    ok(out.returncode != 0 and "corrupt cluster" in out.stderr, "it refuses reads, serializable ones too", out.stdout + out.stderr)
    out = c.ctl("put", "/x", "y", endpoints=[c.urls[victim]])
    ok(out.returncode != 0 and "corrupt cluster" in out.stderr, "... and writes", out.stdout + out.stderr)
    out = c.ctl("watch", "/rot", endpoints=[c.urls[victim]])
    ok(out.returncode != 0 and "corrupt cluster" in out.stderr, "... and watches", out.stdout + out.stderr)
    status, text = c.kube(victim, "/api/v1/namespaces")
    ok(status == 503 and "differ" in text, "... and the Kubernetes API", (status, text))
    ok(c.kube(victim, "/readyz")[0] == 500, "... and is not ready")
    ok(c.alarms(victim) == alarms, "... but tells why", c.alarms(victim))
    ok(c.ctl("endpoint", "health", endpoints=[c.urls[victim]]).returncode != 0, "endpoint health finds it unhealthy")
    ok(c.ctl("put", "/x", "y", endpoints=[c.urls[i] for i in others]).returncode == 0, "the others take writes")
    ok(c.metric(others[0], "pintle_state_mismatches_total") == before + 1 and c.metric(others[0], "pintle_alarms") == 1,
       "the others' metrics show it")
    c.check(others[0])
    wait_for("the end of the alarm", lambda: not c.alarms(others[0]), 60)
    wait_for("its serving again", lambda: c.get(victim).returncode == 0)
    ok(c.get(victim).stdout == GOOD + "\n", "healed from the others, it serves the right value again")
    ok(c.kube(victim, "/api/v1/namespaces")[0] == 200, "... and the Kubernetes API")
    log = open(c.log(victim)).read()
    ok(f"state differs from the majority's member={int(id):x}" in log and "agrees with the others again" in log, "its log tells it", log[-3000:])
    return id


def test_named_and_healed():
    c = Members("a", "1h") # nothing but what the test asks for
    c.start().wait_healthy()
    c.ctl("put", "/rot", GOOD)
    c.ctl("lease", "grant", "600")
    c.check(0)
    ok(not c.alarms(0), "members that agree raise no alarm")
    leader = wait_for("a leader", lambda: c.leader() is not None and [c.leader()])[0]
    name_and_heal(c, (leader + 1) % 3)
    leader = wait_for("a leader", lambda: c.leader() is not None and [c.leader()])[0]
    note("now the leader")
    name_and_heal(c, leader)
    wait_for("equal hashes", lambda: len(set(c.hashes())) == 1)
    ok(True, "all members agree")
    c.stop()


def test_no_majority():
    c = Members("b", "10s")
    c.start().wait_healthy()
    c.ctl("put", "/rot", GOOD)
    wait_for("the first check", lambda: all(c.metric(i, "pintle_state_checks_total") for i in range(3)))
    leader = wait_for("a leader", lambda: c.leader() is not None and [c.leader()])[0]
    away, victim = (leader + 1) % 3, (leader + 2) % 3
    id = c.id(victim)
    c.kill(away, signal.SIGTERM)
    flip(c.procs[victim].pid, "/rot", GOOD)
    c.check(leader)
    alarms = wait_for("the alarm", lambda: c.alarms(leader), 60)
    ok(alarms in (["alarm:CORRUPT"], ["memberID:0 alarm:CORRUPT"]), "two that differ while the third is away: the alarm names nobody", alarms)
    for i in leader, victim:
        out = c.ctl("put", "/rot", "z", endpoints=[c.urls[i]])
        ok(out.returncode != 0 and "corrupt cluster" in out.stderr, "writes are refused", out.stdout + out.stderr)
    ok(c.get(leader).stdout == GOOD + "\n", "reads are not")
    for program in [[PINTLE, "ctl"]] + ([[ETCDCTL]] if ETCDCTL else []):
        out = run(*program, "alarm", "disarm", "--endpoints", c.urls[leader])
        ok(out.returncode == 0 and "CORRUPT" in out.stdout and c.ctl("put", "/any", "z", endpoints=[c.urls[leader]]).returncode == 0,
           "the alarm can be disarmed", out.stdout + out.stderr)
        ok(wait_for("the alarm", lambda: c.alarms(leader), 60) == alarms, "... and comes again")
    c.start(away)
    wait_for("the end of the alarm", lambda: not c.alarms(leader), 90)
    wait_for("healing", lambda: c.get(victim).stdout == GOOD + "\n", 60)
    ok(c.ctl("put", "/rot", "z").returncode == 0, "the third member decides, the wrong one heals, and writes go on")
    log = open(c.log(away)).read()
    ok(f"state differs from the majority's member={int(id):x}" in log, "the wrong one was named", log[-3000:])
    c.stop()


open(TOKEN, "w").write('secret,admin,1,"system:masters"\n')
if can_flip():
    main(test_named_and_healed, test_no_majority)
else:
    skip("memory of a running member is damaged", "/proc/PID/mem cannot be written here")
    finish()
