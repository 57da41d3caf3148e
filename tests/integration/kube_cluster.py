"""A Kubernetes API of one or three `pintle server` processes for tests, with certificates made by openssl, and a small client.

Python's standard library only. Everything is on 127.0.0.1; every process that is started is stopped by its id.
"""
import atexit
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

PINTLE = os.environ.get("PINTLE") or os.path.join(os.path.dirname(__file__), "../../build/pintle")
FIRST_PORT = int(os.environ.get("KUBE_TEST_PORT", "24100"))


class Tap:
    """Counts and prints; a failed check says where."""

    def __init__(self):
        self.n = 0
        self.failed = 0

    def check(self, name, ok, detail=""):
        self.n += 1
        print(("ok %d - %s" if ok else "not ok %d - %s") % (self.n, name), flush=True)
        if not ok:
            self.failed += 1
            for line in str(detail).splitlines()[:30]:
                print("#   " + line[:400], flush=True)
        return ok

    def equal(self, name, got, want):
        return self.check(name, got == want, "got  %r\nwant %r" % (got, want))

    def skip(self, name, why):
        self.n += 1
        print("ok %d - %s # SKIP %s" % (self.n, name, why), flush=True)

    def done(self):
        print("1..%d" % self.n, flush=True)
        sys.exit(1 if self.failed else 0)


def free_ports(n):
    ports, port = [], FIRST_PORT + os.getpid() % 40 * 20
    while len(ports) < n:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                ports.append(port)
            except OSError:
                pass
        port += 1
    return ports


def wait_for(what, seconds=120.0, step=0.05):
    """Waits for a condition; returns what it returned at last."""
    end = time.time() + seconds
    while True:
        got = what()
        if got or time.time() > end:
            return got
        time.sleep(step)


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "%d %s" % (self.status, self.body[:600])


