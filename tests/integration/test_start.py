#!/usr/bin/env python3
"""How `pintle server` starts: what it refuses in one sentence."""
import os, sys
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


main(test_without_tls)
