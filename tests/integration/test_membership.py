#!/usr/bin/env python3
"""Members that come, go and move while clients write: real processes, changed by `pintle ctl member`, and once by etcdctl. What a client was told to be written is on
every member at the end; no write fails but through a change of leader."""
import json, os, re, shutil, signal, sys, threading, time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *
from wire import Kv

FLAGS = ["--snapshot-log-bytes", "60000", "--wal-segment-bytes", "65536", "--log-level", "info"]


class Town:
    """Members by name; each has its ports as long as the town stands."""

    def __init__(self, count=1, most=8, flags=()):
        self.dir, self.flags = temp_dir(), FLAGS + list(flags)
        ports = free_ports(2 * most)
        self.names = [f"n{i + 1}" for i in range(most)]
        self.client = dict(zip(self.names, ports[:most]))
        self.peer = {n: f"http://127.0.0.1:{p}" for n, p in zip(self.names, ports[most:])}
        self.initial, self.state, self.procs, self.id = {}, {}, {}, {}
        self.program = [PINTLE, "ctl"]
        first = self.names[:count]
        for n in first:
            self.start(n, ",".join(f"{m}={self.peer[m]}" for m in first), "new")
        wait_for("a leader, and names", lambda: self.healthy(*first) and sorted(self.members()) == first)

    def folder(self, n):
        return os.path.join(self.dir, n)

    def url(self, n):
        return f"http://127.0.0.1:{self.client[n]}"

    def log(self, n):
        with open(self.folder(n) + ".log", errors="replace") as f:
            return f.read()

    def command(self, n, name=None):
        return [PINTLE, "server", "--name", name or n, "--data-dir", self.folder(n), "--listen-client-urls", self.url(n), "--listen-peer-urls",
                self.peer[n], "--initial-cluster", self.initial[n], "--initial-cluster-state", self.state[n], *self.flags]

    def start(self, n, initial=None, state=None):
        self.initial[n] = initial or self.initial[n]
        self.state[n] = state or self.state[n]
        self.procs[n] = start(*self.command(n), log=self.folder(n) + ".log")

    def live(self):
        return [n for n, p in self.procs.items() if p.poll() is None]

    def ctl(self, *args, at=None, timeout=30):
        names = at or self.live()
        return run(*self.program, *args, "--endpoints", ",".join(self.url(n) for n in names), timeout=timeout)

    def healthy(self, *names):
        return self.ctl("endpoint", "health", at=names).returncode == 0

    def members(self, at=None):
        out = self.ctl("member", "list", "-w", "json", at=at)
        return {m.get("name") or m["peerURLs"][0]: m for m in json.loads(out.stdout or "{}").get("members", [])}

    def change(self, *args, at=None):
        """A change that may meet a leader that is just leaving, or a member that has just started: until it is done or refused for good. `again`
        of what it returns: an earlier try may have done it already."""
        tries = 0

        def once():
            nonlocal tries
            out = self.ctl("member", *args, at=at)
            out.again, tries = tries > 0, tries + 1
            passing = any(t in out.stderr for t in ("unhealthy cluster", "no leader", "leader changed", "timed out", "stopped", "not enough started",
                                                    "in sync with leader", "connect", "closed", "deadline", "unavailable", "too many learner"))
            return None if out.returncode and passing else out
        return wait_for(f"member {args}", once, timeout=60)

    def add(self, n, *flags, name=None):
        out = self.change("add", name or n, "--peer-urls", self.peer[n], *flags)
        if out.returncode == 0:
            self.id[n] = int(re.search(r"Member +([0-9a-f]+) added", out.stdout).group(1), 16)
            self.initial[n] = re.search(r'ETCD_INITIAL_CLUSTER="(.*)"', out.stdout).group(1)
        else:
            assert out.again and "already exists" in out.stderr, out.stderr
            urls = {m["peerURLs"][0]: (m["ID"], m.get("name") or n) for m in self.members().values()}
            self.id[n] = urls[self.peer[n]][0]
            self.initial[n] = ",".join(f"{m}={url}" for url, (_, m) in urls.items())
        self.state[n] = "existing"
        return out

    def join(self, n, *flags):
        self.add(n, *flags)
        self.start(n)
        wait_for(f"{n} in the list", lambda: n in self.members())
        if not flags:
            wait_for(f"{n} to serve", lambda: self.healthy(n))

    def remove(self, n):
        out = self.change("remove", "%x" % self.members()[n]["ID"])
        assert out.returncode == 0 or out.again and "not found" in out.stderr, out.stderr
        return out

    def leader(self):
        for n in self.live():
            out = json.loads(self.ctl("endpoint", "status", "-w", "json", at=[n]).stdout or "[]")
            if out and out[0]["Status"].get("leader") == out[0]["Status"]["header"]["member_id"]:
                return n, out[0]["Status"]["raftTerm"]
        return None

    def kill(self, n, sig=signal.SIGKILL):
        self.procs[n].send_signal(sig)
        return self.procs[n].wait(30)

    def stop(self):
        for n in self.live():
            self.procs[n].terminate()
        for p in self.procs.values():
            p.wait(30)

    def exits(self, n):
        wait_for(f"the end of {n}", lambda: self.procs[n].poll() is not None)
        return self.procs[n].returncode


