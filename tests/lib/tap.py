"""TAP output and running programs, for the scripts in tests/integration and tests/compat. Standard library only."""
import json, os, re, shutil, signal, socket, subprocess, sys, tempfile, time, traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PINTLE = os.environ.get("PINTLE", os.path.join(ROOT, "build", "pintle"))
SANITIZED = re.search("/(asan|tsan)/", PINTLE) is not None
PATIENCE = 5 if SANITIZED else 1  # times as long as a test says
ETCDCTL = shutil.which("etcdctl")

_n = _bad = 0
_cleanup = []


def ok(condition, name, detail=""):
    global _n, _bad
    _n += 1
    print(f"{'ok' if condition else 'not ok'} {_n} - {name}", flush=True)
    if not condition:
        _bad += 1
        for line in str(detail).split("\n")[-40:]:
            print(f"#   {line}")
    return condition


def skip(name, why):
    global _n
    _n += 1
    print(f"ok {_n} - {name} # SKIP {why}", flush=True)


def note(text):
    print(f"# {text}", flush=True)


def at_exit(f):
    _cleanup.append(f)


def finish():
    for f in reversed(_cleanup):
        try:
            f()
        except Exception:
            traceback.print_exc()
    print(f"1..{_n}")
    sys.exit(1 if _bad or not _n else 0)


def main(*tests):
    """Runs each test; an exception is a failure of that test. SIGTERM cleans up too."""
    signal.signal(signal.SIGTERM, lambda *a: sys.exit(1))
    try:
        for t in tests:
            try:
                t()
            except Exception:
                ok(False, t.__name__, traceback.format_exc())
    finally:
        finish()


def temp_dir(prefix="pintle-test-"):
    d = tempfile.mkdtemp(prefix=prefix)
    at_exit(lambda: shutil.rmtree(d, ignore_errors=True))
    return d


def run(*args, timeout=60, env=None, input=None, cwd=None):
    e = dict(os.environ, ETCDCTL_API="3", **(env or {}))
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout * PATIENCE, env=e, input=input, cwd=cwd)


def start(*args, log=None, env=None):
    """A process that is killed at the end of the script if it still runs."""
    out = open(log, "ab") if log else subprocess.DEVNULL
    p = subprocess.Popen([str(a) for a in args], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=dict(os.environ, **(env or {})))

    def stop():
        if p.poll() is None:
            p.kill()
            p.wait()
    at_exit(stop)
    return p


def preload(library):
    """For LD_PRELOAD, which a sanitizer's own library must head."""
    return ":".join(re.findall(r"/\S*/lib[at]san\.so\S*", run("ldd", PINTLE).stdout) + [os.path.abspath(library)])


def wait_for(what, condition, timeout=30, step=0.05):
    """Until condition() is true (returned) or an error after `timeout` seconds."""
    timeout *= PATIENCE
    deadline = time.time() + timeout
    last = None
    while time.time() < deadline:
        try:
            last = condition()
            if last:
                return last
        except (OSError, ValueError, subprocess.SubprocessError) as e:
            last = e
        time.sleep(step)
    raise AssertionError(f"{what} did not happen within {timeout} s; last: {last}")


def free_ports(n):
    held = [socket.socket() for _ in range(n)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def free_base_port():
    """A base port for `pintle up` of three members, none of whose ports is in use."""
    first = os.getpid() % 180 * 100  # below the ephemeral ports
    for base in [10000 + (first + n) % 18000 for n in range(0, 18000, 100)]:
        ports = [base + 10 * i + o for i in range(5) for o in (0, 1, 4064)]
        try:
            for p in ports:
                s = socket.socket()
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("127.0.0.1", p))
                s.close()
            return base
        except OSError:
            continue
    raise AssertionError("no free ports")


class Cluster:
    """n `pintle server` processes on loopback."""

    def __init__(self, n=3, flags=(), dir=None, ports=None, token="test"):
        self.n, self.flags, self.token = n, list(flags), token
        self.dir = dir or temp_dir()
        self.ports = ports or free_ports(2 * n)
        self.names = [f"n{i + 1}" for i in range(n)]
        self.urls = [f"http://127.0.0.1:{p}" for p in self.ports[:n]]
        self.peers = [f"http://127.0.0.1:{p}" for p in self.ports[n:2 * n]]
        self.initial = ",".join(f"{a}={b}" for a, b in zip(self.names, self.peers))
        self.procs = [None] * n

    def data(self, i):
        return os.path.join(self.dir, self.names[i])

    def log(self, i):
        return os.path.join(self.dir, self.names[i] + ".log")

    def command(self, i):
        return [PINTLE, "server", "--name", self.names[i], "--data-dir", self.data(i), "--listen-client-urls", self.urls[i],
                "--listen-peer-urls", self.peers[i], "--initial-cluster", self.initial, "--initial-cluster-token", self.token] + self.flags

    def start(self, *which):
        for i in which or range(self.n):
            self.procs[i] = start(*self.command(i), log=self.log(i))
        return self

    def kill(self, i, sig=signal.SIGKILL):
        self.procs[i].send_signal(sig)
        self.procs[i].wait(30)

    def stop(self):
        for p in self.procs:
            if p and p.poll() is None:
                p.terminate()
        for p in self.procs:
            if p:
                p.wait(30)

    def ctl(self, *args, endpoints=None, timeout=30, input=None):
        return run(PINTLE, "ctl", *args, "--endpoints", ",".join(endpoints or self.urls), timeout=timeout, input=input)

    def healthy(self, *which):
        urls = [self.urls[i] for i in which or range(self.n)]
        return self.ctl("endpoint", "health", endpoints=urls).returncode == 0

    def wait_healthy(self, *which):
        wait_for("a healthy cluster", lambda: self.healthy(*which))
        return self

    def status(self, which=None):
        out = self.ctl("endpoint", "status", "-w", "json", endpoints=which)
        return [s["Status"] for s in json.loads(out.stdout or "[]")]

    def leader(self):
        for i in range(self.n):
            if self.procs[i] is None or self.procs[i].poll() is not None:
                continue
            s = self.status([self.urls[i]])
            if s and s[0].get("leader") and s[0]["leader"] == s[0]["header"]["member_id"]:
                return i
        return None

    def hashes(self):
        out = self.ctl("endpoint", "hashkv", "-w", "json")
        return [(h["HashKV"].get("hash", 0), h["HashKV"]["header"].get("revision")) for h in json.loads(out.stdout or "[]")]
