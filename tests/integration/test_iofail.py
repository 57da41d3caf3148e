#!/usr/bin/env python3
"""Every system call on the data folder and on sockets made to fail once (iofail.c): the server goes on correctly, or stops with one clear
line; after a start without the fault nothing that was acknowledged is missing, and nothing else is served.

PINTLE_LONG=1 tries each call; else a sample: IOFAIL_FIRST, which is printed, says which."""
import errno, os, random, re, shutil, sys, time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *
from wire import Kv

LONG = os.environ.get("PINTLE_LONG") == "1"
BUILD = os.environ.get("B", os.path.join(ROOT, "build"))
SHIM = preload(os.path.join(BUILD, "tests/integration/iofail.so"))
FIRST = int(os.environ.get("IOFAIL_FIRST", random.randrange(1, 1000)))
FLAGS = ["--snapshot-log-bytes", "65536", "--wal-segment-bytes", "65536", "--workers", "1"]
TMP = temp_dir()
VALUE = b"v" * 2000
DEAD = "it is dead"

# calls and errno; 0 = a short read or write
FILE_CASES = [("open", errno.EIO), ("open", errno.EMFILE), ("read", errno.EIO), ("read", 0), ("write", errno.EIO), ("write", errno.ENOSPC),
              ("write", 0), ("sync", errno.EIO), ("rename", errno.EIO), ("unlink", errno.EIO), ("truncate", errno.EIO), ("mkdir", errno.EACCES),
              ("close", errno.EIO), ("stat", errno.EIO), ("list", errno.EIO)]
NET_CASES = [("socket", errno.EMFILE), ("accept", errno.EMFILE), ("accept", errno.ECONNABORTED), ("read,recv", errno.ECONNRESET),
             ("read,recv", 0), ("write,send", errno.EPIPE), ("write,send", errno.ENOBUFS), ("write,send", 0), ("connect", errno.ENETUNREACH),
             ("close", errno.EIO)]


def places():
    """Which of the calls: all, or a sample that reaches far with few."""
    nth = 1
    for n in range(100000 if LONG else 6):
        yield nth
        nth = nth + 1 if LONG else 2 * nth + FIRST % 5 + n


class Run:
    """One cluster of one life, and what it has acknowledged."""

    def __init__(self, name, n=1, copy_of=None):
        self.dir = os.path.join(TMP, name)
        if copy_of:
            shutil.copytree(copy_of.dir, self.dir)
            n = copy_of.c.n
        else:
            os.makedirs(self.dir)
        self.c = Cluster(n, dir=self.dir, flags=FLAGS, ports=copy_of.c.ports if copy_of else None)
        self.acked = dict(copy_of.acked) if copy_of else {}
        self.tried = {k: set(v) for k, v in copy_of.tried.items()} if copy_of else {}
        self.clients = [Kv(p, 20) for p in self.c.ports[:n]]

    def start(self, i=None, env=None):
        for m in range(self.c.n) if i is None else [i]:
            self.c.procs[m] = start(*self.c.command(m), log=self.c.log(m), env=env if i is not None else None)

    def alive(self, i=0):
        return self.c.procs[i] is not None and self.c.procs[i].poll() is None

    def write(self, member, count, tag):
        """Puts until the member dies; what has no answer may have happened."""
        for n in range(count):
            key, value = b"k%d" % (n % 10), b"%s-%d-" % (tag, n) + VALUE
            self.tried.setdefault(key, set()).add(value)
            if self.clients[member].put(key, value):
                self.acked[key] = value
                self.tried[key] = {value}
            elif not self.alive(member):
                return

    def wrong(self, member):
        """What is missing or was never written; None if all is well."""
        got = None
        deadline = time.time() + 60
        while got is None and time.time() < deadline:
            got = self.clients[member].get(b"k", b"l")
            if got is None:
                if not self.alive(member):
                    return DEAD
                time.sleep(0.05)
        if got is None:
            return "no answer within 60 s"
        for key, allowed in self.tried.items():
            value = got.get(key)
            if value not in allowed and not (value is None and key not in self.acked):
                return f"{key}: {value and value[:40]} is not one of {[v[:40] for v in allowed]}"
        return None

    def stop(self):
        for k in self.clients:
            k.close()
        self.c.stop()

    def log(self, i=0):
        with open(self.c.log(i), errors="replace") as f:
            return f.read()


def fault(call, error, nth, path, log):
    return {"LD_PRELOAD": SHIM, "IOFAIL_CALLS": call, "IOFAIL_ERROR": str(error), "IOFAIL_NTH": str(nth), "IOFAIL_PATH": path, "IOFAIL_LOG": log}


