#!/usr/bin/env python3
"""How `pintle server` starts: what it refuses in one sentence, and what its log says first."""
import os, re, socket, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *

DIR = temp_dir()
HTTP, HTTPS, ELSEWHERE = "http://127.0.0.1:1", "https://127.0.0.1:1", "http://0.0.0.0:1"


def refused(what, text, *flags):
    out = run(PINTLE, "server", "--data-dir", os.path.join(DIR, "none"), *flags)
    ok(out.returncode == 1 and text in out.stderr and not os.path.exists(os.path.join(DIR, "none")), what, out.stderr)


def test_without_tls():
    auth = ("--client-cert-auth", "--trusted-ca-file", "ca.crt")
    refused("--client-cert-auth with an http URL is refused", "needs https in all --listen-client-urls", *auth, "--listen-client-urls", HTTP)
    refused("also beside an https one", "needs https in all --listen-client-urls", *auth, "--listen-client-urls", HTTPS + "," + HTTP)
    refused("--peer-client-cert-auth with an http URL is refused", "needs https in --listen-peer-urls", "--peer-client-cert-auth", "--listen-peer-urls", HTTP)
    refused("--kube-listen http://... is refused beyond loopback", "only on a loopback address", "--kube-listen", ELSEWHERE)


def test_files():
    tls = ("--listen-peer-urls", HTTPS, "--peer-cert-file", "/nope", "--peer-key-file", "/nope")
    out = run(PINTLE, "server", "--data-dir", os.path.join(DIR, "tls"), *tls)
    ok(out.returncode == 1 and "/nope: No such file or directory" in out.stderr, "a certificate that is missing is said so", out.stderr)


def fill(port):
    """Connections that say nothing, until one is refused."""
    idle = []
    while len(idle) < 2000:
        s = socket.create_connection(("127.0.0.1", port), timeout=10)
        s.settimeout(0.02)
        try:
            if s.recv(1) == b"":
                s.close()
                return idle
        except ConnectionResetError:
            s.close()
            return idle
        except socket.timeout:
            idle.append(s)
    return idle


def test_idle_connections():
    """Files that connections cannot take: else the log's next one could not be opened, and the member would stop."""
    c = Cluster(1, dir=os.path.join(DIR, "idle"), flags=("--wal-segment-bytes", "65536"))
    os.makedirs(c.dir)
    c.procs[0] = start("sh", "-c", "ulimit -n 400; exec \"$@\"", "sh", *c.command(0), log=c.log(0))
    c.wait_healthy()
    idle = fill(c.ports[0])
    ok(len(idle) >= 150, "half of its 400 descriptors are for connections", len(idle))
    puts = []
    for i in range(8):
        idle.pop().close()
        puts.append(wait_for("a put", lambda: c.ctl("put", f"k{i}", "x" * 30000).returncode == 0))
        idle += fill(c.ports[0])
    ok(c.procs[0].poll() is None and len(os.listdir(os.path.join(c.data(0), "wal"))) > 3, "the log goes on in its next files", puts)
    c.stop()


def first_lines(c):
    with open(c.log(0)) as f:
        return re.findall(r"server: ((?:beginning|going on|joining).*)", f.read())


def test_first_line():
    c = Cluster(1, dir=DIR).start().wait_healthy()
    c.stop()
    c.start().wait_healthy()
    c.stop()
    lines = first_lines(c)
    ok(len(lines) == 2 and lines[0].startswith("beginning a new cluster") and lines[1].startswith("going on with the data folder"),
       "the log says whether a cluster is begun or a folder goes on", lines)
    ids = [re.findall(r"(?:member|cluster)=[0-9a-f]+", line) for line in lines]
    ok(len(ids[0]) == 2 and ids[0] == ids[1], "with the same ids", lines)


main(test_without_tls, test_files, test_first_line, test_idle_connections)
