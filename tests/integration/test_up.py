#!/usr/bin/env python3
"""`pintle up`, `status`, `down`: a whole control plane, refused starts, the data that stays, and a killed leader."""
import json, os, shutil, signal, socket, sys, threading, time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *

DIR = os.path.join(temp_dir(), "cp")
RESTORED, SNAPSHOT = DIR + ".restored", DIR + ".snapshot"
BASE = free_base_port()
UP = (PINTLE, "up", "--detach", "--dir", DIR, "--base-port", BASE)


def status():
    out = run(PINTLE, "status", "--dir", DIR, "-o", "json")
    return json.loads(out.stdout)


def endpoints():
    return ",".join(m["client_url"] for m in status()["members"])


def test_up():
    at_exit(lambda: run(PINTLE, "down", "--dir", DIR))
    out = run(*UP, timeout=90)
    ok(out.returncode == 0 and "ready" in out.stdout, "up --detach returns when all is ready", out.stdout + out.stderr)
    s = status()
    ok(s["ready"] is True and len(s["members"]) == 3 and s["nodes"] == 3, "status says so", s)
    ok(sum(m["leader"] for m in s["members"]) == 1, "one member leads", s)
    ok(all(set(m) == {"name", "pid", "client_url", "peer_url", "kube_url", "leader"} for m in s["members"]), "status has the agreed fields", s)
    ok(os.path.exists(os.path.join(DIR, "admin.kubeconfig")), "admin.kubeconfig is there")
    out = run(*UP, timeout=90)
    ok(out.returncode == 0 and "already running" in out.stdout, "a second up is content with what runs", out.stdout + out.stderr)
    for flags in (("--nodes", 5), ("--restart=false",)):
        out = run(*UP, *flags, timeout=90)
        ok(out.returncode == 1 and "it runs already" in out.stderr and "--nodes 3" in out.stderr and not out.stdout,
           f"but says that it does not apply other settings: {flags}", out.stdout + out.stderr)


def test_layout():
    def keys():
        return set(run(PINTLE, "ctl", "--endpoints", endpoints(), "get", "/registry", "--prefix", "--keys-only").stdout.split())
    want = {"/registry/namespaces/default", "/registry/namespaces/kube-system", "/registry/minions/node-1", "/registry/services/specs/default/kubernetes",
            "/registry/leases/kube-node-lease/node-1"}
    try:
        wait_for("the keys", lambda: want <= keys())  # an agent's first lease comes after its node
    except AssertionError:
        pass
    ok(want <= keys(), "the keys are where Kubernetes people look for them", sorted(keys()))


def test_kill_leader():
    acked, stop, gaps = [], threading.Event(), []
    urls = endpoints()

    def write():
        i = 0
        while not stop.is_set():
            began = time.time()
            out = run(PINTLE, "ctl", "--endpoints", urls, "put", f"/kill/{i:05d}", str(i), timeout=30)
            if out.returncode == 0:
                acked.append(i)
                gaps.append(time.time() - began)
            i += 1

    t = threading.Thread(target=write)
    t.start()
    wait_for("some writes", lambda: len(acked) > 20)
    leader = next(m for m in status()["members"] if m["leader"])
    n = len(acked)
    os.kill(leader["pid"], signal.SIGKILL)
    wait_for("writes after the kill", lambda: len(acked) > n + 20, 120)
    stop.set()
    t.join()
    out = run(PINTLE, "ctl", "--endpoints", urls, "get", "/kill/", "--prefix", "--keys-only")
    have = set(out.stdout.split())
    missing = [i for i in acked if f"/kill/{i:05d}" not in have]
    ok(not missing, "every acknowledged write is there after kill -9 of the leader", missing[:10])
    note(f"longest write around the kill: {max(gaps):.2f} s")
    wait_for("all members again", lambda: status()["ready"], 120)
    new = next(m for m in status()["members"] if m["name"] == leader["name"])
    ok(new["pid"] != leader["pid"], "the killed member was started again", new)

    def same():
        out = run(PINTLE, "ctl", "--endpoints", urls, "endpoint", "hashkv", "-w", "json", "--rev", "20")
        return len({h["HashKV"]["hash"] for h in json.loads(out.stdout)}) == 1
    ok(wait_for("equal hashes", same), "it caught up: all members have the same hash")


