"""Members of a cluster as processes: each in a network namespace of its own behind the switch, with a disk of its own (ext4 on a loop
device) and clocks and syncs under the control of shim.so. What this machine cannot do is left out, and `missing` says why."""
import ctypes, fcntl, json, os, re, shutil, signal, struct, subprocess, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
B = os.path.abspath(os.path.join(ROOT, os.environ.get("B", "build")))
PINTLE = os.environ.get("CHAOS_PINTLE", os.path.join(B, "pintle"))
TOOLS = os.path.join(B, "tests", "chaos")
SHIM_WORDS = ("wall_offset_ns", "drift_ppm", "drift_from_ns", "mono_offset_ns", "sync_delay_us", "write_delay_us", "sync_errno", "write_errno",
              "counted_syncs", "failed")
EXT4_IOC_SHUTDOWN, SHUTDOWN_NO_FLUSH = 0x8004587d, 2
DISK_BYTES = 96 << 20
TWICE = "stopped, it cannot go on safely: another process runs under the ID of this member"
# {why a member may end by itself: what it says then}
EXCUSES = {
    "power loss": "input/output error|read-only file system",
    "a full disk": "no space left on device|error=NO_SPACE",
    "an I/O error": "input/output error|error=IO|no space left on device|error=NO_SPACE",
    "removed": "this member was removed from the cluster",
    "an empty folder": "has run before",
    "a second process under its id": TWICE,
}


class Trouble(Exception):
    """The harness itself cannot go on; not a fault of the cluster."""