class Load:
    """Clients that write, each key once, and note what was acknowledged."""

    def __init__(self, town, names, clients=4):
        self.town, self.names, self.stopping = town, names, False
        self.written, self.unknown = [set() for _ in range(clients)], 0
        self.threads = [threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(clients)]
        for t in self.threads:
            t.start()
        wait_for("the first writes", self.moves)

    def work(self, me):
        clients = {n: Kv(self.town.client[n]) for n in self.town.names}
        i = 0
        while not self.stopping:
            names = self.names() if callable(self.names) else self.names
            n = names[(me + i) % len(names)]
            key = f"/w/{me}/{i}"
            if clients[n].put(key, b"v" * 200):
                self.written[me].add(key.encode())
            else:
                self.unknown += 1
                time.sleep(0.02)
            i += 1

    def count(self):
        return sum(len(w) for w in self.written)

    def moves(self):
        before = self.count()
        return wait_for("writes", lambda: self.count() >= before + 20)

    def stop(self):
        self.stopping = True
        for t in self.threads:
            t.join()
        return set().union(*self.written)


def stored(town, n):
    return set(Kv(town.client[n], 20).get(b"/w/", b"/w0", serializable=True) or {})


def all_there(town, names, keys, what):
    missing = {}
    for n in names:
        try:
            wait_for("what was acknowledged", lambda: keys <= stored(town, n))
        except AssertionError:
            missing[n] = sorted(keys - stored(town, n))[:5]
    ok(not missing, what, missing)


def agree(town, names, what):
    def hashes():
        out = json.loads(town.ctl("endpoint", "hashkv", "-w", "json", at=names).stdout or "[]")
        return [(h["HashKV"].get("hash"), h["HashKV"]["header"].get("revision")) for h in out]
    ok(wait_for("equal hashes", lambda: len(hashes()) == len(names) and len(set(hashes())) == 1), what)


def test_one_three_five_three():
    town = Town(1)
    load = Load(town, ["n1"])
    before = town.leader()
    for n in ("n2", "n3", "n4", "n5"):
        town.join(n)
        load.moves()
    calm = town.leader() == before
    ok(not calm or load.unknown == 0, "1 -> 5 members under load: no write fails while nobody else leads", load.unknown)
    note(f"{load.count()} writes so far, {load.unknown} without an answer, leader {'kept' if calm else 'changed'}")
    ok(len(town.members()) == 5 and not any(m.get("isLearner") for m in town.members().values()), "five voters", town.members())
    ok("snapshot" in town.log("n5"), "a new member is brought up by a snapshot", town.log("n5")[-2000:])
    load.names = [n for n in ("n2", "n3", "n4") if n in town.live()]
    for n in ("n1", "n5"):
        town.remove(n)
        code = town.exits(n)
        ok(code > 0 and "removed from the cluster" in town.log(n), f"{n} is told that it was removed, and stops with a failure", (code, town.log(n)[-600:]))
        load.moves()
    keys = load.stop()
    note(f"{len(keys)} writes acknowledged, {load.unknown} without an answer (the first to be removed was the leader)")
    rest = ["n2", "n3", "n4"]
    ok(sorted(town.members()) == rest, "three members are left", town.members())
    all_there(town, rest, keys, "what was acknowledged is on all of them")
    agree(town, rest, "they agree")
    refused = run(*town.command("n1"))
    ok(refused.returncode == 1 and "was removed from the cluster" in refused.stderr, "a removed member does not start again, and says why", refused.stderr)

    town.stop()
    for n in rest:
        town.start(n)
    wait_for("a leader", lambda: town.healthy(*rest))
    all_there(town, rest, keys, "nothing is lost when all of them start again")
    ok(sorted(town.members()) == rest, "and the members are the same")
    snap = os.path.join(town.dir, "snap")
    ok(town.ctl("snapshot", "save", snap, at=["n3"]).returncode == 0, "a snapshot is saved")
    target = os.path.join(town.dir, "restored")
    out = run(PINTLE, "ctl", "snapshot", "restore", snap, "--name", "r", "--data-dir", target, "--initial-cluster", "r=http://127.0.0.1:1")
    ok(out.returncode == 0, "and restored", out.stderr)
    town.stop()


