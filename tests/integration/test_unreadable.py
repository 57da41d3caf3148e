#!/usr/bin/env python3
"""A disk that cannot read a file any more (iofail.c: EIO from each read of it, under whatever name). One of three members finds that at start,
or by the scrub while it runs, sets the file aside and heals from the others; a single member says which file and what to do, as does one
whose bytes are wrong, and goes on when the file can be read again."""
import errno, glob, os, re, shutil, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *

SHIM = preload(os.path.join(os.environ.get("B", os.path.join(ROOT, "build")), "tests/integration/iofail.so"))
FLAGS = ["--snapshot-log-bytes", "60000", "--wal-segment-bytes", "65536", "--workers", "1"]
KINDS = ["wal/0*.wal", "wal/mark", "snap/0*.snap", "meta", "meta2", "members"]


def path_of(c, i, kind):
    return sorted(glob.glob(os.path.join(c.data(i), kind)))[-1]


def log(c, i):
    with open(c.log(i), errors="replace") as f:
        return f.read()


def unreadable(path, arm=None):
    env = {"LD_PRELOAD": SHIM, "IOFAIL_CALLS": "read", "IOFAIL_ERROR": str(errno.EIO), "IOFAIL_NTH": "1", "IOFAIL_STICKY": "1",
           "IOFAIL_INODE": str(os.stat(path).st_ino)}
    return dict(env, IOFAIL_ARM=arm) if arm else env


def start_with(c, i, env, flags=()):
    os.truncate(c.log(i), 0)
    c.procs[i] = start(*c.command(i), *flags, log=c.log(i), env=env)


def stop(c, i):
    c.procs[i].terminate()
    c.procs[i].wait(30)


def filled(n):
    c = Cluster(n, flags=FLAGS).start().wait_healthy()
    for k in range(60):
        c.ctl("put", f"k/{k}", "x" * 3000)
    wait_for("two snapshots", lambda: all(len(glob.glob(os.path.join(c.data(i), "snap/0*.snap"))) == 2 for i in range(n)), 120)
    return c


def same(c):
    h = c.hashes()
    return len(h) == c.n and len(set(h)) == 1


def whole(c, i, what):
    try:
        wait_for("a healthy member", lambda: c.healthy(i), 120)
        wait_for("equal states", lambda: same(c), 120)
        return ok(True, what)
    except AssertionError as e:
        return ok(False, what, f"{e}\n{log(c, i)[-3000:]}")


def test_at_start():
    c = filled(3)
    for kind in KINDS:
        stop(c, 1)
        c.ctl("put", "meanwhile", kind, endpoints=[c.urls[0]])
        path = path_of(c, 1, kind)
        name = os.path.relpath(path, c.data(1))
        start_with(c, 1, unreadable(path))
        whole(c, 1, f"{kind} cannot be read at start: the member is whole again")
        said = log(c, 1)
        ok(re.search(re.escape(name) + r"(: offset \d+:)?.* cannot be read", said), "... it has said so", said[-2000:])
        if kind.startswith("wal/"):
            ok("damage found at start" in said and "healed member" in said, "... and the others have healed it", said[-2000:])
        stop(c, 1)
        c.start(1)
        c.wait_healthy(1)
    c.stop()


def test_while_it_runs():
    c = filled(3)
    i = c.leader()
    for kind in KINDS[:3]: # the others are made anew by each start
        stop(c, i)
        path, arm = path_of(c, i, kind), os.path.join(c.dir, "arm")
        start_with(c, i, unreadable(path, arm), ["--scrub-interval", "300ms"])
        c.wait_healthy(i)
        wait_for("leadership", lambda: c.ctl("move-leader", "%x" % c.status([c.urls[i]])[0]["header"]["member_id"]).returncode == 0 or
                 c.leader() == i, 120)
        open(arm, "w").close()
        wait_for("the scrub", lambda: "damage " in log(c, i), 120)
        ok(os.path.relpath(path, c.data(i)) in log(c, i).split("damage ")[1].split("\n")[0],
           f"{kind} cannot be read while it leads: the scrub finds it", log(c, i)[-2000:])
        whole(c, i, f"{kind}: the member is whole again")
        os.unlink(arm)
    c.stop()


def refusal(c, env, paths):
    """None: it starts; else what is wrong with what it says when it refuses."""
    start_with(c, 0, env)
    wait_for("its end", lambda: c.procs[0].poll() is not None or c.healthy(0), 120)
    if c.procs[0].poll() is None:
        return None
    said = log(c, 0)
    wrong = []
    if c.procs[0].returncode != 1:
        wrong.append(f"status {c.procs[0].returncode}")
    if not any(re.search(re.escape(os.path.relpath(p, c.data(0))) + r": offset \d+: ", said) for p in paths):
        wrong.append("no file and offset")
    if f"{c.data(0)} is damaged and was left as it is: move it away and restore a backup (pintle ctl snapshot restore" not in said:
        wrong.append("no word of what to do")
    return "; ".join(wrong) + "\n" + said if wrong else ""


def values(c):
    return c.ctl("get", "k/", "--prefix", "--print-value-only").stdout


def test_one_member():
    c = filled(1)
    before, backup = values(c), os.path.join(c.dir, "backup")
    ok(c.ctl("snapshot", "save", backup).returncode == 0, "a backup")
    stop(c, 0)
    for kind in KINDS:
        path = path_of(c, 0, kind)
        said = refusal(c, unreadable(path), [path])
        goes_on = kind in ("meta", "meta2", "members", "wal/mark") or (said is None and kind.startswith("snap"))
        ok(said is None if goes_on else said == "", f"one member, {kind} cannot be read: " +
           ("it goes on" if goes_on else "it names file and offset, and what to do"), said)
        if said is None:
            ok(values(c) == before, "... and nothing is missing")
            stop(c, 0)
        c.start(0).wait_healthy()
        ok(values(c) == before, "... and when it can be read again it starts, with all of it")
        stop(c, 0)
    whole = os.path.join(c.dir, "whole")
    shutil.copytree(c.data(0), whole)
    for kinds in (["meta", "meta2"], ["wal/0*.wal"], ["snap/0*.snap"]):
        paths = [path for kind in kinds for path in glob.glob(os.path.join(c.data(0), kind))]
        for path in paths:
            with open(path, "r+b") as f:
                f.seek(100)
                f.write(b"\x55" * 20)
        said = refusal(c, None, paths)
        ok(said == "", f"one member, {' and '.join(kinds)} damaged: it names file and offset, and what to do", said)
        shutil.rmtree(c.data(0))
        shutil.copytree(whole, c.data(0))
    words = re.search(r"\(pintle (ctl snapshot restore) FILE (.*)\)", log(c, 0))
    shutil.rmtree(c.data(0))
    out = run(PINTLE, *words[1].split(), backup, *words[2].split())
    ok(out.returncode == 0, "what it says can be done", out.stderr)
    c.start(0).wait_healthy()
    ok(values(c) == before, "... and brings the backup back")
    c.stop()


main(test_at_start, test_while_it_runs, test_one_member)
