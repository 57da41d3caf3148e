#!/usr/bin/env python3
"""etcdctl changes the members of a real etcd and of ours, one member each: the same commands, and every line of the answers must agree (but for
ids, ports and the client's own log). Then `pintle ctl` against ours, with etcdctl's output.

PINTLE_PEERS: a folder with a newer etcd and etcdctl somewhere below it; what is there is run too."""
import glob, json, os, re, shutil, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *


class Side:
    """A cluster of one, and what is to be hidden in its answers."""

    def __init__(self, command, ctl, ports):
        self.ctl, self.ports = ctl, ports
        self.url, self.peer = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        self.others = [f"http://127.0.0.1:{p}" for p in ports[2:]]
        self.dir = temp_dir()
        self.names, self.bad_arguments = {}, None
        self.proc = start(*command, "--name", "m1", "--data-dir", os.path.join(self.dir, "d"), "--listen-client-urls", self.url,
                          "--advertise-client-urls", self.url, "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer,
                          "--initial-cluster", f"m1={self.peer}", log=os.path.join(self.dir, "log"))
        wait_for("a member", lambda: self.run("put", "a", "b").returncode == 0 and "m1" in self.run("member", "list").stdout)

    def run(self, *args):
        return run(*self.ctl, "--endpoints", self.url, *args)

    def fill(self, text):
        for i, p in enumerate(self.others):
            text = text.replace(f"<url{i}>", p)
        return text.replace("<own>", self.peer).replace("<m1>", self.id("m1")).replace("<new>", self.names.get("new", "0"))

    def id(self, name):
        return next(line.split(",")[0] for line in self.run("member", "list").stdout.splitlines() if f" {name}," in line)

    def plain(self, out):
        lines = [l for l in (out.stdout + out.stderr).splitlines() if not l.startswith('{"level"')]
        text = "\n".join(lines)
        found = re.search(r"Member +([0-9a-f]+) added", text)
        if found:
            self.names["new"] = found.group(1)
        text = re.sub(r'"(raft_term|cluster_id|member_id|ID)":\d+', r'"\1":0', text)
        text = re.sub(r"\b[0-9a-f]{12,16}\b", "<id>", text)
        for i, p in enumerate(self.ports):
            text = text.replace(f":{p}", f":<port{i}>")
        refused_here = out.returncode == 1 and self.bad_arguments and re.search(r"not provided|bad member ID", text)
        return f"{self.bad_arguments if refused_here else out.returncode}\n" + re.sub(r"[-+|─│┌┬┐├┼┤└┴┘ ]+", " ", text)

    def stop(self):
        self.proc.terminate()
        self.proc.wait(30)


STEPS = [
    ("an ID that is none", "member remove xyz"),
    ("no ID", "member remove"),
    ("remove: unknown", "member remove 1234567890abcdef"),
    ("promote: unknown", "member promote 1234567890abcdef"),
    ("promote: a voter", "member promote <m1>"),
    ("update: unknown", "member update 1234567890abcdef --peer-urls=<url0>"),
    ("update: no URL", "member update <m1>"),
    ("remove: the last one", "member remove <m1>"),
    ("add: no name", "member add --peer-urls=<url0>"),
    ("add: no URL", "member add m2"),
    ("add: a URL that is none", "member add m2 --peer-urls=foo"),
    ("add: the URL of another", "member add m2 --learner --peer-urls=<own>"),
    ("add: a learner", "member add m2 --learner --peer-urls=<url0>"),
    ("list", "member list"),
    ("list as a table", "member list -w table"),
    ("list as JSON", "member list -w json"),
    ("promote: not started", "member promote <new>"),
    ("add: another learner", "member add m3 --learner --peer-urls=<url1>"),
    ("update: the URL of another", "member update <new> --peer-urls=<own>"),
    ("update", "member update <new> --peer-urls=<url2>"),
    ("list after it", "member list"),
    ("remove", "member remove <new>"),
    ("remove: again", "member remove <new>"),
    ("list at the end", "member list"),
]


def ordered(text, command, what):
    """Members come by ID, which is another in each run. After an update etcd shows a learner as a voter, which it is not."""
    text = re.sub(r'(ETCD_INITIAL_CLUSTER=")(.*)"', lambda m: m.group(1) + ",".join(sorted(m.group(2).split(","))) + '"', text)
    if what == "list after it":
        text = text.replace("true", "false")
    if not command.startswith("member list"):
        return text
    if command.endswith("json"):
        head, _, body = text.partition("\n")
        members = sorted(json.dumps(m, sort_keys=True) for m in json.loads(body).get("members", []))
        return head + "\n" + "\n".join(members)
    return "\n".join(sorted(text.split("\n")))


def compare(label, ours, theirs, but=()):
    for what, command in STEPS:
        a, b = (ordered(s.plain(s.run(*s.fill(command).split())), command, what) for s in (ours, theirs))
        if what not in but:
            ok(a == b, f"{label}: {what}", f"ours:   {a}\ntheirs: {b}")


def versions():
    found = []
    if shutil.which("etcdctl") and shutil.which("etcd"):
        found.append((shutil.which("etcdctl"), shutil.which("etcd")))
    peers = os.environ.get("PINTLE_PEERS") or os.path.join(ROOT, "build", "peers")
    for ctl in sorted(glob.glob(os.path.join(peers, "**", "etcdctl"), recursive=True)):
        etcd = os.path.join(os.path.dirname(ctl), "etcd")
        if os.path.exists(etcd):
            found.append((ctl, etcd))
    return found


def test_etcdctl():
    pairs = versions()
    if not pairs:
        skip("etcdctl's member commands", "no etcd here")
    for ctl, etcd in pairs:
        label = "etcdctl " + run(ctl, "version").stdout.split()[2]
        ports = free_ports(10)
        ours = Side([PINTLE, "server"], [ctl], ports[:5])
        theirs = Side([etcd, "--log-level", "error"], [ctl], ports[5:])
        compare(label, ours, theirs)
        ours.stop()
        theirs.stop()


def test_pintle_ctl():
    """The same output as etcdctl's, from our own program on our own server."""
    pairs = versions()
    if not pairs:
        skip("pintle ctl member beside etcdctl", "no etcdctl here")
        return
    ports = free_ports(10)
    ours = Side([PINTLE, "server"], [PINTLE, "ctl"], ports[:5])
    theirs = Side([PINTLE, "server"], [pairs[-1][0]], ports[5:])
    # etcdctl ends with 128 where it refuses by itself, and looks at URLs before it asks.
    ours.bad_arguments = 128
    compare("pintle ctl", ours, theirs, but=["add: a URL that is none"])
    ours.stop()
    theirs.stop()


main(test_etcdctl, test_pintle_ctl)
