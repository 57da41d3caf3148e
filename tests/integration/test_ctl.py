#!/usr/bin/env python3
"""`pintle ctl`: its words where a command is not one or a file or host is none, and its output formats beside those of etcdctl."""
import os, re, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *

C = Cluster(1)


def ctl(*args):
    return run(PINTLE, "ctl", "--endpoints", C.urls[0], *args)


def test_groups():
    for group, commands in (("alarm", "list, disarm"), ("endpoint", "health, status, hashkv"), ("snapshot", "save, restore, status")):
        out = ctl(group)
        ok(out.returncode == 2 and out.stderr == f"Error: {group} needs a command: {commands}\n", f"{group} alone says which commands it has", out.stderr)
    out = ctl("endpoint", "foo")
    ok(out.returncode == 2 and out.stderr == 'Error: unknown command "endpoint foo": endpoint has health, status, hashkv\n',
       "so does one with a word that is none of them", out.stderr)
    out = ctl("frobnicate")
    ok(out.returncode == 2 and 'unknown command "frobnicate"' in out.stderr and "Commands:" in out.stderr, "an unknown command gets the list", out.stderr)
    out = ctl("snapshot", "status", "file")
    ok(out.returncode == 2 and "comes before all flags: pintle ctl snapshot status FILE" in out.stderr, "commands on files come before flags", out.stderr)


def same(text):
    """Without what differs from call to call: how long it took, with the padding that follows from it."""
    return re.sub(r" +|-+", " ", re.sub(r"[0-9.]+(µs|ms|s)\b", "TIME", text))


def test_formats():
    C.start().wait_healthy()
    for command in (("endpoint", "status"), ("endpoint", "health"), ("endpoint", "hashkv"), ("member", "list"), ("get", "nothing")):
        for form in ("simple", "fields", "table"):
            if command[0] == "member" and form == "fields":
                continue
            name = f"{' '.join(command)} -w {form}"
            if not ETCDCTL:
                skip(name, "no etcdctl")
                continue
            # etcdctl 3.4 says that an endpoint is healthy on standard error
            theirs, ours = run(ETCDCTL, "--endpoints", C.urls[0], *command, "-w", form), ctl(*command, "-w", form)
            ok((ours.returncode == 0) == (theirs.returncode == 0) and same(ours.stdout) == same(theirs.stdout or (ours.stdout and theirs.stderr)), name + " as etcdctl",
               theirs.stdout + theirs.stderr + ours.stdout + ours.stderr)
    for command in (("get", "a"), ("put", "a", "b"), ("alarm", "list"), ("lease", "grant", "100")):
        out = ctl(*command, "-w", "table")
        ok(out.returncode == 2 and out.stderr.startswith("Error: table is not supported as output format of ") and not out.stdout,
           f"{command[0]} -w table is refused", out.stdout + out.stderr)
    ok(ctl("get", "a").stdout == "", "and nothing was written")
    file = os.path.join(C.dir, "snapshot")
    ctl("snapshot", "save", file)
    out = run(PINTLE, "ctl", "snapshot", "status", file, "-w", "fields")
    ok(out.returncode == 1 and "fields is not supported" in out.stderr, "snapshot status -w fields is refused", out.stdout + out.stderr)


def test_errors():
    for flags in (("--cacert", "/nope"), ("--cert", "/nope", "--key", "/nope")):
        out = run(PINTLE, "ctl", "--endpoints", "127.0.0.1:1", *flags, "get", "a")
        ok(out.returncode == 1 and "/nope: No such file or directory" in out.stderr, f"{flags[0]} of a missing file says so", out.stderr)
    out = run(PINTLE, "ctl", "--endpoints", "no..host:2379", "get", "a")
    ok(out.returncode == 1 and "the name cannot be resolved" in out.stderr, "so does a host that is none", out.stderr)


main(test_groups, test_errors, test_formats)