def test_learner():
    town = Town(3)
    for i in range(300):
        Kv(town.client["n1"]).put(f"/w/0/{i}", b"v" * 200)
    out = town.add("n4", "--learner")
    ok(" added to cluster " in out.stdout, "a learner is added", out.stdout)
    out = town.ctl("member", "promote", "%x" % town.id["n4"])
    ok("can only promote a learner member which is in sync with leader" in out.stderr, "one that has not started is not promoted", out.stderr)
    out = town.ctl("member", "promote", "%x" % town.members()["n1"]["ID"])
    ok("etcdserver: can only promote a learner member\n" in out.stderr, "nor is a voter", out.stderr)
    out = town.ctl("member", "add", "n5", "--learner", "--peer-urls", town.peer["n5"])
    ok("too many learner members in cluster" in out.stderr, "one learner at a time", out.stderr)
    out = town.ctl("member", "add", "n5", "--peer-urls", town.peer["n2"])
    ok("Peer URLs already exists" in out.stderr, "two members at one peer URL are refused", out.stderr)
    town.start("n4")
    wait_for("the learner to have it all", lambda: len(stored(town, "n4")) == 300)
    ok(True, "a learner serves serializable reads of all there is")
    out = town.ctl("get", "/w/0/1", at=["n4"])
    ok("rpc not supported for learner" in out.stderr, "it does not serve linearizable ones", out.stderr)
    out = town.ctl("put", "a", "b", at=["n4"])
    ok("rpc not supported for learner" in out.stderr, "nor writes", out.stderr)
    st = json.loads(town.ctl("endpoint", "status", "-w", "json", at=["n4"]).stdout)[0]["Status"]
    ok(st.get("isLearner") is True, "its status says that it is a learner", st)
    leader = town.leader()[0]
    follower = next(n for n in ("n1", "n2", "n3") if n != leader)
    out = town.change("promote", "%x" % town.id["n4"], at=[follower])
    ok(out.returncode == 0 and "promoted in cluster" in out.stdout, "it is promoted, by way of a follower", out.stdout + out.stderr)
    wait_for("the new voter", lambda: town.healthy("n4"))
    ok(town.ctl("put", "a", "b", at=["n4"]).returncode == 0, "and serves writes")
    out = town.ctl("move-leader", "%x" % town.id["n4"], at=[leader])
    ok(out.returncode == 0 and wait_for("n4 to lead", lambda: (town.leader() or [0])[0] == "n4"), "it can lead", out.stderr)
    town.stop()


