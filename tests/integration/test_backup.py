#!/usr/bin/env python3
"""Snapshots: saved under load, checked, restored into three new members; damaged files; a member that only a snapshot can help;
servers with broken files."""
import json, os, shutil, signal, sys, threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *

TMP = temp_dir()


def dump(c, rev=0):
    out = c.ctl("get", "", "--from-key", "-w", "json", *(["--rev", str(rev)] if rev else []))
    return [(k["key"], k.get("value"), k["mod_revision"], k["create_revision"], k["version"], k.get("lease")) for k in json.loads(out.stdout).get("kvs", [])]


def test_backup_restore():
    c = Cluster(3, dir=os.path.join(TMP, "a")) if os.makedirs(os.path.join(TMP, "a")) is None else None
    c.start().wait_healthy()
    for i in range(50):
        c.ctl("put", f"/k/{i}", "v" * 100)
    lease = c.ctl("lease", "grant", "600").stdout.split()[1]
    c.ctl("put", "/leased", "x", "--lease", lease)
    c.ctl("del", "/k/7")
    stop = threading.Event()

    def load():
        while not stop.is_set():
            c.ctl("put", "/load", "y")
    t = threading.Thread(target=load)
    t.start()
    wait_for("load", lambda: c.ctl("get", "/load").stdout)
    snap = os.path.join(TMP, "backup")
    out = c.ctl("snapshot", "save", snap, endpoints=c.urls[:1])
    stop.set()
    t.join()
    ok(out.returncode == 0 and os.path.exists(snap), "snapshot save works under load", out.stdout + out.stderr)
    out = run(PINTLE, "ctl", "snapshot", "status", snap, "-w", "json")
    ok(out.returncode == 0, "snapshot status checks it", out.stderr)
    st = json.loads(out.stdout)
    ok(st["revision"] > 50 and st["totalKey"] == 51, "snapshot status tells revision and keys", out.stdout)
    before = dump(c, st["revision"])
    c.stop()

    d = Cluster(3, dir=os.path.join(TMP, "b"), token="other") if os.makedirs(os.path.join(TMP, "b")) is None else None
    for i in range(3):
        out = run(PINTLE, "ctl", "snapshot", "restore", snap, "--name", d.names[i], "--data-dir", d.data(i), "--initial-cluster", d.initial,
                  "--initial-cluster-token", "other")
        ok(out.returncode == 0, f"restore for member {d.names[i]}", out.stdout + out.stderr)
    d.start().wait_healthy()
    ok(dump(d) == before and before, "the restored cluster has the same keys at the same revisions", (dump(d)[:3], before[:3]))
    out = d.ctl("lease", "timetolive", lease, "--keys")
    ok("/leased" in out.stdout, "leases are restored too", out.stdout)
    out = d.ctl("put", "/after", "1", "-w", "json")
    ok(json.loads(out.stdout)["header"]["revision"] == st["revision"] + 1, "revisions go on from there", out.stdout)
    wait_for("equal hashes", lambda: len(set(d.hashes())) == 1)
    ok(True, "all members agree")
    d.stop()

    out = run(PINTLE, "ctl", "snapshot", "restore", snap, "--name", "n1", "--data-dir", d.data(0), "--initial-cluster", d.initial)
    ok(out.returncode == 1 and "exists" in out.stderr, "a folder that exists is refused", out.stderr)
    data = open(snap, "rb").read()
    broken = os.path.join(TMP, "broken")
    for name, bad in [("one flipped bit", data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1:]),
                      ("a cut end", data[:-40]), ("no snapshot", b"x" * 100), ("an empty file", b"")]:
        open(broken, "wb").write(bad)
        target = os.path.join(TMP, "untouched")
        out = run(PINTLE, "ctl", "snapshot", "restore", broken, "--name", "n1", "--data-dir", target, "--initial-cluster", d.initial)
        ok(out.returncode == 1 and "Error: " in out.stderr and not os.path.exists(target), f"{name} is refused, the target untouched", out.stderr)
        note(out.stderr.strip())