def test_data_stays():
    run(PINTLE, "ctl", "--endpoints", endpoints(), "put", "/stays", "here")
    out = run(PINTLE, "down", "--dir", DIR, timeout=60)
    ok(out.returncode == 0, "down stops it", out.stdout + out.stderr)
    ok(status()["ready"] is False, "status says that nothing runs")
    out = run(*UP, timeout=90)
    ok(out.returncode == 0, "the same command starts it again", out.stdout + out.stderr)
    out = run(PINTLE, "ctl", "--endpoints", endpoints(), "get", "/stays")
    ok(out.stdout == "/stays\nhere\n", "with its data", out.stdout + out.stderr)
    out = run(PINTLE, "down", "--dir", DIR, timeout=60)
    before = sorted(os.listdir(DIR))
    for flags in (("--members", 5), ("--base-port", BASE + 500), ("--base-port", 2379), ("--secure",)):
        out = run(PINTLE, "up", "--detach", "--dir", DIR, *flags, timeout=90)
        ok(out.returncode == 2 and "was made with --members 3 --base-port" in out.stderr, f"other settings than the data's: {flags}", out.stderr)
    ok(sorted(os.listdir(DIR)) == before, "and nothing is changed by asking", os.listdir(DIR))
    pki, kept = os.path.join(DIR, "pki"), DIR + ".ca.key"
    ca = open(os.path.join(pki, "ca.crt")).read()
    os.rename(os.path.join(pki, "ca.key"), kept)
    os.remove(os.path.join(pki, "server.key"))
    out = run(*UP, timeout=90)
    ok(out.returncode != 0 and "ca.key: No such file or directory" in out.stderr, "a CA that has lost its key is not replaced", out.stderr)
    os.rename(kept, os.path.join(pki, "ca.key"))
    out = run(PINTLE, "up", "--detach", "--dir", DIR, timeout=90)
    ok(open(os.path.join(pki, "ca.crt")).read() == ca and os.stat(os.path.join(pki, "server.key")).st_mode & 0o777 == 0o600 and
       not [f for f in os.listdir(pki) if f.endswith(".part")], "a lost key of a server is made again, with its certificate", os.listdir(pki))
    ok(out.returncode == 0 and str(BASE) in out.stdout, "the data's settings need not be said again", out.stdout + out.stderr)
    out = run(PINTLE, "ctl", "--endpoints", status()["members"][0]["client_url"], "snapshot", "save", SNAPSHOT)
    ok(out.returncode == 0, "a snapshot is saved", out.stderr)


def test_supervisor_killed():
    with open(os.path.join(DIR, "state.json")) as f:
        state = json.load(f)
    os.kill(state["pid"], signal.SIGKILL)
    alive = lambda: [p["pid"] for p in state["processes"] if os.path.exists(f"/proc/{p['pid']}/exe")]
    out = run(PINTLE, "status", "--dir", DIR)
    ok(out.returncode == 1 and "supervisor" in out.stdout and "still run" in out.stdout, "status tells of processes without a supervisor", out.stdout)
    out = run(*UP, timeout=90)
    ok(out.returncode == 0 and not alive(), "up stops them and continues", out.stdout + out.stderr + str(alive()))
    run(PINTLE, "down", "--dir", DIR, timeout=60)


def test_without_leader():
    run(*UP, "--restart=false", timeout=90)
    members = status()["members"]
    for m in members[1:]:
        os.kill(m["pid"], signal.SIGKILL)
    s = wait_for("a status without a leader", lambda: (lambda s: s if not any(m["leader"] for m in s["members"]) else None)(status()))
    ok(s["ready"] is False and s["nodes"] == 0, "no node is called ready where nobody can be asked", s)
    run(PINTLE, "down", "--dir", DIR, timeout=60)