def run(*args, timeout=60, check=False, prefix=()):
    p = subprocess.run([*prefix, *map(str, args)], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if check and p.returncode:
        raise Trouble(f"{' '.join(map(str, args))}: {(p.stderr or p.stdout).strip()}")
    return p


def wait_for(condition, timeout, step=0.1):
    end = time.monotonic() + timeout
    while True:
        got = condition()
        if got or time.monotonic() > end:
            return got
        time.sleep(step)


# ---- network ------------------------------------------------------------------------------------------------------

class Network:
    """n members and, as the last nodes, their clients and a process that is none of the members. Without namespaces (plain) all is on loopback
    and no link can be cut."""

    def __init__(self, n, seed, plain, base_port=24000):
        self.n, self.plain, self.base_port = n, plain, base_port
        self.switch = None
        if plain:
            return
        self.names = [f"chaos{os.getpid()}-{i}" for i in range(n + 2)]
        for name in self.names:
            run("ip", "netns", "add", name, check=True)
        pairs = [f"{name}={self.address(i)}" for i, name in enumerate(self.names)]
        self.switch = subprocess.Popen([os.path.join(TOOLS, "switch"), *pairs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.switch.stdout.readline() != "ready\n":
            raise Trouble("the switch did not start")
        self.tell(f"seed {seed}")

    def address(self, i):
        return "127.0.0.1" if self.plain else f"10.77.0.{i + 1}"

    def client_url(self, i):
        return f"http://{self.address(i)}:{self.base_port + i if self.plain else 2379}"

    def peer_url(self, i, moved=False):
        return f"http://{self.address(i)}:{(self.base_port + 20 + i if self.plain else 2380) + 10 * moved}"

    def enter(self, i):
        """What to put before a command so that it runs as node i."""
        return [] if self.plain else ["nsenter", f"--net=/run/netns/{self.names[i]}"]

    def tell(self, command):
        self.switch.stdin.write(command + "\n")
        self.switch.stdin.flush()
        answer = self.switch.stdout.readline()
        if not answer.startswith("ok"):
            raise Trouble(f"switch: {command}: {answer.strip() or 'gone'}")
        return answer.split()[1:]

    def link(self, a, b, **what):
        self.tell(f"link {a} {b} " + " ".join(f"{k}={int(v)}" for k, v in what.items()))

    def close(self):
        if self.plain:
            return
        if self.switch:
            self.switch.stdin.close()
            self.switch.wait(10)
        for name in self.names:
            run("ip", "netns", "del", name)


# ---- disks --------------------------------------------------------------------------------------------------------

class Disk:
    """A small file system of a member's own, or a plain folder."""

    def __init__(self, path, real):
        self.path, self.real, self.image, self.full = path, real, path + ".img", False
        os.makedirs(path)
        if real:
            run("truncate", "-s", DISK_BYTES, self.image, check=True)
            run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", self.image, check=True)
            self.mount()

    def mount(self):
        run("mount", "-o", "loop", self.image, self.path, check=True)
        if not self.full:
            self.make_room()  # the loss of power may have brought the ballast back

    def unmount(self):
        if self.real:
            gone = wait_for(lambda: run("umount", self.path).returncode == 0, 20)
            if not gone:
                raise Trouble(f"{self.path} cannot be unmounted")

    def lose_power(self):
        """From now on nothing reaches the disk: what was not synced is lost."""
        fd = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_NO_FLUSH))
        os.close(fd)

    def restore_power(self):
        self.unmount()
        self.mount()

    def fill(self, leave):
        """Takes all room but `leave` bytes."""
        self.full = True
        s = os.statvfs(self.path)
        size = s.f_bavail * s.f_bsize - leave
        if size > 0:
            run("fallocate", "-l", size, os.path.join(self.path, "ballast"))

    def make_room(self):
        self.full = False
        try:
            os.unlink(os.path.join(self.path, "ballast"))
        except FileNotFoundError:
            pass

    def wipe(self):
        for name in os.listdir(self.path):
            if name != "lost+found":
                p = os.path.join(self.path, name)
                shutil.rmtree(p) if os.path.isdir(p) else os.unlink(p)

    def close(self):
        if self.real:
            run("umount", "-l", self.path)


class Shim:
    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.write(b"\0" * 8 * len(SHIM_WORDS))
        self.file = open(path, "r+b", buffering=0)

    def get(self, word):
        return struct.unpack("<q", os.pread(self.file.fileno(), 8, 8 * SHIM_WORDS.index(word)))[0]

    def set(self, word, value):
        os.pwrite(self.file.fileno(), struct.pack("<q", int(value)), 8 * SHIM_WORDS.index(word))

    def drift(self, ppm):
        """The monotonic clock goes on from where it is, at another pace."""
        now = time.monotonic_ns()
        gained = (now - self.get("drift_from_ns")) // 1000000 * self.get("drift_ppm") if self.get("drift_ppm") else 0
        self.set("drift_ppm", 0)
        self.set("mono_offset_ns", self.get("mono_offset_ns") + gained)
        self.set("drift_from_ns", now)
        self.set("drift_ppm", ppm)

    def heal(self):
        for word in ("sync_delay_us", "write_delay_us", "sync_errno", "write_errno"):
            self.set(word, 0)


# ---- processes ------------------------------------------------------------------------------------------------------

def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Member:
    def __init__(self, cluster, i, name=None):
        self.cluster, self.i, self.name = cluster, i, name or f"n{i + 1}"
        self.called = self.name     # what it is started as
        self.disk = Disk(os.path.join(cluster.dir, self.name), cluster.can("loop"))
        self.shim = Shim(os.path.join(cluster.dir, self.name + ".shim")) if cluster.can("shim") else None
        self.log = os.path.join(cluster.dir, self.name + ".log")
        open(self.log, "ab").close()
        self.proc, self.wanted, self.paused, self.held = None, True, False, False
        self.excuse = None          # of EXCUSES
        self.pardons = {}           # excuses that were, and until when they hold
        self.state, self.initial, self.moved = "new", None, False
        self.starts = 0

    @property
    def data(self):
        return os.path.join(self.disk.path, "data")

    @property
    def peer_url(self):
        return self.cluster.net.peer_url(self.i, self.moved)

    def start(self):
        c = self.cluster
        env = dict(os.environ)
        if self.shim:
            env.update(LD_PRELOAD=os.path.join(TOOLS, "shim.so"), CHAOS_SHIM=self.shim.path)
        args = [PINTLE, "server", "--name", self.called, "--data-dir", self.data, "--listen-client-urls", c.net.client_url(self.i),
                "--listen-peer-urls", self.peer_url, "--initial-cluster", self.initial or c.initial, "--initial-cluster-token", "chaos",
                "--initial-cluster-state", self.state, *c.flags, *c.extra_flags(self.i)]
        with open(self.log, "ab") as log:
            log.write(f"---- start {self.starts} at {time.monotonic():.3f}\n".encode())
            self.proc = subprocess.Popen([*c.net.enter(self.i), *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                                         preexec_fn=die_with_parent)
        self.starts += 1
        self.paused = False

    @property
    def up(self):
        return self.proc is not None and self.proc.poll() is None

    def kill(self, sig=signal.SIGKILL, timeout=60):
        """It ends because the harness says so."""
        self.cluster.look()
        p, self.proc = self.proc, None
        if not p:
            return
        p.send_signal(sig)
        if self.paused:
            p.send_signal(signal.SIGCONT)
        try:
            p.wait(timeout)
        except subprocess.TimeoutExpired:
            self.cluster.wrong(f"{self.name} does not end {timeout} s after signal {sig}")
            p.kill()
            p.wait(30)

    def forgive(self):
        """The fault is over; what it did may show a little later."""
        self.pardon(self.excuse)
        self.excuse = None

    def pardon(self, excuse):
        self.pardons[excuse] = time.monotonic() + 15

    def excuses(self):
        return [x for x in EXCUSES if x == self.excuse or time.monotonic() < self.pardons.get(x, 0)]

    def pause(self):
        if self.up:
            self.proc.send_signal(signal.SIGSTOP)
            self.paused = True

    def resume(self):
        if self.up and self.paused:
            self.proc.send_signal(signal.SIGCONT)
        self.paused = False

    def last_lines(self, n=5):
        with open(self.log, errors="replace") as f:
            return "".join(f.readlines()[-n:]).strip()

    def last_words(self):
        """Of its log, without what other threads were just saying."""
        said = re.findall(r"^(?:\S+ error |pintle server: ).*", self.last_lines(20), re.M)
        return said[-1] if said else ""

    def log_end(self):
        return os.path.getsize(self.log)

    def said(self, since):
        """From that byte of its log on."""
        with open(self.log, errors="replace") as f:
            f.seek(since)
            return f.read()


class Cluster:
    def __init__(self, n, dir, seed, missing, flags=(), slots=None):
        """`slots`: room for members beyond the first n."""
        self.n, self.dir, self.seed, self.missing, self.flags = n, dir, seed, missing, list(flags)
        self.slots = slots or n
        self.problems, self.rotten = [], False
        self.net = Network(self.slots, seed, not self.can("net"))
        self.initial = ",".join(f"n{i + 1}={self.net.peer_url(i)}" for i in range(n))
        self.members = [Member(self, i) for i in range(self.slots)]
        for m in self.members[n:]:
            m.wanted = False
        self.twin = None

    def another(self, m):
        """A process on a disk and at a place of its own that is started as member m."""
        if not self.twin:
            self.twin = Member(self, self.slots + 1, "twin")
        self.twin.disk.wipe()
        self.twin.called, self.twin.state = m.name, "existing"
        self.twin.initial = (m.initial or self.initial).replace(m.peer_url, self.twin.peer_url)
        return self.twin

    def can(self, what):
        return what not in self.missing and what != "memory"

    def extra_flags(self, i):
        return []

    def wrong(self, text):
        self.problems.append(text)
        if len(self.problems) > 20:
            raise Trouble("too much went wrong")
        print(f"# WRONG: {text}", flush=True)

    def differences(self):
        """Members whose comparison (docs/operations.md) has named somebody whose memory nobody has touched."""
        return [] if self.rotten else [f"{m.name}: {line.strip()}" for m in self.members
                                       for line in open(m.log, errors="replace") if "state differs" in line][:4]

    def say(self, text):
        """Into the story of the episode."""
        with open(os.path.join(self.dir, "story.txt"), "a") as f:
            f.write(f"{time.monotonic():.3f}     {text}\n")

    def start(self):
        for m in self.members:
            if m.wanted:
                m.start()
        return self

    def present(self):
        return [m for m in self.members if m.wanted]

    def look(self):
        """Members that ended by themselves: with an excuse, and the words for it, or wrong. They stay down until somebody starts them."""
        for m in self.members:
            if m.proc is None or m.proc.poll() is None:
                continue
            code, m.proc = m.proc.returncode, None
            excuses, said = m.excuses(), m.last_words()
            if code != 1 or not any(re.search(EXCUSES[x], said, re.I) for x in excuses):
                self.wrong(f"{m.name} ended by itself ({code}), and not for {' or '.join(excuses) or 'a fault'}: {m.last_lines()}")

    def revive(self):
        """Starts what is down and has nothing that holds it down."""
        self.look()
        for m in self.present():
            if not m.proc and not m.excuse and not m.held:
                m.start()

    def ctl(self, *args, endpoints=None, timeout=15):
        urls = ",".join(self.net.client_url(m.i) for m in endpoints or self.present())
        try:
            return run(PINTLE, "ctl", *args, "--endpoints", urls, "--command-timeout", "3s", "--dial-timeout", "1s", timeout=timeout,
                       prefix=self.net.enter(self.slots))
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(args, 124, "", "timed out")

    def status(self, m):
        try:
            return json.loads(self.ctl("endpoint", "status", "-w", "json", endpoints=[m]).stdout)[0]["Status"]
        except (ValueError, IndexError, KeyError):
            return None

    def leader(self):
        """Who believes to lead, in the newest term; None if nobody says so."""
        best = None
        for m in self.members:
            s = self.status(m) if m.up and not m.paused else None
            if s and s.get("leader") and s["leader"] == s["header"].get("member_id") and (not best or s["raftTerm"] > best[1]):
                best = (m, s["raftTerm"])
        return best[0] if best else None

    def healthy(self):
        return self.ctl("endpoint", "health").returncode == 0

    def close(self):
        processes = self.members + ([self.twin] if self.twin else [])
        for m in processes:
            if m.up:
                m.proc.kill()
                m.proc.wait(30)
        for m in processes:
            m.disk.close()
        self.net.close()


# ---- what this machine can do ------------------------------------------------------------------------------------------

def find_missing(dir):
    """{capability: why not}."""
    missing = {}
    if os.geteuid() != 0:
        missing["net"] = missing["loop"] = "not root"
    else:
        if not os.path.exists("/dev/net/tun"):
            missing["net"] = "no /dev/net/tun"
        elif not shutil.which("ip") or not shutil.which("nsenter"):
            missing["net"] = "iproute2 and util-linux are needed"
        else:
            name = f"chaos{os.getpid()}-t"
            p = run("ip", "netns", "add", name)
            run("ip", "netns", "del", name)
            if p.returncode:
                missing["net"] = f"no network namespaces: {p.stderr.strip()}"
        probe = os.path.join(dir, "probe")
        try:
            d = Disk(probe, True)
            d.lose_power()
            d.restore_power()
            d.close()
        except (Trouble, OSError, subprocess.SubprocessError) as e:
            run("umount", "-l", probe)
            missing["loop"] = f"no ext4 on a loop device that can be shut down: {e}"
    child = subprocess.Popen(["sleep", "10"])
    try:
        open(f"/proc/{child.pid}/mem", "r+b").close()
    except OSError as e:
        missing["memory"] = f"a process's memory cannot be written: {e}"
    child.kill()
    child.wait()
    if "sanitize" in B or os.path.basename(B) in ("asan", "tsan"):
        missing["shim"] = "a sanitizer does not like to be preloaded"
    return missing
