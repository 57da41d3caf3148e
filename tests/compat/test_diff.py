#!/usr/bin/env python3
"""Random operations of the etcd v3 API against a real etcd and against us: every answer must agree field by field (diff_etcd.c).
Each seed gets fresh servers: etcd and ours as one member each, then ours as three members with the requests spread over them.

SEED=n repeats one seed; SEEDS=n is how many (2 of each kind), OPS=n how many operations of each (1000; half for three members), ETCD=path the peer
(Debian's etcd). PINTLE and B: the binary and the build folder. PINTLE_TEST_PORT: the first of 20 ports (22400).
A difference is shrunk by leaving operations out, and what is left is shown."""
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap

BUILD = os.path.join(tap.ROOT, os.environ.get("B", "build"))
DIFF = os.path.join(BUILD, "tests", "compat", "diff_etcd")
ETCD = os.environ.get("ETCD") or shutil.which("etcd") or "/usr/bin/etcd"
PORT = int(os.environ.get("PINTLE_TEST_PORT", "22400"))
SEEDS = int(os.environ.get("SEEDS", "2"))
OPS = int(os.environ.get("OPS", "1000"))
SHRINK_SECONDS = 60


def url(n):
    return "http://127.0.0.1:%d" % (PORT + n)


def peer_version():
    out = subprocess.run([ETCD, "--version"], capture_output=True, text=True).stdout
    major, minor = out.split("etcd Version: ")[1].split(".")[:2]
    return int(major) * 100 + int(minor)


def healthy(base):
    try:
        with urllib.request.urlopen(base + "/health", timeout=2) as r:
            return b'"true"' in r.read()
    except OSError:
        return False


class Servers:
    """A fresh etcd and a fresh Pintle of `members` members."""

    def __init__(self, members):
        self.dir = tap.temp_dir("pintle-diff-")
        self.ours = [url(2 + 2 * i) for i in range(members)]
        names = ["n%d=%s" % (i + 1, url(3 + 2 * i)) for i in range(members)]
        self.running = [self.start("etcd", [
            ETCD, "--name", "e1", "--data-dir", self.dir + "/etcd", "--listen-client-urls", url(0), "--advertise-client-urls", url(0),
            "--listen-peer-urls", url(1), "--initial-advertise-peer-urls", url(1), "--initial-cluster", "e1=" + url(1),
            "--log-level", "error"])]
        for i in range(members):
            name = "n%d" % (i + 1)
            self.running.append(self.start(name, [
                tap.PINTLE, "server", "--name", name, "--data-dir", self.dir + "/" + name, "--listen-client-urls", self.ours[i],
                "--listen-peer-urls", url(3 + 2 * i), "--initial-cluster", ",".join(names), "--initial-cluster-state", "new"]))

    def start(self, name, command):
        log = open(os.path.join(self.dir, name + ".log"), "wb")
        p = subprocess.Popen(command, stdout=log, stderr=log)
        tap.at_exit(lambda: p.poll() is None and p.kill())
        return p

    def __enter__(self):
        for base in [url(0)] + self.ours:
            tap.wait_for("healthy " + base, lambda: healthy(base), 20)
        return self

    def __exit__(self, *_):
        for p in self.running:
            p.send_signal(signal.SIGTERM if p is not self.running[0] else signal.SIGKILL)
        for p in self.running:
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def run(seed, members, ops, skip="", trace=False):
    """(whether all agreed, what was said)"""
    with Servers(members) as s:
        command = [DIFF, "--theirs", url(0), "--ours", ",".join(s.ours), "--seed", str(seed), "--ops", str(ops), "--peer",
                   str(peer_version()), "--skip", skip] + (["--trace"] if trace else [])
        try:
            p = subprocess.run(command, capture_output=True, timeout=120)
        except subprocess.TimeoutExpired as e:
            return False, "no end after 120 s\n" + (e.stdout or b"").decode(errors="replace")
    return p.returncode == 0, (p.stdout + p.stderr).decode(errors="replace")


def ranges(numbers):
    """[1, 2, 3, 7] as "1-3,7"."""
    out = []
    for n in sorted(numbers):
        if out and out[-1][1] == n - 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ",".join("%d-%d" % (a, b) for a, b in out)


def shrink(seed, members, ops):
    """Leaves out ever smaller pieces for as long as the rest still differs, within SHRINK_SECONDS."""
    end = time.monotonic() + SHRINK_SECONDS
    skipped, size, last = set(), max(1, ops // 4), ""
    while size >= 1 and time.monotonic() < end:
        for first in range(0, ops, size):
            piece = {n for n in range(first, min(first + size, ops)) if n not in skipped}
            if not piece or time.monotonic() > end:
                continue
            good, said = run(seed, members, ops, ranges(skipped | piece), trace=True)
            if not good:
                skipped |= piece
                last = said
        size //= 2
    return "what is left (--skip %s):\n%s" % (ranges(skipped), last)


def differing_operation(said, ops):
    for line in said.splitlines():
        words = line.replace(",", " ").split()
        if line.startswith("  operation ") and words[1].isdigit():
            return int(words[1]) + 1
        if line.startswith("difference: ") and "to" in words and words[-1].isdigit():
            return min(ops, int(words[-1]) + 1)
    return ops


def one_seed(seed, members):
    ops = OPS if members == 1 else OPS // 2
    name = "%d member%s of ours: %d operations of seed %d" % (members, "s" if members > 1 else "", ops, seed)
    good, said = run(seed, members, ops)
    for _ in range(2):  # what etcd answers may depend on when its own compaction or lease clock runs: a real difference repeats
        if good:
            break
        tap.note("seed %d differed, tried again: %s" % (seed, " ".join(said.split())[:600]))
        good, said = run(seed, members, ops)
    if not good:
        said += "\n" + shrink(seed, members, differing_operation(said, ops))
    tap.ok(good, name, said[-12000:])


def all_seeds():
    for program, hint in ((ETCD, "install etcd-server, or ETCD=path"), (tap.PINTLE, "make"), (DIFF, "make tests")):
        if not os.access(program, os.X_OK):
            tap.skip("the same answers as etcd", "no %s: %s" % (program, hint))
            return
    first = int(os.environ["SEED"]) if "SEED" in os.environ else int(time.time()) * 10
    seeds = range(first, first + (1 if "SEED" in os.environ else SEEDS))
    tap.note("seeds %d to %d against etcd %d.%d; SEED=n repeats one" % (seeds[0], seeds[-1], *divmod(peer_version(), 100)))
    for members in (1, 3):
        for seed in seeds:
            one_seed(seed, members)


tap.main(all_seeds)