def test_joining():
    town = Town(1)
    town.initial["n2"], town.state["n2"] = f"n1={town.peer['n1']},n2={town.peer['n2']}", "existing"
    out = run(*town.command("n2"))
    ok(out.returncode == 1 and "add it first (member add" in out.stderr, "a member that nobody added does not start", out.stderr)
    town.add("n2")
    clash = town.command("n2", name="n1")
    clash[clash.index("--initial-cluster") + 1] = f"x={town.peer['n1']},n1={town.peer['n2']}"
    out = run(*clash)
    ok(out.returncode == 1 and 'is named "n1" already' in out.stderr, "nor one under the name of another", out.stderr)
    town.start("n2")
    wait_for("n2", lambda: town.healthy("n2"))
    town.join("n3")

    town.kill("n3")
    shutil.rmtree(town.folder("n3"))
    out = run(*town.command("n3"))
    ok(out.returncode == 1 and "has run before, and this data folder is empty" in out.stderr and "member remove" in out.stderr,
       "an empty folder does not stand in for a member's lost one: it says what to do", out.stderr)
    Kv(town.client["n1"]).put("/w/0/0", b"x")
    old = town.members()["n3"]["ID"]
    town.remove("n3")
    town.join("n3")
    ok(town.members()["n3"]["ID"] != old and b"/w/0/0" in stored(town, "n3"), "remove and add: it comes back under a new ID, with everything")

    town.stop()
    shutil.copytree(town.folder("n3"), town.folder("n8"))
    for n in ("n1", "n2", "n3"):
        town.start(n)
    wait_for("a leader", lambda: town.healthy("n1", "n2", "n3"))
    town.initial["n8"], town.state["n8"] = town.initial["n3"].replace(town.peer["n3"], town.peer["n8"]).replace("n3=", "n8="), "existing"
    town.start("n8")
    code = town.exits("n8")
    ok(code > 0 and ("another process runs under the ID" in town.log("n8") or "has seen start number" in town.log("n8")),
       "a second process under one ID ends with an error", (code, town.log("n8")[-1500:]))
    ok(town.healthy("n1", "n2", "n3"), "and the first goes on")
    town.stop()


def test_removed_while_down():
    town = Town(3)
    town.kill("n3")
    town.remove("n3")
    for i in range(20):
        Kv(town.client["n1"]).put(f"/w/0/{i}", b"x")
    term = town.leader()[1]
    town.start("n3")
    code = town.exits("n3")
    ok(code > 0 and "this member was removed from the cluster" in town.log("n3"), "who was removed while it was down is told when it comes back", (code, town.log("n3")[-800:]))
    note(f"term {term} before, {town.leader()[1]} after")
    out = run(*town.command("n3"))
    ok(out.returncode == 1 and "was removed from the cluster" in out.stderr, "from then on it knows by itself", out.stderr)
    town.stop()


def test_update():
    town = Town(3)
    ids = {n: m["ID"] for n, m in town.members().items()}
    town.kill("n2", signal.SIGTERM)
    moved = town.peer["n8"]
    out = town.change("update", "%x" % ids["n2"], "--peer-urls", town.peer["n3"])
    ok("Peer URLs already exists" in out.stderr, "a member does not get another's peer URL", out.stderr)
    out = town.change("update", "%x" % ids["n2"], "--peer-urls", moved)
    ok(out.returncode == 0 and "updated in cluster" in out.stdout, "it gets another one", out.stdout + out.stderr)
    town.initial["n2"] = town.initial["n2"].replace(town.peer["n2"], moved)
    town.peer["n2"] = moved
    town.start("n2")
    wait_for("n2", lambda: town.healthy("n2"))
    town.kill("n1")
    ok(wait_for("a majority with the member that has moved", lambda: town.healthy("n2", "n3")), "and is there at the new place")
    town.stop()
    for n in ("n1", "n2", "n3"):
        town.start(n)
    wait_for("a leader", lambda: town.healthy("n1", "n2", "n3"))
    ok(town.members()["n2"]["peerURLs"] == [moved] and town.members()["n2"]["ID"] == ids["n2"], "also after all have started again", town.members())
    town.stop()


def taken_for_voter(town, n, by):
    return town.healthy(n) and not any(town.members(at=[m]).get(n, {"isLearner": True}).get("isLearner") for m in by)


