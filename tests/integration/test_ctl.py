#!/usr/bin/env python3
"""`pintle ctl`: its words where a command is not one."""
import os, sys
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


main(test_groups)