def ended_well(run, i):
    """A process that ended by itself has said why and has not crashed."""
    code = run.c.procs[i].returncode
    last = [line for line in run.log(i).split("\n") if line]
    if code != 1:
        return f"ended with status {code}"
    if not any(w in line for line in last[-2:] for w in ("ERROR", "error", "pintle server:")):  # another thread may say one thing more
        return f"ended without a clear line: {last[-2:]}"
    return None


def one_case(base, call, error, nth, path, writes):
    """(the call that failed or None, what went wrong or None, what the member did)"""
    run = Run("case", copy_of=base)
    fired = os.path.join(run.dir, "fired")
    try:
        run.start(0, fault(call, error, nth, path, fired))
        wrong = run.wrong(0)
        run.write(0, writes, b"x")
        wrong = wrong or run.wrong(0)
        did = "went on" if run.alive() else "stopped"
        if did == "stopped" and wrong == DEAD:
            wrong = None
        run.clients[0].close()
        run.c.procs[0].terminate()
        run.c.procs[0].wait(60)
        if run.c.procs[0].returncode != 0:
            wrong = wrong or ended_well(run, 0)
        came = open(fired).read().strip() if os.path.exists(fired) else None
        if came:
            run.start(0)
            wrong = wrong or run.wrong(0)
            run.write(0, 3, b"y")
            wrong = wrong or run.wrong(0)
            run.stop()
        return came, wrong and f"{came}: {wrong}\n{run.log()[-3000:]}", did
    finally:
        run.stop()
        shutil.rmtree(run.dir, ignore_errors=True)


def sweep(cases, name, case):
    """`case(call, error, nth)` as one_case, for each place until there is none any more."""
    total = went_on = 0
    for call, error in cases:
        bad, n = [], 0
        for nth in places():
            came, wrong, did = case(call, error, nth)
            if wrong:
                bad.append(f"nth={nth} ({did}): {wrong}")
            if not came or len(bad) == 3:
                break
            n += 1
            went_on += did == "went on"
        total += n
        what = os.strerror(error) if error else "short"
        ok(not bad, f"{name}: {call} fails with \"{what}\" in {n} places", "\n".join(bad))
    note(f"{name}: {total} faults, {went_on} times the member went on")


def make_base(n):
    base = Run(f"base{n}", n)
    base.start()
    wait_for("the member", lambda: base.clients[0].get(b"k") is not None)
    base.write(0, 60, b"base")
    base.stop()
    return base


def test_one_member():
    note(f"IOFAIL_FIRST={FIRST}")
    base = make_base(1)
    files = os.path.basename(TMP) + "/case/n1"
    sweep(FILE_CASES, "one member, files", lambda call, error, nth: one_case(base, call, error, nth, files, 45))
    sweep(NET_CASES, "one member, sockets", lambda call, error, nth: one_case(base, call, error, nth, "socket:", 45))


def one_of_three(base, call, error, nth, path):
    """The fault is on the second member; the others go on without it, and it comes back to what they know."""
    run = Run("case", copy_of=base)
    fired = os.path.join(run.dir, "fired")
    try:
        run.start(0)
        run.start(2)
        run.start(1, fault(call, error, nth, path, fired))
        wrong = run.wrong(0)
        run.write(1, 20, b"x")
        run.write(0, 30, b"y")
        wrong = wrong or run.wrong(2)
        did = "went on" if run.alive(1) else "stopped"
        if run.alive(1):
            wrong = wrong or run.wrong(1)
        did = "went on" if run.alive(1) else "stopped"
        if did == "stopped":
            wrong = (None if wrong == DEAD else wrong) or ended_well(run, 1)
            run.start(1)
        came = open(fired).read().strip() if os.path.exists(fired) else None
        if came:
            run.write(0, 3, b"z")
            wrong = wrong or run.wrong(1) or run.wrong(2)
            before = run.clients[0].get(b"k", b"l")
            if not wrong and run.clients[1].get(b"k", b"l") != before:
                wrong = "the members differ"
        return came, wrong and f"{came}: {wrong}\n{run.log(1)[-3000:]}", did
    finally:
        run.stop()
        shutil.rmtree(run.dir, ignore_errors=True)


def test_three_members():
    base = make_base(3)
    files = os.path.basename(TMP) + "/case/n2"
    sweep(FILE_CASES if LONG else [("sync", errno.EIO), ("write", errno.ENOSPC), ("read", errno.EIO)], "one of three, files",
          lambda call, error, nth: one_of_three(base, call, error, nth, files))
    sweep(NET_CASES if LONG else [("read,recv", errno.ECONNRESET), ("write,send", errno.EPIPE), ("connect", errno.ENETUNREACH)],
          "one of three, sockets", lambda call, error, nth: one_of_three(base, call, error, nth, "socket:"))


main(test_one_member, test_three_members)