def test_etcdctl():
    """Each change once by etcdctl, on members that start and catch up. It asks any of its endpoints: a learner answers neither changes nor
    lists, and the list of etcdctl 3.4 is what that member knows yet."""
    if not ETCDCTL:
        return skip("learner added, promoted; voter added, moved, removed by etcdctl", "etcdctl is not installed")
    town, voters = Town(3), ["n1", "n2", "n3"]
    town.program = [ETCDCTL]
    keys = {b"/w/0/%d" % i for i in range(300)}
    for k in sorted(keys):
        assert Kv(town.client["n1"]).put(k, b"v" * 200)
    out = town.add("n4", "--learner")
    ok(out.returncode == 0, "etcdctl member add --learner", out.stdout)
    wait_for("all to know it", lambda: all(town.members(at=[n]).get(town.peer["n4"], {}).get("isLearner") for n in voters))
    town.start("n4")
    wait_for("the learner to have it all", lambda: stored(town, "n4") == keys)
    out = town.change("promote", "%x" % town.id["n4"], at=voters)
    ok(out.returncode == 0 and "promoted in cluster" in out.stdout, "etcdctl member promote", out.stdout + out.stderr)
    wait_for("all to take it for a voter", lambda: taken_for_voter(town, "n4", voters))
    ok(town.ctl("put", "a", "b", at=["n4"]).stdout == "OK\n", "... that serves writes")

    out = town.add("n5")
    ok(out.returncode == 0, "etcdctl member add", out.stdout + out.stderr)
    town.start("n5")
    wait_for("n5 to be a voter", lambda: taken_for_voter(town, "n5", voters + ["n4", "n5"]))
    town.kill("n1")
    town.kill("n2")
    ok(wait_for("a majority with both", lambda: town.healthy("n3", "n4", "n5")), "... with those two and one of the first three there is a majority")
    town.start("n1")
    town.start("n2")
    wait_for("all of them", lambda: town.healthy("n1", "n2", "n3", "n4", "n5"))

    town.kill("n5", signal.SIGTERM)
    out = town.change("update", "%x" % town.id["n5"], "--peer-urls", town.peer["n8"])
    ok(out.returncode == 0 and "updated in cluster" in out.stdout, "etcdctl member update", out.stdout + out.stderr)
    town.initial["n5"] = town.initial["n5"].replace(town.peer["n5"], town.peer["n8"])
    town.peer["n5"] = town.peer["n8"]
    town.start("n5")
    wait_for("n5", lambda: town.healthy("n5"))
    ok(wait_for("n5 at its new place", lambda: town.members()["n5"]["peerURLs"] == [town.peer["n8"]]), "... it serves at its new place")

    out = town.remove("n5")
    ok(out.returncode == 0 and "removed from cluster" in out.stdout, "etcdctl member remove", out.stdout + out.stderr)
    code = town.exits("n5")
    ok(code > 0 and "removed from the cluster" in town.log("n5"), "... it is told, and ends", (code, town.log("n5")[-600:]))
    rest = ["n1", "n2", "n3", "n4"]
    ok(wait_for("four members", lambda: sorted(town.members()) == rest), "four members are left")
    all_there(town, rest, keys, "what was acknowledged is on all of them")
    agree(town, rest, "they agree")
    town.stop()


def test_kills_during_changes():
    town = Town(3)
    dead = set()
    load = Load(town, lambda: [n for n in town.live() if n not in dead] or ["n1"])
    present = ["n1", "n2", "n3"]
    for round_, (n, gone) in enumerate([("n4", "n1"), ("n5", "n2"), ("n6", "n3")]):
        victim = (town.leader() or [present[0]])[0]
        t = threading.Thread(target=lambda: town.add(n))
        t.start()
        time.sleep(0.02 * round_)
        town.kill(victim)
        time.sleep(0.3)
        town.start(victim)
        t.join()
        town.start(n)
        wait_for(f"{n} in the list", lambda: n in town.members())
        present.append(n)
        wait_for("all of them", lambda: town.healthy(*present), timeout=60)
        dead.add(gone)
        t = threading.Thread(target=lambda: town.remove(gone))
        t.start()
        time.sleep(0.02 * round_)
        other = next(m for m in present if m != gone and m != victim)
        town.kill(other)
        time.sleep(0.3)
        town.start(other)
        t.join()
        present.remove(gone)
        code = town.exits(gone)
        ok(code > 0 and "removed from the cluster" in town.log(gone), f"round {round_ + 1}: {n} comes and {gone} goes while others are killed", (code, town.log(gone)[-800:]))
        wait_for("all of them", lambda: town.healthy(*present), timeout=60)
        load.moves()
    keys = load.stop()
    note(f"{len(keys)} writes acknowledged, {load.unknown} without an answer")
    ok(all(sorted(town.members(at=[n])) == sorted(present) for n in present), "every member names the same members", [town.members(at=[n]) for n in present])
    all_there(town, present, keys, "what was acknowledged is on all of them, none of whom was there at the beginning")
    agree(town, present, "they agree")
    town.stop()


main(test_one_three_five_three, test_learner, test_joining, test_removed_while_down, test_update, test_etcdctl, test_kills_during_changes)