class Cluster:
    def __init__(self, members=1, extra=()):
        if not os.access(PINTLE, os.X_OK):
            print("Bail out! no server program at %s" % PINTLE)
            sys.exit(1)
        self.dir = tempfile.mkdtemp(prefix="pintle-kube-")
        self.extra = list(extra)
        self.procs = [None] * members
        self.ports = free_ports(3 * members)
        atexit.register(self.close)
        self.make_pki()
        for i in range(members):
            self.start(i)
        if not self.wait_ready():
            print("Bail out! the servers did not become ready:\n" + self.logs())
            sys.exit(1)

    # ---- processes

    def kube_port(self, i):
        return self.ports[3 * i + 2]

    def start(self, i):
        n = len(self.procs)
        peers = ",".join("m%d=http://127.0.0.1:%d" % (j, self.ports[3 * j + 1]) for j in range(n))
        d = self.dir
        log = open(os.path.join(d, "m%d.log" % i), "ab")
        self.procs[i] = subprocess.Popen(
            [PINTLE, "server", "--name", "m%d" % i, "--data-dir", os.path.join(d, "m%d" % i),
             "--listen-client-urls", "http://127.0.0.1:%d" % self.ports[3 * i],
             "--listen-peer-urls", "http://127.0.0.1:%d" % self.ports[3 * i + 1],
             "--initial-cluster", peers, "--initial-cluster-state", "new",
             "--kube-listen", "https://127.0.0.1:%d" % self.kube_port(i),
             "--kube-cert-file", d + "/server.crt", "--kube-key-file", d + "/server.key",
             "--kube-client-ca-file", d + "/ca.crt", "--kube-token-file", d + "/tokens.csv"] + self.extra,
            stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()

    def kill(self, i):
        p = self.procs[i]
        if p and p.poll() is None:
            p.kill()
            p.wait()

    def stop(self, i, seconds=10):
        """Terminates it as a supervisor would; its exit status, or None if it had to be killed."""
        p = self.procs[i]
        p.terminate()
        try:
            return p.wait(seconds)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            return None

    def close(self):
        for i, p in enumerate(self.procs):
            if p and p.poll() is None:
                p.terminate()
        for i, p in enumerate(self.procs):
            if p:
                try:
                    p.wait(5)
                except subprocess.TimeoutExpired:
                    self.kill(i)
        if os.environ.get("KEEP"):
            print("# kept " + self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def logs(self):
        text = ""
        for i in range(len(self.procs)):
            with open(os.path.join(self.dir, "m%d.log" % i), errors="replace") as f:
                text += "".join("# m%d: %s" % (i, line) for line in f.readlines()[-15:])
        return text

    def wait_ready(self, seconds=20):
        def ready():
            try:
                made = all(self.request("GET", "/readyz", member=i).status == 200 for i in range(len(self.procs))
                           if self.procs[i].poll() is None)
                return made and self.request("GET", "/api/v1/namespaces/default/endpoints/kubernetes").status == 200
            except (OSError, http.client.HTTPException):
                return False
        return wait_for(ready, seconds)

    # ---- certificates

    def openssl(self, *args, stdin=None):
        subprocess.run(["openssl"] + list(args), cwd=self.dir, check=True, input=stdin,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def make_cert(self, name, subject, ca="ca"):
        with open(os.path.join(self.dir, "ext"), "w") as f:
            f.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name + ".key",
                     "-out", name + ".csr", "-subj", subject)
        self.openssl("x509", "-req", "-in", name + ".csr", "-CA", ca + ".crt", "-CAkey", ca + ".key", "-CAcreateserial",
                     "-out", name + ".crt", "-days", "2", "-extfile", "ext")

    def make_ca(self, name):
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                     name + ".key", "-out", name + ".crt", "-days", "2", "-subj", "/CN=" + name)

    def make_pki(self):
        self.make_ca("ca")
        self.make_cert("server", "/CN=server")
        self.make_cert("admin", "/O=system:masters/CN=admin")
        with open(os.path.join(self.dir, "tokens.csv"), "w") as f:
            f.write('secret-token,alice,u-1,"dev,ops"\n')

    def context(self, cert="admin", ca="ca"):
        ctx = ssl.create_default_context(cafile=os.path.join(self.dir, ca + ".crt"))
        if cert:
            ctx.load_cert_chain(os.path.join(self.dir, cert + ".crt"), os.path.join(self.dir, cert + ".key"))
        return ctx

    def kubeconfig(self, member=0):
        path = os.path.join(self.dir, "kubeconfig-%d" % member)
        d = self.dir
        if os.path.exists(path):
            return path  # somebody may be reading it
        with open(path, "w") as f:
            json.dump({
                "apiVersion": "v1", "kind": "Config", "current-context": "x",
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:%d" % self.kube_port(member),
                                                       "certificate-authority": d + "/ca.crt"}}],
                "users": [{"name": "u", "user": {"client-certificate": d + "/admin.crt", "client-key": d + "/admin.key"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}, f)
        return path

    # ---- the client

    def connect(self, member=0, cert="admin", timeout=20):
        return http.client.HTTPSConnection("127.0.0.1", self.kube_port(member), timeout=timeout, context=self.context(cert))

    def request(self, method, path, body=None, headers=None, member=0, cert="admin", timeout=20):
        c = self.connect(member, cert, timeout)
        h = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            h.setdefault("Content-Type", "application/json")
        try:
            c.request(method, path, body, h)
            r = c.getresponse()
            return Reply(r.status, r.headers, r.read().decode("utf-8", "replace"))
        finally:
            c.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body, **kw):
        return self.request("POST", path, body, **kw)

    def put(self, path, body, **kw):
        return self.request("PUT", path, body, **kw)

    def delete(self, path, body=None, **kw):
        return self.request("DELETE", path, body, **kw)

    def patch(self, path, body, kind="merge", **kw):
        types = {"merge": "application/merge-patch+json", "json": "application/json-patch+json",
                 "strategic": "application/strategic-merge-patch+json"}
        return self.request("PATCH", path, json.dumps(body), headers={"Content-Type": types.get(kind, kind)}, **kw)

    def watch(self, path, **kw):
        return Watch(self, path, **kw)


class Watch:
    """A watch as an iterator of events with a time limit on each."""

    def __init__(self, cluster, path, member=0, headers=None, timeout=10):
        self.c = cluster.connect(member, timeout=timeout)
        self.c.request("GET", path, headers=headers or {})
        self.r = self.c.getresponse()
        self.status = self.r.status

    def next(self):
        """The next event, or None at the end or when nothing came in time."""
        try:
            line = self.r.readline()
        except (OSError, http.client.HTTPException):
            return None
        return json.loads(line) if line else None

    def take(self, n):
        events = []
        while len(events) < n:
            e = self.next()
            if e is None:
                break
            events.append(e)
        return events

    def close(self):
        self.c.close()