def test_catch_up_by_snapshot():
    dir = os.path.join(TMP, "c")
    os.makedirs(dir)
    c = Cluster(3, dir=dir, flags=["--snapshot-log-bytes", "100000", "--wal-segment-bytes", "65536"])
    c.start().wait_healthy()
    c.kill(2)
    wait_for("the others to lead on", lambda: c.healthy(0, 1))
    out = run(PINTLE, "bench", "put", "--endpoints", ",".join(c.urls[:2]), "--total", "20000", "--clients", "50", "--conns", "5", "-o", "json", timeout=120)
    ok(json.loads(out.stdout)["done"] == 20000, "two of three members take writes", out.stdout + out.stderr)
    c.start(2)
    wait_for("the third member's catching up", lambda: c.healthy(2) and len(set(c.hashes())) == 1, 60)
    ok(True, "a member that was away beyond the log catches up by a snapshot")
    log = open(c.log(2)).read()
    ok("sent by the leader" in log, "its log says so", log[-2000:])
    c.stop()
    c.start().wait_healthy()
    wait_for("equal hashes", lambda: len(set(c.hashes())) == 1)
    ok(True, "and after a restart of all they agree")
    c.stop()


def test_damaged_data_folder():
    dir = os.path.join(TMP, "d")
    os.makedirs(dir)
    c = Cluster(1, dir=dir)
    c.start().wait_healthy()
    for i in range(20):
        c.ctl("put", f"k{i}", "v" * 1000)
    c.stop()
    wal = os.path.join(c.data(0), "wal")
    file = sorted(os.path.join(wal, f) for f in os.listdir(wal))[0]
    data = bytearray(open(file, "rb").read())
    at = next(i for i in range(2000, len(data)) if data[i:i + 50] == b"v" * 50)
    data[at] ^= 1
    open(file, "wb").write(data)
    out = run(*c.command(0), timeout=30)
    ok(out.returncode == 1 and os.path.basename(file) in out.stderr, "a flipped bit in the log is refused with its file", out.stderr[-600:])
    note(out.stderr.strip().split("\n")[-1])


def test_full_disk():
    """A member whose disk is full stops with a clear last line; the others go on; with room again it comes back."""
    dir = os.path.join(TMP, "e")
    os.makedirs(dir)
    c = Cluster(3, dir=dir, flags=["--wal-segment-bytes", "262144", "--snapshot-log-bytes", "200000"])
    os.makedirs(c.data(2))
    if run("mount", "-t", "tmpfs", "-o", "size=4m", "pintle-test", c.data(2)).returncode != 0:
        skip("a member that cannot write stops with a clear last line", "mounting a small file system needs root")
        return
    at_exit(lambda: run("umount", "-l", c.data(2)))
    c.start().wait_healthy()
    ballast = os.path.join(c.data(2), "ballast")
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, b"x" * 4096)
    except OSError:
        os.close(fd)
    run(PINTLE, "bench", "put", "--endpoints", ",".join(c.urls[:2]), "--total", "20000", "--clients", "20", "--conns", "2", "-o", "json", timeout=120)
    wait_for("the full member to stop", lambda: c.procs[2].poll() is not None, 60)
    last = open(c.log(2)).read().strip().split("\n")[-1]
    ok(c.procs[2].returncode == 1 and "No space left" in last, "a member whose disk is full stops with a clear last line", last)
    note(last)
    ok(c.healthy(0, 1) and c.ctl("put", "still", "here", endpoints=c.urls[:2]).returncode == 0, "the others go on")
    run("mount", "-o", "remount,size=64m", c.data(2))
    os.unlink(ballast)
    c.start(2)
    wait_for("the member to come back", lambda: c.healthy(2) and len(set(c.hashes())) == 1, 60)
    ok(True, "with room again it comes back and catches up")
    c.stop()


main(test_backup_restore, test_catch_up_by_snapshot, test_damaged_data_folder, test_full_disk)