def test_restored():
    cluster = ",".join(f"n{i + 1}=http://127.0.0.1:{BASE + 10 * i + 1}" for i in range(3))
    for i in range(3):
        out = run(PINTLE, "ctl", "snapshot", "restore", SNAPSHOT, "--name", f"n{i + 1}", "--data-dir", os.path.join(RESTORED, f"n{i + 1}"),
                  "--initial-cluster-token", "pintle-up", "--initial-cluster", cluster)
        ok(out.returncode == 0, f"n{i + 1} is restored", out.stderr)
    up = (PINTLE, "up", "--detach", "--dir", RESTORED)
    out = run(*up, "--base-port", BASE + 50)
    ok(out.returncode == 2 and f"127.0.0.1:{BASE + 1}" in out.stderr and f"127.0.0.1:{BASE + 51}" in out.stderr,
       "restored members of other ports are refused at once", out.stdout + out.stderr)
    out = run(*up, "--base-port", BASE, "--members", 1)
    ok(out.returncode == 2 and "of 3 members, not of 1" in out.stderr, "and of another number", out.stdout + out.stderr)
    ok(sorted(os.listdir(RESTORED)) == ["n1", "n2", "n3"], "nothing is recorded by it", os.listdir(RESTORED))
    at_exit(lambda: run(PINTLE, "down", "--dir", RESTORED))
    out = run(*up, "--base-port", BASE, timeout=90)
    ok(out.returncode == 0, "with the right ports they start", out.stdout + out.stderr)
    out = run(PINTLE, "ctl", "--endpoints", f"127.0.0.1:{BASE}", "get", "/stays")
    ok(out.stdout == "/stays\nhere\n", "and have the data", out.stdout + out.stderr)
    run(PINTLE, "down", "--dir", RESTORED, timeout=60)
    os.unlink(os.path.join(RESTORED, "settings.json"))
    out = run(*up, "--base-port", BASE + 50)
    ok(out.returncode == 2 and f"127.0.0.1:{BASE + 51}" in out.stderr, "members that have run are known, too", out.stdout + out.stderr)


def test_binary_missing():
    d, copy = DIR + ".copy", os.path.join(DIR + ".bin", "pintle")
    os.makedirs(DIR + ".bin")
    shutil.copy(PINTLE, copy)
    at_exit(lambda: run(PINTLE, "down", "--dir", d))
    out = run(copy, "up", "--detach", "--members", "1", "--nodes", "1", "--dir", d, "--base-port", BASE + 70, timeout=90)
    ok(out.returncode == 0, "a control plane of a binary", out.stdout + out.stderr)

    def process(name):
        with open(os.path.join(d, "state.json")) as f:
            return next(p["pid"] for p in json.load(f)["processes"] if p["name"] == name)
    member, killed = process("n1"), process("scheduler-1")
    os.rename(copy, copy + ".away")
    os.kill(killed, signal.SIGKILL)
    wait_for("that it is missed", lambda: process("scheduler-1") == 0)
    time.sleep(2.5)  # past the first try to start it again
    os.rename(copy + ".away", copy)
    ok(wait_for("a new one", lambda: process("scheduler-1") not in (0, killed), 30) and process("n1") == member,
       "a process that cannot be started again is tried later, and stops nothing else")
    run(PINTLE, "down", "--dir", d, timeout=60)


def test_refusals():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", BASE + 10))
    s.listen()
    out = run(*UP, timeout=60)
    ok(out.returncode == 1 and f"port {BASE + 10} cannot be used" in out.stderr, "a port in use is said in one sentence", out.stdout + out.stderr)
    ok(len(out.stderr.strip().split("\n")) == 1, "and only one", out.stderr)
    ok("--base-port" not in out.stderr, "other ports are not advised where there is data", out.stderr)
    out = run(PINTLE, "up", "--detach", "--dir", DIR + ".new", "--base-port", BASE)
    ok(out.returncode == 1 and "choose others with --base-port" in out.stderr, "but where there is none", out.stderr)
    s.close()
    out = run(PINTLE, "up", "--detach", "--dir", "/proc/nowhere", "--base-port", BASE)
    ok(out.returncode == 1 and "cannot create folder /proc/nowhere" in out.stderr, "an unwritable folder is said", out.stderr)
    out = run(PINTLE, "up", "--members", "2", "--dir", DIR)
    ok(out.returncode == 2 and "--members" in out.stderr, "an even number of members is refused", out.stderr)
    out = run(PINTLE, "up", "--frobnicate")
    ok(out.returncode == 2 and "unknown flag" in out.stderr, "an unknown flag is refused", out.stderr)
    for c in ("up", "down", "status", "server", "scheduler", "controllers", "agent", "ctl", "bench"):
        out = run(PINTLE, c, "--help")
        ok(out.returncode == 0 and "Usage" in out.stdout, f"{c} --help", out.stdout + out.stderr)


main(test_up, test_layout, test_kill_leader, test_data_stays, test_supervisor_killed, test_without_leader, test_restored, test_binary_missing, test_refusals)
