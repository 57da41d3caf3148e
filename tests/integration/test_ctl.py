#!/usr/bin/env python3
"""`pintle ctl`: its words where a command is not one or a file or host is none, and its output formats beside those of etcdctl."""
import os, re, subprocess, sys
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
    wait_for("the member's own entry, the last that nobody asks for", lambda: C.urls[0] in ctl("member", "list").stdout)
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


def test_txn():
    """Words and strings of txn, as etcdctl reads them; what cannot be read changes nothing."""
    def lines(compares, then):
        return "".join(c + "\n" for c in compares) + "\n" + "".join(t + "\n" for t in then) + "\n\n"

    def both(name, compares, then):
        if not ETCDCTL:
            return skip(name, "no etcdctl")
        command = ("--endpoints", C.urls[0], "txn")
        theirs, ours = (run(*p, *command, input=lines(compares, then)) for p in ((ETCDCTL,), (PINTLE, "ctl")))
        ok((theirs.returncode == 0) == (ours.returncode == 0) and theirs.stdout == ours.stdout, name + " as etcdctl",
           theirs.stdout + theirs.stderr + ours.stdout + ours.stderr)
    long = "x" * 5000
    for name, key, value in (("empty", "t/empty", ""), ("long", "t/long", long), ("longer", "t/longer", long + "y"), ("quoted", "t/quoted", 'a "b" \\ c'), ("of lines", "t/lines", "a\nb\té")):
        ok(ctl("put", key, value).returncode == 0, f"a value that is {name}")
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\x09").replace("é", "\\u00e9")
        both(f"a compare with a value that is {name}", [f'value("{key}") = "{quoted}"'], [f'get {key}'])
        both("and it is put as it is", [], [f'put {key} "{quoted}"', f"get {key}"])
        ok(ctl("get", key, "--print-value-only").stdout == value + "\n", "so", value)
    both("a compare with the beginning of a long value", [f'value("t/longer") = "{long}"'], ["get t/longer"])
    both("a backslash outside of quotes", [], ["put t/back a\\nb", "get t/back"])
    out = run(PINTLE, "ctl", "--endpoints", C.urls[0], "txn", input=lines([], ["put t/single 'a  \"b'", "get t/single"]))
    ok(out.stdout == "SUCCESS\n\nOK\n\nt/single\na  \"b\n", "what is in single quotes stays as it is (etcdctl cuts it)", out.stdout)
    before = ctl("get", "t/", "--prefix").stdout
    for compare in ('value("t/long") = "x', 'value("t/long") = "\\z"', 'value("t/long") = "a" b', 'value("t/long") == "a"', 'mod("t/long") = "1x"', "mod(t/long) = 1",
                    'mod("t/long") = ', 'mod("t/long") > "99999999999999999999"', 'lease("t/long") = "xyz"', 'size("t/long") = "1"', 'value("t/long" = "a"'):
        out = run(PINTLE, "ctl", "--endpoints", C.urls[0], "txn", input=lines([compare], ["put t/long bad"]))
        ok(out.returncode == 1 and out.stderr.startswith("Error: ") and not out.stdout, f"a compare that is none: {compare}", out.stdout + out.stderr)
    for op in ("put t/long", 'put t/long "bad', "put t/long bad more", "put t/long a" + " b" * 20, 'put t/long "\\x00"', "puts t/long bad"):
        out = run(PINTLE, "ctl", "--endpoints", C.urls[0], "txn", input=lines([], [op]))
        ok(out.returncode == 1 and out.stderr.startswith("Error: ") and not out.stdout, f"a request that is none: {op[:30]}", out.stdout + out.stderr)
    ok(ctl("get", "t/", "--prefix").stdout == before, "and nothing was written")


def test_input_and_output():
    command = (PINTLE, "ctl", "--endpoints", C.urls[0])
    with open("/dev/full", "w") as full:
        out = subprocess.run([*command, "get", "t/", "--prefix"], stdout=full, stderr=subprocess.PIPE, text=True)
    ok(out.returncode == 1 and "standard output could not be written" in out.stderr, "an answer that cannot be written is an error", out.stderr)
    folder = os.open("/", os.O_RDONLY)
    out = subprocess.run([*command, "put", "t/long"], stdin=folder, capture_output=True, text=True)
    os.close(folder)
    ok(out.returncode == 1 and "standard input: Is a directory" in out.stderr, "so is a value that cannot be read", out.stderr)
    ok(ctl("get", "t/long", "--print-value-only").stdout == "x" * 5000 + "\n", "and nothing was written")


main(test_groups, test_errors, test_formats, test_txn, test_input_and_output)
